"""`RUNGS` of a space: what it means, and every mistake in it."""

import pytest

from snnsweep.config import TrialConfig
from snnsweep.errors import SpaceError, UserError
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


def test_the_longest_variant_decides_where_the_rungs_are():
    variants = [TrialConfig.from_flat({"train.epochs": epochs}) for epochs in (4, 28, 9)]
    rungs = space('{"grace": 3, "eta": 3}').rungs
    asha = rungs.asha(variants, 5)
    assert asha.rungs == (3, 9, 27)
    assert asha.settings["seed"] == 5
    assert rungs.asha([TrialConfig.from_flat({"train.epochs": 3})], 5) is None
    many = space('{"grace": 3, "brackets": 5}').rungs
    with pytest.raises(UserError, match="brackets=5: at most 4"):
        many.asha(variants, 5)
