"""The table that compares fitted models: likelihoods, criteria, and tests of each model against the one before it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, overload

import numpy as np
import pandas as pd

from hierlmm.errors import ComparisonError
from hierlmm.frequentist.boundary_test import ROUNDING
from hierlmm.frequentist.inference.compare_models_checks import check_comparable, labelled, weights_label
from hierlmm.frequentist.inference.compare_models_nesting import fixed_nested, nesting, same_weights
from hierlmm.frequentist.inference.compare_models_residuals import Boundary
from hierlmm.frequentist.inference.fixed_distributions import chi2_tail
from hierlmm.frequentist.inference.selection import aicc
from hierlmm.spec.residual import Independent

if TYPE_CHECKING:
    from hierlmm.frequentist.area.comparing import AreaModelComparison
    from hierlmm.frequentist.area.results import AreaFit
    from hierlmm.frequentist.lmm_results import LMMFit

WIDTH = 80
# A larger model whose criterion is this much above the smaller one's was not fitted to its optimum.
WORSE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelComparison:
    """Models in order of their number of parameters, each tested against the one before it.

    table   model, formula, residual, weights, n_parameters, aic, aicc, bic (log n, lme4), bic_nlme (log(n - p) under
            REML), loglik, minus2loglik, against, statistic, df, p, p_naive, reference
    p       upper tail of `reference`; p_naive that of chi²(df), the same where no variance is on the boundary
    notes   sentences that a reader of the numbers should know
    """

    table: pd.DataFrame
    method: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        likelihood = "restricted likelihood (REML)" if self.method == "reml" else "likelihood (ML)"
        lines, rows = [f"Comparison of models by {likelihood}", ""], self.table.to_dict("records")
        for row in rows:
            model = f"{row['model']}: {labelled(row['formula'], row['residual'], row['weights'])}"
            lines += textwrap.wrap(model, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
        lines += ["", f"{'':<12}{'npar':>5}{'AIC':>11}{'BIC':>11}{'logLik':>12}{'statistic':>12}{'df':>4}{'p':>13}"]
        for row in rows:
            test = "" if np.isnan(row["statistic"]) else f"{row['statistic']:12.5g}{row['df']:4.0f}{row['p']:13.4g}"
            lines.append(
                f"{row['model']:<12.12}{row['n_parameters']:5d}{row['aic']:11.4f}{row['bic']:11.4f}{row['loglik']:12.4f}{test}"
            )
        lines.append("")
        for row in rows:
            if row["reference"]:
                naive = (
                    ""
                    if row["p"] == row["p_naive"] or np.isnan(row["p"])
                    else f" (naive chi²({row['df']:.0f}): p = {row['p_naive']:.4g})"
                )
                lines += textwrap.wrap(f"{row['model']} against {row['against']}: {row['reference']}{naive}", WIDTH)
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, WIDTH)]
        return "\n".join(lines).rstrip()

    __repr__ = __str__


@overload
def compare_models(
    *fits: LMMFit, names: Sequence[str] | None = None, replicates: int = 0, seed: int | None = None
) -> ModelComparison: ...
@overload
def compare_models(
    *fits: AreaFit, names: Sequence[str] | None = None, replicates: int = 0, seed: int | None = None
) -> AreaModelComparison: ...
def compare_models(
    *fits: LMMFit | AreaFit, names: Sequence[str] | None = None, replicates: int = 0, seed: int | None = None
) -> ModelComparison | AreaModelComparison:
    """Compare fits of the same rows and response: linear mixed models by one method, or area-level models.

    names  one a fit, in the order given; default "model 1", ... in the order of the table
    replicates, seed  of area-level fits: a bootstrap that corrects their criteria, see `area.selection`

    Raises ComparisonError where the likelihoods do not compare: other rows or another response, ML beside REML, REML
    fits whose fixed parts differ. Models that are not nested share the table without a test. Area-level fits share one
    likelihood, that of coefficients and A, whatever their methods; they need the same areas, direct estimates and
    sampling variances.
    """
    from hierlmm.frequentist.area.results import AreaFit

    if names is not None and (len(names) != len(fits) or len(set(names)) < len(names)):
        raise ComparisonError(
            f"There must be one name a model, all different; found {list(names)} for {len(fits)} fits."
        )
    if len(fits) >= 2 and all(isinstance(fit, AreaFit) for fit in fits):
        from hierlmm.frequentist.area.comparing import compare_area_models

        return compare_area_models(cast("tuple[AreaFit, ...]", fits), names, replicates, seed)
    if replicates:
        raise ComparisonError(
            f"Bootstrap corrections of criteria are of area-level models; found replicates={replicates} for "
            f"{', '.join(type(fit).__name__ for fit in fits)}. Leave it out."
        )
    return _compare_mixed(fits, names)


def _compare_mixed(fits: Sequence[object], names: Sequence[str] | None) -> ModelComparison:
    from hierlmm.frequentist.lmm_results import LMMFit

    mixed = [fit for fit in fits if isinstance(fit, LMMFit)]
    if len(fits) < 2 or len(mixed) < len(fits):
        found = ", ".join(type(fit).__name__ for fit in fits) or "nothing"
        raise ComparisonError(
            "Models to compare are two or more fits of linear mixed models, or of area-level models; found "
            f"{found}. Fit each with hl.fit."
        )
    order = sorted(range(len(mixed)), key=lambda i: mixed[i].n_parameters)
    ordered = [mixed[i] for i in order]
    labels = [names[i] for i in order] if names is not None else [f"model {i + 1}" for i in range(len(mixed))]
    check_comparable(ordered, labels)
    rows = [_row(ordered[0], labels[0])]
    for i in range(1, len(ordered)):
        rows.append(_row(ordered[i], labels[i]) | _test(ordered[i - 1], ordered[i], labels[i - 1]))
    return ModelComparison(table=pd.DataFrame(rows), method=ordered[0].method, notes=_notes(ordered, labels))


def _row(fit: LMMFit, label: str) -> dict[str, object]:
    return {
        "model": label, "formula": fit.spec.formula, "residual": type(fit.spec.residual).__name__,
        "weights": weights_label(fit),
        "n_parameters": fit.n_parameters, "aic": fit.aic, "aicc": aicc(fit), "bic": fit.bic, "bic_nlme": fit.bic_nlme,
        "loglik": fit.loglik, "minus2loglik": fit.objective, "against": "", "statistic": np.nan, "df": np.nan,
        "p": np.nan, "p_naive": np.nan, "reference": "",
    }  # fmt: skip


def _test(small: LMMFit, large: LMMFit, against: str) -> dict[str, object]:
    """Columns of the likelihood-ratio test of a model against the one before it."""
    df = large.n_parameters - small.n_parameters
    if df == 0:
        return {"against": against, "reference": "no test: as many parameters. Compare AIC or BIC."}
    boundary = nesting(small, large)
    if boundary is None:
        return {"against": against, "reference": f"no test: {_apart(small, large)}. Compare AIC or BIC."}
    difference = small.objective - large.objective
    statistic = 0.0 if abs(difference) < ROUNDING * max(1.0, abs(large.objective)) else difference
    if statistic < -WORSE:
        return {"against": against, "reference": "no test: the larger model has the smaller likelihood; see the notes."}
    statistic = max(statistic, 0.0)
    naive = chi2_tail(statistic, df)
    p, reference = _reference(statistic, df, boundary, naive)
    if boundary.kind == "several":
        reference += f"; {_simulated(large, boundary)}"
    if small.singular and (boundary.kind != "none" or small.spec.residual != large.spec.residual):
        reference += "; the smaller model is singular itself, where this is an approximation"
    return {
        "against": against, "statistic": statistic, "df": float(df), "p": p, "p_naive": naive, "reference": reference,
    }  # fmt: skip


def _reference(statistic: float, df: int, boundary: Boundary, naive: float) -> tuple[float, str]:
    """p and the name of the distribution it is from."""
    if boundary.kind == "none":
        return naive, f"chi²({df})"
    if boundary.kind == "several":
        return naive, f"chi²({df}), too large a p: several variances are on the boundary under the smaller model"
    low = chi2_tail(statistic, df - 1) if df > 1 else float(statistic <= 0)
    p = 1.0 if statistic <= 0 else 0.5 * (low + naive)
    return p, f"½ chi²({df - 1}) + ½ chi²({df}): a variance is on the boundary"


def _apart(small: LMMFit, large: LMMFit) -> str:
    """Why there is no test: models known not to be nested, or not known to be."""
    if not same_weights(small.design, large.design):
        return "the models are not nested, for their weights or known variances differ"
    if not fixed_nested(small.design, large.design):
        return "the models are not nested"
    return "nesting of the two is not established"


def _simulated(large: LMMFit, boundary: Boundary) -> str:
    """Where the p of the mixture is, or of a simulation."""
    if not boundary.tested or large.design.residual is not None:
        return "hl.bootstrap_lrt(smaller, larger) simulates the right one"
    groups = [group for group, _ in boundary.tested]
    names = boundary.tested[0][1]
    call = repr(groups if len(groups) > 1 else groups[0]) + ("" if names is None else f", {list(names)}")
    return f"test_component({call}) of the larger one has the mixture's p"


def _notes(fits: Sequence[LMMFit], labels: Sequence[str]) -> tuple[str, ...]:
    notes = list[str]()
    for fit, label in zip(fits, labels, strict=True):
        if not fit.certificate.certified:
            notes.append(f"{label} is not certified as converged: do not rely on its row.")
    if fits[0].method == "reml":
        notes.append("Fixed parts are the same, so that REML criteria compare.")
    residuals = {type(fit.spec.residual).__name__ for fit in fits}
    if len(residuals - {Independent.__name__}):
        counts = ", ".join(
            f"{label}: {fit.n_parameters - fit.equations.p}" for fit, label in zip(fits, labels, strict=True)
        )
        notes.append(f"Covariance parameters: {counts}.")
    return tuple(notes)
