"""The compiled kernel: a C file of this package, built by the system's compiler when a neuron first runs on a CPU.

It lies in the user's cache, under a name made of the source, the compiler and the CPU. A new build is compared with the
loop before others may see it, and takes its name in one step, so that many processes may build at once. Where there is
no compiler, or the cache cannot be written, torch's operations serve; `snnsweep doctor` says which.
"""

import ctypes
import hashlib
import itertools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnsweep.neurons.steps import CHARGES, Dynamics, Number, unrolled
from snnsweep.neurons.surrogates import FAMILIES, Heaviside

SOURCE = Path(__file__).with_name("native.c")
# No contraction to fused multiply-adds: the spikes are torch's bit for bit.
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
LINK = ("-shared", "-fPIC", "-pthread")
CPU_INFO = Path("/proc/cpuinfo")
SECONDS = 60  # that a build may take
DTYPES = (torch.float32, torch.bfloat16)


class _Layer(ctypes.Structure):
    """The C file's `Layer`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "grad", "out", "sums")),
        *((name, ctypes.c_void_p) for name in ("thresholds", "rates", "alphas")),
        *((name, ctypes.c_int64) for name in ("steps", "n", "apart", "members", "inner", "block")),
        *((name, ctypes.c_int32) for name in ("bf16", "charge", "hard", "detach", "family", "of_threshold", "of_rate")),
        *((name, ctypes.c_float) for name in ("threshold", "rate")),
        ("alpha", ctypes.c_double),
    )


Kernel = Callable[[_Layer, int, Any], int]


def takes(x: Tensor) -> bool:
    """Whether the kernel serves these currents: plain fp32 or bf16 tensors on a CPU for which it could be built."""
    plain = x.device.type == "cpu" and x.dtype in DTYPES and type(x) in (Tensor, torch.nn.Parameter)
    return plain and _found()[0] is not None


def about() -> str:
    """What serves neurons on this machine's CPU, in words."""
    return _found()[1]


def spikes(x: Tensor, threshold: Number, rate: Number, dynamics: Dynamics) -> Tensor:
    """As `fused.spikes`."""
    x = _dense(x, members_of(threshold, rate, dynamics.alpha))
    out = _unwritten(x)
    _run(_loaded(), _layer(x, out, threshold, rate, dynamics))
    return out


def gradient(
    x: Tensor, grad: Tensor, threshold: Number, rate: Number, dynamics: Dynamics, wanted: tuple[bool, ...]
) -> tuple[Tensor, list[float], list[float]]:
    """dL/dx of grad = dL/ds, and dL/dthreshold and dL/drate of each member, all 0 unless they are wanted."""
    x = _dense(x, members_of(threshold, rate, dynamics.alpha))
    out = _unwritten(x)
    if grad.dtype != x.dtype or grad.stride() != out.stride():
        grad = _unwritten(x).copy_(grad)
    layer = _layer(x, out, threshold, rate, dynamics)
    layer.grad = grad.data_ptr()
    layer.of_threshold, layer.of_rate = wanted
    sums = _run(_loaded(), layer)
    return out, sums[::2], sums[1::2]


def members_of(*numbers: Number) -> int:
    """How many members of a pack the numbers are of."""
    return max(number.numel() if isinstance(number, Tensor) else 1 for number in numbers)


def _dense(x: Tensor, members: int) -> Tensor:
    """x with its steps one after the other, each without gaps; of a single member in any order (channels last).

    Steps that are all the same one (an expanded view) stay so.
    """
    step = x[0]
    dense = torch.empty_like(step).stride() == step.stride()
    if members > 1 or not dense or (len(x) > 1 and x.stride(0) not in (0, step.numel())):
        return x.contiguous()
    return x


def _unwritten(x: Tensor) -> Tensor:
    """Room for each step of x, in the order of its steps."""
    return torch.empty_strided(x.shape, (x[0].numel(), *x.stride()[1:]), dtype=x.dtype)


def _layer(x: Tensor, out: Tensor, threshold: Number, rate: Number, dynamics: Dynamics) -> _Layer:
    members = members_of(threshold, rate, dynamics.alpha)
    kinds = (ctypes.c_float, ctypes.c_float, ctypes.c_double)
    numbers = [_each(number, members) for number in (threshold, rate, dynamics.alpha)]
    kept = [(kind * members)(*values) for kind, values in zip(kinds, numbers, strict=True)]
    layer = _Layer(
        x=x.data_ptr(),
        out=out.data_ptr(),
        **dict(zip(("thresholds", "rates", "alphas"), map(ctypes.addressof, kept), strict=True)),
        steps=len(x),
        n=x[0].numel(),
        apart=0 if x.stride(0) == 0 else x[0].numel(),
        members=members,
        inner=max(1, x[0].numel() if members == 1 else x[0, 0, 0].numel()),
        bf16=x.dtype == torch.bfloat16,
        charge=CHARGES.index(dynamics.charge),
        hard=dynamics.hard,
        detach=dynamics.detach,
        family=FAMILIES.index(dynamics.family),
    )
    layer.kept = kept  # as long as the addresses are wanted
    return layer


def _each(number: Number, members: int) -> list[float]:
    values = number.flatten().tolist() if isinstance(number, Tensor) else [number]
    return values * members if len(values) == 1 else values


def _run(kernel: Kernel, layer: _Layer) -> list[float]:
    sums = (ctypes.c_double * (2 * layer.members))()
    if kernel(layer, torch.get_num_threads(), sums):
        raise MemoryError("no memory for the neurons' membranes")
    return list(sums)


def _loaded() -> Kernel:
    kernel = _found()[0]
    assert kernel is not None
    return kernel


@cache
def _found() -> tuple[Kernel | None, str]:
    """The kernel, or None, and what that means in words."""
    try:
        path = _built()
        return _opened(path), f"compiled kernel, {path}"
    # No home directory is a RuntimeError, a library of something else an AttributeError.
    except (OSError, subprocess.SubprocessError, ValueError, RuntimeError, AttributeError) as error:
        return None, f"torch's operations, a little slower: {' '.join(str(error).split())}"


def _built() -> Path:
    """The shared library, built if it has to be.

    Raises:
        OSError: no compiler, or no place to write.
        SubprocessError: the compiler failed, or took too long.
        ValueError: what it made is not equal to the loop.
    """
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    compiler = next(filter(None, map(shutil.which, filter(None, names))), None)
    if compiler is None:
        raise OSError("no C compiler found (CC, cc, gcc, clang)")
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=SECONDS).stdout
    parts = (SOURCE.read_bytes(), " ".join(FLAGS + LINK).encode(), compiler.encode(), version, _cpu().encode())
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snnsweep"
    path = folder / f"neurons-{key}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as private:
        new = Path(private) / path.name
        command = [compiler, *FLAGS, *LINK, str(SOURCE), "-o", str(new)]
        subprocess.run(command, capture_output=True, check=True, timeout=SECONDS)
        _check(_opened(new))
        with new.open("rb") as file:
            os.fsync(
                file.fileno()
            )  # or a crash may leave the name with a part of the file, which ends whoever loads it
        new.replace(path)
    return path


def _cpu() -> str:
    """What `-march=native` depends on."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    told = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return "\n".join([platform.machine(), platform.processor(), *sorted(told)])


def _opened(path: Path) -> Kernel:
    kernel = ctypes.CDLL(str(path)).snnsweep_neurons
    kernel.argtypes, kernel.restype = (_Layer, ctypes.c_int32, ctypes.c_void_p), ctypes.c_int
    return kernel


@torch.inference_mode(False)
@torch.enable_grad()
def _check(kernel: Kernel) -> None:
    """Raises ValueError where the kernel's spikes are not the loop's, or its gradients further than 1e-4."""
    rng = torch.Generator().manual_seed(0)
    x, grad = torch.randn(2, 4, 1003, generator=rng).unbind()
    for charge, hard, family in itertools.product(CHARGES, (True, False), FAMILIES):
        dynamics = Dynamics(charge, hard, False, family, 2.0)
        threshold, rate = 0.4, 0.6 if charge is CHARGES[-1] else 1.7
        leaf, out, found = x.clone().requires_grad_(), torch.empty_like(x), torch.empty_like(x)
        fire = partial(_fire, surrogate=partial(family, alpha=2.0))
        expected = unrolled(leaf, partial(charge, rate=rate), fire, threshold, hard, detach=False)
        (slope,) = torch.autograd.grad(expected, leaf, grad)
        layer = _layer(x, out, threshold, rate, dynamics)
        _run(kernel, layer)
        layer.grad, layer.out = grad.data_ptr(), found.data_ptr()
        _run(kernel, layer)
        if not (torch.equal(out, expected) and torch.allclose(found, slope, rtol=1e-4, atol=1e-4)):
            raise ValueError("what the compiler made is not equal to the loop")


def _fire(t: int, u: Tensor, surrogate: Callable[[Tensor], Tensor]) -> Tensor:
    return Heaviside.apply(u, surrogate)
