"""The frames of a comparison as sheets of one workbook."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from hierlmm.compare.results import Comparison
from hierlmm.errors import FileError

# A cell that begins with one of these may be run as a formula by the program that opens it.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# Characters that a workbook cannot hold.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
SHEETS = ("table", "attribution", "mse", "boundary", "sensitivity")


def write(comparison: Comparison, path: str | Path) -> Path:
    """Write the frames of `comparison` to an .xlsx file, a sheet each, and return its path.

    Texts that a spreadsheet would run as a formula get a leading apostrophe. Raises FileError where the folder does not
    exist or the file cannot be written.
    """
    target = Path(path)
    if not target.parent.is_dir() or target.suffix.lower() != ".xlsx":
        raise FileError(
            f"A workbook is an .xlsx file in a folder that exists; found {target}. "
            "Create the folder, or give another path."
        )
    try:
        with pd.ExcelWriter(target, engine="openpyxl") as book:
            for name in SHEETS:
                safe(getattr(comparison, name)).to_excel(book, sheet_name=name, index=False, freeze_panes=(1, 0))
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(
            f"A workbook is written to a file that can be opened; {target} cannot: {reason}. Give another path."
        ) from error
    return target


def safe(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with every text, headings included, made harmless in a spreadsheet; numbers are left alone."""
    out = frame.copy()
    for name in out.columns:
        if not pd.api.types.is_numeric_dtype(out[name]):
            out[name] = pd.Series([_cell(value) for value in out[name]], out.index, dtype=object)
    return out.rename(columns=_text)


def _cell(value: object) -> object:
    return value if isinstance(value, (int, float)) else _text(value)


def _text(value: object) -> str:
    text = CONTROL.sub("", str(value))
    return f"'{text}" if text.startswith(FORMULA) else text
