"""What is said to MLflow, and of its errors, in a form that it and a reader can take."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pandas as pd

from snnsweep.result import Direction
from snnsweep.tracking.address import redacted


def readable(front: pd.DataFrame, objectives: Mapping[str, Direction]) -> pd.DataFrame:
    """The front for MLflow's page: objectives first, and no dots, which its table takes for paths and leaves empty."""
    first = [name for name in ("trial_id", *objectives) if name in front]
    ordered = front[[*first, *(name for name in front if name not in first)]]
    return ordered.rename(columns=lambda name: name.replace(".", "/"))


def legal(name: str) -> str:
    """A name that MLflow takes; a part of the user's own may be called anything."""
    return re.sub(r"[^\w./ :-]", "_", name)


def clean(value: Any) -> str:
    """A value's text, without what a server or its database cannot store: lone surrogates and NUL."""
    return str(value).encode("utf-8", "replace").decode().replace("\0", "?")


def once(warn: Callable[[str], None]) -> Callable[[str], None]:
    """`warn`, which is told nothing a second time."""
    return cache(warn)


def cause(error: BaseException) -> str:
    """Why, in one line: the innermost reason that a network error gives, else its first line."""
    text = str(error).strip().partition("\n")[0].rpartition("Caused by ")[2]
    reason = re.search(r"\[Errno -?\d+\] [^\"')]+(?=[\"')]*$)", text)
    return redacted(reason[0] if reason else text)[:300] or type(error).__name__
