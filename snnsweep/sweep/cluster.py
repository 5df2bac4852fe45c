"""The Ray cluster that a sweep runs on, and how many trials it holds."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from snnsweep.errors import SnnSweepError, UserError
from snnsweep.sweep import nodes
from snnsweep.sweep.nodes import Kind

# Read by Ray when Tune starts; none of these wins over what the user set.
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own box and tables; the sweep shows its own
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a csv, json and event file a trial
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # its state of all trials is written at both ends alone: nothing reads it
    "TUNE_ONLY_STORE_CHECKPOINT_SCORE_ATTRIBUTE": "1",  # a checkpoint's metrics would be kept as long as Ray runs
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
PATIENCE_S = 5
STARTS = 3  # times that Ray is started on this machine, where it runs out of time
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
    for key, value in SETTINGS.items():
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
    if address and address.startswith("ray://"):
        raise UserError(
            f"--address {address}: a sweep's driver has to be on the cluster itself; hand it over with `snnsweep "
            "submit`, or run it on the head with --address auto"
        )
    had_token = TOKEN.exists()
    if not address:
        start_here(logging_level=logging.ERROR)
    else:
        _join(address)
    if TOKEN.exists() and not had_token:
        TOKEN.chmod(0o600)


def start_here(**settings: Any) -> None:
    """A cluster of this machine alone. Ray gives its own servers half a minute, which is little on a busy one.

    Args:
        settings: further ones of `ray.init`.

    Raises:
        SnnSweepError: Ray does not start.
    """
    for left in reversed(range(STARTS)):
        try:
            ray.init(address="local", include_dashboard=False, log_to_driver=False, **settings)
            return
        except Exception as error:  # Ray raises just that where it ran out of time
            ray.shutdown()
            if type(error) is not Exception or not left:
                raise SnnSweepError(f"Ray does not start on this machine: {_reason(error)}") from error


def _join(address: str) -> None:
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--address {address}: no Ray cluster answers ({_reason(error)}); start one with `ray start --head`, set "
            "RAY_AUTH_MODE=token here too where it asks for a token, or leave --address out to use this machine alone"
        ) from None


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _knock(address: str | None) -> None:
    """Ray itself tries for minutes where nobody listens."""
    host, colon, port = (address or "").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()


def gpus_of_a_trial(given: float | None) -> float:
    """The GPUs that a trial reserves: as given, else one where the cluster has any or may bring one.

    Raises:
        UserError: none is given, and the cluster's autoscaler does not tell what it may bring.
    """
    if given is not None:
        return given
    growth = nodes.growth()
    if any(kind.gpus >= 1 for kind in (*_now(), *growth.kinds)):
        return 1.0
    if not growth.told:
        raise UserError(
            "no node with a GPU is up, and the cluster's autoscaler does not tell what it may bring; say "
            "--gpus-per-trial, 0 for trials on the CPU"
        )
    return 0.0


def slots(cpus: float, gpus: float, most: int | None) -> int:
    """Trials that fit side by side, node by node, on the cluster or what its autoscaler may make of it; at most `most`.

    `most` is taken at its word where an autoscaler does not tell how far it goes.

    Raises:
        UserError: not even one will ever fit; or nobody can tell how many, and `most` is not given: those that fit now
            would be all, and the cluster never grow.
    """
    if gpus > 1 and gpus % 1:
        raise UserError(
            f"--gpus-per-trial {gpus:g}: a trial has a share of one GPU or whole GPUs; allowed: 0 to 1, 2, ..."
        )
    now, growth = _now(), nodes.growth()
    if not growth.told and most:
        return most
    up = sum(kind.fits(cpus, gpus) for kind in now)
    if not growth.told:
        raise UserError(
            f"the nodes that are up hold {up} trials of {cpus:g} CPU and {gpus:g} GPU, and the cluster's autoscaler "
            "does not tell what it may bring; say --max-concurrent: the nodes that you want times the trials on each"
        )
    if fits := max(up, growth.fits(cpus, gpus)):
        return min(fits, most or fits)
    raise UserError(_never(cpus, gpus, [*now, *(kind for kind in growth.kinds if kind.count)]))


def _now() -> list[Kind]:
    return [Kind.of(node["Resources"]) for node in nodes.alive()]


def _never(cpus: float, gpus: float, kinds: list[Kind]) -> str:
    largest = max(kinds, key=lambda kind: (kind.gpus, kind.cpus) if gpus else (kind.cpus, kind.gpus))
    short = {"--cpus-per-trial": largest.cpus < cpus, "--gpus-per-trial": largest.gpus < gpus}
    options = " and ".join(option for option, lacking in short.items() if lacking) or " or ".join(short)
    return (
        f"a trial asks for {cpus:g} CPU and {gpus:g} GPU, all on one node, but the largest node of this cluster has "
        f"{largest.cpus:g} CPU and {largest.gpus:g} GPU; lower {options}"
    )
