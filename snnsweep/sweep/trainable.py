"""One trial as a Ray Tune trainable: an epoch a step, then one step that attacks and measures."""

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

    The process is reused by the next trial: everything is built and seeded afresh in `setup`.
    """

    def setup(self, config: dict[str, Any], space: Space, data_dir: str, threads: int) -> None:
        """Args:
        config: what `StudySearcher.suggest` gave.
        space: executed here, so that the parts it registers are known in this process too.
        threads: CPU threads of this trial.
        """
        torch.set_num_threads(threads)
        assert space.module
        self.result: Result | None = None
        if "cause" in config:
            self.evaluation = None
            self.result = Result(status="failed", config=TrialConfig(), cause=config["cause"])
        else:
            self.evaluation = Evaluation(TrialConfig.from_flat(config["flat"]), data_dir)

    def step(self) -> dict[str, Any]:
        if self.evaluation is None or self.evaluation.trained:
            return self._end(self.result or self.evaluation.result())
        try:
            metrics = self.evaluation.epoch()
        except Diverged as error:
            return self._end(self.evaluation.failed(error))
        return {"epoch": self.evaluation.trainer.epochs_done, "metrics": metrics, "done": False}

    def _end(self, result: Result) -> dict[str, Any]:
        self.result = result
        return {"epoch": result.epochs, "result": result.model_dump_json(), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        if self.evaluation is None:
            state: dict[str, Any] = {}
        elif self.result is not None:
            state = {"model": self.evaluation.model.state_dict()}  # what an ended trial is still wanted for
        else:
            state = self.evaluation.state_dict()
        torch.save(state, Path(checkpoint_dir) / STATE)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        state = torch.load(Path(checkpoint_dir) / STATE, weights_only=True)
        if self.evaluation is not None:
            self.evaluation.load_state_dict(state)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)  # type: ignore[call-arg]  # tune.with_parameters gives the rest
        return True
