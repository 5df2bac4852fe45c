"""Sweeps that the command line runs in processes of their own, to be killed and gone on with."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from snnsweep.results.journal import Row
from snnsweep.sweep.ledger import has_ended

SPACE = Path(__file__).with_name("what_is_lost.py")
TRIALS = 6
PATIENCE_S = 900  # for whatever takes seconds on an idle machine: reached where something hangs, and not on a busy one
DAY_S = 86400
# Processes that have imported everything already: half of what a start costs, and there are many.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["snnsweep.sweep.resume", "snnsweep.sweep.sync", "snnsweep.terminal", "snnsweep.cli"])


def _command_line(arguments: tuple[str, ...], home: str, log: str, env: dict[str, str], clock: str) -> None:
    """`snnsweep ARGUMENTS` in a session of its own, whose clock is a day ahead while the file `clock` is there."""
    os.setsid()
    os.chdir(home)
    os.environ.clear()
    os.environ.update(env)
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    if clock:
        real = time.time
        time.time = lambda: real() + DAY_S * os.path.exists(clock)
    from snnsweep.cli import main

    main(list(arguments), prog_name="snnsweep")


class Scene:
    """A sweep in `home`, and the one process that runs it at a time.

    Args:
        home: a folder of its own.
        storage: as of `snnsweep run`; by default in `home`.
        options: of `run`.
        env: what differs from this process's environment.
    """

    def __init__(
        self,
        home: Path,
        trials: int = TRIALS,
        seed: int = 0,
        storage: Path | None = None,
        options: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ):
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.trials, self.seed, self.options = home, trials, seed, options
        self.storage = storage or home / "sweeps"
        self.folder = self.storage / home.name
        self.notes_file, self.clock = home / "notes.jsonl", home / "clock"
        self._hold = home / "hold"
        own = {"SNNSWEEP_FAULTS_NOTES": str(self.notes_file), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
        own["RAY_memory_monitor_refresh_ms"] = "0"  # it ends workers where others fill the machine
        self.env = {**os.environ, **own, **(env or {})}
        self.started: list[float] = []  # seconds since 1970
        self._drivers: list[multiprocessing.context.ForkServerProcess] = []

    def run(self, *options: str) -> None:
        given = ("--trials", str(self.trials), "--seed", str(self.seed), "--storage", str(self.storage))
        self._start("run", str(SPACE), "--name", self.folder.name, *given, *self.options, *options)

    def resume(self, *options: str) -> None:
        self._start("resume", str(self.folder), *options)

    def _start(self, *arguments: str) -> None:
        self.started.append(time.time())
        self._drivers.append(self._fork(f"log{len(self._drivers)}", arguments))

    def _fork(self, log: str, arguments: tuple[str, ...]) -> "multiprocessing.context.ForkServerProcess":
        clock = str(self.clock) if "--time-budget" in arguments else ""
        given = (arguments, str(self.home), str(self.home / log), self.env, clock)
        process = _FORKS.Process(target=_command_line, args=given)
        process.start()
        return process

    def call(self, *arguments: str) -> tuple[int, str]:
        """Another command of ours, beside the sweep or after it: exit code and output."""
        process = self._fork(f"{arguments[0]}{time.monotonic_ns()}", arguments)
        code = _end_of(process)
        return code, max(self.home.glob(f"{arguments[0]}*")).read_text()

    @property
    def driver(self) -> "multiprocessing.context.ForkServerProcess":
        return self._drivers[-1]

    @property
    def pid(self) -> int:
        """The driver's, and its session's."""
        return int(self.driver.pid or 0)

    @property
    def output(self) -> str:
        """What the last driver printed."""
        return (self.home / f"log{len(self._drivers) - 1}").read_text()

    def wait(self) -> int:
        """The driver's exit code; what is left of its Ray is ended."""
        code = _end_of(self.driver)
        self._clear(self.pid)
        return code

    def until(self, holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
        """Waits for it; False where the driver ended first."""
        end = time.monotonic() + patience_s
        while not holds():
            if self.driver.exitcode is not None:
                return holds()
            assert time.monotonic() < end, f"not in {patience_s} s:\n{self.output}"
            time.sleep(0.02)
        return True

    def hold(self, attacks: int) -> None:
        """No trial goes on once that many have begun their final attacks; each notes the batch that it waits in."""
        draft = self._hold.with_name("hold.tmp")
        draft.write_text(str(attacks))
        draft.replace(self._hold)

    def release(self) -> None:
        """All go on."""
        self._hold.unlink(missing_ok=True)

    def kill_driver(self) -> None:
        """SIGKILL for it alone: Ray has to notice by itself."""
        self.driver.kill()
        _end_of(self.driver)

    def kill_machine(self) -> None:
        """SIGKILL for the driver, Ray and the trials, all at once."""
        kill_session(self.pid)
        _end_of(self.driver)

    def processes(self, *names: str) -> list[int]:
        """The driver and all that came of it, or those whose command line has one of `names`."""
        return [pid for pid in in_session(self.pid) if not names or any(name in _command(pid) for name in names)]

    def trial_processes(self) -> list[int]:
        return self.processes("ray::ResourceTrainable", "ray::SweepTrial", "ray::with_parameters")

    def _clear(self, session: int, patience_s: float = 5) -> None:
        end = time.monotonic() + patience_s
        while in_session(session) and time.monotonic() < end:
            time.sleep(0.1)
        kill_session(session)

    def close(self) -> None:
        """Nothing is left running."""
        for driver in self._drivers:
            self._clear(int(driver.pid or 0), 0)

    @property
    def resume_s(self) -> list[float]:
        """Seconds from each start, but for the first, to the first batch or attack of a process that it brought."""
        came: dict[int, float] = {}
        for note in self.notes():
            came.setdefault(note["pid"], note["at"])
        spans = list(pairwise([*self.started, float("inf")]))[1:]
        first = [min((at - start for at in came.values() if start < at < end), default=None) for start, end in spans]
        return [seconds for seconds in first if seconds is not None]

    @property
    def begun(self) -> bool:
        """Whether there is a sweep that could be resumed."""
        return (self.folder / "sweep.json").is_file()

    @property
    def starts(self) -> int:
        """How often the sweep has been started."""
        return 1 + len(self.facts().get("resumed", ())) if self.begun else 0

    def facts(self) -> dict[str, Any]:
        return json.loads((self.folder / "sweep.json").read_text())

    def lines(self) -> list[Row]:
        """The journal's rows of trials' own ends, those too that stand there twice."""
        return [row for row in _json_lines(self.folder / "results.jsonl") if has_ended(row)]

    def notes(self) -> list[dict[str, Any]]:
        """What the workers left, in its order."""
        return _json_lines(self.notes_file)

    def calls(self, name: str) -> list[dict[str, Any]]:
        """What the driver had to tell MLflow."""
        return [line["said"] for line in _json_lines(self.folder / "tracking.jsonl") if line.get("call") == name]

    def checkpoints(self) -> list[Path]:
        """The newest last."""
        return sorted(self.folder.glob("ray*/t*/checkpoint_*/state.pt"), key=lambda path: path.stat().st_mtime)


def _end_of(process: "multiprocessing.context.ForkServerProcess") -> int:
    process.join(PATIENCE_S)
    assert process.exitcode is not None, f"has not ended in {PATIENCE_S} s"
    return process.exitcode


def in_session(leader: int) -> list[int]:
    """All processes that are alive and descend from that one, but for those that made a session of their own."""
    return [pid for pid in _pids() if _session(pid) == leader]


def kill_session(leader: int) -> None:
    """SIGKILL for all of it."""
    for pid in in_session(leader):
        _kill(pid)


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _session(pid: int) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
        return None if state in "ZX" else int(session)
    return None


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines; a last one may have been cut by a kill."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found
