"""Files that are replaced as a whole: a reader sees the one before or the one after, never half of one."""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq

from snnsweep.errors import UserError

FACTS, COVERED = "snnsweep", "snnsweep.journal"  # in a parquet file's metadata


def write_table(path: Path, table: pa.Table, facts: str, covered: int) -> None:
    """Replace a parquet file.

    Args:
        facts: JSON, kept in the metadata under "snnsweep".
        covered: how many bytes of the journal are in the table; under "snnsweep.journal".
    """
    sink = io.BytesIO()
    metadata = {FACTS: facts, COVERED: f"{covered} {_checksum(table)}"}
    pq.write_table(table.replace_schema_metadata(metadata), sink, write_page_checksum=True)
    replace(path, sink.getvalue())


def read_table(path: Path) -> pa.Table | None:
    """A parquet file with rows of trials, of which the checksums hold; None where there is none.

    Raises:
        UserError: it is damaged, or cannot be read, or is something else.
    """
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()), page_checksum_verification=True)
        table.column_names  # noqa: B018  # decodes them
    except FileNotFoundError:
        return None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({line(error)}); {anew(path)}") from None
    return table


def anew(path: Path) -> str:
    """What to do about a parquet file that is damaged, where its journal does not help."""
    return f"restore it, or {path.with_suffix('.jsonl').name} beside it, of which a resume makes it anew"


def covered(table: pa.Table) -> int:
    """Bytes of the journal that are in a table of `read_table`; 0 where it was made without one, or changed since."""
    known, _, checksum = (
        (table.schema.metadata or {}).get(COVERED.encode(), b"").decode(errors="replace").partition(" ")
    )
    return int(known) if known.isdecimal() and checksum == _checksum(table) else 0


def facts_in(table: pa.Table) -> str:
    """The JSON that a table of `read_table` was written with."""
    return str((table.schema.metadata or {}).get(FACTS.encode(), b"{}").decode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, atomically.

    Raises:
        TypeError, ValueError: `content` has no JSON form (an object, NaN); the old file stays.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    replace(Path(path), f"{text}\n".encode())


def replace(path: Path, content: bytes) -> None:
    """Write a file, atomically; the old one stays where that fails."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def line(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:200]


def _checksum(table: pa.Table) -> str:
    """Of what parquet's own checksums leave out: the names, the types, and how many rows there are."""
    types = {field.name: str(field.type).replace("<element: ", "<item: ") for field in table.schema}  # parquet's word
    return str(crc32(f"{table.num_rows} {types}".encode()))
