"""One trial from start to end: build, train, attack, measure. Ray, Optuna and MLflow only wrap this."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from snnsweep import data, models
from snnsweep.config import TrialConfig
from snnsweep.errors import Diverged, UserError
from snnsweep.machine import hardware, keep_freed_memory
from snnsweep.measurement import Gradients, Measurement
from snnsweep.result import Result
from snnsweep.training.loop import Trainer

LOOKED_AT = 256  # validation images, at least, after each epoch


def evaluate(
    config: TrialConfig, data_dir: Path | str | None = None, on_epoch: Callable[[dict[str, float]], None] | None = None
) -> Result:
    """Trains, attacks and measures one variant on the validation split; the test split stays untouched.

    Args:
        data_dir: folder of the data sets; by default the environment's SNNSWEEP_DATA, else `data`.
        on_epoch: called after each epoch with its metrics.

    Returns:
        The result; a training that diverged is a `failed` one, with its cause.

    Raises:
        MissingData: the data set is not there.
        UserError: the device is not there.

    Example:
        >>> keys = {"data.name": "digits", "data.subset": 64, "model.depth": 10, "model.width": 0.125}
        >>> config = TrialConfig.from_flat({**keys, "train.epochs": 1, "attack.samples": 16})
        >>> result = evaluate(config)
        >>> result.epochs, 0 <= result.robust_accuracy <= result.metrics["robust_accuracy/clean"] <= 1
        (1, True)
    """
    trial = Evaluation(config, data_dir)
    while not trial.trained:
        try:
            metrics = trial.epoch()
        except Diverged as error:
            return trial.failed(f"Diverged: {error}")
        if on_epoch:
            on_epoch(metrics)
    return trial.result()


class Evaluation:
    """A trial in steps, for drivers that report and checkpoint between them.

    Args:
        parts: in so many a batch goes through the network, one after the other, where its memory does not suffice.
        shared: this config's data, on its device, where another trial has loaded them.

    Attributes:
        history: one dict of metrics for each epoch trained.
        notes: of the driver's, on how it came about; among the result's warnings.
    """

    def __init__(
        self,
        config: TrialConfig,
        data_dir: Path | str | None = None,
        parts: int = 1,
        shared: data.Data | None = None,
    ):
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device_of(config.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.data = shared or data.load(config, self.device, Path(data_dir) if data_dir else None)
        self.model = models.build(config, self.data.spec).to(self.device)
        self.measurement = Measurement(self.model, config, self.data)
        self.trainer = Trainer(self.model, config, self.data.train)
        self._divide(parts)
        self.history: list[dict[str, float]] = []
        self.notes: list[str] = []

    @property
    def trained(self) -> bool:
        return self.trainer.epochs_done >= self.config.train.epochs

    def epoch(self) -> dict[str, float]:
        """Trains one epoch; `clean_accuracy` is over `looked_at` validation images, after the last one over all.

        Raises:
            Diverged: the loss or a parameter is not finite.
        """
        start = time.perf_counter()
        metrics = self.trainer.epoch()
        return self.after_epoch(metrics, time.perf_counter() - start)

    def after_epoch(self, metrics: dict[str, float], seconds: float) -> dict[str, float]:
        """What `epoch` makes of the trainer's metrics, where a pack has trained it, in so many seconds."""
        metrics["time/epoch_s"] = seconds
        most = None if self.trained else looked_at(len(self.data.train))
        right = self.measurement.correct(most)
        metrics |= {"clean_accuracy": float(right.double().mean()), "clean_accuracy/n": len(right)}
        self.history.append(metrics)
        return metrics

    def light(
        self, suite: str, samples: int, wanted: Iterable[str], gradients: Gradients = "exact"
    ) -> dict[str, float]:
        """`Measurement.light`; the training goes on as if it had not been."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            return self.measurement.light(suite, samples, wanted, gradients)

    def _divide(self, parts: int) -> None:
        self.trainer.parts = parts
        self.measurement.batch = -(-self.config.data.batch_size // parts)

    def failed(self, cause: str) -> Result:
        """The result of a trial that ended here, for that cause."""
        return Result(
            status="failed",
            config=self.config,
            epochs=self.trainer.epochs_done,
            cause=cause,
            history=tuple(self.history),
            hardware=hardware(self.device),
        )

    def result(self) -> Result:
        """Attacks and measures the model as it stands."""
        measured = self.measurement.run()
        train_s = sum(epoch["time/epoch_s"] for epoch in self.history)
        return Result(
            status="infeasible" if measured.cause else "finished",
            config=self.config,
            metrics=measured.metrics | {"time/train_s": train_s},
            warnings=(*measured.warnings, *self._warnings()),
            epochs=self.trainer.epochs_done,
            cause=measured.cause,
            history=tuple(self.history),
            verdict=measured.audit.verdict,
            checks=measured.audit.checks,
            hardware=hardware(self.device),
        )

    def _warnings(self) -> list[str]:
        parts, members = self.trainer.parts, self.trainer.members
        divided = f"memory ran out: each batch went through in {parts} parts, of which batch norm saw one at a time"
        packed = f"trained in a pack of up to {members} trials: alone it would differ by rounding, and what comes of it"
        return [*self.notes, *(said for said, holds in ((divided, parts > 1), (packed, members > 1)) if holds)]

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings only, so that `torch.load(weights_only=True)` reads it."""
        state = {"trainer": self.trainer.state_dict(), "history": self.history, "torch_rng": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        return state | {"parts": self.trainer.parts, "notes": self.notes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state["trainer"])
        self.history = list(state["history"])
        torch.set_rng_state(state["torch_rng"].cpu())
        if self.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        self._divide(max(self.trainer.parts, state["parts"]))
        self.notes = list(state.get("notes", ()))


def looked_at(images: int) -> int:
    """So many validation images at most are looked at after an epoch of that many training images.

    A ninth: all of them after a whole training set. After a small part of a set (`data.subset`) looking at all would
    take longer than the epoch.
    """
    return max(LOOKED_AT, -(-images // 9))


def device_of(name: str) -> torch.device:
    """The torch device of a config's `device`; `auto` takes CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {name} is not there; this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device
