"""A trial that costs nothing: `SweepTrial`'s reports, of the size of a real trial's. Imports little: workers do too."""

import json
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune


def ended(template: Mapping[str, Any], flat: Mapping[str, Any], number: int) -> str:
    """A real trial's result as JSON, with this trial's config and figures of its own.

    Args:
        template: `Result.model_dump` in its JSON form.
        flat: the config.
        number: Optuna's; the figures are drawn from it.
    """
    draw = random.Random(number)
    config = json.loads(json.dumps(template["config"]))
    for key, value in flat.items():
        *groups, name = key.split(".")
        place = config
        for group in groups:
            place = place[group]
        place[name] = value
    metrics = {name: value * draw.uniform(0.9, 1.1) for name, value in template["metrics"].items()}
    result = {name: said for name, said in template.items() if name != "sleep_s"}
    return json.dumps({**result, "config": config, "metrics": metrics})


class StubTrial(tune.Trainable):
    """Reports the template's epochs, then a result, whose only warning names the process. Checkpoints of a few bytes.

    A template's `sleep_s` is the trial's time, in equal parts for each report.
    """

    def setup(  # type: ignore[override]  # tune.with_parameters binds all but the config
        self, config: dict[str, Any], template: dict[str, Any], space: Any, place: str, rungs: Any
    ) -> None:
        """`space`, `place` and `rungs` are what the driver gives to every trial; only `template` is looked at."""
        self.template, self.asked, self.epoch = template, config, 0

    def step(self) -> dict[str, Any]:
        history = self.template["history"]
        time.sleep(self.template.get("sleep_s", 0) / (len(history) + 1))
        if self.epoch < len(history):
            self.epoch += 1
            return {"epoch": self.epoch, "metrics": history[self.epoch - 1], "done": False}
        named = {**self.template, "warnings": [f"process {os.getpid()}"]}
        result = ended(named, self.asked["flat"], self.asked["number"])
        return {"epoch": self.epoch, "result": result, "traceback": "", "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "state.pt").write_bytes(b"nothing")

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # its annotation is outdated
        """There is nothing in one."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)  # type: ignore[call-arg]
        return True


def stock_trial(config: dict[str, Any], template: Mapping[str, Any]) -> None:
    """The same reports from a function, which is stock Tune's own way."""
    pause = template.get("sleep_s", 0) / (len(template["history"]) + 1)
    for metrics in template["history"]:
        time.sleep(pause)
        tune.report(dict(metrics))
    time.sleep(pause)
    tune.report({**template["metrics"], "process": os.getpid()})
