"""A small sweep on a real server, and what its users see there: by filters, in models, and in a real browser."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving import children, history, server

from snnsweep import Sweep, TrialConfig, data
from snnsweep.sweep.cluster import start_here
from snnsweep.sweep.confirm import Confirmation
from snnsweep.tracking.mlflow import Tracker

SPACE = '''"""Which threshold keeps a leaky network awake?"""
from snnsweep import neurons

OBJECTIVES = ("clean_accuracy", "robust_accuracy")


@neurons.register("half_leaky")
class HalfLeaky(neurons.SpikingNeuron):
    """v <- 0.5 v + x."""

    def charge(self, v, x):
        return 0.5 * v + x


CALLS = []


def space(trial):
    CALLS.append(trial.number)
    trial.suggest_float("neuron.v_threshold", 0.2, 0.6)
    if len(CALLS) > 16 and trial.number == 1:  # not while the space is checked
        raise ValueError("a rare branch")
    return {
        "neuron.name": "half_leaky", "encoder.time_steps": 2, "model.depth": 10, "model.width": 0.25,
        "data.subset": 500, "train.epochs": 4, "train.lr": 5e-3, "attack.samples": 60, "threat.eps": 0.02,
    }
'''
SECRET = "hunter2"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run"]
MODE = "workflowType=machine_learning"  # MLflow opens its pages for language models else


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A sweep of four trials, one of which fails, and a confirmation of its best, told to a server with a password."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "threshold.py").write_text(SPACE)
    with (
        server(folder, f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts") as (uri, _),
        pytest.MonkeyPatch.context() as patch,
    ):
        given = uri.replace("//", f"//me:{SECRET}@")
        patch.setattr(sys, "argv", ["snnsweep", "run", "threshold.py", "--trials", "4", "--tracking-uri", given])
        start_here(num_cpus=2)
        try:
            space = folder / "threshold.py"
            sweep = Sweep(space, 4, storage=folder / "sweeps", name="s", sampler="random", tracking_uri=given).run()
            Confirmation(sweep.folder, seeds=0, suite="quick", samples=20, top=1).run()
        finally:
            ray.shutdown()
        client = MlflowClient(uri)
        yield SimpleNamespace(sweep=sweep, uri=uri, client=client, run_id=run_of(sweep), folder=folder)


def run_of(sweep: Sweep) -> str:
    return str(json.loads((sweep.folder / "sweep.json").read_text())["mlflow_run_id"])


def members(swept: SimpleNamespace) -> list[str]:
    return list(swept.sweep.front()["trial_id"])


def models(swept: SimpleNamespace) -> dict[str, LoggedModel]:
    found = swept.client.search_logged_models([swept.sweep.tracker.experiment_id])
    assert len({model.tags["snnsweep.trial_id"] for model in found}) == len(found), "a trial has two models"
    return {model.tags["snnsweep.trial_id"]: model for model in found}


def documented() -> list[str]:
    """The filters of docs/mlflow.md that are to be copied."""
    text = (Path(__file__).parents[2] / "docs" / "mlflow.md").read_text()
    return re.findall(r"^\| `{1,2}(.+?)`{1,2} \|", text.partition("## Filters")[2].partition("\n## ")[0], re.MULTILINE)


def test_each_documented_filter_finds_what_it_says(swept: SimpleNamespace) -> None:
    rows = swept.sweep.results().set_index("trial_id")
    finished = rows[rows["status"] == "finished"]
    front = set(members(swept))
    confirmed = {f"{members(swept)[0]}-stored-quick-20"}
    with_audit = finished["audit"].fillna("")
    expected = {
        "tags.`snnsweep.role` = 'sweep'": {"s"},
        "tags.`snnsweep.role` = 'trial'": set(rows.index),
        "tags.`snnsweep.role` = 'confirm'": confirmed,
        "tags.`snnsweep.sweep` = 's'": {"s", *rows.index, *confirmed},
        "tags.pareto = 'true'": front,
        "tags.pareto = 'false'": set(rows.index) - front,
        "tags.status = 'failed'": {"t0001"},
        "tags.audit LIKE 'pass%'": set(finished.index[with_audit.str.startswith("pass")]),
        "tags.audit = 'suspect'": set(finished.index[with_audit == "suspect"]),
        "metrics.robust_accuracy > 0.3 and tags.audit != 'fail'": set(
            finished.index[(finished["robust_accuracy"] > 0.3) & (with_audit != "fail")]
        ),
        "params.`neuron.name` = 'half_leaky' and metrics.clean_accuracy > 0.2": set(
            finished.index[finished["clean_accuracy"] > 0.2]
        ),
    }
    assert set(expected) == set(documented())
    for query, names in expected.items():
        found = {run.info.run_name for run in swept.client.search_runs([swept.sweep.tracker.experiment_id], query)}
        if "role" not in query and "sweep" not in query:
            found -= confirmed  # judged on other images
        assert found == names, query
    assert rows.loc["t0001", "status"] == "failed"
    assert front
    assert front < set(rows.index)


def test_runs_have_their_data_by_digest(swept: SimpleNamespace) -> None:
    trials = children(swept.client, swept.run_id)
    flat = trials["t0000"].data.params
    config = TrialConfig.from_flat({"data.name": flat["data.name"], "data.subset": int(flat["data.subset"])})
    seen = data.load(config, "cpu")
    expected = {(one["digest"], one["split"], one["samples"]) for one in data.identities(config, seen)}
    for run in (swept.client.get_run(swept.run_id), trials["t0000"], trials["t0003"]):
        given = run.inputs.dataset_inputs
        assert {
            (one.dataset.digest, one.tags[0].value, json.loads(one.dataset.profile)["num_rows"]) for one in given
        } == expected
    (confirmed,) = children(swept.client, trials[members(swept)[0]].info.run_id).values()
    assert {one.tags[0].value for one in confirmed.inputs.dataset_inputs} == {"train", "test"}
    assert confirmed.data.tags["snnsweep.member"] == members(swept)[0]


def test_the_sweeps_run_shows_its_course(swept: SimpleNamespace) -> None:
    run = swept.client.get_run(swept.run_id)
    points = history(swept.client, run)
    by_step = {name: [value for _, value, _ in points[name]] for name in ("hypervolume", "front_size")}
    assert len(by_step["hypervolume"]) == len(by_step["front_size"]) == 4
    assert by_step["hypervolume"] == sorted(by_step["hypervolume"])
    assert by_step["front_size"][-1] == len(members(swept))
    front = swept.sweep.front()
    assert run.data.metrics["best/clean_accuracy"] == front["clean_accuracy"].max()
    assert (run.data.metrics["trials/finished"], run.data.metrics["trials/failed"]) == (3, 1)
    corner = front[["clean_accuracy", "robust_accuracy"]].to_numpy()  # the area of the staircase, cell by cell
    grid = [np.unique(np.append(corner[:, axis], 0.0)) for axis in (0, 1)]
    area = sum(
        (x - x0) * (y - y0)
        for x0, x in zip(grid[0], grid[0][1:], strict=False)
        for y0, y in zip(grid[1], grid[1][1:], strict=False)
        if ((corner[:, 0] >= x) & (corner[:, 1] >= y)).any()
    )
    assert run.data.metrics["hypervolume"] == pytest.approx(area)
    assert 0 < run.data.metrics["system/cpu_utilization_percentage"] <= 100
    assert run.data.metrics["system/system_memory_usage_percentage"] > 0
    trial = children(swept.client, swept.run_id)["t0000"]
    assert trial.data.metrics["system/process_memory_usage_megabytes"] > 50
    assert trial.data.metrics["system/process_cpu_utilization_percentage"] > 0


LOAD = """
import sys, numpy as np, torch
import mlflow.pytorch, mlflow.artifacts
model = mlflow.pytorch.load_model(sys.argv[1])
x = torch.from_numpy(np.load(sys.argv[2]))
np.save(sys.argv[3], model(x).detach().numpy())
mlflow.artifacts.download_artifacts(sys.argv[1], dst_path="whole")
assert "snnsweep" not in sys.modules
"""


def test_a_members_model_runs_in_a_fresh_process_without_the_space(swept: SimpleNamespace, tmp_path: Path) -> None:
    """No code of snnsweep or of the space, no pickle: and the answers are those that the trial was judged by."""
    found = models(swept)
    assert set(found) == set(members(swept))
    name, row = members(swept)[0], swept.sweep.front().iloc[0]
    config = TrialConfig.from_flat({"data.name": "digits", "data.subset": int(row["data.subset"])})
    seen = data.load(config, "cpu").validation
    np.save(tmp_path / "x.npy", seen.images().numpy())
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"MLFLOW_TRACKING_URI": swept.uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    files = [str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    (tmp_path / "whole").mkdir()
    subprocess.run(
        [sys.executable, "-c", LOAD, f"models:/{found[name].model_id}", *files], cwd=tmp_path, env=env, check=True
    )
    right = (np.load(tmp_path / "y.npy").argmax(1) == seen.y.numpy()).mean()
    assert right == row["clean_accuracy"]
    assert right > 0.3, "a network that has learned nothing would prove nothing"

    extra = tmp_path / "whole" / "extra_files"
    assert (extra / "space.py").read_text() == SPACE
    flat = json.loads((extra / "config.json").read_text())
    assert TrialConfig.from_flat(flat).neuron.v_threshold == row["neuron.v_threshold"]
    assert [file for file in swept.sweep.folder.iterdir() if file.name == "models"] == []


def test_a_model_has_its_trials_metrics_and_signature(swept: SimpleNamespace) -> None:
    name, row = members(swept)[0], swept.sweep.front().iloc[0]
    model = models(swept)[name]
    run = children(swept.client, swept.run_id)[name]
    assert (model.status, model.source_run_id, model.name) == ("READY", run.info.run_id, f"s-{name}")
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    figures = {metric.key: metric for metric in model.metrics}
    assert figures["robust_accuracy"].value == row["robust_accuracy"]
    validation = next(one.dataset for one in run.inputs.dataset_inputs if one.tags[0].value == "validation")
    assert figures["robust_accuracy"].dataset_digest == validation.digest
    assert figures["train/loss"].dataset_digest is None
    points = swept.client.get_metric_history(run.info.run_id, "robust_accuracy")
    assert len(points) == 1, "the model's metrics are the run's own points"
    assert model.params == run.data.params
    assert {"pareto": "true", "audit": row["audit"], "snnsweep.sweep": "s"}.items() <= model.tags.items()


def test_who_leaves_the_front_keeps_its_model(swept: SimpleNamespace) -> None:
    """As after a resume; last of those that look at the tag."""
    name, *_ = members(swept)
    tracker = Tracker(swept.uri, "threshold", warn=pytest.fail)
    tracker.attach(swept.run_id)
    tracker.log_front([], models=True)
    assert models(swept)[name].tags["pareto"] == "false"
    tracker.log_front(members(swept), models=True)
    assert models(swept)[name].tags["pareto"] == "true"
    assert set(models(swept)) == set(members(swept))


def test_no_secret_is_anywhere(swept: SimpleNamespace) -> None:
    """Given in the address, and so in the command line that the note repeats."""
    note = swept.client.get_run(swept.run_id).data.tags["mlflow.note.content"]
    assert "***@127.0.0.1" in note
    assert "Which threshold keeps a leaky network awake?" in note
    assert f"snnsweep resume {shlex.quote(str(swept.sweep.folder))}" in note
    everywhere = [file for file in swept.folder.rglob("*") if file.is_file()]
    assert len(everywhere) > 20  # the database, the artifacts, the sweep's folder, the confirmation's
    assert [file for file in everywhere if SECRET.encode() in file.read_bytes()] == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip(f"no browser here: none of {', '.join(CHROMIUM)} on the PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page without errors of its own; SNNSWEEP_SHOTS names a folder that gets a picture of it."""
    page = browser.new_page(viewport={"width": 1600, "height": 1200})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    if shots := os.environ.get("SNNSWEEP_SHOTS"):
        page.screenshot(path=Path(shots) / f"{request.node.name}.png")
    page.close()
    assert errors == []


def experiment(swept: SimpleNamespace) -> str:
    return f"{swept.uri}/#/experiments/{swept.sweep.tracker.experiment_id}"


def test_the_runs_page(swept: SimpleNamespace, page: Page) -> None:
    page.goto(f"{experiment(swept)}/runs?{MODE}")
    page.locator("[id^='cell-attributes.`Run Name`'] button").first.click()
    for name in ("s", "t0000", "t0001", "t0002", "t0003"):
        expect(page.get_by_role("link", name=name, exact=True).first).to_be_visible()
    expect(page.get_by_text("digits (").first).to_be_visible()
    page.get_by_role("button", name="Columns").click()
    page.get_by_placeholder("Search columns").fill("robust_accuracy/low")
    page.get_by_text("robust_accuracy/low", exact=True).last.click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("columnheader", name="robust_accuracy/low").first).to_be_visible()


def test_the_sweeps_page(swept: SimpleNamespace, page: Page) -> None:
    page.goto(f"{experiment(swept)}/runs/{swept.run_id}?{MODE}")
    expect(page.get_by_text("Which threshold keeps a leaky network awake?")).to_be_visible()
    page.get_by_text("Show more").first.click()
    expect(page.get_by_text("What the figures are.")).to_be_visible()
    expect(page.locator("table", has_text="objective").get_by_text("robust_accuracy").first).to_be_visible()
    expect(page.get_by_text("digits (").first).to_be_visible()
    expect(page.get_by_text("best/robust_accuracy").first).to_be_visible()


def test_the_sweeps_charts(swept: SimpleNamespace, page: Page) -> None:
    page.goto(f"{experiment(swept)}/runs/{swept.run_id}/model-metrics?{MODE}")
    page.get_by_placeholder("Search metric charts").fill("hypervolume")
    expect(page.locator("svg .scatterlayer .point").first).to_be_visible()
    assert page.locator("svg .scatterlayer .trace").first.locator(".point").count() == 4


def test_a_model_page_shows_its_signature(swept: SimpleNamespace, page: Page) -> None:
    model = models(swept)[members(swept)[0]]
    page.goto(f"{experiment(swept)}/models?{MODE}")
    page.get_by_role("link", name=model.name).click()
    expect(page.get_by_text("Ready").first).to_be_visible()
    expect(page.get_by_text("robust_accuracy", exact=True).first).to_be_visible()
    page.get_by_role("link", name="Artifacts", exact=True).click()
    page.get_by_text("MLmodel", exact=True).click()
    expect(page.get_by_text("tensor-spec").first).to_be_visible()
