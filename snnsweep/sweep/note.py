"""What the sweep's run in MLflow says of itself, in Markdown."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_FIGURES = """\
**What the figures are.** Every trial was judged on the validation split, a tenth of the training images, by the suite \
in its parameter `attack.suite` (here {suites}), and with one seed: the front is optimistic until `snnsweep confirm` \
has judged it on the test split. An accuracy has its number of images and its 95 % interval beside it (`.../n`, \
`.../low`, `.../high`). The tag `audit` says whether the attacks failed because the gradient is bad: \
`pass: no sign found`, `suspect` or `fail`; no sign is no proof. Here, `best/...`, `front_size` and `hypervolume` are \
over the trials that ended so far. `system/...` is the whole machine that drives the sweep; of a trial, its process."""


def note(facts: Mapping[str, Any], folder: Path, suites: Iterable[str]) -> str:
    """The question, what the figures are, and the commands that repeat, extend and judge the sweep.

    Args:
        facts: of `sweep.json`; addresses in it are redacted.
        folder: the sweep's.
        suites: of variants that were sampled before the sweep began.
    """
    smoke = ["**Smoke run: the figures mean nothing.**"] if facts["smoke"] else []
    figures = _FIGURES.format(suites=", ".join(f"`{name}`" for name in sorted(set(suites))))
    parts = [facts["question"], *smoke, figures, _objectives(facts), _commands(facts, folder), _source(facts)]
    return "\n\n".join(parts)


def _objectives(facts: Mapping[str, Any]) -> str:
    better = {"maximize": "higher", "minimize": "lower"}
    lines = [f"| `{name}` | {better[way]} |" for name, way in facts["objectives"].items()]
    return "\n".join(["| objective | better |", "|---|---|", *lines])


def _commands(facts: Mapping[str, Any], folder: Path) -> str:
    place = shlex.quote(str(folder))
    commands = {
        "how it was begun": shlex.join(facts["command"]),
        "go on, or with more --trials": f"snnsweep resume {place}",
        "the front, here": f"snnsweep front {place}",
        "a report to hand on": f"snnsweep report {place}",
        "the front on the test split": f"snnsweep confirm {place}",
    }
    text = "\n".join(f"# {what}\n{command}" for what, command in commands.items())
    return f"```bash\n{text}\n```"


def _source(facts: Mapping[str, Any]) -> str:
    commit = f", commit `{facts['git_commit']}`" if facts["git_commit"] else ""
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("snnsweep", "torch", "python"))
    return f"Space `{facts['space']['source']}`, SHA-256 `{facts['space']['sha256'][:16]}`{commit}; {versions}."
