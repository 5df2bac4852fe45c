"""What a sweep lost, found by comparing what it left with what it had before."""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import pyarrow.parquet as pq
from harness import Scene
from mlflow import MlflowClient

from snnsweep.sweep.checkpoints import number_of, trial_id
from snnsweep.sweep.study import read_study

STATUS = {"finished": "FINISHED", "infeasible": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
Kept = dict[str, dict[str, str]]  # by trial id and column, the value's exact text


@dataclass
class Losses:
    """Counts, of which all have to be 0 that are in `bad`.

    Attributes:
        lost: trials that had ended, and are not there or not as they were.
        duplicated: trials with two ends, and pairs with the same parameters.
        open: trials that were asked for and have no end.
        astray: trials of which the study says other than the row, or that run on in it.
        epochs: that were trained twice, in part or whole.
        most: of these in one trial at one fault.
        attacks: final ones begun twice.
        runs_missing, runs_doubled, runs_wrong: of MLflow, of one each trial; wrong are status and figures.
        points_missing, points_doubled: epochs in MLflow.
    """

    lost: int = 0
    duplicated: int = 0
    open: int = 0
    astray: int = 0
    epochs: int = 0
    most: int = 0
    attacks: int = 0
    runs_missing: int = 0
    runs_doubled: int = 0
    runs_wrong: int = 0
    points_missing: int = 0
    points_doubled: int = 0

    def __add__(self, other: "Losses") -> "Losses":
        ours, theirs = asdict(self), asdict(other)
        return Losses(**{name: (max if name == "most" else int.__add__)(ours[name], theirs[name]) for name in ours})

    @property
    def bad(self) -> dict[str, int]:
        """What must not be. An epoch that was trained twice may have been told twice."""
        found = asdict(self) | {"points_doubled": max(0, self.points_doubled - self.epochs)}
        return {name: n for name, n in found.items() if n and name not in ("epochs", "most", "attacks")}


def kept(scene: Scene) -> Kept:
    """The ends that are on the disk: by now nothing may change them."""
    return {row["trial_id"]: _texts(row) for row in scene.lines()}


def losses(scene: Scene, before: Kept) -> Losses:
    """Of a sweep that has ended.

    Args:
        before: the ends that were there at any time.
    """
    found = Losses()
    rows = {row["trial_id"]: row for row in pq.read_table(scene.folder / "results.parquet").to_pylist()}
    lines = scene.lines()
    for name, texts in before.items():
        found.lost += name not in rows or _texts(rows[name]) != texts
    ends, variants = [line["trial_id"] for line in lines], [row["train.weight_decay"] for row in rows.values()]
    found.duplicated = len(ends) - len(set(ends)) + len(variants) - len(set(variants))
    found.open = abs(scene.trials - len(rows)) + len(set(rows) ^ set(ends))
    found.astray = _astray(scene, rows)
    _work(scene, rows, found)
    _mlflow(scene, rows, found)
    return found


def _texts(row: dict[str, Any]) -> dict[str, str]:
    """Exact: the text of a float is that of no other one. A column that is empty in this row may be missing."""
    return {name: repr(value) for name, value in row.items() if value is not None}


def _astray(scene: Scene, rows: dict[str, dict[str, Any]]) -> int:
    study, names = read_study(scene.folder, scene.folder.name), list(scene.facts()["objectives"])
    wrong = {name for name in rows if number_of(name) >= len(study.trials)}
    for trial in study.trials:
        row = rows.get(trial_id(trial.number), {})
        right = trial.state.name == "COMPLETE" and trial.params["train.weight_decay"] == row.get("train.weight_decay")
        if not right or (row["status"] == "finished" and trial.values != [row[name] for name in names]):
            wrong.add(trial_id(trial.number))
    return len(wrong)


def _work(scene: Scene, rows: dict[str, dict[str, Any]], found: Losses) -> None:
    """Of the trials that finished in whole batches; what two processes began was lost by the first of them."""
    epochs: dict[float, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))  # by trial and process
    attacks: dict[float, set[int]] = defaultdict(set)
    for note in scene.notes():
        if note["what"] == "attack":
            attacks[note["trial"]].add(note["pid"])
        elif note["epoch"] not in epochs[note["trial"]][note["pid"]]:
            epochs[note["trial"]][note["pid"]].append(note["epoch"])
    plain = [row for row in rows.values() if row["status"] == "finished" and row["neuron.name"] != "greedy"]
    for name in (row["train.weight_decay"] for row in plain):
        again = [max(0, max(one) - min(other) + 1) for one, other in pairwise(epochs[name].values())]
        found.epochs += sum(again)
        found.most = max([found.most, *again])
        found.attacks += len(attacks[name]) - 1


def _mlflow(scene: Scene, rows: dict[str, dict[str, Any]], found: Losses) -> None:
    facts = scene.facts()
    client = MlflowClient(facts["tracking_uri"])
    query = f"tags.`mlflow.parentRunId` = '{facts['mlflow_run_id']}'"
    runs = client.search_runs([facts["mlflow_experiment_id"]], query)
    names = Counter(run.data.tags["snnsweep.trial_id"] for run in runs)
    found.runs_missing, found.runs_doubled = len(set(rows) - set(names)), len(runs) - len(set(names) & set(rows))
    for run in runs:
        row = rows.get(run.data.tags["snnsweep.trial_id"], {})
        told = {name: run.data.metrics.get(name) for name in facts["objectives"]}
        ended = row.get("status") == "finished"
        right = not ended or told == {name: row[name] for name in told}
        found.runs_wrong += not right or run.info.status != STATUS.get(row.get("status", ""))
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
        found.points_doubled += len(steps) - len(set(steps))
        found.points_missing += len(set(range(1, row.get("epochs", 0) + 1)) - set(steps))
