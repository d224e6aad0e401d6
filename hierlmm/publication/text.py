"""Tables and notes as plain text of at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import pandas as pd

WIDTH = 80
# Rows of a long table that are shown.
ROWS = 12


def table(frame: pd.DataFrame, rows: int = ROWS) -> list[str]:
    """A frame as lines, its first rows where it is long, numbers to four digits, folded at 80 columns."""
    text = frame.head(rows).to_string(
        index=False, float_format=lambda x: f"{x:.4g}", line_width=WIDTH, max_colwidth=28, na_rep="-"
    )
    more = len(frame) - rows
    return [*(line.rstrip() for line in text.splitlines()), *([f"... and {more} more"] if more > 0 else [])]


def lines_of(notes: Iterable[str]) -> list[str]:
    """Notes as a list, an empty line before it; nothing where there are none."""
    lines = [
        line for note in notes for line in textwrap.wrap(note, WIDTH, initial_indent="- ", subsequent_indent="  ")
    ]
    return ["", *lines] if lines else []
