"""What the pages say holds: links lead somewhere, Python runs, commands parse."""

import ast
import re
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
from pages import DOCS, NAMES, PAGES, ROOT, anchors, blocks, commands, links

from snnsweep.cli import main
from snnsweep.data.__main__ import main as data_main

each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


@each_page
def test_links(page: Path) -> None:
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https" and "." in parts.netloc and " " not in link, f"{page}: {link}"  # noqa: PT018
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), f"{page}: {link} leads nowhere"
        assert target.is_relative_to(ROOT)
        if parts.fragment:
            assert parts.fragment in anchors(target), f"{page}: {link}: no such heading"


def test_every_page_is_in_the_contents() -> None:
    """Sphinx warns of the others; here it is told without a build."""
    text = (DOCS / "index.md").read_text()
    entries = [
        line for block in re.findall(r"```\{toctree\}\n(.+?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    known = {page for entry in entries if entry and not entry.startswith(":") for page in DOCS.glob(f"{entry}.*")}
    assert known >= set(DOCS.rglob("*.md")) - {DOCS / "index.md"}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_python(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other with one set of names; of those that are not run the imports are."""
    (tmp_path / "search_spaces").symlink_to(ROOT / "search_spaces")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__page__"}
    for block in blocks(page, "python"):
        tree = ast.parse(block.text)
        if not block.run:
            tree.body = [part for part in tree.body if isinstance(part, ast.Import | ast.ImportFrom)]
        ast.increment_lineno(tree, block.line)
        exec(compile(tree, str(page), "exec"), names)


def parsed(words: list[str]) -> bool:
    """Whether it is a command of ours, or names a file of ours; raises where there is none such.

    Raises:
        click.UsageError: no such command, option or value.
    """
    match words:
        case [program, command, *rest] if program.rpartition("/")[2] == "snnsweep" and command.startswith("-"):
            main.make_context("snnsweep", [command, *rest], resilient_parsing=True)
        case [program, command, *rest] if program.rpartition("/")[2] == "snnsweep":
            name, found, rest = main.resolve_command(click.Context(main), [command, *rest])
            assert found is not None
            found.make_context(name, list(rest), resilient_parsing=rest == ["--help"])
        case ["python", "-m", "snnsweep.data", *rest]:
            data_main.make_context("data", list(rest))
        case ["python", "-m", module, *_]:
            raise click.UsageError(f"python -m {module}")
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), script
        case [program, *rest] if program.rpartition("/")[2] == "pytest":
            assert all((ROOT / word).exists() for word in rest if word.startswith("tests"))
        case _:
            return False
    return True


@each_page
def test_commands(page: Path) -> None:
    for words in commands(page):
        words = ["1" if word == "N" else word for word in words]
        while words and re.match(r"[A-Z_]+=", words[0]):  # set for this command alone
            words = words[1:]
        try:
            parsed(words)
        except click.ClickException as error:
            raise AssertionError(f"{page}: {' '.join(words)}: {error.format_message()}") from None


def test_a_wrong_command_is_found() -> None:
    assert parsed(["snnsweep", "run", "space.py", "--trials", "3"])
    for wrong in (
        "snnsweep rum space.py",
        "snnsweep run",
        "snnsweep run space.py --trails 3",
        "snnsweep run s --trials x",
    ):
        with pytest.raises(click.ClickException):
            parsed(wrong.split())
