"""How the sweep went on: the front's hypervolume over trials and hours, and how trials trained."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from snnsweep.report.charts import Axis, Chart, Series, Value
from snnsweep.report.data import Swept
from snnsweep.report.palette import BLUE, GREY, Look, line_looks
from snnsweep.results.front import non_dominated, numbers
from snnsweep.results.ranking import hypervolume

MANY = 40  # places, at most, where a hypervolume of four objectives or more is computed: each takes long
OTHERS = 100  # trials off the front whose training is drawn
LEFT_OUT = ("time/", "system/", "train/lr")


def hypervolume_charts(swept: Swept) -> list[Chart]:
    """Of the front of the first k trials to end, over k and over the hours that these took; [] before one finished."""
    if swept.reference is None:
        return []
    places, volumes = growth(swept, swept.reference)
    hours = [0.0, *accumulate(second / 3600 for second in worker_seconds(swept))]
    look, y = Look(BLUE), Axis("hypervolume", low=0)
    gpus = gpus_of(swept) or 0
    unit = "GPU-hours" if gpus else "worker-hours"
    spent = [hours[place] * (gpus or 1) for place in places]
    trials: list[Value] = [*places]
    return [
        Chart("hypervolume-trials", "Hypervolume over trials", [Series("hypervolume", trials, volumes, look, "steps")],
              Axis("trials that have ended", whole=True), y),
        Chart("hypervolume-hours", f"Hypervolume over {unit}", [Series("hypervolume", spent, volumes, look, "steps")],
              Axis(f"{unit} of the trials that have ended"), y),
    ]  # fmt: skip


def gpus_of(swept: Swept) -> float | None:
    """GPUs of each trial; None where a resumed sweep changed them: which trial had how many is not known."""
    resumed = swept.facts.get("resumed", [])
    known = {float(start["gpus_per_trial"] or 0) for start in (swept.facts, *resumed) if "gpus_per_trial" in start}
    asked = any(str(word).startswith("--gpus-per-trial") for start in resumed for word in start.get("command") or ())
    return None if asked or len(known) > 1 else next(iter(known), 0.0)


def growth(swept: Swept, reference: Mapping[str, float]) -> tuple[list[int], list[float]]:
    """How many trials had ended, from none on, and the hypervolume of their front."""
    ways, corner = list(swept.objectives.values()), np.array([reference[name] for name in swept.objectives])
    values = np.column_stack([numbers(swept.results, name) for name in swept.objectives])
    able = swept.results.index.isin(swept.finished.index)
    total = len(values)
    asked = range(total + 1) if len(ways) < 4 else sorted({round(k) for k in np.linspace(0, total, MANY)})
    best, volume, volumes, seen = np.empty((0, len(ways))), 0.0, [], 0
    for place in asked:
        news = values[seen:place][able[seen:place]]
        if len(news):
            points = np.unique(np.vstack([best, news]), axis=0)
            kept = points[non_dominated(points, ways)]
            if not np.array_equal(kept, best):
                best, volume = kept, hypervolume(kept, corner, ways)
        volumes.append(volume)
        seen = place
    return list(asked), volumes


def worker_seconds(swept: Swept) -> list[float]:
    """Seconds of each trial in the order of ending: training and attacks, or the epochs alone where it was stopped."""
    whole = numbers(swept.results, "time/train_s") + numbers(swept.results, "time/attack_s")
    found = []
    for trial, seconds in zip(swept.results["trial_id"], whole, strict=True):
        epochs = swept.epochs.get(trial, {}).values()
        found.append(float(seconds) if math.isfinite(seconds) else sum(e.get("time/epoch_s", 0.0) for e in epochs))
    return found


def untimed(swept: Swept) -> int:
    """How many trials left no time at all."""
    return sum(seconds == 0 for seconds in worker_seconds(swept)) if len(swept.results) else 0


def training_charts(swept: Swept) -> list[Chart]:
    """A chart for each metric of an epoch: members of the front in colour, others grey."""
    names = dict.fromkeys(name for steps in swept.epochs.values() for one in steps.values() for name in one)
    shown = [name for name in names if not name.startswith(LEFT_OUT) and not name.endswith(("/n", "/low", "/high"))]
    return [_training(swept, name, number) for number, name in enumerate(shown, start=1)]


def _training(swept: Swept, name: str, number: int) -> Chart:
    on_front, drawn = set(swept.front.get("trial_id", [])), [row["trial_id"] for row in swept.members]
    others = [trial for trial in swept.epochs if trial not in on_front][:OTHERS]
    x: list[Value] = []
    y: list[Value] = []
    for trial in others:
        across, up = _curve(swept, trial, name)
        x, y = [*x, *across, None], [*y, *up, None]
    series = [Series("not on the front", x, y, Look(GREY, opacity=0.35, width=1), "lines")] if x else []
    for trial, look in zip(drawn, line_looks(len(drawn)), strict=True):
        across, up = _curve(swept, trial, name)
        if across:
            series.append(Series(trial, across, up, look, "both", trials=[trial] * len(across)))
    return Chart(f"training-{number}", f"{name} over epochs", series, Axis("epoch", whole=True), Axis(name))


def _curve(swept: Swept, trial: str, name: str) -> tuple[Sequence[int], Sequence[float]]:
    steps = {step: one[name] for step, one in swept.epochs.get(trial, {}).items() if name in one}
    return list(steps), list(steps.values())
