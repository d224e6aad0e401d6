"""Lines of printed results: names, numbers in columns, wrapped sentences, at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd

WIDTH = 80
CELL = 12


def wrapped(text: str) -> list[str]:
    """A sentence over lines; a line that starts with two blanks continues with four."""
    indent = "    " if text.startswith("  ") else ""
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent)


def counted(count: int, noun: str) -> str:
    """ "1 record", "2 records"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def row(name: object, values: Iterable[float | str]) -> str:
    """A name, shortened where it must be, and numbers to five digits in columns."""
    cells = [f"{value:>{CELL}}" if isinstance(value, str) else f"{value:>{CELL}.5g}" for value in values]
    room = WIDTH - CELL * len(cells)
    text = str(name)
    return (text if len(text) < room else text[: room - 2] + "…").ljust(room) + "".join(cells)


def spread_rows(frame: pd.DataFrame, labels: Mapping[str, str]) -> Iterator[str]:
    """Smallest, median and largest finite value of each named column."""
    for column, label in labels.items():
        values = frame[column].to_numpy(dtype=np.float64)
        values = values[np.isfinite(values)]
        if values.size:
            yield row("  " + label, [float(f(values)) for f in (np.min, np.median, np.max)])
