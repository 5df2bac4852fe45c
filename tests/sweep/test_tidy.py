import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from snnsweep.sweep.tidy import Tidy


def write(place: Path, trial: str, number: int) -> tune.Checkpoint:
    folder = place / "ray" / trial / f"checkpoint_{number:06}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.pt").write_text("a state")
    return tune.Checkpoint.from_directory(folder)


def there(place: Path, trial: str) -> list[int]:
    return sorted(int(path.name[-6:]) for path in (place / "ray" / trial).iterdir())


def test_a_running_trial_keeps_two_and_an_ended_one_the_last(tmp_path: Path):
    tidy, trials = Tidy(str(tmp_path)), {name: SimpleNamespace(trial_id=f"ray-{name}") for name in ("t0000", "t0001")}
    saved: list[Any] = [
        ("t0000", 0),
        ("t0001", 0),
        ("t0000", 1),
        ("t0000", 1),
        ("t0000", 2),
        ("t0000", 2),
        ("t0000", 3),
    ]
    for name, number in saved:  # 1 and 2 are written twice, as by a process that was lost before it said so
        tidy.on_checkpoint(0, [], trials[name], write(tmp_path, name, number))
    tidy.keep_newest("t0001")
    write(tmp_path, "t0002", 0)
    write(tmp_path, "t0002", 1)
    tidy.keep_newest("t0002")
    tidy.close()
    assert [there(tmp_path, name) for name in ("t0000", "t0001", "t0002")] == [[2, 3], [0], [1]]


def test_what_cannot_be_deleted_is_said_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    tidy, trial = Tidy(str(tmp_path)), SimpleNamespace(trial_id="one")
    monkeypatch.setattr(logging.getLogger("snnsweep"), "propagate", True)
    for number in range(4):
        checkpoint = write(tmp_path, "t0000", number)
        if number == 0:
            (Path(checkpoint.path) / "state.pt").unlink()
            Path(checkpoint.path).rmdir()  # by somebody else
        if number == 1:
            refuse = SimpleNamespace(delete_dir=lambda path: (_ for _ in ()).throw(PermissionError(13, "denied")))
            checkpoint = SimpleNamespace(path=checkpoint.path, filesystem=refuse)
        tidy.on_checkpoint(0, [], trial, checkpoint)
    tidy.close()
    assert there(tmp_path, "t0000") == [1, 2, 3]
    (said,) = caplog.records
    assert "checkpoint_000001 could not be deleted" in said.message
