"""Figures and config values as people write them."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pandas as pd

from snnsweep.config import DEFAULTS

JUDGED_BY = {  # config keys that two figures have to share to stand side by side, and what they are
    "data.name": "data set",
    "data.path": "data files",
    "threat.norm": "norm of the threat",
    "threat.eps": "eps of the threat",
    "threat.space": "space of the threat",
    "attack.suite": "suite",
    "attack.samples": "number of samples to attack",
}
EXACT = 10**15  # below which a float holds every whole number


def number(figure: Any) -> str:
    """A whole number in full, else four significant digits; "-" where there is no figure."""
    if missing(figure):
        return "-"
    given = float(figure)
    return str(int(given)) if given.is_integer() and abs(given) < EXACT else f"{given:.4g}"


def value(key: str, given: Any) -> str:
    """A config value: eps as a fraction of 255 where it is one."""
    if missing(given):
        return "none"
    if key in ("threat.eps", "train.eps"):
        share = Fraction(float(given) * 255).limit_denominator(100)
        if share.denominator == 1 and abs(float(share) / 255 - given) < 1e-9:
            return f"{share}/255"
    return number(given) if isinstance(given, float) else str(given)


def with_interval(row: Mapping[Any, Any], name: str) -> str:
    """A figure with its 95 % interval, where the row has one."""
    low, high = row.get(f"{name}/low"), row.get(f"{name}/high")
    if missing(low) or missing(high):
        return number(row.get(name))
    return f"{number(row.get(name))} [{low:.3f}, {high:.3f}]"


def varied_keys(results: pd.DataFrame) -> list[str]:
    """The config keys that take more than one value.

    A trial without a config, since its space raised, has none for keys that always have a value: that is no choice.
    """
    keys = [key for key in DEFAULTS if key in results]
    always = [key for key in keys if DEFAULTS[key] is not None]
    whole = results[results[always].notna().all(axis=1)]
    told = {key: results[key].dropna() if key in always else whole[key] for key in keys}
    return [key for key in keys if told[key].map(repr).nunique() > 1]


def missing(figure: Any) -> bool:
    """Whether that is None, NaN or `pd.NA`."""
    return figure is None or figure is pd.NA or (isinstance(figure, float) and math.isnan(figure))
