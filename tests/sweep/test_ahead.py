from collections.abc import Callable
from pathlib import Path
from threading import Event, get_ident
from time import sleep

import pytest
from optuna.trial import TrialState

from snnsweep.sweep.ahead import Ahead
from snnsweep.sweep.samplers import seeded
from snnsweep.sweep.search import StudySearcher, Teller, asked_ahead
from snnsweep.sweep.space import Space
from snnsweep.sweep.study import open_study, running

SPACE = Space("one.py", "def space(trial):\n    trial.suggest_float('neuron.v_threshold', 0.1, 2.0)\n")
GRID = Space("grid.py", "def space(trial):\n    trial.suggest_int('encoder.time_steps', 2, 5)\n")


def counter(stop: int) -> tuple[Callable[[], int | None], list[int]]:
    """Gives 0, 1, ... below `stop`, then None; and the threads that asked."""
    threads: list[int] = []

    def make() -> int | None:
        threads.append(get_ident())
        return len(threads) - 1 if len(threads) <= stop else None

    return make, threads


@pytest.mark.parametrize("ready", [0, 1, 3])
def test_all_come_in_order_and_none_is_left_over(ready: int):
    make, threads = counter(5)
    ahead = Ahead(make, 5, ready)
    assert [ahead.take() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert ahead.close() == []
    assert len(threads) == 5
    assert (get_ident() in threads) == (ready == 0)
    assert len(set(threads)) == 1


@pytest.mark.parametrize("ready", [0, 3])
def test_after_the_end_nothing_more_is_made(ready: int):
    make, threads = counter(2)
    ahead = Ahead(make, 9, ready)
    assert [ahead.take() for _ in range(4)] == [0, 1, None, None]
    assert ahead.close() == []
    assert len(threads) == 3


def test_what_was_made_and_not_taken_is_given_back():
    make, threads = counter(9)
    ahead = Ahead(make, 9, 2)
    assert ahead.take() == 0
    left = ahead.close()
    assert left == list(range(1, len(threads)))  # what had not begun is not made any more
    assert len(left) <= 2


def test_an_error_is_raised_where_it_is_taken_and_spoils_no_other():
    made = iter([1, OSError("the disk is full"), 3])

    def make() -> int:
        if isinstance(one := next(made), OSError):
            raise one
        return one

    ahead = Ahead(make, 3, 2)
    assert ahead.take() == 1
    with pytest.raises(OSError, match="full"):
        ahead.take()
    assert ahead.take() == 3


def test_the_taker_waits_for_nothing_but_its_own():
    second = Event()
    steps = iter([lambda: 1, lambda: second.wait(60) and 2])
    ahead = Ahead(lambda: next(steps)(), 2, 1)
    assert ahead.take() == 1  # while the second is being made
    second.set()
    assert ahead.take() == 2


def test_how_many_are_asked_ahead():
    assert [asked_ahead(slots) for slots in (1, 2, 8, 9, 64, 1000)] == [0, 1, 1, 2, 8, 125]


def searcher(folder: Path, ahead: int, most: int = 12, sampler: str = "random", space: Space = SPACE) -> StudySearcher:
    folder.mkdir(exist_ok=True)
    study = open_study(folder, "s", space.objectives, seeded(sampler, 0, 4))
    return StudySearcher(study, space, {"seed": 0}, {}, running(study), most, ahead)


def told(search: StudySearcher, *numbers: int) -> None:
    for number in numbers:
        Teller(search.study).tell(number, "finished", dict.fromkeys(search.space.objectives, number / 100))


@pytest.mark.parametrize("sampler", ["random", "nsga2", "tpe"])
def test_numbers_and_parameters_come_as_if_nothing_was_asked_ahead(sampler: str, tmp_path: Path):
    """While nothing has been told, where a sampler could not know more by waiting."""
    given = []
    for ahead in (0, 3):
        search = searcher(tmp_path / str(ahead), ahead, sampler=sampler)
        given.append([search.suggest("any") for _ in range(12)])
        search.close()
        assert len(search.study.get_trials()) == 12
    assert given[0] == given[1]
    assert [suggestion["number"] for suggestion in given[1]] == list(range(12))


def test_a_suggestion_ahead_knows_what_was_told_before_it_was_asked_for_and_no_more(tmp_path: Path):
    search = searcher(tmp_path, 1)
    known: list[int] = []
    ask = search.study.ask

    def noted() -> object:
        known.append(len(search.study.get_trials(states=(TrialState.COMPLETE,))))
        return ask()

    search.study.ask = noted
    for number in range(6):
        search.suggest("any")
        while len(known) < number + 2:
            sleep(0.001)  # the next one has been asked for: from here on nothing told reaches it
        told(search, number)
    assert known == [0, 0, 1, 2, 3, 4, 5]
    search.close()


def test_what_never_began_waits_in_the_study_and_comes_first_with_its_parameters(tmp_path: Path):
    search = searcher(tmp_path, 2)
    first = search.suggest("a")
    while len(search.study.get_trials()) < 3:
        sleep(0.001)
    search.close()
    waiting = [trial for trial in search.study.get_trials() if trial.number]
    assert running(search.study) == [first["number"]]
    assert {trial.state for trial in waiting} == {TrialState.WAITING}
    again = searcher(tmp_path, 2)
    given = [again.suggest("any") for _ in range(4)]
    again.close()
    assert [suggestion["number"] for suggestion in given] == [0, 1, 2, 3]
    thresholds = [suggestion["flat"]["neuron.v_threshold"] for suggestion in given]
    assert thresholds[0] == first["flat"]["neuron.v_threshold"]
    for trial in waiting:  # one that was cut off before it was sampled has none
        assert trial.params.get("neuron.v_threshold", thresholds[trial.number]) == thresholds[trial.number]
    assert len(set(thresholds)) == 4


def test_after_a_kill_it_comes_again_too(tmp_path: Path):
    killed = searcher(tmp_path, 2)
    first = killed.suggest("a")
    killed._ahead.close()  # nobody puts anything back
    left = running(killed.study)
    assert left[0] == first["number"]
    again = searcher(tmp_path, 2)
    given = [again.suggest("any") for _ in range(len(left) + 1)]
    again.close()
    assert [suggestion["number"] for suggestion in given] == [*left, len(left)]
    assert len({suggestion["flat"]["neuron.v_threshold"] for suggestion in given}) == len(given)


def test_one_that_ran_before_is_not_put_back(tmp_path: Path):
    killed = searcher(tmp_path, 0)
    for _ in range(3):
        killed.suggest("any")
    again = searcher(tmp_path, 2)
    again.suggest("any")
    again.close()
    assert running(again.study) == [0, 1, 2]


def test_a_spent_grid_ends_once(tmp_path: Path):
    search = searcher(tmp_path, 3, sampler="grid", space=GRID)
    given = [search.suggest("any") for _ in range(6)]
    search.close()
    assert given[4:] == ["FINISHED"] * 2
    assert {suggestion["flat"]["encoder.time_steps"] for suggestion in given[:4]} == {2, 3, 4, 5}
    states = [trial.state for trial in search.study.get_trials()]
    assert states == [TrialState.RUNNING] * 4 + [TrialState.FAIL]
