"""On real digits: which threshold, time steps and residual keep clean accuracy, robustness and sparse gradients?

scikit-learn's 8x8 digits, a ResNet-10 of a quarter width. On so small images 8/255 fools nobody: eps is 0.1.
    snnsweep run search_spaces/quickstart.py --trials 12
"""

OBJECTIVES = ("clean_accuracy", "robust_accuracy", "gradient_sparsity")
FIXED = {
    "data.name": "digits",
    "model.name": "resnet",
    "model.depth": 10,
    "model.width": 0.25,
    "train.epochs": 8,
    "train.lr": 3e-3,
    "threat.eps": 0.1,
    "attack.samples": 144,
}


def space(trial):
    trial.suggest_float("neuron.v_threshold", 0.4, 1.2)
    trial.suggest_int("encoder.time_steps", 2, 5)
    trial.suggest_categorical("model.residual", ["sew_add", "sew_and", "sew_iand", "spiking", "membrane"])
    trial.suggest_categorical("model.pooling", ["max", "avg"])
    return FIXED
