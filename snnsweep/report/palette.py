"""The colours and marks of every picture, the same on the page and on paper.

The hues are Okabe and Ito's (2008), which the colour-blind tell apart; what a colour says, a mark or a dash says too.
"""

from dataclasses import dataclass
from itertools import cycle, islice, product

from snnsweep.result import PASS

GREY, BLUE, ORANGE, VERMILION = "grey", "blue", "orange", "vermilion"
LIGHT = {
    "ground": "#ffffff",
    "text": "#1b1f24",
    "grid": "#e3e6ea",
    GREY: "#7d858e",
    BLUE: "#0072b2",
    ORANGE: "#b87d00",
    VERMILION: "#c4500a",
    "green": "#00805c",
    "purple": "#a8538a",
    "sky": "#2f8fc4",
    "black": "#1b1f24",
}
DARK = {
    "ground": "#15191e",
    "text": "#e6e9ed",
    "grid": "#343b44",
    GREY: "#98a1ab",
    BLUE: "#56b4e9",
    ORANGE: "#e69f00",
    VERMILION: "#ff7a33",
    "green": "#2ec79b",
    "purple": "#dd93c0",
    "sky": "#9bd3f5",
    "black": "#e6e9ed",
}
_HUES = (BLUE, ORANGE, "green", VERMILION, "purple", "black")
_MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_DASHES = ("solid", "dash", "dot")


@dataclass(frozen=True)
class Look:
    """How a series is drawn.

    Attributes:
        colour: a key of `LIGHT` and `DARK`.
        mark: of `circle`, `square`, `diamond`, `triangle-up`, `cross`, `x`.
        size: of the mark, in points.
        opacity: from 0 to 1.
        hollow: only the mark's edge is drawn.
        dash: of a line: `solid`, `dash`, `dot`.
        width: of a line, in points.
    """

    colour: str = BLUE
    mark: str = "circle"
    size: float = 7
    opacity: float = 1.0
    hollow: bool = False
    dash: str = "solid"
    width: float = 1.8


VERDICTS: dict[str, tuple[str, str, str]] = {  # of the audit: colour, mark, how a legend and a table call it
    PASS: (BLUE, "circle", "audit pass"),
    "suspect": (ORANGE, "diamond", "audit suspect"),
    "fail": (VERMILION, "x", "audit fail"),
    "": (GREY, "square", "no audit"),
}


def verdict_look(verdict: str, on_front: bool, infeasible: bool = False) -> Look:
    """Of a trial: the audit's verdict by colour and mark, its place by size and filling."""
    colour, mark, _ = VERDICTS.get(verdict, VERDICTS[""])
    if on_front:
        return Look(colour, mark, size=10)
    return Look(colour, mark, size=7, opacity=0.8 if infeasible else 0.45, hollow=infeasible)


def line_looks(count: int) -> list[Look]:
    """Looks that differ by colour, mark and dash."""
    pairs = product(_DASHES, zip(_HUES, _MARKS, strict=True))
    return [Look(hue, mark, size=6, dash=dash) for dash, (hue, mark) in islice(cycle(pairs), count)]
