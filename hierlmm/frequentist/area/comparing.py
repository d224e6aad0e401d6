"""Area-level fits side by side: criteria from one likelihood of the same direct estimates."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.types import AreaDesign
from hierlmm.errors import ComparisonError, FitError, listed
from hierlmm.frequentist.area.selection import CORRECTED, selection
from hierlmm.frequentist.inference.fixed_distributions import chi2_tail

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Matrix = NDArray[np.float64]

WIDTH = 80
# Share of a column's size below which what is left of it on other columns is rounding.
CONTAINED = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AreaModelComparison:
    """Area-level models in order of their number of parameters.

    table  model, formula, method, n_parameters, loglik (of β and A at the estimates), aic, bic, kic; with replicates
           aicc, aicb1, aicb2, kicc, kicb1, kicb2 (Monte Carlo errors: `_mc`); against, statistic, df, p: the
           likelihood-ratio test against the model before it, for fits by ML with nested covariates
    notes  sentences that a reader of the numbers should know
    """

    table: pd.DataFrame
    m: int
    replicates: int
    notes: tuple[str, ...]

    @property
    def best(self) -> pd.DataFrame:
        """criterion, model: the model that each criterion puts first."""
        known = ["aic", "bic", "kic", *(name.lower() for name in CORRECTED)]
        names = [name for name in known if name in self.table]
        first = [self.table["model"].iloc[int(np.argmin(self.table[name].to_numpy()))] for name in names]
        return pd.DataFrame({"criterion": names, "model": first})

    def __str__(self) -> str:
        rows = self.table.to_dict("records")
        lines = [f"Comparison of area-level models, {self.m} areas, likelihood of coefficients and A", ""]
        for row in rows:
            lines += textwrap.wrap(
                f"{row['model']}: {row['formula']}, {row['method']}", WIDTH, subsequent_indent="    "
            )  # fmt: skip
        lines += ["", f"{'':<16}{'npar':>5}{'logLik':>11}{'AIC':>11}{'BIC':>11}{'KIC':>11}"]
        for row in rows:
            criteria = "".join(f"{row[name]:11.4f}" for name in ("loglik", "aic", "bic", "kic"))
            lines.append(f"{row['model']:<16.16}{row['n_parameters']:5d}{criteria}")
        if self.replicates:
            lines += ["", f"{'':<16}" + "".join(f"{name:>10}" for name in CORRECTED)]
            for row in rows:
                lines.append(f"{row['model']:<16.16}" + "".join(f"{row[name.lower()]:10.3f}" for name in CORRECTED))
                errors = "".join(f"{row[f'{name.lower()}_mc']:10.3f}" for name in CORRECTED)
                lines.append(f"{'  MC error':<16}" + errors)
        for row in rows:
            if not np.isnan(row["statistic"]):
                text = f"chi²({row['df']:.0f}) = {row['statistic']:.4g}, p = {row['p']:.4g}"
                lines += ["", *textwrap.wrap(f"{row['model']} against {row['against']}: {text}", WIDTH)]
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, WIDTH)]
        return "\n".join(lines)

    __repr__ = __str__


def compare_area_models(
    fits: Sequence[AreaFit],
    names: Sequence[str] | None,
    replicates: int,
    seed: int | np.random.Generator | None,
) -> AreaModelComparison:
    """Criteria of area-level fits of the same direct estimates and variances.

    Raises ComparisonError naming the areas where these differ; otherwise as `selection`.
    """
    if isinstance(seed, np.random.Generator):
        raise FitError("Models are compared on the same random numbers; found a Generator. Give a whole number.")
    order = sorted(range(len(fits)), key=lambda i: fits[i].n_parameters)
    ordered = [fits[i] for i in order]
    labels = [names[i] for i in order] if names is not None else [f"model {i + 1}" for i in range(len(fits))]
    check_same_areas([fit.design for fit in ordered], labels)
    rows = []
    for k, (fit, label) in enumerate(zip(ordered, labels, strict=True)):
        row: dict[str, object] = {
            "model": label, "formula": fit.spec.formula, "method": fit.method, "n_parameters": fit.n_parameters,
            "loglik": fit.marginal_loglik,
        }  # fmt: skip
        found = selection(fit, replicates, seed)
        for name, value in found.values.items():
            row[name.lower()] = value
            if name in CORRECTED:
                row[f"{name.lower()}_mc"] = found.errors[name]
        rows.append(row | (_test(ordered[k - 1], fit, labels[k - 1]) if k else _NO_TEST))
    m = int(ordered[0].design.sampled.sum())
    return AreaModelComparison(
        table=pd.DataFrame(rows), m=m, replicates=replicates, notes=tuple(_notes(ordered, labels))
    )


_NO_TEST: dict[str, object] = {"against": "", "statistic": np.nan, "df": np.nan, "p": np.nan}


def _test(small: AreaFit, large: AreaFit, against: str) -> dict[str, object]:
    """The likelihood-ratio test of coefficients, where both fits are by ML and the covariates nested."""
    df = large.n_parameters - small.n_parameters
    if small.method != "ml" or large.method != "ml" or df == 0 or not _nested(small, large):
        return _NO_TEST
    statistic = max(0.0, 2 * (large.marginal_loglik - small.marginal_loglik))
    return {"against": against, "statistic": statistic, "df": float(df), "p": chi2_tail(statistic, df)}


def _nested(small: AreaFit, large: AreaFit) -> bool:
    """Whether the covariates of the one are combinations of those of the other, with the same offset and effects."""
    same = small.spec.area_effects == large.spec.area_effects
    a, b = small.design, large.design
    b_rows = b.areas[b.sampled].get_indexer(a.areas[a.sampled])
    X, Z = a.X[a.sampled], b.X[b.sampled][b_rows]
    Q = np.linalg.qr(Z)[0]
    rest = X - Q @ (Q.T @ X)
    inside = np.square(rest).sum(axis=0) <= CONTAINED**2 * np.square(X).sum(axis=0)
    return same and bool(inside.all()) and np.array_equal(a.offset[a.sampled], b.offset[b.sampled][b_rows])


def check_same_areas(designs: Sequence[AreaDesign], labels: Sequence[str]) -> None:
    """Refuse models of other areas, direct estimates or variances: their likelihoods and scores do not compare."""
    first = designs[0]
    ours = first.areas[first.sampled]
    for design, label in zip(designs[1:], labels[1:], strict=True):
        theirs = design.areas[design.sampled]
        if len(apart := ours.symmetric_difference(theirs)):
            raise ComparisonError(
                f"Models compare on the same areas in the fit; {labels[0]} and {label} differ in {listed(apart)}. "
                "Remove these areas from the data, or fill in the covariates that are missing."
            )
        rows = theirs.get_indexer(ours)
        for what, a, b in (
            ("direct estimates", first.y, design.y), ("sampling variances", first.D, design.D)
        ):  # fmt: skip
            apart = ours[a[first.sampled] != b[design.sampled][rows]]
            if len(apart):
                raise ComparisonError(
                    f"Models compare on the same {what}, on one scale; those of {labels[0]} and {label} differ for "
                    f"{listed(apart)}. Fit both to the same table, with the same transformation."
                )
        if not _same_covariance(first.covariance, design.covariance, first.sampled, design.sampled, rows):
            raise ComparisonError(
                f"Models compare on the same sampling covariances; those of {labels[0]} and {label} differ. Fit both "
                "with the same matrix."
            )


def _same_covariance(
    a: Matrix | None, b: Matrix | None, in_a: NDArray[np.bool_], in_b: NDArray[np.bool_], rows: NDArray[np.intp]
) -> bool:
    if a is None or b is None:
        return a is b
    return bool(np.array_equal(a[in_a][:, in_a], b[in_b][:, in_b][rows][:, rows]))


def _notes(fits: Sequence[AreaFit], labels: Sequence[str]) -> list[str]:
    out = [f"{label} did not converge: do not rely on its row." for fit, label in zip(fits, labels, strict=True)
           if not fit.certificate.converged]  # fmt: skip
    if others := sorted({fit.method for fit in fits} - {"ml"}):
        out.append(
            f"The likelihood is that of coefficients and A together, at the estimates of {listed(others)}, so that "
            "models with other covariates compare; its maximum is at the estimates of ml. No test is made of such fits."
        )
    if zero := [label for fit, label in zip(fits, labels, strict=True) if fit.A_hat == 0]:
        out.append(f"A is estimated as zero by {listed(zero)}; it still counts as a parameter.")
    return out
