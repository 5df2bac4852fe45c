"""`RUNGS` of a space: what it means, and every mistake in it."""

from pathlib import Path

import pytest

from snnsweep import ResumedSweep, Sweep
from snnsweep.errors import SpaceError, UserError
from snnsweep.sweep.scheduler import RUNGS, RungScheduler
from snnsweep.sweep.space import Space


def space(rungs: str, objectives: str = '("clean_accuracy", "time/attack_s", "gradient_sparsity")') -> Space:
    return Space("mine.py", f"OBJECTIVES = {objectives}\nRUNGS = {rungs}\ndef space(trial): return {{}}\n")


def test_the_objectives_that_are_known_on_the_way_are_compared():
    rungs = space("{}").rungs
    assert rungs.metrics == {"clean_accuracy": "maximize", "gradient_sparsity": "maximize"}
    assert (rungs.grace, rungs.eta, rungs.suite, rungs.samples, rungs.order) == (1, 3, "quick", 64, "epsilon_net")
    assert Space("mine.py", "def space(trial): return {}").rungs is None


def test_metrics_with_and_without_directions():
    given = space('{"metrics": ("robust_accuracy", "activity/synops"), "grace": 2, "order": "crowding"}').rungs
    assert given.metrics == {"robust_accuracy": "maximize", "activity/synops": "minimize"}
    given = space('{"metrics": {"clean_accuracy": "minimize"}}').rungs
    assert given.metrics == {"clean_accuracy": "minimize"}
    given = space('{"metrics": ["clean_accuracy"]}', '{"clean_accuracy": "minimize"}').rungs
    assert given.metrics == {"clean_accuracy": "minimize"}  # as the objective of that name


def test_every_mistake_at_once():
    with pytest.raises(SpaceError) as error:
        _ = space('{"grase": 2, "eta": 1, "suite": "quik", "metrics": ["time/train_s", "clean_acuracy"]}').rungs
    said = str(error.value)
    for part in ("mine.py: RUNGS", "grase: unknown; did you mean grace?", "eta:", "did you mean quick?",
                 "did you mean clean_accuracy?"):  # fmt: skip
        assert part in said
    with pytest.raises(SpaceError, match="'time/train_s' is known at the end of a trial alone"):
        _ = space('{"metrics": ["time/train_s", "clean_accuracy"]}').rungs
    with pytest.raises(SpaceError, match="RUNGS is 3; write a dict"):
        _ = space("3").rungs
    with pytest.raises(SpaceError, match="metrics"):
        _ = space("{}", '("time/attack_s",)').rungs


def test_what_is_asked_of_successive_halving():
    rungs = space('{"grace": 3, "eta": 3}').rungs
    asha = rungs.asha(28, 5)
    assert asha.rungs == (3, 9, 27)
    assert asha.settings["seed"] == 5
    assert rungs.asha(3, 5) is None
    with pytest.raises(UserError, match="brackets=5: at most 4"):
        space('{"grace": 3, "brackets": 5}').rungs.asha(28, 5)


def sweep(epochs: int, folder: Path, **given) -> Sweep:
    text = f'RUNGS = {{"grace": 3, "eta": 2, "brackets": 2}}\nFIXED = {{"train.epochs": {epochs}}}\n'
    return Sweep(Space("mine.py", f"{text}def space(trial): return {{}}\n"), storage=folder, name="s", **given)


def test_rungs_that_no_variant_meets_are_refused(tmp_path: Path):
    begun = sweep(3, tmp_path)
    with pytest.raises(UserError, match=r"none of 16 sampled variants trains longer than 3 epochs, .*lower grace"):
        begun._space_works()
    tiny = sweep(3, tmp_path, smoke=True)
    tiny._space_works()
    assert tiny.asha is None


def test_rungs_go_on_as_they_were_begun(tmp_path: Path):
    """The variants are longer, or shorter than the first rung, by an allowed change of the space."""
    begun = sweep(7, tmp_path)
    begun._space_works()
    begun.folder.mkdir()
    RungScheduler(begun.asha, begun.folder / RUNGS)
    for epochs in (2, 30):
        resumed = sweep(epochs, tmp_path)
        resumed.__class__ = ResumedSweep
        resumed._space_works()
        assert RungScheduler(resumed.asha, resumed.folder / RUNGS).asha.brackets == begun.asha.brackets
    old = sweep(2, tmp_path / "old")  # before they were refused
    old.__class__ = ResumedSweep
    old._space_works()
    assert old.asha is None
