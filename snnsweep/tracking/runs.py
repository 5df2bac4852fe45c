"""The runs of a sweep in MLflow, by calls that may be made twice and that fail in one of two ways."""

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from snnsweep.errors import UserError
from snnsweep.tracking.address import probe, redacted
from snnsweep.tracking.datasets import inputs
from snnsweep.tracking.words import cause, clean, legal, once

_PATIENCE = {  # MLflow's own defaults make a server that does not answer cost minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # its retries would make a run twice where the first answer was late
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
_NEVER = "INVALID_PARAMETER_VALUE"  # the other codes of HTTP 400 also stand for a database that is in trouble
_NAME, _VALUE, _TAG = 250, 6000, 5000  # characters that MLflow takes in a run's name, in a param and in a tag
_PARTS = {Metric: 800, Param: 100, RunTag: 100}  # of which MLflow takes so many in a call
TRIAL_ID = "snnsweep.trial_id"
SHARED = ("snnsweep.sweep", "snnsweep.version", "snnsweep.smoke")  # tags of a sweep's run that its trials have too

P = ParamSpec("P")
R = TypeVar("R")
Part = Metric | Param | RunTag


class Outage(UserError):
    """MLflow does not answer, or cannot do its work; the same call may succeed later."""


class Refused(UserError):
    """MLflow answers, and will never take this."""


class Runs:
    """A sweep's run, and in it the runs of its trials, each found again by the tag `snnsweep.trial_id`.

    What is said twice with the same time is there once. Every method raises `Outage` or `Refused`.

    Args:
        uri: of a server or database.
        warn: is told of each value that MLflow refuses, and when it takes no files; nothing twice.

    Attributes:
        where: the server, for messages.
        experiment_id: MLflow's, once there is an experiment or a sweep's run.
        sweep: id of the sweep's run; "" before there is one.
        shared: tags that the runs of its trials get.
    """

    def __init__(self, uri: str, warn: Callable[[str], None]):
        self._uri, self._warn = uri, once(warn)
        self.where = f"MLflow at {redacted(uri)}"
        self.experiment_id = self.sweep = ""
        self.shared: dict[str, str] = {}
        self._ids: dict[str, str] = {}  # of runs by trial id
        self._fresh = False  # the sweep's run was made here, so that no run of a trial is there that `_ids` lacks
        self._doubtful: set[str] = set()  # trials whose run may be there, though MLflow did not say so
        self._front: set[str] | None = None  # trials tagged `pareto`; None before MLflow was asked

    @cached_property
    def client(self) -> MlflowClient:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # pages of SQL where we say one line
        self.ask(probe, self._uri)
        return self.ask(MlflowClient, tracking_uri=self._uri)

    def ask(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Makes a call of MLflow's."""
        try:
            return call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - MLflow's, of its database, of the network, of a cloud's proxy
            if isinstance(error, MlflowException) and error.error_code == _NEVER:
                raise Refused(f"{self.where} refused a part: {cause(error)}") from None
            raise Outage(f"{self.where} cannot be used: {cause(error)}") from None

    def open_experiment(self, name: str, artifacts: Path | None) -> None:
        """Find the experiment, or make it with that folder for its files."""
        known = self.ask(self.client.get_experiment_by_name, name)
        if known is not None and known.lifecycle_stage == "deleted":
            raise Refused(f"{self.where} cannot be used: its experiment {name!r} is deleted; restore it there")
        place = artifacts.resolve().as_uri() if artifacts else None
        self.experiment_id = (
            known.experiment_id if known else self.ask(self.client.create_experiment, name, artifact_location=place)
        )

    def begin(self, name: str, tags: Mapping[str, Any], at: int) -> None:
        """Make the sweep's run."""
        run = self.ask(self.client.create_run, self.experiment_id, start_time=at, run_name=clean(name)[:_NAME])
        self._turn_to(run.info.run_id, tags, fresh=True)

    def attach(self, run_id: str) -> None:
        """Go on with a sweep's run that is there, and its experiment."""
        if self.sweep != run_id:
            run = self.ask(self.client.get_run, run_id)
            self.experiment_id = run.info.experiment_id
            self._turn_to(run_id, run.data.tags, fresh=False)

    def find(self, trial_id: str, parent: str = "") -> str | None:
        """The id of a trial's run, where it has one; of what was done with a trial under the run `parent`."""
        if trial_id not in self._ids and (trial_id in self._doubtful or not self._fresh):
            found = list(self.children(f" and tags.`{TRIAL_ID}` = '{trial_id}'", parent))
            if found:  # more than one where an answer came too late: those were left empty
                self._ids[trial_id] = max(
                    found, key=lambda run: len(run.data.metrics) + len(run.data.params)
                ).info.run_id
        return self._ids.get(trial_id)

    def get(self, trial_id: str, at: int, name: str = "", role: str = "trial", parent: str = "") -> str:
        """The id of a trial's run, made when there is none (a trial may fail before it starts)."""
        if known := self.find(trial_id, parent):
            return known
        own = {"mlflow.parentRunId": parent or self.sweep, "snnsweep.role": role, TRIAL_ID: trial_id}
        self._doubtful.add(trial_id)
        run = self.ask(
            self.client.create_run,
            self.experiment_id,
            start_time=at,
            tags=self.shared | own,
            run_name=clean(name or trial_id)[:_NAME],
        )
        self._doubtful.discard(trial_id)
        self._ids[trial_id] = run.info.run_id
        return self._ids[trial_id]

    def reopen(self, run_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Set a run running again; gives the params that it lacks (MLflow refuses to change one)."""
        self.ask(self.client.update_run, run_id, status="RUNNING")
        known = self.ask(self.client.get_run, run_id).data.params
        return {name: value for name, value in params.items() if legal(name) not in known}

    def close(self, run_id: str, status: str, at: int) -> None:
        """End a run as FINISHED, FAILED or KILLED."""
        self.ask(self.client.set_terminated, run_id, status, end_time=at)

    def close_rest(self, at: int) -> None:
        """End the trials' runs that are open as KILLED; a second one of a trial is deleted."""
        for run in list(self.children(" and attributes.status = 'RUNNING'")):
            if self.find(run.data.tags.get(TRIAL_ID, "")) in (None, run.info.run_id):
                self.close(run.info.run_id, "KILLED", at)
            else:
                self.ask(self.client.delete_run, run.info.run_id)

    def mark_front(self, members: Set[str], at: int) -> None:
        """The tag `pareto` is true for these trials, and false for those that had it before."""
        if self._front is None:
            self._front = {run.data.tags[TRIAL_ID] for run in self.children(" and tags.pareto = 'true'")}
        for trial_id in sorted(self._front ^ members):
            if run_id := self.find(trial_id):
                self.log(run_id, at, tags={"pareto": str(trial_id in members).lower()})
            self._front ^= {trial_id}

    def children(self, also: str = "", parent: str = "") -> Iterator[Run]:
        """The runs right under the sweep's, or under `parent`, those for which `also` holds."""
        query, token = f"tags.`mlflow.parentRunId` = '{parent or self.sweep}'{also}", None
        while True:
            page = self.ask(self.client.search_runs, [self.experiment_id], query, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def log(
        self,
        run_id: str,
        at: int,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        step: int = 0,
    ) -> None:
        """Everything in as few calls as MLflow's limits allow; what it refuses, and what is not finite, is left out.

        Args:
            at: milliseconds since 1970.
        """
        said: list[list[Any]] = [
            [Metric(legal(n), float(v), at, step) for n, v in (metrics or {}).items() if math.isfinite(v)],
            [Param(legal(name), clean(value)[:_VALUE]) for name, value in (params or {}).items()],
            [RunTag(name, clean(value)[:_TAG]) for name, value in (tags or {}).items()],
        ]
        while any(said):
            sizes = _PARTS.values()
            self._send(run_id, [part for parts, size in zip(said, sizes, strict=True) for part in parts[:size]])
            said = [parts[size:] for parts, size in zip(said, sizes, strict=True)]

    def share(self, tags: Mapping[str, Any]) -> None:
        """From now on the runs that are made have those of a sweep's tags that are `SHARED`."""
        self.shared = {name: clean(tags[name])[:_TAG] for name in SHARED if name in tags}

    def on_front(self, trial_id: str) -> bool:
        """Whether `mark_front` has said so here."""
        return trial_id in (self._front or ())

    def take_data(self, run_id: str, sets: Sequence[Mapping[str, Any]]) -> None:
        """Data sets as inputs of a run, as `data.identities` gives them; MLflow keeps each once."""
        self.ask(self.client.log_inputs, run_id, inputs(sets))

    def upload(self, files: Sequence[Path]) -> None:
        """Files for the sweep's run; MLflow may answer and have no place for them."""
        for file in files:
            try:
                self.client.log_artifact(self.sweep, str(file))
            except Exception as error:  # noqa: BLE001 - files may go to any cloud, whose client raises its own
                self.do_without("files", error, "they are in the sweep's folder")
                return

    def do_without(self, what: str, error: Exception, kept: str) -> None:
        """Warns of a server that answers, but lacks a place or a call for something.

        Raises:
            Outage: it does not answer.
        """
        self.ask(self.client.get_run, self.sweep)
        self._warn(f"{self.where} takes no {what} ({cause(error)}); {kept}")

    def _turn_to(self, sweep: str, tags: Mapping[str, Any], fresh: bool) -> None:
        self.sweep, self._fresh, self._ids, self._front = sweep, fresh, {}, None
        self.share(tags)

    def _send(self, run_id: str, parts: Sequence[Part]) -> None:
        """One call; where a part is refused, halves of it until that part is alone."""
        metrics = [part for part in parts if isinstance(part, Metric)]
        params = [part for part in parts if isinstance(part, Param)]
        tags = [part for part in parts if isinstance(part, RunTag)]
        try:
            self.ask(self.client.log_batch, run_id, metrics, params, tags)
        except Refused as error:
            if self.ask(self.client.get_run, run_id).info.lifecycle_stage == "deleted":  # by somebody, with all in it
                raise
            if len(parts) > 1:
                self._send(run_id, parts[: len(parts) // 2])
                self._send(run_id, parts[len(parts) // 2 :])
            else:
                self._warn(f"{error}; without {parts[0].key[:60]!r} the rest goes on")
