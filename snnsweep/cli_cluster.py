"""`snnsweep submit`: the options of `run`, and where the cluster is."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

OWN = (
    "storage",
    "data_dir",
    "warm_start",
    "name",
    "address",
)  # of `run`; here they mean something else


def submit_like(run: click.Command) -> click.Command:
    """The command that hands `run` with its options to a cluster."""
    own: list[click.Parameter] = [
        click.Option(["--name"], help="The sweep's and the job's name; by default the space's and the time."),
        click.Option(["--storage"], required=True, help="The folder that holds sweeps, as all of the cluster see it."),
        click.Option(["--data-dir"], help="Where the data sets are on the cluster's head."),
        click.Option(["--warm-start"], metavar="SWEEP", help="A sweep's folder on the cluster, to learn from."),
        click.Option(
            ["--working-dir"],
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="A folder around SPACE to send along; by default SPACE alone.",
        ),
        click.Option(
            ["--address"], default="http://127.0.0.1:8265", show_default=True, help="The cluster's Ray dashboard."
        ),
    ]
    passed = [param for param in run.params if param.name not in OWN]
    return click.Command("submit", params=[*passed, *own], callback=_submit, help=_submit.__doc__)


@click.pass_context
def _submit(ctx: click.Context, space: str, **settings: Any) -> None:
    """Run SPACE on a Ray cluster as a job, which does not need this machine any more."""
    from snnsweep import terminal
    from snnsweep.sweep.submit import submit

    names = ("name", "storage", "data_dir", "warm_start", "working_dir", "address")
    own = {name: settings[name] for name in names}
    job = submit(space, list(_given(ctx, set(own) | {"space", "as_json"})), **own)
    if settings["as_json"]:
        terminal.print_json(asdict(job) | {"ways_on": job.ways_on})
        return
    terminal.out.print(f"submitted {job.name} to {job.address}", soft_wrap=True, markup=False)
    for what, command in job.ways_on.items():
        terminal.out.print(f"{what:8}{command}", soft_wrap=True, markup=False)


def _given(ctx: click.Context, but: set[str]) -> Iterator[str]:
    """The options that stood on the command line, as `run` reads them; the rest is for its own defaults."""
    for param in ctx.command.params:
        if param.name in but or ctx.get_parameter_source(param.name or "") is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[param.name or ""]
        for one in value if param.multiple else [value]:
            yield from (
                [(param.opts if one else param.secondary_opts)[0]]
                if isinstance(one, bool)
                else [param.opts[0], str(one)]
            )
