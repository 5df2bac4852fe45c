"""One trial as a Ray Tune trainable: an epoch a step, then one step that attacks and measures."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray import tune

from snnsweep.config import TrialConfig
from snnsweep.errors import Diverged
from snnsweep.evaluation import Evaluation
from snnsweep.result import Result
from snnsweep.sweep.space import Space

STATE = "state.pt"


class SweepTrial(tune.Trainable):
    """Wraps `Evaluation`. A checkpoint follows every step, so that a lost worker costs at most an epoch.

    The process is reused by the next trial: everything is built and seeded afresh in `setup`. What the trial's own
    code raises would be raised again, so it ends the trial as `failed`; Ray retries lost processes alone.
    """

    def setup(  # type: ignore[override]  # tune.with_parameters binds all but the config
        self, config: dict[str, Any], space: Space, data_dir: str, threads: int
    ) -> None:
        """Args:
        config: what `StudySearcher.suggest` gave.
        space: executed here, so that the parts it registers are known in this process too.
        threads: CPU threads of this trial.
        """
        torch.set_num_threads(threads)
        self.evaluation: Evaluation | None = None
        self.result: Result | None = None
        self.traceback = ""
        if "cause" in config:
            self.result = Result(status="failed", config=TrialConfig(), cause=config["cause"])
        else:
            self._guarded(lambda: self._build(space, config["flat"], data_dir))

    def _build(self, space: Space, flat: dict[str, Any], data_dir: str) -> None:
        self.config_of_trial = TrialConfig()  # until the space's parts are known; the driver knows what was asked for
        if getattr(self, "space", None) != space:  # the actor is reused: its data set is read once
            space.load()
            self.space = space
        self.config_of_trial = TrialConfig.from_flat(flat)
        self.evaluation = Evaluation(self.config_of_trial, data_dir)

    def step(self) -> dict[str, Any]:
        metrics = self._guarded(self._advance) if self.result is None else None
        epoch = self.evaluation.trainer.epochs_done if self.evaluation else 0
        if self.result is None:
            return {"epoch": epoch, "metrics": metrics, "done": False}
        ended = {"result": self.result.model_dump_json(), "traceback": self.traceback}
        return {"epoch": epoch, **ended, "done": True}

    def _advance(self) -> dict[str, float] | None:
        assert self.evaluation
        if not self.evaluation.trained:
            return self.evaluation.epoch()
        self.result = self.evaluation.result()
        return None

    def _guarded(self, run: Callable[[], Any]) -> Any:
        try:
            return run()
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
        if self.evaluation is None:
            state: dict[str, Any] = {}
        elif self.result is not None:
            state = {"model": self.evaluation.model.state_dict()}  # what an ended trial is still wanted for
        else:
            state = self.evaluation.state_dict()
        torch.save(state, Path(checkpoint_dir) / STATE)

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # its annotation is outdated
        state = torch.load(Path(checkpoint_dir) / STATE, weights_only=True)
        if self.evaluation is not None and "trainer" in state:
            self.evaluation.load_state_dict(state)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)  # type: ignore[call-arg]
        return True
