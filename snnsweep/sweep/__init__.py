"""Sweeps: space files, Optuna's choices, Ray's trials, and `Sweep`, which ties them together."""

import warnings

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line for each trial and study otherwise
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning, module=r"optuna|snnsweep")
