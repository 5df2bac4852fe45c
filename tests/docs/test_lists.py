"""The lists that are made when the pages are built hold all that is registered, and the pages show them."""

import re
import sys

import pytest
from pages import DOCS, ROOT

from snnsweep import TrialConfig, evaluate
from snnsweep import __all__ as public
from snnsweep.config import DEFAULTS
from snnsweep.metrics.audit import CHECKS
from snnsweep.registry import KINDS
from snnsweep.result import OBJECTIVES, Check
from snnsweep.sweep.samplers import SAMPLERS

sys.path.insert(0, str(DOCS / "_ext"))
from docstrings import escaped, opened
from generated import made, markdown

PARTS = {page: page.read_text() for page in (DOCS / "parts").glob("*.md")}
BY_FORMULA = [kind for kind in KINDS if kind not in ("datasets", "models", "suites")]


def shown_by(what: str) -> str:
    """The text of the one page that shows a list."""
    (page,) = [text for text in PARTS.values() if f"```{{generated}} {what}\n" in text]
    return page


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_shown(kind: str) -> None:
    shown_by(kind)
    listed = re.findall(r"^\*\*`(.+?)`\*\*", made(kind), re.MULTILINE)
    assert set(listed) >= set(KINDS[kind].names())
    for name in KINDS[kind].names():
        about = KINDS[kind].about(name).split("`")[0].split("*")[0].split("<")[0].split("[")[0]
        assert about in made(kind)


@pytest.mark.parametrize("kind", BY_FORMULA)
def test_every_part_has_its_formula(kind: str) -> None:
    """In the table above the list, where one row may be of several parts; parts of other tests have none."""
    named = {
        name
        for row in re.findall(r"^\| (`.+?) \|", shown_by(kind), re.MULTILINE)
        for name in re.findall("`(.+?)`", row)
    }
    own = {name for name in KINDS[kind].names() if KINDS[kind].get(name).__module__.startswith("snnsweep.")}
    assert own <= named


def test_keys_metrics_samplers() -> None:
    keys, metrics = made("keys"), made("objectives")
    shown_by("keys")
    shown_by("objectives")
    assert all(f"| `{key}` |" in keys for key in DEFAULTS)
    assert all(f"| `{name}` | {better} |" in metrics for name, better in OBJECTIVES.items())
    spaces = (DOCS / "spaces.md").read_text()
    assert all(f"`{name}`" in spaces for name in SAMPLERS)


def test_docstrings_are_taken_literally() -> None:
    assert escaped("a |u| * `|v|` w_") == r"a \|u\| \* `|v|` w\_"
    assert opened(["Attributes:", "x: one.", "", "More."]) == ["Attributes:", "    x: one.", "", "    More."]

    def part() -> None:
        """alpha * |u|, see [1].

        Attributes:
            alpha: one,
                and more.
        """

    assert markdown(part) == "alpha \\* |u|, see \\[1].\n\n\n- `alpha`: one,\n  and more."


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    keys = {"data.subset": 64, "model.depth": 10, "model.width": 0.1, "encoder.time_steps": 1, "train.epochs": 1}
    return list(evaluate(TrialConfig.from_flat(keys | {"attack.samples": 8, "device": "cpu"})).checks)


def test_the_audit_page(checks: list[Check]) -> None:
    """Each check has a row with its threshold and source as the code has them, and a section."""
    text = (DOCS / "audit.md").read_text()
    assert len(checks) == len(CHECKS) == 16
    for check in checks:
        anchor = check.name.replace("_", "-")
        threshold = "chance" if check.name == "large_eps" else f"{check.threshold:g}"
        row = (
            rf"^\| \[`{check.name}`\]\(#{anchor}\) \| {re.escape(threshold)} \| [^|]+ \| {re.escape(check.source)} \|$"
        )
        assert re.search(row, text, re.MULTILINE), check
        assert f"\n### {check.name.replace('_', ' ')}\n" in text


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    assert all(re.search(rf"\b{name}\b", text) for name in public)
