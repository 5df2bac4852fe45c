"""The notebook runs from its first cell to its last, through Ray, as the docs show it."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from pages import DOCS, ROOT

SHOWN = DOCS / "notebooks" / "custom_space.ipynb"


def texts(notebook: Any) -> list[str]:
    """What each cell of code printed and gave."""
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return ["\n".join(filter(None, map(_text, outputs))) for outputs in cells]


def _text(output: Any) -> str:
    printed = output.output_type == "stream" and output.name == "stdout"
    given = output.output_type == "execute_result"
    return str(output.text if printed else output.data["text/plain"] if given else "")


def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(SHOWN, 4)
    shown = texts(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(bool(line.strip()) for cell in code[:2] for line in cell.splitlines()) <= 45
    wrong = nbformat.v4.new_code_cell("Sweep(lambda trial: {})", metadata={"tags": ["raises-exception"]})
    notebook.cells.append(wrong)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    *found, refused = texts(notebook)
    assert len(found) == len(shown)
    assert found[1] == shown[1] == "'finished'"
    for table, was in zip(found[2:4], shown[2:4], strict=True):  # which trials are chosen depends on who ends first
        assert table.splitlines()[0].split() == was.splitlines()[0].split()
    assert "Result(" in found[4]
    assert "did you mean square_leak?" in found[6]
    assert (tmp_path / "sweeps" / "square_leak" / "front.parquet").is_file()
    assert refused == ""
    (error,) = [one for one in wrong.outputs if one.output_type == "error"]
    assert len(error.traceback) == 1  # no frames: the text is what there is to mend
    assert error.traceback[0].startswith("SpaceError: a space is a file or its text")
