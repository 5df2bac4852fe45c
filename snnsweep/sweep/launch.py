"""`Sweep`: checks everything first, then runs a space's trials through Ray Tune, and leaves a folder behind."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import ray

from snnsweep import data
from snnsweep.config import Flat
from snnsweep.errors import UserError
from snnsweep.results import store
from snnsweep.results.front import front
from snnsweep.results.picture import front_picture
from snnsweep.sweep import preflight
from snnsweep.sweep.cluster import connect, slots
from snnsweep.sweep.provenance import now, params, provenance, tags
from snnsweep.sweep.search import SAMPLERS, StudySearcher, check_sampler, open_study
from snnsweep.sweep.signals import ending_on_signal
from snnsweep.sweep.space import SMOKE, Space
from snnsweep.sweep.trainable import SweepTrial
from snnsweep.sweep.tuning import tuner
from snnsweep.sweep.watch import Progress, Recorder, trial_name
from snnsweep.tracking import address as address_book
from snnsweep.tracking.mlflow import Tracker

SMOKE_TRIALS = 2


class Sweep:
    """Many trials over one space, in one folder, as one MLflow parent run.

    Args:
        space: path of a space file.
        trials: how many.
        storage: folder that holds sweeps; the embedded MLflow database lies there too.
        name: of the sweep and its folder; by default the space's name and the time.
        seed: of the sampler, and of every trial whose space does not set `seed`.
        sampler: `tpe`, `nsga2`, `random` or `grid` (every combination once, then the sweep is over).
        tracking_uri: an MLflow server; by default a sqlite file in `storage`.
        data_dir: folder of the data sets, the same on every node.
        address: of a running Ray cluster; by default one is started on this machine.
        cpus_per_trial, gpus_per_trial: what a trial reserves; by default one GPU where the cluster has any.
        max_concurrent: trials side by side; by default what the cluster holds.
        time_budget: seconds after which no trial goes on.
        smoke: tiny trials that prove that the space runs; their figures mean nothing.
        listener: called with the `Progress` whenever something happened.

    Attributes:
        folder: where the sweep is.
        interrupted: whether a signal ended it.
    """

    def __init__(
        self,
        space: Path | str,
        trials: int = 20,
        *,
        storage: Path | str = "sweeps",
        name: str | None = None,
        seed: int = 0,
        sampler: str = "tpe",
        tracking_uri: str | None = None,
        data_dir: Path | str | None = None,
        address: str | None = None,
        cpus_per_trial: int = 1,
        gpus_per_trial: float | None = None,
        max_concurrent: int | None = None,
        time_budget: float | None = None,
        smoke: bool = False,
        listener: Callable[[Progress], None] = lambda progress: None,
    ):
        self.space = Space.read(space)
        self.trials = min(trials, SMOKE_TRIALS) if smoke else trials
        self.storage = Path(storage).resolve()
        self.name = name or f"{self.space.name}-{datetime.now():%Y%m%d-%H%M%S}"
        self.folder = self.storage / self.name
        self.seed, self.sampler, self.smoke = seed, sampler, smoke
        self.embedded = tracking_uri is None
        self.tracking_uri = address_book.absolute(tracking_uri or f"sqlite:///{self.storage / 'mlflow.db'}")
        self.tracker = Tracker(self.tracking_uri, self.space.name, address_book.artifacts_of(self.tracking_uri))
        self.data_dir = Path(data_dir or data.default_folder()).resolve()
        self.address, self.cpus, self.gpus = address, cpus_per_trial, gpus_per_trial
        self.max_concurrent, self.time_budget, self.listener = max_concurrent, time_budget, listener
        self.interrupted = False

    def run(self) -> "Sweep":
        """Runs all trials and writes the front.

        Raises:
            UserError: something given cannot be used; no sweep has been begun then.
        """
        self._check()
        if not self.embedded:
            self.tracker.connect()
        with connect(self.address):
            self._reserve()
            if self.embedded:
                self.storage.mkdir(parents=True, exist_ok=True)
                self.tracker.connect()
            facts = self._provenance()
            preflight.make_folder(self.folder)
            facts["mlflow_experiment_id"] = self.tracker.experiment_id
            facts["mlflow_run_id"] = self.tracker.start_sweep(self.name, tags(facts), params(facts), self._note())
            store.write_json(self.folder / store.SWEEP, facts)
            status = "broken"
            try:
                self._tune(facts)
                status = "interrupted" if self.interrupted else "finished"
            finally:
                self._close(facts | {"status": status, "ended": now()})
        return self

    def results(self) -> pd.DataFrame:
        """A row for every trial that ended."""
        return store.load_results(self.folder)

    def front(self) -> pd.DataFrame:
        """The finished trials that no other one beats in every objective."""
        return front(self.results(), self.space.objectives)

    def _check(self) -> None:
        given = (self.space, max(0, self.seed), self._defaults, self._overrides, self.data_dir)
        preflight.all_at_once(
            [
                self._numbers_fit,
                lambda: preflight.known("sampler", self.sampler, SAMPLERS),
                lambda: check_sampler(self.sampler, self.space, self._defaults, self._overrides),
                lambda: preflight.folder_is_free(self.storage, self.name, self.embedded),
                lambda: address_book.check(self.tracking_uri),
                lambda: preflight.device_is_free(self.space, preflight.space_works(*given)),
            ]
        )

    def _numbers_fit(self) -> None:
        given = {"trials": self.trials, "cpus-per-trial": self.cpus, "gpus-per-trial": self.gpus, "seed": self.seed}
        given |= {"max-concurrent": self.max_concurrent, "time-budget": self.time_budget}
        least = {key: 0 if key in ("seed", "gpus-per-trial") else 1 for key in given}
        wrong = [
            f"--{key} {value}: has to be at least {least[key]}"
            for key, value in given.items()
            if value is not None and not value >= least[key]
        ]
        if wrong:
            raise UserError("\n".join(wrong))

    def _reserve(self) -> None:
        if self.gpus is None:
            self.gpus = float(ray.cluster_resources().get("GPU", 0) > 0)
        self.side_by_side = slots(self.cpus, self.gpus, self.max_concurrent)

    @property
    def _defaults(self) -> Flat:
        return {"seed": self.seed}

    @property
    def _overrides(self) -> Flat:
        return SMOKE if self.smoke else {}

    def _tune(self, facts: dict[str, Any]) -> None:
        objectives = self.space.objectives
        sampler = SAMPLERS[self.sampler](self.seed, max(4, min(10, self.trials // 3)))
        study = open_study(self.folder, self.name, objectives, sampler)
        device: Flat = {"device": "cuda" if self.gpus else "cpu"}
        searcher = StudySearcher(study, self.space, self._defaults, self._overrides | device)
        progress = Progress(self.trials, objectives, self.side_by_side)
        recorder = Recorder(store.Store(self.folder, facts), self.tracker, progress, self.listener)
        run = tuner(
            SweepTrial,
            {"space": self.space, "data_dir": str(self.data_dir), "threads": max(1, int(self.cpus))},
            {"cpu": self.cpus, "gpu": self.gpus or 0},
            self.folder,
            "ray",
            recorder,
            trial_name,
            self.side_by_side,
            search_alg=searcher,
            num_samples=self.trials,
            time_budget_s=self.time_budget,
        )
        cause = "the sweep broke"
        try:
            with ending_on_signal(self._interrupt):
                run.fit()
            cause = "interrupted" if self.interrupted else "the time budget ended"
        finally:
            searcher.close()
            recorder.stop_rest(cause)

    def _interrupt(self) -> None:
        self.interrupted = True

    def _close(self, facts: dict[str, Any]) -> None:
        """The front to parquet and MLflow, from the rows on disk: one source for what everybody shows."""
        store.write_json(self.folder / store.SWEEP, facts)
        files = [self.folder / store.SWEEP]
        if (self.folder / store.RESULTS).exists():
            members = self.front()
            store.write_front(self.folder, members)
            picture = front_picture(self.results(), members, self.space.objectives)
            files += [self.folder / store.RESULTS, self.folder / store.FRONT]
            self.tracker.log_front(members, picture, files, self.space.objectives)
        self.tracker.end_sweep({"finished": "FINISHED", "interrupted": "KILLED"}.get(facts["status"], "FAILED"))

    def _provenance(self) -> dict[str, Any]:
        return provenance(
            self.space,
            name=self.name,
            status="running",
            trials=self.trials,
            seed=self.seed,
            sampler=self.sampler,
            smoke=self.smoke,
            overrides=self._overrides,
            tracking_uri=address_book.redacted(self.tracking_uri),
            data_dir=str(self.data_dir),
            trials_side_by_side=self.side_by_side,
            cpus_per_trial=self.cpus,
            gpus_per_trial=self.gpus,
            time_budget_s=self.time_budget,
        )

    def _note(self) -> str:
        smoke = "\n\n**Smoke run: the figures mean nothing.**" if self.smoke else ""
        return f"{self.space.question}\n\n`snnsweep front {self.folder}`{smoke}"
