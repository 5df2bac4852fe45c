import math
from pathlib import Path

import optuna
import pytest

from snnsweep.config import TrialConfig
from snnsweep.errors import SpaceError
from snnsweep.result import Result
from snnsweep.sweep.search import CONSTRAINT, SAMPLERS, STUDY_FILE, StudySearcher, check_sampler, open_study
from snnsweep.sweep.space import Space

SPACE = Space(
    "mine.py",
    'OBJECTIVES = ("clean_accuracy", "time/attack_s")\n'
    "def space(trial):\n"
    '    trial.suggest_float("neuron.v_threshold", 0.1, 2.0)\n'
    '    if trial.number == 3: raise ValueError("a rare branch")\n'
    '    return {"model.depth": 10}\n',
)


def searcher(folder: Path, sampler: str = "random", seed: int = 0) -> StudySearcher:
    study = open_study(folder, "s", SPACE.objectives, SAMPLERS[sampler](seed, 4))
    return StudySearcher(study, SPACE, {"seed": 5}, {})


def told(clean: float, seconds: float, status: str = "finished", cause: str = "") -> dict:
    metrics = {"clean_accuracy": clean, "time/attack_s": seconds}
    return {"result": Result(status=status, config=TrialConfig(), metrics=metrics, cause=cause).model_dump_json()}


def test_every_end_is_told_finite_values_and_only_the_finished_count(tmp_path: Path):
    search = searcher(tmp_path)
    for ray_id in "abcdefg":
        search.suggest(ray_id)
    search.on_trial_complete("a", told(0.9, 30.0))
    search.on_trial_complete("b", told(0.8, 20.0))
    search.on_trial_complete("c", told(0.99, 1.0, "infeasible", "no gradient"))
    search.on_trial_complete("d", None, error=True)
    search.on_trial_complete("e", {"metrics/clean_accuracy": 0.7})  # stopped early: a partial result
    search.on_trial_complete("f", told(math.nan, 1.0))
    search.close()
    trials = search.study.get_trials()
    assert [trial.state for trial in trials] == [optuna.trial.TrialState.COMPLETE] * 7
    assert [trial.values for trial in trials] == [[0.9, 30.0], [0.8, 20.0]] + [[0.0, 30.0]] * 5
    assert [trial.constraints[CONSTRAINT] for trial in trials] == [0, 0, 1, 1, 1, 1, 1]
    assert [trial.user_attrs["status"] for trial in trials[2:5]] == ["infeasible", "failed", "stopped"]
    assert trials[2].user_attrs["cause"] == "no gradient"
    assert {trial.number for trial in search.study.best_trials} == {0, 1}


def test_a_trial_is_told_once(tmp_path: Path):
    search = searcher(tmp_path)
    search.suggest("a")
    search.on_trial_complete("a", told(0.5, 1.0))
    search.on_trial_complete("a", told(0.6, 1.0))
    search.on_trial_complete("nobody", told(0.7, 1.0))
    assert [trial.values for trial in search.study.get_trials()] == [[0.5, 1.0]]


def test_a_space_that_fails_for_some_parameters_gives_a_trial_with_its_cause(tmp_path: Path):
    search = searcher(tmp_path)
    given = [search.suggest(ray_id) for ray_id in "abcd"]
    assert all(config["flat"]["seed"] == 5 and config["flat"]["model.depth"] == 10 for config in given[:3])
    assert "a rare branch" in given[3]["cause"]
    assert list(given[3]["flat"]) == ["neuron.v_threshold"]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_the_seed_fixes_the_suggestions(sampler: str, tmp_path: Path):
    runs = []
    for folder, seed in (("one", 3), ("two", 3), ("three", 4)):
        (tmp_path / folder).mkdir()
        search = searcher(tmp_path / folder, sampler, seed)
        flats = []
        for index in range(12):
            flats.append(search.suggest(str(index))["flat"]["neuron.v_threshold"])
            search.on_trial_complete(str(index), told(flats[-1] / 2, 1 / flats[-1]))
        runs.append(flats)
    assert runs[0] == runs[1] != runs[2]


def failures(folder: Path, seed: int, told_as_failed: bool) -> int:
    """Trials 20 to 59 that TPE asks for in the lower 47 % of the space, where every trial fails; the best is at 1.5."""
    search = searcher(folder, "tpe", seed)
    count = 0
    for index in range(60):
        threshold = search.suggest(str(index))["flat"]["neuron.v_threshold"]
        count += index >= 20 and threshold < 1
        if threshold >= 1:
            search.on_trial_complete(str(index), told(1 - abs(threshold - 1.5), abs(threshold - 1.5)))
        elif told_as_failed:
            search.study.tell(search.open.pop(str(index)), state=optuna.trial.TrialState.FAIL)
        else:
            search.on_trial_complete(str(index), None, error=True)
    return count


def test_tpe_leaves_a_region_that_fails_and_would_not_if_told_fail(tmp_path: Path):
    for seed in range(3):
        (tmp_path / f"{seed}").mkdir()
        (tmp_path / f"{seed}-fail").mkdir()
        assert failures(tmp_path / f"{seed}", seed, told_as_failed=False) <= 6
        assert failures(tmp_path / f"{seed}-fail", seed, told_as_failed=True) >= 30


def test_another_process_reads_the_study(tmp_path: Path):
    search = searcher(tmp_path)
    search.suggest("a")
    search.on_trial_complete("a", told(0.5, 1.0))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / STUDY_FILE))
    study = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
    assert study.metric_names == ["clean_accuracy", "time/attack_s"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.trials[0].values == [0.5, 1.0]


GRID = Space(
    "grid.py",
    "def space(trial):\n"
    '    if trial.suggest_categorical("model.residual", ["sew_add", "spiking"]) == "sew_add":\n'
    '        trial.suggest_float("neuron.v_threshold", 0.5, 1.0, step=0.25)\n',
)


@pytest.mark.parametrize("side_by_side", [1, 3])
def test_a_grid_gives_every_combination_once_and_then_ends(side_by_side: int, tmp_path: Path):
    study = open_study(tmp_path, "s", GRID.objectives, SAMPLERS["grid"](1, 4))
    search, given, running = StudySearcher(study, GRID, {}, {}), [], []
    while (suggestion := search.suggest(str(len(given)))) != StudySearcher.FINISHED:
        running.append(str(len(given)))
        flat = suggestion["flat"]
        given.append((flat["model.residual"], flat["neuron.v_threshold"]))
        if len(running) == side_by_side:
            search.on_trial_complete(running.pop(0), told(0.5, 1.0))
    assert sorted(given) == [("sew_add", 0.5), ("sew_add", 0.75), ("sew_add", 1.0), ("spiking", 1.0)]
    assert set(search.open) == set(running)


def test_a_grid_needs_steps():
    check_sampler("tpe", SPACE, {}, {})
    check_sampler("grid", GRID, {}, {})
    with pytest.raises(SpaceError, match=r"line 3: ValueError: .*step must be given"):
        check_sampler("grid", SPACE, {}, {})
