"""MLflow, written by the driver alone: a run for the sweep, and in it one for each trial.

A sweep outlives its server: after the first write that fails, a `Tracker` says so once and writes no more.
"""

import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported, as are the two below
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import pandas as pd
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from snnsweep.errors import UserError
from snnsweep.result import Direction
from snnsweep.tracking.address import probe, redacted
from snnsweep.tracking.words import cause as cause_of
from snnsweep.tracking.words import legal, readable

_LOGGER = logging.getLogger("snnsweep")
_PATIENCE = {  # a server that does not answer costs 12 s at the most; MLflow's own defaults make that minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "6",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
_OUTAGE = (MlflowException, SQLAlchemyError, OSError)  # every error of `requests` is an OSError
_REFUSED = 400  # it answers, but not to this: an outage of one value, not of the server
_ENDS = {"finished": "FINISHED", "infeasible": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_VALUE, _TAG = 6000, 5000  # characters that MLflow takes in a param and in a tag

P = ParamSpec("P")
R = TypeVar("R")


def _while_it_answers(
    method: Callable[Concatenate["Tracker", P], R],
) -> Callable[Concatenate["Tracker", P], R | None]:
    @wraps(method)
    def call(self: "Tracker", *args: P.args, **kwargs: P.kwargs) -> R | None:
        if self.broken:
            return None
        try:
            return method(self, *args, **kwargs)
        except _OUTAGE as error:
            if isinstance(error, MlflowException) and error.get_http_status_code() == _REFUSED:
                self._warn(f"{self._where} refused a part ({cause_of(error)}); the rest goes on")
                return None
            self.broken = cause_of(error)
            self._warn(f"{self._where} failed ({self.broken}); the sweep goes on, MLflow gets no more of it")
            return None

    return call


class Tracker:
    """The one writer of a sweep.

    After `connect`, no call raises because MLflow cannot be reached, or waits for it twice. Calls that return a
    value return None once it is broken.

    Args:
        uri: `http(s)://host:port` of a server, or a database such as `sqlite:///mlflow.db`.
        experiment: its name; made when there is none.
        artifacts: folder for the files of an experiment that is made; None leaves that to the server.
        warn: is told once when MLflow breaks, and once when it takes no files.

    Attributes:
        experiment_id: MLflow's, once connected.
        broken: why nothing is written any more; "" while all is well.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        artifacts: Path | None = None,
        warn: Callable[[str], None] = _LOGGER.warning,
    ):
        self._uri, self._experiment, self._artifacts, self._warn = uri, experiment, artifacts, warn
        self._where = f"MLflow at {redacted(uri)}"
        self._client: MlflowClient
        self._sweep = ""
        self._runs: dict[str, str] = {}  # run ids by trial id
        self._front: set[str] = set()
        self._takes_files = True
        self.broken = ""

    def __repr__(self) -> str:
        return f"Tracker({redacted(self._uri)!r}, {self._experiment!r})"

    def connect(self) -> None:
        """Open MLflow, and the experiment in it.

        Raises:
            UserError: it cannot be reached or used.
        """
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # pages of SQL where we say one line
        try:
            probe(self._uri)
            self._client = MlflowClient(tracking_uri=self._uri)
            known = self._client.get_experiment_by_name(self._experiment)
            if known is not None and known.lifecycle_stage == "deleted":
                raise MlflowException(f"its experiment {self._experiment!r} is deleted; restore it there")
            place = self._artifacts.resolve().as_uri() if self._artifacts else None
            self.experiment_id = (
                known.experiment_id if known else self._client.create_experiment(self._experiment, place)
            )
        except (*_OUTAGE, ImportError, ValueError) as error:  # a database's missing driver; no address at all
            raise UserError(
                f"{self._where} cannot be used: {cause_of(error)}; start a server (mlflow server --port 5000) and give "
                "its address to --tracking-uri, or leave --tracking-uri out for the embedded database"
            ) from None

    @_while_it_answers
    def start_sweep(
        self, name: str, tags: Mapping[str, Any], params: Mapping[str, Any], note: str, run_id: str | None = None
    ) -> str:
        """Open the sweep's run, or go on with `run_id` and the trials that it has.

        Returns:
            The run's id.
        """
        tags = {**tags, "snnsweep.role": "sweep", "mlflow.note.content": note}
        self._sweep = run_id or self._client.create_run(self.experiment_id, run_name=name).info.run_id
        if run_id:
            params = self._reopen(run_id, params)
            children = {run.data.tags.get("snnsweep.trial_id", ""): run for run in self._children()}
            self._runs = {trial_id: run.info.run_id for trial_id, run in children.items()}
            self._front = {trial_id for trial_id, run in children.items() if run.data.tags.get("pareto") == "true"}
        self._log(self._sweep, params=params, tags=tags)
        return self._sweep

    @_while_it_answers
    def start_trial(self, trial_id: str, name: str, params: Mapping[str, Any]) -> None:
        """Open a trial's run, or go on with the one it has; params of a run that is there stay as they are."""
        known = trial_id in self._runs
        run_id = self._run(trial_id, name)
        self._log(run_id, params=self._reopen(run_id, params) if known else params)

    @_while_it_answers
    def log_epoch(self, trial_id: str, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics after an epoch; what is not finite is left out."""
        self._log(self._run(trial_id), metrics=metrics, step=step)

    @_while_it_answers
    def end_trial(
        self,
        trial_id: str,
        status: str,
        metrics: Mapping[str, float],
        warnings: Sequence[str],
        cause: str,
        step: int = 0,
        verdict: str = "",
    ) -> None:
        """Final metrics at the last epoch's step, and the run is closed: FINISHED, FAILED or KILLED (stopped).

        Args:
            verdict: of the audit, for the tag `audit`; "" where nothing was measured.
        """
        tags = {"status": status, "snnsweep.warnings": "\n".join(warnings), "snnsweep.cause": cause}
        tags |= {"audit": verdict} if verdict else {}
        self._log(self._run(trial_id), metrics=metrics, tags=tags, step=step)
        self._client.set_terminated(self._run(trial_id), _ENDS[status])

    @_while_it_answers
    def log_front(
        self,
        front: pd.DataFrame,
        figure: Figure,
        files: Sequence[Path],
        objectives: Mapping[str, Direction] | None = None,
    ) -> None:
        """The front on the sweep's run (front.json, front.png, `files`), and `pareto` on the trials.

        May be called again: files are replaced, and who left the front has `pareto` = false.

        Args:
            objectives: their best values become metrics of the sweep's run, next to `front_size`.
        """
        members = set(front["trial_id"]) if len(front) else set()
        for trial_id in (members ^ self._front) & self._runs.keys():
            self._client.set_tag(self._runs[trial_id], "pareto", str(trial_id in members).lower())
        self._front = members
        best = {"front_size": len(front)}
        for name, way in (objectives or {}).items() if members else ():
            best[name] = front[name].max() if way == "maximize" else front[name].min()
        table = json.dumps([{"path": "front.json", "type": "table"}])  # what `log_table` says, which would append
        self._log(self._sweep, metrics=best, tags={"mlflow.loggedArtifacts": table})
        with tempfile.TemporaryDirectory() as folder:
            shown = readable(front, objectives or {})
            shown.to_json(Path(folder) / "front.json", orient="split", index=False)
            figure.savefig(Path(folder) / "front.png", dpi=150)
            self._upload([Path(folder) / "front.json", Path(folder) / "front.png", *files])

    @_while_it_answers
    def log_mix(
        self,
        sweep: str,
        mix: str,
        params: Mapping[str, Any],
        status: str,
        metrics: Mapping[str, float],
        warnings: Sequence[str],
        verdict: str,
    ) -> None:
        """A mix of two trials as a run of its own under the run `sweep`; once more replaces its figures."""
        self._sweep = sweep
        known = list(self._children(f" and tags.`snnsweep.trial_id` = '{mix}'"))
        if known:
            self._runs[mix] = known[0].info.run_id
        run_id = self._run(mix, role="mix")
        tags = {"status": status, "snnsweep.warnings": "\n".join(warnings), "audit": verdict}
        self._log(run_id, metrics=metrics, params={} if known else params, tags=tags)
        self._client.set_terminated(run_id, _ENDS[status])

    @_while_it_answers
    def end_sweep(self, status: str) -> None:
        """Close the sweep's run as FINISHED, FAILED or KILLED, and every trial's that is still open as KILLED."""
        for run in list(self._children(" and attributes.status = 'RUNNING'")):
            self._client.set_terminated(run.info.run_id, "KILLED")
        self._client.set_terminated(self._sweep, status)

    def _log(
        self,
        run_id: str,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        step: int = 0,
    ) -> None:
        """Everything in as few calls as MLflow's limits allow."""
        now = int(time.time() * 1000)
        points = [Metric(legal(n), float(v), now, step) for n, v in (metrics or {}).items() if math.isfinite(v)]
        texts = [Param(legal(name), str(value)[:_VALUE]) for name, value in (params or {}).items()]
        labels = [RunTag(name, str(value)[:_TAG]) for name, value in (tags or {}).items()]
        for i in range(max(-(-len(points) // 800), -(-len(texts) // 100), -(-len(labels) // 100))):
            few, many = slice(100 * i, 100 * (i + 1)), slice(800 * i, 800 * (i + 1))
            self._client.log_batch(run_id, points[many], texts[few], labels[few])

    def _run(self, trial_id: str, name: str = "", role: str = "trial") -> str:
        """The run of a trial, made when there is none (a trial may fail before it starts)."""
        if trial_id not in self._runs:
            tags = {"mlflow.parentRunId": self._sweep, "snnsweep.role": role, "snnsweep.trial_id": trial_id}
            self._runs[trial_id] = self._client.create_run(
                self.experiment_id, tags=tags, run_name=name or trial_id
            ).info.run_id
        return self._runs[trial_id]

    def _reopen(self, run_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Set a run running again; gives the params that it lacks (MLflow refuses to change one)."""
        self._client.update_run(run_id, status="RUNNING")
        known = self._client.get_run(run_id).data.params
        return {name: value for name, value in params.items() if legal(name) not in known}

    def _children(self, also: str = "") -> Iterator[Run]:
        """The runs of the sweep's trials, those for which `also` holds."""
        query, token = f"tags.`mlflow.parentRunId` = '{self._sweep}'{also}", None
        while True:
            page = self._client.search_runs([self.experiment_id], query, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _upload(self, files: Sequence[Path]) -> None:
        for file in files if self._takes_files else ():
            try:
                self._client.log_artifact(self._sweep, str(file))
            except Exception as error:  # noqa: BLE001 - files may go to any cloud, whose client raises its own
                self._takes_files = False
                self._warn(f"{self._where} takes no files ({cause_of(error)}); they are in the sweep's folder")
                return
