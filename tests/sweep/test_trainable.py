"""The trainable without Ray's machinery: what a lost worker costs, and what a trial's own error does."""

from pathlib import Path

import pytest
import torch
from ray.exceptions import RayError

from snnsweep.config import TrialConfig
from snnsweep.errors import MissingData, SnnSweepError
from snnsweep.result import Result
from snnsweep.sweep import trainable
from snnsweep.sweep.blame import MachineFault, is_no_end, is_the_machines
from snnsweep.sweep.brackets import Brackets
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


def test_an_ended_trial_whose_row_was_lost_keeps_its_trained_weights(tmp_path: Path):
    ended, place = trial(FLAT, given={"place": str(tmp_path)}), {"place": str(tmp_path)}
    whole = finish(ended)
    saved(ended, tmp_path, 0)
    again = trial(FLAT, given=place)
    assert finish(again) == whole
    file = saved(again, tmp_path, 1)
    weights = torch.load(file, weights_only=True)["model"]
    assert all(torch.equal(value, weights[name]) for name, value in ended.evaluation.model.state_dict().items())


def test_a_checkpoint_from_before_a_key_was_there_is_gone_on_from(tmp_path: Path):
    lost = trial(FLAT)
    lost.step()
    file = saved(lost, tmp_path, 0)
    state = torch.load(file, weights_only=True)
    del state["flat"]["train.pack_spikes"]
    torch.save(state, file)
    assert trial(FLAT, given={"place": str(tmp_path)}).evaluation.trainer.epochs_done == 1


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


RUNGS = Space(
    "rungs.py",
    'OBJECTIVES = ("clean_accuracy", "robust_accuracy", "gradient_sparsity", "activity/synops")\n'
    'RUNGS = {"suite": "trail", "samples": 7}\ndef space(trial): return {}\n',
)


@pytest.mark.parametrize("encoder", ["poisson", "direct"])
def test_a_look_at_a_rung_changes_nothing(encoder: str):
    flat = FLAT | {"encoder.name": encoder}
    looked = trial(flat, RUNGS, {"rungs": Brackets(1, 2)})
    seen = looked.step()["metrics"]
    assert {"rung/clean_accuracy", "rung/robust_accuracy", "rung/gradient_sparsity", "rung/activity/synops"} <= set(
        seen
    )
    assert (seen["rung/robust_accuracy/n"], seen["rung/clean_accuracy"]) == (7, seen["clean_accuracy"])
    assert not any(name.startswith(("rung/time/", "rung/audit/")) for name in seen)
    assert not any(name.startswith("rung/") for name in looked.step()["metrics"])  # no rung at the last epoch
    assert without_times(finish(looked)) == without_times(finish(trial(flat)))


def test_a_look_at_a_rung_measures_what_is_compared_there_and_begins_at_the_trials_bracket():
    clean = Space("rungs.py", 'RUNGS = {"metrics": ("clean_accuracy",)}\ndef space(trial): return {}\n')
    seen = trial(FLAT, clean, {"rungs": Brackets(1, 2)}).step()["metrics"]
    assert [name for name in seen if name.startswith("rung/")] == ["rung/clean_accuracy", "rung/clean_accuracy/n"]
    sparse = Space("rungs.py", clean.text.replace('"clean_accuracy",', '"gradient_sparsity/gini",'))
    seen = trial(FLAT, sparse, {"rungs": Brackets(1, 2)}).step()["metrics"]
    assert "rung/gradient_sparsity/gini" in seen
    assert not any(name.startswith(("rung/robust_accuracy", "rung/activity")) for name in seen)
    later = trial(FLAT, clean, {"rungs": Brackets(1, 2, (0.0, 1.0))}).step()["metrics"]
    assert not any(name.startswith("rung/") for name in later)


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


FAULTY = """
import torch
from snnsweep import neurons
@neurons.register("faulty")
class Faulty(neurons.get("lif")):
    "Meets a GPU that is not well, on this machine alone."
    def forward(self, x): raise ERROR
def space(trial): return {}
"""
ILL = 'torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")'


def test_an_ill_gpu_ends_the_process_and_not_the_trial():
    running = trial(FLAT | {"neuron.name": "faulty"}, Space("faulty.py", FAULTY.replace("ERROR", ILL)))
    with pytest.raises(torch.AcceleratorError, match="ECC"):
        running.step()
    assert running.result is None


@pytest.mark.parametrize("error", ['OSError("no such file")', 'torch.AcceleratorError("device-side assert triggered")'])
def test_an_error_of_the_trials_own_code_fails_it_at_once(error: str):
    running = trial(FLAT | {"neuron.name": "faulty"}, Space("faulty.py", FAULTY.replace("ERROR", error)))
    assert Result.model_validate_json(running.step()["result"]).status == "failed"


def test_whose_fault_an_error_is():
    ill, lacking = (
        torch.AcceleratorError("CUDA error: unspecified"),
        torch.AcceleratorError("CUDA error: out of memory"),
    )
    for error in (ill, MachineFault("its bucket"), MissingData("no cifar10"), RayError("lost")):
        assert is_the_machines(error)
        assert is_no_end(error)
    for error in (lacking, torch.OutOfMemoryError("full"), OSError("no such file"), ValueError("mine"), SystemExit(1)):
        assert not is_the_machines(error)
    for error in (
        None,
        OSError(28, "No space left on device"),
        SnnSweepError("a trial reserves 1 GPU and was given none"),
    ):
        assert is_no_end(error)
    assert not is_no_end(TypeError("cannot pickle"))


@pytest.mark.parametrize("reused", [False, True])
def test_a_machine_without_its_gpu_is_told_by_the_first_step(reused: bool, monkeypatch: pytest.MonkeyPatch):
    """Of an actor that dies in its `setup` Ray tells no cause."""
    running = trial(FLAT) if reused else None
    monkeypatch.setattr(trainable, "assigned_device", lambda gpus: (_ for _ in ()).throw(SnnSweepError("no GPU here")))
    if running is None:
        running = trial(FLAT)
    else:
        assert running.reset_config({"number": 1, "flat": FLAT})
    with pytest.raises(SnnSweepError, match="no GPU here"):
        running.step()


def test_checkpoints_that_cannot_be_listed_do_not_start_a_trial_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainable, "newest_first", lambda *names: (_ for _ in ()).throw(OSError(5, "I/O error")))
    running = trial(FLAT, given={"place": str(tmp_path)})
    with pytest.raises(MachineFault, match=r"t0000 cannot be read: .*I/O error"):
        running.step()


def test_a_row_says_where_no_checkpoint_was_whole(tmp_path: Path):
    lost = trial(FLAT, given={"place": str(tmp_path)})
    lost.step()
    saved(lost, tmp_path, 0).write_bytes(b"cut")
    again = trial(FLAT, given={"place": str(tmp_path)})
    again.step()
    saved(again, tmp_path, 1)
    result = finish(trial(FLAT, given={"place": str(tmp_path)}))  # lost once more: it is not forgotten
    assert "trained anew from epoch 0: none of 1 checkpoints was whole" in result.warnings
    assert result.epochs == 2


def test_another_sweeps_trial_of_the_same_variant_is_not_taken_over(tmp_path: Path):
    """The same name, space and seed, with checkpoints in the same place."""
    place = {"place": str(tmp_path)}
    theirs = trial(FLAT, given=place | {"sweep": "theirs"})
    finish(theirs)
    saved(theirs, tmp_path, 0)
    assert trial(FLAT, given=place | {"sweep": "theirs"}).result is not None
    mine = trial(FLAT, given=place | {"sweep": "mine"})
    assert (mine.result, mine.evaluation.trainer.epochs_done) == (None, 0)
    assert "trained anew from epoch 0: its checkpoints are another sweep's" in finish(mine).warnings


def test_checkpoints_of_a_sweep_without_an_id_are_its_own(tmp_path: Path):
    """An older version gave none."""
    old = trial(FLAT)
    old.step()
    state = saved(old, tmp_path, 0)
    kept = torch.load(state, weights_only=True)
    torch.save({key: value for key, value in kept.items() if key not in ("sweep", "notes")}, state)
    assert trial(FLAT, given={"place": str(tmp_path)}).evaluation.trainer.epochs_done == 1


def test_out_of_memory_while_building_is_tried_once_more_in_halves():
    once = (
        "import torch\nfrom snnsweep import neurons\nLEFT = [torch.OutOfMemoryError('out of memory')]\n"
        '@neurons.register("scarce")\nclass Scarce(neurons.get("lif")):\n'
        "    'Has no memory the first time.'\n"
        "    def __init__(self, *given, **named):\n"
        "        if LEFT: raise LEFT.pop()\n"
        "        super().__init__(*given, **named)\n"
        "def space(trial): return {}\n"
    )
    result = finish(trial(FLAT | {"neuron.name": "scarce", "encoder.name": "direct"}, Space("scarce.py", once)))
    assert result.status == "finished"
    assert any(text.startswith("memory ran out") for text in result.warnings)


def test_a_reused_process_gives_its_memory_back_before_it_builds(monkeypatch: pytest.MonkeyPatch):
    used, held = trial(FLAT), []
    monkeypatch.setattr(trainable, "_free", lambda: held.append(used.evaluation))
    used.reset_config({"number": 1, "flat": FLAT})
    assert held == [None]


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
