"""What the machine of the driver does while a sweep runs, as MLflow's page for system metrics expects it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

INTERVAL_S = 15.0
PREFIX = "system/"
_SHORTEST_S = 1.0  # over which the use of a CPU says something


@contextmanager
def watched(say: Callable[[int, Mapping[str, float]], object], interval_s: float = INTERVAL_S) -> Iterator[None]:
    """Inside, this machine's figures are said every `interval_s` seconds, and once more at the end.

    CPU use, memory, disk and network are the whole machine's, and so are the GPUs', where NVIDIA's driver is; of other
    machines of a cluster nothing is known here.

    Args:
        say: of the time, in seconds since 1970, as the step, so that a resumed sweep goes on; and the metrics.
    """
    monitors, over = _monitors(), threading.Event()

    def watch() -> None:
        _figures(monitors)  # use of the CPU is counted from a thread's first look on
        while True:
            looked = time.monotonic()
            if over.wait(interval_s) and time.monotonic() < looked + _SHORTEST_S:
                return
            say(int(time.time()), _figures(monitors))
            if over.is_set():
                return

    thread = threading.Thread(target=watch, name="snnsweep-system", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _monitors() -> list[BaseMetricsMonitor]:
    found: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(ImportError, RuntimeError):  # no NVIDIA driver here
        found.append(GPUMonitor())
    return found


def _figures(monitors: list[BaseMetricsMonitor]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        figures |= {PREFIX + name: value for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return figures
