"""The report says what the rows say: figures, intervals, front and hypervolume by other means, and nothing else."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from made import HOSTILE, OBJECTIVES, made_up, write_sweep
from matplotlib.figure import Figure
from plotly import graph_objects

from snnsweep.cli import main
from snnsweep.report import data, page, paper
from snnsweep.report.charts import Chart, Series, table_of
from snnsweep.report.citation import citation
from snnsweep.report.interactive import figure
from snnsweep.report.methods import methods
from snnsweep.report.palette import DARK, LIGHT
from snnsweep.report.progress import growth, hypervolume_charts, worker_seconds
from snnsweep.report.robustness import depth_of, eps_chart
from snnsweep.report.sections import sections
from snnsweep.report.trials import front_charts
from snnsweep.report.words import banners, findings
from snnsweep.results import store

SIZE = 6_000_000
Made = Callable[..., Path]


@pytest.fixture(scope="module")
def read(swept: Path) -> data.Swept:
    return data.read(swept)


@pytest.fixture(scope="module")
def html(read: data.Swept) -> str:
    return page.page(read)


def charts_of(read: data.Swept) -> list[Chart]:
    return [chart for part in sections(read) for chart in part.charts]


def embedded_in(html: str) -> dict[str, Any]:
    """The charts of a page, by name."""
    said: dict[str, Any] = json.loads(html.partition('id="charts">')[2].partition("</script>")[0])
    return said["figures"]


def brute_front(rows: pd.DataFrame) -> set[str]:
    """By comparing each finished trial with each other one."""
    points = {
        row["trial_id"]: [row[name] for name in OBJECTIVES]
        for row in rows.to_dict("records")
        if row["status"] == "finished"
    }

    def beaten(one: list[float], other: list[float]) -> bool:
        return all(b >= a for a, b in zip(one, other, strict=True)) and other != one

    return {name for name, one in points.items() if not any(beaten(one, other) for other in points.values())}


def test_every_panel_is_there_and_has_its_sentence(read: data.Swept) -> None:
    parts = sections(read)
    names = [
        "front",
        "members",
        "parallel",
        "importance",
        "hypervolume",
        "eps",
        "layers",
        "training",
        "confirmed",
        "ends",
        "methods",
    ]
    assert [part.name for part in parts] == names
    assert all(part.about and part.about[0] for part in parts)
    assert all(part.charts for part in parts if part.name not in ("members", "ends", "methods"))


def test_points_and_intervals_are_those_of_the_parquet(read: data.Swept, swept: Path) -> None:
    rows = pd.read_parquet(swept / "results.parquet").set_index("trial_id")
    drawn: dict[str, set[str]] = {}
    for chart in front_charts(read):
        for series in (one for one in chart.series if one.kind == "points"):
            names = [axis.label.partition(" ")[0] for axis in (chart.x, chart.y, chart.z) if axis]
            columns = zip(
                names, (series.x, series.y, series.z), (series.x_ends, series.y_ends, series.z_ends), strict=False
            )
            for name, at, ends in columns:
                assert at is not None
                assert ends is not None
                for place, trial in enumerate(series.trials or ()):
                    assert at[place] == rows.loc[trial, name]
                    assert (ends[0][place], ends[1][place]) == (
                        rows.loc[trial, f"{name}/low"],
                        rows.loc[trial, f"{name}/high"],
                    )
            drawn.setdefault(chart.name, set()).update(series.trials or ())
    shown = set(rows.index[rows["status"].isin(["finished", "infeasible"])])
    assert drawn == dict.fromkeys(["front-3d", "front-1", "front-2", "front-3"], shown)


def test_the_front_is_that_of_brute_force(read: data.Swept) -> None:
    expected = brute_front(read.results)
    for chart in front_charts(read):
        found = {trial for one in chart.series if one.name.startswith("front,") for trial in one.trials or ()}
        assert found == expected
    (table,) = [table for part in sections(read) if part.name == "members" for table in part.tables[:1]]
    assert {row[0] for row in table.rows} == expected


def test_plotly_draws_the_same_bars(read: data.Swept) -> None:
    chart = front_charts(read)[1]
    series, trace = next(
        (one, two)
        for one, two in zip(chart.series, figure(chart)["data"], strict=True)
        if one.name.startswith("front,")
    )
    assert series.y_ends is not None
    up = np.array(trace["y"]) + np.array(trace["error_y"]["array"])
    down = np.array(trace["y"]) - np.array(trace["error_y"]["arrayminus"])
    np.testing.assert_allclose([down, up], series.y_ends, rtol=1e-4)


def test_plotly_knows_every_word(read: data.Swept) -> None:
    """Its Python side refuses properties that there are not."""

    def painted(part: Any) -> Any:
        if isinstance(part, str) and part.startswith("@"):
            return LIGHT[part[1:]]
        if isinstance(part, dict):
            return {name: painted(one) for name, one in part.items()}
        return [painted(one) for one in part] if isinstance(part, list) else part

    for chart in charts_of(read):
        drawn = painted(figure(chart))
        graph_objects.Figure({"data": drawn["data"], "layout": drawn["layout"]})


def test_paper_draws_the_same_points(read: data.Swept) -> None:
    chart = front_charts(read)[1]
    (axes,) = paper.picture(chart).axes
    for series in (one for one in chart.series if one.kind == "points"):
        (line,) = [line for line in axes.lines if line.get_label() == series.name]
        np.testing.assert_array_equal(line.get_xydata(), np.column_stack([series.x, series.y]).astype(float))


def test_hypervolume_grows_as_counted_by_cells(sweep_of: Made) -> None:
    """Rows on a coarse grid: the volume is a number of cells."""
    rng = np.random.default_rng(1)
    rows = made_up(30, seed=5)
    for row in rows:
        if row["status"] == "finished":
            row |= {name: float(rng.integers(0, 6)) / 5 for name in OBJECTIVES}
    read = data.read(sweep_of("grid", rows))
    places, volumes = growth(read, dict.fromkeys(OBJECTIVES, 0.0))
    assert places == list(range(31))
    for place, volume in zip(places, volumes, strict=True):
        points = [[row[name] for name in OBJECTIVES] for row in rows[:place] if row["status"] == "finished"]
        cells = sum(
            any(all(p > c / 5 + 1e-9 for p, c in zip(point, cell, strict=True)) for point in points)
            for cell in product(range(5), repeat=3)
        )
        assert volume == pytest.approx(cells / 125)


def test_hours_are_those_of_the_rows(read: data.Swept) -> None:
    rows = read.results
    spent = [
        row["time/train_s"] + row["time/attack_s"] if row["status"] in ("finished", "infeasible") else 0
        for row in rows.to_dict("records")
    ]
    assert worker_seconds(read) == pytest.approx(spent)
    assert hypervolume_charts(read)[1].series[0].x[-1] == pytest.approx(sum(spent) / 3600)


def test_eps_curves_begin_with_clean_and_are_those_of_the_rows(real_rows: Any, sweep_of: Made) -> None:
    rows = [row for row in real_rows[0] if row["status"] != "failed"]
    chart = eps_chart(data.read(sweep_of("real", [row | {"status": "finished"} for row in rows])))
    assert chart is not None
    assert chart.y.label == "share that stands (n = 32)"
    by_trial = {row["trial_id"]: row for row in rows}
    for series in chart.series:
        row = by_trial[series.name]
        assert list(series.x) == pytest.approx([0.1 * multiple for multiple in (0, 0.25, 0.5, 1, 2)])
        assert list(series.y) == [row[f"robust_accuracy/eps/{multiple}"] for multiple in ("0", "0.25", "0.5", "1", "2")]
        assert series.y[0] == row["robust_accuracy/clean"]  # 32 samples are attacked, and as many are probed


def test_a_sweep_without_eps_says_what_brings_it(sweep_of: Made) -> None:
    (part,) = [part for part in sections(data.read(sweep_of("old", made_up(12)))) if part.name == "eps"]
    assert not part.charts
    assert "attack.suite" in part.about[0]


def test_layers_stand_as_in_a_network() -> None:
    parts = ("conv1", "norm1", "neuron1", "conv2", "shortcut.conv")
    blocks = [f"stage{stage}.block1.{part}" for stage in (2, 10) for part in parts]
    layers = ["stem.conv", "stem.norm", *blocks, "pool", "head"]
    assert sorted(sorted(layers), key=depth_of) == layers


def test_importances_are_left_out_below_ten(sweep_of: Made) -> None:
    rows = [row for row in made_up(40) if row["status"] == "finished"]
    for count, drawn in ((9, 0), (10, 3)):
        (part,) = [p for p in sections(data.read(sweep_of(f"of{count}", rows[:count]))) if p.name == "importance"]
        assert len(part.charts) == drawn
        assert str(count) in part.about[0]


def test_the_key_that_decides_is_the_important_one(sweep_of: Made) -> None:
    rows = [row for row in made_up(80) if row["status"] == "finished"]
    for row in rows:
        row["clean_accuracy"] = 1 - row["neuron.v_threshold"] / 2
    (part,) = [p for p in sections(data.read(sweep_of("decided", rows))) if p.name == "importance"]
    series = part.charts[0].series[0]
    shares = dict(zip(series.y, series.x, strict=True))
    assert max(shares, key=lambda key: shares[key]) == "neuron.v_threshold"
    assert shares["neuron.v_threshold"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_what_was_found_is_told_with_its_doubts(read: data.Swept) -> None:
    said = " ".join(findings(read))
    best = read.finished["robust_accuracy"].max()
    assert f"robust_accuracy {best:.4g} [" in said
    assert "validation split" in said
    assert f"{len(brute_front(read.results))} are on the front" in said
    assert any(text.startswith("Audit: of ") for text in banners(read))


def test_banners_of_a_smoke_run_that_goes_on(sweep_of: Made) -> None:
    said = banners(data.read(sweep_of("going", made_up(3), smoke=True, status="running", trials=9)))
    assert said[0].startswith("Smoke run")
    assert "3 of 9 planned" in said[1]


@pytest.mark.parametrize("statuses", [[], ["failed"], ["stopped", "infeasible"]])
def test_sweeps_without_a_finished_trial(statuses: list[str], sweep_of: Made) -> None:
    rows = [
        next(row for row in made_up(60) if row["status"] == status) | {"trial_id": f"t{i}"}
        for i, status in enumerate(statuses)
    ]
    folder = sweep_of("empty", rows)
    read, html = data.read(folder), page.write(folder).read_text()
    ended = "none is on the front" if statuses else "No trial has ended, so nothing is known yet."
    assert ended in html
    assert "No trial has finished, so there is no hypervolume yet." in html
    assert read.finished.empty
    listed = [row[:2] for part in sections(read) if part.name == "ends" for one in part.tables for row in one.rows]
    assert sorted(listed) == sorted([row["status"], row["cause"].partition("\n")[0]] for row in rows)
    assert paper.write(read, "png") == [folder / "report" / f"{chart.name}.png" for chart in charts_of(read)]


@pytest.mark.parametrize(
    "names", [["clean_accuracy"], ["clean_accuracy", "robust_accuracy"], [*OBJECTIVES, "activity/synops"]]
)
def test_other_numbers_of_objectives(names: list[str], sweep_of: Made) -> None:
    ways = {name: OBJECTIVES.get(name, "minimize") for name in names}
    read = data.read(sweep_of("other", made_up(20, ways), objectives=ways))
    charts = front_charts(read)
    assert len(charts) == {1: 1, 2: 1, 4: 7}[len(names)]
    assert [chart.z is not None for chart in charts] == [len(names) > 2, *[False] * (len(charts) - 1)]
    page.page(read)


def test_a_thousand_trials_fit(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "many", made_up(1000))
    told = [
        {
            "trial_id": f"t{number:04d}",
            "step": step,
            "metrics": {"train/loss": 1.23456789 / step, "clean_accuracy": step / 31},
        }
        for number in range(1000)
        for step in range(1, 31)
    ]
    text = "\n".join(json.dumps({"call": "log_epoch", "said": said}) for said in told)
    (folder / "tracking.jsonl").write_text(f"{text}\n")
    assert page.write(folder).stat().st_size < SIZE


class Requests(HTMLParser):
    """Collects what would make a browser ask the network."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.levels: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            (name, value or "") for name, value in attrs if name in ("src", "href", "srcset", "action", "poster")
        ]
        self.found += [(tag, "") for _ in [0] if tag in ("link", "iframe", "img", "object", "embed")]
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))

    def handle_data(self, text: str) -> None:
        self.texts.append(text)


def test_the_page_asks_for_nothing_and_runs_no_text(html: str) -> None:
    parsed = Requests()
    parsed.feed(html)
    assert parsed.found
    assert all(name == "href" and value.startswith("#") for name, value in parsed.found)
    assert "window.hacked = 1</script>" not in html
    assert "url(" not in html.partition("</style>")[0]
    whole = "".join(parsed.texts)
    assert f"Boom: {HOSTILE}" in whole
    assert "<u>" not in html
    assert "&lt;u&gt;layer&lt;/u&gt;" in embedded_in(html)["layers-zeros"]["data"][0]["x"]
    assert "at line 3" not in whole  # the first line of a cause alone


def test_headings_are_in_order(html: str) -> None:
    parsed = Requests()
    parsed.feed(html)
    assert parsed.levels[0] == 1
    assert parsed.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(parsed.levels, parsed.levels[1:], strict=False))


def test_methods_name_what_a_paper_needs(read: data.Swept) -> None:
    said = methods(read)
    facts = read.facts
    threat = ("norm linf", "eps 0.1", "pixel", "suite quick", "PGD(steps=10", "Second()", "lost_share 0.002")
    search = ("digits", "sampler tpe", "seed 0", "test split", "tenth")
    for words in (*threat, *search, f"torch {facts['versions']['torch']}", facts["space"]["sha256"]):
        assert words in said, words


def test_every_series_has_its_mark_on_both_grounds(read: data.Swept) -> None:
    looks = {series.look for chart in charts_of(read) for series in chart.series}
    assert {look.colour for look in looks} <= LIGHT.keys() & DARK.keys()
    assert {look.mark for look in looks} <= paper.MARKS.keys()
    legend = [
        (series.look.colour, series.look.mark, series.look.size, series.look.hollow)
        for series in front_charts(read)[0].series
    ]
    assert len(set(legend)) == len(legend)


def test_tables_stand_in_for_pictures(read: data.Swept) -> None:
    chart = hypervolume_charts(read)[0]
    table = table_of(chart)
    assert table is not None
    assert len(table.rows) == len(chart.series[0].x)
    assert table_of(Chart("many", "many", [Series("a", range(999), range(999), chart.series[0].look)])) is None


def test_pictures_for_papers(swept: Path, tmp_path: Path) -> None:
    read = data.read(swept)
    for kind, begins in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        content = paper.encoded(front_charts(read)[0], kind)
        assert content.startswith(begins)
        assert content == paper.encoded(front_charts(read)[0], kind)
    assert b"/FontFile2" in paper.encoded(front_charts(read)[1], "pdf")  # TrueType, embedded
    assert all(isinstance(paper.picture(chart), Figure) for chart in charts_of(read))


def test_command_prints_the_path_and_json(swept: Path) -> None:
    run = CliRunner().invoke(main, ["report", str(swept)])
    path = swept / "report" / "index.html"
    assert (run.exit_code, run.stdout.strip()) == (0, str(path))
    run = CliRunner().invoke(main, ["report", "digits", "--storage", str(swept.parent), "--json"])
    assert json.loads(run.stdout) == {"path": str(path), "bytes": path.stat().st_size}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nope"], ["no sweep in"]),
        (["a", "b"], ["one sweep"]),
        (["--compare", "a", "--format", "pdf"], ["two sweeps", "--format pdf"]),
        (["a", "--format", "gif"], ["png"]),
    ],
)
def test_bad_input_ends_with_2(args: list[str], words: list[str], tmp_path: Path) -> None:
    run = CliRunner().invoke(main, ["report", *args, "--storage", str(tmp_path)])
    assert run.exit_code == 2
    assert all(word in run.stderr for word in words)
    assert not any(tmp_path.iterdir())


def test_a_broken_confirmation_is_told_and_nothing_is_written(sweep_of: Made) -> None:
    folder = sweep_of("torn", made_up(5))
    (folder / "confirm").mkdir()
    (folder / "confirm" / "confirm.json").write_text('{"report": ')
    run = CliRunner().invoke(main, ["report", str(folder)])
    assert run.exit_code == 2
    assert "confirm.json cannot be read" in run.stderr
    assert not (folder / "report").exists()


def test_citation(tmp_path: Path) -> None:
    file = tmp_path / "CITATION.cff"
    assert citation(file) == ""
    authors = "authors:\n- family-names: Doe\n  given-names: Jo\n- name: the others\n"
    file.write_text(f"title: snnsweep\n{authors}date-released: 2026-01-02\n")
    fields = ["  author = {Doe, Jo and {the others}},", "  title = {snnsweep},", "  year = {2026},"]
    assert citation(file).splitlines() == ["@software{snnsweep,", *fields, "}"]


def test_two_sweeps_on_one_page(sweep_of: Made) -> None:
    one = sweep_of("one", made_up(20, seed=1))
    ways = {name: OBJECTIVES[name] for name in ("clean_accuracy", "robust_accuracy")}
    other = sweep_of(
        "two",
        [row | {"threat.eps": 0.2, "attack.suite": "trail"} for row in made_up(20, seed=2)],
        objectives=ways,
        seed=7,
    )
    run = CliRunner().invoke(main, ["report", "--compare", str(one), str(other)])
    assert run.exit_code == 0, run.output
    html = Path(run.stdout.strip()).read_text()
    parsed = Requests()
    parsed.feed(html)
    text = "".join(parsed.texts)
    for words in (
        "eps of the threat differs (A: 0.1; B: 51/255)",
        "suite differs (A: quick; B: trail)",
        "left out: gradient_sparsity",
    ):
        assert words in text
    charts = embedded_in(html)
    volumes = [trace["y"][-1] for trace in charts["hypervolumes"]["data"]]
    for volume, folder in zip(volumes, (one, other), strict=True):
        (expected,) = [growth(part, dict.fromkeys(ways, 0.0))[1][-1] for part in [_with(data.read(folder), ways)]]
        assert volume == pytest.approx(expected, rel=1e-4)


def _with(read: data.Swept, ways: dict[str, Any]) -> data.Swept:
    return replace(read, facts={**read.facts, "objectives": ways})


def test_sweeps_without_a_common_objective(sweep_of: Made) -> None:
    folders = [
        sweep_of(name, made_up(3), objectives={metric: "maximize"})
        for name, metric in (("a", "clean_accuracy"), ("b", "robust_accuracy"))
    ]
    run = CliRunner().invoke(main, ["report", "--compare", *map(str, folders)])
    assert run.exit_code == 2
    assert "share no objective" in run.stderr


def test_front_written_is_the_front_of_the_rows(swept: Path) -> None:
    assert set(store.load_front(swept)["trial_id"]) == brute_front(store.load_results(swept))
