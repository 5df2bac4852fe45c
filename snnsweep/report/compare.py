"""Two sweeps on one page: both fronts in the objectives that they share, what differs, and why not to compare them."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

from snnsweep.config import DEFAULTS
from snnsweep.errors import UserError
from snnsweep.report.charts import Axis, Chart, Section, Series, Table
from snnsweep.report.data import Swept, read, reference_of
from snnsweep.report.judged import clashes
from snnsweep.report.methods import used
from snnsweep.report.page import PAGE, render
from snnsweep.report.palette import BLUE, ORANGE, Look
from snnsweep.report.progress import growth
from snnsweep.report.saving import save
from snnsweep.report.trials import attained, axis_of, ends, floats
from snnsweep.report.words import banners, hovers
from snnsweep.result import Direction
from snnsweep.results.front import front
from snnsweep.results.words import number, with_interval

LOOKS = (Look(BLUE, "circle", size=8), Look(ORANGE, "diamond", size=12, hollow=True, dash="dash"))
FACTS = ("trials", "seed", "sampler", "rungs", "smoke", "gpus_per_trial", "warm_start", "git_commit")


def write(one: Path, other: Path) -> Path:
    """Writes `report/compare-NAME.html` into the first sweep's folder, and returns its path.

    Raises:
        UserError: a sweep is not there, or they share no objective; nothing is written then.
        SnnSweepError: the page cannot be written.
    """
    page = compared(read(one), read(other))
    return save(one / PAGE.parent / f"compare-{other.name}.html", page.encode("utf-8", "replace"))


def compared(one: Swept, other: Swept) -> str:
    """The page.

    Raises:
        UserError: they share no objective.
    """
    shared = {name: way for name, way in one.objectives.items() if other.objectives.get(name) == way}
    if not shared:
        raise UserError(
            f"{one.folder} and {other.folder} share no objective: {', '.join(one.objectives)}; "
            f"{', '.join(other.objectives)}; compare sweeps with one in common"
        )
    pair = (_seen(one, "A", shared), _seen(other, "B", shared))
    said = [
        f"{label} is {swept.name}: {swept.facts.get('question', '')}"
        for label, swept in zip("AB", (one, other), strict=True)
    ]
    said += [
        f"{swept.name}: {len(swept.finished)} finished trials, {len(swept.front)} on its front of these objectives."
        for swept in pair
    ]
    if left := sorted((one.objectives.keys() | other.objectives.keys()) - shared.keys()):
        said.append(f"Not shared, and left out: {', '.join(left)}. Each front is that of the shared objectives alone.")
    warned = [*clashes(one, other), *(f"{swept.name}: {text}" for swept in pair for text in banners(swept))]
    parts = [_fronts(pair), _volumes(pair), _best(pair), _settings(one, other)]
    about = {"A": str(one.name), "B": str(other.name), "shared objectives": ", ".join(shared)}
    points = {f"{swept.name} {trial}": lines for swept in pair for trial, lines in hovers(swept).items()}
    return render(f"{one.name} and {other.name}", about, said, warned, parts, points)


def _seen(swept: Swept, label: str, shared: dict[str, Direction]) -> Swept:
    """The sweep as if it had these objectives alone, under a name that differs from the other one's."""
    facts = {**swept.facts, "objectives": shared, "name": f"{label} ({swept.name})"}
    return replace(swept, facts=facts, front=front(swept.results, shared), confirmed=None)


def _fronts(pair: tuple[Swept, Swept]) -> Section:
    names = list(pair[0].objectives)
    about = [
        "The trials on each sweep's front of the shared objectives, with 95 % intervals over samples; the lines are "
        "the fronts of the two objectives of a panel. The marks do not tell the audit's verdicts; the table below "
        "does. One run of each sweep was made: another seed of the sampler would give other fronts."
    ]
    charts = []
    for count, (x, y) in enumerate(combinations(names, 2), start=1):
        series = [part for swept, look in zip(pair, LOOKS, strict=True) for part in _front(swept, look, x, y)]
        across, up = (axis_of(name, pair[0].objectives) for name in (x, y))
        charts.append(Chart(f"fronts-{count}", f"{x} and {y}", series, across, up))
    if not charts:
        about = [f"They share one objective, {names[0]}: their best trials are below."]
    return Section("fronts", "Both fronts", about, charts)


def _front(swept: Swept, look: Look, x: str, y: str) -> list[Series]:
    if swept.front.empty:
        return []
    line = attained(swept.finished, x, y, swept.objectives)
    trials = [f"{swept.name} {trial}" for trial in swept.front["trial_id"]]
    points = Series(
        swept.name, floats(swept.front, x), floats(swept.front, y), look,
        x_ends=ends(swept.front, x), y_ends=ends(swept.front, y), trials=trials,
    )  # fmt: skip
    return [replace(line, name="", look=replace(look, width=1.4)), points]


def _volumes(pair: tuple[Swept, Swept]) -> Section:
    title, reference = "Hypervolume", reference_of(*pair)
    if reference is None or any(swept.finished.empty for swept in pair):
        return Section("hypervolume", title, ["A sweep has no finished trial, so that there is nothing to compare."])
    series, last = [], []
    for swept, look in zip(pair, LOOKS, strict=True):
        places, volumes = growth(swept, reference)
        series.append(Series(swept.name, list(places), list(volumes), look, "steps"))
        last.append(f"{swept.name} {number(volumes[-1])} after {places[-1]} trials")
    over = ", ".join(f"{name} {number(at)}" for name, at in reference.items())
    about = [f"Both from one reference point: {over}. In the end: {'; '.join(last)}. It has no interval."]
    x, y = Axis("trials that have ended", whole=True), Axis("hypervolume", low=0)
    return Section("hypervolume", title, about, [Chart("hypervolumes", "Hypervolume over trials", series, x, y)])


def _best(pair: tuple[Swept, Swept]) -> Section:
    rows = [
        [
            swept.name,
            row["trial_id"],
            *(with_interval(row, name) for name in swept.objectives),
            row.get("audit") or "none",
        ]
        for swept in pair
        for row in swept.front.to_dict("records")
    ]
    if not rows:
        return Section("members", "Trials on the fronts", ["No trial of either sweep is on a front."])
    head = ["sweep", "trial", *pair[0].objectives, "audit"]
    table = Table("The trials on both fronts", head, rows, sorts=True)
    return Section(
        "members", "Trials on the fronts", ["Each with its 95 % interval and the audit's verdict."], tables=[table]
    )


def _settings(one: Swept, other: Swept) -> Section:
    rows = [(key, used(one.results, key), used(other.results, key)) for key in DEFAULTS]
    rows += [(key, str(one.facts.get(key)), str(other.facts.get(key))) for key in FACTS]
    mine, theirs = (str(swept.facts.get("space", {}).get("sha256")) for swept in (one, other))
    rows.append(("space sha256", mine, theirs))
    differ = [row for row in rows if row[1] != row[2]]
    about = ["Config keys (a range or a list where they varied) and settings of the sweeps that are not alike."]
    if not differ:
        return Section("settings", "What differs", ["No config key and no setting differs."])
    return Section(
        "settings", "What differs", about, tables=[Table("Settings that differ", ("setting", "A", "B"), differ)]
    )
