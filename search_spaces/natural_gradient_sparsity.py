"""Is a SEW-ResNet robust by the sparse gradients of its max pooling, or does the attack miss (docs: the study)?

The pair of Luu et al. (arXiv 2509.23762), SEW-ResNet-18 with max and with average pooling, phase coding, at a size
that a CPU trains in an hour: CIFAR-10, 10,000 training images, a quarter of the channels, 10 epochs, three seeds.
`benchmarks/natural_gradient_sparsity.py` then takes the protocol apart on what this sweep has trained.
    snnsweep run search_spaces/natural_gradient_sparsity.py --trials 6 --sampler grid --name pair
"""

OBJECTIVES = ("clean_accuracy", "robust_accuracy", "gradient_sparsity/zero_share")
FIXED = {
    "data.name": "cifar10",
    "data.subset": 10000,
    "data.augment": "flip",
    "data.batch_size": 16,
    "encoder.name": "phase",
    "encoder.time_steps": 10,
    "encoder.phases": 8,
    "neuron.name": "if",
    "model.name": "resnet",
    "model.depth": 18,
    "model.width": 0.25,
    "model.stem": "imagenet",
    "train.epochs": 10,
    "train.lr": 1e-3,
    "train.weight_decay": 1e-3,
    "train.schedule": "constant",
    "attack.suite": "trail",
    "attack.samples": 500,
}


def space(trial):
    trial.suggest_categorical("model.pooling", ["max", "avg"])
    trial.suggest_categorical("seed", [0, 1, 2])
    return FIXED
