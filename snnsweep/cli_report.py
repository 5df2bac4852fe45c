"""The command that writes a sweep's report, and what `run` and `resume` say of it."""

import json
from pathlib import Path

import click

from snnsweep.cli_options import Command, folder_of, options
from snnsweep.errors import UserError


@click.command(cls=Command)
@click.argument("sweeps", nargs=-1, required=True, metavar="SWEEP...")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "png", "pdf", "svg"]),
    default="html",
    show_default=True,
    help="A page, or its pictures as files for papers.",
)
@click.option("--compare", "comparing", is_flag=True, help="Set two sweeps side by side: --compare A B.")
@options("storage", "json")
def report(sweeps: tuple[str, ...], kind: str, comparing: bool, storage: Path, as_json: bool) -> None:
    """Write the report of SWEEP, a folder or a name under --storage: one HTML page that needs no network."""
    _fits(sweeps, kind, comparing)
    folders = [folder_of(sweep, storage) for sweep in sweeps]
    if kind != "html":
        _pictures(folders[0], kind, as_json)
        return
    if comparing:
        from snnsweep.report import compare

        path = compare.write(*folders)
    else:
        from snnsweep.report import page

        path = page.write(folders[0])
    size = path.stat().st_size
    click.echo(json.dumps({"path": str(path), "bytes": size}) if as_json else str(path))


def _fits(sweeps: tuple[str, ...], kind: str, comparing: bool) -> None:
    """Raises:
    UserError: all that does not go together.
    """
    wrong = []
    wanted = 2 if comparing else 1
    if len(sweeps) != wanted:
        given = f"given {len(sweeps)}: {', '.join(sweeps)}"
        wrong.append(
            f"--compare takes two sweeps; {given}" if comparing else f"one sweep, or two with --compare; {given}"
        )
    if comparing and kind != "html":
        wrong.append(f"--compare writes a page; leave --format {kind} out, or ask for the pictures of each sweep")
    if wrong:
        raise UserError("\n".join(wrong))


def _pictures(folder: Path, kind: str, as_json: bool) -> None:
    """Writes and names the files; what a page would warn of, which no picture says, goes to stderr."""
    from snnsweep import terminal
    from snnsweep.report import data, paper, words

    swept = data.read(folder)
    paths = paper.write(swept, kind)
    for warning in words.banners(swept):
        terminal.err.print(warning, style="yellow", soft_wrap=True)
    if as_json:
        click.echo(json.dumps({"files": [{"path": str(path), "bytes": path.stat().st_size} for path in paths]}))
    else:
        click.echo("\n".join(map(str, paths)) or "no picture: no trial has ended")


def show_report(path: Path | None) -> None:
    """Where it is, if it was written."""
    from snnsweep import terminal

    if path:
        terminal.out.print(f"report  {path}", soft_wrap=True)


def written(folder: Path) -> Path | None:
    """The report of a sweep of which something has just ended; None, with a warning, where it cannot be written."""
    from snnsweep import terminal
    from snnsweep.report import page

    try:
        return page.write(folder)
    except Exception as error:  # noqa: BLE001  the sweep is done, whatever its report meets
        said = f"no report was written ({type(error).__name__}: {error}); try: snnsweep report {folder}"
        terminal.err.print(said, style="yellow", soft_wrap=True)
        return None
