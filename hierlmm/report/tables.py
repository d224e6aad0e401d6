"""Frames of a comparison as tables to be shown: strings in rows, headings in groups, the cut said."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hierlmm.compare.results import Comparison
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.area.spatial_results import SpatialAreaFit
from hierlmm.report.appearance import STEP_NAMES, STEPS
from hierlmm.report.numbers import column, decimals, number
from hierlmm.report.predicted import largest, predicted

# Rows of a long table that are shown.
ROWS = 300
# Main quantities shown in the sensitivity table, a column each.
QUANTITIES = 8
POSTERIOR = ("posterior", "sd", "lower", "upper")
# A difference this small beside the numbers it is taken of is their rounding.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a template draws.

    caption  says what a row is; groups: headings over several columns, (text, columns) from left to right
    columns  headings; the first `labels` columns are text, the others numbers
    rows     cells as strings; a row shorter than the others ends in a sentence that spans what is left
    total    rows there are in all, where only some are shown; kept: which
    sentences  how many of the last columns are text
    """

    caption: str
    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    labels: int
    rows: tuple[tuple[str, ...], ...]
    total: int
    kept: str = "those where the two analyses differ most"
    sentences: int = 0

    @property
    def cut(self) -> str:
        """A sentence where rows were left out, or ""."""
        if len(self.rows) >= self.total:
            return ""
        return f"{len(self.rows)} of {self.total} rows are shown: {self.kept}."


def parameters(comparison: Comparison, part: str) -> Table:
    """Fixed effects (part "fixed") or variance components ("variance") of both analyses side by side."""
    rows = comparison.table[comparison.table["part"] == part]
    intervals = _fit_intervals(comparison, part, rows)
    mcse = _has_mcse(rows)
    out = []
    for (_, row), interval in zip(rows.iterrows(), intervals, strict=True):
        ours, theirs = [row["estimate"], row["se"], *interval], [row[name] for name in POSTERIOR]
        fitted = column(ours, decimals(row["se"])) if pd.notna(row["se"]) else [number(x) for x in ours]
        cells = [*fitted, *column(theirs, decimals(row["sd"])), _difference(row), *column([row["in_sd"]], 2)]
        out.append((*_label(row), *cells, *([number(row["in_mcse"], 2)] if mcse else [])))
    labels = _label_columns(part, comparison)
    names = ("estimate", "se", "lower", "upper", "mean", "sd", "lower", "upper", "difference", "in sds")
    return Table(
        caption={"fixed": "Fixed effects.", "variance": "Variance components."}[part],
        groups=(("", len(labels)), (f"fit ({comparison.fit.method.upper()})", 4), ("posterior", 4), _last(mcse)),
        columns=(*labels, *names, *(["in MCSEs"] if mcse else [])),
        labels=len(labels),
        rows=tuple(tuple(cells) for cells in out),
        total=len(rows),
    )


def _difference(row: pd.Series) -> str:
    """Posterior less fit; "0" where it is the rounding of either."""
    size = max(abs(row["estimate"]), abs(row["posterior"]))
    return number(0 if abs(row["difference"]) < ROUNDING * size else row["difference"], 2)


def _last(mcse: bool) -> tuple[str, int]:
    return ("posterior − fit", 3 if mcse else 2)


def _has_mcse(rows: pd.DataFrame) -> bool:
    """Whether means come from draws, so that differences can be judged in Monte Carlo standard errors."""
    return bool((rows["mcse"] > 0).any())


def _label(row: pd.Series) -> tuple[str, ...]:
    if row["part"] == "fixed":
        return (str(row["term"]),)
    if not row["group"]:
        words = {"A": "A, variance between areas", "tau": "√A", "rho": "ρ, autocorrelation"}
        return (words.get(str(row["term"]), str(row["term"])),)
    terms = ", ".join(str(term) for term in (row["term"], row["term2"]) if term)
    return str(row["group"]), terms, str(row["quantity"])


def _label_columns(part: str, comparison: Comparison) -> tuple[str, ...]:
    if part == "fixed":
        return ("term",)
    return ("",) if isinstance(comparison.fit, AreaFit) else ("group", "term", "quantity")


def _fit_intervals(comparison: Comparison, part: str, rows: pd.DataFrame) -> list[tuple[float, float]]:
    """The fit's 95 % intervals in the order of `rows`."""
    fit = comparison.fit
    if part == "fixed":
        frame = fit.fixed
    elif isinstance(fit, AreaFit):
        low, high = float(fit.A["lower"].iloc[0]), float(fit.A["upper"].iloc[0])
        beside = [fit.rho[["lower", "upper"]].iloc[0]] if isinstance(fit, SpatialAreaFit) else []
        return [(low, high), (math.sqrt(low), math.sqrt(high)), *((float(a), float(b)) for a, b in beside)]
    else:
        frame = fit.variance_components
    pairs = list(frame[["lower", "upper"]].itertuples(index=False, name=None))
    return [(float(low), float(high)) for low, high in pairs[: len(rows)]]


def means(comparison: Comparison) -> Table:
    """Predicted means of both analyses: areas, or random effects."""
    area = isinstance(comparison.fit, AreaFit)
    rows = comparison.table[comparison.table["part"] == ("area" if area else "random effect")].reset_index(drop=True)
    frame = predicted(comparison)
    shown = largest(rows, rows["in_sd"], ROWS)
    frame, mcse = frame.iloc[shown.index.to_numpy()], _has_mcse(rows)
    places = _places(frame, frame["sd"])
    cells = _labels_of(frame)
    if area:
        cells += [column(frame["direct"], places), column(np.sqrt(frame["sampling_variance"]), places)]
    cells += [column(shown[name], places) for name in ("estimate", "se")]
    cells += [column(shown["gamma"], 3)] if area else []
    cells += [column(shown[name], places) for name in ("posterior", "sd", "lower", "upper")]
    cells += [column(shown["posterior_gamma"], 3)] if area else []
    cells += [column(shown["difference"], [k + 1 for k in places]), column(shown["in_sd"], 3)]
    cells += [column(shown["in_mcse"], 1)] if mcse else []
    first = (("direct estimate", 2),) if area else ()
    names = ["estimate", "se", *(["γ"] if area else []), "mean", "sd", "lower", "upper", *(["E[γ|y]"] if area else [])]
    labels = _label_names(comparison)
    direct = ("estimate", "sd") if area else ()
    groups = (("", len(labels)), *first, (f"fit ({comparison.fit.method.upper()})", 3 if area else 2))
    return Table(
        caption="Predicted area means." if area else "Random effects.",
        groups=(*groups, ("posterior", 5 if area else 4), _last(mcse)),
        columns=(*labels, *direct, *names, "difference", "in sds", *(["in MCSEs"] if mcse else [])),
        labels=len(labels),
        rows=tuple(zip(*cells, strict=True)),
        total=len(rows),
    )


def _places(frame: pd.DataFrame, size: pd.Series, digits: int = 3) -> list[int]:
    """Decimals of each row: the same for all rows of a coefficient, from the median `size` of these rows."""
    typical = frame[["group", "term"]].assign(size=size.to_numpy())
    medians = typical.groupby(["group", "term"])["size"].transform("median")
    return [decimals(value, digits) for value in medians]


def _labels_of(frame: pd.DataFrame) -> list[list[str]]:
    """Text columns of predicted means: the area, or group, level and term."""
    if not frame["group"].any():
        return [[str(name) for name in frame["name"]]]
    return [[str(value) for value in frame[name]] for name in ("group", "name", "term")]


def _label_names(comparison: Comparison) -> tuple[str, ...]:
    area = isinstance(comparison.fit, AreaFit)
    return (comparison.spec.random[0].factor,) if area else ("group", "level", "term")


def attribution(comparison: Comparison) -> Table:
    """The steps from the fit's estimate to the posterior mean, in units of the response."""
    frame = predicted(comparison).reset_index(drop=True)
    shown = largest(frame, frame["in_sd"], ROWS)
    steps = comparison.attribution.iloc[shown.index.to_numpy()]
    places = [k + 1 for k in _places(shown, shown["sd"])]
    cells = _labels_of(shown)
    cells += [column(steps[name], places) for name in ("start", *STEPS, "end")]
    sampled = bool((comparison.attribution["monte_carlo"] != 0).any())
    cells += [column(steps["mcse"], places)] if sampled else []
    labels = _label_names(comparison)
    return Table(
        caption="From the estimate of the fit to the posterior mean, in steps that add up.",
        groups=(("", len(labels)), ("", 1), ("steps", len(STEPS)), ("", 2 if sampled else 1)),
        columns=(*labels, "fit", *STEP_NAMES.values(), "posterior", *(["MCSE"] if sampled else [])),
        labels=len(labels),
        rows=tuple(zip(*cells, strict=True)),
        total=len(frame),
    )


def errors(comparison: Comparison) -> Table:
    """Terms of the mean squared error against terms of the posterior variance."""
    mse = comparison.mse.reset_index(drop=True)
    frame = predicted(comparison)
    rank = mse["posterior_variance"] / mse["mse"] - 1
    shown = largest(mse, rank, ROWS)
    names = ["g1", "g2", "g3", "mse", "posterior_g1", "posterior_g2", "posterior_g3", "posterior_variance"]
    frame = frame.iloc[shown.index.to_numpy()]
    places = _places(frame, shown["posterior_variance"], 4)
    cells = _labels_of(frame)
    cells += [column(shown[name], places) for name in names]
    labels = _label_names(comparison)
    return Table(
        caption="Mean squared error of the fit's estimate beside the posterior variance, term by term.",
        groups=(("", len(labels)), (f"fit ({comparison.fit.method.upper()})", 4), ("posterior", 4)),
        columns=(*labels, "g1", "g2", "g3", "MSE", "E[g1|y]", "E[g2|y]", "Var[BLUP|y]", "variance"),
        labels=len(labels),
        rows=tuple(zip(*cells, strict=True)),
        total=len(mse),
    )


def sensitivity(comparison: Comparison) -> Table:
    """Main quantities under each prior, "mean (sd)", variances first, and how far the predicted means move at most."""
    frame = comparison.sensitivity
    main = frame[frame["part"].isin(["variance", "fixed"])]
    order = main.assign(rank=(main["part"] == "fixed").astype(int)).sort_values("rank", kind="stable")
    names = list(dict.fromkeys(zip(order["part"], order["label"], strict=True)))
    kept = names[:QUANTITIES]
    rows: list[tuple[str, ...]] = []
    for prior, block in frame.groupby("prior", sort=False):
        if block["reason"].iloc[0]:
            rows.append((str(prior), str(block["reason"].iloc[0])))
            continue
        at = block.set_index(["part", "label"])
        rows.append((str(prior), *(_mean_sd(at, name) for name in kept), number(_farthest(frame, block), 2)))
    return Table(
        caption="Main quantities under other priors, mean and, in brackets, sd; the fit on top.",
        groups=(),
        columns=("prior", *(_breakable(label) for _, label in kept), "largest move of a predicted mean, in sds"),
        labels=1,
        rows=tuple(rows),
        total=len(rows),
    )


def sensitivity_left_out(comparison: Comparison) -> int:
    """How many fixed effects and variance components the sensitivity table has no column for."""
    main = comparison.sensitivity[comparison.sensitivity["part"].isin(["variance", "fixed"])]
    return max(0, len(set(zip(main["part"], main["label"], strict=True))) - QUANTITIES)


def _breakable(label: str) -> str:
    """The label with places where a narrow heading may break."""
    return label.replace(":", ":\u200b")


def _mean_sd(at: pd.DataFrame, name: tuple[str, str]) -> str:
    if name not in at.index:
        return number(None)
    row = at.loc[[name]].iloc[0]
    if pd.isna(row["se"]):
        return f"{number(row['estimate'])} ({number(None)})"
    mean, sd = column([row["estimate"], row["se"]], decimals(row["se"]))
    return f"{mean} ({sd})"


def _farthest(frame: pd.DataFrame, block: pd.DataFrame) -> float:
    """Largest distance of a predicted mean from the posterior as asked for, in its sds."""
    parts = ("area", "random effect")
    asked = frame[(frame["prior"] == "as asked for") & frame["part"].isin(parts)]
    ours = block[block["part"].isin(parts)]
    distance = np.abs(ours["estimate"].to_numpy() - asked["estimate"].to_numpy()) / asked["se"].to_numpy()
    finite = distance[np.isfinite(distance)]
    return float(finite.max()) if finite.size else float("nan")
