"""The commands that tell of what is there: parts, the machine, a sweep's page in MLflow, the shell's completion."""

import os
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from snnsweep import cli_complete, spaces
from snnsweep.cli_options import SWEEP, Command, folder_of, options
from snnsweep.errors import UserError, nearest


@click.command("list", cls=Command)
@click.argument("kind", required=False, shell_complete=cli_complete.kind)
@options("json")
def list_parts(kind: str | None, as_json: bool) -> None:
    """List what a config key can name, the keys, and the spaces: all kinds, or one KIND, each with what it is."""
    if kind and kind not in cli_complete.KINDS:
        raise UserError(f"unknown kind {kind!r}; {nearest(kind, cli_complete.KINDS)}")
    from snnsweep import terminal
    from snnsweep.config import about_keys
    from snnsweep.registry import KINDS

    shown = {name: known for name, known in KINDS.items() if kind in (None, name)}
    parts = {name: {part: known.about(part) for part in known.names()} for name, known in shown.items()}
    if kind in (None, "keys"):
        parts["keys"] = about_keys()
    if kind in (None, "spaces"):
        parts["spaces"] = {name: spaces.about(name) for name in spaces.names()}
    if as_json:
        terminal.print_json(parts)
    else:
        terminal.out.print(terminal.parts_table(parts))
        if "spaces" in parts:
            terminal.out.print(f"the spaces lie in {spaces.folder()}", soft_wrap=True)


@click.command(cls=Command)
@SWEEP
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@options("storage", "json")
def ui(sweep: str, port: int, storage: Path, as_json: bool) -> None:
    """Open the MLflow UI of SWEEP on this machine (127.0.0.1)."""
    from snnsweep import terminal
    from snnsweep.results.store import load_sweep
    from snnsweep.tracking.address import artifacts_of, page, server_command

    facts = load_sweep(folder_of(sweep, storage))
    uri = facts["tracking_uri"]
    artifacts = artifacts_of(uri)
    if artifacts is None:
        if as_json:
            terminal.print_json({"url": uri, "served": False})
        else:
            click.echo(f"this sweep is on {uri}, which this command cannot serve; open it there")
        return
    command, url = server_command(uri, artifacts, port), page(port, facts["mlflow_experiment_id"])
    if as_json:
        terminal.print_json({"url": url, "served": True})
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the server's own words are no JSON
    else:
        click.echo(f"{url}\nCtrl-C ends it")
    os.execve(command[0], command, os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})  # 7 idle processes


@click.command(cls=Command)
@options("storage", "data-dir", "json")
def doctor(storage: Path, data_dir: Path | None, as_json: bool) -> None:
    """Say what is installed, what does not fit together, and the command that mends it."""
    from dataclasses import asdict

    from snnsweep import terminal
    from snnsweep.doctor import examine

    findings = list(examine(storage, data_dir or Path(os.environ.get("SNNSWEEP_DATA") or "data")))
    if as_json:
        terminal.print_json([asdict(finding) for finding in findings])
    else:
        terminal.out.print(terminal.findings_table(findings))
    sys.exit(1 if any(finding.mend for finding in findings) else 0)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete commands, spaces, sweeps, config keys and names.

    \b
    bash: snnsweep completion bash > ~/.local/share/bash-completion/completions/snnsweep
    zsh:  snnsweep completion zsh > a folder of your $fpath/_snnsweep
    fish: snnsweep completion fish > ~/.config/fish/completions/snnsweep.fish
    """
    root, made = click.get_current_context().find_root().command, get_completion_class(shell)
    assert made
    click.echo(made(root, {}, "snnsweep", "_SNNSWEEP_COMPLETE").source())
