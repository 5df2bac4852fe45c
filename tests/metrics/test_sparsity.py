"""Sparsity measures against plain Python from their definitions, and gradients against single samples."""

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snnsweep import models, registry
from snnsweep.config import EncoderConfig, ImageSpec, TrialConfig
from snnsweep.metrics import sparsity
from snnsweep.models import SNN
from snnsweep.models.base import Conv2d

Row = list[float]


def hoyer(g: Row) -> float:
    l1, l2, root = math.fsum(map(abs, g)), math.hypot(*g), math.sqrt(len(g))
    return (root - l1 / l2) / (root - 1) if l1 else 0.0


def gini(g: Row) -> float:
    """Half of the mean absolute difference of all pairs, over the mean."""
    total, n = math.fsum(map(abs, g)), len(g)
    return math.fsum(abs(abs(a) - abs(b)) for a in g for b in g) / (2 * n * total) if total else 0.0


def small_share(g: Row) -> float:
    top = max(map(abs, g))
    return sum(abs(a) < top * 1e-3 for a in g) / len(g) if top else 0.0


TWINS = {
    "hoyer": hoyer,
    "gini": gini,
    "small_share": small_share,
    "l1": lambda g: math.fsum(map(abs, g)),
    "l2": lambda g: math.hypot(*g),
    "vanished_share": lambda g: float(not any(g)),
    "tiny_share": lambda g: float(math.hypot(*g) < 1e-6),
}
value = st.one_of(
    st.just(0.0),
    st.floats(-10, 10),
    st.tuples(st.sampled_from([1e-30, -1e-30, 3e-20, 1e-7, 1e20]), st.floats(0.5, 2)).map(math.prod),
)
# At least two columns: the sparsity of a single number has no meaning.
rows = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12), elements=value.map(np.float32))


def test_every_measure_has_a_twin() -> None:
    assert TWINS.keys() == sparsity.MEASURES.keys()


@pytest.mark.parametrize("name", TWINS)
@settings(max_examples=60, deadline=None)
@given(g=rows)
def test_as_the_definition(name: str, g: np.ndarray) -> None:
    found = sparsity.MEASURES[name](torch.from_numpy(g)).tolist()
    assert found == pytest.approx([TWINS[name](row) for row in g.astype(float).tolist()], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["hoyer", "gini", "small_share"])
@settings(max_examples=40, deadline=None)
@given(g=rows, power=st.integers(-60, 60))
def test_scale_does_not_matter(name: str, g: np.ndarray, power: int) -> None:
    """By powers of 2, which round nothing; down to where float32's squares would underflow."""
    scaled = torch.from_numpy(g).double() * 2.0**power
    take = sparsity.MEASURES[name]
    torch.testing.assert_close(take(scaled), take(torch.from_numpy(g)), rtol=1e-12, atol=1e-12)
    assert (take(scaled) >= -1e-12).all()
    assert (take(scaled) <= 1 + 1e-12).all()


@pytest.mark.parametrize("n", [2, 9, 100])
def test_known_values(n: int) -> None:
    one_hot, flat, none = torch.eye(n)[:1] * -3e-30, torch.full((1, n), 2e-30), torch.zeros(1, n)
    g = torch.cat([one_hot, flat, none])
    assert sparsity.hoyer(g).tolist() == pytest.approx([1, 0, 0], abs=1e-12)
    assert sparsity.gini(g).tolist() == pytest.approx([1 - 1 / n, 0, 0], abs=1e-12)
    assert sparsity.small_share(g).tolist() == pytest.approx([1 - 1 / n, 0, 0])
    assert sparsity.MEASURES["vanished_share"](g).tolist() == [0, 0, 1]
    assert sparsity.MEASURES["tiny_share"](g).tolist() == [1, 1, 1]


def test_half_zeros() -> None:
    """k of n equal elements: (sqrt n - sqrt k) / (sqrt n - 1), and 1 - k / n."""
    g = torch.tensor([[1.0, -1.0, 1.0, 1.0, 0, 0, 0, 0, 0]])
    assert sparsity.hoyer(g).item() == pytest.approx(0.5)
    assert sparsity.gini(g).item() == pytest.approx(5 / 9)


class Smooth(nn.Module):
    """No spikes: encode(x)[t] = x^(t+1), then a smooth network over all steps; in float64 by `.double()`."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(18, 7), nn.Softplus(), nn.BatchNorm1d(7), nn.Linear(7, 4))

    def encode(self, x: Tensor) -> Tensor:
        return torch.stack([x, x**2])

    def forward_encoded(self, z: Tensor) -> Tensor:
        return self.network(z.movedim(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_encoded(self.encode(x))


def smooth() -> tuple[Smooth, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Smooth().double()
    model(torch.rand(20, 1, 3, 3).double())
    return model.eval(), torch.rand(3, 1, 3, 3).double(), torch.tensor([0, 3, 1])


def test_input_gradients_against_finite_differences() -> None:
    model, x, y = smooth()
    pixel, code = sparsity.input_gradients(model, x, y)
    assert pixel.shape == (3, 9)
    assert code.shape == (3, 18)
    z, h = model.encode(x), 1e-6
    with torch.no_grad():
        for i in range(3):
            for k in range(9):
                step = torch.zeros_like(x)
                step[i].view(-1)[k] = h
                up, down = (cross_entropy(model(x + s * step), y, reduction="sum") for s in (1, -1))
                assert pixel[i, k].item() == pytest.approx(((up - down) / (2 * h)).item(), abs=1e-8)
                for t in range(2):
                    step = torch.zeros_like(z)
                    step[t, i].view(-1)[k] = h
                    up, down = (cross_entropy(model.forward_encoded(z + s * step), y, reduction="sum") for s in (1, -1))
                    assert code[i, 9 * t + k].item() == pytest.approx(((up - down) / (2 * h)).item(), abs=1e-8)


FLAT = {"model.depth": 10, "model.width": 0.1, "encoder.time_steps": 3, "neuron.v_threshold": 0.5}


def spiking(**own: object) -> tuple[SNN, Tensor, Tensor]:
    """An SNN with settled batch statistics, in training mode, and eight images."""
    torch.manual_seed(0)
    model = models.build(TrialConfig.from_flat({**FLAT, **{k.replace("__", "."): v for k, v in own.items()}}))
    with torch.no_grad():
        for _ in range(10):
            model(torch.rand(16, 1, 8, 8))
    return model, torch.rand(8, 1, 8, 8), torch.arange(8)


def layer_gradients(model: SNN, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """d CE / d input of each leaf layer: the input is replaced by an alias of its own, for autograd to ask about."""
    aliases: dict[str, Tensor] = {}

    def alias(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            aliases[name] = inputs[0].view_as(inputs[0])
            return (aliases[name],)

        return hook

    leaves = [(name, module) for name, module in model.network.named_modules() if not list(module.children())]
    handles = [module.register_forward_pre_hook(alias(name)) for name, module in leaves]
    code = model.encode(x.clone().requires_grad_()).contiguous()  # a copy: each of its steps has a gradient
    loss = cross_entropy(model.forward_encoded(code), y, reduction="sum")
    grads = torch.autograd.grad(loss, list(aliases.values()))
    for handle in handles:
        handle.remove()
    return dict(zip(aliases, grads, strict=True))


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("encoder", ["direct", "phase"])
def test_zero_share_and_hoyer_of_each_layer(pooling: str, encoder: str) -> None:
    model, x, y = spiking(model__pooling=pooling, encoder__name=encoder)
    found = sparsity.measure(model, x, y, "pixel", batch=3)
    grads = layer_gradients(model.eval(), x, y)
    rows = {name: grad.movedim(1, 0).flatten(1).tolist() for name, grad in grads.items()}
    expected = {
        "zero_share": {name: (grad == 0).double().mean().item() for name, grad in grads.items()},
        "hoyer": {name: sum(map(hoyer, samples)) / len(x) for name, samples in rows.items()},
    }
    for kind, values in expected.items():
        layers = {name.partition("/")[2]: value for name, value in found.items() if name.startswith(f"{kind}/")}
        assert layers == pytest.approx(values, abs=1e-3)  # a sum's rounding may depend on the batch
        assert found[kind] == pytest.approx(sum(values.values()) / len(values), abs=1e-3)
    pool = found["zero_share/stem.pool"]
    assert pool > 0.5 if pooling == "max" else pool == 0  # a max passes the gradient to one input of its window


def around(network: nn.Module, steps: int) -> SNN:
    """An SNN of images [N, 1, 3, 3] that hands them on as they are."""
    encoder = registry.encoders.get("direct")(EncoderConfig(time_steps=steps))
    return SNN(encoder, network, ImageSpec(channels=1, height=3, width=3, classes=4, mean=(0.0,), std=(1.0,)))


class Layouts(nn.Module):
    """Hands a leaf layer its nine inputs a step, weighted by the step, in one of several layouts."""

    def __init__(self, layout: str):
        super().__init__()
        torch.manual_seed(2)
        self.layout, self.look, self.head = layout, nn.Identity(), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(2) * torch.arange(1.0, len(x) + 1).view(-1, 1, 1)
        match self.layout:
            case "steps":
                seen = self.look(h)
            case "flat":
                seen = self.look(h.flatten(0, 1)).unflatten(0, x.shape[:2])
            case "samples":
                seen = self.look(h.transpose(0, 1)).transpose(0, 1)
            case "loop":
                seen = torch.stack([self.look(step) for step in h])
            case _:
                seen = self.look(h.reshape(-1, 3)).view_as(h)
        return self.head((seen * torch.arange(1.0, len(x) + 1).view(-1, 1, 1)).sin())


@pytest.mark.parametrize("layout", ["steps", "flat", "samples", "loop", "other"])
def test_a_layer_may_see_several_layouts(layout: str) -> None:
    """Of nine samples with nine inputs, so that no size tells them apart; of another layout the batch is one sample."""
    steps, x, y = 3, torch.rand((9, 1, 3, 3), generator=torch.Generator().manual_seed(0)), torch.arange(9) % 4
    network = Layouts(layout)
    h = (x.flatten(1) * torch.arange(1.0, steps + 1).view(-1, 1, 1)).requires_grad_()
    answers = network.head((h * torch.arange(1.0, steps + 1).view(-1, 1, 1)).sin()).mean(0)
    (grad,) = torch.autograd.grad(cross_entropy(answers, y, reduction="sum"), h)
    rows = grad.flatten()[None] if layout == "other" else grad.movedim(1, 0).flatten(1)
    found = sparsity.measure(around(network, steps), x, y, "pixel", batch=9)
    assert found["hoyer/look"] == pytest.approx(sum(map(hoyer, rows.tolist())) / len(rows), rel=1e-5)
    assert found["zero_share/look"] == 0


@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
def test_a_layer_counts_what_is_finite(broken: float) -> None:
    network, x, y = Layouts("steps"), torch.rand(2, 1, 3, 3), torch.tensor([0, 1])
    seen: list[Tensor] = []

    def breaks(_module: nn.Module, grads: tuple[Tensor, ...], _outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(grads[0].clone())
        seen[0][1, 0, 2] = 0
        return (seen[0].index_put([torch.tensor(1), torch.tensor(0), torch.tensor(2)], torch.tensor(broken)),)

    network.look.register_full_backward_hook(breaks)
    found = sparsity.measure(around(network, 2), x, y, "pixel", batch=2)
    rows = seen[0].movedim(1, 0).flatten(1).tolist()
    assert found["hoyer/look"] == pytest.approx(sum(map(hoyer, rows)) / 2, rel=1e-5)
    assert found["zero_share/look"] == 0


def test_a_layer_of_one_number_is_not_sparse() -> None:
    network = nn.Sequential(nn.Flatten(2), nn.Linear(9, 1), nn.Linear(1, 4))
    found = sparsity.measure(around(network, 1), torch.rand(4, 1, 3, 3), torch.arange(4), "pixel", batch=4)
    assert found["hoyer/2"] == 0
    assert found["hoyer/1"] > 0


def test_gradients_of_a_linear_model_share_the_zeros_of_the_backward_signal() -> None:
    """Luu et al., arXiv 2509.23762: dL/dx = W^T d, dL/dW = d x^T; behind a ReLU d has zeros, W is diagonal.

    The norms of d x^T are the products of the norms, and its zeros are whole rows.
    """
    torch.manual_seed(1)
    steps, layers = 3, (nn.Linear(9, 9, bias=False), nn.ReLU(), nn.Linear(9, 4, bias=False))
    network = nn.Sequential(nn.Flatten(2), *layers)
    x, y = torch.rand(5, 1, 3, 3) + 0.1, torch.tensor([0, 3, 1, 1, 2])
    with torch.no_grad():
        network[1].weight.copy_(torch.eye(9) * torch.tensor([1.0, -1, 1, 1, -1, -1, 1, -1, 1]))
    found = sparsity.measure(around(network, steps), x, y, "pixel", batch=2)
    first, second, zeros, of_x = [], [], [], []
    for image, label in zip(x.flatten(1).double(), y, strict=True):
        hidden = (network[1].weight.double() @ image).relu()
        error = (network[3].weight.double() @ hidden).softmax(0)
        error[label] -= 1
        d = (network[3].weight.double().T @ error) * (hidden > 0)
        n = 9 * 9
        norms = (d.abs().sum() * image.sum() / (d.norm() * image.norm())).item()
        first.append((math.sqrt(n) - norms) / (math.sqrt(n) - 1))
        second.append(hoyer(torch.outer(error, hidden).flatten().tolist()))
        zeros.append((d == 0).double().mean().item())
        of_x.append(hoyer((network[1].weight.double().T @ d).repeat(steps).tolist()))
    mean = lambda values: pytest.approx(sum(values) / 5, rel=1e-4)  # noqa: E731
    assert found["weights/1"] == mean(first)
    assert found["weights/3"] == mean(second)
    assert found["hoyer/1"] == mean(of_x)
    assert found["weights_zero_share/1"] == found["zero_share/1"] == mean(zeros)
    assert found["weights_zero_share/1"] == pytest.approx(4 / 9)


def test_weight_gradients_are_those_of_single_samples() -> None:
    model, x, y = spiking()
    found = sparsity.measure(model, x, y, "pixel", batch=8)
    twin, expected = deepcopy(model).eval(), {}
    for image, label in zip(x.split(1), y.split(1), strict=True):
        twin.zero_grad()
        cross_entropy(twin(image), label).backward()
        each = {
            n: m.weight.grad.flatten() for n, m in twin.network.named_modules() if isinstance(m, Conv2d | nn.Linear)
        }
        for name, g in {"": torch.cat(list(each.values())), **each}.items():
            expected.setdefault(f"weights/{name}".rstrip("/"), []).append(hoyer(g.tolist()))
            expected.setdefault(f"weights_zero_share/{name}".rstrip("/"), []).append((g == 0).double().mean().item())
    figures = {name: value for name, value in found.items() if name.startswith("weights")}
    assert figures == pytest.approx({name: sum(values) / 8 for name, values in expected.items()}, rel=1e-4, abs=1e-4)
    assert 0 < figures["weights_zero_share"] < 1


def test_a_fixed_number_of_samples_gives_weight_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparsity, "WEIGHT_SAMPLES", 3)
    model, x, y = spiking()
    first, again, other = (sparsity.weight_sparsity(model, x[k:], y[k:]) for k in (0, 0, 1))
    assert first == again == sparsity.weight_sparsity(model, x[:3], y[:3])
    assert first["weights"] != other["weights"]


def test_frozen_weights_have_no_gradient() -> None:
    model, x, y = spiking()
    model.network.stem.requires_grad_(False)
    found = sparsity.measure(model, x, y, "pixel", batch=8)
    assert "weights/stem.conv" not in found
    assert "weights/head" in found
    model.requires_grad_(False)
    found = sparsity.measure(model, x, y, "pixel", batch=8)
    assert not [name for name in found if name.startswith("weights")]
    assert found["hoyer/stem.conv"] > 0


@pytest.mark.parametrize("space", ["pixel", "encoded"])
def test_measures_are_means_over_single_samples(space: str) -> None:
    model, x, y = spiking()
    found = sparsity.measure(model, x, y, space, batch=8)
    model.eval()
    alone = [sparsity.input_gradients(model, x[i : i + 1], y[i : i + 1]) for i in range(8)]
    pixel, code = (torch.cat(parts).tolist() for parts in zip(*alone, strict=True))
    chosen = pixel if space == "pixel" else code
    for name, twin in TWINS.items():
        mean = sum(map(twin, chosen)) / 8
        assert found["" if name == "hoyer" else name] == pytest.approx(mean, rel=1e-4), name
    assert found["pixel"] == pytest.approx(sum(map(hoyer, pixel)) / 8, rel=1e-4)
    assert found["encoded"] == pytest.approx(sum(map(hoyer, code)) / 8, rel=1e-4)
    half = 1.96 * float(np.std([hoyer(g) for g in chosen], ddof=1)) / math.sqrt(8)
    assert (found["low"], found["high"], found["n"]) == pytest.approx((found[""] - half, found[""] + half, 8), rel=1e-4)


def test_batches_do_not_matter() -> None:
    model, x, y = spiking()
    whole = sparsity.measure(model, x, y, "pixel", batch=8)
    for size in (1, 3):
        assert sparsity.measure(model, x, y, "pixel", batch=size) == pytest.approx(whole, rel=1e-3, abs=1e-3)


def test_one_sample_has_no_interval() -> None:
    model, x, y = spiking()
    found = sparsity.measure(model, x[:1], y[:1], "pixel", batch=4)
    assert (found["low"], found["high"], found["n"]) == (0, 1, 1)


def test_the_model_is_left_as_it_was() -> None:
    model, x, y = spiking()
    model.network.stem.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    sparsity.measure(model, x, y, "pixel", batch=8)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert all(p.grad is None for p in model.parameters())
    hooks = ("_backward_hooks", "_forward_hooks", "_forward_pre_hooks")
    assert not any(getattr(module, kind) for kind in hooks for module in model.modules())


def test_a_silent_network_has_no_gradient_and_is_not_sparse() -> None:
    model, x, y = spiking(neuron__v_threshold=1e9)
    found = sparsity.measure(model, x, y, "pixel", batch=8)
    assert found["vanished_share"] == found["tiny_share"] == found["zero_share/stem.conv"] == 1
    assert found["weights_zero_share"] == 1
    assert found[""] == found["gini"] == found["small_share"] == found["l1"] == found["l2"] == 0
    assert found["hoyer/stem.conv"] == found["weights"] == found["weights/stem.conv"] == 0


def test_a_gradient_that_is_not_finite_counts_as_vanished() -> None:
    model, x, y = spiking()
    layer = next(m for m in model.modules() if isinstance(m, Conv2d))
    layer.register_full_backward_hook(lambda _m, grads, _out: tuple(g * math.nan for g in grads))
    found = sparsity.measure(model, x, y, "pixel", batch=8)
    assert found["vanished_share"] == 1
    assert all(map(math.isfinite, found.values()))


def test_a_gradient_that_is_cut_off_counts_as_vanished() -> None:
    model, x, y = spiking()
    encode = model.encode
    model.encode = lambda image: encode(image).detach()
    found = sparsity.measure(model, x, y, "pixel", batch=8)
    assert found["vanished_share"] == 1
    assert found["encoded"] > 0
