"""A sweep's study: where Optuna keeps it, whose trials are in it, and which of them are wanted again."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import optuna
import sqlalchemy
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from snnsweep.errors import UserError
from snnsweep.result import Direction
from snnsweep.sweep.study_file import Journal, StudyFile
from snnsweep.tracking.address import redacted

STUDY_FILE = "study.log"  # in the sweep's folder
CONSTRAINT = "not_finished"  # above 0 for a trial whose values are not its own, or not its last
WARM = "warm_from"  # user attribute of another sweep's trial: whose it is
RETRY = "retry_of"  # user attribute of a trial that runs a failed one's parameters again: that one's number
_JOURNAL = "journal://"
_UNUSABLE = (
    optuna.exceptions.OptunaError,
    sqlalchemy.exc.SQLAlchemyError,
    ImportError,
    OSError,
    RuntimeError,
    ValueError,
)


def open_study(
    folder: Path,
    name: str,
    objectives: Mapping[str, Direction],
    sampler: Callable[[int], BaseSampler],
    url: str | None = None,
    fresh: bool | None = None,
) -> optuna.Study:
    """The sweep's study, begun where there is none.

    Args:
        folder: the sweep's; it exists, and no other process works there.
        sampler: makes one from the number of trials that the study holds; see `samplers.seeded`.
        url: a database (`sqlite:///`, `postgresql://`, `mysql://`) or `journal:///PATH`; by default a journal file in
            the folder. `optuna-dashboard` opens all of them.
        fresh: True refuses a study that has trials, False one that is yet to be begun.

    Raises:
        UserError: the study cannot be opened, has other objectives, or is not as `fresh` says.
    """
    place = _place(folder, url)
    try:
        storage = _storage(folder, url)
        if name not in (there := optuna.study.get_all_study_names(storage)):
            if fresh is False:
                others = f" but {', '.join(map(repr, there))}" if there else ""
                raise UserError(f"{place} holds no study {name!r}{others}; restore the sweep's own")
            optuna.create_study(storage=storage, study_name=name, directions=list(objectives.values()))
        study = optuna.load_study(storage=storage, study_name=name)
        trials = len(study.get_trials(deepcopy=False))
    except _UNUSABLE as error:
        raise _unusable(place, error) from None
    if fresh and own(study):
        raise UserError(
            f"{place} holds a study {name!r} with {trials} trials already: `snnsweep resume {folder}` continues it; "
            "for a new sweep give another --name"
        )
    if not trials and study.metric_names is None and list(directions_of(study)) == list(objectives.values()):
        study.set_metric_names(list(objectives))
    if (stored := objectives_of(study)) != objectives or list(stored) != list(objectives):
        raise UserError(
            f"{place}: the study {name!r} has other objectives than the space; they cannot be changed\n"
            f"  study: {_listed(stored)}\n  space: {_listed(objectives)}\n"
            "put OBJECTIVES back as it was, or begin a new sweep"
        )
    study.sampler = sampler(trials)
    return study


def read_study(folder: Path, name: str, url: str | None = None) -> optuna.Study:
    """Another sweep's study, to read: that sweep may be running, and nothing of it is mended.

    Raises:
        UserError: it is not there, or cannot be read.
    """
    place = _place(folder, url)
    try:
        file = _journal_file(folder, url)
        if file is not None and not file.is_file():
            raise UserError(f"no study in {place}; give the folder of a sweep")
        storage = RDBStorage(str(url)) if file is None else JournalStorage(JournalFileBackend(str(file)))
        return optuna.load_study(storage=storage, study_name=name)
    except KeyError:
        raise UserError(f"{place} holds no study {name!r}") from None
    except _UNUSABLE as error:
        raise _unusable(place, error) from None


def directions_of(study: optuna.Study) -> tuple[Direction, ...]:
    return tuple("maximize" if way.name == "MAXIMIZE" else "minimize" for way in study.directions)


def objectives_of(study: optuna.Study) -> dict[str, Direction]:
    """Names and directions of a trial's values, in their order; a study without names has numbers for them."""
    ways = directions_of(study)
    return dict(zip(study.metric_names or [f"unnamed {index}" for index in range(len(ways))], ways, strict=True))


def own(study: optuna.Study) -> list[FrozenTrial]:
    """The sweep's own trials by number: without those of a warm start, and those that a spent grid repeated."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if WARM not in trial.user_attrs and trial.state != TrialState.FAIL
    ]


def running(study: optuna.Study) -> list[int]:
    """Numbers of the trials that were asked for and never told, the first asked first."""
    return [trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]


def trial_of(study: optuna.Study, number: int) -> optuna.Trial:
    """A trial to go on asking or telling: it keeps the parameters that it has.

    Raises:
        UserError: the study has no such trial.
    """
    try:
        return optuna.Trial(study, study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))
    except KeyError:
        check_has(study, [number])
        raise


def put_back(study: optuna.Study, number: int) -> None:
    """A trial that was asked for and never began waits again: it is the next to be asked for, with its parameters.

    Raises:
        UserError: the study has no such trial.
    """
    study._storage.set_trial_state_values(trial_of(study, number)._trial_id, TrialState.WAITING)


def check_has(study: optuna.Study, numbers: Iterable[int]) -> None:
    """Raises:
    UserError: the study lacks some of them: it is older than the rows, and would give their numbers out again.
    """
    count = len(study.get_trials(deepcopy=False))
    if missing := sorted(number for number in numbers if not 0 <= number < count):
        listed = ", ".join(f"t{number:04d}" for number in missing[:10])
        raise UserError(
            f"the study {study.study_name!r} has {count} trials, and not {listed}{' ...' if missing[10:] else ''}, "
            "which ran: it is an older one, or another sweep's; restore the sweep's own"
        )


def again_as_new(study: optuna.Study, number: int) -> int:
    """Puts an ended trial's parameters at the head of what is asked next: it can never be told a second time.

    Returns:
        The number of the new trial; where one was put there before and has not ended, its number.

    Raises:
        UserError: the trial has not ended, or is none of this study's.
    """
    check_has(study, [number])
    trials = study.get_trials(deepcopy=False)
    if not trials[number].state.is_finished():
        raise UserError(f"trial t{number:04d} has not ended: a resumed sweep goes on with it")
    for trial in trials[number + 1 :]:
        if trial.user_attrs.get(RETRY) == number and not trial.state.is_finished():
            return trial.number
    study.enqueue_trial(dict(trials[number].params), user_attrs={RETRY: number})
    return study.get_trials(deepcopy=False)[-1].number


def _storage(folder: Path, url: str | None) -> BaseStorage:
    file = _journal_file(folder, url)
    return RDBStorage(str(url)) if file is None else StudyFile(Journal(file))


def _journal_file(folder: Path, url: str | None) -> Path | None:
    if url is None:
        return (folder / STUDY_FILE).resolve()
    if not url.startswith(_JOURNAL):
        return None
    if not (path := url.removeprefix(_JOURNAL)).startswith("/"):
        raise ValueError("a journal's path is absolute")
    return Path(path).resolve()


def _place(folder: Path, url: str | None) -> str:
    return redacted(url or str(folder / STUDY_FILE))


def _unusable(place: str, error: BaseException) -> UserError:
    reason = " ".join(redacted(str(error.__cause__ or error)).split())[:200]
    return UserError(
        f"the study at {place} cannot be opened ({reason}); restore it, or take sqlite:////PATH, postgresql://..., "
        f"mysql://..., journal:///PATH, or none: it then lies in the sweep's folder as {STUDY_FILE}"
    )


def _listed(objectives: Mapping[str, Direction]) -> str:
    return ", ".join(f"{name} ({way})" for name, way in objectives.items())
