import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from snnsweep.errors import SpaceError, UserError
from snnsweep.results import store
from snnsweep.sweep import study_file
from snnsweep.sweep.earlier import compatible, warm
from snnsweep.sweep.samplers import seeded
from snnsweep.sweep.search import StudySearcher, Teller
from snnsweep.sweep.space import Space
from snnsweep.sweep.study import (
    STUDY_FILE,
    WARM,
    check_has,
    objectives_of,
    open_study,
    own,
    put_back,
    read_study,
    running,
)

OBJECTIVES = {"clean_accuracy": "maximize", "time/attack_s": "minimize"}
RANDOM: Callable[[int], BaseSampler] = seeded("random", 0, 4)
TPE: Callable[[int], BaseSampler] = seeded("tpe", 0, 4)


def space(body: str) -> Space:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return Space("mine.py", f"OBJECTIVES = {tuple(OBJECTIVES)}\ndef space(trial):\n{lines}\n")


PLAIN = space('trial.suggest_float("neuron.v_threshold", 0.1, 2.0)')


def opened(folder: Path, sampler: Callable[[int], BaseSampler] = RANDOM, **given: object) -> optuna.Study:
    folder.mkdir(exist_ok=True)
    return open_study(folder, "s", OBJECTIVES, sampler, **given)


def asked(study: optuna.Study, trials: int, of: Space = PLAIN) -> list[dict]:
    search = StudySearcher(study, of, {}, {})
    return [search.suggest("any") for _ in range(trials)]


def stock(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(folder / STUDY_FILE))))


def test_another_process_reads_the_study(tmp_path: Path):
    study = opened(tmp_path)
    asked(study, 1)
    Teller(study).tell(0, "finished", {"clean_accuracy": 0.5, "time/attack_s": 1.0})
    for other in (stock(tmp_path), read_study(tmp_path, "s")):
        assert objectives_of(other) == OBJECTIVES
        assert other.trials[0].values == [0.5, 1.0]


def test_the_dashboard_serves_the_journal(tmp_path: Path):
    dashboard = pytest.importorskip("optuna_dashboard")
    study = opened(tmp_path)
    asked(study, 3)
    app = dashboard.wsgi(dashboard._storage_url.get_storage(str(tmp_path / STUDY_FILE)))
    said = {}
    for path in ("/api/studies", "/api/studies/0"):
        answer = app({"PATH_INFO": path, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}, lambda *head: None)
        said[path] = json.loads(b"".join(answer))
    assert [found["study_name"] for found in said["/api/studies"]["study_summaries"]] == ["s"]
    assert said["/api/studies/0"]["objective_names"] == list(OBJECTIVES)
    assert [trial["state"] for trial in said["/api/studies/0"]["trials"]] == ["Running"] * 3


def test_a_journal_cut_anywhere_opens_with_all_its_whole_lines(tmp_path: Path):
    asked(opened(tmp_path), 2)
    file = tmp_path / STUDY_FILE
    content = file.read_bytes()
    last_but_one = content[:-1].rfind(b"\n") + 1
    for cut in (*range(last_but_one - 2, len(content), 7), len(content)):
        file.write_bytes(content[:cut])
        study = opened(tmp_path)
        assert file.read_bytes() == content[: content[:cut].rfind(b"\n") + 1]
        assert len(study.trials[0].params) == 1
        kept = 2 if cut >= last_but_one else 1  # the last line is a parameter, the one before it the trial
        assert len(study.trials) == kept
        asked(study, 1)
        assert len(stock(tmp_path).trials) == kept + 1


def test_optuna_itself_would_append_to_the_cut_line_and_never_read_the_file_again(tmp_path: Path):
    asked(opened(tmp_path), 1)
    file = tmp_path / STUDY_FILE
    file.write_bytes(file.read_bytes()[:-5])
    broken = stock(tmp_path)
    broken.set_user_attr("said", 1)
    assert stock(tmp_path).user_attrs == {}  # it was not
    with pytest.raises(ValueError, match=r"Expecting|delimiter|Extra data"):
        broken.set_user_attr("said", 2)
    with pytest.raises(UserError, match=r"study.log cannot be opened \(.*\); restore it"):
        opened(tmp_path)


def test_a_full_disk_costs_no_more_than_the_line_that_met_it(tmp_path: Path):
    study = opened(tmp_path)
    asked(study, 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = (tmp_path / STUDY_FILE).stat().st_size + 20
    teller, values = Teller(study), {"clean_accuracy": 0.5, "time/attack_s": 1.0}
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            teller.tell(0, "finished", values)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / STUDY_FILE).stat().st_size == full  # half a line
    teller.tell(1, "finished", values)
    teller.tell(0, "finished", values)
    assert [trial.values for trial in stock(tmp_path).trials] == [[0.5, 1.0]] * 2


@pytest.mark.parametrize("target", ["study.log", "/a/folder/that/was/moved/study.log"])
def test_the_lock_of_a_killed_process_is_taken_away(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(study_file, "_LOCK_S", 0.05)
    asked(opened(tmp_path), 1)
    os.symlink(target, tmp_path / f"{STUDY_FILE}.lock")
    asked(opened(tmp_path), 1)
    assert len(stock(tmp_path).trials) == 2
    assert [path.name for path in tmp_path.iterdir()] == [STUDY_FILE]


@pytest.mark.parametrize("url", ["sqlite:///{}/study.db", "journal://{}/elsewhere.log"])
def test_a_study_lies_where_it_is_asked_to(url: str, tmp_path: Path):
    url = url.format(tmp_path)
    given = asked(opened(tmp_path, url=url), 2)
    assert not (tmp_path / STUDY_FILE).exists()
    study = opened(tmp_path, url=url)
    assert running(study) == [0, 1]
    search = StudySearcher(study, PLAIN, {}, {}, running(study))
    assert [search.suggest("any") for _ in range(2)] == given
    Teller(study).tell(1, "stopped", {"clean_accuracy": 0.5}, violation=0.5)
    assert [trial.state.name for trial in read_study(tmp_path, "s", url).trials] == ["RUNNING", "COMPLETE"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://me:hunter2@127.0.0.1:1/x", "psycopg|refused"),
        ("sqlite:////no/such/folder/x.db", "unable to open"),
        ("sqlite:///{}/no.db", "not a database"),
        ("redis://me:hunter2@host", "redis"),
        ("journal://relative.log", "absolute"),
        ("journal:///no/such/folder/x.log", "No such file|no study"),
        ("nonsense?password=hunter2", "parse"),
    ],
)
def test_an_address_that_cannot_be_used_is_told_without_its_secrets(url: str, reason: str, tmp_path: Path):
    (tmp_path / "no.db").write_text("something else" * 100)
    for use in (lambda url: opened(tmp_path, url=url), lambda url: read_study(tmp_path, "s", url)):
        with pytest.raises(UserError, match=reason) as caught:
            use(url.format(tmp_path))
        assert "hunter2" not in str(caught.value)
        assert "journal:///PATH" in str(caught.value) or "no study" in str(caught.value)


def test_other_objectives_are_refused_where_optuna_keeps_the_old_ones_silently(tmp_path: Path):
    opened(tmp_path)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / STUDY_FILE)))
    silent = optuna.create_study(
        storage=storage, study_name="s", directions=["minimize", "minimize"], load_if_exists=True
    )
    assert [way.name for way in silent.directions] == ["MAXIMIZE", "MINIMIZE"]
    for other in (
        {"clean_accuracy": "minimize", "time/attack_s": "minimize"},
        {"robust_accuracy": "maximize", "time/attack_s": "minimize"},
        {"clean_accuracy": "maximize"},
        {"time/attack_s": "minimize", "clean_accuracy": "maximize"},
    ):
        with pytest.raises(UserError) as caught:
            open_study(tmp_path, "s", other, RANDOM)
        assert "study: clean_accuracy (maximize), time/attack_s (minimize)" in str(caught.value)
        assert f"space: {next(iter(other))} ({next(iter(other.values()))})" in str(caught.value)
    assert objectives_of(opened(tmp_path)) == OBJECTIVES


def test_a_study_without_names_for_its_values_gets_them_only_while_it_is_empty(tmp_path: Path):
    storage = JournalStorage(JournalFileBackend(str(tmp_path / STUDY_FILE)))
    optuna.create_study(storage=storage, study_name="s", directions=list(OBJECTIVES.values()))  # killed before naming
    other = optuna.create_study(storage=storage, study_name="t", directions=list(OBJECTIVES.values()))
    assert objectives_of(opened(tmp_path)) == OBJECTIVES
    other.ask()
    with pytest.raises(UserError, match="study: unnamed 0"):
        open_study(tmp_path, "t", OBJECTIVES, RANDOM)


def test_a_new_sweep_takes_no_study_that_has_trials(tmp_path: Path):
    study = opened(tmp_path, fresh=True)
    opened(tmp_path, fresh=True)
    asked(study, 1)
    with pytest.raises(UserError, match=rf"1 trials already: `snnsweep resume {tmp_path}` continues it"):
        opened(tmp_path, fresh=True)


def test_a_resumed_sweep_begins_no_study(tmp_path: Path):
    """In the journal of another sweep, say, which stays as it was."""
    opened(tmp_path)
    before = (tmp_path / STUDY_FILE).read_bytes()
    with pytest.raises(UserError, match=r"holds no study 't' but 's'; restore the sweep's own"):
        open_study(tmp_path, "t", OBJECTIVES, RANDOM, fresh=False)
    assert (tmp_path / STUDY_FILE).read_bytes() == before


def test_a_study_that_lacks_trials_that_ran_is_refused(tmp_path: Path):
    study = opened(tmp_path)
    asked(study, 3)
    check_has(study, [0, 2])
    with pytest.raises(UserError, match="has 3 trials, and not t0003, t0012, which ran"):
        check_has(study, [1, 12, 3])


THEN = 'trial.suggest_float("neuron.v_threshold", 0.5, 2.0)\ntrial.suggest_int("encoder.time_steps", 2, 8)\n'
THEN += 'trial.suggest_categorical("model.residual", ["sew_add", "spiking"])\n'
THEN += 'trial.suggest_float("neuron.tau", 1.1, 4.0)'


def test_a_space_that_no_longer_fits_is_told_with_all_its_clashes(tmp_path: Path):
    study = opened(tmp_path)
    first, second = asked(study, 2, space(THEN))
    compatible(study, space(THEN), {}, {}, 0)
    now = THEN.replace("float(", "int(", 1).replace("0.5, 2.0", "1, 2").replace("2, 8", "2, 8, log=True")
    now = now.replace('"spiking"', '"membrane"').replace("1.1, 4.0", "20, 40.0")
    with pytest.raises(SpaceError) as caught:
        compatible(study, space(now), {}, {}, 0)
    taus = [suggestion["flat"]["neuron.tau"] for suggestion in (first, second)]
    assert str(caught.value).splitlines() == [
        "mine.py: does not fit the study 's'",
        "  encoder.time_steps: was an int from 2 to 8; now an int from 2 to 8, log",
        "  model.residual: was one of 'sew_add', 'spiking'; now one of 'sew_add', 'membrane'",
        "  neuron.v_threshold: was a float from 0.5 to 2; now an int from 1 to 2",
        *(
            f"  neuron.tau: is {tau!r} in t000{n}, which is running; now a float from 20 to 40"
            for n, tau in enumerate(taus)
        ),
        "put the space back as it was, or begin a new sweep",
    ]
    for told in range(2):
        only = THEN.replace("1.1, 4.0", "20, 40.0")
        with pytest.raises(SpaceError) as caught:
            compatible(study, space(only), {}, {}, 0)
        assert str(caught.value).splitlines()[1:-1] == [
            f"  neuron.tau: is {taus[number]!r} in t000{number}, which is running; now a float from 20 to 40"
            for number in range(told, 2)
        ]
        with pytest.raises(SpaceError, match=rf"neuron.tau: is .* in t000{told}, .*; now the space does not ask"):
            compatible(study, space(THEN.rpartition("\n")[0]), {}, {}, 0)
        Teller(study).tell(told, "failed", {})
    compatible(study, space(THEN.replace("1.1, 4.0", "20, 40.0")), {}, {}, 0)  # all told: other bounds may be
    asked(study, 1, space(THEN))
    put_back(study, 2)
    with pytest.raises(SpaceError, match=r"neuron.tau: is .* in t0002, which was chosen and waits; now a"):
        compatible(study, space(THEN.replace("1.1, 4.0", "20, 40.0")), {}, {}, 0)
    asked(study, 1, space(THEN))
    Teller(study).tell(2, "failed", {})
    compatible(study, space(THEN.rpartition("\n")[0]), {}, {}, 0)


def test_a_space_that_may_raise_is_judged_by_what_it_asked(tmp_path: Path):
    study = opened(tmp_path)
    raising = space('if trial.suggest_float("neuron.tau", 1.1, 4.0) > 0: raise ValueError("always")')
    asked(study, 1, raising)
    asked(study, 1, space(THEN))
    compatible(study, raising, {}, {}, 0)


def other_sweep(folder: Path, best: float, trials: int = 24, of: Space = PLAIN) -> optuna.Study:
    """Told trials of another sweep, with the best thresholds near `best`, and a failed, and a running one."""
    study = opened(folder)
    facts = dict.fromkeys(("mlflow_experiment_id", "smoke", "status", "tracking_uri"), "")
    store.write_json(folder / store.SWEEP, facts | {"name": "s", "objectives": OBJECTIVES})
    teller = Teller(study)
    for suggestion in asked(study, trials, of):
        far = abs(suggestion["flat"]["neuron.v_threshold"] - best)
        teller.tell(suggestion["number"], "finished", {"clean_accuracy": 1 - far / 2, "time/attack_s": far})
    asked(study, 2, of)
    teller.tell(trials, "failed", {}, "out of memory")
    return study


def near(study: optuna.Study, best: float) -> int:
    return sum(abs(suggestion["flat"]["neuron.v_threshold"] - best) < 0.3 for suggestion in asked(study, 8))


def test_a_warm_start_leads_tpe_to_where_another_sweep_was_good(tmp_path: Path):
    other = other_sweep(tmp_path / "other", 1.6)
    colds = 0
    for seed in range(3):
        colds += near(opened(tmp_path / f"cold-{seed}", seeded("tpe", seed, 4)), 1.6)
        study = opened(tmp_path / f"warm-{seed}", seeded("tpe", seed, 4))
        assert warm(study, tmp_path / "other", PLAIN, {}, {}, 0) == 25
        assert near(study, 1.6) >= 6
        assert warm(study, tmp_path / "other", PLAIN, {}, {}, 0) == 0
    assert colds <= 12  # of 24; 7.6 are expected of a uniform draw
    copies = study.get_trials()[:25]
    assert [copy.values for copy in copies] == [trial.values for trial in other.get_trials()[:25]]
    assert [copy.constraints for copy in copies] == [trial.constraints for trial in other.get_trials()[:25]]
    assert copies[3].user_attrs == {"status": "finished", WARM: f"{tmp_path / 'other'} t0003"}


def test_a_warm_start_is_none_of_the_sweeps_trials(tmp_path: Path):
    other_sweep(tmp_path / "other", 1.6)
    study = opened(tmp_path / "mine", TPE)
    warm(study, tmp_path / "other", PLAIN, {}, {}, 0)
    first = len(study.trials)
    assert running(study) == []
    assert own(study) == []
    assert asked(study, 1)[0]["number"] == first == 25
    assert [trial.number for trial in own(study)] == [25]
    Teller(study).tell(3, "failed", {})
    assert study.get_trials()[3].user_attrs["status"] == "finished"
    third = opened(tmp_path / "third", TPE)
    store.write_json(tmp_path / "mine" / store.SWEEP, json.loads((tmp_path / "other" / store.SWEEP).read_text()))
    Teller(study).tell(25, "finished", {"clean_accuracy": 0.5, "time/attack_s": 1.0})
    assert warm(third, tmp_path / "mine", PLAIN, {}, {}, 0) == 1  # its own alone


def test_rays_searcher_takes_no_warm_start_for_a_space_that_is_a_function():
    with pytest.raises(TypeError, match="not yet supported"):
        OptunaSearch(
            lambda trial: trial.suggest_float("x", 0, 1) and None,
            metric=list(OBJECTIVES),
            mode=["max", "min"],
            points_to_evaluate=[{"x": 0.5}],
            evaluated_rewards=[[0.5, 1.0]],
        ).suggest("a")


def test_what_lies_outside_of_the_space_stays_behind(tmp_path: Path):
    other = other_sweep(tmp_path / "other", 1.6)
    study = opened(tmp_path / "mine", seeded("gp", 0, 4))
    narrow = space('trial.suggest_float("neuron.v_threshold", 1.0, 2.0)')
    inside = [t.number for t in other.trials[:25] if t.params["neuron.v_threshold"] >= 1]
    assert 5 < warm(study, tmp_path / "other", narrow, {}, {}, 0) == len(inside) < 25
    assert {trial.distributions["neuron.v_threshold"].low for trial in study.trials} == {1.0}
    values = [suggestion["flat"]["neuron.v_threshold"] for suggestion in asked(study, 2, narrow)]
    assert np.abs(np.array(values) - 1.6).min() < 0.1
    with pytest.raises(UserError, match=r"none of its 25 told trials lies in mine\.py"):
        warm(study, tmp_path / "other", space('trial.suggest_float("neuron.v_threshold", 7.0, 8.0)'), {}, {}, 0)


def test_a_warm_start_that_cannot_be_is_refused(tmp_path: Path):
    other_sweep(tmp_path / "other", 1.6, trials=2)
    study = opened(tmp_path / "mine", TPE)
    clash = space('trial.suggest_int("neuron.v_threshold", 1, 2)')
    with pytest.raises(UserError, match=r"v_threshold: was a float from 0.1 to 2; now an int from 1 to 2"):
        warm(study, tmp_path / "other", clash, {}, {}, 0)
    with pytest.raises(UserError, match=r"no sweep in .*nowhere"):
        warm(study, tmp_path / "nowhere", PLAIN, {}, {}, 0)
    other_objectives = open_study(tmp_path / "mine", "o", {"clean_accuracy": "maximize"}, TPE)
    with pytest.raises(UserError, match="the same objectives"):
        warm(other_objectives, tmp_path / "other", PLAIN, {}, {}, 0)
    study.sampler = RANDOM(0)
    with pytest.raises(UserError, match="--sampler tpe or gp"):
        warm(study, tmp_path / "other", PLAIN, {}, {}, 0)
    (tmp_path / "other" / STUDY_FILE).unlink()
    study.sampler = TPE(0)
    with pytest.raises(UserError, match=r"no study in .*study\.log"):
        warm(study, tmp_path / "other", PLAIN, {}, {}, 0)
    assert study.trials == []


def test_listings_are_optunas_own(tmp_path: Path):
    study, x = opened(tmp_path), {"x": optuna.distributions.FloatDistribution(0, 1)}
    listed = (None, (TrialState.WAITING,), (TrialState.RUNNING, TrialState.WAITING), (TrialState.COMPLETE,))
    seen = set()
    for number in range(12):
        trial = study.ask(x)
        if number % 3:
            study.tell(trial, [0.0, 1.0])
        elif number % 2:
            put_back(study, trial.number)
        seen |= {trial.state for trial in study.get_trials(deepcopy=False)}
        for states in listed:
            found = study._storage.get_all_trials(study._study_id, deepcopy=False, states=states)
            assert found == JournalStorage.get_all_trials(study._storage, study._study_id, False, states)
    assert seen == {TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING}
    with pytest.raises(KeyError):
        study._storage.get_all_trials(study._study_id + 1, deepcopy=False)
