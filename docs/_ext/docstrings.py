"""Docstrings are written in plain text: |u| is a size there and * a product. What reStructuredText would make of them
is undone here before napoleon reads them; an indented block after a colon becomes a literal one.
"""

import re
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx

SECTIONS = ("Attributes:", "Args:", "Returns:", "Raises:")
PLAIN = re.compile(r"(``.+?``|`[^`]+`)|([|*\\]|(?<=\w)_(?=\W|$))")


def opened(lines: list[str]) -> list[str]:
    """A docstring that begins with a section has its entries indented, as in any other place."""
    if not lines or lines[0] not in SECTIONS or lines[1:2] == [""] or indent("".join(lines[1:2])):
        return lines
    return [lines[0], *(f"    {line}" if line else line for line in lines[1:])]


def escaped(line: str) -> str:
    """The line with everything outside backticks taken literally."""
    return PLAIN.sub(lambda found: found[1] or f"\\{found[2]}", line)


def literal(lines: list[str], at: int) -> bool:
    """Whether line `at` ends with a colon, and an indented block follows after an empty line."""
    if not lines[at].rstrip().endswith(":") or at + 2 >= len(lines) or lines[at + 1].strip():
        return False
    return indent(lines[at + 2]) > indent(lines[at])


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def plain(_app: Sphinx, _what: str, _name: str, _of: Any, _options: Any, lines: list[str]) -> None:
    """Changes the docstring's lines in place."""
    lines[:] = opened(lines)
    found: list[str] = []
    block: int | None = None  # the indentation of the line before a literal block
    for at, line in enumerate(lines):
        if block is not None and line.strip() and indent(line) <= block:
            block = None
        if block is not None or line.lstrip().startswith((">>>", "...")):
            found.append(line)
        elif literal(lines, at):
            block = indent(line)
            found.append(f"{escaped(line)}:")
        else:
            found.append(escaped(line))
    lines[:] = found


def unsigned(_app: Sphinx, _what: str, _name: str, of: Any, *_given: Any) -> tuple[str, None] | None:
    """A pydantic model's signature is all of its defaults; its docstring says more."""
    return ("", None) if isinstance(of, type) and issubclass(of, BaseModel) else None


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-signature", unsigned)
    app.connect("autodoc-process-docstring", plain, priority=400)  # napoleon's is 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
