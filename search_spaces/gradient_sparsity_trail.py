"""Are SEW-ResNets with max pooling and phase coding robust by their sparse gradients (Luu et al., arXiv 2509.23762)?

The paper's grid and protocol: CIFAR-100, depths 18, 34, 50, SEW with max and average pooling beside Spiking-ResNet,
T = 10, phase coding, IF, ATan with alpha 2, Adam, FGSM and PGD-7 at 6/255 on the encoded input. It differs where
the paper's code does not measure what it says: eval mode under attack, and the validation split, not the test one.
Nine variants: random search draws some of them twice, TPE fills the grid; 100 epochs each, hours on one GPU.
    snnsweep run search_spaces/gradient_sparsity_trail.py --trials 27 --sampler random
    snnsweep run search_spaces/gradient_sparsity_trail.py --smoke
"""

OBJECTIVES = ("clean_accuracy", "robust_accuracy", "gradient_sparsity/zero_share")
FIXED = {
    "data.name": "cifar100",
    "data.augment": "flip",
    "data.batch_size": 16,
    "encoder.name": "phase",
    "encoder.time_steps": 10,
    "encoder.phases": 8,
    "neuron.name": "if",
    "neuron.v_threshold": 1.0,
    "neuron.surrogate": "atan",
    "neuron.alpha": 2.0,
    "model.name": "resnet",
    "model.stem": "imagenet",
    "train.epochs": 100,
    "train.optimizer": "adam",
    "train.lr": 1e-3,
    "train.weight_decay": 1e-3,
    "train.schedule": "constant",
    "attack.suite": "trail",
}


def space(trial):
    trial.suggest_categorical("model.depth", [18, 34, 50])
    residual = trial.suggest_categorical("model.residual", ["sew_add", "spiking"])
    pooling = trial.suggest_categorical("model.pooling", ["max", "avg"]) if residual == "sew_add" else "max"
    return FIXED | {"model.pooling": pooling}
