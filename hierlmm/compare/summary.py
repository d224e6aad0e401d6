"""A comparison as text, 80 columns wide: what to conclude first, then the numbers it rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.compare.attribute import STEPS
from hierlmm.compare.results import Comparison
from hierlmm.design.notes import left_out
from hierlmm.frequentist.area.results import AreaFit

WIDTH = 80
# Rows of the list of largest differences, and of fixed effects and variance components before the rest is counted.
LARGEST = 8
ROWS = 20
# Quantities of the sensitivity table, and the width of their columns; the report has more.
MAIN, COLUMN = 3, 19
# Quantities of mixed models that are listed: variances and covariances follow from them.
SHOWN = ("", "sd", "correlation")
STEP_NAMES = {
    "estimator": "estimator",
    "averaging": "averaging",
    "variance_prior": "prior of the variances",
    "fixed_prior": "prior of the coefficients",
    "monte_carlo": "Monte Carlo",
}


def summary(comparison: Comparison) -> str:
    """`comparison` in lines of at most 80 columns.

    In this order: whether the two agree, findings, the model, fixed effects and variance components side by side, the
    largest differences with the steps they are made of, verdicts at the boundary, other priors, the priors used, what
    is unusual in the data or was left out of them.
    """
    parts = [
        [*_wrapped(comparison.agreement.value, "", ""), *_bullets(comparison.findings)],
        str(comparison.spec).splitlines(),
        _parameters(comparison, "fixed", "Fixed effects"),
        _parameters(comparison, "variance", "Variance components"),
        _differences(comparison),
        _boundary(comparison),
        _sensitivity(comparison),
        ["Priors", *_bullets(comparison.posterior.priors.describe())],
        _data(comparison),
    ]
    return "\n\n".join("\n".join(line.rstrip() for line in part) for part in parts if part)


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _bullets(sentences: Iterable[str]) -> list[str]:
    return [line for sentence in sentences for line in _wrapped(sentence, "- ", "  ")]


def _data(comparison: Comparison) -> list[str]:
    design = comparison.fit.design
    sentences = (*design.notes, *left_out(design))
    return ["Data", *_bullets(sentences)] if sentences else []


def _row(name: object, cells: Sequence[str], width: int = 10) -> str:
    """A name, cut where it is too long, and right-aligned cells."""
    room = WIDTH - width * len(cells)
    text = "".join(c if c.isprintable() else " " for c in str(name))
    return (text if len(text) < room else text[: room - 2] + "…").ljust(room) + "".join(f"{c:>{width}}" for c in cells)


def _number(value: float, digits: int = 4) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}g}"


def _parameters(comparison: Comparison, part: str, title: str) -> list[str]:
    rows = comparison.table[comparison.table["part"] == part]
    if not isinstance(comparison.fit, AreaFit):
        rows = rows[rows["quantity"].isin(SHOWN)]
    lines = [_row(title, [comparison.fit.method.upper(), "se", "posterior", "sd", "in sds"])]
    for _, row in rows.head(ROWS).iterrows():
        values = [_number(row[name]) for name in ("estimate", "se", "posterior", "sd")]
        distance = f"{row['in_sd']:.2f}".replace("-0.00", "0.00") if pd.notna(row["in_sd"]) else "–"
        lines.append(_row("  " + _name(row), [*values, distance]))
    return lines + ([f"  ... and {len(rows) - ROWS} more"] if len(rows) > ROWS else [])


def _name(row: pd.Series) -> str:
    """The quantity of a row of the table: "Days", "sd(Subject: Days)", "A", "share(Residual)"."""
    if row["part"] == "fixed" or not row["group"]:
        return {"tau": "tau = √A"}.get(str(row["term"]), str(row["term"]))
    terms = ", ".join(str(term) for term in (row["term"], row["term2"]) if term)
    return f"{row['quantity']}({row['group']}{': ' + terms if terms else ''})"


def _differences(comparison: Comparison) -> list[str]:
    """The largest differences in posterior sds, each with the steps that are not zero, in units of the response."""
    frame = comparison.attribution
    sd = np.sqrt(comparison.mse["posterior_variance"].to_numpy())
    with np.errstate(divide="ignore", invalid="ignore"):
        in_sd = (frame["end"] - frame["start"]).to_numpy() / sd
    order = np.argsort(-np.nan_to_num(np.abs(in_sd), nan=-1.0, posinf=-1.0), kind="stable")[:LARGEST]
    lines = [f"Largest differences, {len(order)} of {len(frame)}, from the estimate to the posterior mean"]
    for k in order:
        row = {name: frame[name].iloc[k] for name in frame}
        label = f"{_label(comparison, row)}: {_number(row['start'])} to {_number(row['end'])}"
        lines += _wrapped(f"{label}, {row['end'] - row['start']:+.2g} or {in_sd[k]:+.2f} sds", "  ", "    ")
        steps = ", ".join(f"{STEP_NAMES[step]} {row[step]:+.2g}" for step in STEPS if row[step] != 0)
        steps += f" (MCSE {row['mcse']:.2g})" if row["monte_carlo"] != 0 else ""
        lines += _wrapped(steps or "no step", "      ", "      ")
    return lines if len(order) else []


def _label(comparison: Comparison, row: dict[Hashable, Any]) -> str:
    if isinstance(comparison.fit, AreaFit):
        return f"{comparison.spec.random[0].factor} {row['area']}"
    return f"{row['group']} {row['level']}, {row['term']}"


def _boundary(comparison: Comparison) -> list[str]:
    lines = ["Verdicts on the variance components"]
    for row in comparison.boundary.to_dict("records"):
        evidence = f"LRT {row['statistic']:.3g}, p = {row['p']:.2g}, "
        evidence += f"P(negligible | y) = {row['posterior_near_zero']:.2g}"
        where = f"; no variance along {row['direction']}" if row["direction"] else ""
        text = f"{row['term']} by {row['group']}: {row['verdict']}. {evidence}{where}. {row['advice']}"
        lines += _wrapped(text, "  ", "    ")
    return lines if len(lines) > 1 else []


def _sensitivity(comparison: Comparison) -> list[str]:
    """The first variance parameters and fixed effects under each prior, mean (sd)."""
    frame = comparison.sensitivity
    main = frame[frame["part"].isin(["variance", "fixed"])]
    names = [*_labels(main, "variance")[: MAIN - 1], *_labels(main, "fixed")][:MAIN]
    halves = [label.partition(":") for _, label in names]
    lines = [_row("Prior: mean (sd)", [_short(first + colon) for first, colon, _ in halves], COLUMN)]
    if any(colon for _, colon, _ in halves):
        lines.append(_row("", [_short(rest) for _, _, rest in halves], COLUMN))
    for prior in frame["prior"].drop_duplicates():
        block = frame[frame["prior"] == prior]
        if block["reason"].iloc[0]:
            lines += _wrapped(f"{prior}: {block['reason'].iloc[0]}", "  ", "    ")
            continue
        at = block.set_index(["part", "label"])
        values = at.loc[names, ["estimate", "se"]].to_numpy(dtype=np.float64)
        cells = [f"{_number(mean)} ({_number(sd, 2)})" for mean, sd in values]
        if len(str(prior)) + 2 >= WIDTH - COLUMN * len(cells):
            lines.append(f"  {prior}"[:WIDTH])
            lines.append(_row("", cells, COLUMN))
        else:
            lines.append(_row(f"  {prior}", cells, COLUMN))
    return lines


def _labels(frame: pd.DataFrame, part: str) -> list[tuple[str, str]]:
    return [(part, str(label)) for label in frame.loc[frame["part"] == part, "label"].drop_duplicates()]


def _short(label: str) -> str:
    return label if len(label) < COLUMN else label[: COLUMN - 2] + "…"
