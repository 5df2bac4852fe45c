"""What the shell completes: the names that there are, quickly, in a real bash."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class

from snnsweep import cli_complete, registry, spaces
from snnsweep.cli import main
from snnsweep.config import DEFAULTS
from snnsweep.sweep.samplers import SAMPLERS
from snnsweep.sweep.space import Space


def test_the_names_that_are_read_in_the_source_are_those_that_there_are():
    assert cli_complete.keys() == list(DEFAULTS)
    own = {"data.name": registry.datasets, "encoder.name": registry.encoders, "neuron.name": registry.neurons}
    own |= {"neuron.surrogate": registry.surrogates, "model.name": registry.models, "model.norm": registry.norms}
    own |= {"model.residual": registry.residuals, "train.loss": registry.losses, "train.objective": registry.trainers}
    own |= {"attack.suite": registry.suites}
    assert set(own) == set(cli_complete.PARTS)
    for key, known in own.items():
        built_in = [name for name in known.names() if known.get(name).__module__.startswith("snnsweep.")]
        assert cli_complete.names(key) == built_in, key
    assert sorted(cli_complete.KINDS) == sorted([*registry.KINDS, "keys", "spaces"])
    assert set(cli_complete.SAMPLERS) == set(SAMPLERS)


def completed(words: list[str], shell: str = "zsh") -> list[str]:
    made = get_completion_class(shell)
    assert made
    return [item.value for item in made(main, {}, "snnsweep", "X").get_completions(words[:-1], words[-1])]


def test_spaces_sweeps_keys_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.py").touch()
    for storage in ("sweeps", "others"):
        (tmp_path / storage / f"of_{storage}").mkdir(parents=True)
        (tmp_path / storage / f"of_{storage}" / "sweep.json").touch()
    assert completed(["run", "quick"]) == ["quickstart", "quick.py"]
    assert completed(["front", ""]) == ["of_sweeps"]
    assert completed(["resume", "--storage", "others", "of"]) == ["of_others"]
    assert completed(["trial", "x", "--set", "neuron.v"]) == ["neuron.v_threshold="]
    assert completed(["trial", "x", "--set", "neuron.name=p"]) == ["neuron.name=plif", "neuron.name=psn"]
    assert completed(["run", "x", "--sampler", "n"]) == ["nsga2", "nsga3"]
    assert completed(["confirm", "x", "--suite", "st"]) == ["standard", "strong"]
    assert completed(["list", "sp"]) == ["spaces"]


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_in_bash_a_value_after_the_sign_of_equality(tmp_path: Path):
    """bash gives `neuron.name=pl` as three words and replaces the last."""
    (tmp_path / "snnsweep").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{START}"\n')
    (tmp_path / "snnsweep").chmod(0o755)
    script = subprocess.run([sys.executable, "-c", START.replace("main(", "main(['completion', 'bash'], ")], **TEXT)
    line = (
        f'PATH="{tmp_path}:$PATH"; compopt() {{ echo nospace; }}; {script.stdout}\n'
        'show() { COMP_CWORD=$1; shift; COMP_WORDS=("$@"); COMPREPLY=(); _snnsweep_completion snnsweep; '
        'echo "${COMPREPLY[@]}"; }\n'
        "show 6 snnsweep trial x --set neuron.name = pl\n"
        "show 4 snnsweep trial x --set neuron.v_thr\n"
    )
    told = subprocess.run(["bash", "--norc", "-c", line], **TEXT)
    assert told.stdout.splitlines() == ["plif", "nospace", "neuron.v_threshold="], told


START = "from snnsweep.cli import main; main(prog_name='snnsweep')"
TEXT: dict = {"capture_output": True, "text": True, "check": True}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str):
    code = f"from snnsweep.cli import main; main(['completion', '{shell}'], prog_name='snnsweep')"
    assert "_SNNSWEEP_COMPLETE" in subprocess.run([sys.executable, "-c", code], **TEXT).stdout


def test_it_loads_nothing_heavy():
    code = (
        "import sys, os\nfrom snnsweep import cli_complete\nfrom snnsweep.cli import main\n"
        "os.environ.update(_SNNSWEEP_COMPLETE='zsh_complete', COMP_WORDS='snnsweep trial x --set neuron.name=',"
        " COMP_CWORD='4')\n"
        "try: main(prog_name='snnsweep')\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'ray', 'optuna', 'mlflow', 'pandas', 'pydantic') if name in sys.modules])"
    )
    lines = subprocess.run([sys.executable, "-c", code], **TEXT).stdout.splitlines()
    assert "neuron.name=plif" in lines
    assert lines[-1] == "[]"


def test_a_space_is_found_by_its_name_and_a_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "quickstart" in spaces.names()
    assert spaces.about("quickstart").startswith("On real digits")
    read = Space.read("quickstart")
    assert (read.name, Path(read.source).is_absolute()) == ("quickstart", True)
    (tmp_path / "quickstart").write_text("own")
    assert Space.read("quickstart").text == "own"
    with pytest.raises(Exception, match=r"`snnsweep list spaces`: did you mean quickstart\?"):
        Space.read("quickstrt")
