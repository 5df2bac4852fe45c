"""Does a search that is paid for robustness under one gradient rule find networks that starve it (digits)?

Two sweeps over the same space, sampler and seed, one attacked under the training surrogate alone, one under a second
rule too; then the most robust trial of each, as it was found, under the strong suite. At eps 0.15 little that is
attacked well stands, so that a narrow surrogate, which hides the gradient, pays. The second sweep differs by `quick`
as a whole: the second rule, noise, and the audit, which takes out trials where the two rules disagree widely. Ten
minutes for a seed on two cores:
    python benchmarks/starving_search.py 0 1 2
"""

import sys
import tempfile
from pathlib import Path

from rich.table import Table

from snnsweep import Sweep
from snnsweep.attacks import Threat, suites
from snnsweep.sweep.trials import load_trial
from snnsweep.terminal import out

SPACE = '''"""Which surrogate and threshold look robust?"""
from snnsweep.attacks import suites
from snnsweep.attacks.gradient import FGSM, PGD

@suites.register("one_rule")
def one_rule():
    """FGSM and PGD-10 under the training surrogate alone."""
    return suites.Suite((suites.Step("fgsm", FGSM()), suites.Step("pgd", PGD())), {})

OBJECTIVES = ("robust_accuracy",)
FIXED = {"model.depth": 10, "model.width": 0.25, "encoder.time_steps": 3, "train.epochs": 6, "train.lr": 3e-3,
         "threat.eps": 0.15, "attack.samples": 144, "attack.suite": "SUITE"}

def space(trial):
    trial.suggest_float("neuron.alpha", 1.0, 20.0, log=True)
    trial.suggest_float("neuron.v_threshold", 0.3, 1.2)
    return FIXED
'''
TRIALS, SEEDS = 24, (0, 1, 2)


def found(suite: str, seed: int, home: Path) -> list[str]:
    """The row of the most robust trial that the search found: its alpha, its figure, and what is left of that."""
    path = home / f"{suite}.py"
    path.write_text(SPACE.replace("SUITE", suite))
    sweep = Sweep(path, TRIALS, storage=home, name=f"{suite}-{seed}", seed=seed, cpus_per_trial=1).run()
    rows = sweep.results()
    finished = rows[rows["status"] == "finished"].sort_values("robust_accuracy")
    if finished.empty:
        return [suite, str(seed), "nobody finished", "", "", "", ""]
    best = finished.iloc[-1]
    trial = load_trial(sweep.folder, best["trial_id"])
    count = trial.config.attack.samples
    x, y = trial.data.validation.images(slice(0, count)), trial.data.validation.y[:count]
    outcome = suites.run(trial.model, x, y, suites.get("strong")(), Threat(eps=trial.config.threat.eps), seed, batch=64)
    left = float(outcome.standing().double().mean())
    figures = (best["neuron.alpha"], best["clean_accuracy"], best["robust_accuracy"], left)
    return [suite, str(seed), *(f"{figure:.3f}" for figure in figures), str(count)]


def main(seeds: list[int]) -> None:
    table = Table("searched under", "seed", "alpha found", "clean", "robust in the search", "robust, strong", "n")
    with tempfile.TemporaryDirectory() as home:
        for seed in seeds:
            for suite in ("one_rule", "quick"):
                table.add_row(*found(suite, seed, Path(home)))
    out.print(table)


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or list(SEEDS))
