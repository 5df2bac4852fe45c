"""The command line. Thin: what is heavy is imported by the command that needs it.

Exit codes: 0 done, 1 it broke, 2 the user's input is wrong, 3 done but some trials failed, 130 interrupted.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from snnsweep import __version__, cli_complete
from snnsweep.cli_about import completion, doctor, list_parts, ui
from snnsweep.cli_cluster import submit_like
from snnsweep.cli_options import FAILED_TRIALS, INTERRUPTED, SPACE, SWEEP, Commands, folder_of, options, show_front
from snnsweep.cli_report import report, show_report, written
from snnsweep.cli_run import resume, run, sync
from snnsweep.errors import UserError


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Train and attack variants of spiking neural networks, and map the front of what they can do."""


for command in (run, submit_like(run), resume, sync, report, list_parts, ui, doctor, completion):
    main.add_command(command)


@main.command()
@SPACE
@options("set", "seed", "data-dir", "smoke", "json")
def trial(space: str, given: tuple[str, ...], seed: int, data_dir: Path | None, smoke: bool, as_json: bool) -> None:
    """Train, attack and measure one variant of SPACE here, without Ray; what is not --set is drawn by --seed."""
    from snnsweep import evaluate, terminal
    from snnsweep.results import words
    from snnsweep.sweep.space import Space

    read = Space.read(space)
    config = read.draw(seed, _pairs(given), smoke)
    if not as_json:
        flat = config.to_flat()
        terminal.err.print("  ".join(f"{key}={words.value(key, value)}" for key, value in flat.items()))
    result = evaluate(config, data_dir, on_epoch=None if as_json else terminal.epoch_line)
    if as_json:
        terminal.print_json(result.row("trial"))
    else:
        terminal.out.print(terminal.result_table(result))
        terminal.out.print(f"{result.status} {result.cause}".strip())
        terminal.out.print(terminal.bullet_list(result.warnings))
    sys.exit(FAILED_TRIALS if result.status == "failed" else 0)


@main.command()
@SPACE
@options("trials", "seed", "data-dir", "smoke", "json")
def check(space: str, trials: int, seed: int, data_dir: Path | None, smoke: bool, as_json: bool) -> None:
    """Sample SPACE, build some variants and say what a sweep would cost; nothing is trained."""
    from snnsweep import terminal
    from snnsweep.sweep.estimate import check_space
    from snnsweep.terminal_cost import show_cost

    say = partial(terminal.err.print, style="dim")
    report = check_space(space, trials, seed, data_dir, smoke, say)
    if as_json:
        terminal.print_json(report)
    else:
        show_cost(report)


@main.command()
@SWEEP
@options("storage", "json")
def front(sweep: str, storage: Path, as_json: bool) -> None:
    """Show the front of SWEEP, a folder or a name under --storage."""
    show_front(folder_of(sweep, storage), as_json)


@main.command()
@SWEEP
@click.argument("standard")
@click.argument("robust")
@click.option("--weight", type=float, default=0.5, show_default=True, help="The robust trial's share, from 0 to 1.")
@options("storage", "data-dir", "json")
def mix(
    sweep: str, standard: str, robust: str, weight: float, storage: Path, data_dir: Path | None, as_json: bool
) -> None:
    """Mix the answers of two finished trials of SWEEP, attack the mix, and show it beside the front."""
    from snnsweep import terminal
    from snnsweep.sweep.trials import mix as mixed

    folder = folder_of(sweep, storage)
    row = mixed(folder, standard, robust, weight, data_dir)
    page = written(folder)
    if as_json:
        terminal.print_json(row | {"report": str(page) if page else None})
    else:
        show_front(folder, as_json)
        show_report(page)


@main.command()
@SWEEP
@click.option("--top", default="front", show_default=True, help="front, or how many: the best in the first objective.")
@click.option("--seeds", type=int, default=3, show_default=True, help="Fresh ones a member; 0: the stored models.")
@click.option("--suite", default="strong", show_default=True, shell_complete=cli_complete.suite, help="The attacks.")
@click.option("--samples", type=int, help="Attacked test images; by default the suite's number.")
@click.option("--gpus-per-trial", type=float, help="A fraction too; by default 1 where the cluster has GPUs.")
@options("storage", "data-dir", "address", "cpus-per-trial", "max-concurrent", "json")
def confirm(sweep: str, storage: Path, as_json: bool, **settings: Any) -> None:
    """Train the front of SWEEP again with fresh seeds and attack it on the untouched test split."""
    from snnsweep import terminal
    from snnsweep.sweep.confirm import Confirmation
    from snnsweep.terminal_confirm import show_confirmation
    from snnsweep.terminal_progress import ProgressView

    folder = folder_of(sweep, storage)
    with ProgressView() as view:
        confirmed = Confirmation(folder, **settings, listener=view).run()
    report, page = confirmed.report(), written(folder)
    if as_json:
        terminal.print_json(report | {"report": str(page) if page else None})
    else:
        show_confirmation(report)
        show_report(page)
    if confirmed.interrupted:
        terminal.err.print("interrupted; the same command goes on with what is left", style="yellow")
        sys.exit(INTERRUPTED)
    if confirmed.failed():
        terminal.err.print(f"some pairs failed: see {confirmed.folder}", style="red", soft_wrap=True)
        sys.exit(FAILED_TRIALS)


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    wrong = [text for text in given if "=" not in text]
    if wrong:
        raise UserError(f"--set {', '.join(wrong)}: write KEY=VALUE, e.g. --set neuron.v_threshold=0.8")
    return dict(text.split("=", 1) for text in given)


if __name__ == "__main__":
    main()
