"""Fits as tables to print: one fit with its tests and variance components, or several side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from hierlmm.errors import FitError
from hierlmm.frequentist.area.naming import HEADINGS
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.report.criteria import FULL, criterion_name
from hierlmm.report.numbers import column, decimals, number, probability
from hierlmm.report.tables_lmm_html import html_table
from hierlmm.report.tables_lmm_latex import latex_table
from hierlmm.report.tables_lmm_sheet import Block, Sheet

Fit = LMMFit | AreaFit
Show = Literal["se", "interval", "t", "p"]

# What stands behind an estimate in a table of several fits, in words.
BEHIND = {"se": "standard errors", "interval": "95 % intervals", "t": "t statistics", "p": "p-values"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FitTable:
    """A table of fits: `sheet` has its cells as text, `to_latex` and `to_html` its printed forms."""

    sheet: Sheet

    def to_latex(self, caption: str = "", label: str = "") -> str:
        """A table environment that needs \\usepackage{booktabs}; names and `caption` are escaped."""
        return latex_table(self.sheet, caption, label)

    def to_html(self, caption: str = "") -> str:
        """A table with its style, to stand in any page; names and `caption` are escaped."""
        return html_table(self.sheet, caption)

    def _repr_html_(self) -> str:
        return self.to_html()

    def __repr__(self) -> str:
        return self.sheet.text()


def tabulate(*fits: Fit, names: tuple[str, ...] | list[str] | None = None, show: Show = "se") -> FitTable:
    """One fit: fixed effects with se, df, t and p, and variance components. Several: a column a fit.

    names  headings of the columns, a fit each; several fits have (1), (2), ... where there are none, and a single one
           has the columns of its tests
    show   what stands in brackets behind an estimate in a table of a column a fit: "se", "interval", "t" or "p"

    Raises FitError where there is no fit, for what is no fit, and for names that do not match the fits.
    """
    _check(fits, names, show)
    if len(fits) == 1 and names is None:
        return FitTable(sheet=_one(fits[0]))
    headings = tuple(names) if names is not None else tuple(f"({k})" for k in range(1, len(fits) + 1))
    return FitTable(sheet=_several(fits, headings, show))


def _check(fits: tuple[object, ...], names: object, show: object) -> None:
    if not fits:
        raise FitError("A table shows fits; found none. Write hl.tabulate(fit), or hl.tabulate(first, second).")
    for place, fit in enumerate(fits):
        if not isinstance(fit, LMMFit | AreaFit):
            raise FitError(
                f"A table shows REML and ML fits; argument {place + 1} is {type(fit).__qualname__}. "
                "Give each fit as an argument of its own."
            )
    if names is not None:
        given = names if isinstance(names, list | tuple) else None
        texts = given is not None and all(isinstance(name, str) for name in given)
        if given is None or not texts or len(given) != len(fits) or len(set(given)) < len(given):
            raise FitError(
                f"`names` has one text a fit, each different; found {names!r} for {len(fits)} fits. "
                'Write names=["first", "second"].'
            )
    if show not in get_args(Show):
        raise FitError(f"`show` is one of {', '.join(map(repr, get_args(Show)))}; found {show!r}. Use one of these.")


def _one(fit: Fit) -> Sheet:
    frame, glance = fit.tidy(), fit.glance().iloc[0]
    rows = []
    for row in _rows(frame, "fixed"):
        places = decimals(row["se"])
        estimate, se = column([row["estimate"], row["se"]], places)
        rows.append((row["term"], estimate, se, _df(row["df"]), column([row["t"]], 2)[0], probability(row["p"])))
    blocks = [Block("Fixed effects", ("estimate", "se", "df", "t", "p"), tuple(rows))] if rows else []
    blocks.append(
        Block("Variance components", ("variance", "sd", "lower", "upper", "share"), tuple(_components(frame)))
    )
    return Sheet(
        title=f"{glance['formula']}, {HEADINGS[glance['method']]}",
        columns=5,
        headings=(),
        blocks=(*blocks, Block("", (), tuple((*fact, "", "", "", "") for fact in (*_sizes(fit), *_criteria(fit))))),
        notes=tuple(_notes(fit)),
    )


def _df(value: float) -> str:
    return number(value, 3) if not np.isfinite(value) else f"{value:.2f}" if value < 1000 else number(value)


def _components(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """A row a variance, with its sd, the sd's interval and the share of its group, and a row a correlation."""
    pars = frame[frame["effect"] == "ran_pars"]
    share = pars[pars["quantity"] == "share"].set_index("group")["estimate"]
    variances = pars[pars["quantity"] == "variance"].set_index(["group", "term"])["estimate"]
    rows, shown = list[tuple[str, ...]](), set[str]()
    for row in _rows(frame, "ran_pars"):
        group, quantity = row["group"], row["quantity"]
        if quantity in ("variance", "covariance", "share"):
            continue
        cells = column([row["estimate"], row["lower"], row["upper"]], decimals(row["se"]))
        first = ""
        if quantity == "sd":
            first = number(variances[(group, row["term"])])
        carried = number(share[group], 3) if group in share.index and group not in shown else ""
        shown.add(group)
        rows.append((_label(row), first, *cells, carried))
    return rows


def _label(row: Mapping[str, Any]) -> str:
    """What a variance component is called: "Subject: Days", "Subject: correlation of Days and Intercept"."""
    terms = [str(row[name]) for name in ("term", "term2") if row[name]]
    if row["quantity"] == "sd":
        return f"{row['group']}: {terms[0]}" if terms else str(row["group"])
    of = f" of {' and '.join(terms)}" if len(terms) == 2 else f" at {terms[0]}" if terms else ""
    return f"{row['group']}: {row['quantity']}{of}"


def _sizes(fit: Fit) -> list[tuple[str, str]]:
    """How many rows, and levels of each grouping factor."""
    n = str(fit.glance()["n"].iloc[0])
    levels = [(f"levels of {name}", str(size)) for name, size in _levels(fit)]
    return [("rows" if isinstance(fit, LMMFit) else "areas", n), *levels]


def _criteria(fit: Fit) -> list[tuple[str, str]]:
    glance = fit.glance().iloc[0]
    numbers = [(criterion_name(fit.method), glance["criterion"]), ("AIC", glance["aic"]), ("BIC", glance["bic"])]
    return [(name, column([value], 2)[0]) for name, value in numbers]


def _levels(fit: Fit) -> list[tuple[str, int]]:
    if isinstance(fit, AreaFit):
        return []
    return [(factor.name, len(factor.levels)) for factor in fit.design.factors]


def _notes(fit: Fit) -> list[str]:
    """How tests and intervals were made, and how the fit ended where it is not in the interior."""
    kind = "Wald" if isinstance(fit, LMMFit) else "profile"
    notes = [f"Lower and upper are 95 % {kind} limits of the sd, or of the quantity named."]
    if isinstance(fit, LMMFit) and fit.design.fixed:
        missing = fit.tidy("fixed")["df"].isna().any()
        how = "No degrees of freedom were computed for this fit." if missing else "df by Satterthwaite's method."
        notes.insert(0, how)
    elif fit.design.fixed:
        notes.insert(0, "p of the normal distribution.")
    return notes if fit.outcome.name == "INTERIOR" else [*notes, fit.outcome.value]


def _several(fits: tuple[Fit, ...], headings: tuple[str, ...], show: Show) -> Sheet:
    frames = [fit.tidy() for fit in fits]
    fixed = [{row["term"]: _cell(row, show) for row in _rows(frame, "fixed")} for frame in frames]
    random = [{_label(row): _component(row) for row in _rows(frame, "ran_pars") if _is_shown(row)} for frame in frames]
    facts = (
        [{"method": HEADINGS[fit.method]} for fit in fits],
        [dict(_sizes(fit)) for fit in fits],
        [dict(_criteria(fit)) for fit in fits],
    )
    components = sorted(_beside(random), key=lambda row: row[0].partition(":")[0] == "Residual")
    return Sheet(
        title="",
        columns=len(fits),
        headings=headings,
        blocks=(
            *([Block("Fixed effects", (), _beside(fixed))] if any(fixed) else []),
            Block("Standard deviations and correlations", (), tuple(components)),
            Block("", (), tuple(row for part in facts for row in _beside(part))),
        ),
        notes=(f"In brackets: {BEHIND[show]}.", *_warnings(fits, headings)),
    )


def _rows(frame: pd.DataFrame, effect: str) -> list[dict[str, Any]]:
    rows = frame[frame["effect"] == effect]
    return [dict(zip(rows.columns.astype(str), values, strict=True)) for values in rows.itertuples(index=False)]


def _is_shown(row: Mapping[str, Any]) -> bool:
    return row["quantity"] not in ("variance", "covariance", "share")


def _component(row: Mapping[str, Any]) -> str:
    return column([row["estimate"]], 3)[0] if row["quantity"] == "correlation" else number(row["estimate"])


def _cell(row: Mapping[str, Any], show: Show) -> str:
    """An estimate with what stands behind it."""
    places = decimals(row["se"])
    estimate, se, lower, upper = column([row[name] for name in ("estimate", "se", "lower", "upper")], places)
    behind = {"se": se, "interval": f"{lower}, {upper}", "t": column([row["t"]], 2)[0], "p": probability(row["p"])}
    return f"{estimate} ({behind[show]})"


def _beside(parts: list[dict[str, str]]) -> tuple[tuple[str, ...], ...]:
    """A row for every name of any fit, in the order of appearance; blank where a fit has none of the name."""
    labels = dict.fromkeys(label for part in parts for label in part)
    return tuple((label, *(part.get(label, "") for part in parts)) for label in labels)


def _warnings(fits: tuple[Fit, ...], headings: tuple[str, ...]) -> list[str]:
    """What must not be read across the columns, and fits that did not end in the interior."""
    out = []
    first = fits[0].fingerprint
    if any(fit.fingerprint.rows != first.rows or fit.fingerprint.response != first.response for fit in fits[1:]):
        out.append("The fits are of different rows or responses: their criteria are not comparable.")
    elif len({fit.method for fit in fits}) > 1:
        out.append("The fits are by different methods: their criteria are not comparable.")
    elif fits[0].method not in FULL and len({fit.design.fixed for fit in fits}) > 1:
        out.append("REML criteria of models with different fixed effects are not comparable.")
    ended = [(name, fit.outcome) for name, fit in zip(headings, fits, strict=True)]
    return out + [f"{name}: {outcome.value}" for name, outcome in ended if outcome.name != "INTERIOR"]
