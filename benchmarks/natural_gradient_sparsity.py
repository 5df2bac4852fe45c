"""What is each step of the protocol worth? Attacks what `search_spaces/natural_gradient_sparsity.py` has trained.

Test split, the same images for every trial and protocol; which of them stand is kept in SWEEP/study, a file for each
trial and question, and what is there is not run again: remove it where attacks have changed since.
docs/natural-gradient-sparsity.md says what came out.
    snnsweep run search_spaces/natural_gradient_sparsity.py --trials 6 --sampler grid --name pair
    python benchmarks/natural_gradient_sparsity.py sweeps/pair protocol
    python benchmarks/natural_gradient_sparsity.py sweeps/pair rules
    python benchmarks/natural_gradient_sparsity.py sweeps/pair suites
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch
from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor

from snnsweep import load_results
from snnsweep.attacks import Threat, suites
from snnsweep.attacks.base import Attack, attacked, encoded, entrance, predict
from snnsweep.attacks.gradient import FGSM, PGD
from snnsweep.attacks.oracle import Oracle
from snnsweep.attacks.rules import Pool, Rule, Training
from snnsweep.attacks.suites import Step, Suite
from snnsweep.results.ranking import t_interval
from snnsweep.sweep.trials import EndedTrial, load_trial
from snnsweep.terminal import out

EPS = 6 / 255  # the paper's
ENCODED, PIXEL = Threat(EPS, space="encoded"), Threat(EPS, space="pixel")
PGD7 = PGD(steps=7, rel_step=0.01 / EPS)
PGD100 = PGD(steps=100, rel_step=0.1)
BATCH = 16  # the paper's: in train mode its statistics are the attack's
STEPS = {  # by what the paper's protocol has: the row with it, and the one without it
    "the leak": ("as coded, and right before", "statistics kept, and right before"),
    "train mode": ("statistics kept, and right before", "eval mode"),
    "the last point, 7 steps": ("eval mode", "any point"),
    "the last point, 100 steps": ("100 steps, last point", "100 steps"),
    "7 steps of 0.43 eps, not 100 of 0.1": ("any point", "100 steps"),
    "encoded space, 7 steps": ("any point", "pixel, 7 steps"),
    "encoded space, 100 steps": ("100 steps", "pixel, 100 steps"),
    "all of them": ("as coded, and right before", "pixel, 100 steps"),
}
Stand = dict[str, Tensor]  # by protocol: bool [n], still classified right


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def eval_mode(trial: EndedTrial, x: Tensor, y: Tensor, attack: Attack, threat: Threat, rule: Rule) -> Stand:
    """By the attack's last point and by any on its way, which one run gives; what is wrong without it never stands."""
    right = correct(trial, x, y)
    with rule(trial.model):
        parts = zip(x[right].split(100), y[right].split(100), strict=True)
        ends = [attack.run(trial.model, *part, threat, rng()) for part in parts]
    stands = torch.cat([~end.success for end in ends])
    last = stands | torch.cat([end.rescued for end in ends])
    return {name: right.masked_scatter(right, kept) for name, kept in (("any point", stands), ("last point", last))}


def correct(trial: EndedTrial, x: Tensor, y: Tensor) -> Tensor:
    with attacked(trial.model):
        return torch.cat([predict(trial.model, part, False) for part in x.split(100)]) == y


def train_mode(trial: EndedTrial, x: Tensor, y: Tensor, leaks: bool) -> Stand:
    """FGSM's and PGD-7's last points on the encoded image, made in train mode and scored in eval mode.

    Args:
        leaks: batch norm keeps what the attack's passes did to its statistics, as in the paper's code.

    Returns:
        As the paper counts: an image that only the attack made right is right.
    """
    model, found = trial.model, {"fgsm": [], "pgd": []}
    with attacked(model):  # for what it puts back at the end
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for part, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
            start, points = encoded(model, part, ENCODED), {}
            for name, attack in (("fgsm", FGSM()), ("pgd", PGD7)):
                model.train()
                oracle = Oracle(entrance(model, ENCODED), start, labels, ENCODED)
                points[name] = ENCODED.project(attack.propose(oracle, start, labels, ENCODED, rng()), start)
            if not leaks:
                model.load_state_dict(before)
            model.eval()
            for name, point in points.items():
                found[name].append(predict(entrance(model, ENCODED), point, False) == labels)
    return {name: torch.cat(parts) for name, parts in found.items()}


def protocol(trial: EndedTrial, x: Tensor, y: Tensor) -> Stand:
    """From the paper's code to a sound attack, one change at a time."""
    found: Stand = {"as coded": train_mode(trial, x, y, leaks=True)["pgd"]}
    found["statistics kept"] = train_mode(trial, x, y, leaks=False)["pgd"]
    short, long = (eval_mode(trial, x, y, attack, ENCODED, Training()) for attack in (PGD7, PGD100))
    found |= {"eval mode": short["last point"], "any point": short["any point"], "100 steps": long["any point"]}
    found["100 steps, last point"] = long["last point"]
    for name, rule in (("second rule", suites.SECOND_RULE), ("pool rule", Pool())):
        found[f"7 steps, {name}"] = eval_mode(trial, x, y, PGD7, ENCODED, rule)["any point"]
    for steps, attack in ((7, PGD7), (100, PGD100)):
        for name, rule in (("", Training()), (", pool rule", Pool())):
            found[f"pixel, {steps} steps{name}"] = eval_mode(trial, x, y, attack, PIXEL, rule)["any point"]
    return found


def rules(trial: EndedTrial, x: Tensor, y: Tensor) -> Stand:
    """Every attack of the strong suite but Square, each alone on every image, on the encoded image."""
    steps = [replace(step, cascaded=False) for step in suites.get("strong")().steps if step.label != "square"]
    outcome = suites.run(trial.model, x, y, Suite(tuple(steps), {}), ENCODED, seed=0, batch=100)
    return {step.label: outcome.standing(step.label) for step in steps} | {"all of them": outcome.standing()}


def whole_suites(trial: EndedTrial, x: Tensor, y: Tensor) -> Stand:
    """The suites at their own threats, and a milder one; and with what the same attacks under the pool rule fell."""
    found: Stand = {}
    for name in ("trail", "standard", "strong"):
        suite = suites.get(name)()
        own = Threat(suite.defaults["threat.eps"], space=suite.defaults["threat.space"])
        threats = {"": own} | ({", eps 2/255": replace(own, eps=2 / 255)} if name != "trail" else {})
        for label, threat in threats.items():
            found[name + label] = suites.run(trial.model, x, y, suite, threat, seed=0, batch=100).standing()
            if name != "strong":  # it has the rule in itself
                again = Suite(tuple(Step(s.label, s.attack, Pool()) for s in suite.steps), {})
                with_pool = suites.run(trial.model, x, y, again, threat, seed=0, batch=100).standing()
                found[f"{name}{label}, with pool"] = found[name + label] & with_pool
    return found


QUESTIONS: dict[str, Callable[[EndedTrial, Tensor, Tensor], Stand]] = {
    "protocol": protocol,
    "rules": rules,
    "suites": whole_suites,
}


def answered(folder: Path, trial_id: str, question: str, images: int) -> pd.DataFrame:
    """Which images of the trial stand under each protocol: [n, protocols] of bool."""
    file = folder / "study" / f"{question}-{trial_id}-{images}.parquet"
    if not file.exists():
        trial = load_trial(folder, trial_id)
        x, y = trial.data.test.images(slice(0, images)), trial.data.test.y[:images]
        found = {"clean": correct(trial, x, y)} | QUESTIONS[question](trial, x, y)
        file.parent.mkdir(exist_ok=True)
        pd.DataFrame({name: stands.cpu().numpy() for name, stands in found.items()}).to_parquet(file)
    return pd.read_parquet(file)


def derived(table: pd.DataFrame) -> pd.DataFrame:
    """With rows that need no further attack: train mode counted as eval mode is, and the rules without the pool's."""
    table = table.copy()
    for name in ("as coded", "statistics kept"):
        if name in table:
            table.insert(table.columns.get_loc(name) + 1, f"{name}, and right before", table[name] & table["clean"])
    if "all of them" in table:
        others = [name for name in table if "pool" not in name and name != "all of them"]
        table["all but those with the pool rule"] = table[others].all(axis=1)
    return table


def summary(tables: dict[str, list[pd.DataFrame]]) -> Iterator[list[str]]:
    """A row for each protocol: by pooling the mean over seeds, and max less average seed by seed, with t intervals.

    Of one seed alone Wilson's interval over images, and no difference.
    """
    tables = {pooling: [derived(table) for table in seeds] for pooling, seeds in tables.items()}
    for name in next(iter(tables.values()))[0].columns:
        each = {pooling: [float(table[name].mean()) for table in seeds] for pooling, seeds in tables.items()}
        gap = [one - other for one, other in zip(*each.values(), strict=True)]
        if len(gap) > 1:
            yield [name, *(over_seeds(values) for values in each.values()), over_seeds(gap)]
        else:
            yield [name, *(over_images(seeds[0][name]) for seeds in tables.values())]


def worth(tables: dict[str, list[pd.DataFrame]]) -> Iterator[list[str]]:
    """Points of robust accuracy that each step takes or gives, network by network, over all of them."""
    networks = [derived(table) for seeds in tables.values() for table in seeds]
    for name, (before, after) in STEPS.items():
        yield [name, over_seeds([float(table[before].mean() - table[after].mean()) for table in networks])]


def over_seeds(values: list[float]) -> str:
    low, high = t_interval(values)
    return f"{sum(values) / len(values):.3f} ({low:.3f} to {high:.3f})"


def over_images(hits: pd.Series) -> str:
    low, high = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    return f"{hits.mean():.3f} ({low:.3f} to {high:.3f})"


@click.command(help=__doc__)
@click.argument("sweep", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("question", type=click.Choice(list(QUESTIONS)))
@click.option("--images", default=200, show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True, help="Of the trials.")
def main(sweep: Path, question: str, images: int, seeds: str) -> None:
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = load_results(sweep).to_dict("records")
    asked = {int(seed) for seed in seeds.split(",")}
    tables: dict[str, list[pd.DataFrame]] = {}
    for pooling in ("max", "avg"):
        trials = {row["seed"]: row["trial_id"] for row in rows if row["model.pooling"] == pooling}
        if lost := sorted(asked - trials.keys()):
            raise click.BadParameter(f"{sweep} has no {pooling} network of seed {', '.join(map(str, lost))}")
        tables[pooling] = [answered(sweep, trials[seed], question, images) for seed in sorted(asked)]
    table = Table(question, "max pooling", "average pooling", *(["max - average"] if len(asked) > 1 else []))
    table.title = f"{images} images, seeds {seeds}; 95 %, " + ("t over seeds" if len(asked) > 1 else "Wilson")
    for cells in summary(tables):
        table.add_row(*cells)
    out.print(table)
    if question == "protocol":
        table = Table("of the paper's protocol", "is worth", title="over all networks; 95 %, t")
        for cells in worth(tables):
            table.add_row(*cells)
        out.print(table)


if __name__ == "__main__":
    main()
