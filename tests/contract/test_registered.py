"""What every registered part has to keep, built in or not: each test runs over all the names that there are."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snnsweep import models, neurons, registry
from snnsweep.attacks import Attack, Threat
from snnsweep.attacks.suites import Suite
from snnsweep.config import EncoderConfig, Flat, NeuronConfig, TrialConfig
from snnsweep.models import SNN
from snnsweep.registry import Registry

T = 3
RESERVED = {"n", "low", "high", "clean", "unattacked", "eps"}  # what robust_accuracy/ holds beside the attacks


def config(**own: object) -> TrialConfig:
    flat: Flat = {"model.depth": 10, "model.width": 0.05, "encoder.time_steps": T, "neuron.v_threshold": 0.5}
    return TrialConfig.from_flat({**flat, **{key.replace("__", "."): value for key, value in own.items()}})


def build(settings: TrialConfig) -> SNN:
    """A fresh model in training mode, whose batch statistics have seen something."""
    torch.manual_seed(0)
    model = models.build(settings)
    with torch.no_grad():
        for _ in range(5):
            model(torch.rand(8, 1, 8, 8))
    return model


def batch(n: int = 6) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.rand((n, 1, 8, 8), generator=rng), torch.arange(n)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_registry_is_listed() -> None:
    assert set(registry.KINDS.values()) == {value for value in vars(registry).values() if isinstance(value, Registry)}


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_part_says_what_it_is(kind: str) -> None:
    parts = registry.KINDS[kind]
    assert parts.names()
    assert not [name for name in parts.names() if not parts.about(name)]


@pytest.mark.parametrize("name", registry.datasets.names())
def test_data_set(name: str) -> None:
    part = registry.datasets.get(name)
    spec = getattr(part, "spec", None)
    if spec is None:  # known only from the user's files
        assert "data.path" in part.needs
        return
    assert min(spec.channels, spec.height, spec.width) >= 1
    assert spec.classes >= 2
    assert len(spec.mean) == len(spec.std) == spec.channels
    assert all(0 <= mean <= 1 for mean in spec.mean)
    assert all(0 < std <= 0.5 for std in spec.std)  # of values in [0, 1]


@pytest.mark.parametrize("time_steps", [2, 5])
@pytest.mark.parametrize("name", registry.encoders.names())
def test_encoder(name: str, time_steps: int) -> None:
    encoder = registry.encoders.get(name)(EncoderConfig(name=name, time_steps=time_steps))
    x = torch.linspace(0, 1, 2 * 3 * 4 * 5).view(2, 3, 4, 5)
    if name == "frames":  # its samples are sequences
        x = x.unsqueeze(1).repeat(1, time_steps, 1, 1, 1)
    x.requires_grad_()
    torch.manual_seed(0)
    code = encoder(x)
    assert code.shape == (time_steps, 2, 3, 4, 5)
    assert code.dtype == x.dtype
    assert encoder.bounded == bool(((code >= 0) & (code <= 1)).all())
    assert encoder.binary == bool(((code == 0) | (code == 1)).all())
    assert encoder.random != torch.equal(code, encoder(x))
    weight = torch.rand(code.shape, generator=torch.Generator().manual_seed(0))
    (grad,) = torch.autograd.grad((weight * code).sum(), x)
    assert grad.isfinite().all()
    assert (grad != 0).all()  # no pixel is out of an attack's reach


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("name", registry.neurons.names())
def test_neuron(name: str, reset: str) -> None:
    torch.manual_seed(0)
    neuron = neurons.build(NeuronConfig(name=name, reset=reset), T)
    current = (4 * torch.rand((T, 2, 3, 4, 4), generator=torch.Generator().manual_seed(0)) - 1).requires_grad_()
    spikes = neuron(current)
    assert spikes.shape == current.shape
    assert spikes.dtype == current.dtype
    if isinstance(neuron, neurons.SpikingNeuron):  # relu does not spike
        assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(neuron(current), spikes)  # no state outlives a call
    grads = torch.autograd.grad(spikes.sum(), [current, *neuron.parameters()])
    assert all(grad.isfinite().all() and (grad != 0).any() for grad in grads)
    assert not neuron(torch.zeros(T, 2)).any()  # at rest without input


@pytest.mark.parametrize("own", [{"learn_threshold": True}, {"noise": 0.3}])
@pytest.mark.parametrize("name", [name for name in registry.neurons.names() if name != "relu"])
def test_neuron_on_request(name: str, own: dict[str, object]) -> None:
    torch.manual_seed(0)
    plain = neurons.build(NeuronConfig(name=name), T)
    neuron = neurons.build(NeuronConfig(name=name, **own), T)
    values = {name: value.clone() for name, value in plain.state_dict().items()}
    neuron.load_state_dict(values, strict=False)
    current = (4 * torch.rand(T, 50, generator=torch.Generator().manual_seed(0)) - 1).requires_grad_()
    assert neuron.random == ("noise" in own) != torch.equal(neuron(current), plain(current))
    assert set(neuron(current).unique().tolist()) == {0.0, 1.0}
    grads = torch.autograd.grad(neuron(current).sum(), [current, *neuron.parameters()])
    assert all(grad.isfinite().all() and (grad != 0).any() for grad in grads)


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("name", registry.norms.names())
def test_norm(name: str, branches: int) -> None:
    """In training the batch's statistics count, and are remembered; after it samples do not see each other."""
    norm = registry.norms.get(name)(5, config(model__norm=name), branches=branches)
    x = (3 + 2 * torch.randn((T, 400, 5, 2, 3), generator=torch.Generator().manual_seed(0))).requires_grad_()
    out = norm.train()(x)
    assert out.shape == x.shape
    torch.testing.assert_close(out.mean((0, 1, 3, 4)), torch.zeros(5), atol=1e-3, rtol=0)
    deviation = out.std((0, 1, 3, 4))
    torch.testing.assert_close(deviation, deviation[0].expand(5))
    grads = torch.autograd.grad((out * torch.rand_like(out)).sum(), [x, *norm.parameters()])
    assert all(grad.isfinite().all() and (grad != 0).any() for grad in grads)
    for _ in range(100):
        norm(x)
    torch.testing.assert_close(norm.eval()(x), out, atol=1e-2, rtol=0)
    torch.testing.assert_close(norm(x)[:, :7], norm(x[:, :7]))


@pytest.mark.parametrize("name", registry.losses.names())
def test_loss(name: str) -> None:
    loss, settings = registry.losses.get(name), config(train__loss=name)
    y = torch.arange(6)
    right = torch.nn.functional.one_hot(y, 10).float().expand(T, 6, 10)
    steps = torch.randn((T, 6, 10), generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = loss(steps, y, settings)
    assert value.shape == ()
    assert value.isfinite()
    assert (torch.autograd.grad(value, steps)[0] != 0).all()
    assert loss(right, y, settings) < loss(right, y.flip(0), settings)


@pytest.mark.parametrize("alpha", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("name", registry.surrogates.names())
def test_surrogate(name: str, alpha: float) -> None:
    """A density around the threshold: even, not negative, of mass 1 (u = tan(angle) brings infinity near)."""
    surrogate, n = registry.surrogates.get(name), 200_000
    angle = (torch.arange(n, dtype=torch.float64) + 0.5) / n * torch.pi - torch.pi / 2
    u = angle.tan()
    density = surrogate(u, alpha=alpha)
    assert density.shape == u.shape
    assert (density >= 0).all()
    torch.testing.assert_close(density, surrogate(-u, alpha=alpha))
    mass = (density / angle.cos().square()).mean().item() * torch.pi
    assert mass == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(density.max(), density[n // 2])  # at the threshold


def depth(model: str) -> int:
    return getattr(registry.models.get(model), "depths", (10,))[0]


@pytest.mark.parametrize(("name", "residual"), list(product(registry.models.names(), registry.residuals.names())))
def test_model(name: str, residual: str) -> None:
    own = {"model__name": name, "model__residual": residual, "model__depth": depth(name), "model__width": 0.2}
    model = build(config(neuron__v_threshold=0.2, **own)).train()  # few spikes would fall silent behind an AND
    x, y = batch()
    x.requires_grad_()
    logits = model(x)
    assert logits.shape == (6, 10)
    assert logits.isfinite().all()
    grads = torch.autograd.grad(cross_entropy(logits, y), [x, *model.parameters()])
    assert all(grad.isfinite().all() for grad in grads)
    assert (grads[0] != 0).any()
    model.eval()
    torch.testing.assert_close(model(x)[:2], model(x[:2]))  # samples do not see each other


@pytest.mark.parametrize("space", ["pixel", "encoded"])
@pytest.mark.parametrize("encoder", ["direct", "poisson"])
@pytest.mark.parametrize("objective", registry.trainers.names())
def test_training_objective(objective: str, encoder: str, space: str) -> None:
    settings = config(train__objective=objective, encoder__name=encoder, threat__space=space)
    model = build(settings).train()
    loss = registry.trainers.get(objective)(model, *batch(), settings, torch.Generator().manual_seed(0))
    assert loss.shape == ()
    assert loss.isfinite()
    grads = torch.autograd.grad(loss, list(model.parameters()))
    assert any((grad != 0).any() for grad in grads)
    assert model.training


def brief(attack: Any) -> Any:
    """The attack with a small budget: thousands of queries prove no more of the contract."""
    budget = {name: 20 for name in ("steps", "draws", "queries") if getattr(attack, name, 0) > 20}
    return replace(attack, **budget)


@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("space", ["pixel", "encoded"])
@pytest.mark.parametrize("name", registry.attacks.names())
def test_attack(name: str, space: str, eps: float) -> None:
    attack, threat = brief(registry.attacks.get(name)()), Threat(eps=eps, space=space)
    assert isinstance(attack, Attack)
    model, (x, y) = build(config()), batch()
    model.network.head.eval()
    before, modes = state(model), [module.training for module in model.modules()]
    outcome = attack.run(model, x, y, threat, torch.Generator().manual_seed(0))
    assert equal(before, state(model))
    assert modes == [module.training for module in model.modules()]
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    start, forward = (x, model) if space == "pixel" else (model.encode(x), model.forward_encoded)
    assert outcome.adversarial.shape == start.shape
    assert (outcome.adversarial - start).abs().max() <= eps + 1e-6
    assert outcome.adversarial.min() >= 0
    assert outcome.adversarial.max() <= 1
    assert torch.equal(outcome.success, forward(outcome.adversarial).argmax(1) != y)
    again = attack.run(model, x, y, threat, torch.Generator().manual_seed(0))
    assert torch.equal(again.adversarial, outcome.adversarial)


@pytest.mark.parametrize(
    "own", [{}, {"neuron__name": "psn", "encoder__name": "poisson"}, {"neuron__noise": 0.2}, {"neuron__name": "relu"}]
)
@pytest.mark.parametrize("name", registry.rules.names())
def test_rule(name: str, own: dict[str, object]) -> None:
    rule, (x, y) = registry.rules.get(name)(), batch()
    model = build(config(neuron__v_threshold=0.2, **own)).eval()  # no layer falls silent
    x.requires_grad_()

    def answers() -> tuple[Tensor, Tensor]:
        torch.manual_seed(2)
        logits = model(x)
        return logits.detach(), torch.autograd.grad(cross_entropy(logits, y), x)[0]

    assert {rule} == {registry.rules.get(name)()}  # equal settings are one rule
    before, (logits, grad) = state(model), answers()
    with rule(model):
        inside = answers()
    assert torch.equal(inside[0], logits)  # the forward pass stays exact, and draws as much
    assert inside[1].isfinite().all()
    assert (inside[1] != 0).any()
    assert torch.equal(answers()[1], grad)
    with rule(model):
        assert torch.equal(answers()[1], inside[1])  # a run begins as the last one did
    with pytest.raises(ZeroDivisionError), rule(model):
        raise ZeroDivisionError
    assert torch.equal(answers()[1], grad)
    assert equal(before, state(model))


@pytest.mark.parametrize("name", registry.suites.names())
def test_suite(name: str) -> None:
    suite = registry.suites.get(name)()
    assert isinstance(suite, Suite)
    labels = [step.label for step in suite.steps]
    assert labels
    assert len(set(labels)) == len(labels)
    assert not RESERVED & set(labels)
    assert all(isinstance(step.attack, Attack) for step in suite.steps)
    assert all("." in key for key in suite.defaults)
    with_it = config(attack__suite=name).to_flat()  # raises where a key or a value is not valid
    assert with_it.items() >= suite.defaults.items()
    assert suite.rules(models.build(config()))
