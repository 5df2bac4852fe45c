"""One trial as a Ray Tune trainable: an epoch a step, then one step that attacks and measures."""

import gc
import io
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pyarrow import ArrowException
from ray import tune

from snnsweep import data
from snnsweep.config import TrialConfig
from snnsweep.errors import Diverged
from snnsweep.evaluation import Evaluation
from snnsweep.result import ON_THE_WAY, Result
from snnsweep.sweep.blame import MachineFault, is_the_machines, ran_out_of_memory
from snnsweep.sweep.brackets import Brackets
from snnsweep.sweep.checkpoints import STATE, newest_first, read_newest, trial_id
from snnsweep.sweep.memory import assigned_device, confine
from snnsweep.sweep.rungs import AT_THE_END
from snnsweep.sweep.sharing import Shared, install
from snnsweep.sweep.space import Space
from snnsweep.sweep.usage import Usage
from snnsweep.tracking.address import redacted


class SweepTrial(tune.Trainable):
    """Wraps `Evaluation`. A checkpoint follows every step, so that a lost worker costs at most an epoch.

    The process is reused by the next trial: everything is built and seeded afresh in `setup`. What the trial's own
    code raises would be raised again, so it ends the trial as `failed`. What is the machine's fault (`blame`) leaves
    the step as it was raised: the process is thrown away, and Ray tries the trial in another one. Where memory runs
    out, the step is tried once more, with each batch in two parts.
    """

    def setup(  # type: ignore[override]  # tune.with_parameters binds all but the config
        self,
        config: dict[str, Any],
        space: Space,
        data_dir: str,
        threads: int,
        place: str = "",
        rungs: Brackets | None = None,
        gpus: float = 0.0,
        sets: Shared | None = None,
        sweep: str | None = None,
    ) -> None:
        """What goes wrong here is raised by the first step: of a process that dies in its `setup` Ray tells no cause.

        Args:
            config: what `StudySearcher.suggest` gave.
            space: executed here, so that the parts it registers are known in this process too.
            threads: CPU threads of this trial.
            place: of the sweep's checkpoints, see `checkpoints.root`; a trial goes on from its newest one.
            rungs: after which it is measured lightly, as the space's `RUNGS` says.
            gpus: that it reserved.
            sets: data sets that the driver read.
            sweep: the sweep's id; a trial does not go on from another sweep's checkpoint.
        """
        self.evaluation: Evaluation | None = None
        self.result: Result | None = None
        self.traceback, self._saved, self._rungs, self._sweep = "", b"", rungs, sweep
        self._place, self._name = place, trial_id(config["number"]) if "number" in config else ""
        self._fault: Exception | None = None
        self._sets: list[dict[str, Any]] = []  # that it sees, until they are reported
        self._texts = [space.sha256]  # of the spaces under which it ran
        if "cause" in config:
            self.result = Result(status="failed", config=TrialConfig(), cause=config["cause"])
            return
        try:
            _free()  # what the trial before has left
            torch.set_num_threads(threads)
            assigned_device(gpus)
            confine(gpus)
            self._guarded(lambda: self._begin(space, config["flat"], data_dir, sets or {}))
        except Exception as error:  # noqa: BLE001  whatever it is, it comes with the first step
            self._fault = error

    def _begin(self, space: Space, flat: dict[str, Any], data_dir: str, sets: Shared) -> None:
        self.config_of_trial = TrialConfig()  # until the space's parts are known; the driver knows what was asked for
        if getattr(self, "space", None) != space:  # the actor is reused
            space.load()
            install(sets, Path(data_dir))
            self.space = space
        self.config_of_trial, self._data_dir = TrialConfig.from_flat(flat), data_dir
        try:
            self._build()
            self._sets = self._identities()
            self._go_on_from(self._last())
            return
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
        self._halve()

    def _build(self, parts: int = 1) -> None:
        self.evaluation = Evaluation(self.config_of_trial, self._data_dir, parts)

    def _identities(self) -> list[dict[str, Any]]:
        assert self.evaluation
        return data.identities(self.config_of_trial, self.evaluation.data)

    def _device(self) -> torch.device:
        assert self.evaluation
        return self.evaluation.device

    def _last(self) -> dict[str, Any]:
        """The trial's newest state: of this process, or else of those before it.

        Raises:
            MachineFault: its checkpoints cannot be listed or read.
        """
        if self._saved:
            return torch.load(io.BytesIO(self._saved), weights_only=True, map_location=self._device())
        if not self._place:
            return {}
        try:
            paths = newest_first(self._place, self._name)
            state = read_newest(paths, self._device())
        except (OSError, ArrowException) as error:
            raise MachineFault(f"the checkpoints of {self._name} cannot be read: {error}") from error
        if paths and not state:
            self._note(f"trained anew from epoch 0: none of {len(paths)} checkpoints was whole")
        return state

    def _note(self, text: str) -> None:
        assert self.evaluation
        if text not in self.evaluation.notes:
            self.evaluation.notes.append(text)

    def _go_on_from(self, state: dict[str, Any]) -> None:
        """Only where it is of this very variant: the space may have changed since, or the study be another one."""
        mine = self.config_of_trial.to_flat() | {"device": None}
        # A version before a key was there trained with its default.
        theirs = TrialConfig().to_flat() | state.get("flat", mine) | {"device": None}
        if theirs != mine:
            return
        if state and state.get("sweep") != self._sweep:
            self._note("trained anew from epoch 0: its checkpoints are another sweep's")
            return
        texts = state.get("texts", self._texts)
        if "result" in state:
            self.result, self.traceback = Result.model_validate_json(state["result"]), state["traceback"]
            self._texts = texts
            if self.evaluation and "model" in state:  # the next checkpoint holds it again
                self.evaluation.model.load_state_dict(state["model"])
        elif "trainer" in state and self.evaluation:
            self.evaluation.load_state_dict(state)
            self._texts = list(dict.fromkeys([*texts, *self._texts]))

    def step(self) -> dict[str, Any]:
        if self._fault:
            raise self._fault
        usage = Usage(self._device()) if self.evaluation else None
        metrics = self._guarded(self._advance) if self.result is None else None
        epoch = self.evaluation.trainer.epochs_done if self.evaluation else 0
        said, self._sets = {"epoch": epoch, "sets": self._sets}, []
        if self.result is None:
            used = usage.look() if usage else {}
            return {**said, "metrics": metrics and metrics | used, "done": False}
        ended = {"result": self.result.model_dump_json(), "traceback": self.traceback, "text": self._texts[-1]}
        return {**said, **ended, "done": True}

    def _advance(self) -> dict[str, float] | None:
        try:
            return self._epoch_or_end()
        except RuntimeError as error:
            if not ran_out_of_memory(error) or self.evaluation is None or self.evaluation.trainer.parts > 1:
                raise
        self._halve()  # outside the except, whose traceback holds the tensors that filled the memory
        return self._epoch_or_end()

    def _halve(self) -> None:
        """As after the last checkpoint, with each batch in two parts."""
        self.evaluation = None
        _free()
        self._build(parts=2)
        self._go_on_from(self._last())

    def _epoch_or_end(self) -> dict[str, float] | None:
        assert self.evaluation
        if self.evaluation.trained:
            self.result = self._ended(self.evaluation.result())
            return None
        metrics = self.evaluation.epoch()
        at = self.evaluation.trainer.epochs_done, self.evaluation.config.train.epochs
        if self._rungs and self.space.rungs and self._rungs.meets(self._name, *at):
            asked = self.space.rungs
            found = self.evaluation.light(asked.suite, asked.samples, asked.metrics, asked.gradients)
            found |= {name: metrics[name] for name in ("clean_accuracy", "clean_accuracy/n")}
            metrics |= {ON_THE_WAY + name: v for name, v in found.items() if not name.startswith(AT_THE_END)}
        return metrics

    def _ended(self, result: Result) -> Result:
        if len(self._texts) == 1:
            return result
        said = f"the space file changed while it was running: it was trained under {len(self._texts)} texts of it"
        return result.model_copy(update={"warnings": (*result.warnings, said)})

    def _guarded(self, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except Diverged as error:
            cause = f"Diverged: {error}"
        except (Exception, SystemExit) as error:  # spaces bring their own neurons, models, attacks
            if is_the_machines(error):
                raise
            cause = redacted(" ".join(f"{type(error).__name__}: {error}".split()))
            self.traceback = redacted(traceback.format_exc())
        if self.evaluation:
            self.result = self.evaluation.failed(cause)
        else:
            self.result = Result(status="failed", config=self.config_of_trial, cause=cause)
        return None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """What a trial goes on from; of an ended one what it is still wanted for."""
        state: dict[str, Any] = {"sweep": self._sweep}
        if self.result is not None:
            state |= {"result": self.result.model_dump_json(), "traceback": self.traceback}
            state |= {"model": self.evaluation.model.state_dict()} if self.evaluation else {}
        elif self.evaluation is not None:
            state |= self.evaluation.state_dict()
        if self.evaluation is not None:
            state |= {"flat": self.config_of_trial.to_flat(), "texts": self._texts}
        file = io.BytesIO()
        torch.save(state, file)
        self._saved = file.getvalue() if self.result is None else b""
        (Path(checkpoint_dir) / STATE).write_bytes(file.getvalue())

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # its annotation is outdated
        """Ray's newest; where it cannot be read, the trial stays where `setup` found it."""
        if self.evaluation is not None and self.result is None and not self._fault:
            file = Path(checkpoint_dir) / STATE
            if state := read_newest([str(file)], self._device()):
                self._go_on_from(state)
                self._saved = file.read_bytes()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)  # type: ignore[call-arg]
        return True


def _free() -> None:
    """Gives back memory that nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
