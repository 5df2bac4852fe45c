"""What the rows of `scale.py` share: clocks, a real trial's result, sweeps of stubs, filled studies and folders."""

import json
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial
from scale_stub import StubTrial, ended

from snnsweep.config import Flat
from snnsweep.evaluation import Evaluation
from snnsweep.result import Result
from snnsweep.results import store
from snnsweep.results.journal import Journal
from snnsweep.sweep import drive
from snnsweep.sweep.launch import Sweep
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.resume import ResumedSweep
from snnsweep.sweep.space import SMOKE, Space
from snnsweep.sweep.study import CONSTRAINT
from snnsweep.terminal_progress import ProgressView
from snnsweep.tracking.journal import DELIVERED, SPOOL

# Ray's workers import the stub too, whatever script began.
os.environ["PYTHONPATH"] = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))

QUESTION = '''"""Nothing is asked: stubs answer."""

OBJECTIVES = ("clean_accuracy", "robust_accuracy", "gradient_sparsity")
FIXED = {"data.name": "digits", "model.depth": 10, "model.width": 0.25, "train.epochs": 2, "attack.samples": 144}


def space(trial):
    trial.suggest_float("neuron.v_threshold", 0.4, 1.2, step=0.01)
    trial.suggest_float("neuron.alpha", 1.0, 10.0, step=0.5)
    trial.suggest_int("encoder.time_steps", 2, 5)
    trial.suggest_categorical("model.residual", ["sew_add", "sew_and", "sew_iand", "spiking", "membrane"])
    trial.suggest_categorical("model.pooling", ["max", "avg"])
    return FIXED
'''
SPACE = Space("scale_space.py", QUESTION)
EPOCHS, WINDOWS = 2, 10
Template = dict[str, Any]  # of `real_trial`
FAILED = 0.1  # share of the told trials that did not finish
POPULATION = 10
NOTHING = (0.0, 0.0)


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        trials: how many the sweep or study had.
        wall, cpu: all that was measured, in `unit`; what has no times stands in `wall`.
    """

    what: str
    trials: int
    unit: str
    wall: Sequence[float]
    cpu: Sequence[float] = ()

    def middle(self) -> float:
        return statistics.median(self.cpu or self.wall)


class Clock:
    """How long calls take that return: each one's wall and CPU seconds, the latter of the calling thread."""

    def __init__(self) -> None:
        self.calls: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self.total: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    @contextmanager
    def watching(self, *parts: tuple[Any, str, str]) -> Iterator[None]:
        """Inside, the calls of `getattr(owner, name)` are noted under `label`, for each (owner, name, label)."""
        patches = [patch.object(owner, name, self._timed(getattr(owner, name), label)) for owner, name, label in parts]
        for one in patches:
            one.start()
        try:
            yield
        finally:
            for one in patches:
                one.stop()

    def _timed(self, call: Any, label: str) -> Any:
        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            known, begun, cpu = self.calls[label], time.perf_counter(), time.thread_time()
            answer = call(*args, **kwargs)
            took = (time.perf_counter() - begun, time.thread_time() - cpu)
            known.append(took)
            self.total[label] = [old + new for old, new in zip(self.total[label], took, strict=True)]
            return answer

        return timed

    def lines(self, trials: int, unit: str = "ms") -> list[Line]:
        """A line for each label, over its calls."""
        scale = {"ms": 1e3, "us": 1e6, "s": 1.0}[unit]
        return [
            Line(label, trials, unit, [wall * scale for wall, _ in calls], [cpu * scale for _, cpu in calls])
            for label, calls in self.calls.items()
        ]


class Marks:
    """A listener that prints what a sweep's prints, and notes all clocks whenever a trial has ended.

    Attributes:
        memory: of this process when the first trial had ended, in MB.
    """

    def __init__(self, clock: Clock):
        self.clock, self.view, self.memory = clock, ProgressView(), 0.0
        self._seen: list[dict[str, tuple[float, float]]] = []

    def __call__(self, progress: Progress) -> None:
        self.view(progress)
        if progress.done <= len(self._seen):
            return
        self.memory = self.memory or memory_mb()
        now = time.perf_counter()
        clocks = {label: (wall, cpu) for label, (wall, cpu) in self.clock.total.items()}
        clocks |= {"whole process": (now, time.process_time()), "main thread": (now, time.thread_time())}
        self._seen.append(clocks)

    def lines(self, trials: int) -> list[Line]:
        """Milliseconds a trial, one value for each tenth of the sweep."""
        bounds = [(len(self._seen) - 1) * tenth // WINDOWS for tenth in range(WINDOWS + 1)]
        tenths = [(self._seen[first], self._seen[last], last - first) for first, last in pairwise(bounds)]
        lines = []
        for label in self._seen[-1]:
            ends = [(first.get(label, NOTHING), last.get(label, NOTHING), count) for first, last, count in tenths]
            wall, cpu = ([(last[at] - first[at]) * 1e3 / count for first, last, count in ends] for at in (0, 1))
            lines.append(Line(label, trials, "ms a trial", wall, cpu))
        return lines

    def ends(self, trials: int) -> list[Line]:
        """The main thread in the first and the last tenth: whether a trial costs more, the more have ended."""
        main = next(line for line in self.lines(trials) if line.what == "main thread")
        names = ("main thread, first tenth", "main thread, last tenth")
        return [
            Line(name, trials, main.unit, [main.wall[at]], [main.cpu[at]])
            for name, at in zip(names, (0, -1), strict=True)
        ]

    def rate(self, trials: int, results: int) -> Line:
        """Results a second by the wall, and by the main thread's CPU: what it would hold with a core of its own."""
        main = next(line for line in self.lines(trials) if line.what == "main thread")
        rates = ([1e3 * results / value for value in values] for values in (main.wall, main.cpu))
        return Line("results a second", trials, "1/s", *rates)


def real_trial() -> Template:
    """What a tiny trial on digits gave, as JSON: its figures mean nothing, but all names are there."""
    torch.set_num_threads(1)
    config = SPACE.sample(optuna.create_study().ask(), {}, SMOKE | {"train.epochs": EPOCHS, "device": "cpu"})
    evaluation = Evaluation(config, Path())
    while not evaluation.trained:
        evaluation.epoch()
    found: Template = json.loads(evaluation.result().model_copy(update={"status": "finished"}).model_dump_json())
    return found


class _Stubbed:
    """A sweep whose trials are stubs; everything else is what it is."""

    template: Template

    def run(self) -> Any:
        with patch.object(drive, "SweepTrial", StubTrial):
            return super().run()  # type: ignore[misc]

    def _start_of(self, *given: Any) -> Any:
        start = super()._start_of(*given)  # type: ignore[misc]
        start.given = {"template": self.template}
        return start


class StubSweep(_Stubbed, Sweep):
    """A new one."""


class ResumedStubs(_Stubbed, ResumedSweep):
    """One that goes on."""


def ask_stock(trial: optuna.Trial) -> None:
    """`SPACE` as Ray's own OptunaSearch takes it."""
    SPACE.sample(trial, {}, {})


def told_trials(count: int, seed: int = 0) -> list[FrozenTrial]:
    """Ended trials for a study of `SPACE`: three objectives that pull against each other, some that did not finish."""
    asked, draw = optuna.create_study().ask(), random.Random(seed)
    SPACE.sample(asked, {}, {})
    sampler, made = RandomSampler(seed=seed), []
    for number in range(count):
        params = {
            name: sampler.sample_independent(None, None, name, way)  # type: ignore[arg-type]
            for name, way in asked.distributions.items()
        }
        for name in ("neuron.v_threshold", "neuron.alpha"):
            params[name] = round(params[name], 2)  # as a grid spells its steps
        broken = draw.random() < FAILED
        keys = [f"{kind}:generation" for kind in ("NSGAIISampler", "NSGAIIISampler")]
        made.append(
            optuna.trial.create_trial(
                params=params,
                distributions=dict(asked.distributions),
                values=[0.0] * 3 if broken else _figures(params, asked.distributions, draw),
                user_attrs={"status": "failed" if broken else "finished"},
                system_attrs=dict.fromkeys(keys, number // POPULATION),
                constraints={CONSTRAINT: float(broken)},
            )
        )
    return made


def _figures(params: dict[str, Any], ways: dict[str, BaseDistribution], draw: random.Random) -> list[float]:
    threshold, steps = params["neuron.v_threshold"] - 0.4, params["encoder.time_steps"] / 5
    noise = [draw.gauss(0, 0.05) for _ in range(3)]
    return [0.9 - threshold + noise[0], threshold * steps + noise[1], 1 - steps + noise[2]]


def flat_of(trial: FrozenTrial) -> Flat:
    """The config of a told trial."""
    return SPACE.sample(optuna.trial.FixedTrial(trial.params), {"seed": 0}, {"device": "cpu"}).to_flat()


def add_ended(sweep: Sweep, template: Template, count: int) -> None:
    """Adds ended trials to a sweep's folder: to its study, its journal of rows, and its spool, as told to MLflow."""
    rows, lines = [], []
    for number, trial in enumerate(told_trials(count), len(sweep.study.trials)):
        sweep.study.add_trial(trial)
        name, flat = f"t{number:04d}", flat_of(trial)
        result = Result.model_validate_json(ended(template, flat, number))
        rows.append(result.row(name))
        said = [{"call": "start_trial", "said": {"trial_id": name, "name": name, "params": flat}}]
        said += [{"call": "log_epoch", "said": {"trial_id": name, "metrics": epoch}} for epoch in result.history]
        said += [{"call": "end_trial", "said": {"trial_id": name, "metrics": result.metrics}}]
        lines += [json.dumps(one) for one in said]
    Journal(sweep.folder / "results.jsonl").append(*rows)
    store.Store(sweep.folder, objectives=SPACE.objectives).flush()
    with (sweep.folder / SPOOL).open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    (sweep.folder / DELIVERED).write_text(f"{(sweep.folder / SPOOL).stat().st_size:020}\n")


def memory_mb(key: str = "VmRSS") -> float:
    """Of this process; `VmHWM` is the most that it ever had."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{key}:")[1].split()[0]) / 1024
