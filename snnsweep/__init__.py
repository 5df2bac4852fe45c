"""snnsweep: train and attack variants of spiking neural networks, and map the front of what they can do.

`TrialConfig` describes a variant, `evaluate` trains, attacks and measures it to a `Result`; `Sweep` does so for many of
a `Space` on a Ray cluster, and `ResumedSweep` goes on with one (`progress` is a listener that prints how far they are);
`load_results` reads what a sweep left, and `front` picks who is beaten by nobody. `attacks`, `data`, `encoders`,
`models`, `neurons` and `training` hold the parts. Heavy imports wait until a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snnsweep.config import TrialConfig
    from snnsweep.evaluation import evaluate
    from snnsweep.result import OBJECTIVES, Result
    from snnsweep.results.front import front
    from snnsweep.results.store import load_results
    from snnsweep.sweep.launch import Sweep
    from snnsweep.sweep.resume import ResumedSweep
    from snnsweep.sweep.space import Space
    from snnsweep.terminal_progress import progress
    from snnsweep.together import evaluate_many

__version__ = "0.1.0"
__all__ = ["OBJECTIVES", "Result", "ResumedSweep", "Space", "Sweep", "TrialConfig", "evaluate", "evaluate_many"]
__all__ += ["front", "load_results", "progress"]

_HOMES = {
    "OBJECTIVES": "result",
    "ResumedSweep": "sweep.resume",
    "Result": "result",
    "Space": "sweep.space",
    "Sweep": "sweep.launch",
    "TrialConfig": "config",
    "evaluate": "evaluation",
    "evaluate_many": "together",
    "front": "results.front",
    "load_results": "results.store",
    "progress": "terminal_progress",
}


_PARTS = ("attacks", "data", "encoders", "models", "neurons", "training")


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f"snnsweep.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'snnsweep' has no attribute {name!r}")
    return getattr(import_module(f"snnsweep.{_HOMES[name]}"), name)
