"""The commands that start a sweep, go on with one, and bring MLflow up to date."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snnsweep.cli_options import (
    FAILED_TRIALS,
    INTERRUPTED,
    SPACE,
    SWEEP,
    Command,
    folder_of,
    front_of,
    options,
    show_front,
)
from snnsweep.cli_report import show_report, written

if TYPE_CHECKING:
    from snnsweep.sweep.launch import Sweep


@click.command(cls=Command)
@SPACE
@options("trials", "seed", "sampler", "warm-start", "name", "storage", "checkpoints", "optuna-storage", "tracking-uri")
@options("data-dir", "address", "cpus-per-trial", "gpus-per-trial", "max-concurrent", "time-budget", "smoke", "json")
def run(as_json: bool, **settings: Any) -> None:
    """Run the trials of SPACE, a file or a name from `snnsweep list spaces`."""
    from snnsweep.sweep.launch import Sweep
    from snnsweep.terminal_progress import ProgressView

    with ProgressView() as view:
        sweep = Sweep(**settings, listener=view).run()
    _ended(sweep, as_json)


@click.command(cls=Command)
@SWEEP
@click.option("--trials", type=click.IntRange(1), help="How many in all; by default as many as it was begun with.")
@click.option("--retry-failed", is_flag=True, help="Choose the variants that failed once more, as further trials.")
@click.option("--allow-changed", is_flag=True, help="Though the space, or the version of torch or snnsweep, changed.")
@click.option("--cpus-per-trial", type=click.IntRange(1), help="By default as it was begun; so the next ones.")
@options("gpus-per-trial", "max-concurrent", "tracking-uri", "optuna-storage", "data-dir", "address", "time-budget")
@options("storage", "json")
def resume(sweep: str, storage: Path, as_json: bool, **settings: Any) -> None:
    """Go on with SWEEP, a folder or a name under --storage: ended trials stay, running ones go on."""
    from snnsweep.sweep.resume import ResumedSweep
    from snnsweep.terminal_progress import ProgressView

    with ProgressView() as view:
        resumed = ResumedSweep(folder_of(sweep, storage), **settings, listener=view).run()
    _ended(resumed, as_json)


def _ended(sweep: "Sweep", as_json: bool) -> None:
    """The front, and what has to be known of how the sweep ended."""
    from snnsweep import terminal

    report = written(sweep.folder)
    if as_json:
        ended = {"untold": sweep.untold, "resume": sweep.resume_command if sweep.unended else None}
        ended["report"] = str(report) if report else None
        terminal.print_json(front_of(sweep.folder) | ended)
    else:
        show_front(sweep.folder, as_json)
        terminal.out.print(f"folder  {sweep.folder}\nMLflow  snnsweep ui {sweep.folder}", soft_wrap=True)
        show_report(report)
    if sweep.untold:
        behind = f"MLflow lacks the last {sweep.untold} entries; when it answers again: snnsweep sync {sweep.folder}"
        terminal.err.print(behind, style="yellow", soft_wrap=True)
    if sweep.unended:
        terminal.err.print(f"{sweep.status}; go on with: {sweep.resume_command}", style="yellow", soft_wrap=True)
    if sweep.interrupted:
        sys.exit(INTERRUPTED)
    if (sweep.results()["status"] == "failed").any():
        terminal.err.print("some trials failed: see results.parquet for causes, errors/ for tracebacks", style="red")
        sys.exit(FAILED_TRIALS)


@click.command(cls=Command)
@SWEEP
@options("tracking-uri", "storage", "json")
def sync(sweep: str, storage: Path, tracking_uri: str | None, as_json: bool) -> None:
    """Bring MLflow up to date with SWEEP, after its server was down."""
    from snnsweep import terminal
    from snnsweep.sweep.sync import bring_up_to_date

    folder = folder_of(sweep, storage)
    count = bring_up_to_date(folder, tracking_uri)
    if as_json:
        terminal.print_json({"folder": str(folder), "delivered": count})
    else:
        click.echo(f"{count} entries delivered" if count else "MLflow has everything")
