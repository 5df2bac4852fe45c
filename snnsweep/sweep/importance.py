"""Which keys an objective depends on, as Optuna's fANOVA sees it in a sweep's rows."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from snnsweep.results.words import value

TREES, MOST = 16, 200  # of the forest; trials that it is fitted to: with 64 and 1,000 it takes a minute an objective


def importances(rows: pd.DataFrame, keys: Iterable[str], objectives: Iterable[str]) -> dict[str, dict[str, float]]:
    """Each key's share of what the keys alone explain of an objective's variance (Hutter et al., 2014), by a forest.

    A key has the value that a trial had, also where the space did not ask for it. The fit is seeded: the same rows give
    the same shares. No share says how well the forest fits.

    Args:
        rows: finished trials with a number for each objective, two at least; of more than `MOST`, that many are drawn.
        keys: config keys; those with a single value among these rows are left out.

    Returns:
        By objective the shares, which sum to 1, largest first; none for an objective or keys that do not vary.
    """
    if len(rows) > MOST:
        rows = rows.iloc[np.sort(np.random.default_rng(0).choice(len(rows), MOST, replace=False))]
    columns = {key: _column(key, rows[key].tolist()) for key in keys}
    asked = {key: _distribution(column) for key, column in columns.items() if len(set(column)) > 1}
    found: dict[str, dict[str, float]] = {}
    for name in objectives:
        figures = [float(figure) for figure in rows[name]]
        found[name] = _shares(figures, columns, asked) if asked and len(set(figures)) > 1 else {}
    return found


def _shares(
    figures: Sequence[float], columns: dict[str, list[Any]], asked: dict[str, BaseDistribution]
) -> dict[str, float]:
    study = optuna.study.create_study(storage=optuna.storages.InMemoryStorage())
    study.add_trials(
        [
            create_trial(params={key: columns[key][i] for key in asked}, distributions=asked, value=figure)
            for i, figure in enumerate(figures)
        ]
    )
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(n_trees=TREES, seed=0))
    return {key: float(share) for key, share in shares.items()}


def _column(key: str, given: Sequence[Any]) -> list[Any]:
    """Numbers as floats; where one is none, all as text."""
    if all(isinstance(one, int | float) and not isinstance(one, bool) and np.isfinite(one) for one in given):
        return [float(one) for one in given]
    return [value(key, one) for one in given]


def _distribution(column: Sequence[Any]) -> BaseDistribution:
    if isinstance(column[0], float):
        return FloatDistribution(min(column), max(column))
    return CategoricalDistribution(sorted(set(column)))
