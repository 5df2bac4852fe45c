import inspect
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe import sampler as stock
from optuna.trial import TrialState, create_trial

from snnsweep.results.front import non_dominated
from snnsweep.sweep import history
from snnsweep.sweep.history import Elite
from snnsweep.sweep.study import CONSTRAINT, WARM
from snnsweep.sweep.tpe import BEST, OTHERS, BoundedTPE

WAYS = ("minimize", "maximize", "minimize")


def branching(trial: optuna.Trial) -> tuple[list[float], float]:
    """Three objectives, and a region that fails; a branch that few take."""
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_int("y", 1, 9) / 10
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    z = trial.suggest_float("z", 1e-3, 1, log=True) if kind == "a" else 0.1
    return [x + z, y - x, abs(x - y) + z], float(x > 0.8)


def asked(sampler: TPESampler, trials: int, ways: tuple[str, ...] = WAYS, pending: int = 3) -> list[dict]:
    """The parameters of so many trials, of which some always run and end out of turn."""
    study, running = optuna.create_study(directions=ways, sampler=sampler), []
    for index in range(trials):
        trial = study.ask()
        running.append((trial, *branching(trial)))
        if len(running) > pending:
            ended, values, violated = running.pop(index % pending)
            ended.set_constraint(CONSTRAINT, violated)
            study.tell(ended, values[: len(ways)])
    return [trial.params for trial in study.get_trials()]


def optunas(seed: int) -> TPESampler:
    return TPESampler(seed=seed, n_startup_trials=6, multivariate=True, group=True)


def test_a_short_history_gives_what_optunas_own_gives_bit_for_bit():
    expected = asked(optunas(1), 60)
    assert asked(BoundedTPE(1, 6), 60) == expected
    bounded = asked(BoundedTPE(1, 6, bound=30, best=4, others=20), 60)
    assert bounded[:34] == expected[:34] != bounded[34:]  # 30 were told by then


def by_hypervolume(points: np.ndarray, count: int) -> np.ndarray:
    """Optuna's way to cut a front."""
    return stock._solve_hssp(points, np.arange(len(points)), count, stock._get_reference_point(points))


@pytest.mark.parametrize("ways", [WAYS, WAYS[:1]])
def test_with_room_for_all_its_own_way_gives_what_optunas_gives(ways: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(history, "epsilon_net", by_hypervolume)
    roomy = BoundedTPE(2, 6, bound=10, best=10_000, others=10_000)
    assert asked(roomy, 50, ways) == asked(optunas(2), 50, ways)
    assert roomy._long


def test_what_it_leans_on_in_optuna_is_there():
    assert [*inspect.signature(TPESampler._sample).parameters][1:] == ["study", "trial", "search_space"]
    assert [*inspect.signature(TPESampler._sample_relative).parameters][1:] == ["study", "trial", "search_space"]
    built = inspect.signature(TPESampler._build_parzen_estimator).parameters
    assert [*built][1:] == ["study", "search_space", "trials", "handle_below"]
    assert {"_rng", "_n_ei_candidates", "_search_space_group"} <= vars(optunas(0)).keys()


def told(values: list[float], number: int, violated: float = 0.0) -> optuna.trial.FrozenTrial:
    trial = create_trial(values=values, constraints={CONSTRAINT: violated})
    trial.number = number
    return trial


points = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=30)


@given(points, st.integers(1, 12), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_elite_are_the_best_fronts_in_whatever_order_they_came(given_points: list, count: int, random):
    trials = [told([float(value) for value in point], number) for number, point in enumerate(given_points)]
    elites = []
    for _ in range(2):
        elite = Elite(3)
        for trial in random.sample(trials, len(trials)):
            elite.add(trial, trial.values)
            elite.best(count)  # what it found before may not count any more
        elites.append({trial.number for trial in elite.best(count)})
    assert elites[0] == elites[1]
    assert len(elites[0]) == min(count, len(trials))
    left, best = np.arange(len(trials)), elites[0]
    while len(left) and best:
        front = set(left[non_dominated(np.array([given_points[i] for i in left]), ("minimize",) * 3)].tolist())
        assert front <= best or best <= front
        best, left = best - front, np.array([i for i in left if i not in front])
    assert not best


def many(count: int) -> optuna.Study:
    """A study of so many told trials, a fifth of which failed."""
    study = optuna.create_study(directions=WAYS, sampler=BoundedTPE(0, 6))
    draw, ways = np.random.default_rng(0), {"x": optuna.distributions.FloatDistribution(0, 1)}
    for values in draw.random((count, 3)):
        violated = float(values[0] < 0.2)
        study.add_trial(
            create_trial(params={"x": values[1]}, distributions=ways, values=values, constraints={CONSTRAINT: violated})
        )
    return study


def test_a_long_history_is_shown_in_part_and_looked_at_once(monkeypatch: pytest.MonkeyPatch):
    study, shown, taken = many(1_500), [], []
    sampler = study.sampler
    build: Callable = sampler._build_parzen_estimator
    take: Callable = history.History._take
    monkeypatch.setattr(
        sampler, "_build_parzen_estimator", lambda *args, **which: (shown.append(args[2]), build(*args, **which))[1]
    )
    monkeypatch.setattr(history.History, "_take", lambda self, trial: (taken.append(trial.number), take(self, trial)))
    running = [study.ask(study.trials[0].distributions) for _ in range(3)]
    assert taken == list(range(1_500))
    study.tell(running[1], [0.0, 1.0, 0.0])  # better than all
    study.ask(study.trials[0].distributions)
    assert taken[1_500:] == [1_501]
    good, bad = shown[-2:]
    assert len(good) == BEST
    assert 1_501 in {trial.number for trial in good}
    assert all(sum(trial.constraints.values()) == 0 for trial in good)
    assert len(bad) == OTHERS + 2
    assert [trial.number for trial in bad if trial.state == TrialState.RUNNING] == [1_500, 1_502]
    failed = [sum(trial.constraints.values()) > 0 for trial in bad]
    assert 0.1 < np.mean(failed) < 0.3
    numbers = [trial.number for trial in bad]
    assert numbers == sorted(numbers)
    assert not {trial.number for trial in good} & set(numbers)


def test_where_too_few_are_feasible_those_that_violate_least_are_good():
    study = optuna.create_study(directions=WAYS)
    for number in range(30):
        study.add_trial(told([1.0, 1.0, 1.0], number, violated=0.0 if number == 7 else 1 - number / 100))
    kept = history.History(study)
    kept.take(study.get_trials())
    assert [trial.number for trial in kept.best(3)] == [7, 28, 29]


def small(trial: optuna.Trial) -> list[float]:
    trial.suggest_categorical("always", ["this"])
    x, kind = trial.suggest_float("x", 0.1, 0.7, step=0.1), trial.suggest_categorical("kind", ["a", "b"])
    y = trial.suggest_int("y", 0, 1) if kind == "a" else 2
    return [x, 1 - x + y, y * x]


SMALL = 21


def repeats(sampler: TPESampler, trials: int, side_by_side: int = 2) -> int:
    study, running = optuna.create_study(directions=WAYS, sampler=sampler), []
    for _ in range(trials):
        trial = study.ask()
        running.append((trial, small(trial)))
        if len(running) == side_by_side:
            study.tell(*running.pop(0))
    return trials - len({tuple(sorted(trial.params.items())) for trial in study.get_trials()})


@pytest.mark.parametrize("bound", [500, 8])
def test_no_variant_of_a_small_space_is_asked_twice_until_it_is_spent(bound: int):
    assert repeats(optunas(4), SMALL) > 3
    assert repeats(BoundedTPE(4, 3, bound=bound), SMALL) == 0
    assert repeats(BoundedTPE(4, 3, bound=bound), SMALL + 4) == 4


def test_what_another_sweep_ran_is_no_repetition():
    study = optuna.create_study(directions=WAYS, sampler=BoundedTPE(0, 1))
    ways = {"kind": CategoricalDistribution(["a", "b"])}
    for kind in "ab":
        study.add_trial(
            create_trial(params={"kind": kind}, distributions=ways, values=[0.0, 0.0, 0.0], user_attrs={WARM: "t"})
        )
    assert {study.ask(ways).params["kind"] for _ in range(2)} == {"a", "b"}
