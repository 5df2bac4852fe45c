"""The sections of a sweep's report, in the order in which they are read."""

import pandas as pd

from snnsweep.report.charts import Axis, Chart, Section, Series, Table
from snnsweep.report.citation import citation
from snnsweep.report.confirmed import confirmed_table, confirmed_words, coverage, slope_charts
from snnsweep.report.data import MOST, Swept
from snnsweep.report.methods import caveats, methods, suite_steps, thresholds
from snnsweep.report.palette import BLUE, Look
from snnsweep.report.progress import OTHERS, gpus_of, hypervolume_charts, training_charts, untimed
from snnsweep.report.robustness import eps_chart, layer_charts
from snnsweep.report.trials import FEW, drawable, front_charts, parallel_chart
from snnsweep.report.words import audit_table, ends_table, front_table, mixes_table
from snnsweep.results.words import number
from snnsweep.sweep.importance import MOST as FITTED
from snnsweep.sweep.importance import importances

ENOUGH = 10  # finished trials, below which an importance is noise


def sections(swept: Swept) -> list[Section]:
    """All of them; one without data says why."""
    parts = (
        _front,
        _members,
        _parallel,
        _importance,
        _hypervolume,
        _eps,
        _layers,
        _training,
        _confirmed,
        _ends,
        _mixes,
    )
    return [section for part in parts if (section := part(swept)) is not None] + [_methods(swept)]


def _front(swept: Swept) -> Section:
    lost = len(swept.results) - len(drawable(swept.results, list(swept.objectives)))
    about = [
        "Each point is a trial. Large, filled marks are on the front; small ones are beaten; hollow ones are "
        "infeasible. Colour and mark say what the audit found. Bars are 95 % intervals over samples, of the front "
        f"and, where no more than {FEW} others are drawn, of these too. Being on the front says nothing about "
        "differences within the intervals."
    ]
    if len(swept.objectives) > 2:
        about.append(
            "The line in a panel is the front of these two objectives alone; a trial of the whole front may lie "
            "behind it. "
            + (
                f"The panel with three axes shows the first three of {len(swept.objectives)}."
                if len(swept.objectives) > 3
                else ""
            )
        )
    if lost:
        about.append(
            f"{lost} trials have no figure for some objective (failed, stopped early, or none could be measured), "
            "and are not drawn; they are listed below."
        )
    return Section("front", "The front", about, front_charts(swept))


def _members(swept: Swept) -> Section:
    about = [
        "Every trial on the front, with 95 % intervals, the keys that varied, and what the reader has to be warned of."
    ]
    if swept.front.empty:
        return Section("members", "Trials on the front", ["No trial is on the front."])
    checks = audit_table(swept)
    return Section("members", "Trials on the front", about, tables=[front_table(swept), *([checks] if checks else [])])


def _parallel(swept: Swept) -> Section:
    about = [
        "Each line is a finished trial, blue on the front and grey else. Drag along an axis to choose a range. "
        "Infeasible, stopped and failed trials are left out; a key that the space did not ask of a trial shows the "
        "value it had."
    ]
    chart = parallel_chart(swept)
    if chart is None:
        return Section(
            "parallel", "Choices and outcomes", ["No key varies among finished trials, or none has finished."]
        )
    return Section("parallel", "Choices and outcomes", about, [chart])


def _importance(swept: Swept) -> Section:
    title, n = "Importance of the keys", len(swept.finished)
    if n < ENOUGH:
        said = f"Left out: an importance is a fit, and {n} finished trials are too few for one ({ENOUGH} at least)."
        return Section("importance", title, [said])
    charts = []
    for count, (name, shares) in enumerate(
        importances(swept.finished, swept.varied, swept.objectives).items(), start=1
    ):
        if shares:
            series = Series("importance", list(shares.values())[::-1], list(shares)[::-1], Look(BLUE), "bars")
            charts.append(
                Chart(
                    f"importance-{count}",
                    f"Importance for {name}",
                    [series],
                    x=Axis("share of the explained variance", low=0, high=1),
                )
            )
    fitted = f"{FITTED} drawn from {n}" if n > FITTED else str(n)
    about = [
        f"Optuna's fANOVA: a random forest fitted to {fitted} finished trials, and each key's share of the variance "
        "that keys explain alone. It is a fit, without an interval: it does not say how well the forest fits, nor "
        "which value is better, and a sampler that leaves a region leaves it unseen."
    ]
    return Section(
        "importance", title, about if charts else ["Nothing varies that an importance could be fitted to."], charts
    )


def _hypervolume(swept: Swept) -> Section:
    charts, title = hypervolume_charts(swept), "Hypervolume of the front"
    if swept.reference is None:
        return Section("hypervolume", title, ["No trial has finished, so there is no hypervolume yet."])
    reference = ", ".join(f"{name} {number(at)}" for name, at in swept.reference.items())
    about = [
        f"The volume between the front of all trials that had ended and one fixed reference point: {reference}. It "
        "grows with every trial that joins the front, by luck too; it has no interval, and volumes over other points "
        "do not compare.",
        "Hours are those measured in training and attacks, summed over the trials in the order of ending, and not "
        "the wall clock; of a trial that was stopped only its epochs are counted.",
    ]
    if gpus_of(swept) is None:
        about.append("GPUs a trial were given anew when it was resumed: the hours are those of workers.")
    if lost := untimed(swept):
        about.append(f"{lost} trials left no times: the hours are too low by theirs.")
    return Section("hypervolume", title, about, charts)


def _eps(swept: Swept) -> Section:
    title, chart = "Robust accuracy over eps", eps_chart(swept)
    if chart is None:
        return Section(
            "eps",
            title,
            [
                "No trial on the front holds an accuracy at more than one eps. A suite with an iterated PGD on every "
                "sample (attack.suite quick, trail, standard or strong) and threat.eps above 0 bring it, in sweeps "
                "run with a version of snnsweep that writes robust_accuracy/eps/..."
            ],
        )
    about = [
        "What stands under the suite's PGD with the training surrogate alone, on the first samples only (n at the "
        "axis), at 0, a quarter, a half, once and twice the eps of the threat. It is the audit's probe, weaker than "
        "the suite: robust accuracy may be lower. A curve that stays up where eps grows large is a sign of a bad "
        "gradient, not of strength." + _drawn(swept)
    ]
    return Section("eps", title, about, [chart])


def _layers(swept: Swept) -> Section:
    title, charts = "Gradient sparsity by layer", layer_charts(swept)
    if not charts:
        return Section("layers", title, ["No trial on the front holds the gradient's sparsity by layer."])
    about = [
        "The gradient at the input of each layer, mean over the attacked samples: the share that is exactly zero, "
        "and its Hoyer sparsity. Sparse gradients may starve an attack; this picture does not tell that from "
        "robustness. Layers that a "
        "network has not leave gaps." + _drawn(swept)
    ]
    return Section("layers", title, about, charts)


def _training(swept: Swept) -> Section:
    title, charts = "Training", training_charts(swept)
    if not charts:
        return Section("training", title, ["The sweep's folder holds no epochs (tracking.jsonl is gone or empty)."])
    rungs = swept.facts.get("rungs")
    attacked = "figures of a rung (rung/...) are of its lighter suite" if rungs else "no accuracy under attack is here"
    about = [
        "What was measured after each epoch; clean accuracy is over a part of the validation images until the last "
        "one, and "
        f"{attacked}. In grey other trials, {OTHERS} at most." + _drawn(swept)
    ]
    return Section("training", title, about, charts)


def _drawn(swept: Swept) -> str:
    """Which members are drawn, where not all are."""
    return f" Of {len(swept.front)} members {MOST} are drawn, evenly over the front." if len(swept.front) > MOST else ""


def _confirmed(swept: Swept) -> Section:
    title, report = "Before and after confirmation", swept.confirmed
    if report is None:
        said = "The front was not confirmed: these are figures of one seed on the validation split."
        return Section(
            "confirmed", title, [f"{said} snnsweep confirm {swept.folder} trains it again, and uses the test split."]
        )
    about = [*([report["warning"]] if report["warning"] else []), f"{coverage(swept)}.", *confirmed_words(report)]
    return Section("confirmed", title, about, slope_charts(report), [confirmed_table(report)])


def _ends(swept: Swept) -> Section:
    title, table = "Trials that cannot be on the front", ends_table(swept)
    if table is None:
        return Section(
            "ends",
            title,
            ["Every trial that ended has finished with figures." if len(swept.results) else "None ended."],
        )
    about = [
        "Failed, infeasible and stopped trials, and those that finished without a figure for some objective, by the "
        "first line of their cause; tracebacks are in errors/ of the folder."
    ]
    return Section("ends", title, about, tables=[table])


def _mixes(swept: Swept) -> Section | None:
    table = mixes_table(swept)
    if table is None:
        return None
    about = [
        "Mixes of two trials, each attacked as a whole. A mix is no variant of the space and takes no place on its "
        "front."
    ]
    return Section("mixes", "Mixes of two trials", about, tables=[table])


def _methods(swept: Swept) -> Section:
    about = [
        "What a paper has to say, as the sweep recorded it. Read it over: it knows nothing of why.",
        *caveats(swept),
    ]
    suites = sorted({str(suite) for suite in swept.results.get("attack.suite", pd.Series(dtype=object)).dropna()})
    steps = [(suite, *step) for suite in suites for step in suite_steps(suite)]
    tables = [Table("The suites", ("suite", "step", "attack", "gradient rule"), steps)] if steps else []
    checks = thresholds(swept)
    copies = [("Methods", methods(swept))]
    if cited := citation():
        copies.append(("BibTeX", cited))
    return Section("methods", "Methods", about, tables=[*tables, *([checks] if checks else [])], copies=copies)
