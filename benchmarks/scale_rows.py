"""The rows of `scale.py`: each measures one thing, in a process of its own."""

import io
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from optuna import Study
from optuna.samplers._ga import BaseGASampler
from ray.cluster_utils import Cluster
from ray.tune.execution.tune_controller import TuneController
from rich.console import Console
from scale_parts import (
    POPULATION,
    SPACE,
    Clock,
    Line,
    Marks,
    ResumedStubs,
    StubSweep,
    Template,
    add_ended,
    memory_mb,
    told_trials,
)
from scale_stub import ended

from snnsweep import terminal
from snnsweep.results import store
from snnsweep.sweep import drive, launch, resume, watch
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.samplers import SAMPLERS, seeded
from snnsweep.sweep.search import StudySearcher, Teller
from snnsweep.sweep.study import open_study
from snnsweep.sweep.tidy import Tidy
from snnsweep.sweep.tuning import Ender
from snnsweep.tracking.address import server_command
from snnsweep.tracking.mlflow import Tracker
from snnsweep.tracking.runs import Runs
from snnsweep.tracking.spool import Spool

NODES, GPUS, SHARE = 2, 1, 0.5  # so that 4 trials run side by side
ASKS, ASK_S = 9, 60  # asks of a sampler, and how long they may take
TOLD_TO_MLFLOW = 30  # trials
MOST_TOLD_BESIDE = 1_000  # trials, in the row `driver`
STARTUP = 10  # of the samplers, as in a sweep of so many trials
ENDS = ("trial_start", "trial_result", "trial_complete", "trial_error", "step_end")
OURS = [
    *((watch.Recorder, f"on_{name}", "our callbacks") for name in ENDS),
    (StudySearcher, "suggest", "- a suggestion is taken (random)"),
    (StudySearcher, "_next", "the study is asked, in a thread of its own"),
    (store.Store, "add", "- row to journal and parquet"),
    (Teller, "tell", "- the study is told"),
    (Tidy, "keep_newest", "- old checkpoints handed over"),
    (Spool, "_say", "- said to MLflow's spool"),
    (terminal.ProgressView, "__call__", "- line on the terminal"),
    (Spool, "_tell_next", "MLflow's own thread (sqlite)"),
]
RAYS = [
    (TuneController, "save_to_dir", "Ray's state of all trials, written"),
    (TuneController, "step", "a turn of Ray's loop"),
]


def with_ray(trials: int, template: Template, home: Path, seconds: float | None = None) -> list[Line]:
    """A whole sweep, or what ends of it in so many seconds.

    The cluster has two nodes, with a GPU each that is not there, and a head that runs no trial.
    """
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(NODES):
        cluster.add_node(num_cpus=int(GPUS / SHARE), num_gpus=GPUS)
    clock = Clock()
    marks = Marks(clock)
    given = {"sampler": "random", "address": cluster.address, "gpus_per_trial": SHARE, "listener": marks}
    given["time_budget"] = seconds
    sweep = StubSweep(SPACE, trials, storage=home, name="s", **given)
    sweep.template = template
    with clock.watching(*OURS, *RAYS), _unseen():
        sweep.run()
    found = sweep.results()
    if (len(found) < trials and not seconds) or not set(found["status"]) <= {"finished", "stopped"}:
        raise RuntimeError(f"{len(found)} of {trials} trials ended: {found['cause'].unique()}")
    found = found[found["status"] == "finished"]
    trials = len(found)
    size = (sweep.folder / "results.jsonl").stat().st_size
    return [
        *marks.lines(trials),
        *marks.ends(trials),
        *(line for line in clock.lines(trials) if line.what in {label for *_, label in RAYS}),
        marks.rate(trials, len(template["history"]) + 1),
        Line("processes that ran trials", trials, "", [len({tuple(said) for said in found["warnings"]})]),
        Line("calls that MLflow had not got 30 s after the end", trials, "", [sweep.untold]),
        Line("memory of the driver, when the first trial ended", trials, "MB", [marks.memory]),
        Line("memory of the driver, at most", trials, "MB", [memory_mb("VmHWM")]),
        Line("a row in results.jsonl", trials, "bytes", [size / trials]),
    ]


def without_ray(trials: int, template: Template, home: Path) -> list[Line]:
    """The driver's part alone: Ray's calls of it are imitated, trial after trial.

    With many trials MLflow's own thread does not run: it would fall behind, and take most of the time.
    """
    tracker = Tracker(f"sqlite:///{home}/mlflow.db", "scale")
    tracker.connect()
    alone = nullcontext() if trials <= MOST_TOLD_BESIDE else patch.object(Spool, "_tell_all", lambda spool: None)
    with alone:
        spool = Spool(home, tracker, tracker.start_sweep("s", {}, {}, ""))
    study = open_study(home, "s", SPACE.objectives, seeded("random", 0, STARTUP))
    clock = Clock()
    marks = Marks(clock)
    progress, rows = Progress(trials, SPACE.objectives, 32), store.Store(home, {}, objectives=SPACE.objectives)
    recorder = watch.Recorder(rows, Teller(study), spool, progress, marks, Tidy(str(home)), Ender(), None, {})
    searcher = StudySearcher(study, SPACE, {"seed": 0}, {"device": "cpu"})
    trial_list: list[Any] = []
    with clock.watching(*OURS), _unseen():
        for count in range(trials):
            trial: Any = SimpleNamespace(config=searcher.suggest(str(count)), get_pickled_error=lambda: None)
            trial_list.append(trial)
            _imitate(recorder, trial_list, trial, template, home)
    spool.close(0)
    return [
        *(line for line in marks.lines(trials) if line.what not in ("whole process", "main thread")),
        Line("calls that MLflow had not got at the end", trials, "", [spool.undelivered]),
        Line("memory, when the first trial ended", trials, "MB", [marks.memory]),
        Line("memory, at most", trials, "MB", [memory_mb("VmHWM")]),
    ]


def _imitate(recorder: watch.Recorder, trials: list[Any], trial: Any, template: Template, home: Path) -> None:
    """What Ray calls for a trial: a start, a result for each epoch and one for the end, its end."""
    number, flat = trial.config["number"], trial.config["flat"]
    recorder.on_trial_start(0, trials, trial)
    for epoch, metrics in enumerate(template["history"], 1):
        recorder.on_trial_result(0, trials, trial, {"epoch": epoch, "metrics": metrics})
        recorder.on_step_end(0, trials)
    for checkpoint in range(2):
        place = home / "ray" / f"t{number:04d}" / f"checkpoint_{checkpoint:06}"
        place.mkdir(parents=True)
        (place / "state.pt").write_bytes(b"nothing")
    last = {"epoch": len(template["history"]), "result": ended(template, flat, number), "traceback": ""}
    recorder.on_trial_result(0, trials, trial, last)
    recorder.on_trial_complete(0, trials, trial)
    recorder.on_step_end(0, trials)


def ask(trials: int, template: Template, home: Path, storage: str, samplers: Sequence[str]) -> list[Line]:
    """Suggestions of each sampler, and the telling of their ends, where so many trials were told before."""
    url = f"sqlite:///{home}/study.db" if storage == "sqlite" else None
    clock = Clock()
    study = open_study(home, "s", SPACE.objectives, seeded("random", 0, STARTUP), url)
    with clock.watching((type(study), "add_trial", "")):
        study.add_trials(told_trials(trials))
    for name in samplers:
        study.sampler = SAMPLERS[name](trials, STARTUP)
        knows_its_parents(study)
        searcher, teller = StudySearcher(study, SPACE, {"seed": 0}, {"device": "cpu"}), Teller(study)
        parts = [(StudySearcher, "suggest", f"ask {name}, {storage}"), (Teller, "tell", f"tell, {storage}")]
        with clock.watching(*parts), _at_most(ASK_S):
            for count in range(ASKS):
                suggestion: Any = searcher.suggest(str(count))
                teller.tell(suggestion["number"], "finished", dict.fromkeys(SPACE.objectives, 0.5))
    return [line for line in clock.lines(trials) if line.what]


def knows_its_parents(study: Study) -> None:
    """A genetic sampler finds the parents of the last generation of told trials, as it does after so many asks."""
    if isinstance(study.sampler, BaseGASampler):
        last = (len(study.get_trials(deepcopy=False)) - 1) // POPULATION
        parents = [trial._trial_id for trial in study.sampler.get_population(study, last - 1)]
        key = f"{study.sampler._get_parent_cache_key_prefix()}{last}"
        study._storage.set_study_system_attr(study._study_id, key, parents)


def mlflow(trials: int, template: Template, home: Path, over: str) -> list[Line]:
    """What a trial's calls cost the sweep, and what they cost the thread that tells MLflow."""
    clock = Clock()
    database = f"sqlite:///{home}/mlflow.db"
    flat = SPACE.probe(0, {}, {}, 1)[0].to_flat()
    with _server(home, database) if over == "HTTP" else nullcontext() as uri:
        tracker = Tracker(uri or database, "scale")
        tracker.connect()
        run = tracker.start_sweep("s", {}, {}, "")
        kinds = ("start_trial", "log_epoch", "end_trial")
        parts = [(Spool, kind, f"the sweep: {kind}") for kind in kinds]
        parts += [(Tracker, kind, f"MLflow's thread: {kind}, {over}") for kind in kinds]
        with clock.watching(*parts, (Runs, "ask", "calls")):
            spool = Spool(home, tracker, run)
            for number in range(trials):
                spool.start_trial(f"t{number}", "", flat)
                for step, metrics in enumerate(template["history"], 1):
                    spool.log_epoch(f"t{number}", step, metrics)
                spool.end_trial(f"t{number}", "finished", template["metrics"], (), "", 2)
            left = spool.close(300)
    lines = clock.lines(trials)
    calls = next(line for line in lines if line.what == "calls")
    told = (len(template["history"]) + 2) * trials - left
    return [*(line for line in lines if line is not calls), _calls(len(calls.wall) / told, trials, over)]


def _calls(each: float, trials: int, over: str) -> Line:
    return Line(f"calls of MLflow's API for one of the sweep's, {over}", trials, "", [each])


def make_ended(trials: int, template: Template, home: Path) -> list[Line]:
    """A folder with so many ended trials, for `resumed`: a sweep of two stubs, and the others written into it."""
    sweep = StubSweep(SPACE, 2, storage=home, name="s", cpus_per_trial=1)
    sweep.template = template
    with _unseen():
        sweep.run()
    add_ended(sweep, template, trials - 2)
    return []


def resumed(trials: int, template: Template, home: Path) -> list[Line]:
    """`snnsweep resume` of that folder, by one trial more."""
    clock, first = Clock(), []
    begun = time.perf_counter(), time.process_time()
    suggest = StudySearcher.suggest

    def noted(searcher: StudySearcher, trial_id: str) -> Any:
        first.append((time.perf_counter() - begun[0], time.process_time() - begun[1], memory_mb("VmHWM")))
        return suggest(searcher, trial_id)

    parts = [
        (store, "load_results", "- rows read (once before, twice for the front)"),
        (ResumedStubs, "_space_works", "- space tried"),
        (launch, "open_study", "- study opened"),
        (resume, "compatible", "- study compared with the space"),
        (store.Store, "__init__", "- store opened"),
        (Spool, "__init__", "- MLflow's spool opened"),
        (drive, "Teller", "- worst values found in the study"),
        (store.Store, "frame", "- rows as a frame"),
        (drive, "settle", "- study settled"),
        (StudySearcher, "_next", "- first ask (TPE), in its own thread"),
        (drive.Drive, "close", "- end: front, its picture, parquet"),
    ]
    sweep = ResumedStubs(home / "s", trials + 1)
    sweep.template = template
    with patch.object(StudySearcher, "suggest", noted), clock.watching(*parts), _unseen():
        sweep.run()
    wall, cpu, memory = first[0]
    return [
        Line("resume until the first trial is asked for, Ray's start included", trials, "s", [wall], [cpu]),
        *clock.lines(trials, "s"),
        Line("memory of the driver until then, at most", trials, "MB", [memory]),
        Line("memory of the driver, at most", trials, "MB", [memory_mb("VmHWM")]),
    ]


@contextmanager
def _unseen() -> Iterator[None]:
    """Inside, what the sweep prints is made and thrown away."""
    with patch.object(terminal, "err", Console(file=io.StringIO(), width=terminal.PLAIN_WIDTH)):
        yield


class _Over(BaseException):
    """Not an Exception: whatever a space raises is made a failed trial."""


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """Ends what is inside after so long."""

    def over(*_: Any) -> None:
        raise _Over

    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        with suppress(_Over):
            yield
    finally:
        signal.alarm(0)


@contextmanager
def _server(home: Path, database: str) -> Iterator[str]:
    """A real MLflow server, as `snnsweep ui` starts one."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (home / "server.log").open("wb") as log:
        command = server_command(database, home / "artifacts", port)
        process = subprocess.Popen(command, cwd=home, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            with suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
