"""A label with its numbers beside it, in a printed table of at most 80 columns."""

from __future__ import annotations

import textwrap

WIDTH = 80


def labelled(label: str, column: int, values: str) -> list[str]:
    """One line; a label that does not leave a blank in its `column` stands whole on lines of its own before them."""
    if len(label) < column:
        return [f"{label:<{column}}{values}"]
    return [*textwrap.wrap(label, WIDTH, subsequent_indent="    ", break_on_hyphens=False), f"{'':<{column}}{values}"]
