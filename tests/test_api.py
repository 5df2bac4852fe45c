"""The public names as a program and a notebook meet them: types, examples, what they show, what they refuse."""

import doctest
import subprocess
import sys
from inspect import getmodule
from pathlib import Path

import pytest

import snnsweep
from snnsweep import OBJECTIVES, Result, Space, Sweep, TrialConfig, registry
from snnsweep.errors import SpaceError, UserError

ROOT = Path(__file__).parents[1]
TEXT = '"""A question."""\n\ndef space(trial):\n    trial.suggest_float("neuron.v_threshold", 0.5, 1.0)\n'
SCRIPT = """
from pathlib import Path

from snnsweep import OBJECTIVES, ResumedSweep, Space, Sweep, TrialConfig, attacks, evaluate, evaluate_many, front
from snnsweep import load_results, models

config = TrialConfig()
reveal_type(TrialConfig.from_flat({"neuron.v_threshold": 0.8}).neuron.v_threshold)
reveal_type(evaluate(config))
reveal_type(evaluate(config, Path("data")).robust_accuracy)
reveal_type(evaluate_many([config]))
reveal_type(Sweep(Space("mine", "..."), trials=4).run())
reveal_type(Sweep("space.py").run().front())
reveal_type(ResumedSweep("sweeps/mine").run())
reveal_type(load_results("sweeps/mine"))
reveal_type(front(load_results(Path("sweeps/mine")), OBJECTIVES))
reveal_type(models.build(config))
reveal_type(attacks.Threat(eps=8 / 255))
Sweep("space.py", trails=4)
evaluate({"neuron.v_threshold": 0.8})
"""
REVEALED = [
    "float",
    "snnsweep.result.Result",
    "float",
    "list[snnsweep.result.Result]",
    "snnsweep.sweep.launch.Sweep",
    "pandas.core.frame.DataFrame",
    "snnsweep.sweep.resume.ResumedSweep",
    "pandas.core.frame.DataFrame",
    "pandas.core.frame.DataFrame",
    "snnsweep.models.base.SNN",
    "snnsweep.attacks.threat.Threat",
]
# What is large and whose types no public name shows is left out, for the time that it takes.
SETTINGS = """
[mypy]
strict = true
follow_imports = silent
[mypy-torch.*,torchvision.*,ray.*,mlflow.*,optuna.*,scipy.*,sklearn.*,pyarrow.*,matplotlib.*,rich.*,sqlalchemy.*]
follow_imports = skip
"""


def test_a_strict_type_checker_follows(tmp_path: Path) -> None:
    """Without a plugin, as its user's; two mistakes are found."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    call = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--no-error-summary", "script.py"]
    environment = {"MYPYPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    notes = [line.partition('Revealed type is "')[2].rstrip('"') for line in lines if "Revealed type" in line]
    assert [note.removeprefix("builtins.") for note in notes] == REVEALED, done.stdout + done.stderr
    errors = [line.partition("error: ")[2] for line in lines if ": error: " in line]
    assert len(errors) == 2, done.stdout
    assert 'Unexpected keyword argument "trails" for "Sweep"' in errors[0]
    assert 'Argument 1 to "evaluate" has incompatible type "dict[str, float]"' in errors[1]


@pytest.mark.parametrize("name", [name for name in snnsweep.__all__ if name != "OBJECTIVES"])
def test_it_is_documented(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every public method too; the examples in docstrings are run."""
    (tmp_path / "search_spaces").symlink_to(ROOT / "search_spaces")
    monkeypatch.chdir(tmp_path)
    public = getattr(snnsweep, name)
    assert public.__doc__
    module = getmodule(public)
    assert module is not None
    own = vars(public).items() if isinstance(public, type) else ()
    assert not [key for key, value in own if not key.startswith("_") and callable(value) and not value.__doc__]
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in finder.find(public, name, module=module, globs=vars(module) | {name: public}):
        assert runner.run(example).failed == 0


def test_what_a_result_shows() -> None:
    figures = {"clean_accuracy": 0.75, "clean_accuracy/n": 8, "clean_accuracy/low": 0.4, "clean_accuracy/high": 0.95}
    known = Result(status="finished", config=TrialConfig(), metrics=figures, verdict="suspect", warnings=("a", "b"))
    assert repr(known) == "Result(finished, clean_accuracy 0.750 [0.400, 0.950] of 8, audit: suspect, 2 warnings)"
    assert str(known) == repr(known)
    failed = Result(status="failed", config=TrialConfig(), cause="Diverged: loss is not finite in epoch 1")
    assert repr(failed) == "Result(failed, cause: Diverged: loss is not finite in epoch 1)"
    assert Result.model_validate_json(known.model_dump_json()) == known


def test_what_a_sweep_shows(tmp_path: Path) -> None:
    sweep = Sweep(Space("mine", TEXT), trials=3, storage=tmp_path, name="first")
    assert repr(sweep) == f"Sweep('mine', trials=3, folder={str(tmp_path / 'first')!r}, not run yet)"
    sweep.status = "finished"
    assert repr(sweep).endswith(", status='finished')")
    with pytest.raises(UserError, match="no sweep"):
        sweep.front()


def test_a_space_by_its_text() -> None:
    space = Space("mine", TEXT)
    assert (space.name, space.question) == ("mine", "A question.")
    assert list(space.objectives.items()) == [(name, OBJECTIVES[name]) for name in space.objectives]


@pytest.mark.parametrize("given", [lambda trial: {}, registry, 3, None])
def test_what_is_no_file_is_no_space(given: object) -> None:
    with pytest.raises(SpaceError, match="a space is a file or its text") as caught:
        Sweep(given)  # type: ignore[arg-type]
    assert "%%writefile" in str(caught.value)
    assert "Space(" in str(caught.value)
