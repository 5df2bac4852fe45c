"""What is kept for the backward pass as bits and bytes comes back as it was, and so do gradients."""

import math
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snnsweep import models
from snnsweep.config import ImageSpec, TrialConfig
from snnsweep.training import loop
from snnsweep.training.spike_bits import Packed, as_bits, pack, unpack

SPEC = ImageSpec(1, 16, 16, 10, (0.5,), (0.25,))


@given(
    shape=st.sampled_from([(4099,), (3, 1367), (2, 3, 31, 29), (5, 8, 11, 13)]),
    most=st.sampled_from([0, 1, 2, 255]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    last=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=60)
def test_comes_back_as_it_was(shape: tuple[int, ...], most: int, dtype: torch.dtype, last: bool, seed: int) -> None:
    x = torch.randint(0, most + 1, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if last and x.dim() == 4 else x
    found = pack(x)
    assert isinstance(found, Packed)
    assert found.kept.nbytes == (math.ceil(x.numel() / 8) if x.max() <= 1 else x.numel())
    back = unpack(found)
    assert torch.equal(back, x)
    assert (back.dtype, back.stride()) == (x.dtype, x.stride())


@pytest.mark.parametrize("value", [-1.0, 0.5, 256.0, math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 5000])
def test_one_other_value_and_all_stays(value: float, place: int) -> None:
    x = torch.zeros(3, 3, 1000)
    x.view(-1)[place] = value
    assert pack(x) is x


@pytest.mark.parametrize("residual", ["sew_add", "spiking"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_the_same_bit_for_bit(residual: str, precision: str) -> None:
    config = TrialConfig.from_flat({"model.width": 0.25, "model.residual": residual, "model.depth": 10})
    torch.manual_seed(0)
    model, x, y = models.build(config, SPEC), torch.rand(8, 1, 16, 16), torch.arange(8)
    sizes: list[tuple[int, int]] = []

    def looking(tensor: Tensor) -> Tensor | Packed:
        found = pack(tensor)
        if not isinstance(tensor, nn.Parameter):
            sizes.append((tensor.nbytes, (found.kept if isinstance(found, Packed) else found).nbytes))
        return found

    def gradients(kept: object) -> tuple[Tensor, ...]:
        with kept, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):  # type: ignore[attr-defined]
            loss = cross_entropy(model(x), y)
        return torch.autograd.grad(loss, list(model.parameters()))

    expected = gradients(nullcontext())
    assert all(map(torch.equal, gradients(torch.autograd.graph.saved_tensors_hooks(looking, unpack)), expected))
    assert sum(packed for _, packed in sizes) < 0.85 * sum(whole for whole, _ in sizes)


def test_the_key_packs_and_changes_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, found = [], []
    monkeypatch.setattr(loop, "as_bits", lambda: calls.append(1) or as_bits())
    for on in (False, True):
        settings_ = {"model.depth": 10, "model.width": 0.25, "encoder.time_steps": 2, "train.pack_spikes": on}
        torch.manual_seed(0)
        config = TrialConfig.from_flat(settings_)
        trainer = loop.Trainer(models.build(config, SPEC), config, None)
        trainer.step(torch.rand(8, 1, 16, 16), torch.arange(8))
        found.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert len(calls) == 1
    assert torch.equal(*found)


def test_equal_steps_are_kept_once() -> None:
    steps = torch.zeros(1, 64, 128).expand(4, 64, 128)
    assert unpack(pack(steps)).stride(0) == 0
