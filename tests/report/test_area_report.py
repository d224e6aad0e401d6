"""The report, workbook and plots of one area-level result: its numbers, nothing from outside, nothing that runs."""

from __future__ import annotations

import datetime
import re

import numpy as np
import openpyxl
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from report_cases import HOSTILE, comparison, hostile
from test_page import Page

import hierlmm as hl
from hierlmm.errors import DesignError, FileError, FitError
from hierlmm.frequentist.area.naming import HEADINGS
from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.report.area_plots import plot_cv, plot_direct_model, plot_gamma
from hierlmm.report.criteria import criterion_name
from hierlmm.report.validation_plots import plot_area_influence, plot_validation
from hierlmm.report.words import METHODS
from hierlmm.report.workbook import SHEETS

FULL = "−2 log likelihood"

RESULTS = {
    "fit": lambda: comparison("milk").fit,
    "posterior": lambda: comparison("milk").posterior,
    "hostile": lambda: hostile().fit,
    "at zero": lambda: comparison("eight-schools").fit,
}


@pytest.fixture
def ax():
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def points(ax, label):
    return next(line for line in ax.lines if line.get_label() == label).get_xydata()


def page_of(result, tmp_path):
    text = result.report(tmp_path / "out.html").read_text(encoding="utf-8")
    return Page(text), text


@pytest.mark.parametrize("name", RESULTS)
def test_page_is_well_formed_and_loads_nothing(name, tmp_path):
    """Tags closed in order, links to headings that exist, pictures as data, a policy that forbids the rest."""
    page, text = page_of(RESULTS[name](), tmp_path)

    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = {attributes["href"].removeprefix("#") for tag, attributes in page.tags if tag == "a"}
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert page.open == []
    assert len(ids) == len(set(ids))
    assert links <= set(ids)
    assert len(sources) >= 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    assert "default-src 'none'" in text


def test_page_shows_estimates_errors_and_what_they_are(tmp_path):
    """Milk by REML: A, the first area, the kind of its mean squared error, the check-list with its marks."""
    fit = comparison("milk").fit
    page, _ = page_of(fit, tmp_path)

    for number in ("0.01855", "1.099", "1.022", "0.116", "−15.35494", "14.0 %", "11.2 %"):
        assert number in page.text
    assert fit.mse_kind in page.text
    for item in fit.check().items:
        assert item.topic in page.text
        assert item.value in page.text
    for caption in ("Area means before and after", "Coefficients"):
        assert f"{caption}, with 95 % intervals." in page.text
    assert "estimating the coefficients adds g2" in page.text


def test_names_are_text_and_what_was_left_out_is_said(tmp_path):
    """HOSTILE 50, a row with a missing covariate, and an area without a direct estimate."""
    page, _ = page_of(hostile().fit, tmp_path)

    for name in (HOSTILE[0], HOSTILE[4], HOSTILE[5]):
        assert name in page.text
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert "40: x" in page.text
    assert "1 area without a direct estimate or variance" in page.text
    assert "no direct estimate: synthetic" in page.text


def test_a_fit_at_zero_says_so_first(tmp_path):
    """Eight schools, Â = 0: the outcome stands before the estimates, and so does what every weight is."""
    fit = comparison("eight-schools").fit
    page, _ = page_of(fit, tmp_path)

    assert page.text.index(fit.outcome.value) < page.text.index("Area means before and after")
    assert "The weight γ on the direct estimate is zero in every area" in page.text


def test_last_lines_draw_the_sizes_again(tmp_path, monkeypatch):
    """Weights against sample sizes, by area, from a file beside the table."""
    sizes = hl.load("milk").data.set_index("SmallArea")["ni"]
    text = comparison("milk").fit.report(tmp_path / "out.html", size=sizes).read_text(encoding="utf-8")
    code = re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)[-1]
    hl.load("milk").data.to_csv(tmp_path / "data.csv", index=False)
    sizes.to_csv(tmp_path / "size.csv")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.html").unlink()

    exec(code.replace("&#39;", "'"), {})

    assert "Areas of one size differ" in (tmp_path / "out.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["fit", "posterior"])
def test_last_lines_reproduce_the_result(name, tmp_path, monkeypatch):
    """Run beside a data.csv they give the areas again and write the report."""
    result = RESULTS[name]()
    _, text = page_of(result, tmp_path)
    code = re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)[-1]
    hl.load("milk").data.to_csv(tmp_path / "data.csv", index=False)
    monkeypatch.chdir(tmp_path)

    scope: dict[str, object] = {}
    exec(code.replace("&#39;", "'").replace("&#34;", '"').replace("&lt;", "<").replace("&gt;", ">"), scope)

    assert_allclose(scope[name].areas["estimate"], result.areas["estimate"], rtol=1e-12)


def test_lines_of_a_transformed_model_with_policies_state_it_whole(tmp_path):
    """Log, areas dropped and left to the covariates: the spec that the lines make is the spec."""
    from hierlmm.report.reproduce import result_lines

    data = pd.DataFrame({"area": range(12), "y": np.exp(np.arange(12) / 9), "D": 0.02, "x": np.resize([0.0, 1, 3], 12)})
    data.loc[3, "y"] = np.nan
    spec = hl.fay_herriot(
        "y ~ x", sampling_variance="D", area="area", transformation=hl.Log(), unsampled="synthetic",
        missing_covariates="drop",
    )  # fmt: skip
    lines = result_lines(hl.fit(spec, data)).split("\n")

    scope: dict[str, object] = {}
    exec("\n".join(["import hierlmm as hl", *lines[4 : lines.index(")") + 1]]), scope)

    assert scope["spec"] == spec


def test_workbook_has_numbers_as_numbers_and_no_formula(tmp_path):
    """HOSTILE 50: no cell is a formula or begins like one; estimates read back to the last digit."""
    fit = hostile().fit

    book = openpyxl.load_workbook(fit.to_excel(tmp_path / "out.xlsx"))

    assert book.sheetnames == list(SHEETS)
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row if cell.value is not None]
    assert all(cell.data_type != "f" for cell in cells)
    texts = [cell.value for cell in cells if isinstance(cell.value, str)]
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    assert "'" + HOSTILE[1] in texts
    assert any("the apostrophe is not part of them" in text for text in texts)
    read = pd.read_excel(tmp_path / "out.xlsx", sheet_name="estimates")
    for name in ("estimate", "se", "direct", "gamma"):
        assert_allclose(read[name], fit.areas[name], rtol=1e-15)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([101, 102, 103, 104, 105, 106], int),
        ([1.5, 2.5, 3.5, 4.5, 5.5, 6.5], float),
        (["a", "b", "007", "d", "e", "1e5"], str),
        (pd.date_range("2020-01-01", periods=6), datetime.datetime),
        ([10**17 + k for k in range(6)], str),
    ],
)
def test_labels_keep_their_types(labels, kind, tmp_path):
    """Whole numbers, floats, dates and texts that look like numbers; whole numbers beyond 15 digits as text."""
    data = pd.DataFrame({"area": labels, "y": [1.0, 3, 2, 5, 4, 6], "D": 0.3})
    fit = hl.fit(hl.fay_herriot("y ~ 1", sampling_variance="D", area="area"), data)

    sheet = openpyxl.load_workbook(fit.to_excel(tmp_path / "out.xlsx"))["estimates"]

    read = [cell.value for cell in sheet["A"][1:]]
    assert all(type(value) is kind for value in read)
    assert [str(value) for value in read] == [str(label) for label in labels]


def test_workbook_says_what_it_was_computed_from(tmp_path):
    """Versions, fingerprint, spec, notes and dropped rows; a posterior has its seed and priors."""
    fit, posterior = hostile().fit, comparison("milk").posterior

    sheets = {
        name: pd.read_excel(result.to_excel(tmp_path / f"{name}.xlsx"), sheet_name=["provenance", "model"], header=None)
        for name, result in (("fit", fit), ("posterior", posterior))
    }

    texts = {name: set(sheet["provenance"].astype(str).to_numpy().ravel()) for name, sheet in sheets.items()}
    assert {fit.fingerprint.response, fit.fingerprint.variances, hl.__version__, "missing: x"} <= texts["fit"]
    assert set(fit.notes) <= texts["fit"]
    assert fit.mse_kind in " ".join(texts["fit"])
    assert str(posterior.seed) in texts["posterior"]
    model = sheets["posterior"]["model"].astype(str).to_numpy().ravel()
    assert set(posterior.priors.describe()) <= set(model)


@pytest.mark.parametrize("name", ["nowhere/out.xlsx", "out.csv"])
def test_a_workbook_needs_a_folder_and_its_ending(name, tmp_path):
    """Refused by name."""
    with pytest.raises(FileError, match=r"an \.xlsx file in a folder that exists"):
        comparison("milk").fit.to_excel(tmp_path / name)


def test_direct_against_model_draws_both_with_one_standard_error(ax):
    """Milk: points, bars of either standard error, the line of equality."""
    areas = comparison("milk").fit.areas.sort_values("sampling_variance", kind="stable")

    assert plot_direct_model(comparison("milk").fit, ax=ax) is ax

    assert_allclose(points(ax, "EBLUP"), areas[["direct", "estimate"]])
    bars = next(c for c in ax.collections if isinstance(c, LineCollection) and c.get_label() == "direct ± se")
    ends = np.array([segment[:, 0] for segment in bars.get_segments()])
    assert_allclose(ends[:, 1] - ends[:, 0], 2 * np.sqrt(areas["sampling_variance"]))
    line = points(ax, "no change")
    assert_allclose(line[:, 0], line[:, 1])
    ends = {text.get_text(): text.get_ha() for text in ax.texts}
    assert len(ends) == 3
    assert ends["11"] != ends["4"]


def test_coefficients_of_variation_are_in_percent_and_in_the_order_of_the_variances(ax):
    """Milk, posterior: before and after, the largest sampling variance last."""
    areas = comparison("milk").posterior.areas.sort_values("sampling_variance", kind="stable")

    plot_cv(comparison("milk").posterior, ax=ax)

    assert_allclose(points(ax, "direct")[:, 1], 100 * areas["direct_cv"])
    assert_allclose(points(ax, "posterior mean")[:, 1], 100 * areas["cv"])
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["34", "2"]


def test_weights_lie_on_their_curve_and_sizes_are_matched_by_label(ax):
    """γ = A/(A + D) through the points; by sample size from a Series in another order; sizes that are missing."""
    fit = comparison("milk").fit
    sizes = hl.load("milk").data.set_index("SmallArea")["ni"].sample(frac=1, random_state=1)

    plot_gamma(fit, ax=ax)
    curve = points(ax, "A / (A + D)")
    at = points(ax, "EBLUP")
    assert_allclose(np.interp(np.log(at[:, 0]), np.log(curve[:, 0]), curve[:, 1]), at[:, 1], atol=1e-4)

    other = Figure().add_subplot()
    plot_gamma(fit, ax=other, size=sizes)
    ordered = hl.load("milk").data.sort_values("vardir", kind="stable")
    assert_allclose(points(other, "EBLUP")[:, 0], ordered["ni"])
    with pytest.raises(DesignError, match=r"positive number for each area.* found none for 3"):
        plot_gamma(fit, ax=other, size=sizes.drop(3))
    with pytest.raises(DesignError, match="are a Series with a positive number"):
        plot_gamma(fit, ax=other, size=list(sizes))


def test_of_very_many_areas_some_are_drawn_and_the_caption_says_so(ax, tmp_path):
    """4,000 areas: 3,000 of them, the smallest and the largest sampling variance among them."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"area": range(4000), "D": rng.uniform(0.5, 2, 4000), "y": rng.normal(size=4000) * 2 + 9})
    fit = hl.fit(hl.fay_herriot("y ~ 1", sampling_variance="D", area="area"), data)

    plot_gamma(fit, ax=ax)
    page, text = page_of(fit, tmp_path)

    x = points(ax, "EBLUP")[:, 0]
    assert len(x) == 3000
    assert (x[0], x[-1]) == (data["D"].min(), data["D"].max())
    assert "3000 of 4000 areas are drawn" in page.text
    assert len(text) < 4e6


def test_validation_and_influence_draw_their_frames(ax):
    """How far each model is behind, and A without each area."""
    case = hl.load("milk")
    mean = hl.fay_herriot("yi ~ 1", sampling_variance="vardir", area="SmallArea")
    found = hl.validate({"areas": case.spec, "mean": mean}, case.data, seed=1, repetitions=3, leave_out="nothing")
    influence = comparison("milk").fit.influence()

    plot_validation(found, ax=ax)
    other = Figure().add_subplot()
    plot_area_influence(influence, ax=other)

    assert len(found.plot().axes) == 1
    assert_allclose(ax.lines[-1].get_xdata(), found.frame["behind"])
    drawn = np.concatenate([line.get_xydata() for line in other.lines[1:]])
    assert_allclose(drawn[drawn[:, 0].argsort()][:, 1], influence.frame["A"])
    with pytest.raises(FitError, match="'thinning', or 'areas'"):
        plot_validation(found, ax=ax, by="areas")


def test_reports_and_tables_know_every_estimator(tmp_path):
    """The names of all nine; a report of one that is neither REML nor ML, of its comparison, and tables of each."""
    case = hl.load("milk")
    fits = [hl.fit(case.spec, case.data, method) for method in ESTIMATORS]

    text = hl.compare(fits[2], comparison("milk").posterior).report(tmp_path / "both.html").read_text(encoding="utf-8")

    assert set(ESTIMATORS) <= set(METHODS)
    assert "Direct and model estimates" in text
    assert "moments of Fay and Herriot" in text
    for fit in fits:
        assert HEADINGS[fit.method] in str(hl.tabulate(fit))
        assert criterion_name(fit.method) == ("REML criterion" if fit.loglik == fit.certificate.loglik_reml else FULL)
    assert fits[2].plot().axes
