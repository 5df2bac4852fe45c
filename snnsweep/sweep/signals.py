"""Ctrl-C and SIGTERM end a sweep in order; a second one ends it at once."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SWITCH = "TUNE_DISABLE_SIGINT_HANDLER"
SAME_S = 1.0  # signals so close together are one: to the whole group of processes, and handed on by one of them


@contextmanager
def ending_on_signal(on_first: Callable[[], None]) -> Iterator[None]:
    """Inside, the first SIGINT or SIGTERM calls `on_first` and lets Ray Tune stop with a snapshot (its SIGUSR1).

    Ray does so itself for SIGINT alone, and cannot be asked afterwards whether it did. Outside the main thread
    Python takes no handlers, and nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    came: list[float] = []

    def received(number: int, frame: FrameType | None) -> None:
        if came and time.monotonic() - came[0] > SAME_S:
            raise KeyboardInterrupt
        if not came:
            came.append(time.monotonic())
            on_first()
            os.kill(os.getpid(), signal.SIGUSR1)

    setting = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until Tune has its own: the default would end the process
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, received)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.environ.pop(SWITCH)
        if setting is not None:
            os.environ[SWITCH] = setting
