"""The switches that decide what float32 is computed in."""

from typing import Any

import pytest
import torch
from torch import backends, nn

from snnsweep.attacks import Threat
from snnsweep.attacks.base import attacked
from snnsweep.attacks.gradient import FGSM
from snnsweep.config import TrialConfig
from snnsweep.data import Split
from snnsweep.precision import arithmetic
from snnsweep.training.loop import Trainer


def switches() -> tuple[Any, ...]:
    cuda = backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul
    mkldnn = backends.mkldnn.conv, backends.mkldnn.matmul
    old = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()
    return *(each.fp32_precision for each in (*cuda, *mkldnn)), *old


FULL = ("ieee",) * 5 + (False, False, "highest")
ROUNDED = ("tf32",) * 3 + ("ieee",) * 2 + (True, True, "high")


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
@pytest.mark.parametrize("convolutions", [True, False])
def test_set_inside_and_as_before_afterwards(before: Any, convolutions: bool) -> None:
    start = switches()
    try:
        backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(before)
        given = switches()
        with arithmetic("tf32"):
            assert switches() == ROUNDED
            with arithmetic("fp32"):
                assert switches() == FULL
            with arithmetic("bf16"):
                assert switches() == FULL
            assert switches() == ROUNDED
        assert switches() == given
        with pytest.raises(ZeroDivisionError), arithmetic("fp32"):
            raise ZeroDivisionError
        assert switches() == given
    finally:
        backends.cudnn.allow_tf32 = start[5]
        torch.set_float32_matmul_precision(start[7])


class Watch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(3, 4)), set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add(switches())
        return x.flatten(1) @ self.weight.T

    def forward_steps(self, x: torch.Tensor) -> torch.Tensor:
        return self(x).unsqueeze(0)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_attacks_and_whatever_is_measured_run_in_full() -> None:
    model, x, y = Watch(), torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    with arithmetic("tf32"):
        FGSM().run(model, x, y, Threat(0.1), torch.Generator())
        with attacked(model):
            model(x)
    assert model.seen == {FULL}


@pytest.mark.parametrize(("precision", "expected"), [("fp32", FULL), ("tf32", ROUNDED), ("bf16", FULL)])
@pytest.mark.parametrize("objective", ["natural", "adversarial"])
def test_training_runs_in_what_it_was_told(precision: str, expected: Any, objective: str) -> None:
    """The attack within training too."""
    model, own = Watch(), {"train.precision": precision, "train.objective": objective}
    split = Split(torch.zeros((4, 1, 2, 2), dtype=torch.uint8), torch.tensor([0, 1, 2, 0]))
    trainer = Trainer(model, TrialConfig.from_flat(own), split)
    trainer.step(torch.rand(4, 1, 2, 2), split.y)
    assert model.seen == {expected}
