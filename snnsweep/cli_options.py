"""What the commands of the command line share: the options, which mean the same everywhere, and how errors end."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from snnsweep.errors import SnnSweepError, nearest

FAILED_TRIALS, INTERRUPTED = 3, 130


class Command(click.Command):
    """Tells of every option whose value cannot be read, where click tells of the first."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        mistakes = []
        for param in self.get_params(ctx):
            try:
                if not param.is_eager:
                    param.handle_parse_result(ctx, given, [])
            except click.BadParameter as error:
                mistakes.append(error.format_message())
        ctx.params.clear()
        if len(mistakes) > 1 and not ctx.resilient_parsing and "--help" not in args:
            raise click.UsageError("\n".join(mistakes), ctx)
        return super().parse_args(ctx, args)


class Commands(click.Group):
    """Names the nearest command, and ends on our own errors with their text and exit code."""

    command_class = Command

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


def options(*names: str) -> Callable[[Any], Any]:
    """The options of that name, which mean the same in every command."""

    def add(command: Any) -> Any:
        for name in reversed(names):
            command = OPTIONS[name](command)
        return command

    return add


class Share(click.ParamType):
    """A number, or `auto`."""

    name = "number or auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        try:
            return value if value == "auto" else float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)


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
        "--sampler",
        default="tpe",
        show_default=True,
        help="Who chooses the variants: tpe, nsga2, nsga3, gp, random or grid.",
    ),
    "tracking-uri": click.option("--tracking-uri", help="An MLflow server; by default a sqlite file in --storage."),
    "data-dir": click.option(
        "--data-dir", type=FOLDER, help="Where the data sets are; by default $SNNSWEEP_DATA, else ./data."
    ),
    "address": click.option("--address", help="A running Ray cluster (auto, host:port); by default this machine."),
    "checkpoints": click.option(
        "--checkpoints", metavar="URI", help="Where checkpoints go if not to --storage: s3://..., gs://..."
    ),
    "optuna-storage": click.option(
        "--optuna-storage", metavar="URL", help="A database for Optuna's study; by default a file of the sweep's."
    ),
    "warm-start": click.option(
        "--warm-start", type=FOLDER, metavar="SWEEP", help="The sampler learns from the trials of that sweep's folder."
    ),
    "cpus-per-trial": click.option("--cpus-per-trial", type=click.IntRange(1), default=1, show_default=True),
    "gpus-per-trial": click.option(
        "--gpus-per-trial",
        type=Share(),
        help="A fraction too, or auto: by the memory that a trial needs; by default 1 where the cluster has GPUs.",
    ),
    "max-concurrent": click.option(
        "--max-concurrent", type=click.IntRange(1), help="Side by side; by default what fits."
    ),
    "time-budget": click.option("--time-budget", type=float, help="Seconds after which no trial goes on."),
    "smoke": click.option("--smoke", is_flag=True, help="Tiny trials, to see that it runs; the figures mean nothing."),
    "set": click.option("--set", "given", multiple=True, metavar="KEY=VALUE", help="A config key; may be repeated."),
    "json": click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout."),
}


def show_front(folder: Path, as_json: bool) -> None:
    """The front and the mixes of a sweep, on stdout."""
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


def folder_of(sweep: str, storage: Path) -> Path:
    """The sweep's folder: a path, or a name under the storage."""
    path = Path(sweep)
    return (path if path.is_dir() else storage / sweep).resolve()
