"""What is lost when it is killed?

The space of tests/faults. Workers leave a line for each batch that they train, and for each attack that they begin, in
the file that SNNSWEEP_FAULTS_NOTES names; a file `hold` beside it makes them wait. Every trial is known by its weight
decay, which no other one has.
"""

import fcntl
import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from snnsweep import models, neurons, training
from snnsweep.attacks import suites
from snnsweep.attacks.gradient import FGSM
from snnsweep.measurement import Measurement
from snnsweep.models.layers import Layers
from snnsweep.training.loop import Trainer

PAUSE_S = float(os.environ.get("SNNSWEEP_FAULTS_PAUSE", "0.2"))  # of a batch: a trial shall last, and cost nothing
TROUBLED = "SNNSWEEP_FAULTS_TROUBLED" in os.environ

OBJECTIVES = ("clean_accuracy", "robust_accuracy", "activity/firing_rate")
FIXED = {
    "model.name": "noted", "model.width": 0.5, "train.objective": "noted", "train.epochs": 3, "train.lr": 1e-2,
    "data.subset": 100, "data.batch_size": 50, "encoder.time_steps": 2, "neuron.v_threshold": 0.4,
    "attack.suite": "noted", "attack.samples": 10, "threat.eps": 0.1,
}  # fmt: skip


def note(what):
    """A line about the batch or attack that is about to begin, once it may."""
    frame = sys._getframe()
    while frame and not isinstance(frame.f_locals.get("self"), Trainer | Measurement):
        frame = frame.f_back
    if not frame or "SNNSWEEP_FAULTS_NOTES" not in os.environ:
        return
    owner = frame.f_locals["self"]
    said = {"what": what, "trial": owner.config.train.weight_decay, "pid": os.getpid()}
    said["epoch"] = getattr(owner, "epochs_done", None)
    notes = Path(os.environ["SNNSWEEP_FAULTS_NOTES"])
    while not written(notes, said):
        time.sleep(0.05)
    broken = owner.config.neuron.name == "raising" or owner.config.train.lr > 1  # comes to no attack
    while what == "batch" and not broken and held(notes):
        time.sleep(0.05)


def written(notes, said):
    """Whether a note was written; an attack that the test holds up has none."""
    with notes.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of those that are free to begin, one after the other
        if said["what"] == "attack" and held(notes):
            return False
        file.write(f"{json.dumps(said | {'at': time.time()})}\n")
        return True


def held(notes):
    """Whether as many attacks have begun as the test wants to see (`Scene.hold`)."""
    try:
        return notes.read_text().count('"attack"') >= int(notes.with_name("hold").read_text())
    except FileNotFoundError:
        return False


@models.register("noted")
class Noted(nn.Module):
    """One convolution."""

    def __init__(self, config, spec):
        super().__init__()
        layers = Layers(config)
        width = layers.width(16)
        self.first = nn.Sequential(layers.conv(spec.channels, width, 3, 2), layers.norm(width), layers.neuron())
        self.head = nn.Linear(width, spec.classes)

    def forward(self, x):
        return self.head(self.first(x).mean((3, 4)))


@training.register("noted")
def noted(model, x, y, config, rng):
    """Plain training that takes its time."""
    note("batch")
    time.sleep(PAUSE_S)
    return training.get("natural")(model, x, y, config, rng)


@suites.register("noted")
def one_step():
    """FGSM."""
    note("attack")
    return suites.Suite((suites.Step("fgsm", FGSM()),), {})


@neurons.register("raising")
class Raising(neurons.get("lif")):
    """Raises when it is trained."""

    def forward(self, x):
        if self.training:
            raise ValueError("a mistake of the space's")
        return super().forward(x)


@neurons.register("greedy")
class Greedy(neurons.get("lif")):
    """Has memory for 30 images."""

    def forward(self, x):
        if self.training and x.shape[1] > 30:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(x)


def space(trial):
    trial.suggest_float("train.weight_decay", 1e-7, 1e-3)
    troubles = ({"neuron.name": "raising"}, {"train.lr": 1e30, "train.optimizer": "sgd"}, {"neuron.name": "greedy"})
    return FIXED | (troubles[trial.number] if TROUBLED and trial.number < len(troubles) else {})
