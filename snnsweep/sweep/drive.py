"""One start of a sweep: the study is asked, Ray runs, and every end is written down. A resumed sweep starts once more.

Ray's own state is never read back (it is not written atomically, and does not know what was asked after it was saved).
What counts is the study, the rows and the checkpoints: a trial that the study has as running and that has no row of its
own end is handed out again, and goes on from its newest checkpoint.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.exceptions import OptunaError
from ray.exceptions import RayError
from ray.tune import TuneError

from snnsweep.config import Flat
from snnsweep.errors import SnnSweepError
from snnsweep.results.folder import FRONT, RESULTS, SWEEP
from snnsweep.results.front import front
from snnsweep.results.picture import front_picture
from snnsweep.results.store import Store, write_json
from snnsweep.sweep import checkpoints
from snnsweep.sweep.asha import Asha
from snnsweep.sweep.ledger import BROKE, INTERRUPTED, OUT_OF_TIME, has_ended, settle
from snnsweep.sweep.members import log_members
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.scheduler import RUNGS, RungScheduler
from snnsweep.sweep.search import StudySearcher, Teller, asked_ahead
from snnsweep.sweep.signals import ending_on_signal
from snnsweep.sweep.space import Space
from snnsweep.sweep.study import running
from snnsweep.sweep.tidy import Tidy
from snnsweep.sweep.trainable import SweepTrial
from snnsweep.sweep.tries import every_loss_is_a_death
from snnsweep.sweep.tuning import LOST_WORKERS, Ender, trial_name, tuner
from snnsweep.sweep.watch import Recorder
from snnsweep.tracking import system
from snnsweep.tracking.spool import PATIENCE_S, Spool

_LOGGER = logging.getLogger("snnsweep")


@dataclass
class Drive:
    """What a start of a sweep needs.

    Attributes:
        trials: that have an end of their own when the sweep is over.
        place: of the checkpoints, see `checkpoints.root`.
        given: what every trial's `setup` gets beside its config.
        resources: `cpu` and `gpu` of a trial.
        asha: who goes on at the rungs; None where nobody is stopped.
        time_budget: seconds.
        interrupted: whether a signal ended it.
        status: of the sweep: `finished`, `interrupted` or `out of time`.
    """

    space: Space
    folder: Path
    trials: int
    study: optuna.Study
    store: Store
    spool: Spool
    place: str
    given: Mapping[str, Any]
    resources: Mapping[str, float]
    side_by_side: int
    defaults: Flat
    overrides: Flat
    asha: Asha | None
    time_budget: float | None
    listener: Callable[[Progress], None]
    interrupted: bool = False
    status: str = "finished"

    def run(self) -> None:
        """Until all trials have ended, or something ends the sweep.

        Raises:
            SnnSweepError: it broke; what had ended is kept.
        """
        teller = Teller(self.study)
        rows = {row["trial_id"]: row for row in self.store.frame().to_dict("records")}
        ended = [row for row in rows.values() if has_ended(row)]
        again = settle(teller, self.spool, running(self.study), rows, self.space.objectives)
        progress = Progress(self.trials, self.space.objectives, self.side_by_side)
        progress.take_over(ended)
        epochs = {name: int(row["epochs"]) for name, row in rows.items() if not has_ended(row)}
        self.ender = Ender(self.time_budget)
        with closing(Tidy(self.place)) as tidy:
            watched = (self.store, teller, self.spool, progress, self.listener, tidy, self.ender, self.asha)
            recorder = Recorder(*watched, epochs, self.space.sha256)
            if self._left(recorder):
                with system.watched(self.spool.log_course):
                    self._tune(again, recorder)

    def _left(self, recorder: Recorder) -> int:
        return self.trials - recorder.progress.done

    def _tune(self, again: list[int], recorder: Recorder) -> None:
        cause = BROKE
        try:
            with ending_on_signal(self._interrupt):
                self._rounds(again, recorder)
            if recorder.trouble:
                raise recorder.trouble
            if (self.interrupted or self.ender.over) and (self._left(recorder) or recorder.given_up):
                self.status = "interrupted" if self.interrupted else "out of time"
            elif recorder.given_up:
                raise recorder.without_end()
            cause = INTERRUPTED if self.interrupted else OUT_OF_TIME
        except (TuneError, OSError, OptunaError, RayError) as error:
            raise SnnSweepError(" ".join(str(error.__cause__ or error).split())) from error
        finally:
            recorder.stop_rest(cause)

    def _rounds(self, again: list[int], recorder: Recorder) -> None:
        """Runs of Ray's, one after the other: a further one for the trials that the last gave up with tries left.

        Raises:
            SnnSweepError: Ray gives up all of them, again and again.
        """
        scheduler = RungScheduler(self.asha, self.folder / RUNGS) if self.asha else None
        barren = 0  # runs in which no trial ended
        while True:
            left = self._left(recorder)
            recorder.begin()
            self._round(left, again, recorder, scheduler)
            if not recorder.lost or recorder.trouble or self.ender.now or self.ender.over:
                return
            barren = barren + 1 if self._left(recorder) == left else 0
            if barren > LOST_WORKERS:
                raise recorder.lost
            again = [number for number in running(self.study) if checkpoints.trial_id(number) not in recorder.given_up]

    def _round(self, left: int, again: list[int], recorder: Recorder, scheduler: RungScheduler | None) -> None:
        given = {"space": self.space, "place": self.place, "rungs": self.asha.brackets if self.asha else None}
        search: dict[str, Any] = {"scheduler": scheduler} if scheduler else {}
        asked = (self.study, self.space, self.defaults, self.overrides, again, left)
        with closing(StudySearcher(*asked, asked_ahead(self.side_by_side))) as searcher:
            run = tuner(
                SweepTrial,
                {**self.given, **given},
                dict(self.resources),
                self.place,
                checkpoints.next_run(self.place),
                [recorder, recorder.tidy],
                trial_name,
                self.side_by_side,
                ender=self.ender,
                search_alg=searcher,
                num_samples=left,
                **search,
            )
            with every_loss_is_a_death():
                run.fit()

    def close(self, facts: Mapping[str, Any]) -> int:
        """The front to parquet and MLflow, from the rows on disk: one source for what everybody shows.

        Args:
            facts: for `sweep.json`.

        Returns:
            How many entries MLflow has not got.
        """
        members = pd.DataFrame()
        try:
            write_json(self.folder / SWEEP, facts)
            self.store.flush()
            results, objectives = self.store.frame(), self.space.objectives
            if len(results):
                members = front(results, objectives)
                files = [self.folder / name for name in (SWEEP, RESULTS, FRONT)]
                self.spool.log_front(members, front_picture(results, members, objectives), files, objectives)
        except (OSError, SnnSweepError) as error:  # a full disk, where the sweep's own error says more
            _LOGGER.warning("%s: its last state could not be written (%s)", self.folder, error)
        self.spool.end_sweep({"finished": "FINISHED", "broken": "FAILED"}.get(facts["status"], "KILLED"))
        if facts["status"] in ("finished", "out of time") and not facts["smoke"]:
            log_members(self.folder, members.to_dict("records"), self.spool, Path(self.given["data_dir"]))
        return self.spool.close(PATIENCE_S)

    def _interrupt(self) -> None:
        self.interrupted = self.ender.now = True  # the second for a signal that comes before Tune listens
