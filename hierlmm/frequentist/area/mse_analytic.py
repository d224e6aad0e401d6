"""Mean squared errors in closed form: those a fit holds, area-specific ones, and those for effects that are not normal.

    second_order      g1 + g2 + 2 g3 − b(1−γ)², as `AreaFit.mse_unbiased`, with either information
    area_specific     g1 + g2 + g3 + g3* − b(1−γ)², g3* = g3 with (y − x'β̂)² in the place of V: what estimating A adds
                      given the area's own data (Rao and Molina 2015, Small Area Estimation, 2nd ed., sec. 6.2)
    area_specific_double   g1 + g2 + 2 g3* − b(1−γ)², the other version there, which varies more
    non_normal        second order, with an estimated fourth cumulant of the area effects: see
                      `likelihood.area.errors_kurtosis`

Each has the same mean to second order as the second-order formula where the effects are normal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.area.mse import Information, expansion_fails, half_of, printed, variance_and_bias
from hierlmm.frequentist.area.mse_results import AreaMSE, negative_note
from hierlmm.likelihood.area.errors import ErrorTerms, error_terms, positive
from hierlmm.likelihood.area.errors_kurtosis import fourth_cumulant, kurtosis_terms

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]

OUTSIDE = (
    "An expansion around Â says nothing here (Â is at the boundary, or the formula is negative somewhere): use "
    'kind="default", which holds.'
)


def held(fit: AreaFit, information: Information) -> AreaMSE:
    """The mean squared errors that the fit itself reports."""
    if information != fit.information:
        from hierlmm.frequentist.area.fitting import FITS

        fit = FITS[fit.method](fit.design, information)
    behind = "not used" if expansion_fails(fit.certificate, fit.mse_unbiased) else printed(fit.method, information)
    return _result(fit, "default", fit.mse_kind, behind, fit.mse_unbiased, fit.mse, ())


def second_order(fit: AreaFit, information: Information) -> AreaMSE:
    """The second-order formula as it is, negative where it is."""
    terms, _ = _terms(fit, information)
    notes = _outside(fit)
    if (below := terms.unbiased < 0).any():
        notes += (f'The formula is below 0 in {below.sum()} areas: kind="default" is positive by construction.',)
    convention = "second order: g1 + g2 + 2 g3 − b(1−γ)², b the bias of Â"
    return _result(
        fit, "second_order", convention, printed(fit.method, information), terms.unbiased, terms.unbiased, notes
    )


def area_specific(fit: AreaFit, information: Information, double: bool) -> AreaMSE:
    """Rao's area-specific versions; `double` takes g3* twice in the place of g3 + g3*."""
    terms, bias = _terms(fit, information)
    design = fit.design
    known = design.sampled
    V = np.where(known, fit.A_hat + design.D, 1.0)
    own = np.where(known, terms.g3 * np.square(np.where(known, fit.residual, 0.0)) / V, 0.0)
    leading = terms.g1 + terms.g2 + (2 * own if double else terms.g3 + own)
    correction = bias * np.square(terms.shrinkage)
    formula = "g1 + g2 + 2 g3*" if double else "g1 + g2 + g3 + g3*"
    convention = f"area-specific (Rao): {formula} − b(1−γ)², g3* = g3 (y − x'β̂)²/V; b the bias of Â" + (
        ", positive by construction" if (correction > 0).any() else ""
    )
    unbiased, mse = leading - correction, positive(leading, correction)
    notes = (*_outside(fit), *negative_note(fit, unbiased))
    kind = "area_specific_double" if double else "area_specific"
    return _result(fit, kind, convention, printed(fit.method, information), unbiased, mse, notes)


def non_normal(fit: AreaFit, information: Information) -> AreaMSE:
    """Second order for area effects with the fourth cumulant that the residuals show, positive by construction."""
    terms, bias = _terms(fit, information)
    design = fit.design
    into = design.sampled
    D = design.D[into]
    kappa = fourth_cumulant(fit.A_hat, fit.residual[into], fit.residual_variance[into], D)
    added, elsewhere = kurtosis_terms(fit.method, fit.A_hat, D, kappa)
    change = np.where(design.role == "unsampled", elsewhere, 0.0)
    change[into] = added
    leading = terms.g1 + terms.g2 + 2 * terms.g3
    correction = bias * np.square(terms.shrinkage) - change
    unbiased = leading - correction
    ratio = f"{kappa / fit.A_hat**2:.3g}" if fit.A_hat > 0 else "undefined"
    notes = (
        f"Fourth cumulant of the area effects {kappa:.4g} (excess kurtosis {ratio}; 0 where they are normal, −2 at "
        "least), from the fourth powers of the residuals: with few areas a rough estimate.",
        *_outside(fit),
        *negative_note(fit, unbiased),
    )
    convention = (
        "second order for area effects that need not be normal, with their estimated kurtosis (Lahiri and Rao 1995), "
        "positive by construction; sampling errors are normal"
    )
    mse = positive(leading, correction)
    return _result(fit, "non_normal", convention, printed(fit.method, information), unbiased, mse, notes)


def _terms(fit: AreaFit, information: Information) -> tuple[ErrorTerms, float]:
    """The terms with the variance of Â of that information, and the bias of Â."""
    design, half = fit.design, half_of(fit)
    into = design.sampled
    of_A = variance_and_bias(fit.method, fit.certificate, design.D[into], half[into], information)
    reach = np.where(design.role == "unsampled", np.inf, design.D)
    return error_terms(fit.A_hat, of_A, reach, half), of_A.bias


def _outside(fit: AreaFit) -> tuple[str, ...]:
    return (OUTSIDE,) if expansion_fails(fit.certificate, fit.mse_unbiased) else ()


def _result(
    fit: AreaFit, kind: str, convention: str, behind: str, unbiased: Vector, mse: Vector, notes: tuple[str, ...]
) -> AreaMSE:
    return AreaMSE(
        kind=kind,
        convention=convention,
        information=behind,
        method=fit.method,
        areas=fit.design.areas,
        estimate=fit.eblup,
        mse=mse,
        unbiased=unbiased,
        mcse=np.zeros(len(mse)),
        notes=notes,
    )
