"""What do threshold, sharpness, join and pooling do to a SEW-ResNet-18 that a CPU can train?

CIFAR-10, 5,000 training images, T = 4, the 7x7 stem (maps of 8x8), eps 2/255: at 8/255 nothing this small stands.
    snnsweep run search_spaces/cifar10_on_cpu.py --trials 12
"""

OBJECTIVES = ("clean_accuracy", "robust_accuracy", "gradient_sparsity")
FIXED = {
    "data.name": "cifar10",
    "data.subset": 5000,
    "data.augment": "flip+crop",
    "data.batch_size": 50,
    "encoder.time_steps": 4,
    "model.name": "resnet",
    "model.depth": 18,
    "model.stem": "imagenet",
    "train.epochs": 6,
    "threat.eps": 2 / 255,
    "attack.samples": 250,
}


def space(trial):
    trial.suggest_float("neuron.v_threshold", 0.3, 1.2)
    trial.suggest_float("neuron.alpha", 1.0, 8.0, log=True)
    trial.suggest_categorical("model.residual", ["sew_add", "sew_and", "sew_iand"])
    trial.suggest_categorical("model.pooling", ["max", "avg"])
    return FIXED
