"""One process at a time in a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snnsweep.errors import UserError

LOCK = ".lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Inside, no other process of this program writes there. A process that dies, however it does, gives it free.

    Args:
        folder: made where it is not there; its parent is.

    Raises:
        UserError: another process is at work there, or the folder cannot be written to or locked.
    """
    try:
        folder.mkdir(exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; it has to be a folder that can be written to") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is at work there; wait for it, or end it") from None
        except OSError as error:
            raise UserError(f"{folder}: cannot be locked ({error.strerror}); take a disk that has locks") from None
        yield
