"""What a sweep says to MLflow: a run for the sweep, and in it one for each trial.

Synchronous: a sweep that must not wait for a server says it to a `Spool`, which says it to this.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from snnsweep.errors import UserError
from snnsweep.tracking.address import redacted
from snnsweep.tracking.models import mark, upload
from snnsweep.tracking.runs import TRIAL_ID, Runs

_LOGGER = logging.getLogger("snnsweep")
_AGAIN_S = (1.0, 5.0)  # after which a model is tried again
_NO_MODELS = ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")  # a server without them
_ENDS = {"finished": "FINISHED", "infeasible": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class Tracker:
    """The one writer of a sweep.

    Each method may be called again with the same arguments, also by another process and after a failure: with
    the same `at` nothing is there twice. `at` is when it was said, in milliseconds since 1970; None is now.

    Methods raise `Outage` where MLflow cannot be used now, and `Refused` where it answers and never takes the call;
    both are `UserError`. A single value that it refuses is left out.

    Args:
        uri: `http(s)://host:port` of a server, or a database such as `sqlite:///mlflow.db`.
        experiment: its name; made when there is none.
        artifacts: folder for the files of an experiment that is made; None leaves that to the server.
        warn: is told once of each value that MLflow refuses, and once when it takes no files.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        artifacts: Path | None = None,
        warn: Callable[[str], None] = _LOGGER.warning,
    ):
        self._uri, self._experiment, self._artifacts, self._warn = uri, experiment, artifacts, warn
        self._runs = Runs(uri, warn)

    def __repr__(self) -> str:
        return f"Tracker({redacted(self._uri)!r}, {self._experiment!r})"

    @property
    def experiment_id(self) -> str:
        """MLflow's, once connected or attached."""
        return self._runs.experiment_id

    def connect(self) -> None:
        """Open MLflow, and the experiment in it.

        Raises:
            UserError: it cannot be reached or used.
        """
        try:
            self._runs.open_experiment(self._experiment, self._artifacts)
        except UserError as error:
            raise UserError(
                f"{error}; start a server (mlflow server --port 5000) and give its address to --tracking-uri, or leave "
                "--tracking-uri out for the embedded database"
            ) from None

    def attach(self, run_id: str) -> None:
        """Go on with a sweep's run, which tells its experiment: `connect` is not needed then."""
        self._runs.attach(run_id)

    def start_sweep(
        self,
        name: str,
        tags: Mapping[str, Any],
        params: Mapping[str, Any],
        note: str,
        run_id: str | None = None,
        at: int | None = None,
    ) -> str:
        """Open the sweep's run, or go on with `run_id` and the trials that it has.

        Returns:
            The run's id.
        """
        at, tags = at or _now(), {**tags, "snnsweep.role": "sweep", "snnsweep.sweep": name, "mlflow.note.content": note}
        if run_id is None:
            self._runs.begin(name, tags, at)
        else:
            self.attach(run_id)
            self._runs.share(tags)
            params = self._runs.reopen(run_id, params)
        self._runs.log(self._runs.sweep, at, params=params, tags=tags)
        return self._runs.sweep

    def start_trial(self, trial_id: str, name: str, params: Mapping[str, Any], at: int | None = None) -> None:
        """Open a trial's run, or go on with the one it has; params of a run that is there stay as they are."""
        at = at or _now()
        known = self._runs.find(trial_id)
        run_id = known or self._runs.get(trial_id, at, name)
        self._runs.log(run_id, at, params=self._runs.reopen(run_id, params) if known else params)

    def log_epoch(self, trial_id: str, step: int, metrics: Mapping[str, float], at: int | None = None) -> None:
        """Metrics after an epoch; what is not finite is left out."""
        at = at or _now()
        self._runs.log(self._runs.get(trial_id, at), at, metrics=metrics, step=step)

    def log_data(self, trial_id: str, sets: Sequence[Mapping[str, Any]], at: int | None = None) -> None:
        """The data sets of a trial, or of the sweep ("").

        Args:
            sets: as `data.identities` gives them.
        """
        self._runs.take_data(self._runs.get(trial_id, at or _now()) if trial_id else self._runs.sweep, sets)

    def log_course(self, step: int, metrics: Mapping[str, float], at: int | None = None) -> None:
        """Metrics of the sweep's run."""
        self._runs.log(self._runs.sweep, at or _now(), metrics=metrics, step=step)

    def end_trial(
        self,
        trial_id: str,
        status: str,
        metrics: Mapping[str, float],
        warnings: Sequence[str],
        cause: str,
        step: int = 0,
        verdict: str = "",
        at: int | None = None,
    ) -> None:
        """Final metrics at the last epoch's step, and the run is closed: FINISHED, FAILED or KILLED (stopped).

        Args:
            verdict: of the audit, for the tag `audit`; "" where nothing was measured.
        """
        at, end = at or _now(), _ENDS[status]
        tags = {"status": status, "snnsweep.warnings": "\n".join(warnings), "snnsweep.cause": cause}
        tags |= {"audit": verdict} if verdict else {}
        tags |= {} if self._runs.on_front(trial_id) else {"pareto": "false"}  # until `mark_front` says otherwise
        run_id = self._runs.get(trial_id, at)
        self._runs.log(run_id, at, metrics=metrics, tags=tags, step=step)
        self._runs.close(run_id, end, at)

    def log_front(
        self, members: Sequence[str], files: Sequence[Path] = (), models: bool = False, at: int | None = None
    ) -> None:
        """The front on the sweep's run, and `pareto` on the trials and their models.

        May be called again: files are replaced, and who left the front has `pareto` = false.

        Args:
            members: trial ids.
            files: that are there; one called front.json is shown as a table.
            models: whether the sweep has logged any.
        """
        at = at or _now()
        self._runs.mark_front(set(members), at)
        table = json.dumps([{"path": "front.json", "type": "table"}])  # what `log_table` says, which would append
        shown = {"mlflow.loggedArtifacts": table} if any(file.name == "front.json" for file in files) else {}
        self._runs.log(self._runs.sweep, at, tags=shown)
        self._runs.upload(files)
        if models:
            self._of_models("whose trial left the front keep the tag pareto", mark, set(members))

    def mark_front(self, members: Sequence[str], at: int | None = None) -> None:
        """The tag `pareto` of each ended trial says whether it is on the front so far."""
        self._runs.mark_front(set(members), at or _now())

    def log_model(self, trial_id: str, folder: Path, tags: Mapping[str, str], at: int | None = None) -> bool:
        """A member of the front as a LoggedModel of its run; once more replaces it. A momentary failure is tried again.

        Args:
            folder: that `models.save` wrote.

        Returns:
            Whether the folder is done with: it is there, or MLflow will never take it.
        """
        sweep = self._runs.shared.get("snnsweep.sweep", "")
        own = {TRIAL_ID: trial_id, "snnsweep.run": self._runs.sweep, "snnsweep.sweep": sweep, **tags}
        if not (folder / "MLmodel").is_file():
            self._warn(f"{folder} holds no model; the weights are in the trials' checkpoints")
            return True
        for pause in (*_AGAIN_S, None):
            try:
                upload(self._runs, trial_id, folder, own, f"{sweep}-{trial_id}")
                return True
            except Exception as error:  # noqa: BLE001 - as for files
                never = isinstance(error, MlflowException) and error.error_code in _NO_MODELS
                if never or pause is None:
                    self._runs.do_without("models", error, "the weights are in the trials' checkpoints")
                    return never
                time.sleep(pause)
        return False

    def _of_models(self, kept: str, call: Callable[..., None], *given: Any) -> None:
        """A server may answer and know no models, or have no place for them."""
        try:
            call(self._runs, *given)
        except Exception as error:  # noqa: BLE001 - as for files
            self._runs.do_without("models", error, kept)

    def log_confirmed(
        self,
        pair: str,
        member: str,
        params: Mapping[str, Any],
        status: str,
        metrics: Mapping[str, float],
        warnings: Sequence[str],
        cause: str,
        verdict: str,
        sets: Sequence[Mapping[str, Any]] = (),
        at: int | None = None,
    ) -> None:
        """A member of the front, judged again, as a run under the member's; once more replaces its figures."""
        at = at or _now()
        parent = self._runs.find(member) or self._runs.sweep
        tags = {"snnsweep.member": member, "status": status, "audit": verdict, "snnsweep.cause": cause}
        tags["snnsweep.warnings"] = "\n".join(warnings)
        known = self._runs.find(pair, parent) or self._runs.find(pair, self._runs.sweep)  # told before the member was
        run_id = known or self._runs.get(pair, at, role="confirm", parent=parent)
        params = self._runs.reopen(run_id, params) if known else params
        self._runs.log(run_id, at, metrics=metrics, params=params, tags=tags)
        if sets:
            self._runs.take_data(run_id, sets)
        self._runs.close(run_id, _ENDS[status], at)

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
        """A mix of two trials as a run of its own under the run `sweep`; once more replaces its figures.

        Never raises for MLflow's sake: it warns, since whoever calls it has the mix on disk.
        """
        at = _now()
        tags = {"status": status, "snnsweep.warnings": "\n".join(warnings), "audit": verdict}
        try:
            self.attach(sweep)
            known = self._runs.find(mix)
            run_id = self._runs.get(mix, at, role="mix")
            self._runs.log(run_id, at, metrics=metrics, params={} if known else params, tags=tags)
            self._runs.close(run_id, _ENDS[status], at)
        except UserError as error:
            self._warn(f"the mix {mix} is in the sweep's folder, but not all of it in MLflow: {error}")

    def end_sweep(self, status: str, at: int | None = None) -> None:
        """Close the sweep's run as FINISHED, FAILED or KILLED, and every trial's that is still open as KILLED."""
        at = at or _now()
        self._runs.close_rest(at)
        self._runs.close(self._runs.sweep, status, at)


def _now() -> int:
    return int(time.time() * 1000)
