"""What the shell completes. Nothing heavy is imported, and no space is executed: the names are read in the source."""

import ast
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

from snnsweep import spaces

SAMPLERS = ("tpe", "nsga2", "nsga3", "gp", "random", "grid")
PACKAGE = Path(__file__).parent
GROUPS = ("groups.py", "config.py")
# Where the parts that a key can name are registered, and by what.
PARTS = {
    "data.name": ("data", "register"),
    "encoder.name": ("encoders.py", "register"),
    "neuron.name": ("neurons/kinds.py", "register"),
    "neuron.surrogate": ("neurons/surrogates.py", "register_surrogate"),
    "model.name": ("models", "models.register"),
    "model.residual": ("models/residual.py", "residuals.register"),
    "model.norm": ("models/norm.py", "register"),
    "train.loss": ("training/losses.py", "register"),
    "train.objective": ("training/objectives.py", "register"),
    "attack.suite": ("attacks/suites.py", "register"),
}
KINDS = (
    *("datasets", "encoders", "neurons", "surrogates", "norms", "residuals", "models", "losses", "trainers"),
    *("attacks", "rules", "suites", "keys", "spaces"),
)


def keys() -> list[str]:
    """Every config key, from the fields of the groups."""
    classes = {
        node.name: node for name in GROUPS for node in _tree(PACKAGE / name).body if isinstance(node, ast.ClassDef)
    }
    found = []
    for name, kind in _fields(classes["TrialConfig"]):
        found += [f"{name}.{key}" for key, _ in _fields(classes[kind])] if kind in classes else [name]
    return found


def names(key: str) -> list[str]:
    """What comes with snnsweep and can be named by that key; nothing where it takes a number."""
    place, register = PARTS.get(key, ("", ""))
    files = [PACKAGE / place] if place.endswith(".py") else sorted((PACKAGE / place).rglob("*.py")) if place else []
    return sorted({name for file in files for name in _registered(file, register)})


def _registered(file: Path, register: str) -> Iterator[str]:
    for node in ast.walk(_tree(file)):
        for call in getattr(node, "decorator_list", ()):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(register):
                yield from (str(arg.value) for arg in call.args if isinstance(arg, ast.Constant))


def _fields(owner: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for node in owner.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, ast.unparse(node.annotation)


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _items(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def space(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of spaces, and Python files here."""
    files = sorted(str(path) for path in Path().glob("*.py")) if "/" not in incomplete else []
    return _items([*spaces.names(), *files], incomplete) or [CompletionItem(incomplete, type="file")]


def sweep(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of sweeps under --storage."""
    storage = Path(ctx.params.get("storage") or "sweeps")
    found = sorted(path.parent.name for path in storage.glob("*/sweep.json"))
    return _items(found, incomplete) or [CompletionItem(incomplete, type="dir")]


def setting(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`KEY=`, then `KEY=NAME` where the key takes a name."""
    key, given, _ = incomplete.partition("=")
    return _items([f"{key}={name}" for name in names(key)] if given else [f"{key}=" for key in keys()], incomplete)


def kind(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What `snnsweep list` lists."""
    return _items(KINDS, incomplete)


def sampler(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Who can choose the variants."""
    return _items(SAMPLERS, incomplete)


def suite(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The suites that come with snnsweep."""
    return _items(names("attack.suite"), incomplete)


class Bash(BashComplete):
    """bash takes `KEY=VALUE` for three words, and puts in only what follows the last `=`; after `KEY=` no space."""

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)", "COMPREPLY+=($value)\n            [[ $value == *= ]] && compopt -o nospace"
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        words = split_arg_string(os.environ["COMP_WORDS"])
        at = int(os.environ["COMP_CWORD"])
        incomplete = words[at] if at < len(words) else ""
        before = words[1:at]
        if incomplete == "=" and before:
            return before[:-1], f"{before[-1]}="
        if len(before) > 1 and before[-1] == "=":
            return before[:-2], f"{before[-2]}={incomplete}"
        return before, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{str(item.value).rpartition('=')[2] or item.value}"


add_completion_class(Bash)
