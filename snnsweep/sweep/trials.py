"""Trials of a sweep that has ended: their models again, and mixes of two of them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from snnsweep import data, models, registry
from snnsweep.config import DEFAULTS, Flat, TrialConfig
from snnsweep.errors import UserError, nearest
from snnsweep.evaluation import device_of
from snnsweep.measurement import Measurement
from snnsweep.models import SNN
from snnsweep.models.mix import Mix
from snnsweep.results import store
from snnsweep.results.words import JUDGED_BY
from snnsweep.sweep.checkpoints import newest_first, place_of, read_newest
from snnsweep.sweep.space import space_then, text_of
from snnsweep.tracking.address import artifacts_of, kept
from snnsweep.tracking.mlflow import Tracker

_LOGGER = logging.getLogger("snnsweep")


@dataclass(frozen=True)
class EndedTrial:
    """A finished trial, with its weights.

    Attributes:
        data: the splits that it saw, on the model's device.
    """

    trial_id: str
    config: TrialConfig
    model: SNN
    data: data.Data


def load_trial(folder: Path, trial_id: str, data_dir: Path | None = None) -> EndedTrial:
    """A finished trial's model, in eval mode, from its last checkpoint, with the space's text that it ran with.

    Args:
        folder: the sweep's.
        data_dir: by default where the sweep found its data.

    Raises:
        UserError: there is no such trial, it did not finish, or its checkpoint is gone.
        MissingData: its data set is not there.
    """
    facts = store.load_sweep(folder)
    rows = {row["trial_id"]: row for row in store.load_results(folder).to_dict("records")}
    if trial_id not in rows:
        raise UserError(f"no trial {trial_id!r} in {folder}; {nearest(trial_id, rows)}")
    row = rows[trial_id]
    if row["status"] not in ("finished", "infeasible"):
        raise UserError(f"trial {trial_id} {row['status']} ({row['cause']}); take one that finished")
    space_then(facts, text_of(row, facts)).load()  # for the parts that it registers
    config = TrialConfig.from_flat(flat_of(row))
    device = device_of("auto")
    weights = _weights(newest_first(place_of(folder), trial_id), device, config.train.epochs)
    if not weights:
        raise UserError(f"trial {trial_id} has no checkpoint that can be read under {place_of(folder)}; restore it")
    splits = data.load(config, device, data_dir or Path(facts["data_dir"]))
    model = models.build(config, splits.spec).to(device)
    model.load_state_dict(weights)
    return EndedTrial(trial_id, config, model.eval(), splits)


def _weights(paths: list[str], device: torch.device, epochs: int) -> dict[str, Any]:
    """Of the last checkpoint; where a crash kept it from being written, of the one after the last epoch: the same."""
    if ended := read_newest(paths, device, "model"):
        return ended["model"]
    trained = read_newest(paths, device, "trainer")
    return trained["trainer"]["model"] if trained and trained["trainer"]["epochs_done"] == epochs else {}


def mix(folder: Path, standard: str, robust: str, weight: float, data_dir: Path | None = None) -> dict[str, Any]:
    """Attacks and measures a mix of two finished trials, and keeps its row in the sweep's `mixes.parquet` and MLflow.

    Args:
        standard, robust: ids of two trials that were judged alike: the same data, threat and suite.
        weight: the robust one's share of the probability, in [0, 1].

    Returns:
        The row: `trial_id`, `status`, `standard`, `robust`, `weight`, the metrics, `warnings`, `cause`.

    Raises:
        UserError: what `load_trial` raises, or the two cannot be mixed.
    """
    if not 0 <= weight <= 1:
        raise UserError(f"--weight {weight}: it is the robust trial's share, from 0 to 1")
    one, other = (load_trial(folder, trial_id, data_dir) for trial_id in (standard, robust))
    _alike(one, other)
    torch.manual_seed(other.config.seed)  # of the noise, where one of them draws any
    measured = Measurement(Mix(one.model, other.model, weight), other.config, other.data).run()
    row = {
        "trial_id": f"{standard}+{robust}@{weight:g}",
        "status": "infeasible" if measured.cause else "finished",
        "standard": standard,
        "robust": robust,
        "weight": float(weight),
        **measured.metrics,
        "audit": measured.audit.verdict,
        "audit_checks": [str(check) for check in measured.audit.checks],
        "warnings": list(measured.warnings),
        "cause": measured.cause,
    }
    store.Store(folder, file=store.MIXES).add(row)
    _track(folder, row, measured.metrics)
    return row


def _alike(one: EndedTrial, other: EndedTrial) -> None:
    """Raises:
    UserError: the two were not judged alike, or see no image in common.
    """
    mine, theirs = one.config.to_flat(), other.config.to_flat()
    needs = getattr(registry.datasets.get(other.config.data.name), "needs", ())
    problems = [
        f"{key}: {mine[key]!r} in {one.trial_id}, {theirs[key]!r} in {other.trial_id}"
        for key in dict.fromkeys((*JUDGED_BY, *needs))
        if mine[key] != theirs[key]
    ]
    if problems:
        raise UserError("a mix needs two trials that were judged alike\n" + "\n".join(problems))
    if other.config.threat.space != "pixel":
        raise UserError("a mix has no encoder of its own: its trials need threat.space=pixel; given 'encoded'")


def flat_of(row: Mapping[Any, Any]) -> Flat:
    """The config keys of a row of `results.parquet`, as Python's own values."""
    plain = {key: row[key].item() if hasattr(row[key], "item") else row[key] for key in DEFAULTS if key in row}
    return {key: None if pd.isna(value) else value for key, value in plain.items()} | {"device": "auto"}


def _track(folder: Path, row: dict[str, Any], metrics: dict[str, float]) -> None:
    facts = store.load_sweep(folder)
    uri = kept(facts["tracking_uri"])
    tracker = Tracker(uri, Path(facts["space"]["source"]).stem, artifacts_of(uri))
    try:
        tracker.connect()
    except UserError as error:
        _LOGGER.warning("the mix is in %s, but not in MLflow: %s", folder / store.MIXES, error)
        return
    params = {name: row[name] for name in ("standard", "robust", "weight")}
    said = (row["status"], metrics, row["warnings"], row["audit"])
    tracker.log_mix(facts["mlflow_run_id"], row["trial_id"], params, *said)
