"""The directive `generated`: lists that are made of the code when the pages are built, so that nothing is missing.

    ```{generated} neurons
    ```

Its argument is a kind of `snnsweep list` (each part with its whole docstring and its settings), or one of `keys`,
`objectives` and `samplers`.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from docstrings import SECTIONS, opened
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from snnsweep.config import about_keys
from snnsweep.registry import KINDS
from snnsweep.result import FAMILIES, OBJECTIVES
from snnsweep.sweep.samplers import SAMPLERS

ENTRY = re.compile(r"^ {4}([\w, ]+): (.+)")


def of_kind(kind: str) -> str:
    """Every part of a kind, as Markdown."""
    parts = KINDS[kind]
    return "\n\n".join(part(kind, name, parts.get(name)) for name in parts.names())


def part(kind: str, name: str, what: Any) -> str:
    """One part: its name, its settings with their defaults, what its docstring says."""
    settings = ""
    if is_dataclass(what) and (own := fields(what)):
        settings = "(" + ", ".join(f"{one.name}={one.default!r}" for one in own) + ")"
    return f"({anchor(kind, name)})=\n**`{name}`**" + (f"`{settings}`" if settings else "") + f"\n\n{markdown(what)}"


def anchor(kind: str, name: str) -> str:
    return f"{kind}-{name}".replace("_", "-").replace("+", "-")


def markdown(what: Any) -> str:
    """A part's docstring as Markdown: sections become lists, and stars products."""
    lines: list[str] = []
    listed = False
    for line in opened((inspect.getdoc(what) or "").splitlines()):
        entry = ENTRY.match(line) if listed else None
        if line in SECTIONS:
            listed = True
            lines.append("")
        elif entry:
            lines.append(f"- `{entry[1]}`: {literal(entry[2])}")
        elif listed and line.startswith("    "):
            lines.append(f"  {literal(line.strip())}")
        else:
            listed = listed and not line.strip()
            lines.append(line if line.startswith("    ") else literal(line))
    return "\n".join(lines)


def literal(line: str) -> str:
    """The line with * and < taken literally outside backticks."""
    return re.sub(r"(`[^`]+`)|([*<\[])", lambda found: found[1] or f"\\{found[2]}", line)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def keys() -> str:
    return table(("key", "meaning"), [(f"`{key}`", literal(about)) for key, about in about_keys().items()])


def objectives() -> str:
    named = [(f"`{name}`", better) for name, better in OBJECTIVES.items()]
    return table(("metric", "better is to"), named + [(f"`{prefix}<name>`", way) for prefix, way in FAMILIES.items()])


def samplers() -> str:
    return ", ".join(f"`{name}`" for name in SAMPLERS)


LISTS: dict[str, Callable[[], str]] = {"keys": keys, "objectives": objectives, "samplers": samplers}


def made(what: str) -> str:
    """The Markdown of a list.

    Raises:
        KeyError: there is none of that name.
    """
    return LISTS[what]() if what in LISTS else of_kind(what)


class Generated(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        source = StringList(made(self.arguments[0]).splitlines(), source=f"generated {self.arguments[0]}")
        holder = nodes.container(classes=["generated"])
        self.state.nested_parse(source, self.content_offset, holder)
        return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("generated", Generated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
