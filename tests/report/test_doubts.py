"""What a report must not hide: figures that were not judged alike, an old confirmation, trials without a figure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made import made_up

from snnsweep.config import DEFAULTS
from snnsweep.report import data, paper
from snnsweep.report.charts import Chart, Series, table_of
from snnsweep.report.confirmed import slope_charts
from snnsweep.report.judged import clashes
from snnsweep.report.methods import methods
from snnsweep.report.palette import Look
from snnsweep.report.progress import hypervolume_charts, training_charts
from snnsweep.report.sections import sections
from snnsweep.report.words import banners
from snnsweep.results import store
from snnsweep.results.words import number

Made = Callable[..., Path]


def finished(count: int, **given: Any) -> list[dict[str, Any]]:
    return [row | given for row in made_up(60) if row["status"] == "finished"][:count]


def written(folder: Path, **told: Any) -> None:
    """Changes what the confirmation of that sweep reports."""
    path = folder / "confirm" / "confirm.json"
    said = json.loads(path.read_text())
    store.write_json(path, {"report": said["report"] | told})


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("threat.eps", [1 / 255, 8 / 255], "more than one eps of the threat (1/255, 8/255)"),
        ("attack.suite", ["quick", "trail"], "more than one suite (quick, trail)"),
        ("robust_accuracy/n", [12344.0, 12345.0], "more than one number of attacked samples (12344, 12345)"),
    ],
)
def test_one_front_of_figures_judged_in_two_ways(key: str, values: list[Any], words: str, sweep_of: Made) -> None:
    rows = [row | {key: values[number % 2]} for number, row in enumerate(finished(8))]
    mixed = data.read(sweep_of("mixed", rows))
    assert any(words in text for text in banners(mixed))
    assert any("Not comparable" in text for text in clashes(mixed, mixed))
    alike = data.read(sweep_of("alike", finished(8)))
    assert not any("Not judged alike" in text for text in banners(alike))
    assert clashes(alike, alike) == []


def test_sizes_are_compared_as_they_are(sweep_of: Made) -> None:
    one, other = (data.read(sweep_of(f"n{n:.0f}", finished(4, **{"robust_accuracy/n": n}))) for n in (12344.0, 12345.0))
    assert any("(A: 12344; B: 12345)" in text for text in clashes(one, other))
    assert [number(one) for one in (12345.0, 64, 0.123456, 1e20, None)] == ["12345", "64", "0.1235", "1e+20", "-"]


def test_a_suite_of_the_space_may_be_another_one(sweep_of: Made) -> None:
    rows = finished(4, **{"attack.suite": "mine"})
    one, same, other = (
        data.read(sweep_of(name, rows, space={"source": "x.py", "sha256": text * 64, "text": text}))
        for name, text in (("one", "a"), ("same", "a"), ("other", "b"))
    )
    assert clashes(one, same) == []
    assert any("suite mine is the spaces' own" in text for text in clashes(one, other))


def test_a_trial_without_a_config_makes_no_choice(sweep_of: Made) -> None:
    """Its space raised: the row has none for every key that it did not ask for."""
    failed = next(row for row in made_up(60) if row["status"] == "failed")
    without = failed | dict.fromkeys(DEFAULTS) | {"neuron.v_threshold": 0.7, "trial_id": "t0099"}
    rows = [row | {"train.eps": 0.1} for row in finished(8)]
    read = data.read(sweep_of("raised", [*rows, without]))
    assert read.varied == data.read(sweep_of("whole", rows)).varied
    assert "neuron.v_threshold" in read.varied
    assert not any("None" in cell for part in sections(read) for one in part.tables for row in one.rows for cell in row)


def test_a_confirmation_that_no_longer_fits_says_so(swept: Path, sweep_of: Made) -> None:
    said = json.loads((swept / "confirm" / "confirm.json").read_text())["report"]
    assert not any("confirmation" in text for text in banners(data.read(swept)))

    folder = sweep_of("later", finished(8))
    (folder / "confirm").mkdir()
    front = list(data.read(folder).front["trial_id"])
    gone = said["members"][0] | {"trial_id": "t0777"}
    kept = said["members"][0] | {"trial_id": front[0]}
    store.write_json(folder / "confirm" / "confirm.json", {"report": said | {"members": [gone, kept]}})
    read = data.read(folder)
    words = f"1 of the {len(front)} members of today's front"
    assert any(words in text and "t0777" in text for text in banners(read))
    assert words in methods(read)
    assert "Part of the front was confirmed" in methods(read)
    written(folder, front_after=None, top="2")
    assert "has not ended" in methods(data.read(folder))
    assert "--top 2" in methods(data.read(folder))


def test_members_of_a_confirmation_that_are_not_drawn_are_counted(swept: Path, sweep_of: Made) -> None:
    said = json.loads((swept / "confirm" / "confirm.json").read_text())["report"]
    folder = sweep_of("wide", finished(8))
    (folder / "confirm").mkdir()
    many = [said["members"][0] | {"trial_id": f"t{place:04d}"} for place in range(20)]
    store.write_json(folder / "confirm" / "confirm.json", {"report": said | {"members": many}})
    read = data.read(folder)
    assert len(slope_charts(read.confirmed or {})[0].series) == 12
    (part,) = [part for part in sections(read) if part.name == "confirmed"]
    assert any("Of 20 members 12 are drawn" in text for text in part.about)


def test_a_finished_trial_without_a_figure_is_listed(sweep_of: Made) -> None:
    rows = finished(6)
    rows[2]["robust_accuracy"] = None
    read = data.read(sweep_of("lacking", rows))
    (part,) = [part for part in sections(read) if part.name == "ends"]
    cause = "finished without a figure for robust_accuracy"
    assert part.tables[0].rows == [["finished", cause, "1", rows[2]["trial_id"]]]
    assert any(text.startswith("1 trials have no figure") for text in sections(read)[0].about)


def test_what_the_machine_did_is_no_training_curve(sweep_of: Made) -> None:
    folder = sweep_of("watched", finished(1))
    told = {"trial_id": "t0000", "step": 1, "metrics": {"train/loss": 1.0, "system/cpu_percent": 50.0}}
    (folder / "tracking.jsonl").write_text(json.dumps({"call": "log_epoch", "said": told}) + "\n")
    assert [chart.title for chart in training_charts(data.read(folder))] == ["train/loss over epochs"]


def test_eps_of_an_encoded_threat_is_no_share_of_pixels(sweep_of: Made) -> None:
    said = methods(data.read(sweep_of("encoded", finished(3, **{"threat.space": "encoded"}))))
    assert "pixel range" not in said
    assert "units of the encoded input" in said


def test_each_axis_has_its_interval_in_the_table(sweep_of: Made) -> None:
    ends = ([0.1, None], [0.3, None])
    series = Series("front", [0.2, 0.4], [0.6, 0.8], Look(), x_ends=ends, y_ends=([0.5, 0.7], [0.7, 0.9]), trials="ab")
    table = table_of(Chart("one", "one", [series]))
    assert table is not None
    assert [list(row) for row in table.rows] == [
        ["front", "a", "0.2", "0.1 to 0.3", "0.6", "0.5 to 0.7"],
        ["front", "b", "0.4", "", "0.8", "0.7 to 0.9"],
    ]
    assert len(table.head) == 6


def test_a_resumed_trial_stands_where_it_ended_at_last(sweep_of: Made) -> None:
    rows = finished(4)
    folder = sweep_of("order", [rows[0] | {"status": "stopped", "cause": "interrupted"}, *rows[1:]])
    kept = store.Store(folder)
    kept.add(rows[0])
    kept.flush()
    assert list(data.read(folder).results["trial_id"]) == [row["trial_id"] for row in (*rows[1:], rows[0])]


def test_hours_of_gpus_only_where_their_number_is_known(sweep_of: Made) -> None:
    again = {"gpus_per_trial": 0.5, "command": ["snnsweep", "resume", "x"]}
    changed = again | {"command": ["snnsweep", "resume", "x", "--gpus-per-trial=0.5"]}
    for name, resumed, unit in (("kept", [again], "GPU-hours"), ("changed", [changed], "worker-hours")):
        read = data.read(sweep_of(name, finished(3), gpus_per_trial=0.5, resumed=resumed))
        assert hypervolume_charts(read)[1].title == f"Hypervolume over {unit}"


def test_pictures_of_a_smoke_run_say_so(sweep_of: Made) -> None:
    read = data.read(sweep_of("smoke", finished(3), smoke=True, status="running"))
    chart = hypervolume_charts(read)[0]
    assert paper.mark(read) == "smoke run: the figures mean nothing; not finished: 3 trials have ended"
    assert paper.encoded(chart, "png", paper.mark(read)) != paper.encoded(chart, "png")
    assert paper.mark(data.read(sweep_of("whole", finished(3)))) == ""
    assert all(
        path.read_bytes() != paper.encoded(one, "png")
        for path, one in zip(
            paper.write(read, "png"), [one for part in sections(read) for one in part.charts], strict=True
        )
    )
