"""Files of a report reach the disk whole."""

from pathlib import Path

from snnsweep.errors import SnnSweepError
from snnsweep.results.files import replace
from snnsweep.results.journal import reason_of


def save(path: Path, content: bytes) -> Path:
    """Writes a file, atomically, makes its folder, and returns the path.

    Raises:
        SnnSweepError: it cannot be written; an old one stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, content)
    except OSError as error:
        reason, mend = reason_of(error)
        raise SnnSweepError(f"{path} cannot be written ({reason}): {mend}, then ask for the report again") from error
    return path
