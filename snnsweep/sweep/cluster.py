"""The Ray cluster that a sweep runs on."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from snnsweep.errors import SnnSweepError, UserError

# Read by Ray when Tune starts; none of these wins over what the user set.
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own box and tables; the sweep shows its own
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a csv, json and event file a trial
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
PATIENCE_S = 5
TOKEN = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


@contextmanager
def connect(address: str | None) -> Iterator[None]:
    """Joins the cluster at `address`, or starts one on this machine; a cluster that is already joined is used.

    Ray guards a local cluster with a token by itself; setting RAY_AUTH_MODE here would come too late for its
    servers. The token that it writes is made readable by its owner alone.

    Raises:
        UserError: no cluster answers at `address`.
        SnnSweepError: Ray does not start on this machine.
    """
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    started = not ray.is_initialized()
    if started:
        _start(address)
    tune_log = logging.getLogger("ray.tune")
    level = tune_log.level
    tune_log.setLevel(logging.CRITICAL)  # its advice names commands that are not ours
    try:
        yield
    finally:
        tune_log.setLevel(level)
        if started:
            ray.shutdown()


def _start(address: str | None) -> None:
    had_token = TOKEN.exists()
    try:
        _knock(address)
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if address is None:
            raise SnnSweepError(f"Ray does not start on this machine: {reason}") from error
        raise UserError(
            f"--address {address}: no Ray cluster answers ({reason}); start one with `ray start --head`, set "
            "RAY_AUTH_MODE=token here too where it asks for a token, or leave --address out to use this machine alone"
        ) from None
    if TOKEN.exists() and not had_token:
        TOKEN.chmod(0o600)


def _knock(address: str | None) -> None:
    """Ray itself tries for minutes where nobody listens."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()


def slots(cpus: float, gpus: float, most: int | None) -> int:
    """Trials that fit side by side, at most `most`.

    Raises:
        UserError: not even one fits.
    """
    have = ray.cluster_resources()
    wanted = {"CPU": cpus, "GPU": gpus}
    fits = int(min(have.get(kind, 0) / amount for kind, amount in wanted.items() if amount) + 1e-9)  # 1 / 0.1 is ten
    if fits < 1:
        raise UserError(
            f"a trial asks for {cpus:g} CPU and {gpus:g} GPU, but the cluster has {have.get('CPU', 0):g} CPU and "
            f"{have.get('GPU', 0):g} GPU in all; lower --cpus-per-trial or --gpus-per-trial"
        )
    return min(fits, most or fits)
