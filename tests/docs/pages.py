"""The pages of the documentation as their readers meet them: links, headings, blocks of code."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.rglob("*.md"))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
NOT_RUN = re.compile(r"<!-- not run: .+ -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of code; not `run` where the line before it says why not."""

    language: str
    text: str
    line: int
    run: bool


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks(page: Path, language: str) -> list[Block]:
    found, before = [], None
    for token in tokens(page):
        if token.type == "fence" and token.info.strip() == language:
            said = before is not None and before.type == "html_block" and bool(NOT_RUN.search(before.content))
            found.append(Block(language, token.content, (token.map or [0])[0] + 1, not said))
        before = token
    return found


def links(page: Path) -> Iterator[str]:
    """Where links and pictures point."""
    for token in tokens(page):
        for part in token.children or []:
            if part.type in ("link_open", "image"):
                yield str(part.attrs.get("href") or part.attrs.get("src"))


def anchors(page: Path) -> set[str]:
    """What a link's fragment may name: headings as GitHub names them, and targets of MyST."""
    found = set(re.findall(r"^\(([\w-]+)\)=$", page.read_text(), re.MULTILINE))
    parsed = tokens(page)
    for heading, inline in pairwise(parsed):
        if heading.type == "heading_open":
            text = "".join(part.content for part in inline.children or [])
            found.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return found


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of the blocks for a shell, and of code in a line that begins with `snnsweep`, in words.

    There a command's name may stand for the command.
    """
    for block in blocks(page, "bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            yield from _split(line)
    for token in tokens(page):
        for part in token.children or []:
            if part.type == "code_inline" and part.content.startswith("snnsweep "):
                yield from (words if len(words) > 2 else [*words, "--help"] for words in _split(part.content))


def _split(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
    lexer.commenters, lexer.whitespace_split = "#", True
    words: list[str] = []
    for word in lexer:
        if word and set(word) <= set("&|;"):
            yield words
            words = []
        else:
            words.append(word)
    yield words
