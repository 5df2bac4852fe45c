"""`Confirmation`: a front's members trained again with fresh seeds and attacked on the untouched test split."""

import logging
from collections.abc import Callable
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import Any

import pandas as pd
from ray import tune

from snnsweep import data, registry
from snnsweep.config import TrialConfig
from snnsweep.errors import UserError, nearest
from snnsweep.result import PER_ATTACK
from snnsweep.results import store
from snnsweep.results.comparison import compare
from snnsweep.results.folder import CONFIRM
from snnsweep.results.front import front
from snnsweep.results.ranking import reference_point
from snnsweep.sweep import preflight
from snnsweep.sweep.checkpoints import next_run, place_of
from snnsweep.sweep.cluster import connect, gpus_of_a_trial, slots
from snnsweep.sweep.confirm_pairs import Pairing, has_model
from snnsweep.sweep.confirm_trial import SPLIT, ConfirmTrial, Keeper, pair_name
from snnsweep.sweep.lock import alone_in
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.provenance import now, provenance
from snnsweep.sweep.signals import ending_on_signal
from snnsweep.sweep.space import MODULE, Space, space_then, text_of
from snnsweep.sweep.storage import check_storage
from snnsweep.sweep.tidy import Tidy
from snnsweep.sweep.trials import flat_of
from snnsweep.sweep.tries import every_loss_is_a_death
from snnsweep.sweep.tuning import tuner
from snnsweep.tracking.address import artifacts_of, kept
from snnsweep.tracking.mlflow import Tracker
from snnsweep.tracking.spool import PATIENCE_S, Spool

FOLDER, FACTS, WHOLE = CONFIRM, "confirm.json", "front"
_LOGGER = logging.getLogger("snnsweep")


class Confirmation:
    """A front, judged again; its rows lie in `confirm/` of the sweep's folder, and pairs that have one are not
    run, but for those that failed.

    Args:
        folder: the sweep's.
        top: `front` for all members, or how many: the best in the first objective.
        seeds: fresh ones for each member, the smallest that no trial of the sweep had; 0 attacks the stored models.
        suite: that attacks; the threat stays each trial's own.
        samples: attacked images of the test split; by default the suite's number.
        data_dir: by default where the sweep found its data.
        address, cpus_per_trial, gpus_per_trial, max_concurrent, listener: as of a `Sweep`.

    Attributes:
        interrupted: whether a signal ended it.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        top: int | str = WHOLE,
        seeds: int = 3,
        suite: str = "strong",
        samples: int | None = None,
        data_dir: Path | str | None = None,
        address: str | None = None,
        cpus_per_trial: int = 1,
        gpus_per_trial: float | None = None,
        max_concurrent: int | None = None,
        listener: Callable[[Progress], None] = lambda progress: None,
    ):
        self.sweep = Path(folder).resolve()
        self.folder = self.sweep / FOLDER
        self.top, self.seeds, self.suite, self.samples = str(top), seeds, suite, samples
        self.data_dir = data_dir
        self.address, self.cpus, self.gpus = address, cpus_per_trial, gpus_per_trial
        self.max_concurrent, self.listener = max_concurrent, listener
        self.interrupted = False
        self.facts: dict[str, Any] = {}
        self.members: list[dict[Any, Any]] = []

    def run(self) -> "Confirmation":
        """Runs the pairs that have no row yet, and writes `confirm.json`.

        Raises:
            UserError: something given cannot be used; nothing has been written then.
        """
        self._check()
        with alone_in(self.folder):
            self._run_the_rest()
        return self

    def _run_the_rest(self) -> None:
        done = {row["trial_id"] for row in self.rows().to_dict("records") if row["status"] != "failed"}
        todo = [pair for pair in self.pairs if pair["trial_id"] not in done]
        own = self._provenance()
        status = "broken"
        try:
            if todo:
                self._tune(todo, own)
            status = "interrupted" if self.interrupted else "finished"
        finally:
            ended = {"status": status, "ended": now(), "report": self.report()}
            store.write_json(self.folder / FACTS, own | ended)

    def rows(self) -> pd.DataFrame:
        """A row for every pair that ended, of this and of earlier confirmations of the sweep."""
        if not store.has_rows(self.folder):
            return pd.DataFrame(columns=["trial_id", "status"])
        return store.load_results(self.folder)

    def report(self) -> dict[str, Any]:
        """What `comparison.compare` says, and how it came about; JSON."""
        pairs: dict[str, list[str]] = {row["trial_id"]: [] for row in self.members}
        for pair in self.pairs:
            pairs[pair["member"]].append(pair["trial_id"])
        rows = {row["trial_id"]: row for row in self.rows().to_dict("records")}
        compared = compare(self.members, list(rows.values()), pairs, self.facts["objectives"], self.reference)
        over = "over samples (Wilson for accuracies)"
        over = f"Student t over seeds; of one ended pair alone {over}" if self.seeds > 1 else over
        status = self.facts["status"]
        running = f"the sweep has not ended in order (status {status}): its front may still change"
        return {
            "sweep": self.facts["name"],
            "top": self.top,
            "warning": running if status in ("running", "broken") else "",
            "smoke": self.facts["smoke"],
            "objectives": self.facts["objectives"],
            "split": SPLIT,
            "suite": self.suite,
            "samples": sorted({pair["flat"]["attack.samples"] for pair in self.pairs}),
            "seeds": sorted({pair["flat"]["seed"] for pair in self.pairs if not pair["stored"]}),
            "interval": f"95 %, {over}",
            "sources": {pair["trial_id"]: _sources(rows.get(pair["trial_id"], pair)) for pair in self.pairs},
            **compared,
        }

    def failed(self) -> bool:
        """Whether some pair of this confirmation failed."""
        rows, mine = self.rows(), {pair["trial_id"] for pair in self.pairs}
        return bool((rows["status"] == "failed")[rows["trial_id"].isin(mine)].any())

    def _check(self) -> None:
        preflight.all_at_once([self._read, self._numbers_fit, self._top_fits, self._suite_fits])
        preflight.all_at_once([self._pair_up, self._inputs_there])

    def _read(self) -> None:
        """The sweep, its space's parts, and the members.

        Raises:
            UserError: there is no such sweep, or nobody on its front.
        """
        self.facts = store.load_sweep(self.sweep)
        self.space = Space(self.facts["space"]["source"], self.facts["space"]["text"])
        self.data_dir = Path(self.data_dir or self.facts["data_dir"]).resolve()
        results = store.load_results(self.sweep)
        found = front(results, self.facts["objectives"])
        if found.empty:
            raise UserError(f"no trial is on the front of {self.sweep}: none has finished; run the sweep first")
        self.whole = found.to_dict("records")
        self.texts = {row["trial_id"]: text_of(row, self.facts) for row in self.whole}
        self.spaces = {text: space_then(self.facts, text) for text in self.texts.values()}
        for space in (*self.spaces.values(), self.space):
            space.load()
        self.members = self.whole[: int(self.top) if self.top.isdecimal() else None]
        ended = results[results["status"] == "finished"]
        points: Any = ended[list(self.facts["objectives"])].dropna().to_dict("records")
        self.reference = reference_point(self.facts["objectives"], points)
        used = {int(seed) for seed in results["seed"].dropna()} | {int(self.facts["seed"])}
        self._fresh = list(islice((seed for seed in count() if seed not in used), max(0, self.seeds)))

    def _numbers_fit(self) -> None:
        """Raises:
        UserError: all numbers that cannot be used.
        """
        preflight.at_least(
            {
                "seeds": (self.seeds, 0),
                "samples": (self.samples, 1),
                "cpus-per-trial": (self.cpus, 1),
                "gpus-per-trial": (self.gpus, 0),
                "max-concurrent": (self.max_concurrent, 1),
            }
        )

    def _top_fits(self) -> None:
        """Raises:
        UserError: it is neither the front nor a number of members.
        """
        if self.top != WHOLE and not (self.top.isdecimal() and int(self.top)):
            hint = nearest(self.top, [WHOLE])
            raise UserError(f"--top {self.top!r}: {WHOLE}, or how many members, 1 or more; {hint}")

    def _suite_fits(self) -> None:
        """Raises:
        UserError: there is no such suite, or it does not report what the sweep was after.
        """
        preflight.known("suite", self.suite, registry.suites.names())
        texts = len(getattr(self, "spaces", ()))
        if texts > 1 and registry.suites.get(self.suite).__module__.startswith(MODULE):
            raise UserError(
                f"--suite {self.suite}: it is the space's own, and the members ran with {texts} texts of the space, so "
                "that they would not be attacked alike; take one of snnsweep's own (`snnsweep list suites`)"
            )
        reported = preflight.attack_figures(self.suite)
        asked = [name.removeprefix(PER_ATTACK) for name in self.facts.get("objectives", ()) if PER_ATTACK in name]
        if lost := [name for name in asked if name not in reported]:
            raise UserError(
                f"--suite {self.suite}: the sweep's objective {PER_ATTACK}{lost[0]} is not among its figures; "
                f"{nearest(lost[0], reported)}; take a suite with that attack"
            )

    def _pair_up(self) -> None:
        """Raises:
        ConfigError: the suite does not go with a member.
        """
        pairing = Pairing(self.sweep, self.texts, self.whole, self.suite, self.samples, self._fresh)
        self.pairs = [pair for row in self.members for pair in pairing.of(row)]

    def _inputs_there(self) -> None:
        """Raises:
        UserError: a data set or, where stored models are attacked, a checkpoint is gone.
        """
        names = [row["trial_id"] for row in self.members]
        lost = [] if self.seeds else [name for name in names if not has_model(self.sweep, name)]
        if lost:
            raise UserError(
                f"no checkpoint of {', '.join(lost)} under {place_of(self.sweep)}; restore it, or give --seeds"
            )
        sets = {flat_of(row)["data.name"]: TrialConfig.from_flat(flat_of(row)) for row in self.members}
        for config in sets.values():
            data.load(config, "cpu", Path(self.data_dir or ""))

    def _tune(self, todo: list[dict[str, Any]], own: dict[str, Any]) -> None:
        with connect(self.address):
            check_storage(self.folder)
            gpus = gpus_of_a_trial(self.gpus)
            side_by_side = slots(self.cpus, gpus, self.max_concurrent)
            for pair in todo:
                pair["flat"]["device"] = "cuda" if gpus else "cpu"
            progress = Progress(len(todo), self.facts["objectives"], side_by_side, has_front=False)
            tidy = Tidy(str(self.folder))
            spool = self._spool()
            keeper = Keeper(store.Store(self.folder, own), spool, progress, self.listener, tidy)
            run = tuner(
                ConfirmTrial,
                {
                    "spaces": self.spaces,
                    "data_dir": str(self.data_dir),
                    "threads": max(1, int(self.cpus)),
                    "folder": str(self.sweep),
                },
                {"cpu": self.cpus, "gpu": gpus},
                str(self.folder),
                next_run(str(self.folder)),
                [keeper, tidy],
                pair_name,
                side_by_side,
                param_space={"pair": tune.grid_search(todo)},
            )
            try:
                with closing(tidy), ending_on_signal(self._interrupt), every_loss_is_a_death():
                    run.fit()
            finally:
                keeper.rows.flush()
                if left := spool.close(PATIENCE_S):
                    _LOGGER.warning("MLflow lacks the last %s entries; later: snnsweep sync %s", left, self.sweep)

    def _spool(self) -> Spool:
        """Of its own, in its own folder: the sweep's may be in use, or wait for its server still."""
        uri = kept(self.facts["tracking_uri"])
        tracker = Tracker(uri, Path(self.facts["space"]["source"]).stem, artifacts_of(uri))
        return Spool(self.folder, tracker, self.facts["mlflow_run_id"])

    def _interrupt(self) -> None:
        self.interrupted = True

    def _provenance(self) -> dict[str, Any]:
        return provenance(
            self.space,
            sweep=self.facts["name"],
            top=self.top,
            suite=self.suite,
            seeds=self._fresh,
            split=SPLIT,
            pairs=[pair["trial_id"] for pair in self.pairs],
            data_dir=str(self.data_dir),
            smoke=self.facts["smoke"],
        )


def _sources(row: dict[Any, Any]) -> list[str]:
    """Whose points were transferred; a row from parquet holds an array, or nothing."""
    found = row.get("sources")
    return [str(name) for name in found] if found is not None else []
