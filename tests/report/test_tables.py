"""Numbers and tables as shown: the digits that errors carry, and counts of what is not shown."""

from __future__ import annotations

import numpy as np
import openpyxl
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from report_cases import HOSTILE, comparison, hostile

from hierlmm.errors import FileError
from hierlmm.report import spreadsheet, tables
from hierlmm.report.numbers import column, decimals, fixed, number, probability


def value(text: str) -> float:
    """The number that a cell shows."""
    base, _, power = text.replace("−", "-").partition("×10")
    exponent = power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    return float(base) * 10.0 ** int(exponent or 0)


@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (0.018550331, "0.01855"), (-12.345678, "−12.35"), (1234.567, "1235"), (0.0, "0"), (np.nan, "–"), (None, "–"),
        (1.234e-9, "1.234×10⁻⁹"), (-3e12, "−3.000×10¹²"), (np.inf, "∞"), (-np.inf, "−∞"),
    ],
)  # fmt: skip
def test_number_has_four_significant_digits(x, shown):
    """Written out by hand."""
    assert number(x) == shown


def test_decimals_show_three_digits_of_a_standard_error():
    """0.0694 needs four decimals, 6.82 two, 2100 none."""
    assert [decimals(se) for se in (0.0694, 6.82, 2100.0, np.nan, 0.0)] == [4, 2, 0, 4, 4]
    assert decimals([0.1, 0.2, 5.0]) == 3


def test_a_column_never_shows_minus_zero():
    """Rounded to nothing it is 0.00 without a sign; exactly zero it is 0."""
    assert column([-0.001, 0.0, 2.5], 2) == ["0.00", "0", "2.50"]
    assert fixed(-0.4, 0) == "0"


@pytest.mark.parametrize(
    ("p", "shown"), [(0.0, "0"), (1e-9, "< 0.001"), (0.05, "0.050"), (0.99999, "> 0.999"), (1, "1")]
)
def test_probabilities_are_exact_only_where_they_are(p, shown):
    """0 and 1 only where they are meant."""
    assert probability(p) == shown


def test_cells_of_the_reconciliation_are_the_numbers_of_the_frames():
    """Milk: each cell agrees with fit and posterior to half a unit of its last digit."""
    milk = comparison("milk")
    shown = tables.means(milk)
    names = dict(zip(shown.columns, range(len(shown.columns)), strict=False))
    cells = [[value(cell) for cell in row] for row in shown.rows]
    theirs = milk.posterior.areas

    assert shown.total == len(shown.rows) == 43
    assert_allclose([row[names["mean"]] for row in cells], theirs["estimate"], atol=6e-5)
    assert_allclose([row[3] for row in cells], milk.fit.areas["estimate"], atol=6e-5)
    assert_allclose([row[names["E[γ|y]"]] for row in cells], theirs["gamma"], atol=6e-4)
    difference = theirs["estimate"] - milk.fit.areas["estimate"]
    assert_allclose([row[names["difference"]] for row in cells], difference, atol=6e-6)


def test_each_coefficient_has_its_own_decimals():
    """Sitka: slopes with an sd of about 0.001 keep three digits of it beside intercepts with one of about 0.3."""
    shown = tables.means(comparison("sitka/slopes"))

    slopes = [row[4] for row in shown.rows if row[2] == "Time"]
    intercepts = [row[4] for row in shown.rows if row[2] == "Intercept"]
    assert {len(cell.partition(".")[2]) for cell in slopes} == {5}
    assert {len(cell.partition(".")[2]) for cell in intercepts} == {3}


def test_a_long_table_is_cut_to_what_differs_most_and_says_so(monkeypatch):
    """Ten rows allowed: the caption counts, and the largest difference is among them."""
    monkeypatch.setattr(tables, "ROWS", 10)
    milk = comparison("milk")
    largest = milk.table.loc[milk.table["in_sd"].where(milk.table["part"] == "area").abs().idxmax(), "level"]

    shown = tables.means(milk)

    assert shown.cut.startswith("10 of 43 rows are shown")
    assert str(largest) in [row[0] for row in shown.rows]


def test_attribution_rows_add_up_to_rounding():
    """Start plus steps is the end, in the numbers as shown: six numbers, each rounded."""
    for row in tables.attribution(comparison("milk")).rows:
        start, *steps, end = (value(cell) for cell in row[1:])
        assert_allclose(start + sum(steps), end, atol=3.1e-5)


def test_sensitivity_shows_the_fit_first_and_a_reason_where_a_posterior_is_improper():
    """Eight schools under a prior that has no mean is a sentence, not numbers."""
    frame = comparison("eight-schools").sensitivity
    shown = tables.sensitivity(comparison("eight-schools"))

    assert shown.rows[0][0] == "REML"
    assert [row[0] for row in shown.rows] == list(dict.fromkeys(frame["prior"]))
    for row in shown.rows:
        reason = frame.loc[frame["prior"] == row[0], "reason"].iloc[0]
        assert (len(row) == 2) == bool(reason)


def test_a_spreadsheet_has_no_formula_and_all_numbers(tmp_path):
    """HOSTILE 50: texts that begin like a formula are prefixed; numbers come back as they went in."""
    result = hostile()

    book = openpyxl.load_workbook(spreadsheet.write(result, tmp_path / "out.xlsx"))

    assert book.sheetnames == list(spreadsheet.SHEETS)
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert all(cell.data_type != "f" for cell in cells)
    texts = {cell.value for cell in cells if isinstance(cell.value, str)}
    assert "'" + HOSTILE[1] in texts
    assert not any(text.startswith(("=", "+", "-", "@", "\t")) for text in texts)
    read = pd.read_excel(tmp_path / "out.xlsx", sheet_name="attribution")
    assert_allclose(read["end"], result.attribution["end"], rtol=1e-15)


@pytest.mark.parametrize("name", ["nowhere/out.xlsx", "out.csv"])
def test_a_workbook_needs_a_folder_and_its_suffix(name, tmp_path):
    """Refused before anything is written."""
    with pytest.raises(FileError, match=r"A workbook is an \.xlsx file in a folder that exists"):
        spreadsheet.write(comparison("dyestuff"), tmp_path / name)
