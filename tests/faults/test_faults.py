"""Sweeps are killed for real: a short round of each fault. `rounds.py` has the long ones."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace

import faults
import pytest
from harness import Scene
from losses import Losses, kept, losses

from snnsweep import load_results
from snnsweep.results.store import Store
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.tidy import Tidy
from snnsweep.sweep.tuning import Ender, trial_name
from snnsweep.sweep.watch import Recorder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, as by a user: making MLflow's database takes seconds."""
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture
def scene(tmp_path: Path, storage: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    scene = Scene(tmp_path / request.node.name, storage=storage)
    yield scene
    scene.close()


def test_a_trial_that_ray_gave_up_with_tries_left_has_not_ended(tmp_path: Path) -> None:
    """Where Ray dies, a second error meets a trial that waits for its next try, and Ray calls that its end."""
    tidy, progress = Tidy(str(tmp_path)), Progress(1, {}, 1)
    ends: list[tuple[str, str]] = []
    recorder = Recorder(Store(tmp_path), None, None, progress, lambda _: None, tidy, Ender(), None, {})
    recorder._end = lambda trial, result: ends.append((trial_name(trial), result.status))
    trial = SimpleNamespace(config={"number": 0, "flat": {}}, get_pickled_error=lambda: None)
    trial.should_recover = lambda: True
    recorder.on_trial_error(0, [trial], trial)
    assert (ends, "Ray lost t0000" in str(recorder.lost)) == ([], True)
    trial.should_recover = lambda: False
    recorder.on_trial_error(0, [trial], trial)
    assert ends == [("t0000", "failed")]


def test_driver_and_workers_are_killed_and_files_are_damaged(scene: Scene) -> None:
    """Killed with a row on the disk of which nobody else knows yet."""
    rng = Random(0)
    scene.run()
    assert scene.until(lambda: len(scene.lines()) >= 2)
    scene.kill_driver()
    before = kept(scene)
    for damage in (faults.ray_state_cut, faults.study_cut, faults.parquet_broken, faults.checkpoint_cut):
        damage(scene, rng)
    scene.resume()
    assert scene.until(lambda: scene.starts == 2)
    code, said = scene.call("resume", str(scene.folder))
    assert (code, "another process is at work there" in said) == (2, True), said
    assert scene.until(lambda: faults.worker_killed(scene, rng, {}))
    assert scene.wait() == 0, scene.output
    found = losses(scene, before)
    assert not found.bad
    assert found.most <= 2  # one by each kill, and one more by the checkpoint


def test_trials_that_break_while_the_server_is_down_and_the_clock_jumps(scene: Scene) -> None:
    scene.env["SNNSWEEP_FAULTS_TROUBLED"] = "1"
    port = faults.server_down(scene.home, scene, 8)
    rows = load_results(scene.folder).set_index("trial_id").sort_index()
    assert rows["status"].tolist() == ["failed", "failed"] + ["finished"] * (scene.trials - 2)
    assert rows["cause"].tolist()[0] == "ValueError: a mistake of the space's"
    assert rows["cause"].tolist()[1].startswith("Diverged: ")
    assert any(
        said.startswith("memory ran out: each batch went through in 2 parts") for said in rows.loc["t0002", "warnings"]
    )
    tried = [note["trial"] for note in scene.notes()]
    assert tried.count(rows.loc["t0000", "train.weight_decay"]) == 1  # its mistake would only be made again
    with faults.tracking(scene.home, port):
        assert losses(scene, {}) == Losses()


def test_a_full_disk_and_sigterm(tmp_path: Path) -> None:
    with faults.small_disk(tmp_path / "disk") as disk:
        if disk is None:
            pytest.skip("mounting a small disk is not permitted here")
        scene = Scene(tmp_path / "full", storage=disk)
        try:
            scene.run()
            assert scene.until(lambda: len(scene.lines()) >= 1)
            before = kept(scene)
            faults.disk_full(scene, Random(0))
            before |= kept(scene)
            scene.resume()
            assert scene.until(lambda: len(scene.lines()) > len(before))
            faults.terminated(scene, Random(0))
            before |= kept(scene)
            scene.resume()
            assert scene.wait() == 0, scene.output
            found = losses(scene, before)
            assert (found.bad, found.most <= 1) == ({}, True)
        finally:
            scene.close()


def test_nodes_vanish_one_after_the_other(scene: Scene) -> None:
    """The second one costs the sweep nothing; with the head Ray is gone, and the driver ends."""
    nodes = faults.Nodes(scene.home)
    try:
        nodes.add()
        scene.run("--address", nodes.address)
        assert scene.until(lambda: len({note["pid"] for note in scene.notes()}) >= 2)
        nodes.remove()
        ended = len(scene.lines())
        assert scene.until(lambda: len(scene.lines()) > ended)
        nodes.remove(0)
        faults.ended_without_ray(scene)
        before = kept(scene)
        scene.resume()
        assert scene.wait() == 0, scene.output
        found = losses(scene, before)
        assert (found.bad, found.most <= 1) == ({}, True)
    finally:
        nodes.close()
