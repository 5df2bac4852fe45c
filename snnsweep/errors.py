"""Everything that snnsweep raises on purpose.

`UserError` and its children mean that the user's input is wrong: the CLI prints their text, without a
traceback, and exits with 2. Every other `SnnSweepError` means that something broke (exit code 1).
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class SnnSweepError(Exception):
    """The root of the family."""

    exit_code = 1


class UserError(SnnSweepError):
    """The user gave something that cannot be used; the text says what, what is allowed, and where to mend it."""

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show instead of a traceback: the text is all that there is to mend."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(UserError):
    """One or more mistakes in a configuration, all of them at once.

    Attributes:
        problems: one line per mistake.
    """

    def __init__(self, problems: Iterable[str]):
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "1 mistake" if count == 1 else f"{count} mistakes"
        super().__init__("\n".join([f"{head} in the configuration:", *(f"  {p}" for p in self.problems)]))

    # Ray sends exceptions between processes; by default they are made again from their text.
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


class UnknownName(UserError):
    """A name that no registry knows."""


class SpaceError(UserError):
    """A space file that cannot be used."""


class MissingData(UserError):
    """A data set that is not where it was looked for; the text holds the command that gets it."""


class Diverged(SnnSweepError):
    """Training met a loss or gradient that is not finite.

    Attributes:
        epoch: the epoch, counted from 1, in which it happened.
    """

    def __init__(self, epoch: int, what: str):
        self.epoch, self.what = epoch, what
        super().__init__(f"{what} is not finite in epoch {epoch}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.epoch, self.what)


def nearest(given: str, allowed: Iterable[str]) -> str:
    """The words "did you mean X?", or the allowed names where none is near."""
    names = list(allowed)
    close = get_close_matches(given, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"allowed: {', '.join(names)}" if names else "there is none"
