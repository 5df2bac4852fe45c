"""The classifier around a network, with parts small enough to compute by hand; the ANN twins of all models."""

from itertools import product

import pytest
import torch
import torchvision
from spikingjelly.activation_based.model import sew_resnet
from torch import Tensor, nn

from snnsweep import models, registry
from snnsweep.config import DataConfig, EncoderConfig, Flat, ImageSpec, ModelConfig, TrialConfig
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


@pytest.mark.parametrize("pooling", ["max", "avg", "stride", "none"])
@pytest.mark.parametrize("name", registry.models.names())
def test_images_of_any_shape(name: str, pooling: str) -> None:
    config = TrialConfig.from_flat({"model.name": name, "model.width": 0.05, "model.pooling": pooling})
    for height, width in [(1, 1), (5, 9), (13, 2), (34, 34)]:
        snn = models.build(config, ImageSpec(2, height, width, 3, (0.5,) * 2, (0.25,) * 2)).eval()
        x = torch.rand(2, 2, height, width).requires_grad_()
        logits = snn(x)
        assert logits.shape == (2, 3)
        (grad,) = torch.autograd.grad(logits.square().sum(), x)
        assert grad.isfinite().all()


RGB = ImageSpec(3, 32, 32, 7, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
TWINS = list(product(registry.models.names(), registry.residuals.names(), ["batch", "tdbn"]))


def twin(images: ImageSpec, **model: object) -> models.SNN:
    """The ANN twin of a variant, in eval mode, with batch norms that are not the identity."""
    given: Flat = {"encoder.name": "phase", "encoder.time_steps": 3, "neuron.v_threshold": 0.7}
    config = TrialConfig.from_flat(given | {f"model.{key}": value for key, value in model.items()})
    ann = models.build(models.twin(config), images)
    for m in ann.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.5, 0.5)
            nn.init.uniform_(m.running_mean, -0.5, 0.5)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
    return ann.eval()


def assert_same_answers(ann: models.SNN, oracle: nn.Module) -> None:
    theirs, values = oracle.state_dict(), ann.network.state_dict().values()
    oracle.load_state_dict({k: v.view(theirs[k].shape) for k, v in zip(theirs, values, strict=True)})
    x = torch.rand(4, 3, 32, 32)
    seen = (x - torch.tensor(RGB.mean).view(3, 1, 1)) / torch.tensor(RGB.std).view(3, 1, 1)
    logits = ann(x)
    assert (logits[0] - logits[1]).abs().max() > 1e-3  # else equality would be easy
    torch.testing.assert_close(logits, oracle.eval()(seen), rtol=1e-4, atol=1e-5)


def test_twin_of_a_spiking_resnet_is_the_resnet() -> None:
    torch.manual_seed(0)
    ann = twin(RGB, depth=18, residual="spiking", stem="imagenet")
    assert_same_answers(ann, torchvision.models.resnet18(num_classes=7))


@pytest.mark.parametrize(("residual", "join"), [("sew_add", "ADD"), ("sew_and", "AND"), ("sew_iand", "IAND")])
def test_twin_of_a_sew_resnet_has_relu_in_its_place(residual: str, join: str) -> None:
    torch.manual_seed(0)
    ann = twin(RGB, depth=10, residual=residual, stem="imagenet")
    sew = sew_resnet.SEWResNet(sew_resnet.BasicBlock, [1] * 4, num_classes=7, cnf=join, spiking_neuron=nn.ReLU)
    assert_same_answers(ann, sew)


def test_twin_of_a_vgg_is_the_vgg() -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    inputs = 3
    for i, outputs in enumerate([16, 16, 32, 32, 64, 64, 64], start=1):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
        if i in (2, 4, 7):
            layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(64 * 4 * 4, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 7)]
    assert_same_answers(twin(RGB, name="vgg", depth=9, width=0.25), nn.Sequential(*layers))


@pytest.mark.parametrize(("name", "residual", "norm"), TWINS)
def test_twin_has_the_same_weights(name: str, residual: str, norm: str) -> None:
    config = TrialConfig.from_flat(
        {"model.name": name, "model.residual": residual, "model.norm": norm, "model.width": 0.05, "neuron.name": "plif"}
    )
    spiking, ann = models.build(config), models.build(models.twin(config))
    shapes = [{k: v.shape for k, v in m.state_dict().items() if "neuron" not in k} for m in (spiking, ann)]
    assert shapes[0] == shapes[1]
    assert [name for name, _ in spiking.named_modules()] == [name for name, _ in ann.named_modules()]
    assert len(ann.state_dict()) == len(shapes[1]) < len(spiking.state_dict())


@pytest.mark.parametrize("model", [{"depth": 10, "residual": "membrane"}, {"name": "vgg", "pooling": "avg"}])
def test_gradient_of_a_twin_is_exact(model: dict[str, object]) -> None:
    torch.manual_seed(0)
    ann = twin(SPEC, width=0.05, **model).double()
    x = torch.rand(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(ann(x).square().sum(), x)[0].abs().max() > 1e-6  # else exactness would be easy
    assert torch.autograd.gradcheck(ann, x)


def test_twin_changes_three_keys() -> None:
    config = TrialConfig.from_flat({"encoder.name": "poisson", "neuron.alpha": 3.0, "train.objective": "natural"})
    before, after = config.to_flat(), models.twin(config).to_flat()
    changed = {key: after[key] for key in before if before[key] != after[key]}
    assert changed == {"neuron.name": "relu", "encoder.name": "direct", "encoder.time_steps": 1}
    assert models.twin(models.twin(config)) == models.twin(config)


def test_twin_of_event_data_keeps_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.datasets, "_parts", dict(registry.datasets._parts))

    @registry.datasets.register("gestures")
    class Gestures:
        spec = ImageSpec(2, 8, 8, 3, (0.0, 0.0), (0.25, 0.25), frames=True)

    given: Flat = {"data.name": "gestures", "encoder.name": "frames", "encoder.time_steps": 5, "model.width": 0.05}
    config = models.twin(TrialConfig.from_flat(given))
    assert (config.neuron.name, config.encoder.name, config.encoder.time_steps) == ("relu", "frames", 5)
    ann = models.build(config).eval()
    assert ann(torch.rand(2, 5, 2, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (7, 2), (3, 1), (1, 2)])
def test_bf16_weight_gradient_on_maps_of_one_pixel(kernel: int, stride: int) -> None:
    """Only the kernel's middle ever sees the pixel: every other gradient is 0, whatever lay in memory before."""
    conv, x = Conv2d(4, 8, kernel, stride, padding=kernel // 2, bias=False), torch.randn(3, 2, 4, 1, 1)
    for _ in range(20):
        torch.full_like(conv.weight, 1e9, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x)
    assert out.dtype == torch.bfloat16
    (grad,) = torch.autograd.grad(out.float().sum(), conv.weight)
    expected = torch.zeros_like(grad)
    expected[:, :, kernel // 2, kernel // 2] = x.sum((0, 1)).flatten()
    torch.testing.assert_close(grad, expected, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("bare", [{"affine": False}, {"track_running_stats": False}])
def test_norms_without_weight_or_statistics_are_torchs(bare: dict[str, bool]) -> None:
    x = torch.rand(2, 3, 4, 5, 5, requires_grad=True)
    norm, plain = BatchNorm2d(4, **bare).eval(), nn.BatchNorm2d(4, **bare).eval()
    assert torch.equal(norm(x), plain(x.flatten(0, 1)).unflatten(0, (2, 3)))
