"""Successive halving against a transcription of its definition, hand-made orders, Ray's own, and through a real Ray."""

import json
import math
import pickle
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from snnsweep.errors import UserError
from snnsweep.result import Direction
from snnsweep.results.front import non_dominated
from snnsweep.sweep.asha import Asha, Fronts, crowding, epsilon_net
from snnsweep.sweep.brackets import Brackets, rungs
from snnsweep.sweep.cluster import start_here
from snnsweep.sweep.scheduler import RUNGS, RungScheduler, longest_of

Costs = Sequence[float]
THREE: dict[str, Direction] = {
    "clean_accuracy": "maximize",
    "robust_accuracy": "maximize",
    "activity/synops": "minimize",
}
ONE: dict[str, Direction] = {"score": "maximize"}
LEVELS = st.lists(st.integers(0, 4), min_size=3, max_size=3)


# The transcription: no numpy, everything sorted anew at every report.


def beats(one: Costs, other: Costs) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def plain_fronts(points: Sequence[Costs]) -> list[list[int]]:
    left, found = list(range(len(points))), []
    while left:
        found.append([i for i in left if not any(beats(points[j], points[i]) for j in left)])
        left = [i for i in left if i not in found[-1]]
    return found


def plain_net(points: Sequence[Costs]) -> list[int]:
    spans = [max(column) - min(column) or 1.0 for column in zip(*points, strict=True)]
    scaled = [[value / span for value, span in zip(point, spans, strict=True)] for point in points]

    def gap(i: int) -> float:
        return min(math.sqrt(sum((a - b) * (a - b) for a, b in zip(scaled[i], scaled[j], strict=True))) for j in order)

    order = [min(range(len(points)), key=lambda i: (points[i][0], i))]
    while len(order) < len(points):
        order.append(min((i for i in range(len(points)) if i not in order), key=lambda i: (-gap(i), i)))
    return order


def plain_crowding(points: Sequence[Costs]) -> list[int]:
    distance = [0.0] * len(points)
    for column in zip(*points, strict=True):
        line = sorted(range(len(points)), key=lambda i: column[i])
        if column[line[0]] == column[line[-1]]:
            continue
        for before, i, after in zip(line, line[1:], line[2:], strict=False):
            distance[i] += (column[after] - column[before]) / (max(column) - min(column))
        distance[column.index(min(column))] = distance[column.index(max(column))] = math.inf
    return sorted(range(len(points)), key=lambda i: (-distance[i], i))


def plain_ranking(points: Sequence[Costs | None], order: str) -> list[int]:
    """All trials at a rung, best first; None where a metric is missing."""
    whole = [i for i, point in enumerate(points) if point is not None]
    ranking = []
    for front in plain_fronts([points[i] for i in whole]):
        members = [whole[i] for i in front]
        inner = {"epsilon_net": plain_net, "crowding": plain_crowding}[order]([points[i] for i in members])
        ranking += [members[i] for i in inner]
    return ranking + [i for i, point in enumerate(points) if point is None]


def plain_decisions(
    reports: Sequence[tuple[str, int, Mapping[str, Any]]],
    metrics: Mapping[str, Direction],
    eta: int,
    order: str,
    first_rung: Mapping[str, int],
) -> list[bool]:
    """Whether each trial goes on after each report; those of a trial that was stopped are left out."""
    decisions, stopped, at = [], set(), {}
    for trial, epoch, values in reports:
        if trial in stopped:
            continue
        goes_on = True
        if epoch in {first_rung[trial] * eta**k for k in range(10)}:
            costs = [values.get(n, math.nan) * (-1 if way == "maximize" else 1) for n, way in metrics.items()]
            there = at.setdefault((first_rung[trial], epoch), [])
            there.append(costs if all(map(math.isfinite, costs)) else None)
            place = plain_ranking(there, order).index(len(there) - 1)
            goes_on = len(there) < eta or place < len(there) // eta
        decisions.append(goes_on)
        if not goes_on:
            stopped.add(trial)
    return decisions


def recorded_curves(seed: int, trials: int, longest: int) -> list[tuple[str, int, dict[str, float]]]:
    """Reports of trials that learn at their own pace, four at a time; one in ten misses a number."""
    rng = random.Random(seed)
    curves = {}
    for number in range(trials):
        clean, robust, pace, synops = (rng.random() for _ in range(4))
        curves[f"t{number:04d}"] = [
            {
                "clean_accuracy": clean * (1 - math.exp(-epoch * pace)) + rng.gauss(0, 0.03),
                "robust_accuracy": round(robust * (1 - clean), 2),  # of few samples: it ties
                "activity/synops": 1e6 * synops,
                "loss": 1.0,
            }
            for epoch in range(1, longest + 1)
        ]
        for values in curves[f"t{number:04d}"]:
            if rng.random() < 0.1:
                name = rng.choice(list(THREE))
                values[name] = rng.choice([math.nan, math.inf, -math.inf])
                if rng.random() < 0.5:
                    del values[name]
    waiting, reports = {trial: enumerate(curve, start=1) for trial, curve in curves.items()}, []
    while waiting:
        trial = rng.choice(list(waiting)[:4])
        if report := next(waiting[trial], None):
            reports.append((trial, *report))
        else:
            del waiting[trial]
    return reports


def decisions_of(asha: Asha, reports: Sequence[tuple[str, int, Mapping[str, Any]]]) -> list[bool]:
    return [asha.goes_on(*report) for report in reports if report[0] not in asha.stopped]


@pytest.mark.parametrize(
    ("seed", "eta", "brackets", "order", "names"),
    [
        (0, 3, 1, "epsilon_net", ["clean_accuracy", "robust_accuracy"]),
        (1, 2, 1, "epsilon_net", list(THREE)),
        (2, 3, 3, "epsilon_net", list(THREE)),
        (3, 2, 3, "crowding", list(THREE)),
        (4, 4, 1, "crowding", ["robust_accuracy", "activity/synops"]),
        (5, 3, 2, "epsilon_net", ["activity/synops"]),
    ],
)
def test_decides_as_the_transcription(seed: int, eta: int, brackets: int, order: str, names: list[str]) -> None:
    metrics = {name: THREE[name] for name in names}
    reports = recorded_curves(seed, trials=60, longest=12)
    asha = Asha(metrics, 12, eta=eta, brackets=brackets, order=order, seed=seed)
    first_rung = {trial: eta ** asha.brackets.of(trial) for trial, _, _ in reports}
    assert len(set(first_rung.values())) == brackets
    expected = plain_decisions(reports, metrics, eta, order, first_rung)
    assert decisions_of(asha, reports) == expected
    assert 10 < len(asha.stopped) < 60
    assert {record["epoch"] for record in asha.records} == set(asha.rungs)


@given(st.lists(LEVELS, min_size=1, max_size=30))
def test_fronts_equal_brute_force(points: list[list[int]]) -> None:
    fronts = Fronts(3)
    for point in points:
        fronts.add([float(value) for value in point])
    ranks = [0] * len(points)
    for rank, members in enumerate(plain_fronts(points)):
        for i in members:
            ranks[i] = rank
    assert fronts.ranks.tolist() == ranks
    mask = non_dominated(np.array(points), ["minimize"] * 3)
    assert (fronts.ranks == 0).tolist() == mask.tolist()


@given(st.lists(LEVELS, min_size=1, max_size=20))
def test_ranks_see_order_alone(points: list[list[int]]) -> None:
    plain, bent = Fronts(3), Fronts(3)
    for a, b, c in points:
        plain.add([a, b, c])
        bent.add([math.exp(a), b**3 - 100.0, c * 1e9])
    assert plain.ranks.tolist() == bent.ranks.tolist()


FRONT = np.array([[0, 1000], [1, 700], [4, 400], [7, 200], [10, 0]], dtype=float)


def test_epsilon_net_by_hand() -> None:
    """In units of the ranges: (0, 1), (.1, .7), (.4, .4), (.7, .2), (1, 0).

    Best in the first objective: 0. Farthest from it: 4. Then the gaps are .32 (1), .72 (2) and .36 (3): 2. Then the
    gaps are still .32 and .36: 3.
    """
    assert epsilon_net(FRONT, 5) == [0, 4, 2, 3, 1]
    assert epsilon_net(FRONT, 2) == [0, 4]
    assert epsilon_net(FRONT[::-1], 3) == [4, 0, 2]


def test_crowding_by_hand() -> None:
    """Both ends are infinite; inside, (.4 + .6) for 1, (.6 + .5) for 2 and (.6 + .4) for 3: 1 came before 3."""
    assert crowding(FRONT, 5) == [0, 4, 2, 1, 3]
    assert crowding(FRONT, 3) == [0, 4, 2]


@pytest.mark.parametrize("order", [epsilon_net, crowding])
def test_equals_keep_their_order_of_arrival(order) -> None:
    assert order(np.array([[3.0, 3.0]] * 4), 3) == [0, 1, 2]


@given(st.lists(LEVELS, min_size=1, max_size=12), st.integers(1, 12))
def test_orders_equal_the_transcription_where_much_is_tied(points: list[list[int]], count: int) -> None:
    array, count = np.array(points, dtype=float), min(count, len(points))
    assert epsilon_net(array, count) == plain_net(points)[:count]
    assert crowding(array, count) == plain_crowding(points)[:count]


def test_the_epsilon_net_cuts_a_front() -> None:
    """Nobody dominates anybody; of six, two go on: the best in the first metric, and the farthest from it."""
    asha = Asha({"accuracy": "maximize", "cost": "minimize"}, 9)
    told = [asha.goes_on(f"t{i}", 1, {"accuracy": a, "cost": a}) for i, a in enumerate([0.5, 0.6, 0.4, 0.55, 0.45, 0])]
    assert told == [True, True, False, False, False, True]
    again = Asha({"cost": "minimize", "accuracy": "maximize"}, 9)
    told = [again.goes_on(f"t{i}", 1, {"accuracy": a, "cost": a}) for i, a in enumerate([0.5, 0.6, 0.4, 0.55, 0.45, 1])]
    assert told == [True, True, True, False, False, True]


@given(st.lists(LEVELS, min_size=1, max_size=25), st.sampled_from(["epsilon_net", "crowding"]))
def test_directions_and_units_do_not_matter(points: list[list[int]], order: str) -> None:
    """Units as powers of two, so that rounding is the same."""
    one = Asha({"a": "maximize", "b": "minimize", "c": "maximize"}, 9, order=order)
    two = Asha({"a": "minimize", "b": "minimize", "c": "maximize"}, 9, order=order)
    for i, (a, b, c) in enumerate(points):
        told = one.goes_on(str(i), 1, {"a": a, "b": b, "c": c})
        assert told == two.goes_on(str(i), 1, {"a": -a, "b": b * 1024, "c": c / 4096})


@given(st.data(), st.integers(2, 4))
def test_the_best_of_one_objective_is_never_stopped(data: st.DataObject, eta: int) -> None:
    """Whenever it comes, and whatever the others report; the first of several best ones."""
    score = st.one_of(st.integers(0, 5), st.just(math.nan))
    curves = data.draw(st.lists(st.lists(score, min_size=9, max_size=9), max_size=12))
    curves.insert(data.draw(st.integers(0, len(curves))), [6] * 9)
    curves.append([6] * 9)
    best = next(i for i, curve in enumerate(curves) if curve[0] == 6)
    asha = Asha(ONE, 10, eta=eta)
    for epoch in range(1, 10):
        for i, curve in enumerate(curves):
            asha.goes_on(str(i), epoch, {"score": curve[epoch - 1]})
    assert str(best) not in asha.stopped


@given(st.permutations(range(30)), st.sampled_from([2, 3, 4]))
def test_one_objective_is_rays_asha_but_for_its_quantile(scores: list[int], eta: int) -> None:
    """Of n at a rung, ours lets the best floor(n / eta) go on, the new one counted.

    Ray interpolates a quantile among the n - 1 others. For sure it lets through who has fewer than
    floor((n - 2) / eta) + 1 better ones: floor(n / eta) where n mod eta is 0 or 1, else one more; whoever has just
    as many may fall on either side. It also stops the second of two where eta is above 2, and keeps who ties.
    """
    theirs = AsyncHyperBandScheduler("epoch", "score", "max", max_t=9, reduction_factor=eta)
    asha = Asha(ONE, 9, eta=eta)
    for i, score in enumerate(scores):
        trial: Any = SimpleNamespace(trial_id=str(i))
        theirs.on_trial_add(None, trial)
        ray_goes_on = theirs.on_trial_result(None, trial, {"epoch": 1, "score": score}) == TrialScheduler.CONTINUE
        n, better = i + 1, sum(other > score for other in scores[:i])
        goes_on = asha.goes_on(str(i), 1, {"score": score})
        surely = (n - 2) // eta + 1
        if n < eta:
            assert goes_on
            continue
        assert goes_on == (better < n // eta)
        assert ray_goes_on or not goes_on
        if n % eta in (0, 1) and better != surely:
            assert ray_goes_on == goes_on
        assert ray_goes_on == (better < surely) or better == surely


def test_ties_and_few_trials_differ_from_ray() -> None:
    theirs = AsyncHyperBandScheduler("epoch", "score", "max", max_t=9, reduction_factor=3)
    asha, ours, rays = Asha(ONE, 9), [], []
    for i, score in enumerate([5, 4, 5, 5]):
        trial: Any = SimpleNamespace(trial_id=str(i))
        theirs.on_trial_add(None, trial)
        rays.append(theirs.on_trial_result(None, trial, {"epoch": 1, "score": score}) == TrialScheduler.CONTINUE)
        ours.append(asha.goes_on(str(i), 1, {"score": score}))
    assert rays == [True, False, True, True]
    assert ours == [True, True, False, False]


@given(st.lists(st.tuples(st.integers(1, 9), LEVELS), max_size=40), st.integers(2, 5))
def test_the_first_to_reach_a_rung_go_on(reports: list[tuple[int, list[int]]], eta: int) -> None:
    asha = Asha({"a": "maximize", "b": "maximize", "c": "minimize"}, 10, eta=eta)
    reached: Counter[int] = Counter()
    for i, (epoch, values) in enumerate(reports):
        goes_on = asha.goes_on(str(i), epoch, dict(zip("abc", values, strict=True)))
        reached[epoch] += 1
        assert goes_on or (epoch in asha.rungs and reached[epoch] >= eta)


@pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf, None])
def test_what_misses_a_metric_ranks_below_all(nothing: float | None) -> None:
    metrics: dict[str, Direction] = {"a": "maximize", "b": "minimize"}
    asha = Asha(metrics, 9, eta=2)
    assert asha.goes_on("first", 1, {"a": 1.0, "b": nothing})  # too early to stop anybody
    assert not asha.goes_on("second", 1, {"b": 0.0})
    assert asha.goes_on("bad", 1, {"a": -1e300, "b": 1e300})
    assert not asha.goes_on("third", 1, {"a": 9.0, "b": nothing})
    assert [record["values"] for record in asha.records[:2]] == [[1.0, None], [None, 0.0]]


def test_a_report_that_comes_again_is_not_counted_again() -> None:
    asha = Asha(ONE, 9)
    scores = {"a": 5, "b": 6, "c": 1}
    told = {name: asha.goes_on(name, 1, {"score": score}) for name, score in scores.items()}
    assert told == {"a": True, "b": True, "c": False}
    records = list(asha.records)
    for name in scores:
        assert asha.goes_on(name, 1, {"score": 99}) == told[name]
    assert not asha.goes_on("c", 2, {"score": 99})  # its worker was lost before the stop was carried out
    assert not asha.goes_on("c", 3, {"score": 99})
    assert asha.records == records
    assert asha.stopped == {"c": 1}


def test_goes_on_where_it_left_off() -> None:
    reports = recorded_curves(7, trials=50, longest=12)
    whole, first = (Asha(THREE, 12, brackets=2, seed=3) for _ in range(2))
    expected = decisions_of(whole, reports)
    half = decisions_of(first, reports[:250])
    second = Asha(THREE, 12, brackets=2, seed=3)
    second.goes_on("forgotten", 1, dict.fromkeys(THREE, 0.5))
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert second.stopped == first.stopped != {}
    assert half + decisions_of(second, reports[250:]) == expected
    assert second.state_dict() == whole.state_dict()


def test_rungs_of_other_settings_are_refused() -> None:
    state = Asha(THREE, 12).state_dict()
    with pytest.raises(UserError, match=r"eta: 3 then, 2 now\n  seed: 0 then, 1 now"):
        Asha(THREE, 12, eta=2, seed=1).load_state_dict(state)
    with pytest.raises(UserError, match="metrics"):  # the first metric is where the epsilon-net begins
        Asha(dict(reversed(THREE.items())), 12).load_state_dict(state)


def test_rungs() -> None:
    assert rungs(1, 3, 27) == (1, 3, 9)
    assert rungs(1, 3, 28) == (1, 3, 9, 27)
    assert rungs(2, 4, 100) == (2, 8, 32)
    assert rungs(5, 3, 5) == ()
    assert Asha(THREE, 1).goes_on("t", 1, {})  # nothing to decide


def test_a_trial_meets_each_rung_before_its_own_last_epoch() -> None:
    """Also beyond the longest of the variants that were sampled when the sweep began."""
    brackets = Brackets(2, 3, (0.0, 1.0))
    assert [epoch for epoch in range(1, 200) if Brackets(2, 3).meets("t", epoch, 162)] == [2, 6, 18, 54]
    assert [epoch for epoch in range(1, 200) if brackets.meets("t", epoch, 163)] == [6, 18, 54, 162]
    asha = Asha(ONE, 9)
    assert [asha.goes_on(f"t{rank}", 27, {"score": 9 - rank}, 28) for rank in range(3)] == [True, True, False]
    assert [asha.goes_on(f"t{rank}", 27, {"score": rank}) for rank in range(3, 9)] == [True] * 6  # of 9 epochs


def test_brackets_have_hyperbands_shares_and_a_seed() -> None:
    """Three rungs, eta 3: 27 / 4, 9 / 3, 3 / 2 and 1 of 12.25."""
    names = [f"t{number:04d}" for number in range(4000)]
    drawn = [Asha(ONE, 27, brackets=4, seed=1).brackets.of(name) for name in names]
    for bracket, share in enumerate([6.75, 3, 1.5, 1]):
        assert drawn.count(bracket) / 4000 == pytest.approx(share / 12.25, abs=0.03)
    again, other = Asha(ONE, 27, brackets=4, seed=1), Asha(ONE, 27, brackets=4, seed=2)
    assert [again.brackets.of(name) for name in reversed(names)] == drawn[::-1]  # whoever comes first
    assert [other.brackets.of(name) for name in names] != drawn


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"eta": 1}, "eta=1: has to be at least 2"),
        ({"grace": 0, "longest": 0}, "longest=0: has to be at least 1\n  grace=0"),
        ({"brackets": 5}, "brackets=5: at most 4"),
        ({"order": "crowded"}, "order='crowded': did you mean crowding"),
        ({"metrics": {}}, "metrics: name at least one"),
    ],
)
def test_settings_are_checked(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Asha(**({"metrics": THREE, "longest": 27} | given_))
    assert said in str(caught.value)


# Through Ray.


def told(scheduler: RungScheduler, number: int, score: float, **more: Any) -> str:
    trial: Any = SimpleNamespace(config={"number": number, "flat": {"train.epochs": 9}})
    return scheduler.on_trial_result(None, trial, {"epoch": 1, "metrics/rung/score": score} | more)  # type: ignore[arg-type]


def test_the_file_gives_the_rungs_back(tmp_path: Path) -> None:
    scheduler = RungScheduler(Asha(ONE, 9), tmp_path / RUNGS)
    as_ray_saves_it = pickle.dumps(scheduler)
    assert [told(scheduler, i, 9 - i) for i in range(3)] == ["CONTINUE", "CONTINUE", "STOP"]
    again = pickle.loads(as_ray_saves_it)  # noqa: S301  what this test has pickled
    assert again.asha.state_dict() == scheduler.asha.state_dict()
    assert told(again, 2, 100) == "STOP"
    assert told(again, 3, 10) == "CONTINUE"
    assert len(RungScheduler(Asha(ONE, 9), tmp_path / RUNGS).asha.records) == 4
    with pytest.raises(UserError, match="eta: 3 then, 2 now"):
        RungScheduler(Asha(ONE, 9, eta=2), tmp_path / RUNGS)


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    scheduler = RungScheduler(Asha(ONE, 9), tmp_path / RUNGS)
    told(scheduler, 0, 1)
    told(scheduler, 1, 2)
    (tmp_path / RUNGS).write_text((tmp_path / RUNGS).read_text()[:-5])
    again = RungScheduler(Asha(ONE, 9), tmp_path / RUNGS)
    assert [record["trial"] for record in again.asha.records] == ["t0000"]
    told(again, 2, 3)
    third = RungScheduler(Asha(ONE, 9), tmp_path / RUNGS)
    assert [record["trial"] for record in third.asha.records] == ["t0000", "t0002"]


def test_a_file_without_its_settings_is_told(tmp_path: Path) -> None:
    scheduler = RungScheduler(Asha(ONE, 9), tmp_path / RUNGS)
    told(scheduler, 0, 1)
    settings, record = (tmp_path / RUNGS).read_text().splitlines(keepends=True)
    for damaged in (record, settings[5:] + record):
        (tmp_path / RUNGS).write_text(damaged)
        with pytest.raises(UserError, match="its first line, the settings of the rungs, is damaged or gone"):
            longest_of(tmp_path / RUNGS)
        with pytest.raises(UserError, match="its first line"):
            RungScheduler(Asha(ONE, 9), tmp_path / RUNGS)


def test_a_file_that_cannot_be_written_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scheduler = RungScheduler(Asha(ONE, 9), tmp_path / RUNGS)
    (tmp_path / RUNGS).unlink()
    (tmp_path / RUNGS).mkdir()
    assert [told(scheduler, i, 9 - i) for i in range(3)] == ["CONTINUE", "CONTINUE", "STOP"]
    assert "t0002" in caplog.text


def test_the_last_step_is_not_a_report_at_a_rung(tmp_path: Path) -> None:
    scheduler = RungScheduler(Asha(ONE, 9), tmp_path / RUNGS)
    for number in range(3):
        told(scheduler, number, 5)
    assert told(scheduler, 7, 0, result="{}", done=True) == "CONTINUE"
    assert len(scheduler.asha.records) == 3


def test_a_trial_that_is_trained_is_not_compared(tmp_path: Path) -> None:
    """Its own epochs end at another one's rung: it was not measured there, and its end comes next."""
    scheduler = RungScheduler(Asha(ONE, 27, grace=9), tmp_path / RUNGS)
    for number in range(5):
        assert told(scheduler, number, 5 - number, epoch=9) == "CONTINUE"
    assert scheduler.asha.records == []


def test_who_was_stopped_before_a_crash_cannot_finish_after_it(tmp_path: Path) -> None:
    """It had trained to its end when the driver died, and its row was not written."""
    scheduler = RungScheduler(Asha(ONE, 9), tmp_path / RUNGS)
    assert [told(scheduler, i, 9 - i) for i in range(3)] == ["CONTINUE", "CONTINUE", "STOP"]
    again = RungScheduler(Asha(ONE, 9), tmp_path / RUNGS)
    assert told(again, 2, 100, epoch=9) == "STOP"
    assert told(again, 1, 100, epoch=9) == "CONTINUE"


EPOCHS = 4
TRIALS = 10


def learner() -> type[tune.Trainable]:
    """Made here, so that it travels to Ray's workers by value: they cannot import a test."""

    class Learner(tune.Trainable):
        """Reports like `SweepTrial`; the higher its number, the worse in everything."""

        def setup(self, config: dict[str, Any]) -> None:
            self.epoch, self.quality = 0, 1 - config["number"] / 100

        def step(self) -> dict[str, Any]:
            if self.epoch == EPOCHS:
                return {"epoch": self.epoch, "result": "{}", "done": True}
            self.epoch += 1
            metrics = {"rung/clean_accuracy": self.quality * self.epoch, "rung/robust_accuracy": self.quality / 2}
            return {"epoch": self.epoch, "metrics": metrics, "done": False}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            (Path(checkpoint_dir) / "epoch").write_text(str(self.epoch))

        def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]
            self.epoch = int((Path(checkpoint_dir) / "epoch").read_text())

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

    return Learner


class Witness(tune.Callback):
    """What a callback of the sweep sees: the reports, and which trials ended."""

    reports: list[tuple[int, dict[str, Any]]]
    completed: list[int]

    def __init__(self) -> None:
        self.reports, self.completed = [], []

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        self.reports.append((trial.config["number"], dict(result)))

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.completed.append(trial.config["number"])


@pytest.fixture
def cluster() -> Iterator[None]:
    start_here(num_cpus=2)
    yield
    ray.shutdown()


def test_through_ray(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")
    metrics = {name: THREE[name] for name in ("clean_accuracy", "robust_accuracy")}
    scheduler, witness = RungScheduler(Asha(metrics, EPOCHS), tmp_path / RUNGS), Witness()
    trainable = learner()
    tune.Tuner(
        trainable,
        param_space={"number": tune.grid_search(list(range(TRIALS))), "flat": {"train.epochs": EPOCHS}},
        tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=2, reuse_actors=True),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(tmp_path),
            callbacks=[witness],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_frequency=1, checkpoint_at_end=True),
            verbose=0,
        ),
    ).fit()
    asha = scheduler.asha
    reached = [(record["trial"], record["epoch"], dict(zip(metrics, record["values"], strict=True)))
               for record in asha.records]  # fmt: skip
    one = dict.fromkeys((trial for trial, _, _ in reached), 1)
    assert [record["goes_on"] for record in asha.records] == plain_decisions(reached, metrics, 3, "epsilon_net", one)
    assert sorted(witness.completed) == list(range(TRIALS))
    assert "t0009" in asha.stopped  # worse than all, and far from the first two to come
    for number in range(TRIALS):
        seen = [report for who, report in witness.reports if who == number]
        last = seen[-1]
        assert last["done"]
        if stopped := asha.stopped.get(f"t{number:04d}"):
            assert last["epoch"] == stopped == len(seen)
            assert "result" not in last
            assert set(last["metrics"]) == {f"rung/{name}" for name in metrics}  # not flattened for a callback
        else:
            assert last["result"] == "{}"
            assert len(seen) == EPOCHS + 1
    assert {record["epoch"] for record in asha.records} == {1, 3}
    restored = tune.Tuner.restore(str(tmp_path / "ray"), trainable)
    assert restored._local_tuner._tune_config.scheduler.asha.state_dict() == asha.state_dict()
