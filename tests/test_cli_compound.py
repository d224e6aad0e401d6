"""Compound models of the catalogue on the command line."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest
from test_cli import here, run, status

import hierlmm as hl

__all__ = ["here"]


@pytest.mark.parametrize(("name", "method"), [("lip-cancer", "moments"), ("baseball", "james_stein")])
def test_a_method_is_the_one_asked_for(name: str, method: str) -> None:
    """Tables of the library's fit, as JSON and to the last digit as CSV."""
    case = hl.load(name)
    fit = hl.fit(case.spec, case.data, method)

    told = json.loads(run("fit", name, "--method", method, "--format", "json").stdout)
    text = run("fit", name, "--method", method, "--format", "csv", "--table", "units").stdout

    assert told["method"] == method
    assert set(told["tables"]) == {"hyperparameters", "units"}
    assert [row["estimate"] for row in told["tables"]["units"]] == fit.units["estimate"].tolist()
    pd.testing.assert_series_equal(pd.read_csv(io.StringIO(text))["estimate"], fit.units["estimate"], check_exact=True)


def test_fit_and_posterior_are_compared() -> None:
    """`hierlmm compare` is hl.compare of the defaults, with priors and seed as typed."""
    case = hl.load("lip-cancer")
    post = hl.posterior(case.spec, case.data, priors="sd=halfnormal(0.5)", draws=30, seed=2)
    comparison = hl.compare(hl.fit(case.spec, case.data), post)
    command = ("compare", "lip-cancer", "--prior", "sd=halfnormal(0.5)", "--draws", "30", "--seed", "2")

    text, told = run(*command).stdout, json.loads(run(*command, "--format", "json").stdout)

    assert text.startswith(comparison.summary()[:400])
    assert [row["end"] for row in told["tables"]["attribution"]] == comparison.attribution["end"].tolist()


def test_results_are_saved(here: object) -> None:
    """What is read is what the library fits."""
    assert run("fit", "baseball/hits", "--save", "fit.hlm").exit_code == 0

    case = hl.load("baseball/hits")
    again = hl.read("fit.hlm")
    assert isinstance(again, hl.CompoundFit)
    pd.testing.assert_frame_equal(again.units, hl.fit(case.spec, case.data).units)


REFUSED = {
    "a formula": (("fit", "lip-cancer", "--formula", "cases ~ agriculture"), "fitted as it stands"),
    "a report": (("fit", "lip-cancer", "-o", "out.html"), "found --output"),
    "a method of another family": (("fit", "lip-cancer", "--method", "james_stein"), "james_stein"),
    "a prior of no parameter": (("compare", "lip-cancer", "--prior", "residual=halfnormal(1)"), "residual"),
    "a table of another model": (("fit", "lip-cancer", "--format", "csv", "--table", "areas"), "is one of hyper"),
}


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_what_compound_models_have_not_is_refused(
    arguments: tuple[str, ...], sentence: str, here: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2 and a sentence with the way out."""
    code, out, err = status(capsys, *arguments)

    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err
