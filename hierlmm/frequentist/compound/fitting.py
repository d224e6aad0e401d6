"""Empirical-Bayes methods by name: a compound design and a method in, a fit out.

normal    every estimator of the area-level model ("reml", "ml", "fh", "pr", ...; "moments" is "pr"), the rules of Stein
          for equal variances ("james_stein", "positive_part", "limited_translation"), and "morris"
poisson   "ml" (negative binomial), "moments" (Marshall 1991)
binomial  "ml" (beta-binomial), "moments" (Kleinman 1973)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from numpy.typing import ArrayLike

from hierlmm.design.compound import CompoundDesign, with_observations
from hierlmm.errors import SpecError
from hierlmm.frequentist.area.fitting import FITS
from hierlmm.frequentist.compound.counts import fit_ml, fit_moments
from hierlmm.frequentist.compound.normal import STEIN, fit_as_area, fit_morris, fit_stein, refitted
from hierlmm.frequentist.compound.results import CompoundFit
from hierlmm.spec.compound import CompoundSpec, Family

Fitter = Callable[[CompoundDesign], CompoundFit]

_COUNTS: dict[str, Fitter] = {"ml": fit_ml, "moments": fit_moments}
METHODS: Mapping[Family, Mapping[str, Fitter]] = {
    "normal": {
        **{method: partial(fit_as_area, method=method) for method in FITS},
        "moments": partial(fit_as_area, method="pr"),
        **{method: partial(fit_stein, method=method) for method in STEIN},
        "morris": fit_morris,
    },
    "poisson": _COUNTS,
    "binomial": _COUNTS,
}
DEFAULT: Mapping[Family, str] = {"normal": "reml", "poisson": "ml", "binomial": "ml"}


def check_method(spec: CompoundSpec, method: str | None) -> str:
    """The method, the family's default where it is None. Raises SpecError for one that the family does not have."""
    if method is None:
        return DEFAULT[spec.family]
    known = METHODS[spec.family]
    if method not in known:
        raise SpecError(
            f"The method must be one for {spec.family} sampling; found {method!r}. Use one of: {', '.join(known)}."
        )
    return method


def fit_compound(design: CompoundDesign, method: str | None = None) -> CompoundFit:
    """Estimate the prior by `method`, and every unit's posterior under it.

    Raises SpecError for a method that the sampling does not have, FitError where the estimate does not exist.
    """
    return METHODS[design.spec.family][check_method(design.spec, method)](design)


def refit(fit: CompoundFit, y: ArrayLike) -> CompoundFit:
    """The method of `fit` on other observations of the same units."""
    design = with_observations(fit.design, y)
    return refitted(fit, design) if fit.method in STEIN else fit_compound(design, fit.method)
