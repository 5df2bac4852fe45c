"""What the commands of the command line share: the options, which mean the same everywhere, and how errors end."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from snnsweep import cli_complete
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
        if len(mistakes) > 1 and not ctx.resilient_parsing and not {"-h", "--help"} & set(args):
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
            with told_before_it_runs():
                return super().invoke(ctx)
        except SnnSweepError as error:
            from snnsweep.tracking.address import redacted  # a space's own error may name an address

            click.echo(f"error: {redacted(str(error))}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)


class _Once(logging.Handler):
    """One line on stderr for each message."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            click.echo(text, err=True)


@contextmanager
def told_before_it_runs() -> Iterator[None]:
    """Inside, the path and hash of a space are on stderr before its code runs."""
    logger, handler = logging.getLogger("snnsweep.space"), _Once()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


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


SPACE = click.argument("space", shell_complete=cli_complete.space)
SWEEP = click.argument("sweep", shell_complete=cli_complete.sweep)
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
        shell_complete=cli_complete.sampler,
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
    "set": click.option(
        "--set",
        "given",
        multiple=True,
        metavar="KEY=VALUE",
        shell_complete=cli_complete.setting,
        help="A config key; may be repeated.",
    ),
    "json": click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout."),
}


def front_of(folder: Path) -> dict[str, Any]:
    """The front and the mixes of a sweep, for `print_json`."""
    from snnsweep.results import store

    facts, results = store.load_sweep(folder), store.load_results(folder)
    frames = {"front": store.load_front(folder), "mixes": store.load_mixes(folder)}
    rows = {name: json.loads(frame.to_json(orient="records", double_precision=15)) for name, frame in frames.items()}
    counts = {str(status): int(count) for status, count in results["status"].value_counts().items()}
    head = {"folder": str(folder), "status": facts["status"], "smoke": facts["smoke"], "trials": counts}
    return head | {"objectives": facts["objectives"], **rows}


def show_front(folder: Path, as_json: bool) -> None:
    """The front and the mixes of a sweep, on stdout."""
    from snnsweep import terminal, terminal_front
    from snnsweep.results import store

    if as_json:
        terminal.print_json(front_of(folder))
        return
    facts, results, members = store.load_sweep(folder), store.load_results(folder), store.load_front(folder)
    terminal_front.show_front(facts, results, members)
    terminal_front.show_mixes(store.load_mixes(folder), members, facts["objectives"])


def folder_of(sweep: str, storage: Path) -> Path:
    """The sweep's folder: a path, or a name under the storage."""
    path = Path(sweep)
    return (path if path.is_dir() else storage / sweep).resolve()
