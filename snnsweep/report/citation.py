"""How to cite snnsweep: its CITATION.cff as BibTeX."""

from pathlib import Path
from typing import Any

import yaml

CFF = Path(__file__).parents[2] / "CITATION.cff"  # of a checkout; an installed package has none


def citation(path: Path = CFF) -> str:
    """A BibTeX entry; "" where there is no such file, or it cannot be read."""
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    if not isinstance(said, dict) or not said.get("title"):
        return ""
    fields = {
        "author": " and ".join(filter(None, map(_author, said.get("authors") or []))),
        "title": said["title"],
        "version": said.get("version"),
        "year": str(said.get("date-released") or "")[:4],
        "url": said.get("repository-code") or said.get("url"),
    }
    lines = [f"  {name} = {{{text if name == 'author' else _plain(text)}}}," for name, text in fields.items() if text]
    return "\n".join(["@software{snnsweep,", *lines, "}"])


def _author(one: Any) -> str:
    if not isinstance(one, dict):
        return ""
    if one.get("name"):
        return f"{{{_plain(one['name'])}}}"  # a group's, which BibTeX is not to take apart
    return ", ".join(_plain(one[part]) for part in ("family-names", "given-names") if one.get(part))


def _plain(text: Any) -> str:
    return str(text).replace("{", "").replace("}", "").replace("&", r"\&").replace("%", r"\%")
