"""Do a high threshold, few time steps or the residual type buy robustness, or only silence?

CIFAR-10, ResNet-18 with a 3x3 stem. Cost of your machine: `snnsweep check` with this file.
    snnsweep run search_spaces/threshold_timesteps_residual.py --trials 200
    snnsweep run search_spaces/threshold_timesteps_residual.py --smoke       # a minute on a laptop
"""

OBJECTIVES = ("clean_accuracy", "robust_accuracy", "gradient_sparsity")
FIXED = {
    "data.name": "cifar10",
    "data.augment": "flip+crop",
    "data.batch_size": 128,
    "model.name": "resnet",
    "model.depth": 18,
    "train.epochs": 60,
    "threat.eps": 8 / 255,
    "attack.samples": 512,
}


def space(trial):
    trial.suggest_float("neuron.v_threshold", 0.5, 2.0)
    trial.suggest_int("encoder.time_steps", 2, 8)
    trial.suggest_categorical("model.residual", ["sew_add", "sew_and", "sew_iand", "spiking", "membrane"])
    if trial.suggest_categorical("neuron.name", ["lif", "plif"]) == "lif":
        trial.suggest_float("neuron.tau", 1.1, 4.0)  # PLIF learns its own
    return FIXED
