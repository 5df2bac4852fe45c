"""`ResumedSweep`: a sweep that was ended or killed goes on, or gets more trials."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snnsweep.errors import UserError
from snnsweep.results import store
from snnsweep.sweep import preflight
from snnsweep.sweep.checkpoints import number_of
from snnsweep.sweep.earlier import compatible
from snnsweep.sweep.launch import Sweep
from snnsweep.sweep.ledger import has_ended
from snnsweep.sweep.lock import alone_in
from snnsweep.sweep.progress import Progress
from snnsweep.sweep.provenance import params, tags, versions
from snnsweep.sweep.scheduler import RUNGS, RungScheduler, longest_of
from snnsweep.sweep.space import Space
from snnsweep.sweep.study import RETRY, STUDY_FILE, again_as_new, check_has, running
from snnsweep.tracking.spool import Spool

NEEDED = {"cpus_per_trial", "data_dir", "gpus_per_trial", "max_concurrent", "mlflow_run_id", "sampler", "seed", "space"}
NEEDED |= {"checkpoints", "optuna_storage", "trials", "versions", "warm_start"}
DECIDING = ("snnsweep", "torch")  # packages whose versions decide what a figure means


class ResumedSweep(Sweep):
    """Goes on with a sweep: what has ended stays as it is, what was running goes on from its last checkpoint.

    Args:
        folder: the sweep's.
        trials: how many in all; by default as many as it was begun with.
        allow_changed: go on though the space file, or the versions of torch or snnsweep, are other ones by now.
        retry_failed: choose the variants that failed once more, as new trials beyond `trials`.
        tracking_uri: needed where the first one held a password, which is kept nowhere; `optuna_storage` likewise.
        address, data_dir, cpus_per_trial, gpus_per_trial, max_concurrent, time_budget, listener: as of a `Sweep`; by
            default what the sweep was begun with, but for the address and the time budget.

    Raises:
        UserError: there is no sweep in that folder, or it is of another kind.
    """

    def __init__(
        self,
        folder: Path | str,
        trials: int | None = None,
        *,
        allow_changed: bool = False,
        retry_failed: bool = False,
        tracking_uri: str | None = None,
        optuna_storage: str | None = None,
        address: str | None = None,
        data_dir: Path | str | None = None,
        cpus_per_trial: int | None = None,
        gpus_per_trial: float | str | None = None,
        max_concurrent: int | None = None,
        time_budget: float | None = None,
        listener: Callable[[Progress], None] = lambda progress: None,
    ):
        folder = Path(folder).resolve()
        self.facts = store.load_sweep(folder)
        if lost := sorted(NEEDED - set(self.facts)):
            raise UserError(f"{folder / store.SWEEP} has no {', '.join(lost)}: an older version wrote it; start anew")
        self.then = Space(self.facts["space"]["source"], self.facts["space"]["text"])
        self.allow_changed, self.retry_failed = allow_changed, retry_failed
        super().__init__(
            self._space_now(),
            trials or self.facts["trials"],
            storage=folder.parent,
            name=folder.name,
            seed=self.facts["seed"],
            sampler=self.facts["sampler"],
            tracking_uri=tracking_uri or self.facts["tracking_uri"],
            data_dir=data_dir or self.facts["data_dir"],
            address=address,
            checkpoints=self.facts["checkpoints"],
            optuna_storage=optuna_storage or self.facts["optuna_storage"],
            cpus_per_trial=cpus_per_trial or self.facts["cpus_per_trial"],
            gpus_per_trial=self.facts["gpus_per_trial"] if gpus_per_trial is None else gpus_per_trial,
            max_concurrent=max_concurrent or self.facts["max_concurrent"],
            time_budget=time_budget,
            smoke=self.facts["smoke"],
            listener=listener,
        )
        self.trials = trials or self.facts["trials"]
        self.id = self.facts.get("id")  # older versions gave none

    def _space_now(self) -> Space:
        """The space file as it is; what the sweep kept of it where there is none any more."""
        try:
            return Space.read(self.then.source)
        except UserError:
            return self.then

    def _check(self) -> None:
        preflight.all_at_once(
            [
                self._nothing_changed,
                self._same_name,
                self._nothing_hidden,
                self._enough_asked,
                self._same_objectives,
                *self._of_every_start(),
            ]
        )

    def _nothing_changed(self) -> None:
        """Raises:
        UserError: the space or a version is another one, and nobody allowed it.
        """
        before, today = [self.facts, *self.facts.get("resumed", [])][-1]["versions"], versions()
        changes = [
            f"{name} is {today[name]}, and was {before[name]}" for name in DECIDING if today[name] != before[name]
        ]
        if self.space.sha256 != self.then.sha256:
            changes.insert(0, f"{self.space.source} has changed since the sweep began")
        if changes and not self.allow_changed:
            raise UserError(
                f"{'; '.join(changes)}: trials before and after would not be alike. Put it back "
                f"({self.folder / store.SWEEP} holds the space as it was), or go on with --allow-changed, which is "
                "written down there"
            )

    def _same_name(self) -> None:
        if self.facts["name"] != self.folder.name:
            raise UserError(
                f"{self.folder}: the sweep in it is called {self.facts['name']!r}, and so are its study and MLflow's "
                f"run; call the folder {self.facts['name']!r} again"
            )

    def _same_objectives(self) -> None:
        if self.space.objectives != self.facts["objectives"]:
            raise UserError(
                f"{self.space.source}: OBJECTIVES are {', '.join(self.space.objectives)}; the sweep's are "
                f"{', '.join(self.facts['objectives'])}, and its trials were chosen by these: start a new sweep"
            )

    def _nothing_hidden(self) -> None:
        """Raises:
        UserError: an address held a password, which is kept nowhere.
        """
        given = {"--tracking-uri": self.tracking_uri, "--optuna-storage": self.optuna_storage or ""}
        kept = "was given with a user or password, which is kept nowhere; give it again"
        hidden = [f"{option}: {address} {kept}" for option, address in given.items() if "***" in address]
        if hidden:
            raise UserError("\n".join(hidden))

    def _enough_asked(self) -> None:
        rows = store.load_results(self.folder).to_dict("records")
        self.ended = [row["trial_id"] for row in rows if has_ended(row)]
        self.failed = [row["trial_id"] for row in rows if row["status"] == "failed"]
        if self.trials < len(self.ended):
            raise UserError(f"--trials {self.trials}: {len(self.ended)} have ended already; give as many or more")

    def _longest(self) -> int:
        """As when the rungs were begun: which trial is in which bracket stays as it was, whatever the space is now."""
        return longest_of(self.folder / RUNGS) or super()._longest()

    def _without_rungs(self) -> None:
        """An older version may have begun it like this."""

    def _place_is_free(self, checkpoints: str) -> None:
        """Its own checkpoints lie there."""

    @contextmanager
    def _own_folder(self) -> Iterator[None]:
        with alone_in(self.folder):
            yield

    def _begin(self) -> dict[str, Any]:
        if not self.optuna_storage and not (self.folder / STUDY_FILE).is_file():
            raise UserError(f"{self.folder / STUDY_FILE} is gone, and with it what was asked for; restore it")
        self._open_study(fresh=False)
        compatible(self.study, self.space, self._defaults, self._overrides, self.seed)
        if self.asha:
            RungScheduler(self.asha, self.folder / RUNGS)  # refuses other rungs than it was begun with
        check_has(self.study, [number_of(name) for name in self.ended])
        retries = self._retry() if self.retry_failed else self._retries()
        self.trials += retries - self.facts.get("retries", 0)
        asked = {number_of(name) for name in self.ended} | set(running(self.study))
        if self.trials < len(asked):
            raise UserError(f"--trials {self.trials}: {len(asked)} have ended or are running; give as many or more")
        facts = self._provenance()
        start = {key: facts[key] for key in ("started", "command", "versions", "machine", "git_commit", "trials")}
        start |= {key: facts[key] for key in ("cpus_per_trial", "gpus_per_trial", "trials_side_by_side")}
        if self.space.sha256 != self.then.sha256:
            start["space_before"] = self.facts["space"]
        kept = {key: self.facts[key] for key in ("started", "command", "versions", "machine", "git_commit")}
        own = {key: self.facts[key] for key in ("mlflow_experiment_id", "mlflow_run_id", "warm_start")}
        facts |= kept | own | {"retries": retries, "resumed": [*self.facts.get("resumed", []), start]}
        store.write_json(self.folder / store.SWEEP, facts)
        return facts

    def _retry(self) -> int:
        """Puts the failed trials that never were at the head of what is asked next; how many have been in all."""
        retried = {trial.user_attrs.get(RETRY) for trial in self.study.get_trials(deepcopy=False)}
        for number in map(number_of, self.failed):
            if number not in retried:
                again_as_new(self.study, number)
        return self._retries()

    def _retries(self) -> int:
        return sum(RETRY in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))

    def _open_run(self, facts: dict[str, Any], spool: Spool) -> None:
        spool.start_sweep(self.name, tags(facts), params(facts), self._note(facts))
