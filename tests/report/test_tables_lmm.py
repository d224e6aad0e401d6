"""Fits as LaTeX and HTML: nothing in a name acts, numbers are those of the fit, columns stand side by side."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from report_cases import HOSTILE

import hierlmm as hl
from hierlmm.report.tables_lmm_latex import cell, escape


def fitted(name: str, method: str = "reml"):
    """A model of the catalogue."""
    case = hl.load(name)
    return hl.fit(case.spec, case.data, method)


def hostile():
    """A predictor whose levels are markup, formulas, paths and mathematics, and a group with such a name."""
    rng = np.random.default_rng(1)
    names = np.tile(np.array(HOSTILE, dtype=object), 10)
    table = pd.DataFrame({"y": rng.standard_normal(100), "f <b>&": names, "<i>g_1</i> %": np.repeat(np.arange(10), 10)})
    return hl.fit(hl.lmm("y ~ `f <b>&` + (1 | `<i>g_1</i> %`)"), table)


class Cells(HTMLParser):
    """Tags that occur, and the text of each row's cells."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.rows, self.caption = list[str](), list[list[str]](), ""
        self.into = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.into = tag
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.into = ""

    def handle_data(self, data):
        if self.into in ("td", "th", "br"):
            self.rows[-1][-1] += data
        elif self.into in ("caption", "code"):
            self.caption += data


TAGS = {"style", "table", "caption", "code", "thead", "tbody", "tfoot", "tr", "th", "td", "br"}


def test_names_do_nothing_in_html():
    """HOSTILE: every label is read back as it was, and no element comes from a name."""
    page = hostile().to_html("a <script>caption</script> & more")
    read = Cells(page)

    assert set(read.tags) <= TAGS
    assert "http" not in re.sub(r"<th scope=\"row\">.*?</th>", "", page)
    labels = {row[0] for row in read.rows}
    for name in sorted(HOSTILE)[1:]:
        assert any(label.endswith(f"[T.{name}]") for label in labels), name
    assert "<i>g_1</i> %: Intercept" in labels
    assert read.caption == "a <script>caption</script> & more"
    assert all(len(row) == 6 for row in read.rows[:-1])


def test_names_do_nothing_in_latex():
    """No command but those of the table and of the escapes; braces match, and every row has six cells."""
    text = hostile().to_latex("100 % of $x_1$ \\input{/etc/passwd}", "tab:a_1")

    commands = set(re.findall(r"\\([A-Za-z]+|.)", text))
    assert commands <= {
        "begin", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "end", "par", "smallskip",
        "footnotesize", "times", "textless", "textgreater", "textbar", "textbackslash", "textasciitilde",
        "textasciicircum", "symbol", "ensuremath", "\\", "&", "%", "$", "#", "_", "{", "}",
    }  # fmt: skip
    bare = re.sub(r"\\[\\{}$&#%_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert "%" not in bare
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith("\\\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {5}
    assert not any(re.match(r"\s*[\[*]", row) for row in rows)
    assert r"\textbackslash{}input\{/etc/passwd\}" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("−12.3", "$-12.3$"),
        ("−12.3 (4.5)", "$-12.3$ ($4.5$)"),
        ("−1.2 (−3.1, 0.7)", "$-1.2$ ($-3.1$, $0.7$)"),
        ("1.2×10⁻⁹", r"$1.2 \times 10^{-9}$"),
        ("< 0.001", "$<0.001$"),
        ("1.2 (< 0.001)", "$1.2$ ($<0.001$)"),
        ("∞", r"\ensuremath{\infty}"),
        ("–", "--"),
        ("REML", "REML"),
        ("", ""),
    ],
)
def test_numbers_are_mathematics_in_latex(text, expected):
    """Signs, powers of ten, bounds and brackets."""
    assert cell(text) == expected


def test_escapes_are_latex_s_own():
    """The ten characters of Lamport's list, ligatures of hyphens, and control characters."""
    assert escape("# $ % & _ { } ~ ^ \\") == (
        r"\# \$ \% \& \_ \{ \} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    assert escape("a--b---c") == "a-{}-b-{}-{}-c"
    assert escape("x\n\ty") == "x y"


def test_one_fit_shows_tests_and_components():
    """Winter (2013) and lmerTest 3.1.3: politeness with gender, to the digits shown."""
    rows = {row[0]: row[1:] for row in Cells(fitted("politeness/gender").to_html()).rows}

    assert rows["attitude[T.pol]"] == ["−19.72", "5.58", "70.05", "−3.53", "< 0.001"]
    assert rows["gender[T.M]"] == ["−108.5", "21.0", "4.01", "−5.16", "0.007"]
    assert rows["subject: Intercept"][:2] == ["615.6", "24.81"]
    assert rows["scenario: Intercept"][:2] == ["219.5", "14.81"]
    assert rows["Residual"][:2] == ["645.9", "25.41"]
    assert rows["REML criterion"][0] == "775.45"
    assert rows["levels of scenario"][0] == "7"


def test_several_fits_stand_side_by_side():
    """A row a term, blank where a model has it not; what must not be compared is said."""
    fits = [fitted(f"politeness/{name}") for name in ("attitude", "gender")]
    rows = Cells(hl.tabulate(*fits, names=["without", "with"]).to_html()).rows

    found = {row[0]: row[1:] for row in rows}
    assert rows[0] == ["", "without", "with"]
    assert found["gender[T.M]"] == ["", "−108.5 (21.0)"]
    assert found["Intercept"] == ["202.6 (26.8)", "256.8 (16.1)"]
    assert found["subject: Intercept"] == ["63.36", "24.81"]
    assert "REML criteria of models with different fixed effects are not comparable." in rows[-1][0]
    by_ml = [fitted(f"politeness/{name}", "ml") for name in ("attitude", "gender")]
    assert "comparable" not in hl.tabulate(*by_ml).to_html()
    assert "by different methods" in hl.tabulate(fits[1], by_ml[1]).to_html()
    assert "different rows or responses" in hl.tabulate(fits[0], fitted("sleepstudy")).to_html()
    assert Cells(hl.tabulate(fits[1], names=["only"]).to_html()).rows[0] == ["", "only"]
    singular = hl.tabulate(fits[1], fitted("politeness/slopes"))
    assert "(2): The optimum lies on the boundary" in singular.to_html()


@pytest.mark.parametrize(
    ("show", "expected"),
    [("se", "(5.58)"), ("interval", "(−30.86, −8.58)"), ("t", "(−3.53)"), ("p", "(< 0.001)")],
)
def test_what_stands_in_brackets_can_be_chosen(show, expected):
    """lmerTest 3.1.3: se 5.58403, t -3.5317 on 70.05 df, p 0.000735; the limits are estimate ± 1.9944 se."""
    fit = fitted("politeness/gender")

    table = hl.tabulate(fit, fitted("politeness/attitude"), show=show)

    assert f"−19.72 {expected}" in table.sheet.text()
    assert f"−19.72 {expected}" in repr(table)


def test_fits_of_every_kind_have_tables():
    """Area-level fits, no fixed effects, residual structures, no likelihood, a large crossed design's missing df."""
    sitka = hl.load("sitka").data
    occasions = sitka.assign(occ=sitka.groupby("tree")["Time"].rank().astype(int))
    fits = [
        fitted("milk"),
        hl.fit(hl.lmm("size ~ 0 + (1 | tree)"), sitka),
        hl.fit(hl.lmm("size ~ Time", residual=hl.HeterogeneousAR1("tree", "occ")), occasions),
        hl.fit(hl.lmm("size ~ 1 + (1 | tree)"), sitka.assign(size=sitka["tree"] ** 2.0)),
    ]

    for fit in fits:
        rows = Cells(fit.to_html()).rows
        assert all(len(row) == 6 for row in rows[:-1])
        assert fit.to_latex().count("\\begin{tabular}") == 1
    assert "Residual: correlation at lag 1" in fits[2].to_html()
    assert "Residual: 152" in fits[2].to_html() or "Residual: 1" in fits[2].to_html()
    assert hl.tabulate(*fits).to_latex()
    assert "No degrees of freedom were computed" in fits[3].to_html()
    assert "95 % profile limits of the sd" in fits[0].to_latex().replace("\\%", "%")
    assert "95 % Wald limits of the sd" in fits[1].to_html()
    assert hl.tabulate(fits[0])._repr_html_() == fits[0].to_html()


def test_what_is_no_table_is_refused():
    """No fit, a list, moment estimates, names that do not match, an unknown quantity, a label that TeX cannot read."""
    fit = fitted("dyestuff2")
    with pytest.raises(hl.FitError, match="found none"):
        hl.tabulate()
    with pytest.raises(hl.FitError, match="argument 2 is list"):
        hl.tabulate(fit, [fit])
    moments = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff").data, "anova")
    with pytest.raises(hl.FitError, match="A table shows REML and ML fits; argument 2 is MomentsFit"):
        hl.tabulate(fit, moments)
    for names in (["a"], ["a", "a"], "ab", ["a", 2]):
        with pytest.raises(hl.FitError, match="`names`"):
            hl.tabulate(fit, fit, names=names)
    with pytest.raises(hl.FitError, match="`show`"):
        hl.tabulate(fit, fit, show="stars")
    with pytest.raises(hl.FitError, match="label"):
        fit.to_latex(label="tab}\\input{x}")
