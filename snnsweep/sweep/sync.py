"""MLflow gets what it has not got yet of a sweep that is not running."""

from pathlib import Path

from snnsweep.results.folder import CONFIRM
from snnsweep.results.store import load_sweep
from snnsweep.sweep.lock import alone_in
from snnsweep.sweep.space import Space
from snnsweep.tracking import address
from snnsweep.tracking.deliver import sync
from snnsweep.tracking.mlflow import Tracker


def bring_up_to_date(folder: Path, tracking_uri: str | None = None) -> int:
    """Delivers what is left of a sweep's spool, and of its confirmation's; how many entries that were.

    Args:
        folder: the sweep's.
        tracking_uri: needed where the sweep's own held a password.

    Raises:
        UserError: there is no sweep, it is running, or MLflow does not answer.
    """
    facts = load_sweep(folder)
    uri = tracking_uri or address.kept(facts["tracking_uri"])
    name = Space(facts["space"]["source"], facts["space"]["text"]).name
    tracker, confirmation = Tracker(uri, name, address.artifacts_of(uri)), folder / CONFIRM
    with alone_in(folder):
        told = sync(folder, tracker)
    if not confirmation.is_dir():
        return told
    with alone_in(confirmation):
        return told + sync(confirmation, tracker)
