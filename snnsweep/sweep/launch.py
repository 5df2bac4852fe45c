"""`Sweep`: checks everything first, then runs a space's trials through Ray Tune, and leaves a folder behind."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pandas as pd

from snnsweep import data
from snnsweep.config import Flat, TrialConfig
from snnsweep.errors import SnnSweepError, UserError
from snnsweep.results import store
from snnsweep.results.front import front
from snnsweep.sweep import preflight
from snnsweep.sweep.asha import Asha
from snnsweep.sweep.checkpoints import check_vacant, root
from snnsweep.sweep.cluster import connect, gpus_of_a_trial, slots
from snnsweep.sweep.drive import Drive
from snnsweep.sweep.earlier import warm
from snnsweep.sweep.lock import alone_in
from snnsweep.sweep.memory import measured_share, reached
from snnsweep.sweep.note import note
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.provenance import now, params, provenance, tags
from snnsweep.sweep.samplers import SAMPLERS, check_sampler, seeded
from snnsweep.sweep.sharing import arrays_of
from snnsweep.sweep.space import SMOKE, Space
from snnsweep.sweep.storage import check_checkpoints, check_storage
from snnsweep.sweep.study import open_study
from snnsweep.tracking import address as address_book
from snnsweep.tracking.mlflow import Tracker
from snnsweep.tracking.spool import Spool

SMOKE_TRIALS = 2
AUTO = "auto"


class Sweep:
    """Many trials over one space, in one folder, as one MLflow parent run.

    Args:
        space: path of a space file, the name of one that comes with snnsweep, or a `Space` of a name and a text; a
            function cannot travel and is refused.
        trials: how many, at least 1.
        storage: folder that holds sweeps; the embedded MLflow database lies there too.
        name: of the sweep and its folder; by default the space's name and the time.
        seed: of the sampler, and of every trial whose space does not set `seed`.
        sampler: `tpe`, `nsga2`, `nsga3`, `gp`, `random` or `grid` (every combination once, then the sweep is over).
        tracking_uri: an MLflow server; by default a sqlite file in `storage`.
        data_dir: folder of the data sets, on this machine.
        address: of a running Ray cluster; by default one is started on this machine.
        checkpoints: where the trials' checkpoints go instead of the sweep's folder, such as s3://bucket/path.
        optuna_storage: URL of a database for the study; by default a journal file in the sweep's folder.
        warm_start: folder of a sweep with the same objectives, whose trials the sampler learns from.
        cpus_per_trial: what a trial reserves, at least 1.
        gpus_per_trial: what it reserves of them, or "auto": the share of one whose memory a trial needs, measured; by
            default one where the cluster has any.
        max_concurrent: trials side by side; by default what the cluster holds.
        time_budget: seconds, at least 1, after which no trial goes on.
        smoke: tiny trials that prove that the space runs; their figures mean nothing.
        listener: called with the `Progress` whenever something happened.

    Attributes:
        folder: where the sweep is.
        interrupted: whether a signal ended it.
        status: how it ended: `finished`, `interrupted`, `out of time` or `broken`.
        untold: lines that MLflow has not got yet; `snnsweep sync` delivers them.

    Raises:
        SpaceError: the file cannot be read. All else is looked at by `run`, before anything is written.

    Example:
        >>> sweep = Sweep("search_spaces/quickstart.py", trials=12, storage="sweeps", name="first")
        >>> sweep
        Sweep('quickstart', trials=12, folder='.../sweeps/first', not run yet)
        >>> front = sweep.run().front()  # doctest: +SKIP
    """

    def __init__(
        self,
        space: Space | Path | str,
        trials: int = 20,
        *,
        storage: Path | str = "sweeps",
        name: str | None = None,
        seed: int = 0,
        sampler: str = "tpe",
        tracking_uri: str | None = None,
        data_dir: Path | str | None = None,
        address: str | None = None,
        checkpoints: str | None = None,
        optuna_storage: str | None = None,
        warm_start: Path | str | None = None,
        cpus_per_trial: int = 1,
        gpus_per_trial: float | str | None = None,
        max_concurrent: int | None = None,
        time_budget: float | None = None,
        smoke: bool = False,
        listener: Callable[[Progress], None] = lambda progress: None,
    ):
        self.space = space if isinstance(space, Space) else Space.read(space)
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
        self.checkpoints, self.warm_start = checkpoints, warm_start
        self.optuna_storage = address_book.absolute(optuna_storage) if optuna_storage else None
        self.max_concurrent, self.time_budget, self.listener = max_concurrent, time_budget, listener
        self.interrupted, self.untold, self.status = False, 0, ""
        self.id: str | None = uuid4().hex

    def __repr__(self) -> str:
        how = f"status={self.status!r}" if self.status else "not run yet"
        return f"{type(self).__name__}({self.space.name!r}, trials={self.trials}, folder={str(self.folder)!r}, {how})"

    def run(self) -> Self:
        """Runs all trials and writes the front.

        Raises:
            UserError: something given cannot be used; no sweep has been begun then.
            SnnSweepError: the sweep broke; what had ended is kept, and it can be resumed.
        """
        self._check()
        with connect(self.address):
            self._reserve()
            with self._own_folder():
                self._drive(self._begin())
        return self

    def results(self) -> pd.DataFrame:
        """A row for every trial that ended, as `load_results` gives them.

        Raises:
            UserError: no sweep has been begun in the folder.
        """
        return store.load_results(self.folder)

    def front(self) -> pd.DataFrame:
        """The finished trials that no other one beats in every objective, best in the first objective first.

        Raises:
            UserError: no sweep has been begun in the folder.
        """
        return front(self.results(), self.space.objectives)

    @property
    def unended(self) -> bool:
        """Whether it can be gone on with."""
        return self.status in ("interrupted", "out of time")

    @property
    def resume_command(self) -> str:
        """Goes on with this sweep."""
        return f"snnsweep resume {self.folder}" + (f" --address {self.address}" if self.address else "")

    def _check(self) -> None:
        preflight.all_at_once(
            [
                *self._of_every_start(),
                lambda: preflight.folder_is_free(self.storage, self.name, self.embedded),
                lambda: check_sampler(self.sampler, self.space, self._defaults, self._overrides),
                lambda: address_book.check(self.tracking_uri),
            ]
        )

    def _of_every_start(self) -> list[Callable[[], object]]:
        """The checks of a new sweep and of a resumed one."""
        return [
            self._numbers_fit,
            lambda: preflight.known("sampler", self.sampler, SAMPLERS),
            self._space_works,
        ]

    def _space_works(self) -> None:
        """Raises:
        UserError: the space, its data sets or its rungs cannot be used.
        """
        given = (self.space, max(0, self.seed), self._defaults, self._overrides, self.data_dir)
        self.probed: list[TrialConfig] = preflight.space_works(*given)
        preflight.device_is_free(self.space, self.probed)
        self.asha: Asha | None = None
        if self.space.rungs:
            self.asha = self.space.rungs.asha(self._longest(), self.seed)
            if self.asha is None and not self.smoke:
                self._without_rungs()

    def _longest(self) -> int:
        """Epochs that a trial trains, at most: of the sampled ones."""
        return max(config.train.epochs for config in self.probed)

    def _without_rungs(self) -> None:
        """No sampled variant meets one."""
        raise UserError(
            f"{self.space.source}: RUNGS: none of {len(self.probed)} sampled variants trains longer than "
            f"{self._longest()} epochs, and so none is compared at a rung: nobody would ever be stopped; lower grace, "
            "raise train.epochs, or drop RUNGS"
        )

    def _numbers_fit(self) -> None:
        preflight.at_least(
            {
                "trials": (self.trials, 1),
                "seed": (self.seed, 0),
                "cpus-per-trial": (self.cpus, 1),
                "gpus-per-trial": (self.gpus, 0),
                "max-concurrent": (self.max_concurrent, 1),
                "time-budget": (self.time_budget, 1),
            }
        )
        if isinstance(self.gpus, str) and self.gpus != AUTO:
            raise UserError(f"--gpus-per-trial {self.gpus}: a number, or {AUTO}")

    def _reserve(self) -> None:
        """What a trial gets of the cluster; nothing has been written yet."""
        if self.checkpoints:
            check_checkpoints(self.checkpoints)
            self._place_is_free(self.checkpoints)
        else:
            check_storage(self.storage)
        self.sets = arrays_of(self.probed, self.data_dir)
        auto, known = isinstance(self.gpus, str), gpus_of_a_trial(None if isinstance(self.gpus, str) else self.gpus)
        if auto and known:
            large = reached(self.space, self.seed, self._defaults, self._overrides)
            known = measured_share(self.space, [*large, *self.probed], self.data_dir, self.sets)
        self.gpus = known
        self.side_by_side = slots(self.cpus, float(self.gpus), self.max_concurrent)

    def _place_is_free(self, checkpoints: str) -> None:
        check_vacant(self.folder, checkpoints)

    @contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Makes the folder, and takes it away again where no sweep was begun in it."""
        if self.embedded:
            self.storage.mkdir(parents=True, exist_ok=True)
        self.tracker.connect()
        preflight.make_folder(self.folder)
        with alone_in(self.folder):
            try:
                yield
            finally:
                if not (self.folder / store.SWEEP).exists():
                    shutil.rmtree(self.folder)

    def _begin(self) -> dict[str, Any]:
        """Opens the study and MLflow's run; what `sweep.json` says."""
        self._open_study(fresh=True)
        if self.warm_start:
            warm(self.study, Path(self.warm_start), self.space, self._defaults, self._overrides, self.seed)
        facts = self._provenance()
        facts["mlflow_experiment_id"] = self.tracker.experiment_id
        facts["mlflow_run_id"] = self.tracker.start_sweep(self.name, tags(facts), params(facts), self._note(facts))
        store.write_json(self.folder / store.SWEEP, facts)
        return facts

    def _note(self, facts: dict[str, Any]) -> str:
        return note(facts, self.folder, (config.attack.suite for config in self.probed))

    def _open_run(self, facts: dict[str, Any], spool: Spool) -> None:
        """A new sweep's is open."""

    def _open_study(self, fresh: bool) -> None:
        startup = max(4, min(10, self.trials // 3))
        sampler = seeded(self.sampler, self.seed, startup)
        self.study = open_study(self.folder, self.name, self.space.objectives, sampler, self.optuna_storage, fresh)

    @property
    def _defaults(self) -> Flat:
        return {"seed": self.seed}

    @property
    def _overrides(self) -> Flat:
        return SMOKE if self.smoke else {}

    def _drive(self, facts: dict[str, Any]) -> None:
        rows = store.Store(self.folder, facts, objectives=self.space.objectives)
        spool = Spool(self.folder, self.tracker, facts["mlflow_run_id"])
        self._open_run(facts, spool)
        drive = self._start_of(rows, spool)
        self.status = "broken"
        try:
            drive.run()
            self.status = drive.status
        except SnnSweepError as error:
            kept = f"what had ended is kept; go on with `{self.resume_command}`"
            raise SnnSweepError(f"the sweep broke: {error}; {kept}") from error
        finally:
            self.interrupted = drive.interrupted
            self.untold = drive.close(facts | {"status": self.status, "ended": now()})

    def _start_of(self, rows: store.Store, spool: Spool) -> Drive:
        gpus = float(self.gpus or 0)
        given = {"data_dir": str(self.data_dir), "threads": max(1, int(self.cpus)), "gpus": gpus, "sets": self.sets}
        given["sweep"] = self.id
        return Drive(
            space=self.space,
            folder=self.folder,
            trials=self.trials,
            study=self.study,
            store=rows,
            spool=spool,
            place=root(self.folder, self.checkpoints),
            given=given,
            resources={"cpu": self.cpus, "gpu": gpus},
            side_by_side=self.side_by_side,
            defaults=self._defaults,
            overrides=self._overrides | {"device": "cuda" if gpus else "cpu"},
            asha=self.asha,
            time_budget=self.time_budget,
            listener=self.listener,
        )

    def _provenance(self) -> dict[str, Any]:
        return provenance(
            self.space,
            name=self.name,
            id=self.id,
            status="running",
            trials=self.trials,
            seed=self.seed,
            sampler=self.sampler,
            smoke=self.smoke,
            overrides=self._overrides,
            rungs=self.space.rungs.model_dump() if self.space.rungs else None,
            tracking_uri=address_book.redacted(self.tracking_uri),
            data_dir=str(self.data_dir),
            checkpoints=self.checkpoints,
            optuna_storage=address_book.redacted(self.optuna_storage) if self.optuna_storage else None,
            warm_start=str(self.warm_start) if self.warm_start else None,
            max_concurrent=self.max_concurrent,
            trials_side_by_side=self.side_by_side,
            cpus_per_trial=self.cpus,
            gpus_per_trial=self.gpus,
            time_budget_s=self.time_budget,
        )
