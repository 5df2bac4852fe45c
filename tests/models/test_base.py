"""The classifier around a network, with an encoder and a network small enough to compute by hand."""

import pytest
import torch
from torch import Tensor, nn

from snnsweep import models, registry
from snnsweep.config import DataConfig, EncoderConfig, ImageSpec, ModelConfig, TrialConfig
from snnsweep.models.base import AdaptiveAvgPool2d as GlobalPool
from snnsweep.models.base import AvgPool2d, BatchNorm2d, Conv2d, MaxPool2d, Normalize

SPEC = ImageSpec(channels=2, height=3, width=3, classes=2, mean=(0.5, 0.2), std=(0.25, 0.1))


class Ramp(nn.Module):
    """Step t shows x * (t + 1)."""

    def __init__(self, binary: bool, random: bool = False):
        super().__init__()
        self.binary, self.random = binary, random

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x, 2 * x, 3 * x])


class ChannelMeans(nn.Module):
    """Logit c is the mean of channel c."""

    def forward(self, z: Tensor) -> Tensor:
        return z.mean((3, 4))


def test_logits_by_hand() -> None:
    x = torch.full((1, 2, 3, 3), 0.4)
    snn = models.SNN(Ramp(binary=False), ChannelMeans(), SPEC)  # mean over T of the code: 0.8
    torch.testing.assert_close(snn(x), torch.tensor([[(0.8 - 0.5) / 0.25, (0.8 - 0.2) / 0.1]]))


def test_spike_codes_are_not_normalised() -> None:
    x = torch.full((1, 2, 3, 3), 0.4)
    torch.testing.assert_close(models.SNN(Ramp(binary=True), ChannelMeans(), SPEC)(x), torch.full((1, 2), 0.8))


@pytest.mark.parametrize("binary", [True, False])
def test_forward_is_encode_then_forward_encoded(binary: bool) -> None:
    snn = models.SNN(Ramp(binary), ChannelMeans(), SPEC)
    x = torch.rand(4, 2, 3, 3)
    z = snn.encode(x)
    assert torch.equal(z, snn.encoder(x))
    assert torch.equal(snn(x), snn.forward_encoded(z))
    assert snn(x).shape == (4, 2)


@pytest.mark.parametrize("random", [True, False])
def test_random_is_the_encoders(random: bool) -> None:
    assert models.SNN(Ramp(False, random), ChannelMeans(), SPEC).random is random


def test_normalisation_travels_with_the_model_but_is_not_trained() -> None:
    snn = models.SNN(Ramp(False), ChannelMeans(), SPEC)
    assert {"normalize.mean", "normalize.std"} <= snn.state_dict().keys()
    assert list(snn.parameters()) == []


def test_normalize_acts_per_channel() -> None:
    z = torch.rand(3, 5, 2, 4, 4)
    out = Normalize(SPEC.mean, SPEC.std)(z)
    for c in range(2):
        torch.testing.assert_close(out[:, :, c] * SPEC.std[c] + SPEC.mean[c], z[:, :, c])


@pytest.mark.parametrize(
    ("layer", "plain"),
    [
        (Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(2, 3, 3, stride=2, padding=1)),
        (MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1)),
        (AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)),
        (GlobalPool(1), nn.AdaptiveAvgPool2d(1)),
    ],
)
def test_layers_see_each_step_alone(layer: nn.Module, plain: nn.Module) -> None:
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(3, 2, 2, 7, 5)
    torch.testing.assert_close(layer(x), torch.stack([plain(step) for step in x]))


def test_batch_statistics_are_over_time_and_samples() -> None:
    x = torch.randn(3, 4, 2, 5, 5) * 3 + 1
    out = BatchNorm2d(2, eps=1e-12)(x)
    mean, std = x.mean((0, 1, 3, 4), keepdim=True), x.std((0, 1, 3, 4), correction=0, keepdim=True)
    torch.testing.assert_close(out, (x - mean) / std)


@pytest.mark.parametrize(("data", "shape"), [("digits", (1, 8, 8)), ("cifar10", (3, 32, 32))])
def test_build_follows_the_config(data: str, shape: tuple[int, int, int]) -> None:
    config = TrialConfig.model_construct(
        data=DataConfig(name=data),
        encoder=EncoderConfig(name="direct", time_steps=3),
        model=ModelConfig(depth=10, width=0.125),
    )
    snn = models.build(config).eval()
    spec = registry.datasets.get(data).spec
    x = torch.rand(2, *shape)
    assert snn.encode(x).shape == (3, 2, *shape)
    assert snn(x).shape == (2, spec.classes)
    assert snn.normalize.mean.flatten().tolist() == pytest.approx(list(spec.mean))


def test_same_seed_same_weights() -> None:
    config = TrialConfig.model_construct(model=ModelConfig(depth=10, width=0.125))
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(models.build(config).network.get_submodule("stem.conv").weight)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
