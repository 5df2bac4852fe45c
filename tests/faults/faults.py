"""What happens to a sweep: ways in which it ends, damage to what it left, and trouble while it runs."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from harness import PATIENCE_S, Scene, kill_session
from losses import Kept, kept

sys.path.insert(0, str(Path(__file__).parents[1] / "tracking"))
from serving import free_port, server

BROKEN = 2  # of the troubled trials have no attack
EARLY = 0.25  # of the moments are in the seconds before anything was trained
IMPATIENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}  # else Ray gives a driver up that lost it after a minute
AHEAD = 14  # of the others lie at most so many batches and attacks away


def moment(scene: Scene, rng: Random) -> None:
    """Waits for a random one of the sweep's newest start, which may end before it."""
    starts, before = len(scene.started), len(scene.notes())
    scene.until(lambda: scene.starts == starts if starts > 1 else scene.folder.exists())
    seconds = rng.uniform(0, 0.5)
    if rng.random() < EARLY:
        seconds = rng.uniform(0, 6)
    else:
        notes = before + 1 + rng.randrange(AHEAD)
        scene.until(lambda: len(scene.notes()) >= notes)
    end = time.monotonic() + seconds
    scene.until(lambda: time.monotonic() > end)


def driver_killed(scene: Scene, rng: Random) -> None:
    scene.kill_driver()


def machine_killed(scene: Scene, rng: Random) -> None:
    scene.kill_machine()


def ray_killed(scene: Scene, rng: Random) -> None:
    """One of its two servers."""
    for pid in scene.processes(rng.choice(["raylet/raylet", "gcs/gcs_server"])):
        os.kill(pid, signal.SIGKILL)
    ended_without_ray(scene)


def ended_without_ray(scene: Scene) -> None:
    """With an error of ours; or Ray ended the process from inside, which nothing in it can prevent."""
    code = scene.wait()
    if not code and len(scene.lines()) == scene.trials:  # Ray was not needed any more
        return
    by_ray = code < 0 or "The program will terminate" in scene.output or "raylet" in scene.output
    assert code, scene.output
    assert by_ray or f"go on with `snnsweep resume {scene.folder}" in scene.output, f"{code} {scene.output}"


def terminated(scene: Scene, rng: Random) -> None:
    """SIGTERM, as of Kubernetes and spot machines."""
    os.kill(scene.pid, signal.SIGTERM)
    code = scene.wait()
    if not code and len(scene.lines()) == scene.trials:  # it came too late
        return
    assert code == 130, scene.output
    assert f"snnsweep resume {scene.folder}" in scene.output


def disk_full(scene: Scene, rng: Random) -> None:
    """Of a small one that holds the sweep alone; in the end there is room again."""
    filler = scene.storage / "filler"
    with filler.open("ab", buffering=0) as file:
        while scene.driver.exitcode is None:
            try:
                file.write(bytes(4096))
            except OSError:
                scene.release()
                time.sleep(0.02)
    code = scene.wait()
    filler.unlink()
    assert code == 1, scene.output
    assert any(text in scene.output for text in ("disk is full", "No space left on device")), scene.output
    assert f"snnsweep resume {scene.folder}" in scene.output


def _ray_files(scene: Scene, pattern: str) -> list[Path]:
    return [path for path in scene.folder.glob(f"ray*/{pattern}") if path.is_file()]


def ray_state_cut(scene: Scene, rng: Random) -> None:
    """Half of each file that Ray keeps of the sweep."""
    scene.kill_driver()
    for path in _ray_files(scene, "*"):
        os.truncate(path, path.stat().st_size // 2)


def ray_state_gone(scene: Scene, rng: Random) -> None:
    scene.kill_driver()
    for path in _ray_files(scene, "*"):
        path.unlink()


def checkpoint_cut(scene: Scene, rng: Random) -> None:
    """Half of the newest, which is that of a running trial or of one that just ended: costs one epoch more."""
    scene.kill_driver()
    for path in scene.checkpoints()[-1:]:
        os.truncate(path, path.stat().st_size // 2)


def study_cut(scene: Scene, rng: Random) -> None:
    """A part of a line stands at the end of Optuna's journal: of what a kill leaves in the middle of a write."""
    scene.kill_driver()
    study = scene.folder / "study.log"
    if study.exists() and (lines := study.read_bytes().splitlines(keepends=True)):
        with study.open("ab") as file:
            file.write(lines[-1][: rng.randint(1, len(lines[-1]) - 1)])


def parquet_broken(scene: Scene, rng: Random) -> None:
    """A byte in the middle is another one."""
    scene.kill_driver()
    path = scene.folder / "results.parquet"
    if path.exists():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)


def all_damaged(scene: Scene, rng: Random) -> None:
    for damage in (ray_state_gone, checkpoint_cut, study_cut, parquet_broken):
        damage(scene, rng)


ENDS: dict[str, Callable[[Scene, Random], None]] = {
    "driver killed": driver_killed,
    "machine killed": machine_killed,
    "Ray killed": ray_killed,
    "SIGTERM": terminated,
    "disk full": disk_full,
    "Ray's state cut": ray_state_cut,
    "Ray's state gone": ray_state_gone,
    "checkpoint cut": checkpoint_cut,
    "study's last line cut": study_cut,
    "results.parquet broken": parquet_broken,
    "the last four at once": all_damaged,
}


def ended_again_and_again(
    scene: Scene, rng: Random, end: Callable[[Scene, Random], None], times: int
) -> tuple[int, Kept]:
    """Runs a sweep to its end through at most `times` faults of a kind that end it; how many, and what was kept."""
    before: Kept = {}
    done = 0
    scene.run()
    while True:
        if done < times:
            moment(scene, rng)
        if done == times or scene.driver.exitcode is not None:
            code = scene.wait()
            assert code == 0, scene.output
            return done, before
        end(scene, rng)
        done += 1
        before |= kept(scene)
        if not scene.begun:  # nothing had been asked for; the folder is empty, and the name is taken
            return done, before
        scene.resume()


def worker_killed(scene: Scene, rng: Random, wounds: dict[float, int]) -> bool:
    """SIGKILL for a process that holds a trial which has not been hit three times; False where there is none."""
    owners = {note["pid"]: note["trial"] for note in scene.notes()}
    hit = [pid for pid in scene.trial_processes() if pid in owners and wounds.get(owners[pid], 0) < 3]
    if not hit:
        return False
    pid = rng.choice(hit)
    wounds[owners[pid]] = wounds.get(owners[pid], 0) + 1
    os.kill(pid, signal.SIGKILL)
    return True


def workers_killed(scene: Scene, rng: Random, times: int) -> int:
    """In one sweep."""
    wounds: dict[float, int] = {}
    scene.run()
    done = 0
    while done < times:
        before = len(scene.notes()) + rng.randrange(8)
        if not scene.until(lambda before=before: len(scene.notes()) > before):
            break
        end = time.monotonic() + rng.uniform(0, 1)
        scene.until(lambda end=end: time.monotonic() > end)
        done += worker_killed(scene, rng, wounds)
    code = scene.wait()
    if code == 1:  # a trial that met four kills is open, and gone on with
        scene.resume()
        code = scene.wait()
    assert code == 0, scene.output
    return done


class Nodes:
    """A cluster on this machine whose nodes can be taken away. Their storage is shared, as the machine is."""

    def __init__(self, home: Path):
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.address = home, f"127.0.0.1:{free_port()}"
        self._nodes: list[subprocess.Popen[bytes]] = []
        self.env = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
        self.env |= {"SNNSWEEP_FAULTS_NOTES": str(home / "notes.jsonl"), "SNNSWEEP_FAULTS_PAUSE": "0.8"}
        port = self.address.rpartition(":")[2]
        self._start("--head", f"--port={port}", f"--temp-dir={tempfile.mkdtemp()}", "--include-dashboard=false")

    def _start(self, *arguments: str) -> None:
        log = self.home / f"node{len(self._nodes)}"
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1", *arguments]
        with log.open("wb") as file:
            node = subprocess.Popen(
                command, cwd=self.home, env=self.env, stdout=file, stderr=file, start_new_session=True
            )
        self._nodes.append(node)
        end = time.monotonic() + PATIENCE_S
        while "Ray runtime started" not in log.read_text():
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)

    def add(self) -> None:
        self._start(f"--address={self.address}")

    def remove(self, place: int = -1) -> None:
        """The node that came last; 0 is the head."""
        node = self._nodes.pop(place)
        kill_session(node.pid)
        node.wait(PATIENCE_S)

    def close(self) -> None:
        while self._nodes:
            self.remove()


def nodes_removed(scene: Scene, nodes: Nodes, rng: Random, times: int) -> int:
    """The second of two, each time another one; the last one is not replaced."""
    nodes.add()
    scene.run("--address", nodes.address)
    for done in range(times):
        before = len({note["pid"] for note in scene.notes()}) + (2 if not done else 1)
        notes = rng.randrange(6)
        both = scene.until(lambda before=before: len({note["pid"] for note in scene.notes()}) >= before)
        end = len(scene.notes()) + notes
        if not (both and scene.until(lambda end=end: len(scene.notes()) >= end)):
            assert scene.wait() == 0, scene.output
            return done
        nodes.remove()
        if done + 1 < times:
            nodes.add()
    assert scene.wait() == 0, scene.output
    return times


@contextmanager
def tracking(home: Path, port: int | None = None) -> Iterator[str]:
    """An MLflow server over HTTP; on the same port it has the same database."""
    home.mkdir(parents=True, exist_ok=True)
    with server(home, f"sqlite:///{home / 'mlflow.db'}", home / "artifacts", port) as (uri, _):
        yield uri


def server_down(home: Path, scene: Scene, seconds: float) -> int:
    """Gone in the middle for a while, and before the end; `snnsweep sync` delivers the rest. The server's port."""
    attacks = scene.trials - BROKEN * ("SNNSWEEP_FAULTS_TROUBLED" in scene.env)
    scene.hold(1)
    with tracking(home) as uri:
        scene.run("--tracking-uri", uri, "--time-budget", "3600")
        scene.until(lambda: len(scene.lines()) >= 1)
    scene.clock.touch()  # the driver's clock jumps too
    scene.hold(attacks - 1)
    end = time.monotonic() + seconds
    scene.until(lambda: time.monotonic() > end)
    scene.clock.unlink()
    port = int(uri.rpartition(":")[2])
    with tracking(home, port):
        scene.until(lambda: len(scene.lines()) >= scene.trials - 1)
    scene.release()
    code = scene.wait()
    assert f"snnsweep sync {scene.folder}" in scene.output, scene.output
    with tracking(home, port):
        told, said = scene.call("sync", str(scene.folder))
        assert (told, code in (0, 3)) == (0, True), said
        assert "entries delivered" in said
    return port


@contextmanager
def small_disk(folder: Path, megabytes: int = 24) -> Iterator[Path | None]:
    """A disk of its own; None where this machine lets nobody mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
