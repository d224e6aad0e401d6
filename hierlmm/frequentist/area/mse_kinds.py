"""`AreaFit.mean_squared_error`: every estimate of the mean squared errors of a fit by its name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

from hierlmm.errors import FitError
from hierlmm.frequentist.area.mse import PRINTED, Information
from hierlmm.frequentist.area.mse_analytic import area_specific, held, non_normal, second_order
from hierlmm.frequentist.area.mse_bootstrap import MEASURES, bootstrap_mse
from hierlmm.frequentist.area.mse_jackknife import jackknife_mse
from hierlmm.frequentist.area.mse_results import AreaMSE

if TYPE_CHECKING:
    import numpy as np

    from hierlmm.frequentist.area.results import AreaFit
    from hierlmm.frequentist.bootstrap.progress import Progress

Kind = Literal[
    "default",
    "second_order",
    "area_specific",
    "area_specific_double",
    "non_normal",
    "jackknife",
    "bootstrap",
    "bootstrap_naive",
    "double_bootstrap",
    "sumca",
]
# Replicates where none are asked for: the Monte Carlo standard error is then about 4 % of what is simulated, which is
# the smaller part of a mean squared error.
REPLICATES = 1000
ON_MODEL_SCALE = (
    "Estimates and errors are on the scale of the model; fit.areas and fit.back_transformed(...) have those of the "
    "scale of the data."
)


def mean_squared_error(
    fit: AreaFit,
    kind: Kind,
    replicates: int | None,
    seed: int | np.random.Generator | None,
    inner: int,
    information: Information | None,
    progress: Progress,
) -> AreaMSE:
    """See `AreaFit.mean_squared_error`."""
    return on_model_scale(fit, _found(fit, kind, replicates, seed, inner, information, progress))


def on_model_scale(fit: AreaFit, found: AreaMSE) -> AreaMSE:
    """The result, with a note where the scale of the model is not that of the data."""
    return found if fit.spec.transformation is None else replace(found, notes=(*found.notes, ON_MODEL_SCALE))


def _found(
    fit: AreaFit,
    kind: Kind,
    replicates: int | None,
    seed: int | np.random.Generator | None,
    inner: int,
    information: Information | None,
    progress: Progress,
) -> AreaMSE:
    if kind not in get_args(Kind):
        raise FitError(f"`kind` is one of {', '.join(get_args(Kind))}; found {kind!r}. Use one of these.")
    if information is not None and information not in PRINTED:
        raise FitError(f"`information` is 'sum' or 'trace'; found {information!r}. Use one of these.")
    which: Information = information or fit.information
    if kind != "default" and (fit.design.covariance is not None or fit.design.proximity is not None):
        raise FitError(
            f"kind={kind!r} is of a model with independent area effects and sampling errors; this fit has a matrix for "
            'one of them. Use kind="default", the errors that it holds.'
        )
    if inner != 1 and kind != "double_bootstrap":
        raise FitError(f'`inner` goes with kind="double_bootstrap" alone; found {inner!r} and {kind!r}. Leave it out.')
    if kind in MEASURES:
        if seed is None:
            raise FitError(
                f"kind={kind!r} draws replicates, and each follows from a seed; found none. Give one, as seed=1."
            )
        return bootstrap_mse(fit, kind, REPLICATES if replicates is None else replicates, seed, inner, progress)
    if replicates is not None or seed is not None:
        raise FitError(f"kind={kind!r} draws no replicates; found replicates or a seed. Leave them out.")
    if kind == "jackknife":
        return jackknife_mse(fit, progress)
    if kind in ("area_specific", "area_specific_double"):
        return area_specific(fit, which, double=kind == "area_specific_double")
    return {"default": held, "second_order": second_order, "non_normal": non_normal}[kind](fit, which)
