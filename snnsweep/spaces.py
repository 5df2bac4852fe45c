"""The spaces that come with snnsweep, which commands take by name. In a wheel they lie inside of the package."""

import ast
from pathlib import Path

_PACKAGE = Path(__file__).parent


def folder() -> Path:
    """Where they are: in the package, or beside it in a checkout."""
    within = _PACKAGE / "search_spaces"
    return within if within.is_dir() else _PACKAGE.parent / "search_spaces"


def names() -> list[str]:
    """All of them, sorted."""
    return sorted(path.stem for path in folder().glob("*.py"))


def about(name: str) -> str:
    """The question that a space asks; it is not executed for that."""
    text = ast.get_docstring(ast.parse((folder() / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def find(given: Path | str) -> Path:
    """The file that a user means: of that path or, where there is none, of that name."""
    path = Path(given)
    try:
        there = path.is_file()
    except OSError:  # a name that is too long for a file
        there = False
    return folder() / f"{path}.py" if not there and str(given) in names() else path
