"""One trial as a Ray Tune trainable: an epoch a step, then one step that attacks and measures."""

import gc
import io
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.exceptions import RayError

from snnsweep.config import TrialConfig
from snnsweep.errors import Diverged
from snnsweep.evaluation import Evaluation
from snnsweep.result import ON_THE_WAY, Result
from snnsweep.sweep.checkpoints import STATE, newest_first, read_newest, trial_id
from snnsweep.sweep.memory import assigned_device, confine
from snnsweep.sweep.rungs import AT_THE_END
from snnsweep.sweep.sharing import Shared, install
from snnsweep.sweep.space import Space


class SweepTrial(tune.Trainable):
    """Wraps `Evaluation`. A checkpoint follows every step, so that a lost worker costs at most an epoch.

    The process is reused by the next trial: everything is built and seeded afresh in `setup`. What the trial's own
    code raises would be raised again, so it ends the trial as `failed`; Ray retries lost processes alone. Only where
    memory runs out is the step tried once more, with each batch in two parts.
    """

    def setup(  # type: ignore[override]  # tune.with_parameters binds all but the config
        self,
        config: dict[str, Any],
        space: Space,
        data_dir: str,
        threads: int,
        place: str = "",
        rungs: tuple[int, ...] = (),
        gpus: float = 0.0,
        sets: Shared | None = None,
    ) -> None:
        """Args:
        config: what `StudySearcher.suggest` gave.
        space: executed here, so that the parts it registers are known in this process too.
        threads: CPU threads of this trial.
        place: of the sweep's checkpoints, see `checkpoints.root`; a trial goes on from its newest one.
        rungs: epochs after which it is measured lightly, as the space's `RUNGS` says.
        gpus: that it reserved.
        sets: data sets that the driver read.

        Raises:
            SnnSweepError: this machine has not the GPU that was reserved; Ray tries another one.
        """
        torch.set_num_threads(threads)
        assigned_device(gpus)
        confine(gpus)
        self.evaluation: Evaluation | None = None
        self.result: Result | None = None
        self.traceback, self._saved, self._rungs = "", b"", rungs
        self._place, self._name = place, trial_id(config["number"]) if place else ""
        if "cause" in config:
            self.result = Result(status="failed", config=TrialConfig(), cause=config["cause"])
        else:
            self._guarded(lambda: self._begin(space, config["flat"], data_dir, sets or {}))
        if place and self.evaluation and not self.result:
            self._guarded(lambda: self._go_on_from(self._last()))

    def _begin(self, space: Space, flat: dict[str, Any], data_dir: str, sets: Shared) -> None:
        self.config_of_trial = TrialConfig()  # until the space's parts are known; the driver knows what was asked for
        if getattr(self, "space", None) != space:  # the actor is reused
            space.load()
            install(sets, Path(data_dir))
            self.space = space
        self.config_of_trial, self._data_dir = TrialConfig.from_flat(flat), data_dir
        self._build()

    def _build(self, parts: int = 1) -> None:
        self.evaluation = Evaluation(self.config_of_trial, self._data_dir, parts)

    def _device(self) -> torch.device:
        assert self.evaluation
        return self.evaluation.device

    def _last(self) -> dict[str, Any]:
        """The trial's newest state: of this process, or else of those before it."""
        if self._saved:
            return torch.load(io.BytesIO(self._saved), weights_only=True, map_location=self._device())
        return read_newest(newest_first(self._place, self._name), self._device()) if self._place else {}

    def _go_on_from(self, state: dict[str, Any]) -> None:
        """Only where it is of this very variant: the space may have changed since, or the study be another one."""
        mine = self.config_of_trial.to_flat() | {"device": None}
        if state.get("flat", mine) | {"device": None} != mine:
            return
        if "result" in state:
            self.result, self.traceback = Result.model_validate_json(state["result"]), state["traceback"]
        elif "trainer" in state and self.evaluation:
            self.evaluation.load_state_dict(state)

    def step(self) -> dict[str, Any]:
        metrics = self._guarded(self._advance) if self.result is None else None
        epoch = self.evaluation.trainer.epochs_done if self.evaluation else 0
        if self.result is None:
            return {"epoch": epoch, "metrics": metrics, "done": False}
        ended = {"result": self.result.model_dump_json(), "traceback": self.traceback}
        return {"epoch": epoch, **ended, "done": True}

    def _advance(self) -> dict[str, float] | None:
        try:
            return self._epoch_or_end()
        except torch.OutOfMemoryError:
            if self.evaluation is None or self.evaluation.trainer.parts > 1:
                raise
        self._halve()  # outside the except, whose traceback holds the tensors that filled the memory
        return self._epoch_or_end()

    def _halve(self) -> None:
        """As after the last checkpoint, with each batch in two parts."""
        self.evaluation = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._build(parts=2)
        self._go_on_from(self._last())

    def _epoch_or_end(self) -> dict[str, float] | None:
        assert self.evaluation
        if self.evaluation.trained:
            self.result = self.evaluation.result()
            return None
        metrics = self.evaluation.epoch()
        if self.evaluation.trainer.epochs_done in self._rungs and not self.evaluation.trained and self.space.rungs:
            rungs = self.space.rungs
            found = self.evaluation.light(rungs.suite, rungs.samples, rungs.gradients)
            found["clean_accuracy"] = metrics["clean_accuracy"]
            metrics |= {ON_THE_WAY + name: v for name, v in found.items() if not name.startswith(AT_THE_END)}
        return metrics

    def _guarded(self, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except RayError:  # the machine's fault
            raise
        except Diverged as error:
            cause = f"Diverged: {error}"
        except (Exception, SystemExit) as error:  # noqa: BLE001  spaces bring their own neurons, models, attacks
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            self.traceback = traceback.format_exc()
        if self.evaluation:
            self.result = self.evaluation.failed(cause)
        else:
            self.result = Result(status="failed", config=self.config_of_trial, cause=cause)
        return None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """What a trial goes on from; of an ended one what it is still wanted for."""
        state: dict[str, Any] = {}
        if self.result is not None:
            state = {"result": self.result.model_dump_json(), "traceback": self.traceback}
            state |= {"model": self.evaluation.model.state_dict()} if self.evaluation else {}
        elif self.evaluation is not None:
            state = self.evaluation.state_dict()
        if self.evaluation is not None:
            state["flat"] = self.config_of_trial.to_flat()
        file = io.BytesIO()
        torch.save(state, file)
        self._saved = file.getvalue() if self.result is None else b""
        (Path(checkpoint_dir) / STATE).write_bytes(file.getvalue())

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # its annotation is outdated
        """Ray's newest; where it cannot be read, the trial stays where `setup` found it."""
        if self.evaluation is not None and self.result is None:
            file = Path(checkpoint_dir) / STATE
            if state := read_newest([str(file)], self._device()):
                self._go_on_from(state)
                self._saved = file.read_bytes()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)  # type: ignore[call-arg]
        return True
