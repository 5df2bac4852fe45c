"""Which of a trial's states is taken, on a disk and behind a URI."""

from pathlib import Path

import pytest
import torch

from snnsweep.errors import UserError
from snnsweep.sweep import checkpoints
from snnsweep.sweep.checkpoints import (
    STATE,
    check_vacant,
    keep_newest,
    newest_first,
    next_run,
    number_of,
    read_newest,
    root,
    trial_id,
)


def put(place: Path, run: str, number: int, **state: int) -> Path:
    folder = place / run / "t0003" / f"checkpoint_{number:06d}"
    folder.mkdir(parents=True)
    torch.save(state, folder / STATE)
    return folder / STATE


@pytest.fixture(params=["path", "uri"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "path" else f"file://{tmp_path}"


def test_the_last_run_and_its_last_state_come_first(place: str, tmp_path: Path):
    assert (newest_first(place, "t0003"), next_run(place)) == ([], "ray")
    for run, number in (("ray", 7), ("ray", 8), ("ray-2", 0), ("ray-10", 1), ("ray-10", 0)):
        put(tmp_path, run, number, epoch=number)
    (tmp_path / "raylet" / "t0003" / "checkpoint_000009").mkdir(parents=True)
    (tmp_path / "ray-10" / "t0003" / "params.json").touch()
    order = [path.split("/")[-4:-1] for path in newest_first(place, "t0003")]
    assert [(run, int(folder[-6:])) for run, _, folder in order] == [
        ("ray-10", 1), ("ray-10", 0), ("ray-2", 0), ("ray", 8), ("ray", 7)]  # fmt: skip
    assert next_run(place) == "ray-11"
    assert newest_first(place, "t0004") == []


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "garbage"])
def test_a_state_that_cannot_be_read_is_passed_over(damage: str, place: str, tmp_path: Path):
    put(tmp_path, "ray", 1, epoch=1)
    newest = put(tmp_path, "ray", 2, epoch=2)
    assert read_newest(newest_first(place, "t0003"))["epoch"] == 2
    if damage == "gone":
        newest.unlink()
    else:
        newest.write_bytes({"cut": newest.read_bytes()[:-30], "empty": b"", "garbage": b"\x80\x02garbage"}[damage])
    assert read_newest(newest_first(place, "t0003"))["epoch"] == 1
    assert read_newest(newest_first(place, "t0003"), key="model") == {}
    assert read_newest([]) == {}


@pytest.mark.parametrize("broken", ["reading", "unpacking"])
def test_a_state_that_cannot_be_read_just_now_is_not_passed_over(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An epoch of training, or all of it, would be done again without a word."""
    put(tmp_path, "ray", 1, epoch=1)
    newest = put(tmp_path, "ray", 2, epoch=2)
    paths = newest_first(str(tmp_path), "t0003")
    if broken == "reading":
        newest.unlink()
        newest.mkdir()  # opens, for nobody
        with pytest.raises(OSError, match="directory"):
            read_newest(paths)
    else:
        full = lambda *args, **kwargs: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory"))  # noqa: E731
        monkeypatch.setattr(checkpoints.torch, "load", full)
        with pytest.raises(torch.OutOfMemoryError):
            read_newest(paths)


def test_a_new_sweep_does_not_take_over_what_another_one_left(tmp_path: Path):
    given = f"file://{tmp_path}"
    check_vacant(Path("anywhere/mine"), given)
    (tmp_path / "mine" / "errors").mkdir(parents=True)
    put(tmp_path / "other", "ray", 0)
    check_vacant(Path("anywhere/mine"), given)
    put(tmp_path / "mine", "ray-2", 0)
    with pytest.raises(UserError, match=rf"--checkpoints {given}: checkpoints of a sweep .* 'mine' .* another --name"):
        check_vacant(Path("elsewhere/mine"), given)


def test_no_code_is_run(tmp_path: Path):
    """A state from elsewhere may hold a pickle that does something."""
    path = put(tmp_path, "ray", 1)
    torch.save({"epoch": Path("x")}, path)  # any class of Python's
    assert read_newest([str(path)]) == {}


def test_an_ended_trial_keeps_one(place: str, tmp_path: Path):
    for run, number in (("ray", 1), ("ray", 2), ("ray-2", 0), ("ray-2", 1)):
        put(tmp_path, run, number, epoch=number)
    keep_newest(place, "t0003")
    assert [path.parent.name for path in sorted(tmp_path.rglob(STATE))] == ["checkpoint_000001"]
    assert newest_first(place, "t0003")[0].endswith("ray-2/t0003/checkpoint_000001/state.pt")
    keep_newest(place, "t0099")
    (tmp_path / "ray-2" / "t0003" / "checkpoint_000002").mkdir()  # a crash before anything was written
    keep_newest(place, "t0003")
    assert [path.parent.name for path in sorted(tmp_path.rglob(STATE))] == ["checkpoint_000001"]


def test_names(tmp_path: Path):
    assert [trial_id(3), trial_id(12345)] == ["t0003", "t12345"]
    assert [number_of("t0003"), number_of("t12345")] == [3, 12345]
    assert root(tmp_path / "s", None) == str(tmp_path / "s")
    assert root(tmp_path / "s", "s3://bucket/path/") == "s3://bucket/path/s"
