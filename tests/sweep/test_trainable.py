"""The trainable without Ray's machinery: what a lost worker costs, and what a trial's own error does."""

from pathlib import Path

import pytest
import torch

from snnsweep.config import TrialConfig
from snnsweep.result import Result
from snnsweep.sweep.space import Space
from snnsweep.sweep.trainable import STATE, SweepTrial

FLAT = TrialConfig.from_flat(
    {"model.depth": 10, "model.width": 0.125, "train.epochs": 2, "data.subset": 150, "encoder.name": "poisson",
     "encoder.time_steps": 2, "attack.samples": 20, "device": "cpu"}
).to_flat()  # fmt: skip
SPACE = Space("mine.py", "def space(trial): return {}")
BROKEN = Space(
    "broken.py",
    "from snnsweep import neurons\n"
    '@neurons.register("broken")\n'
    "class Broken(neurons.SpikingNeuron):\n"
    '    """Raises."""\n'
    "    def forward(self, x):\n"
    '        raise RuntimeError("boom in\\n  forward")\n'
    "def space(trial): return {}\n",
)


def trial(flat: dict, space: Space = SPACE, **config) -> SweepTrial:
    class Bound(SweepTrial):
        def setup(self, config: dict) -> None:
            super().setup(config, space=space, data_dir="data", threads=1)

    return Bound({"number": 0, "flat": flat, **config})


def finish(running: SweepTrial) -> Result:
    for _ in range(10):
        reported = running.step()
        if reported["done"]:
            return Result.model_validate_json(reported["result"])
    raise AssertionError("never done")


def without_times(result: Result) -> dict:
    return {name: value for name, value in result.metrics.items() if not name.startswith("time/")}


def test_a_restored_trial_ends_as_if_never_stopped(tmp_path: Path):
    whole = finish(trial(FLAT))
    lost = trial(FLAT)
    lost.step()
    lost.save_checkpoint(str(tmp_path))
    torch.rand(100)  # the next process has another history
    again = trial(FLAT)
    again.load_checkpoint(str(tmp_path))
    assert again.step()["epoch"] == 2
    restored = finish(again)
    assert without_times(restored) == without_times(whole)
    assert len(restored.history) == len(whole.history) == 2
    assert restored.history[0]["train/loss"] == whole.history[0]["train/loss"]


def test_a_reused_actor_forgets_the_trial_before():
    first = finish(trial(FLAT))
    used = trial(FLAT | {"model.residual": "membrane", "seed": 4})
    finish(used)
    assert used.reset_config({"number": 1, "flat": FLAT})
    assert without_times(finish(used)) == without_times(first)


def test_an_error_of_the_users_code_is_a_result_with_its_cause():
    flat = FLAT | {"neuron.name": "broken"}
    failing = trial(flat, BROKEN)
    reported = failing.step()
    result = Result.model_validate_json(reported["result"])
    assert reported["done"]
    assert (result.status, result.cause) == ("failed", "RuntimeError: boom in forward")
    assert 'raise RuntimeError("boom in' in reported["traceback"] or "broken.py" in reported["traceback"]
    assert result.config.neuron.name == "broken"


def test_a_diverging_trial_says_when():
    result = finish(trial(FLAT | {"train.lr": 1e30, "train.optimizer": "sgd"}))
    assert result.status == "failed"
    assert result.cause.startswith("Diverged: ")
    assert "epoch 1" in result.cause


def test_a_suggestion_with_a_cause_fails_at_once(tmp_path: Path):
    failing = trial({"neuron.v_threshold": 3.0}, cause="mine.py: a rare branch")
    result = finish(failing)
    assert (result.status, result.cause, result.epochs) == ("failed", "mine.py: a rare branch", 0)
    failing.save_checkpoint(str(tmp_path))
    assert torch.load(tmp_path / STATE, weights_only=True) == {}


@pytest.mark.parametrize("ended", [False, True])
def test_checkpoints_load_without_pickle_and_keep_the_weights(ended: bool, tmp_path: Path):
    running = trial(FLAT)
    running.step()
    if ended:
        finish(running)
    running.save_checkpoint(str(tmp_path))
    state = torch.load(tmp_path / STATE, weights_only=True)
    weights = state["model"] if ended else state["trainer"]["model"]
    assert all(torch.equal(value, weights[name]) for name, value in running.evaluation.model.state_dict().items())
