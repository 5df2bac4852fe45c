"""Whether the hosts of a cluster see one storage, before anything is written to it."""

import re
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from uuid import uuid4

from pyarrow import fs

from snnsweep.errors import UserError
from snnsweep.sweep import nodes
from snnsweep.tracking.address import redacted

BUCKET_S = 60  # pyarrow itself tries for a quarter of an hour
# Types in /proc/mounts that no other host sees.
LOCAL = {"apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
MOUNTS = Path("/proc/mounts")
REMEDY = (
    "give --storage a folder on NFS or another shared file system that is mounted at the same path on every host, or "
    "send the checkpoints to a bucket: --checkpoints s3://... or gs://..."
)


def check_storage(folder: Path, option: str = "--storage") -> None:
    """Refuses a folder that not every host sees, or may not write to. One host alone is not asked anything.

    The hosts that an autoscaler may bring cannot be asked: where no other host is up, the type of the file system
    decides.

    Args:
        option: that named the folder.

    Raises:
        UserError: with the hosts that lack it.
    """
    up = nodes.alive()
    here = next((node["NodeManagerAddress"] for node in up if node["NodeID"] == nodes.own()), None)
    others = {node["NodeID"]: _name(node) for node in up if node["NodeManagerAddress"] != here}
    if others:
        _ask_all(folder, others, option)
    elif (kind := _local(folder)) is not None:
        growth = nodes.growth()
        if growth.nodes > len(up) or not growth.told:
            raise UserError(
                f"{option} {folder}: the cluster may grow, and hosts that join it will not see this folder, which "
                f"lies on a file system of this machine alone ({kind}); {REMEDY}"
            )


def _name(node: dict[str, str]) -> str:
    name, address = node["NodeManagerHostname"], node["NodeManagerAddress"]
    return name if name == address else f"{name} ({address})"


def _ask_all(folder: Path, others: dict[str, str], option: str) -> None:
    above = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    marker = above / f".snnsweep-{uuid4().hex}"
    try:
        marker.touch(exist_ok=False)
    except OSError as error:
        raise UserError(
            f"{option} {folder}: cannot write to {above}: {error.strerror}; give another {option}"
        ) from None
    try:
        answers = nodes.ask(others, _looking(), str(marker))
    finally:
        marker.unlink(missing_ok=True)
    problems = {name: answers.get(node, f"did not answer in {nodes.ANSWER_S} s") for node, name in others.items()}
    wrong = [f"{name} {problem}" for name, problem in sorted(problems.items()) if problem]
    if wrong:
        raise UserError(f"{option} {folder}: not every host of the cluster has it: {'; '.join(wrong)}; {REMEDY}")


def _looking() -> Callable[[str], str]:
    def look(marker: str) -> str:
        """What is wrong with the marker's folder, else ""."""
        import os
        import time

        above = os.path.dirname(marker)
        for _ in range(6):  # an NFS client may believe for a while what it knew of the folder
            if os.path.exists(marker):
                return "" if os.access(above, os.W_OK | os.X_OK) else f"may not write to {above}"
            time.sleep(0.5)
        return "does not see it"

    return look


def _local(folder: Path) -> str | None:
    """The type of the file system that holds a folder, where it is one of this machine alone."""
    if not MOUNTS.exists():
        return None
    place, found = folder.resolve(), ""
    for line in MOUNTS.read_text().splitlines():  # in their order: a later one hides what lies under it
        _, point, kind, *_ = line.split(" ")
        mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point)  # a space is \040
        if place.is_relative_to(mount):
            found = kind
    return found if found in LOCAL else None


def local_folder(uri: str) -> Path | None:
    """The folder that a URI names, as `file:///path` and `/path` do; None of a bucket."""
    if "://" in uri and not uri.startswith("file:"):
        return None
    return Path(fs.FileSystem.from_uri(uri)[1])


def check_checkpoints(uri: str) -> None:
    """Writes a marker to where checkpoints shall go, and removes it again. A folder is held to what `--storage` is.

    Args:
        uri: `s3://bucket/path`, `gs://bucket/path` or `file:///path`.

    Raises:
        UserError: it cannot be written to from here; the reason in one line. Or not every host sees the folder.
    """
    if redacted(uri) != uri:
        raise UserError(
            f"--checkpoints {redacted(uri)}: credentials come from the environment (AWS_ACCESS_KEY_ID, "
            "GOOGLE_APPLICATION_CREDENTIALS, ...), not from the address, which is written to the sweep's folder"
        )
    problems: list[str] = [f"no answer in {BUCKET_S} s"]
    attempt = Thread(target=_try, args=(uri, problems), daemon=True)  # there is no other way to give up on pyarrow
    attempt.start()
    attempt.join(BUCKET_S)
    if problems:
        raise UserError(
            f"--checkpoints {redacted(uri)}: {problems[-1]}; allowed: s3://bucket/path, gs://bucket/path or "
            "file:///path, of a bucket or folder that this host and the workers may write to (credentials come from "
            "the environment, as the platform's own tools take them)"
        )
    if folder := local_folder(uri):
        check_storage(folder, "--checkpoints")


def _try(uri: str, problems: list[str]) -> None:
    """Empties `problems` when it worked, else appends the reason."""
    try:
        system, path = fs.FileSystem.from_uri(uri)
        marker = f"{path.rstrip('/')}/.snnsweep-{uuid4().hex}"
        system.create_dir(path, recursive=True)  # as Ray does it
        with system.open_output_stream(marker) as stream:
            stream.write(b"snnsweep")
        system.delete_file(marker)
    except Exception as error:  # noqa: BLE001  pyarrow raises its own kinds, one for each file system
        problems.append(" ".join(redacted(str(error)).split()) or type(error).__name__)
    else:
        problems.clear()
