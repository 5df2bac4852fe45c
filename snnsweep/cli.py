"""The command line. Thin: what is heavy is imported by the command that needs it.

Exit codes: 0 done, 1 it broke, 2 the user's input is wrong, 3 done but some trials failed, 130 interrupted.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from snnsweep import __version__
from snnsweep.cli_cluster import submit_like
from snnsweep.errors import SnnSweepError, UserError, nearest

FAILED_TRIALS, INTERRUPTED = 3, 130


class Commands(click.Group):
    """Names the nearest command, and ends on our own errors with their text and exit code."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command {args[0]!r}; {nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SnnSweepError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Train and attack variants of spiking neural networks, and map the front of what they can do."""


def _options(*names: str) -> Callable[[Any], Any]:
    """The options of that name, which mean the same in every command."""

    def add(command: Any) -> Any:
        for name in reversed(names):
            command = OPTIONS[name](command)
        return command

    return add


FOLDER = click.Path(file_okay=False, path_type=Path)
OPTIONS = {
    "trials": click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="How many trials."),
    "seed": click.option(
        "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of sampler and trials."
    ),
    "storage": click.option(
        "--storage", type=FOLDER, default=Path("sweeps"), show_default=True, help="The folder that holds sweeps."
    ),
    "name": click.option("--name", help="The sweep's name; by default the space's and the time."),
    "sampler": click.option(
        "--sampler", default="tpe", show_default=True, help="Who chooses the variants: tpe, nsga2, random or grid."
    ),
    "tracking-uri": click.option("--tracking-uri", help="An MLflow server; by default a sqlite file in --storage."),
    "data-dir": click.option(
        "--data-dir", type=FOLDER, help="Where the data sets are; by default $SNNSWEEP_DATA, else ./data."
    ),
    "address": click.option("--address", help="A running Ray cluster (auto, host:port); by default this machine."),
    "cpus-per-trial": click.option("--cpus-per-trial", type=click.IntRange(1), default=1, show_default=True),
    "gpus-per-trial": click.option(
        "--gpus-per-trial", type=float, help="May be a fraction; by default 1 where the cluster has GPUs."
    ),
    "max-concurrent": click.option(
        "--max-concurrent", type=click.IntRange(1), help="Side by side; by default what fits."
    ),
    "time-budget": click.option("--time-budget", type=float, help="Seconds after which no trial goes on."),
    "smoke": click.option("--smoke", is_flag=True, help="Tiny trials, to see that it runs; the figures mean nothing."),
    "set": click.option("--set", "given", multiple=True, metavar="KEY=VALUE", help="A config key; may be repeated."),
    "json": click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout."),
}


@main.command()
@click.argument("space")
@_options("trials", "seed", "sampler", "name", "storage", "tracking-uri", "data-dir", "address", "cpus-per-trial")
@_options("gpus-per-trial", "max-concurrent", "time-budget", "smoke", "json")
def run(as_json: bool, **settings: Any) -> None:
    """Run the trials of the space file SPACE."""
    from snnsweep import terminal
    from snnsweep.sweep.launch import Sweep

    with terminal.ProgressView() as view:
        sweep = Sweep(**settings, listener=view).run()
    _show_front(sweep.folder, as_json)
    if not as_json:
        terminal.out.print(f"folder  {sweep.folder}\nMLflow  snnsweep ui {sweep.folder}", soft_wrap=True)
    if sweep.tracker.broken:
        terminal.err.print(f"MLflow has only a part of this sweep: {sweep.tracker.broken}", style="yellow")
    if sweep.interrupted:
        terminal.err.print("interrupted; what had ended is kept", style="yellow")
        sys.exit(INTERRUPTED)
    if (sweep.results()["status"] == "failed").any():
        terminal.err.print("some trials failed: see results.parquet for causes, errors/ for tracebacks", style="red")
        sys.exit(FAILED_TRIALS)


main.add_command(submit_like(run))


@main.command()
@click.argument("space")
@_options("set", "seed", "data-dir", "smoke", "json")
def trial(space: str, given: tuple[str, ...], seed: int, data_dir: Path | None, smoke: bool, as_json: bool) -> None:
    """Train, attack and measure one variant of SPACE here, without Ray; what is not --set is drawn by --seed."""
    from snnsweep import evaluate, terminal
    from snnsweep.sweep.space import Space

    read = Space.read(space)
    config = read.draw(seed, _pairs(given), smoke)
    if not as_json:
        flat = config.to_flat()
        terminal.err.print("  ".join(f"{key}={terminal.value(key, value)}" for key, value in flat.items()))
    result = evaluate(config, data_dir, on_epoch=None if as_json else terminal.epoch_line)
    if as_json:
        click.echo(json.dumps(result.row("trial"), indent=1))
    else:
        terminal.out.print(terminal.result_table(result))
        terminal.out.print(f"{result.status} {result.cause}".strip())
        terminal.out.print(terminal.bullet_list(result.warnings))
    sys.exit(FAILED_TRIALS if result.status == "failed" else 0)


@main.command()
@click.argument("space")
@_options("trials", "seed", "data-dir", "smoke", "json")
def check(space: str, trials: int, seed: int, data_dir: Path | None, smoke: bool, as_json: bool) -> None:
    """Sample SPACE, build some variants and say what a sweep would cost; nothing is trained."""
    from snnsweep import terminal
    from snnsweep.sweep.estimate import check_space

    report = check_space(space, trials, seed, data_dir, smoke)
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        terminal.out.print(terminal.cost_table(report))


@main.command()
@click.argument("sweep")
@_options("storage", "json")
def front(sweep: str, storage: Path, as_json: bool) -> None:
    """Show the front of SWEEP, a folder or a name under --storage."""
    _show_front(_folder(sweep, storage), as_json)


@main.command()
@click.argument("sweep")
@click.argument("standard")
@click.argument("robust")
@click.option("--weight", type=float, default=0.5, show_default=True, help="The robust trial's share, from 0 to 1.")
@_options("storage", "data-dir", "json")
def mix(
    sweep: str, standard: str, robust: str, weight: float, storage: Path, data_dir: Path | None, as_json: bool
) -> None:
    """Mix the answers of two finished trials of SWEEP, attack the mix, and show it beside the front."""
    from snnsweep.sweep.trials import mix as mixed

    folder = _folder(sweep, storage)
    row = mixed(folder, standard, robust, weight, data_dir)
    if as_json:
        click.echo(json.dumps(row, indent=1))
    else:
        _show_front(folder, as_json)


@main.command()
@click.argument("sweep")
@click.option("--top", default="front", show_default=True, help="front, or how many: the best in the first objective.")
@click.option("--seeds", type=int, default=3, show_default=True, help="Fresh ones a member; 0: the stored models.")
@click.option("--suite", default="strong", show_default=True, help="The attacks.")
@click.option("--samples", type=int, help="Attacked test images; by default the suite's number.")
@_options("storage", "data-dir", "address", "cpus-per-trial", "gpus-per-trial", "max-concurrent", "json")
def confirm(sweep: str, storage: Path, as_json: bool, **settings: Any) -> None:
    """Train the front of SWEEP again with fresh seeds and attack it on the untouched test split."""
    from snnsweep import terminal
    from snnsweep.sweep.confirm import Confirmation
    from snnsweep.terminal_confirm import show_confirmation

    with terminal.ProgressView() as view:
        confirmed = Confirmation(_folder(sweep, storage), **settings, listener=view).run()
    report = confirmed.report()
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        show_confirmation(report)
    if confirmed.interrupted:
        terminal.err.print("interrupted; the same command goes on with what is left", style="yellow")
        sys.exit(INTERRUPTED)
    if confirmed.failed():
        terminal.err.print(f"some pairs failed: see {confirmed.folder}", style="red", soft_wrap=True)
        sys.exit(FAILED_TRIALS)


@main.command("list")
@click.argument("kind", required=False)
@_options("json")
def list_parts(kind: str | None, as_json: bool) -> None:
    """List what a config key can name, and the keys: all kinds, or one KIND, each part with what it is."""
    from snnsweep import terminal
    from snnsweep.config import about_keys
    from snnsweep.registry import KINDS

    if kind and kind not in (*KINDS, "keys"):
        raise UserError(f"unknown kind {kind!r}; {nearest(kind, (*KINDS, 'keys'))}")
    shown = {name: known for name, known in KINDS.items() if kind in (None, name)}
    parts = {name: {part: known.about(part) for part in known.names()} for name, known in shown.items()}
    if kind in (None, "keys"):
        parts["keys"] = about_keys()
    if as_json:
        click.echo(json.dumps(parts, indent=1))
    else:
        terminal.out.print(terminal.parts_table(parts))


@main.command()
@click.argument("sweep")
@click.option("--port", type=int, default=5000, show_default=True)
@_options("storage")
def ui(sweep: str, port: int, storage: Path) -> None:
    """Open the MLflow UI of SWEEP on this machine (127.0.0.1)."""
    from snnsweep.results.store import load_sweep
    from snnsweep.tracking.address import artifacts_of, page, server_command

    facts = load_sweep(_folder(sweep, storage))
    uri = facts["tracking_uri"]
    artifacts = artifacts_of(uri)
    if artifacts is None:
        click.echo(f"this sweep is on {uri}, which this command cannot serve; open it there")
        return
    command = server_command(uri, artifacts, port)
    click.echo(f"{page(port, facts['mlflow_experiment_id'])}\nCtrl-C ends it")
    os.execve(command[0], command, os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})  # 7 idle processes


@main.command()
@_options("storage", "data-dir", "json")
def doctor(storage: Path, data_dir: Path | None, as_json: bool) -> None:
    """Say what is installed, what does not fit together, and the command that mends it."""
    from dataclasses import asdict

    from snnsweep import terminal
    from snnsweep.doctor import examine

    folder = data_dir or Path(os.environ.get("SNNSWEEP_DATA") or "data")
    findings = list(examine(storage, folder))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        terminal.out.print(terminal.findings_table(findings))
    sys.exit(1 if any(finding.mend for finding in findings) else 0)


def _show_front(folder: Path, as_json: bool) -> None:
    from snnsweep import terminal
    from snnsweep.results import store

    facts, results, members = store.load_sweep(folder), store.load_results(folder), store.load_front(folder)
    mixes = store.load_mixes(folder)
    if as_json:
        rows = {
            name: json.loads(frame.to_json(orient="records")) for name, frame in (("front", members), ("mixes", mixes))
        }
        click.echo(json.dumps({"folder": str(folder), "objectives": facts["objectives"], **rows}, indent=1))
        return
    terminal.show_front(facts, results, members)
    terminal.show_mixes(mixes, members, facts["objectives"])


def _folder(sweep: str, storage: Path) -> Path:
    """The sweep's folder: a path, or a name under the storage."""
    path = Path(sweep)
    return (path if path.is_dir() else storage / sweep).resolve()


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    wrong = [text for text in given if "=" not in text]
    if wrong:
        raise UserError(f"--set {', '.join(wrong)}: write KEY=VALUE, e.g. --set neuron.v_threshold=0.8")
    return dict(text.split("=", 1) for text in given)


if __name__ == "__main__":
    main()
