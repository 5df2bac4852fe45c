"""Things that are made ahead of need, in a thread of its own."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Makes one thing after another, in the order in which they are taken, and never two at once.

    Args:
        make: gives None where there is no more; it is not called again then.
        most: that are ever taken, so that none is left over when all have been.
        ready: made before they are asked for; with 0 each is made when it is taken, by the thread that takes it.
    """

    def __init__(self, make: Callable[[], Made | None], most: int, ready: int):
        self._make, self._most, self._ready = make, most, ready
        self._begun, self._spent = 0, False
        self._coming: deque[Future[Made | None]] = deque()
        self._pool = ThreadPoolExecutor(1, "snnsweep-ahead") if ready else None

    def take(self) -> Made | None:
        """The next one, made whole; None where there is no more. What `make` raised is raised here."""
        if self._pool is None or (self._begun >= self._most and not self._coming):
            return self._one()
        for _ in range(min(self._ready + 1 - len(self._coming), self._most - self._begun)):
            self._coming.append(self._pool.submit(self._one))
            self._begun += 1
        return self._coming.popleft().result()

    def close(self) -> list[Made]:
        """Makes nothing more; what was made and never taken. One that is being made is waited for."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        done = [one for one in self._coming if not one.cancelled() and one.exception() is None]
        self._coming.clear()
        return [made for made in (one.result() for one in done) if made is not None]

    def _one(self) -> Made | None:
        made = None if self._spent else self._make()
        self._spent = made is None
        return made
