"""Median times of alternatives measured in turn, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def medians(alternatives: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, float]:
    """Seconds a call, median over `rounds` rounds in which every alternative runs once, after `warm_up` rounds."""
    times: dict[str, list[float]] = {name: [] for name in alternatives}
    for turn in range(warm_up + rounds):
        for name, call in alternatives.items():
            start = time.perf_counter()
            call()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def table(title: str, rows: Mapping[str, Mapping[str, float]], unit: str = "ms", scale: float = 1e3) -> str:
    """Times and their ratios to hierlmm's as text; a dash where an alternative was not run."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [title, f"{'':<26}" + "".join(f"{name + ' ' + unit:>18}" for name in names)
             + "".join(f"{'x ' + name:>14}" for name in names[1:])]  # fmt: skip
    for case, row in rows.items():
        values = "".join(f"{row[n] * scale:18.2f}" if n in row else f"{'-':>18}" for n in names)
        ratios = "".join(f"{row[n] / row[names[0]]:14.2f}" if n in row else f"{'-':>14}" for n in names[1:])
        lines.append(f"{case:<26}{values}{ratios}")
    return "\n".join(lines)
