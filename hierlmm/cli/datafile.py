"""Data files: CSV, Parquet and Stata, read by pandas, with what is wrong and where."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from hierlmm.errors import FileError, listed

# How each kind is read, as the lines of Python that a report prints; `{path}` is the quoted path.
PYTHON: Mapping[str, str] = {
    ".csv": 'pd.read_csv({path}, encoding="utf-8-sig", low_memory=False)',
    ".parquet": "pd.read_parquet({path})",
    ".dta": "pd.read_stata({path})",
}


def read_table(path: Path) -> pd.DataFrame:
    """The table of a file, its kind told by the ending .csv, .parquet or .dta.

    CSV is UTF-8 with commas and a header of unique names. Raises FileError naming what is wrong, and the line.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise FileError(
            f"A data file ends in {', '.join(READERS)}; found {path.suffix or 'no ending'!r} of {path}. "
            "Rename it, or convert it to CSV."
        )
    try:
        table = reader(path)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path} could not be read: {error.strerror or error}. Check the name.") from None
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise FileError(
            f"{path} is not a {path.suffix} file that can be read: {_first_line(error)}. Check how it was written."
        ) from None
    if table.empty:
        raise FileError(f"A data file has rows below its header; {path} has none. Check how it was written.")
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    text = _decoded(path)
    _check_header(path, text)
    try:
        return pd.read_csv(io.StringIO(text), low_memory=False)
    except pd.errors.ParserError as error:
        reason = _first_line(error).removeprefix("Error tokenizing data. C error: ")
        raise FileError(
            f"Every line of a CSV file has as many fields as its header; {path}: {reason}. Mend that line."
        ) from None


def _decoded(path: Path) -> str:
    """The text of a CSV file, without byte order mark. Raises FileError naming the line that is not UTF-8."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"A CSV file is encoded in UTF-8; line {line} of {path} has the byte 0x{content[error.start]:02x}, which "
            "UTF-8 has not there. Save it as UTF-8 (in Excel: CSV UTF-8)."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise FileError(f"A CSV file is text; line {line} of {path} has a zero byte. Check how it was written.")
    return text


def _check_header(path: Path, text: str) -> None:
    """Refuse an empty file, fields divided by something else than commas, and names that come twice."""
    header = next(csv.reader(io.StringIO(text)), [])
    if not text.strip():
        raise FileError(f"A data file has a header and rows; {path} is empty. Check how it was written.")
    if len(header) == 1 and (other := next((mark for mark in (";", "\t", "|") if mark in header[0]), "")):
        name = {"\t": "a tab"}.get(other, repr(other))
        raise FileError(
            f"The fields of a CSV file are divided by commas; those of {path} are by {name}. Save it with commas."
        )
    if double := sorted({name for name in header if header.count(name) > 1}):
        raise FileError(f"The columns of a table have different names; {path} has {listed(double)} twice. Rename one.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


READERS: Mapping[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".parquet": pd.read_parquet,
    ".dta": pd.read_stata,
}
