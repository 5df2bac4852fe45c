"""CITATION.cff is valid, and says the version and licence that the package has."""

import json
import tomllib

import yaml
from jsonschema import Draft7Validator
from pages import ROOT

import snnsweep


def test_citation() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    schema = json.loads((ROOT / "tests" / "fixtures" / "cff-1.2.0.schema.json").read_text())
    assert [error.message for error in Draft7Validator(schema).iter_errors(citation)] == []
    assert list(Draft7Validator(schema).iter_errors(citation | {"type": "music"}))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"] == snnsweep.__version__
    assert citation["license"] == project["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "\n## [Unreleased]\n" in text
    assert snnsweep.__version__ in text
