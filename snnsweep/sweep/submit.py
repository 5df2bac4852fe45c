"""A sweep as a job of a running Ray cluster: it goes on when the machine that submitted it is shut."""

import json
import os
import shlex
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from snnsweep.errors import UserError
from snnsweep.sweep import preflight
from snnsweep.sweep.space import Space
from snnsweep.tracking.address import redacted

PATIENCE_S = 5
# `ray job stop` kills after 3 seconds by default: too soon for the snapshot that a sweep makes when it is told to end.
PATIENCE = {"RAY_JOB_STOP_WAIT_TIME_S": "120"}
OVERRULING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray lets them win over the address that it is given


@dataclass(frozen=True)
class Job:
    """A submitted sweep.

    Attributes:
        name: of the sweep, and the submission id of its job.
        folder: the sweep's, as the cluster sees it.
        address: the dashboard's, without its secrets.
        entrypoint: the command that runs on the cluster's head.
    """

    name: str
    folder: str
    address: str
    entrypoint: str

    @property
    def ways_on(self) -> dict[str, str]:
        """The commands that follow, stop and resume it."""
        at = f"--address {shlex.quote(self.address)}"
        again = shlex.join(["snnsweep", "resume", self.folder, "--address", "auto"])
        patient = shlex.quote(json.dumps({"env_vars": PATIENCE}))
        return {
            "follow": f"ray job logs {shlex.quote(self.name)} --follow {at}",
            "stop": f"ray job stop {shlex.quote(self.name)} {at}",
            "resume": f"ray job submit {at} --no-wait --runtime-env-json {patient} -- {again}",
        }


def submit(
    space: Path | str,
    options: Sequence[str] = (),
    *,
    storage: str,
    address: str,
    name: str | None = None,
    data_dir: str | None = None,
    warm_start: str | None = None,
    working_dir: Path | None = None,
) -> Job:
    """Hands `snnsweep run` to the cluster and does not wait for it.

    Args:
        space: path of a space file on this machine, or a name of one that comes with snnsweep; it travels with the job.
        options: more options of `snnsweep run`, as on the command line.
        storage: absolute folder that every machine of the cluster sees.
        address: the cluster's dashboard, http://host:port.
        name: of the sweep; by default the space's name and the time.
        data_dir: absolute folder of the data sets on the cluster's head.
        warm_start: absolute folder of a sweep to learn from, likewise.
        working_dir: a folder around the space that is sent along whole; by default the space file alone.

    Raises:
        UserError: something given cannot be used; nothing has been submitted then.
    """
    read = Space.read(space)
    source = Path(read.source)
    name = name or f"{read.name}-{datetime.now():%Y%m%d-%H%M%S}"
    others = {"--data-dir": data_dir, "--warm-start": warm_start}
    places = {"--storage": storage} | {option: path for option, path in others.items() if path}
    preflight.all_at_once(
        [
            lambda: read.objectives,
            lambda: _fits(name),
            lambda: _no_secrets([*options, *places.values()]),
            lambda: _inside(source, working_dir),
            lambda: _is_http(address),
            *(lambda option=option, path=path: _absolute(option, path) for option, path in places.items()),
            _extra_is_there,
        ]
    )
    where = source.resolve().relative_to(working_dir.resolve()) if working_dir else Path(source.name)
    told = [word for option, path in places.items() for word in (option, path)]
    entrypoint = shlex.join(["snnsweep", "run", str(where), *options, "--name", name, *told, "--address", "auto"])
    folder = f"{storage.rstrip('/')}/{name}"
    with tempfile.TemporaryDirectory() as alone:
        shutil.copy(source, alone)
        _hand_over(_client(address), address, name, entrypoint, working_dir or Path(alone))
    return Job(name, folder, redacted(address), entrypoint)


def _hand_over(client: Any, address: str, name: str, entrypoint: str, working_dir: Path) -> None:
    environment = {"working_dir": str(working_dir), "env_vars": PATIENCE}
    try:
        there = {job.submission_id: job.status for job in client.list_jobs()}
        if name in there:
            raise UserError(
                f"--name {name}: the cluster has a job of that name ({there[name].lower()}); give another --name, or "
                f"go on with that sweep by `snnsweep resume`"
            )
        client.submit_job(entrypoint=entrypoint, submission_id=name, runtime_env=environment)
    except (RuntimeError, ValueError, OSError) as error:  # what Ray's client and its requests raise
        raise UserError(f"--address {redacted(address)}: the cluster refuses the job: {_line(error)}") from None


def _client(address: str) -> Any:
    """Ray's client, once something answers: by itself it waits for ever for a machine that is silent."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        _knock(address)
        for name in OVERRULING:
            os.environ.pop(name, None)
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise UserError(
            f"--address {redacted(address)}: asks for the cluster's token ({_line(error)}); set RAY_AUTH_MODE=token, "
            "and put the token into ~/.ray/auth_token or name its file in RAY_AUTH_TOKEN_PATH"
        ) from None
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise UserError(
            f"--address {redacted(address)}: no Ray dashboard answers ({_line(error)}); open the way to it with "
            "`ray dashboard cluster.yaml`, or give the address where it is"
        ) from None


def _knock(address: str) -> None:
    with suppress(urllib.error.HTTPError):  # somebody is there; the client says more on what it wants
        urllib.request.urlopen(f"{address.rstrip('/')}/api/version", timeout=PATIENCE_S).close()


def _line(error: Exception) -> str:
    said = str(getattr(error, "reason", error)).strip()
    return redacted(next(iter(said.splitlines()), type(error).__name__))


def _extra_is_there() -> None:
    if find_spec("aiohttp") is None:
        raise UserError('jobs need the extra `cluster`: pip install "snnsweep[cluster]"')


def _is_http(address: str) -> None:
    if not address.startswith(("http://", "https://")):
        raise UserError(f"--address {redacted(address)}: has to be the dashboard's, such as http://127.0.0.1:8265")


def _fits(name: str) -> None:
    if "/" in name or name.startswith(".") or len(name.encode()) > preflight.LONGEST_NAME:
        raise UserError(f"--name {name!r}: a folder's name: no slash, no dot in front, {preflight.LONGEST_NAME} bytes")


def _absolute(option: str, path: str) -> None:
    """A relative path would lie in the job's own folder, which the cluster deletes."""
    if not path.startswith("/") and "://" not in path:
        raise UserError(
            f"{option} {path}: has to be absolute, and the same on every machine of the cluster: a shared folder such "
            "as /mnt/shared/sweeps"
        )


def _inside(space: Path, working_dir: Path | None) -> None:
    if working_dir and not space.resolve().is_relative_to(working_dir.resolve()):
        raise UserError(f"--working-dir {working_dir}: {space} is not in it; give a folder that holds the space")


def _no_secrets(words: Sequence[str]) -> None:
    """Whoever may look at the dashboard reads a job's command."""
    if open_ones := [redacted(word) for word in words if redacted(word) != word]:
        raise UserError(
            f"{', '.join(open_ones)}: holds a user or a password, which the cluster's list of jobs would show; leave "
            "it out and set it on the cluster's head, e.g. as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
