"""Space files: Python that asks one question.

A space file has a docstring with the question, `space(trial)`, which calls Optuna's own `trial.suggest_*` with
config keys as names and may return a dict of fixed values, and optionally `FIXED` (the same dict, for spaces that
return nothing), `OBJECTIVES` (metric names, or a dict of names with "maximize" or "minimize") and `RUNGS` (a dict, see
`rungs.Rungs`: trials that fall behind are stopped).
"""

import hashlib
import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import optuna

from snnsweep import spaces
from snnsweep.config import Flat, TrialConfig
from snnsweep.errors import ConfigError, SpaceError, UnknownName, UserError, nearest
from snnsweep.result import DEFAULT_OBJECTIVES, Direction, direction
from snnsweep.sweep.rungs import Rungs

PROBES = 16
_LOGGER = logging.getLogger("snnsweep.space")  # what the command line shows before it runs somebody's code
MODULE = "snnsweep_space_"  # begins the name of an executed space
SMOKE: Flat = {"data.subset": 32, "train.epochs": 1, "attack.samples": 16, "model.width": 0.125}


def text_of(row: Mapping[Any, Any], facts: Mapping[str, Any]) -> str:
    """The hash of the text that a trial of a sweep ran with.

    Args:
        row: of `results.parquet`; one of an older version has none, and the sweep had but one text then.
        facts: of `sweep.json`.
    """
    named = row.get("space_sha256")
    return named if isinstance(named, str) else str(facts["space"]["sha256"])


def space_then(facts: Mapping[str, Any], sha256: str) -> "Space":
    """A sweep's space with the text of that hash: the one it has now, or one that a resume with another replaced.

    Raises:
        SpaceError: `sweep.json` has no such text.
    """
    replaced = [start["space_before"] for start in facts.get("resumed", ()) if "space_before" in start]
    for kept in (facts["space"], *replaced):
        if kept["sha256"] == sha256:
            return Space(kept["source"], kept["text"])
    raise SpaceError(f"{facts['space']['source']}: sweep.json has no text of it with the hash {sha256}; restore it")


@dataclass(frozen=True)
class Space:
    """A space by its text, so that it travels to other processes and machines; it is executed when first used.

    `Space("mine", text)` is a space without a file, named "mine": of a notebook, or of a program that writes it.

    Attributes:
        source: the path as the user gave it, for messages; its stem is the space's name.
        text: Python, as in a space file.

    Example:
        >>> space = Space("thresholds", "def space(trial):\\n    trial.suggest_float('neuron.v_threshold', 0.5, 2.0)")
        >>> space.name, list(space.objectives)
        ('thresholds', ['clean_accuracy', 'robust_accuracy', 'gradient_sparsity'])
    """

    source: str
    text: str

    @classmethod
    def read(cls, path: Path | str) -> "Space":
        """The space of a file, or one that comes with snnsweep by its name.

        Raises:
            SpaceError: there is no such file or name, or it is no path that was given.
        """
        if not isinstance(path, Path | str):
            raise SpaceError(
                f"a space is a file or its text, for it travels to other processes and machines; given {path!r}; write "
                'the file (in a notebook: begin a cell with %%writefile space.py) and give "space.py", or give '
                'Space("space", text)'
            )
        file = spaces.find(path)
        try:
            return cls(str(file), file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            hint = nearest(Path(path).stem, spaces.names())
            raise SpaceError(
                f"{path}: {reason}; give the path of a space file, or a name from `snnsweep list spaces`: {hint}"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return Space, (self.source, self.text)  # what was executed stays behind

    @property
    def name(self) -> str:
        return Path(self.source).stem

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def module(self) -> ModuleType:
        """The executed file. Its `register` calls take effect here.

        Raises:
            SpaceError: it raises, or has no `space`.
        """
        module = ModuleType(MODULE + re.sub(r"\W", "_", self.name))
        module.__file__ = self.source
        sys.modules[module.__name__] = module  # dataclasses look their module up there
        _LOGGER.info("runs the code of %s, sha256 %s%s", Path(self.source).resolve(), self.sha256, self._kept())
        self._guard(lambda: exec(compile(self.text, self.source, "exec"), module.__dict__))
        if not callable(getattr(module, "space", None)):
            raise SpaceError(
                f"{self.source}: has no function `space(trial)`; define one that calls trial.suggest_* and returns "
                "the fixed values"
            )
        return module

    def _kept(self) -> str:
        """Words of warning where the text is not the file's."""
        try:
            same = Path(self.source).read_text() == self.text
        except (OSError, UnicodeDecodeError):
            same = False
        return "" if same else " (the text that its sweep has kept: the file is another one by now, or gone)"

    def load(self) -> None:
        """Executes the file, for the parts that it registers."""
        self.module  # noqa: B018

    @property
    def question(self) -> str:
        return (self.module.__doc__ or "").strip().partition("\n")[0]

    @cached_property
    def objectives(self) -> dict[str, Direction]:
        """Metric names with their directions, in the space's order.

        Raises:
            SpaceError: a name that no trial reports, or a wrong direction.
        """
        given = getattr(self.module, "OBJECTIVES", DEFAULT_OBJECTIVES)
        if not isinstance(given, tuple | list | Mapping) or not given or not all(isinstance(n, str) for n in given):
            raise SpaceError(f'{self.source}: OBJECTIVES is {given!r}; write a tuple such as ("robust_accuracy",)')
        found: dict[str, Direction] = {}
        for name in given:
            try:
                found[name] = given[name] if isinstance(given, Mapping) else direction(name)
                direction(name)
            except UnknownName as error:
                raise SpaceError(f"{self.source}: OBJECTIVES: {error}") from None
            if found[name] not in get_args(Direction):
                raise SpaceError(f"{self.source}: OBJECTIVES[{name!r}] is {found[name]!r}; allowed: maximize, minimize")
        return found

    @cached_property
    def rungs(self) -> Rungs | None:
        """Where trials are compared on their way; None where the space says nothing of it.

        Raises:
            SpaceError: `RUNGS` cannot be used, or the objectives.
        """
        given = getattr(self.module, "RUNGS", None)
        return None if given is None else self._guard(lambda: Rungs.of(given, self.objectives))

    def sample(self, trial: optuna.trial.BaseTrial, defaults: Flat, overrides: Flat) -> TrialConfig:
        """One variant: `defaults`, under FIXED, under what the space returns and suggests, under `overrides`.

        Raises:
            SpaceError: the space raises, or returns what is not a dict.
            ConfigError: what it gives is no valid configuration.
        """
        try:
            return self._config(trial, defaults, overrides)
        except SpaceError:
            raise
        except UserError as error:
            raise SpaceError(f"{self.source}: {error}") from None

    def _config(self, trial: optuna.trial.BaseTrial, defaults: Flat, overrides: Flat) -> TrialConfig:
        """As `sample`, whose every mistake is told apart."""
        returned = self._guard(lambda: self.module.space(trial))
        fixed = getattr(self.module, "FIXED", {})
        for what, value in (("space(trial) returned", returned), ("FIXED is", fixed)):
            if not isinstance(value, Mapping | None):
                raise SpaceError(f"{self.source}: {what} {value!r}; it has to be a dict of config keys")
        both = set(returned or {}) & set(trial.params)
        if twice := sorted(key for key in both if returned[key] != trial.params[key]):
            raise SpaceError(f"{self.source}: both suggested and returned as fixed: {', '.join(twice)}; drop one")
        return TrialConfig.from_flat({**defaults, **fixed, **(returned or {}), **trial.params, **overrides})

    def probe(self, seed: int, defaults: Flat, overrides: Flat, count: int = PROBES) -> list[TrialConfig]:
        """Random variants, to find the space's mistakes before anything is written.

        Raises:
            SpaceError: every different mistake met.
        """
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        configs, mistakes = [], []
        problems: dict[str, str] = {}  # each once, with one of the values that were drawn
        for _ in range(count):
            try:
                configs.append(self._config(study.ask(), defaults, overrides))
            except ConfigError as error:
                problems |= {problem.partition("; given")[0]: problem for problem in error.problems}
            except UserError as error:
                mistakes.append(str(error) if isinstance(error, SpaceError) else f"{self.source}: {error}")
        if problems:
            mistakes.append(f"{self.source}: {ConfigError(problems.values())}")
        if mistakes:
            raise SpaceError("\n".join(dict.fromkeys(mistakes)))
        return configs

    def draw(self, seed: int, given: Mapping[str, Any], smoke: bool) -> TrialConfig:
        """One random variant with some keys given; a given key that is searched steers the space's own branches.

        Raises:
            SpaceError: see `sample`.
            ConfigError: mistakes in `given`.
        """
        self.load()
        chosen = TrialConfig.typed(given)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        study.enqueue_trial(chosen)
        return self.sample(study.ask(), {"seed": seed}, {**(SMOKE if smoke else {}), **chosen})

    def _guard(self, run: Callable[[], Any]) -> Any:
        """Runs the user's code; whatever it raises is the user's to mend."""
        try:
            return run()
        except SpaceError:
            raise
        except UserError as error:
            raise SpaceError(f"{self.source}: {error}") from None
        except SyntaxError as error:
            raise SpaceError(f"{self.source}, line {error.lineno}: {error.msg}") from None
        except (Exception, SystemExit) as error:  # noqa: BLE001  user code can raise anything
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == self.source]
            where = f"{self.source}, line {lines[-1]}" if lines else self.source
            raise SpaceError(f"{where}: {type(error).__name__}: {error}") from None
