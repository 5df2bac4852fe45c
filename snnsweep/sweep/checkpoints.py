"""Where the checkpoints of a sweep's trials lie, on a disk or in a bucket, and how they are read back.

Ray writes them as ROOT/ray*/TRIAL/checkpoint_NNNNNN/state.pt: each start of a sweep is a run of Ray's own.
"""

import io
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from snnsweep.errors import UserError
from snnsweep.results.store import load_sweep
from snnsweep.tracking.address import redacted

STATE = "state.pt"
RUN = "ray"


def trial_id(number: int) -> str:
    """What a trial and its folder are called, by Optuna's number."""
    return f"t{number:04d}"


def number_of(trial: str) -> int:
    """Optuna's number of a trial, by its id."""
    return int(trial.removeprefix("t"))


def root(folder: Path, checkpoints: str | None) -> str:
    """What Ray calls the storage path: the sweep's folder, or one of its name under the URI `checkpoints`."""
    return f"{checkpoints.rstrip('/')}/{folder.name}" if checkpoints else str(folder)


def place_of(sweep: Path) -> str:
    """`root`, as the sweep's `sweep.json` says.

    Raises:
        UserError: there is no sweep in that folder.
    """
    return root(sweep, load_sweep(sweep).get("checkpoints"))


def next_run(place: str) -> str:
    """A name for a run of Ray's that no earlier start of the sweep has: `ray`, `ray-2`, ..."""
    last = max((_run_number(run) for run in _folders(place)), default=0)
    return f"{RUN}-{last + 1}" if last else RUN


def check_vacant(folder: Path, checkpoints: str) -> None:
    """That a new sweep would not take over what another one of its name has left there.

    Raises:
        UserError: there are checkpoints.
    """
    if any(map(_run_number, _folders(root(folder, checkpoints)))):
        raise UserError(
            f"--checkpoints {redacted(checkpoints)}: checkpoints of a sweep that was called {folder.name!r} lie "
            "there; take another --name or --checkpoints, go on with that sweep by `snnsweep resume`, or delete them"
        )


def newest_first(place: str, trial_id: str) -> list[str]:
    """Paths or URIs of a trial's states, the last one written first."""
    found = [
        (_run_number(run), checkpoint, f"{place}/{run}/{trial_id}/{checkpoint}/{STATE}")
        for run in _folders(place)
        if _run_number(run)
        for checkpoint in _folders(f"{place}/{run}/{trial_id}")
        if checkpoint.startswith("checkpoint_")
    ]
    return [path for *_, path in sorted(found, reverse=True)]


def read_newest(paths: list[str], device: torch.device | str = "cpu", key: str = "") -> dict[str, Any]:
    """The first state that is whole and has `key`; an empty one where there is none.

    A crash or a full disk can leave a state cut short; the one before it is whole. One that cannot be read just now may
    be whole all the same, and is not passed over.

    Raises:
        OSError, ArrowException: the disk or the bucket does not give one that is there.
    """
    for path in paths:
        files, inside = _at(path)
        try:
            with files.open_input_file(inside) as file:
                text = file.read()
        except FileNotFoundError:  # it was deleted, or its folder made and nothing written
            continue
        state = _state_of(text, device)
        if state and (not key or key in state):
            return state
    return {}


def _state_of(text: bytes, device: torch.device | str) -> dict[str, Any]:
    """What a file holds; nothing where it is damaged."""
    try:
        found = torch.load(io.BytesIO(text), weights_only=True, map_location=device)
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # of the device that it goes to
        raise
    except (OSError, EOFError, RuntimeError, ValueError, KeyError):
        return {}
    except Exception as error:  # torch has no public name for what its unpickler raises
        if type(error).__name__ != "UnpicklingError":
            raise
        return {}
    return found if isinstance(found, dict) else {}


def keep_newest(place: str, trial_id: str) -> None:
    """Deletes all states of a trial but the newest that holds something: what an ended trial is still wanted for."""
    paths = newest_first(place, trial_id)
    kept = next(filter(_holds_something, paths), None)
    for path in paths if kept else ():
        files, inside = _at(path)
        if path == kept:
            continue
        with suppress(FileNotFoundError):  # somebody was faster
            files.delete_dir(inside.removesuffix(f"/{STATE}"))


def _holds_something(path: str) -> bool:
    files, inside = _at(path)
    return bool(files.get_file_info(inside).size)


def _folders(place: str) -> list[str]:
    files, inside = _at(place)
    entries = files.get_file_info(FileSelector(inside, allow_not_found=True))
    return [entry.base_name for entry in entries if entry.type == FileType.Directory]


def _at(place: str) -> tuple[FileSystem, str]:
    return FileSystem.from_uri(place) if "://" in place else (LocalFileSystem(), place)


def _run_number(name: str) -> int:
    """1 for `ray`, n for `ray-n`; 0 for another folder."""
    match = re.fullmatch(rf"{RUN}(?:-(\d+))?", name)
    return int(match[1] or 1) if match else 0
