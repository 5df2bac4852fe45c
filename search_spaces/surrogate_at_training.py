"""Does a narrow surrogate at training make a robust network, or one whose gradient the attack cannot follow?

Continues Wang et al. (arXiv 2512.22522), who let the attack's surrogate adapt and see 5 to 17 points of robustness go.
Here the training's surrogate varies, family and sharpness, and every trial is attacked under it and under a second
rule: the objectives are the two figures themselves, so that the gap between them shows. The second rule is sigmoid 4,
and atan 2 for a sigmoid of 2 to 8 (such a trial carries a warning). CIFAR-10, SEW-ResNet-19.
For GPUs: a trial takes about 700 hours of one CPU core (`snnsweep check`, median of four variants).
    snnsweep run search_spaces/surrogate_at_training.py --trials 80
    snnsweep run search_spaces/surrogate_at_training.py --smoke
"""

OBJECTIVES = ("clean_accuracy", "robust_accuracy/pgd", "robust_accuracy/pgd_second_rule")
FIXED = {
    "data.name": "cifar10",
    "data.augment": "flip+crop",
    "data.batch_size": 128,
    "encoder.time_steps": 4,
    "neuron.v_threshold": 0.5,
    "model.name": "resnet",
    "model.depth": 19,
    "model.pooling": "avg",
    "train.epochs": 60,
    "threat.eps": 8 / 255,
    "attack.samples": 512,
}


def space(trial):
    trial.suggest_categorical("neuron.surrogate", ["atan", "sigmoid", "triangle", "rectangle", "gaussian"])
    trial.suggest_float("neuron.alpha", 0.5, 16.0, log=True)
    trial.suggest_categorical("train.objective", ["natural", "adversarial"])
    return FIXED
