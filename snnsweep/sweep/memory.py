"""The device of a trial, and how much of a GPU's memory it needs: asked of measured steps, and held to."""

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from snnsweep.config import Flat, TrialConfig
from snnsweep.errors import SnnSweepError, SpaceError, UserError
from snnsweep.evaluation import Evaluation
from snnsweep.sweep import footprint, nodes
from snnsweep.sweep.sharing import Shared, install
from snnsweep.sweep.space import PROBES, Space

MEASURED = 4  # variants at most, of different memory
USABLE = 0.9  # of a GPU's memory: what a long training leaves in pieces, and what a few steps do not show
GRAIN = 10_000  # Ray counts resources in ten-thousandths
CONTEXT = 2**29  # bytes: of a process's CUDA context, which torch's limit does not count
FREE_S = 1200

Measure = Callable[[TrialConfig, Path], tuple[int, int]]
Answer = tuple[int, int] | str | None


def assigned_device(gpus: float) -> str:
    """The torch device of the trial in this process, which reserved that many GPUs: `cpu` or `cuda`.

    Raises:
        SnnSweepError: it reserved one, and torch sees none: the machine's fault and not the trial's.
    """
    if not gpus:
        return "cpu"
    given = ", ".join(map(str, ray.get_gpu_ids()))
    if not given or not torch.cuda.is_available():
        raise SnnSweepError(
            f"a trial reserves {gpus:g} GPU and was given {f'GPU {given}' if given else 'none'} on host "
            f"{socket.gethostname()}, where torch {torch.__version__} sees {torch.cuda.device_count()}; "
            "`snnsweep doctor` there says what torch is built for; it has to match the driver, and Ray has to be "
            "started with the GPUs that there are (--num-gpus)"
        )
    return "cuda"


def share(need_bytes: int, total_bytes: int) -> float:
    """The part of a GPU that a trial reserves, so that as many as can live side by side fit; 1.0 where only one can.

    Args:
        need_bytes: of one trial's process, with its CUDA context; a tenth of the GPU is kept free beside all of them.

    Raises:
        UserError: it does not fit into a whole GPU.
    """
    if need_bytes > total_bytes:
        raise UserError(
            f"a trial needs {need_bytes / 2**30:.1f} GiB of GPU memory, and the smallest GPU has "
            f"{total_bytes / 2**30:.1f} GiB; lower data.batch_size, encoder.time_steps or model.width in the space"
        )
    trials = int(USABLE * total_bytes / need_bytes)
    if trials < 2:
        return 1.0
    grains = max(1, GRAIN // trials)
    return (grains if GRAIN // grains <= trials else ceil(GRAIN / trials)) / GRAIN


def confine(gpus: float) -> None:
    """Holds this process to its part of the GPU: beyond it torch raises OutOfMemoryError here, and no neighbour dies.

    To be called before the trial's first allocation, and for whole GPUs too: the process may have served another one.
    """
    if not gpus:
        return
    limit = 1.0
    if gpus < 1:
        limit = max(gpus / 2, gpus - CONTEXT / torch.cuda.get_device_properties(0).total_memory)
    torch.cuda.set_per_process_memory_fraction(limit, 0)


def exercise(config: TrialConfig, data_dir: Path) -> None:
    """What a trial does, at its largest: a training step, two steps of each attack, each measurement, a batch each."""
    trial = Evaluation(config, data_dir)
    footprint.train(trial, config.data.batch_size)
    footprint.attack(trial, config.data.batch_size)


def need(config: TrialConfig, data_dir: Path) -> int:
    """Bytes of GPU memory that a process takes at the peak of `exercise`, its CUDA context and kernels included.

    Measured on this process's own GPU, which nobody else may use meanwhile.
    """
    torch.cuda.reset_peak_memory_stats()
    exercise(config, data_dir)
    free, total = torch.cuda.mem_get_info()
    return torch.cuda.max_memory_reserved() + max(0, total - free - torch.cuda.memory_reserved())


def on_its_gpu(config: TrialConfig, data_dir: Path) -> tuple[int, int]:
    """What the variant needs of this task's GPU, and all that this has; bytes."""
    on_gpu = config.model_copy(update={"device": assigned_device(1)})
    return need(on_gpu, data_dir), torch.cuda.get_device_properties(0).total_memory


def measured_share(
    space: Space, configs: Iterable[TrialConfig], data_dir: Path, shared: Shared, measure: Measure = on_its_gpu
) -> float:
    """The part of a GPU that any trial of the space is to reserve, from measurements of its largest variants.

    They run one by one on a free GPU of each type that is up, and the most demanding answer counts. A variant that
    runs out of memory alone gets a whole GPU.

    Raises:
        UserError: every variant is too large, or no GPU was free in 20 minutes.
        SnnSweepError: none could be measured.
    """
    typed = [
        name for node in nodes.alive() for name in node["Resources"]
        if name.startswith("accelerator_type:") and node["Resources"].get("GPU")
    ]  # fmt: skip
    asked: list[dict[str, float]] = [{name: 1 / GRAIN} for name in dict.fromkeys(typed)] or [{}]
    tasks = [
        _measured.options(resources=kind).remote(space, config.to_flat(), data_dir, shared, measure)
        for kind in asked
        for config in footprint.largest(configs, MEASURED)
    ]
    ready, late = ray.wait(tasks, num_returns=len(tasks), timeout=FREE_S)
    for task in late:
        ray.cancel(task, force=True)
    if late:
        raise UserError(
            f"--gpus-per-trial auto: no GPU was free for a measurement in {FREE_S // 60} minutes; wait for the other "
            "jobs of the cluster, or give the share yourself"
        )
    return _agreed(ray.get(ready))


def _agreed(answers: list[Answer]) -> float:
    """The share for all of them, of what `_measured` gave."""
    found = [share(*answer) for answer in answers if isinstance(answer, tuple)]
    failed = [answer for answer in answers if isinstance(answer, str)]
    if not found and failed:
        raise SnnSweepError(f"--gpus-per-trial auto: no variant could be measured: {failed[0]}")
    if not found:
        raise UserError(
            "--gpus-per-trial auto: the largest variants of the space run out of memory on a GPU of their own; lower "
            "data.batch_size, encoder.time_steps or model.width in the space"
        )
    return 1.0 if None in answers else max(found)


class Highest(RandomSampler):
    """Answers the highest value or number among the choices for what makes a variant large, and any for the rest."""

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if param_name in footprint.LARGE and isinstance(param_distribution, FloatDistribution | IntDistribution):
            return param_distribution.high
        if param_name in footprint.LARGE and isinstance(param_distribution, CategoricalDistribution):
            return max(param_distribution.choices)  # type: ignore[type-var]  # numbers: other ones are no valid config
        return super().sample_independent(study, trial, param_name, param_distribution)


def reached(space: Space, seed: int, defaults: Flat, overrides: Flat) -> list[TrialConfig]:
    """Variants of a space that are as large as it lets them be; those that it refuses are left out.

    What the space computes by itself from other values, or makes small where another value is large, is not seen
    through.
    """
    study, found = optuna.create_study(sampler=Highest(seed=seed)), []
    for _ in range(PROBES):
        with suppress(SpaceError):
            found.append(space.sample(study.ask(), defaults, overrides))
    return found


@ray.remote(num_gpus=1)  # its process ends with it, and gives the memory back
def _measured(space: Space, flat: dict[str, Any], data_dir: Path, shared: Shared, measure: Measure) -> Answer:
    """Bytes as `on_its_gpu`; None where even that GPU is too small; the reason where the variant fails for another."""
    try:
        space.load()
        install(shared, data_dir)
        return measure(TrialConfig.from_flat(flat), data_dir)
    except torch.OutOfMemoryError:
        return None
    except Exception as error:  # noqa: BLE001  spaces bring their own parts
        return f"{type(error).__name__}: {error}"
