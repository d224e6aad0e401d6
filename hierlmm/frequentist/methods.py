"""`fit`: one table from the family and the name of the method to the function that computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import overload

from hierlmm.design import build
from hierlmm.design.compound import build_compound
from hierlmm.design.stream import build_streamed, is_stream
from hierlmm.design.types import AreaDesign, LMMDesign
from hierlmm.errors import SpecError
from hierlmm.frequentist import lmm
from hierlmm.frequentist.area import fitting as area
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.area.spatial import METHODS as SPATIAL_METHODS
from hierlmm.frequentist.compound import fitting as compound
from hierlmm.frequentist.compound.results import CompoundFit
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.frequentist.moments import fitting
from hierlmm.frequentist.moments.results import MomentsFit
from hierlmm.spec.areaeffects import SAR
from hierlmm.spec.compound import CompoundSpec
from hierlmm.spec.model import ModelSpec

LMM_METHODS: dict[str, Callable[[LMMDesign], LMMFit]] = {"reml": lmm.fit_reml, "ml": lmm.fit_ml}
MOMENT_METHODS = fitting.METHODS
AREA_METHODS = area.FITS


@overload
def fit(
    spec: ModelSpec, data: object, method: str | None = None, *, matrices: Mapping[str, object] | None = None
) -> LMMFit | AreaFit | MomentsFit: ...
@overload
def fit(
    spec: CompoundSpec, data: object, method: str | None = None, *, matrices: Mapping[str, object] | None = None
) -> CompoundFit: ...
def fit(
    spec: ModelSpec | CompoundSpec,
    data: object,
    method: str | None = None,
    *,
    matrices: Mapping[str, object] | None = None,
) -> LMMFit | AreaFit | MomentsFit | CompoundFit:
    """Fit `spec` to `data` by the estimator `method` names.

    data  a pandas, polars or pyarrow table; or, for a linear mixed model, rows that pass once and are not kept: the
          path of a Parquet file or folder, an iterator of tables, an Arrow stream, or `Moments`

    method  None: "reml", for counts of a compound model "ml". Of a linear mixed model: "reml", "ml", or a method of
            moments: "anova" (in unbalanced data Henderson's third method), "henderson1", "henderson2", "henderson3"
            (sums of squares in formula order), "henderson3_partial" (each after all others), "mivque0", "minque" or
            "minque_iterated". Of the Fay-Herriot model: "reml", "ml", moments "fh" (Fay and Herriot) or "pr" (Prasad
            and Rao), or what is positive whatever the data: "amrl_ll", "ampl_ll" (Li and Lahiri), "amrl_yl", "ampl_yl"
            (Yoshimori and Lahiri; rl times the restricted, pl times the profile likelihood) and "mix" (Rubin-Bleuer
            and You); with spatial area effects "reml" and "ml". Of a compound model with normal sampling: these,
            "james_stein", "positive_part", "limited_translation" and "morris"; with counts "ml" and "moments"

    matrices  the matrices that an area-level spec names, by name, as in {"W": table}: square tables with the labels of
              the areas on rows and columns, in any order; a sampling covariance matrix may be a sequence of blocks

    Returns LMMFit for a linear mixed model, MomentsFit for a method of moments, AreaFit for the Fay-Herriot model,
    CompoundFit for a compound model.
    Raises SpecError for an unknown method, DesignError where the data cannot support the model or the method, FitError
    where the estimate does not exist.
    """
    if isinstance(spec, CompoundSpec):
        return _fit_compound(spec, data, method, matrices)
    method = "reml" if method is None else method
    if isinstance(spec, ModelSpec):  # before the data are read; `build` refuses anything else
        check_method(spec, method)
        if is_stream(data):
            return _fit_design(build_streamed(spec, data), method)
    return _fit_design(build(spec, data, matrices), method)


def _fit_compound(
    spec: CompoundSpec, data: object, method: str | None, matrices: Mapping[str, object] | None
) -> CompoundFit:
    if matrices:
        raise SpecError(f"A compound model reads its data from the table alone; found matrices {', '.join(matrices)}.")
    chosen = compound.check_method(spec, method)
    return compound.fit_compound(build_compound(spec, data), chosen)


def _fit_design(design: LMMDesign | AreaDesign, method: str) -> LMMFit | AreaFit | MomentsFit:
    if isinstance(design, LMMDesign) and method in MOMENT_METHODS:
        return MOMENT_METHODS[method](design)
    return fit_design(design, method)


def fit_design(design: LMMDesign | AreaDesign, method: str) -> LMMFit | AreaFit:
    """Fit by likelihood, or an area-level model, a design that has been built: several methods on the same data."""
    if isinstance(design, AreaDesign):
        # the conventions of the published formulas: g3 by 2/Σ V⁻², of spatial effects by tr(P V_k P V_l)
        return AREA_METHODS[method](design, "sum" if design.proximity is None else "trace")
    return LMM_METHODS[method](design)


def check_method(spec: ModelSpec, method: str) -> None:
    """Raise SpecError where `method` is not an estimator of the family of `spec`."""
    known, family = (*LMM_METHODS, *MOMENT_METHODS), "linear mixed model"
    if spec.is_area_level:
        known, family = tuple(AREA_METHODS), "Fay-Herriot model"
    if isinstance(spec.area_effects, SAR):
        known, family = SPATIAL_METHODS, "Fay-Herriot model with spatial effects"
    if method not in known:
        raise SpecError(
            f"The method must be an estimator of the {family}; found {method!r}. Use one of: {', '.join(known)}."
        )
