"""The long rounds: each fault many times, at moments drawn from a seed, and what it cost.

    python tests/faults/rounds.py --rounds 20 --out faults.jsonl
    python tests/faults/rounds.py --only "driver killed" --only "worker killed"

Prints a table, and appends a line of JSON for each sweep to `--out`. Nothing but epochs and attacks may be lost: the
exit code is 1 where something else was.
"""

import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from statistics import median

import click
import faults
from harness import Scene
from losses import Losses, losses

OUTAGE_S = 60.0
FEW = 5  # of the rounds of a fault that takes long, or that hits the same files each time


@dataclass
class Tally:
    """Of one fault."""

    fault: str
    out: Path
    times: int = 0
    sweeps: int = 0
    too_early: int = 0  # nothing had begun yet
    losses: Losses = field(default_factory=Losses)
    resume_s: list[float] = field(default_factory=list)

    def add(self, times: int, scene: Scene, before: faults.Kept) -> None:
        self.times, self.sweeps = self.times + times, self.sweeps + 1
        self.too_early += not scene.begun
        found, seconds = (losses(scene, before), scene.resume_s) if scene.begun else (Losses(), [])
        self.losses += found
        self.resume_s += seconds
        said = {"fault": self.fault, "seed": scene.seed, "times": times, "begun": scene.begun, "resume_s": seconds}
        with self.out.open("a") as file:
            file.write(f"{json.dumps(said | asdict(found))}\n")


def ended(tally: Tally, home: Path, rng: Random, times: int) -> None:
    """A fault after which the sweep has to be resumed."""
    small = tally.fault == "disk full"
    while tally.times < times:
        with faults.small_disk(home / f"disk{tally.sweeps}") if small else nullcontext(home / "sweeps") as storage:
            if not storage:
                click.echo(f"{tally.fault}: nobody may mount a small disk here", err=True)
                return
            name = f"{tally.fault.replace(' ', '-').replace(chr(39), '')}-{tally.sweeps}"
            env = faults.IMPATIENT if tally.fault == "Ray killed" else {}
            scene = Scene(home / name, seed=rng.randrange(1000), storage=storage, env=env)
            try:
                some = 1 if small else times - tally.times
                done, before = faults.ended_again_and_again(scene, rng, faults.ENDS[tally.fault], some)
                tally.add(done, scene, before)
            finally:
                scene.close()


def workers(tally: Tally, home: Path, rng: Random, times: int) -> None:
    while tally.times < times:
        scene = Scene(home / f"workers-{tally.sweeps}", 10, rng.randrange(1000), home / "sweeps")
        try:
            tally.add(faults.workers_killed(scene, rng, times - tally.times), scene, {})
        finally:
            scene.close()


def removed(tally: Tally, home: Path, rng: Random, times: int) -> None:
    while tally.times < min(times, FEW):
        scene = Scene(home / f"nodes-{tally.sweeps}", 10, rng.randrange(1000), home / "sweeps")
        nodes = faults.Nodes(scene.home)
        try:
            tally.add(faults.nodes_removed(scene, nodes, rng, min(times, FEW) - tally.times), scene, {})
        finally:
            scene.close()
            nodes.close()


def outage(tally: Tally, home: Path, rng: Random, times: int) -> None:
    scene = Scene(home / "outage", 8, rng.randrange(1000), home / "sweeps", env={"SNNSWEEP_FAULTS_PAUSE": "1.5"})
    try:
        port = faults.server_down(scene.home, scene, OUTAGE_S)
        with faults.tracking(scene.home, port):
            tally.add(1, scene, {})
    finally:
        scene.close()


OTHERS = {"worker killed": workers, "node removed": removed, "tracking server down": outage}


def row(tally: Tally) -> str:
    lost, seconds = tally.losses, f"{median(tally.resume_s):.0f}" if tally.resume_s else ""
    runs = lost.runs_missing + lost.runs_doubled + lost.runs_wrong
    figures = (tally.times, lost.lost, lost.duplicated, lost.open, lost.astray, lost.epochs, lost.most, lost.attacks)
    return (
        f"| {' | '.join(map(str, (tally.fault, *figures, runs, lost.points_missing, lost.points_doubled, seconds)))} |"
    )


HEAD = (
    "| fault | times | finished trials lost | duplicated | without an end | astray in the study | epochs trained twice "
    "| most in one trial at once | attacks begun twice | MLflow runs missing, doubled or wrong | epochs missing there "
    "| epochs there twice | seconds to resume |"
)


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="Times that each fault is tried.")
@click.option("--only", multiple=True, type=click.Choice([*faults.ENDS, *OTHERS]), help="This fault; may be repeated.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("faults.jsonl"), show_default=True)
def main(rounds: int, only: tuple[str, ...], seed: int, out: Path) -> None:
    """Try each fault, and print what was lost."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing is left running then either
    _guard_clusters()
    bad = False
    click.echo(f"{HEAD}\n|{' --- |' * HEAD.count(' |')}")
    for fault in only or (*ENDS_OF_MANY, *ENDS_OF_FEW, *OTHERS):
        tally = Tally(fault, out)
        home = Path(tempfile.mkdtemp(prefix="faults-"))
        times = min(rounds, FEW) if fault in ENDS_OF_FEW else rounds
        OTHERS.get(fault, ended)(tally, home, Random(f"{fault} {seed}"), times)
        click.echo(row(tally))
        bad |= bool(tally.losses.bad)
        if not tally.losses.bad:
            shutil.rmtree(home)
    sys.exit(bad)


def _guard_clusters() -> None:
    """By a token of our own, as in the tests; before anything starts Ray."""
    token = Path(tempfile.mkdtemp()) / "token"
    token.write_text(secrets.token_hex(32))
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "MLFLOW_DISABLE_TELEMETRY": "true"}


ENDS_OF_MANY = ("driver killed",)
ENDS_OF_FEW = tuple(name for name in faults.ENDS if name not in ENDS_OF_MANY)

if __name__ == "__main__":
    main()
