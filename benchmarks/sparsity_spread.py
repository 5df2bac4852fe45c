"""How far does each sparsity measure spread over a sweep, and how does it rank the trials against robust accuracy?

A measure that hardly moves, or that the choice of pooling alone decides, is no objective worth searching for.
    python benchmarks/sparsity_spread.py sweeps/NAME
"""

import click
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from snnsweep import load_results
from snnsweep.result import OBJECTIVES
from snnsweep.results.words import number
from snnsweep.terminal import out


@click.command()
@click.argument("sweep")
def main(sweep: str) -> None:
    """A row per measure over the finished trials of SWEEP."""
    results = load_results(sweep)
    finished = results[results["status"] == "finished"]
    table = Table("measure", "min", "median", "max", "spread / median", "Spearman", "p", "Kendall", "p")
    for name in OBJECTIVES:
        if not name.startswith("gradient_sparsity") or name not in finished:
            continue
        column = finished[name]
        spread = (column.max() - column.min()) / column.median() if column.median() else float("nan")
        row = [column.min(), column.median(), column.max(), spread]
        if column.nunique() > 1:
            for rank in (spearmanr, kendalltau):
                agreement = rank(column, finished["robust_accuracy"])
                row += [agreement.statistic, agreement.pvalue]
        table.add_row(name, *map(number, row))
    out.print(f"{len(finished)} finished of {len(results)} trials; ranks against robust_accuracy")
    out.print(table)


if __name__ == "__main__":
    main()
