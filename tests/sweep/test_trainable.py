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


def trial(flat: dict, space: Space = SPACE, given: dict | None = None, **config) -> SweepTrial:
    class Bound(SweepTrial):
        def setup(self, config: dict) -> None:
            super().setup(config, space=space, data_dir="data", threads=1, **(given or {}))

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
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert Result.model_validate_json(state["result"]) == result


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


def saved(running: SweepTrial, place: Path, number: int) -> Path:
    folder = place / "ray" / "t0000" / f"checkpoint_{number:06d}"
    folder.mkdir(parents=True)
    running.save_checkpoint(str(folder))
    return folder / STATE


def test_a_trial_goes_on_from_its_newest_checkpoint_that_is_whole(tmp_path: Path):
    whole, place = finish(trial(FLAT)), {"place": str(tmp_path)}
    lost = trial(FLAT, given=place)
    lost.step()
    saved(lost, tmp_path, 0)
    lost.step()
    newest = saved(lost, tmp_path, 1)
    assert trial(FLAT, given=place).step()["done"]  # after two epochs of two, it attacks
    newest.write_bytes(newest.read_bytes()[:-100])
    again = trial(FLAT, given=place)
    assert again.evaluation.trainer.epochs_done == 1
    again.load_checkpoint(str(newest.parent))  # as Ray does after the process was lost
    assert again.evaluation.trainer.epochs_done == 1
    assert without_times(finish(again)) == without_times(whole)


def test_a_checkpoint_of_another_variant_is_not_gone_on_from(tmp_path: Path):
    other = trial(FLAT | {"train.lr": 5e-3}, given={"place": str(tmp_path)})
    other.step()
    saved(other, tmp_path, 0)
    assert trial(FLAT, given={"place": str(tmp_path)}).evaluation.trainer.epochs_done == 0
    same = trial(FLAT | {"train.lr": 5e-3}, given={"place": str(tmp_path)})
    assert same.evaluation.trainer.epochs_done == 1
    finish(other)
    saved(other, tmp_path, 1)
    assert trial(FLAT, given={"place": str(tmp_path)}).result is None


def test_what_an_ended_trial_found_is_not_looked_for_again(tmp_path: Path):
    """The driver died before it could write the row."""
    ended = trial(FLAT)
    result = finish(ended)
    saved(ended, tmp_path, 3)
    again = trial(FLAT, given={"place": str(tmp_path)}).step()
    assert (again["done"], Result.model_validate_json(again["result"])) == (True, result)


RUNGS = Space("rungs.py", 'RUNGS = {"suite": "trail", "samples": 7}\ndef space(trial): return {}\n')


@pytest.mark.parametrize("encoder", ["poisson", "direct"])
def test_a_look_at_a_rung_changes_nothing(encoder: str):
    flat = FLAT | {"encoder.name": encoder}
    looked = trial(flat, RUNGS, {"rungs": (1, 2)})
    seen = looked.step()["metrics"]
    assert {"rung/clean_accuracy", "rung/robust_accuracy", "rung/gradient_sparsity", "rung/activity/synops"} <= set(
        seen
    )
    assert (seen["rung/robust_accuracy/n"], seen["rung/clean_accuracy"]) == (7, seen["clean_accuracy"])
    assert not any(name.startswith(("rung/time/", "rung/audit/")) for name in seen)
    assert not any(name.startswith("rung/") for name in looked.step()["metrics"])  # no rung at the last epoch
    assert without_times(finish(looked)) == without_times(finish(trial(flat)))


GREEDY = Space(
    "greedy.py",
    "import torch\nfrom snnsweep import neurons\n"
    '@neurons.register("greedy")\n'
    'class Greedy(neurons.get("lif")):\n'
    '    """Has memory for so many images."""\n'
    "    most = 40\n"
    "    def forward(self, x):\n"
    "        if x.shape[1] > self.most: raise torch.OutOfMemoryError('out of memory')\n"
    "        return super().forward(x)\n"
    "def space(trial): return {}\n",
)


def test_out_of_memory_is_tried_once_more_in_halves():
    """64 images do not fit, 32 do."""
    flat = FLAT | {"neuron.name": "greedy", "encoder.name": "direct"}
    result = finish(trial(flat, GREEDY))
    assert (result.status, result.epochs) == ("finished", 2)
    assert any(text.startswith("memory ran out: each batch went through in 2 parts") for text in result.warnings)
    never = finish(trial(flat, Space("greedy.py", GREEDY.text.replace("most = 40", "most = 20"))))
    assert (never.status, never.cause) == ("failed", "OutOfMemoryError: out of memory")


def test_out_of_memory_after_a_restore_keeps_the_training(tmp_path: Path):
    flat = FLAT | {"neuron.name": "greedy", "encoder.name": "direct", "train.epochs": 3}
    roomy = Space("greedy.py", GREEDY.text.replace("most = 40", "most = 90"))
    first = trial(flat, roomy)
    first.step()
    first.step()
    saved(first, tmp_path, 2)
    again = trial(flat, GREEDY, {"place": str(tmp_path)})
    assert again.step()["epoch"] == 3
    assert [epoch["train/loss"] for epoch in again.evaluation.history[:2]] == [
        epoch["train/loss"] for epoch in first.evaluation.history
    ]


def test_out_of_memory_in_the_attack_alone_keeps_the_training(tmp_path: Path):
    once = GREEDY.text.replace("x.shape[1] > self.most", "not self.training and x.shape[1] == 20 and x.requires_grad")
    running = trial(FLAT | {"neuron.name": "greedy", "encoder.name": "direct"}, Space("greedy.py", once))
    for _ in range(2):
        running.step()
        running.save_checkpoint(str(tmp_path))
    before = {name: value.clone() for name, value in running.evaluation.model.state_dict().items()}
    finish(running)
    after = running.evaluation.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_space_that_changed_on_the_way_is_said(tmp_path: Path):
    """The trial goes on from its checkpoint, under the text that there is now; one that had ended did so before."""
    begun = trial(FLAT)
    begun.step()
    begun.save_checkpoint(str(tmp_path))
    changed = Space("mine.py", SPACE.text + "  # another text")
    again = trial(FLAT, changed)
    again.load_checkpoint(str(tmp_path))
    again.step()
    ended = again.step()
    assert ended["text"] == changed.sha256
    assert "trained under 2 texts" in Result.model_validate_json(ended["result"]).warnings[-1]

    again.save_checkpoint(str(tmp_path))
    last = trial(FLAT, Space("mine.py", SPACE.text + "  # a third"))
    last.load_checkpoint(str(tmp_path))
    reported = last.step()
    assert (reported["text"], reported["result"]) == (changed.sha256, ended["result"])
