import math
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from snnsweep.errors import SpaceError, UserError
from snnsweep.result import DEFAULT_OBJECTIVES
from snnsweep.sweep.samplers import SAMPLERS, OneThreadGP, check_sampler, seeded
from snnsweep.sweep.search import LEAST_VIOLATION, UNBOUNDED, StudySearcher, Teller
from snnsweep.sweep.space import Space
from snnsweep.sweep.study import CONSTRAINT, again_as_new, open_study, own, running

NAMES = ("clean_accuracy", "time/attack_s")
SPACE = Space(
    "mine.py",
    f"OBJECTIVES = {NAMES}\n"
    "def space(trial):\n"
    '    trial.suggest_float("neuron.v_threshold", 0.1, 2.0)\n'
    '    if trial.number == 3: raise ValueError("a rare branch")\n'
    '    return {"model.depth": 10}\n',
)
PLAIN = Space("plain.py", SPACE.text.replace("trial.number == 3", "False"))
GRID = Space(
    "grid.py",
    "def space(trial):\n"
    '    if trial.suggest_categorical("model.residual", ["sew_add", "spiking"]) == "sew_add":\n'
    '        trial.suggest_float("neuron.v_threshold", 0.5, 1.0, step=0.25)\n',
)
COMBINATIONS = [("sew_add", 0.5), ("sew_add", 0.75), ("sew_add", 1.0), ("spiking", 1.0)]


def searcher(
    folder: Path, sampler: str = "random", seed: int = 0, space: Space = SPACE, again: Sequence[int] = ()
) -> StudySearcher:
    folder.mkdir(exist_ok=True)
    study = open_study(folder, "s", space.objectives, seeded(sampler, seed, 4))
    return StudySearcher(study, space, {"seed": 5}, {}, again)


def fresh_study() -> optuna.Study:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.set_metric_names(list(NAMES))
    return study


def got(clean: float, seconds: float) -> dict[str, float]:
    return dict(zip(NAMES, (clean, seconds), strict=True))


def threshold(search: StudySearcher) -> tuple[int, float]:
    suggestion = search.suggest("any")
    return suggestion["number"], suggestion["flat"]["neuron.v_threshold"]


def test_every_end_is_told_finite_values_and_only_the_finished_count():
    study = fresh_study()
    for _ in range(8):
        study.ask()
    teller = Teller(study)
    teller.tell(0, "failed", {}, "before anything was seen")
    teller.tell(1, "finished", got(0.9, 30.0))
    teller.tell(2, "finished", got(0.8, 20.0))
    teller.tell(3, "infeasible", got(0.99, 1.0), "no gradient")
    teller.tell(4, "failed", got(0.7, 1.0))
    teller.tell(5, "stopped", {"clean_accuracy": 0.6, "time/attack_s": None}, violation=0.75)
    teller.tell(6, "finished", got(math.nan, 1.0))
    teller.tell(7, "stopped", {}, "no rung reached")
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 8
    worst = [0.0, 30.0]
    assert [trial.values for trial in trials] == [
        [0.0, UNBOUNDED],
        [0.9, 30.0],
        [0.8, 20.0],
        worst,
        worst,
        [0.6, 30.0],
        worst,
        worst,
    ]
    assert [trial.constraints for trial in trials] == [{CONSTRAINT: c} for c in (1, 0, 0, 1, 1, 0.75, 1, 1)]
    assert [trial.user_attrs["status"] for trial in trials[2:6]] == ["finished", "infeasible", "failed", "stopped"]
    assert trials[3].user_attrs["cause"] == "no gradient"
    assert {trial.number for trial in study.best_trials} == {1, 2}


ends = st.tuples(
    st.sampled_from(["finished", "stopped", "failed", "infeasible"]),
    st.dictionaries(st.sampled_from((*NAMES, "other")), st.floats() | st.none()),
    st.none() | st.floats(),
)


@given(st.lists(ends, min_size=1, max_size=12), st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_whatever_ends_no_figure_that_is_not_finite_reaches_optuna_and_none_is_worse_than_the_worst(
    told: list, resumed_at: int
):
    study = fresh_study()
    teller = Teller(study)
    accuracies, seconds = [], []
    for number, (status, values, violation) in enumerate(told):
        if number == resumed_at:
            teller = Teller(study)  # what it knew of the worst is in the study
        study.ask()
        teller.tell(number, status, values, violation=violation)
        trial = study.get_trials()[number]
        found = [values.get(name) for name in NAMES]
        whole = all(value is not None and math.isfinite(value) for value in found)
        worst = [min([0.0, *accuracies]), max(seconds, default=UNBOUNDED)]
        if status == "finished" and whole:
            expected = found
            accuracies.append(found[0])
            seconds.append(found[1])
        elif status == "stopped":
            pairs = zip(found, worst, strict=True)
            expected = [own if own is not None and math.isfinite(own) else bad for own, bad in pairs]
        else:
            expected = worst
        assert (trial.state, trial.values) == (TrialState.COMPLETE, expected)
        assert (trial.constraints[CONSTRAINT] == 0) == (status == "finished" and whole)
        assert 0 <= trial.constraints[CONSTRAINT] <= 1
        if status == "stopped" and violation is not None and LEAST_VIOLATION <= violation <= 1:
            assert trial.constraints[CONSTRAINT] == violation


def test_a_trial_is_told_once_and_only_one_that_was_asked(tmp_path: Path):
    search = searcher(tmp_path)
    search.suggest("a")
    Teller(search.study).tell(0, "finished", got(0.5, 1.0))
    for study in (search.study, searcher(tmp_path).study):
        Teller(study).tell(0, "failed", {}, "too late")
    with pytest.raises(UserError, match=r"has 1 trials, and not t0007, which ran"):
        Teller(search.study).tell(7, "finished", got(0.7, 1.0))
    (trial,) = search.study.get_trials()
    assert trial.values == [0.5, 1.0]
    assert trial.constraints == {CONSTRAINT: 0}
    assert trial.user_attrs == {"status": "finished"}


@pytest.mark.filterwarnings("error::UserWarning")
def test_telling_a_trial_looks_at_that_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    search = searcher(tmp_path, space=PLAIN)
    teller, number = Teller(search.study), threshold(search)[0]
    monkeypatch.setattr(optuna.Study, "get_trials", lambda *_, **__: pytest.fail("all trials are listed"))
    for _ in range(2):
        teller.tell(number, "finished", got(0.5, 0.5))
    assert search.study._storage.get_trial(number).values == [0.5, 0.5]


def test_what_a_crash_left_half_told_is_told_whole():
    study = fresh_study()
    study.ask().set_constraint(CONSTRAINT, 0.5)
    Teller(study).tell(0, "stopped", got(0.5, 2.0), violation=0.5)
    assert study.get_trials()[0].values == [0.5, 2.0]
    assert study.get_trials()[0].constraints == {CONSTRAINT: 0.5}


def test_ray_is_not_who_says_how_a_trial_ended(tmp_path: Path):
    search = searcher(tmp_path)
    search.suggest("a")
    search.on_trial_complete("a", {"metrics/clean_accuracy": 0.5})
    assert running(search.study) == [0]


def test_a_missing_figure_and_a_trial_that_is_run_again_never_reach_optuna_by_rays_own_searcher():
    stock = OptunaSearch(lambda trial: trial.suggest_float("x", 0, 1) and None, metric=list(NAMES), mode=["max", "min"])
    for ray_id in "ab":
        stock.suggest(ray_id)
    stock.on_trial_complete("a", got(math.nan, 1.0))
    stock.on_trial_complete("b", error=True)
    stock.on_trial_complete("b", got(0.5, 1.0))
    assert [trial.state for trial in stock._ot_study.get_trials()] == [TrialState.RUNNING, TrialState.FAIL]


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_trial_that_is_run_again_has_its_parameters_and_its_result_reaches_optuna(sampler: str, tmp_path: Path):
    space = GRID if sampler == "grid" else PLAIN
    search = searcher(tmp_path, sampler, space=space)
    first = search.suggest("a")
    search.suggest("b")
    Teller(search.study).tell(0, "failed", {}, "out of memory")
    assert again_as_new(search.study, 0) == 2
    assert again_as_new(search.study, 0) == 2  # a crash may come before it is asked
    second = search.suggest("c")
    assert again_as_new(search.study, 0) == 2
    assert second == first | {"number": 2}
    Teller(search.study).tell(2, "finished", dict.fromkeys(space.objectives, 0.5))
    assert search.study.get_trials()[2].values == [0.5] * len(space.objectives)
    assert [trial.number for trial in search.study.best_trials] == [2]
    assert again_as_new(search.study, 0) == 3
    with pytest.raises(UserError, match="t0001 has not ended"):
        again_as_new(search.study, 1)


def test_a_space_that_fails_for_some_parameters_gives_a_trial_with_its_cause(tmp_path: Path):
    search = searcher(tmp_path)
    given = [search.suggest(ray_id) for ray_id in "abcd"]
    assert all(config["flat"]["seed"] == 5 and config["flat"]["model.depth"] == 10 for config in given[:3])
    assert "a rare branch" in given[3]["cause"]
    assert list(given[3]["flat"]) == ["neuron.v_threshold"]


def drawn(search: StudySearcher, trials: int) -> list[float]:
    teller, found = Teller(search.study), []
    for _ in range(trials):
        number, value = threshold(search)
        found.append(value)
        teller.tell(number, "finished", got(value / 2, 1 / value))
    return found


def test_the_seed_fixes_the_suggestions_of_every_sampler(tmp_path: Path):
    for sampler in set(SAMPLERS) - {"grid"}:
        trials = 6 if sampler == "gp" else 12
        seeds = {"one": 3, "two": 3, "three": 4}
        runs = [drawn(searcher(tmp_path / f"{sampler}-{n}", sampler, seed), trials) for n, seed in seeds.items()]
        assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_a_resumed_sweep_goes_on_with_what_ran_and_repeats_nothing(sampler: str, tmp_path: Path):
    search = searcher(tmp_path, sampler, space=PLAIN)
    ran = dict(threshold(search) for _ in range(6))
    Teller(search.study).tell(0, "failed", {})
    Teller(search.study).tell(1, "stopped", got(0.5, 1.0), violation=0.5)
    Teller(search.study).tell(4, "finished", got(0.5, 1.0))
    for _ in range(2):  # the second is killed at once, too
        again = running(searcher(tmp_path, sampler, space=PLAIN).study)
        assert again == [2, 3, 5]
    search = searcher(tmp_path, sampler, space=PLAIN, again=again)
    for number in again:
        suggestion = search.suggest("any")
        assert suggestion["number"] == number
        assert suggestion["flat"]["neuron.v_threshold"] == ran[number]
        Teller(search.study).tell(number, "finished", got(ran[number] / 2, 1.0))
    new = [search.suggest("any") for _ in range(4)]
    assert [suggestion["number"] for suggestion in new] == [6, 7, 8, 9]
    assert len({*ran.values(), *(suggestion["flat"]["neuron.v_threshold"] for suggestion in new)}) == 10


def test_without_a_seed_of_its_own_a_resumed_sampler_draws_the_same_again(tmp_path: Path):
    first = threshold(searcher(tmp_path))[1]
    stock = searcher(tmp_path)
    stock.study.sampler = SAMPLERS["random"](0, 4)
    assert threshold(stock)[1] == first
    assert threshold(searcher(tmp_path))[1] != first


def test_a_crash_in_the_middle_of_a_suggestion_leaves_what_was_suggested(tmp_path: Path):
    two = Space(
        "two.py", PLAIN.text.replace("    return", '    trial.suggest_int("encoder.time_steps", 2, 8)\n    return')
    )
    killed = searcher(tmp_path, space=two).study.ask()
    value = killed.suggest_float("neuron.v_threshold", 0.1, 2.0)
    search = searcher(tmp_path, "tpe", space=two, again=[0])
    flat = search.suggest("any")["flat"]
    assert flat["neuron.v_threshold"] == value
    assert search.study.get_trials()[0].params == {
        "neuron.v_threshold": value,
        "encoder.time_steps": flat["encoder.time_steps"],
    }


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3", "gp"])
def test_a_sampler_lives_with_few_trials_of_which_none_finished(sampler: str, tmp_path: Path):
    study = open_study(tmp_path, "s", SPACE.objectives, seeded(sampler, 0, 2))
    search, teller = StudySearcher(study, PLAIN, {}, {}), Teller(study)
    for number in range(10 if sampler != "gp" else 4):
        assert 0.1 <= threshold(search)[1] <= 2
        teller.tell(number, *(("stopped", {}) if number % 2 else ("failed", {})), violation=0.5)
    if sampler == "gp":  # a metric's worst was not known at first, and then one finishes
        teller.tell(threshold(search)[0], "finished", got(0.5, 3.0))
        threshold(search)


def test_the_gaussian_process_has_one_thread_while_it_is_asked(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def sample(*asked: object) -> dict:
        seen.append(torch.get_num_threads())
        raise ArithmeticError

    monkeypatch.setattr(optuna.samplers.GPSampler, "sample_relative", sample)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ArithmeticError):
            OneThreadGP(seed=0).sample_relative(None, None, {})
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_the_gaussian_process_keeps_out_of_a_region_that_fails():
    study = fresh_study()
    study.sampler = SAMPLERS["gp"](0, 8)
    search, teller, rng = StudySearcher(study, PLAIN, {}, {}), Teller(study), np.random.default_rng(0)
    distributions = {"neuron.v_threshold": optuna.distributions.FloatDistribution(0.1, 2.0)}
    for number, value in enumerate(rng.uniform(0.1, 2, 16)):
        study.enqueue_trial({"neuron.v_threshold": value})
        study.ask(distributions)
        if value < 1:
            teller.tell(number, "failed", {})
        else:
            teller.tell(number, "finished", got(1 - abs(value - 1.5), abs(value - 1.5)))
    assert all(threshold(search)[1] > 0.95 for _ in range(3))


def failures(folder: Path, seed: int, told_as_failed: bool) -> int:
    """Trials 20 to 59 that TPE asks for in the lower 47 % of the space, where every trial fails; the best is at 1.5."""
    search = searcher(folder, "tpe", seed)
    teller, count = Teller(search.study), 0
    for index in range(60):
        number, value = threshold(search)
        count += index >= 20 and value < 1
        if value >= 1:
            teller.tell(number, "finished", got(1 - abs(value - 1.5), abs(value - 1.5)))
        elif told_as_failed:
            search.study.tell(number, state=TrialState.FAIL)
        else:
            teller.tell(number, "failed", {})
    return count


def test_tpe_leaves_a_region_that_fails_and_would_not_if_told_fail(tmp_path: Path):
    for seed in range(2):
        assert failures(tmp_path / f"{seed}", seed, told_as_failed=False) <= 6
        assert failures(tmp_path / f"{seed}-fail", seed, told_as_failed=True) >= 30


def combination(suggestion: dict) -> tuple[str, float]:
    return suggestion["flat"]["model.residual"], suggestion["flat"]["neuron.v_threshold"]


@pytest.mark.parametrize("side_by_side", [1, 3])
def test_a_grid_gives_every_combination_once_and_then_ends(side_by_side: int, tmp_path: Path):
    search, given, pending = searcher(tmp_path, "grid", 1, GRID), [], []
    teller = Teller(search.study)
    while (suggestion := search.suggest(str(len(given)))) != StudySearcher.FINISHED:
        pending.append(suggestion["number"])
        given.append(combination(suggestion))
        if len(pending) == side_by_side:
            teller.tell(pending.pop(0), "finished", dict.fromkeys(DEFAULT_OBJECTIVES, 0.5))
    assert sorted(given) == COMBINATIONS
    assert running(search.study) == pending


@pytest.mark.parametrize("told", [0, 1, 2, 3])
def test_a_resumed_grid_goes_on_with_what_is_left(told: int, tmp_path: Path):
    search = searcher(tmp_path, "grid", 1, GRID)
    given = {number: combination(search.suggest("any")) for number in range(3)}
    for number in range(told):
        Teller(search.study).tell(number, "failed", {})
    resumed = searcher(tmp_path, "grid", 1, GRID, again=running(search.study))
    while (suggestion := resumed.suggest("any")) != StudySearcher.FINISHED:
        assert given.setdefault(suggestion["number"], combination(suggestion)) == combination(suggestion)
        Teller(resumed.study).tell(suggestion["number"], "failed", {})
    assert sorted(given.values()) == COMBINATIONS
    assert searcher(tmp_path, "grid", 1, GRID).suggest("any") == StudySearcher.FINISHED
    assert [trial.number for trial in own(resumed.study)] == [0, 1, 2, 3]


def test_a_repetition_that_a_crash_left_running_is_not_run(tmp_path: Path):
    search = searcher(tmp_path, "grid", 1, GRID)
    for _ in range(4):
        search.suggest("any")
    GRID.sample(search.study.ask(), {}, {})  # killed before it was seen to be one
    resumed = searcher(tmp_path, "grid", 1, GRID, again=[4, 0])
    assert resumed.suggest("any")["number"] == 0
    assert resumed.suggest("any") == StudySearcher.FINISHED
    assert running(resumed.study) == [0, 1, 2, 3]


def test_a_grid_needs_steps():
    check_sampler("tpe", SPACE, {}, {})
    check_sampler("grid", GRID, {}, {})
    with pytest.raises(SpaceError, match=r"line 3: ValueError: .*step must be given"):
        check_sampler("grid", SPACE, {}, {})


def test_rays_snapshot_holds_neither_study_nor_storage(tmp_path: Path):
    study = open_study(tmp_path, "s", SPACE.objectives, seeded("tpe", 0, 4), f"sqlite:///{tmp_path}/secret.db")
    search = StudySearcher(study, SPACE, {}, {}, [3])
    snapshot = pickle.dumps(search)
    assert b"secret" not in snapshot
    assert pickle.loads(snapshot).space == SPACE  # noqa: S301
    search.save_to_dir(str(tmp_path))
    assert [path.stat().st_size for path in tmp_path.glob("searcher-state-*")] == [0]
