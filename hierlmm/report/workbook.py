"""One area-level result as an Excel workbook: estimates, model, diagnostics, provenance.

Numbers are numbers, dates dates, missing ones empty cells. Text that a spreadsheet would run as a formula gets a
leading apostrophe, as in `hierlmm.report.spreadsheet`; the sheet on provenance says how many cells that are. Whole
numbers of more than 15 digits are text, since a spreadsheet keeps no more.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.styles import Font
from openpyxl.utils import get_column_letter

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.spatial_results import SpatialAreaPosterior
from hierlmm.errors import FileError
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.area.spatial_results import SpatialAreaFit
from hierlmm.report import area_words
from hierlmm.report.area_plots import AreaResult
from hierlmm.report.spreadsheet import CONTROL, FORMULA
from hierlmm.report.words import versions_of

SHEETS = ("estimates", "model", "diagnostics", "provenance")
# Digits of a whole number that a spreadsheet keeps; characters of a cell; rows of a sheet.
DIGITS, CHARACTERS, ROWS = 15, 32_767, 1_048_576
# Width of a column in characters, at most.
WIDEST = 60

Row = list[object]


@dataclass(slots=True)
class _Texts:
    """Counts the texts that were prefixed."""

    prefixed: int = 0
    seen: set[str] = field(default_factory=set)

    def value(self, given: object) -> object:
        """What a cell holds: a number, a date, text that is no formula, or nothing."""
        if given is None or given is pd.NaT or given is pd.NA:
            return None
        if isinstance(given, (bool, np.bool_)):
            return bool(given)
        if isinstance(given, (int, np.integer)):
            return int(given) if abs(int(given)) < 10**DIGITS else str(int(given))
        if isinstance(given, (float, np.floating)):
            return _number(float(given))
        if isinstance(given, datetime.datetime) and given.tzinfo is None and given.year >= 1900:
            return given.to_pydatetime(warn=False) if isinstance(given, pd.Timestamp) else given
        if isinstance(given, datetime.date) and not isinstance(given, datetime.datetime) and given.year >= 1900:
            return given
        return self.text(str(given))

    def text(self, given: str) -> str:
        """Text without what a workbook cannot hold, prefixed where it would be run."""
        text = CONTROL.sub("", given).encode("utf-8", "replace").decode("utf-8")
        if text.startswith(FORMULA):
            self.prefixed += 1
            text = f"'{text}"
        return text[:CHARACTERS]


def _number(value: float) -> float | str | None:
    """A finite number, nothing for a missing one, and text for an infinite one, which cells cannot hold."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("infinite" if value > 0 else "minus infinite")


def write_workbook(result: AreaResult, path: str | Path) -> Path:
    """Write `result` to an .xlsx file with a sheet each for what SHEETS names, and return its path.

    Raises FileError where the folder does not exist, the file cannot be written, or there are more areas than rows.
    """
    target = Path(path)
    if not target.parent.is_dir() or target.suffix.lower() != ".xlsx":
        raise FileError(
            f"A workbook is an .xlsx file in a folder that exists; found {target}. "
            "Create the folder, or give another path."
        )
    areas = result.areas
    if len(areas) >= ROWS:
        raise FileError(
            f"A sheet has {ROWS} rows, one for the headings; there are {len(areas)} areas. Write result.areas to CSV "
            "or Parquet."
        )
    book, texts = Workbook(write_only=True), _Texts()
    rows = {
        "estimates": list(_frame_rows(areas)),
        "model": list(_model(result)),
        "diagnostics": list(_diagnostics(result)),
    }
    for name, content in rows.items():
        _sheet(book, name, content, texts)
    _sheet(book, "provenance", list(_provenance(result, texts.prefixed)), _Texts())
    try:
        book.save(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(
            f"A workbook is written to a file that can be opened; {target} cannot: {reason}. Give another path."
        ) from error
    return target


@dataclass(frozen=True, slots=True)
class _Heading:
    """A row of headings, in bold."""

    cells: tuple[object, ...]


def _frame_rows(frame: pd.DataFrame) -> Iterator[Row | _Heading]:
    """A heading, and the rows of a frame with the types they have."""
    yield _Heading(tuple(str(name) for name in frame.columns))
    columns = [frame[name].tolist() for name in frame.columns]
    yield from (list(row) for row in zip(*columns, strict=True))


def _sheet(book: Workbook, name: str, rows: list[Row | _Heading], texts: _Texts) -> None:
    sheet = book.create_sheet(name)
    if name == "estimates":
        sheet.freeze_panes = "B2"
    values = [[texts.value(cell) for cell in (row.cells if isinstance(row, _Heading) else row)] for row in rows]
    for k, width in enumerate(_widths(values), 1):
        sheet.column_dimensions[get_column_letter(k)].width = width
    bold = Font(bold=True)
    for row, cells in zip(rows, values, strict=True):
        sheet.append([_cell(sheet, cell, bold) for cell in cells] if isinstance(row, _Heading) else cells)


def _cell(sheet: Any, value: object, font: Font) -> Any:
    cell = WriteOnlyCell(sheet, value=value)
    cell.font = font
    return cell


def _widths(values: list[list[object]]) -> list[int]:
    """Characters of the widest cell of each column, within reason."""
    most = max((len(row) for row in values), default=0)
    found = [10] * most
    for row in values[:2000]:
        for k, value in enumerate(row):
            if isinstance(value, str) and len(row) > 1:
                found[k] = max(found[k], min(WIDEST, len(value) + 2))
    return found


def _block(title: str, frame: pd.DataFrame) -> Iterator[Row | _Heading]:
    yield _Heading((title,))
    yield from _frame_rows(frame)
    yield []


def _model(result: AreaResult) -> Iterator[Row | _Heading]:
    """The model in words, the coefficients, the area variance and the criteria."""
    yield _Heading(("Model",))
    for line in str(result.spec).splitlines():
        yield [line]
    yield [area_words.method(result)]
    yield [area_words.outcome(result)]
    yield []
    yield from _block("Coefficients", result.fixed)
    yield from _block("Variance between areas", result.A)
    if isinstance(result, SpatialAreaFit | SpatialAreaPosterior):
        yield from _block("Correlation of neighbours", result.rho)
    if isinstance(result, AreaFit):
        yield from _block("Criteria, from the likelihood of the coefficients and A", result.selection().frame)
    else:
        priors = pd.DataFrame({"prior": list(result.priors.describe())})
        yield from _block("Priors", priors)


def _diagnostics(result: AreaResult) -> Iterator[Row | _Heading]:
    """The check-list and the residuals of a fit; how the computation of a posterior went."""
    if isinstance(result, AreaPosterior):
        facts = pd.DataFrame(area_words.facts(result), columns=["what", "value"])
        yield from _block("How it was computed", facts)
        return
    yield from _block("Checks", result.check().frame)
    yield from _block("Residuals", result.augment().rename_axis("area").reset_index())


def _provenance(result: AreaResult, prefixed: int) -> Iterator[Row | _Heading]:
    """What was computed by what, from what, and what a reader should know."""
    mark, design = result.fingerprint, result.design
    yield _Heading(("what", "value"))
    for name, version in versions_of(result):
        yield [name, version]
    yield ["method", result.method if isinstance(result, AreaFit) else result.engine]
    if isinstance(result, AreaPosterior):
        yield ["seed", str(result.seed)]
    yield ["formula", result.spec.formula]
    for line in result.spec.to_toml().splitlines():
        yield ["spec", line]
    for part in ("spec", "rows", "response", "predictors", "variances"):
        yield [f"fingerprint of {part}", str(getattr(mark, part))]
    yield ["standard errors of areas", area_words.error(result)]
    yield ["lower, upper", "ends of 95 % intervals"]
    yield ["rows left out for missing values", len(design.dropped)]
    for row, columns in zip(design.dropped.rows, design.dropped.columns, strict=True):
        yield [f"row {row}", f"missing: {', '.join(columns)}"]
    for note in area_words.notes(result):
        yield ["note", note]
    if prefixed:
        yield [
            "texts with a leading apostrophe",
            f"{prefixed}: they begin like a formula; the apostrophe is not part of them",
        ]
