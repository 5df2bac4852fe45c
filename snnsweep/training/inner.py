"""The inner maximisation: the worst point of the ball around a batch, for the model as it stands.

It runs in eval mode, moves no buffer and no parameter gradient, and lives in the threat's space, with the radius and
steps of `train.*`. Its last iterate counts, as in Madry et al., and not the first point that fools the model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from snnsweep.attacks import Oracle, Threat
from snnsweep.attacks.base import frozen, untouched
from snnsweep.attacks.gradient import FGSM, PGD
from snnsweep.attacks.losses import Loss, cross_entropy
from snnsweep.config import TrialConfig
from snnsweep.models import SNN

NOISE = 0.001  # of TRADES' start


@dataclass(frozen=True)
class Inputs:
    """A batch as the threat sees it.

    Attributes:
        clean: what may be perturbed: images [N, C, H, W], or their code [T, N, C, H, W].
        steps: from there to the fp32 logits [T, N, classes] of all time steps, whatever the layers compute in.
    """

    clean: Tensor
    steps: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, model: SNN, x: Tensor, config: TrialConfig) -> "Inputs":
        """The images x [N, C, H, W] in [0, 1] in the space of the config's threat."""
        if config.threat.space == "pixel":
            return cls(x, lambda image: model.forward_steps(model.encode(image)).float())
        with torch.no_grad():
            code = model.encode(x).contiguous()
        return cls(code, lambda code: model.forward_steps(code).float())

    def logits(self, z: Tensor) -> Tensor:
        """The mean over time [N, classes]."""
        return self.steps(z).mean(0)


class _Near(Threat):
    """A ball whose random start is TRADES': Gaussian noise of 0.001 around the clean point, cut with ball and box."""

    def random_start(self, x: Tensor, rng: torch.Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=rng, device=rng.device).to(x)
        return self.project(x + NOISE * noise, x)


def adversarial(model: SNN, inputs: Inputs, y: Tensor, config: TrialConfig, rng: torch.Generator) -> Tensor:
    """The end of PGD on the cross-entropy of the mean logits; of FGSM where `train.attack_steps` is 1."""
    single = config.train.attack_steps == 1
    attack = FGSM() if single else PGD(config.train.attack_steps, config.train.attack_rel_step)
    return _end(model, inputs, y, attack, _threat(Threat, config), rng, cross_entropy)


def divergent(model: SNN, inputs: Inputs, y: Tensor, config: TrialConfig, rng: torch.Generator) -> Tensor:
    """The end of PGD on KL(clean || adversarial), from `_Near`'s start: at the clean point itself the slope is 0.

    In a spiking network that noise often turns no spike, and the slope is then mere rounding error. A sample where it
    is exactly 0 stays at its start (on digits at eps 0.1: 2 to 12 % of the samples, by encoder and space).
    """
    with untouched(model), torch.no_grad():
        clean = inputs.logits(inputs.clean)
    attack = PGD(config.train.attack_steps, config.train.attack_rel_step)
    threat = _threat(_Near, config)
    return _end(model, inputs, y, attack, threat, rng, lambda logits, _: divergence(clean, logits))


def divergence(clean: Tensor, adversarial: Tensor) -> Tensor:
    """KL(softmax(clean) || softmax(adversarial)) of each sample, [N], of logits [N, classes]."""
    log_clean, log_adversarial = log_softmax(clean, 1), log_softmax(adversarial, 1)
    return kl_div(log_adversarial, log_clean, reduction="none", log_target=True).sum(1)


def _threat(kind: type[Threat], config: TrialConfig) -> Threat:
    return kind(eps=config.train.eps, norm=config.threat.norm, space=config.threat.space)


def _end(
    model: SNN, inputs: Inputs, y: Tensor, attack: PGD, threat: Threat, rng: torch.Generator, loss: Loss
) -> Tensor:
    with untouched(model), frozen(model):
        oracle = Oracle(inputs.logits, inputs.clean, y, threat, loss)
        return attack.propose(oracle, inputs.clean, y, threat, rng)
