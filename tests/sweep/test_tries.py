"""How often a trial may lose its process, and what the driver does with one that Ray gave up before."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

from snnsweep.errors import SnnSweepError
from snnsweep.results.store import Store
from snnsweep.sweep import drive
from snnsweep.sweep.drive import Drive
from snnsweep.sweep.ledger import has_ended
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.tidy import Tidy
from snnsweep.sweep.tries import cause_of, every_loss_is_a_death
from snnsweep.sweep.tuning import LOST_WORKERS, Ender, trial_name
from snnsweep.sweep.watch import Recorder


class Trial(SimpleNamespace):
    """Ray's, as far as it is looked at."""

    def __init__(self, number: int = 0):
        state = SimpleNamespace()
        super().__init__(config={"number": number, "flat": {}}, temporary_state=state, max_failures=LOST_WORKERS)

    def dies(self, process: str) -> "Trial":
        self.temporary_state.raised = RayActorError(actor_id=process)
        return self


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    made = Recorder(
        Store(tmp_path), None, None, Progress(9, {}, 1), lambda _: None, Tidy(str(tmp_path)), Ender(), None, {}, "abc"
    )
    made.ends = []
    made._end = lambda trial, result: made.ends.append((trial_name(trial), result.status))
    return made


def test_one_death_that_is_told_twice_is_one(recorder: Recorder, tmp_path: Path) -> None:
    """A process dies while it is made ready for the next trial: Ray recovers the trial, and at once gives it up."""
    trial = Trial()
    for process in "abc":
        recorder.on_trial_recover(0, [trial], trial.dies(process))
    recorder.on_trial_error(0, [trial], trial.dies("c"))
    assert (recorder.ends, "Ray lost t0000" in str(recorder.lost)) == ([], True)

    recorder.begin()
    again = Trial()
    recorder.on_step_end(0, [again])
    assert (recorder.lost, again.max_failures) == (None, 0)  # the next one is one too many
    recorder.on_trial_error(0, [again], again.dies("d"))
    assert (recorder.ends, recorder.lost) == ([("t0000", "stopped")], None)
    assert cause_of(again) == "the trial's process was lost"


def test_a_trial_is_tried_three_times_more(recorder: Recorder, tmp_path: Path) -> None:
    trial = Trial()
    recorder.on_step_end(0, [trial])
    assert trial.max_failures == LOST_WORKERS == 3
    for process in "abc":
        recorder.on_trial_recover(0, [trial], trial.dies(process))
    recorder.on_trial_error(0, [trial], trial.dies("d"))
    assert (recorder.ends, recorder.lost) == ([("t0000", "stopped")], None)
    assert recorder.given_up == {"t0000": "the trial's process was lost"}
    assert recorder.trouble is None  # the others go on


def used_up(recorder: Recorder, number: int, error: Exception) -> None:
    trial = Trial(number)
    trial.temporary_state.raised = error
    for _ in range(LOST_WORKERS):
        recorder.on_trial_recover(0, [trial], trial)
    recorder.on_trial_error(0, [trial], trial)


ILL = RayTaskError(
    "step",
    "ray::SweepTrial.train() (pid=7, ip=10.0.0.7)",
    torch.AcceleratorError("CUDA error: uncorrectable ECC error"),
).as_instanceof_cause()  # as Ray hands it on


def test_a_sick_machine_leaves_its_trials_open_and_ends_the_sweep_before_it_has_met_them_all(tmp_path: Path) -> None:
    told: list[int] = []
    teller: Any = SimpleNamespace(tell=lambda number, *_: told.append(number))
    spool: Any = SimpleNamespace(end_trial=lambda *_: None, log_course=lambda *_: None)
    rows = Store(tmp_path)
    recorder = Recorder(
        rows, teller, spool, Progress(9, {}, 1), lambda _: None, Tidy(str(tmp_path)), Ender(), None, {}, "abc"
    )
    for number in (0, 1):
        used_up(recorder, number, ILL)
    used_up(recorder, 2, TypeError("cannot pickle"))  # its own fault, and an end
    used_up(recorder, 3, SnnSweepError("a trial reserves 1 GPU and was given none"))
    used_up(recorder, 4, OSError(28, "No space left on device"))
    assert (recorder.trouble, recorder.ender.now) == (None, False)
    used_up(recorder, 5, ILL)
    assert recorder.ender.now
    assert "5 trials have no end, since the machines failed, 4 times for each" in str(recorder.trouble)
    assert "t0005: AcceleratorError: CUDA error: uncorrectable ECC error (on 10.0.0.7)" in str(recorder.trouble)
    found = rows.frame().set_index("trial_id")
    assert found["status"].to_dict() == {f"t000{n}": "failed" if n == 2 else "stopped" for n in range(6)}
    assert [name for name, row in found.iterrows() if not has_ended(row)] == [f"t000{n}" for n in (0, 1, 3, 4, 5)]
    assert "ECC error (on 10.0.0.7)" in found.loc["t0000", "warnings"][0]
    assert told == [2]


def test_rounds_in_which_nothing_ends_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four trials end in the first run, a fifth in the third; the sixth is lost in every one."""
    progress = SimpleNamespace(done=0)
    recorder: Any = SimpleNamespace(begin=lambda: None, lost=SnnSweepError("t0005"), trouble=None, progress=progress)
    recorder.given_up = {"t0004": "its machines failed"}
    asked: list[tuple[int, list[int]]] = []
    sweep = Drive(**dict.fromkeys(Drive.__dataclass_fields__) | {"trials": 6, "interrupted": False})
    sweep.ender = Ender()

    def run(left: int, again: list[int], *_: Any) -> None:
        asked.append((left, again))
        progress.done = {1: 4, 2: 4}.get(len(asked), 5)

    monkeypatch.setattr(sweep, "_round", run)
    monkeypatch.setattr(drive, "running", lambda study: [4, 5])
    with pytest.raises(SnnSweepError, match="t0005"):
        sweep._rounds([], recorder)
    assert asked == [(6, []), (2, [5]), (2, [5]), *[(1, [5])] * (1 + LOST_WORKERS)]

    asked.clear()
    recorder.lost, progress.done = None, 0
    sweep._rounds([3], recorder)
    assert asked == [(6, [3])]


@pytest.mark.parametrize("error", [OutOfMemoryError("the node running low on memory"), NodeDiedError("gone")])
def test_a_process_that_ray_ended_is_one_death_and_not_the_end(error: Exception, tmp_path: Path) -> None:
    """Tune itself raises a RuntimeError, which ends the sweep."""
    told: list[Exception] = []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda _, error: told.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=lambda _, error: told.append(error))
    manager: Any = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    with every_loss_is_a_death():
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=error)  # as Ray calls it
    assert [type(one) for one in told] == [RayActorError] * 2  # of the process, and of what it was doing
    with pytest.raises(RuntimeError):
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=error)  # as Ray calls it

    trial = Trial()
    trial.temporary_state.raised = told[0]
    assert cause_of(trial).startswith("the trial's process was lost")
    assert ("low on memory" in cause_of(trial)) == isinstance(error, OutOfMemoryError)
