"""Files of lines of JSON that outlive their process, however it ends: one process appends, any number may read.

A line is whole when a line end follows, or when it is a whole object at least. What stands half written at the end,
after a kill or on a full disk, no reader takes, and the next `append` takes off. A damaged line before that (a disk's
fault, or somebody's editor) is passed over and spoils no other; who reads decides what to say of it.

Python's JSON: floats come back bit for bit, NaN and the infinities too, and a lone surrogate stays one.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

_BLOCK = 1 << 16


class Line(NamedTuple):
    """One that was read.

    Attributes:
        said: the object; None where the line is blank or damaged.
        blank: whether nothing stands there.
        end: the byte after it.
    """

    said: dict[str, Any] | None
    blank: bool
    end: int


def append(path: Path, *texts: str, synced: bool = True) -> None:
    """Bring lines to the end of a file, all of them or none.

    Args:
        path: need not exist; its folder does.
        texts: JSON objects, without line ends.
        synced: return when they are on the disk, where they outlive a power failure too.

    Raises:
        OSError: the disk is full, or cannot be written to; the file says what it said before.
    """
    begun = path.exists()
    content = "".join(f"{text}\n" for text in texts).encode("utf-8", "surrogatepass")
    with path.open("ab+", buffering=0) as file:
        _end_line(file)
        size = file.seek(0, os.SEEK_END)
        try:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            if synced:
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise
    if synced and not begun:
        _sync_folder(path.parent)


def after(path: Path, start: int = 0, holding: bytes = b"") -> Iterator[Line]:
    """The lines from a byte on where one begins; none where there is no file.

    Args:
        holding: leave out those in which this does not stand, unread.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        for text in file:
            if holding not in text:
                start += len(text)
                continue
            said = _object(text)
            if said is None and not text.endswith(b"\n"):
                return
            start += len(text)
            yield Line(said, not text.strip(), start)


def take_off_half(path: Path) -> None:
    """Shorten a file to where its last line end is; what stands after that is half a line."""
    with path.open("rb+", buffering=0) as file:
        if _half(file):
            file.truncate(_last_begins(file))


def ends_whole(path: Path) -> bool:
    """Whether a line end is the last that a file has, or it is empty."""
    with path.open("rb", buffering=0) as file:
        return not _half(file)


def _end_line(file: FileIO) -> None:
    """Ends the last line: by a line end where it lacks no more than that, else by taking it off."""
    if _half(file):
        begins = _last_begins(file)
        file.seek(begins)
        if _object(file.read()) is None:
            file.truncate(begins)
        else:
            file.write(b"\n")


def _half(file: FileIO) -> bool:
    size = file.seek(0, os.SEEK_END)
    return size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"


def _last_begins(file: FileIO) -> int:
    """The byte after the last line end."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _BLOCK)
        if (found := os.pread(file.fileno(), end - begin, begin).rfind(b"\n")) >= 0:
            return begin + found + 1
        end = begin
    return 0


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(text.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _sync_folder(folder: Path) -> None:
    """The new name reaches the disk too; not every file system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
