"""What the terminal shows of `snnsweep check`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.table import Table

from snnsweep.results.words import value, varied_keys
from snnsweep.terminal import duration, heading, out


def show_cost(report: Mapping[str, Any]) -> None:
    """Measured variants with their cost, and the sweep's."""
    out.print(report["question"], style="bold", soft_wrap=True)
    out.print(f"objectives: {', '.join(report['objectives'])}", soft_wrap=True)
    out.print(_variants(report["variants"]))
    measured, sampled = len(report["variants"]), report["sampled"]
    out.print(f"measured here, {measured} of {sampled} sampled variants on {report['hardware']}", soft_wrap=True)
    out.print(_memory_line(report["memory"]), soft_wrap=True)
    hours = report["worker_hours"]
    spread = f" ({_hours(hours['low'])} to {_hours(hours['high'])})" if measured > 1 else ", from one variant alone"
    out.print(
        f"{report['trials']} trials: {_hours(hours['median'])} hours of one worker{spread}; n workers side by side, "
        "each with such a device of its own, need about an n-th of that",
        soft_wrap=True,
    )


def _variants(variants: list[Mapping[str, Any]]) -> Table:
    table, varied = Table(), varied_keys(pd.DataFrame(variants))
    for name in (*varied, "parameters", "training", "attacks, measuring"):
        table.add_column(heading(name).replace(", ", ",\n"), justify="right", overflow="fold")
    for row in variants:
        cost = [f"{row['parameters']:,}", _time(row["train_s"]), _time(row["attack_s"])]
        table.add_row(*(value(key, row[key]) for key in varied), *cost)
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _memory_line(memory: Mapping[str, Any]) -> str:
    train, attack = (memory[name] for name in ("train_bytes", "attack_bytes"))
    if train is None or attack is None:
        return "memory of a trial: not measured, which on a CPU needs Linux"
    size, images = memory["variant"]["data.batch_size"], memory["images"]
    how = f"scaled up from {images} images" if images < size else "measured"
    figures = f"{train / 2**20:,.0f} MiB in a training step, {attack / 2**20:,.0f} MiB in the attacks and measurements"
    return f"memory of the largest variant's trial, {how}: {figures}, beside Python's own"
