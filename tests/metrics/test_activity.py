"""Operations against loops over every synapse, a convolution of ones and spikingjelly; spikes against hand counts."""

import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based.op_counter import (
    DispatchCounterMode,
    MACCounter,
    SimpleEnergyCostConfig,
    SynOpCounter,
)
from torch import Tensor, nn
from torch.nn.functional import conv2d

from snnsweep import models, registry
from snnsweep.config import EncoderConfig, ImageSpec, NeuronConfig, TrialConfig
from snnsweep.encoders import Frames
from snnsweep.metrics import activity
from snnsweep.models import SNN
from snnsweep.models.base import Conv2d
from snnsweep.models.mix import Mix
from snnsweep.neurons import IF, SpikingNeuron

T = 3
FLAT = {"model.depth": 10, "model.width": 0.1, "encoder.time_steps": T, "neuron.v_threshold": 0.4}
SPEC = ImageSpec(channels=1, height=4, width=4, classes=2, mean=(0.0,), std=(1.0,))


def build(**own: object) -> SNN:
    """An SNN whose batch statistics have settled."""
    torch.manual_seed(0)
    model = models.build(TrialConfig.from_flat({**FLAT, **{k.replace("__", "."): v for k, v in own.items()}}))
    with torch.no_grad():
        for _ in range(5):
            model(torch.rand(8, 1, 8, 8))
    return model.eval()


def images(n: int = 6) -> Tensor:
    return torch.rand((n, 1, 8, 8), generator=torch.Generator().manual_seed(1))


def around(network: nn.Module, encoder: str = "direct", steps: int = T) -> SNN:
    """An SNN that hands its images on as they are."""
    return SNN(registry.encoders.get(encoder)(EncoderConfig(time_steps=steps)), network, SPEC)


def measure(model: SNN, x: Tensor, batch: int = 4) -> dict[str, float]:
    """Without the latency, which is no matter of the figures."""
    found = activity.measure(model, x, batch)
    assert found.pop("time/latency_ms") > 0
    return {name.removeprefix("activity/"): value for name, value in found.items()}


# Operations of one layer


def reached(place: int, output: int, tap: int, layer: nn.Conv2d, dim: int, side: int) -> bool:
    """Whether the kernel's tap of an output lies on an input's place."""
    found = output * layer.stride[dim] + tap * layer.dilation[dim] - layer.padding[dim]
    return (found % side if layer.padding_mode == "circular" else found) == place


def synapses(layer: nn.Conv2d, row: int, column: int, shape: tuple[int, int], output: tuple[int, int]) -> int:
    """Loops over all that may be connected to one input of one channel."""
    taps = [
        [
            sum(reached(place, out, tap, layer, dim, shape[dim]) for tap in range(layer.kernel_size[dim]))
            for out in range(output[dim])
        ]
        for dim, place in enumerate((row, column))
    ]
    return sum(a * b for a, b in product(*taps)) * layer.out_channels // layer.groups


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_accumulates_of_a_convolution_are_its_synapses_one_by_one(data: st.DataObject) -> None:
    pick = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    pair = lambda low, high: (pick(low, high), pick(low, high))  # noqa: E731
    groups, kernel, dilation, padding = pick(1, 2), pair(1, 3), pair(1, 2), pair(0, 1)
    mode = data.draw(st.sampled_from(["zeros", "circular"]))
    channels = (groups * pick(1, 2), groups * pick(1, 3))
    layer = nn.Conv2d(*channels, kernel, pair(1, 3), padding, dilation, groups, padding_mode=mode)
    x = torch.randint(
        -1, 4, (2, channels[0], pick(5, 7), pick(5, 7)), generator=torch.Generator().manual_seed(pick(0, 99))
    )
    sides, output = (x.shape[2], x.shape[3]), tuple(layer(x.float()).shape[2:])
    expected = sum(
        abs(int(x[n, c, i, j])) * synapses(layer, i, j, sides, output)
        for i, j in product(*map(range, sides))
        for n, c in product(range(2), range(channels[0]))
    )
    assert activity.accumulates(layer, x.float()) == expected


@pytest.mark.parametrize("padding", ["same", "valid", 1])
def test_accumulates_in_one_and_three_dimensions(padding: str | int) -> None:
    rng = torch.Generator().manual_seed(0)
    for dims, kind in ((1, nn.Conv1d), (3, nn.Conv3d)):
        layer = kind(4, 6, 3, padding=padding, groups=2, bias=False)
        x = torch.randint(0, 3, (2, 4, *(5,) * dims), generator=rng).float()
        nn.init.ones_(layer.weight)
        assert activity.accumulates(layer, x) == layer(x).sum().item()
        assert activity.accumulates(layer, x[0]) == layer(x[0]).sum().item()  # without a batch


def test_counting_draws_no_random_number() -> None:
    """Else what comes after it would depend on it."""
    model, before = build(), torch.get_rng_state()
    activity.measure(model, images(), 4)
    assert torch.equal(before, torch.get_rng_state())


# Whole models


def by_hand() -> SNN:
    """Currents 0.5, 1.0 and 0.2 from an image of ones, IF at 1: 2, 4 and 0 spikes in 4 steps; then 0, 1 per step."""
    first, second, third = nn.Linear(16, 3), nn.Linear(3, 2), nn.Linear(2, 2)
    with torch.no_grad():
        for layer in (first, second, third):
            layer.weight.zero_()
            layer.bias.zero_()
        first.bias.copy_(torch.tensor([0.5, 1.0, 0.2]))
        second.weight[1, 1] = 1.0
    fires = [IF(NeuronConfig(name="if"), 4) for _ in range(2)]
    layers = {"flat": nn.Flatten(2), "first": first, "a": fires[0], "second": second, "b": fires[1], "head": third}
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return around(network, steps=4)


def test_everything_by_hand() -> None:
    """6 spikes of 3 neurons, 4 of 2, 4 steps, 5 images of halves, which are analogue."""
    found = measure(by_hand(), torch.full((5, 1, 4, 4), 0.5), batch=2)
    assert found == pytest.approx(
        {
            "firing_rate": (6 + 4) / (12 + 8),
            "firing_rate/a": 6 / 12,
            "firing_rate/b": 4 / 8,
            "silent_share": 0,
            "macs": 4 * 16 * 3,
            "acs": 6 * 2 + 4 * 2,
            "synops": 192 + 20,
            "energy_pj": 4.6 * 192 + 0.9 * 20,
            "ann_energy_pj": 4.6 * (16 * 3 + 3 * 2 + 2 * 2),
            "parameters": 16 * 3 + 3 + 3 * 2 + 2 + 2 * 2 + 2,
        },
        rel=1e-12,
    )


def test_a_layer_without_a_spike_is_told() -> None:
    model = by_hand()
    with torch.no_grad():
        model.network.second.weight.zero_()
    found = measure(model, torch.full((5, 1, 4, 4), 0.5))
    assert (found["silent_share"], found["firing_rate/b"], found["firing_rate"]) == (0.5, 0, 6 / 20)
    assert found["acs"] == 6 * 2


def test_frozen_parameters_are_not_counted() -> None:
    model = by_hand()
    model.network.first.requires_grad_(False)
    assert measure(model, torch.ones(1, 1, 4, 4))["parameters"] == 3 * 2 + 2 + 2 * 2 + 2


def reference(model: SNN, x: Tensor) -> dict[str, float]:
    """Accumulates by the definition, a convolution of |x| with ones; all inputs are kept."""
    inputs: dict[nn.Module, Tensor] = {}
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_pre_hook(lambda m, args: inputs.__setitem__(m, args[0])) for layer in layers]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    acs = macs = ann = 0.0
    for layer, seen in inputs.items():
        ones = torch.ones_like(layer.weight).double()
        if isinstance(layer, nn.Linear):
            events, dense = (seen.double().abs() @ ones.T).sum().item(), seen.numel() * layer.out_features
        else:
            flat = seen.flatten(0, 1).double().abs()
            out = conv2d(flat, ones, None, layer.stride, layer.padding)
            events, dense = out.sum().item(), out.numel() * layer.in_channels * math.prod(layer.kernel_size)
        spikes = all(value >= 0 and value == int(value) for value in seen.unique().tolist())
        acs, macs = acs + events * spikes, macs + dense * (not spikes)
        ann += dense / T
    return {"acs": acs / len(x), "macs": macs / len(x), "ann": ann / len(x)}


@pytest.mark.parametrize(
    ("encoder", "residual", "pooling", "multiplies"),
    [
        ("direct", "sew_add", "max", True),  # the image
        ("phase", "sew_add", "max", False),
        ("latency", "sew_add", "avg", True),  # fractions
        ("phase", "membrane", "max", True),  # currents along the shortcut
    ],
)
def test_a_resnet_against_convolutions_with_ones(encoder: str, residual: str, pooling: str, multiplies: bool) -> None:
    model, x = build(encoder__name=encoder, model__residual=residual, model__pooling=pooling), images()
    found, expected = measure(model, x), reference(model, x)
    assert found["acs"] == expected["acs"] > 0
    assert found["macs"] == expected["macs"]
    assert (found["macs"] > 0) == multiplies
    assert found["ann_energy_pj"] == pytest.approx(4.6 * expected["ann"], rel=1e-12)


@pytest.mark.parametrize("encoder", ["direct", "phase"])
@pytest.mark.parametrize("residual", ["sew_and", "spiking"])
def test_as_spikingjelly_counts(encoder: str, residual: str) -> None:
    """Of 0 and 1 alone: sums of spikes are no spikes there."""
    model, x = build(encoder__name=encoder, model__residual=residual, model__pooling="max"), images(4)
    counters = SynOpCounter(), MACCounter(extra_ignore_modules=[nn.BatchNorm2d])
    with torch.no_grad(), DispatchCounterMode(list(counters)):
        model(x)
    found = measure(model, x)
    assert [found["acs"] * 4, found["macs"] * 4] == [counter.get_total() for counter in counters]
    assert found["acs"] > 0
    cost = SimpleEnergyCostConfig.fp32()
    energy = cost.e_ac_pj * counters[0].get_total() + cost.e_mac_pj * counters[1].get_total()
    assert found["energy_pj"] * 4 == pytest.approx(energy, rel=1e-12)


def test_sums_of_spikes_are_as_many_accumulates() -> None:
    """SEW-ADD hands on twos."""
    model, x, largest = build(encoder__name="phase", neuron__v_threshold=0.2), images(), []
    for module in model.modules():
        if isinstance(module, Conv2d):
            module.register_forward_pre_hook(lambda _m, args: largest.append(args[0].max().item()))
    found = measure(model, x)
    assert max(largest) > 1
    assert found["acs"] == reference(model, x)["acs"]


def test_firing_rates_against_the_spikes_themselves() -> None:
    model, x = build(neuron__v_threshold=0.2), images()
    seen: dict[str, Tensor] = {}
    for name, module in model.network.named_modules():
        if isinstance(module, SpikingNeuron):
            module.register_forward_hook(lambda _m, _in, out, name=name: seen.__setitem__(name, out))
    model(x)
    everything = torch.cat([out.flatten() for out in seen.values()])
    rates = {f"firing_rate/{name}": out.mean().item() for name, out in seen.items()}
    found = measure(model, x)
    assert {name: value for name, value in found.items() if name in rates} == pytest.approx(rates, rel=1e-5)
    assert found["firing_rate"] == pytest.approx(everything.mean().item(), rel=1e-5)
    assert len([name for name in found if name.startswith("firing_rate/")]) == len(seen) > 5


# What is a spike


def test_one_fraction_in_any_batch_makes_a_layer_analogue() -> None:
    """Decided over all images, so that it does not depend on how they are split."""
    model = around(nn.Sequential(nn.Flatten(2), nn.Linear(16, 2)))
    x = torch.ones(5, 1, 4, 4)
    whole = measure(model, x, batch=2)
    assert (whole["acs"], whole["macs"]) == (T * 16 * 2, 0)
    for place in (0, 4):
        x = torch.ones(5, 1, 4, 4)
        x[place, 0, 1, 1] = 0.5
        for batch in (1, 2, 5):
            found = measure(model, x, batch)
            assert (found["acs"], found["macs"]) == (0, T * 16 * 2)


def test_average_pooled_spikes_need_a_multiplier() -> None:
    for pool, acs, macs in ((nn.MaxPool3d((1, 2, 2)), T * 2, 0), (nn.AvgPool3d((1, 2, 2)), 0, T * 4 * 2)):
        x = torch.zeros(1, 1, 4, 4)
        x[0, 0, 0, 0] = 1
        network = nn.Sequential(nn.Unflatten(2, (1, 1)), nn.Flatten(2, 3), pool, nn.Flatten(2), nn.Linear(4, 2))
        found = measure(around(network), x)
        assert (found["acs"], found["macs"]) == (acs, macs)


def test_an_ann_multiplies_and_has_no_firing_rate() -> None:
    found = measure(build(neuron__name="relu"), images())
    assert not [name for name in found if "firing" in name or "silent" in name]
    assert all(map(math.isfinite, found.values()))
    assert found["acs"] == 0
    assert found["energy_pj"] == pytest.approx(T * found["ann_energy_pj"], rel=1e-12)


def test_a_silent_network_costs_its_first_layer() -> None:
    found = measure(build(neuron__v_threshold=1e9), images())
    assert (found["silent_share"], found["firing_rate"]) == (1, 0)
    assert (found["acs"], found["macs"]) == (0, T * 64 * 6 * 9)


# Any model, any input


class Own(nn.Module):
    """A user's network, which hands its convolution and head one of three layouts."""

    def __init__(self, layout: str):
        super().__init__()
        self.layout = layout
        torch.manual_seed(3)
        self.conv, self.fire, self.head = nn.Conv2d(1, 3, 3, 2), IF(NeuronConfig(v_threshold=0.7), T), nn.Linear(3, 2)
        nn.init.constant_(self.conv.weight, 0.1)

    def steps(self, x: Tensor) -> Tensor:
        if self.layout == "loop":
            return torch.stack([self.conv(input=step) for step in x])
        return self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.fire(self.steps(x)).flatten(2)
        return torch.stack([self.head(step) for step in spikes]) if self.layout == "loop" else self.head(spikes)


def test_the_layout_inside_does_not_matter() -> None:
    x = torch.rand((7, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    flat, loop = (measure(around(Own(layout)), x) for layout in ("flat", "loop"))
    assert flat == pytest.approx(loop, rel=1e-12)
    assert flat["macs"] == T * 3 * 9
    assert flat["ann_energy_pj"] == pytest.approx(4.6 * (27 + 6))
    assert 0 < flat["acs"] < T * 6


def test_events() -> None:
    """Frames [n, T, C, H, W]: 2 events on the first step, 1 on the last, each reaching 2 outputs; 5 steps."""
    x = torch.zeros(2, 5, 1, 4, 4)
    x[:, 0, 0, 0, :2] = 1
    x[:, 4, 0, 3, 3] = 1
    found = measure(around(nn.Sequential(nn.Flatten(2), nn.Linear(16, 2)), "frames", steps=5), x)
    assert (found["acs"], found["macs"], found["ann_energy_pj"]) == (6, 0, pytest.approx(4.6 * 32))


@pytest.mark.parametrize("name", ["nmnist", "cifar10_dvs", "dvs_gesture"])
def test_every_count_of_events_is_whole(name: str) -> None:
    """Though it comes as a share of a largest count: 7 of 15 come back as 6.9999995."""
    part = registry.datasets.get(name)
    counts = torch.arange(part.full + 1)
    x = (counts * (255 // part.full)).to(torch.uint8).float().div(255).view(1, -1, 1, 1, 1).expand(1, -1, 2, 1, 1)
    model = SNN(
        Frames(EncoderConfig(name="frames", time_steps=len(counts))),
        nn.Sequential(nn.Flatten(2), nn.Linear(2, 3)),
        part.spec,
    )
    found = activity.measure(model, x, 1)
    assert found["activity/macs"] == 0
    assert found["activity/acs"] == int(counts.sum()) * 2 * 3


def test_an_encoder_of_its_own_runs_once_an_image() -> None:
    class Learned(nn.Module):
        binary, random = True, False

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).expand(T, *x.shape)

    model = SNN(Learned(), nn.Sequential(nn.Flatten(2), nn.Linear(16, 2)), SPEC)
    found = measure(model, torch.full((2, 1, 4, 4), 0.5))
    assert (found["macs"], found["ann_energy_pj"]) == (16 + T * 32, pytest.approx(4.6 * (16 + 32)))


def test_noise_is_drawn_once_and_by_the_seed() -> None:
    model, found = build(encoder__name="poisson"), []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(measure(model, images()))
    assert found[0] == found[1]
    torch.manual_seed(6)
    assert measure(model, images()) != found[0]


def test_a_mix_costs_both() -> None:
    """Each with its own time steps."""
    parts, x = (build(), build(encoder__time_steps=2, encoder__name="phase")), images()
    whole, alone = measure(Mix(*parts, weight=0.5), x), [measure(part, x) for part in parts]
    for name in ("acs", "macs", "energy_pj", "ann_energy_pj", "parameters"):
        assert whole[name] == pytest.approx(sum(found[name] for found in alone), rel=1e-12), name
    assert whole["firing_rate/robust.stem.neuron"] == alone[1]["firing_rate/stem.neuron"]


def test_batches_do_not_matter() -> None:
    model, x = build(encoder__name="phase"), images(7)
    whole = measure(model, x, batch=7)
    for batch in (1, 3):
        assert measure(model, x, batch) == pytest.approx(whole, rel=1e-12)


def test_the_first_samples_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "SAMPLES", 3)
    model, x = build(), images(5)
    assert measure(model, x) == measure(model, x[:3]) != measure(model, x[1:4])


def test_the_latency_is_that_of_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass takes 10 ms an image; the first two of one image are slower and do not count."""
    seen: list[int] = []
    clock = [0.0]
    monkeypatch.setattr(activity, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    class Slow(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            seen.append(z.shape[1])
            clock[0] += 0.01 * seen[-1] + 0.1 * (seen.count(1) <= 2)
            return z.flatten(2)

    monkeypatch.setattr(activity, "REPEATS", 2)
    found = activity.measure(around(nn.Sequential(Slow(), nn.Linear(16, 2))), torch.rand(6, 1, 4, 4), 6)
    assert found["time/latency_ms"] == pytest.approx(10)
    assert seen == [6, *[1] * 4]


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError


@pytest.mark.parametrize("breaks", [False, True])
def test_the_model_is_left_as_it_was(breaks: bool) -> None:
    model = build().train()
    model.network.stem.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    if breaks:
        model.network.head = Broken()
        with pytest.raises(ZeroDivisionError):
            activity.measure(model, images(), 4)
    else:
        activity.measure(model, images(), 4)
    state = model.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in state.items())
    assert modes == [module.training for module in model.modules()]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
