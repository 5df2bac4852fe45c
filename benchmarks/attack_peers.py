"""The other ways to attack a spiking network, for benchmarks/attacks.py: the paper's, torchattacks', foolbox'.

All see the same weights. spikingjelly's network is ours with each layer replaced by spikingjelly's own in multi-step
mode, wired alike (tests/models/test_resnet.py compares the wiring with spikingjelly's models).
"""

from collections.abc import Callable
from copy import deepcopy
from importlib import import_module
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from snnsweep.models import SNN
from snnsweep.neurons import IF, LIF, PLIF, SpikingNeuron

EPS, STEPS, REL_STEP = 8 / 255, 7, 0.25
Verdicts = tuple[Tensor, Tensor]  # adversarial batch; bool [N], fooled at some point that the model was asked about


class Spikingjelly(nn.Module):
    """An `SNN` under direct coding, of spikingjelly's layers."""

    def __init__(self, model: SNN):
        super().__init__()
        self.time_steps = model.encoder.time_steps
        self.normalize, self.network = deepcopy(model.normalize), deepcopy(model.network)
        for name, module in list(self.network.named_modules()):
            theirs = _theirs(module)
            if theirs is not None:
                parent, _, own = name.rpartition(".")
                setattr(self.network.get_submodule(parent), own, theirs)
        functional.set_step_mode(self.network, "m")

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self.network)
        z = self.normalize(x.unsqueeze(0)).repeat(self.time_steps, 1, 1, 1, 1)
        return self.network(z).mean(0)


def _theirs(module: nn.Module) -> nn.Module | None:
    """spikingjelly's layer in place of one of ours, with its weights; None of what has none."""
    if isinstance(module, SpikingNeuron):
        return _neuron(module)
    window = {name: getattr(module, name) for name in ("kernel_size", "stride", "padding") if hasattr(module, name)}
    if isinstance(module, nn.Conv2d):
        made: nn.Module = layer.Conv2d(module.in_channels, module.out_channels, bias=module.bias is not None, **window)
    elif isinstance(module, nn.BatchNorm2d):
        made = layer.BatchNorm2d(module.num_features, module.eps, module.momentum)
    elif isinstance(module, nn.MaxPool2d):
        made = layer.MaxPool2d(**window)
    elif isinstance(module, nn.AdaptiveAvgPool2d):
        made = layer.AdaptiveAvgPool2d(module.output_size)
    else:
        return None
    made.load_state_dict(module.state_dict())
    return made


def _neuron(module: SpikingNeuron) -> nn.Module:
    alpha = module.surrogate.keywords["alpha"]  # type: ignore[attr-defined]
    own = {"v_threshold": module.v_threshold, "surrogate_function": surrogate.ATan(alpha=alpha)}
    own |= {"detach_reset": module.detach_reset, "v_reset": 0.0 if module.reset == "hard" else None}
    match module:
        case PLIF():
            made = neuron.ParametricLIFNode(**own)
            made.w.data.copy_(module.w.data)
            return made
        case LIF():
            return neuron.LIFNode(module.tau, **own)
        case IF():
            return neuron.IFNode(**own)
    raise ValueError(f"{type(module).__name__} has no likeness in spikingjelly")


class Judged(nn.Module):
    """A model that notes on the way which samples it gets wrong: any iterate counts, as everywhere in snnsweep."""

    def __init__(self, model: nn.Module, y: Tensor):
        super().__init__()
        self.model, self.y, self.fooled = model, y, torch.zeros_like(y, dtype=torch.bool)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        self.fooled |= logits.detach().argmax(1) != self.y
        return logits


def papers_way(model: nn.Module, x: Tensor, y: Tensor, steps: int = STEPS) -> Verdicts:
    """As the code of the gradient-sparsity paper attacks (arXiv 2509.23762), from the clean images.

    In training mode, with a backward pass to every parameter that keeps the graph, and the loss read at every step.
    Afterwards the model is as before.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    adv, fooled = x.clone(), torch.zeros_like(y, dtype=torch.bool)
    for _ in range(steps):
        adv = adv.detach().requires_grad_()
        logits = model(adv)
        loss = nn.functional.cross_entropy(logits, y)
        loss.backward(retain_graph=True)
        fooled |= logits.detach().argmax(1) != y
        loss.item()
        assert adv.grad is not None
        adv = adv.detach() + REL_STEP * EPS * adv.grad.sign()
        adv = torch.minimum(torch.maximum(adv, x - EPS), x + EPS).clamp(0, 1)
    functional.reset_net(model)
    model.eval().zero_grad(set_to_none=True)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return adv, fooled


def torchattacks(model: nn.Module, x: Tensor, y: Tensor, steps: int = STEPS) -> Verdicts:
    judged = Judged(model, y).eval()
    attack = import_module("torchattacks").PGD(judged, EPS, REL_STEP * EPS, steps, random_start=False)
    return attack(x, y), judged.fooled


def foolbox(model: nn.Module, x: Tensor, y: Tensor, steps: int = STEPS) -> Verdicts:
    judged, peer = Judged(model, y).eval(), import_module("foolbox")
    attack = peer.attacks.LinfPGD(steps=steps, abs_stepsize=REL_STEP * EPS, random_start=False)
    _, clipped, _ = attack(peer.PyTorchModel(judged, bounds=(0, 1), device="cpu"), x, y, epsilons=EPS)
    return clipped, judged.fooled


def in_batches(
    attack: Callable[..., Verdicts], model: nn.Module, x: Tensor, y: Tensor, batch: int, **own: Any
) -> Tensor:
    """bool [n]: fooled at some point asked about, or at the end."""
    fooled = []
    for part, labels in zip(x.split(batch), y.split(batch), strict=True):
        adv, on_the_way = attack(model, part, labels, **own)
        with torch.no_grad():
            fooled.append(on_the_way | (model(adv).argmax(1) != labels))
    return torch.cat(fooled)
