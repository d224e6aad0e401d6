"""Against which distribution a statistic of the fixed effects is held: covariance, degrees of freedom, scale of F."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError, SpecError
from hierlmm.frequentist.inference.kenward_roger import kenward_roger
from hierlmm.frequentist.inference.satterthwaite import satterthwaite

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
Freedom = Literal["satterthwaite", "kenward-roger", "normal", "residual"]

NAMES: dict[Freedom, str] = {
    "satterthwaite": "Satterthwaite",
    "kenward-roger": "Kenward-Roger",
    "normal": "normal (Wald z, chi-square)",
    "residual": "residual (n - p)",
}


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """How the fixed effects are tested.

    kind        as the user names it
    covariance  (p, p) of beta, adjusted under Kenward-Roger
    joint       of contrasts L (q, p) of full rank: denominator degrees of freedom and scale of F
    notes       sentences that a reader of the numbers should know
    """

    kind: Freedom
    covariance: Array
    joint: Callable[[Array], tuple[float, float]]
    notes: tuple[str, ...]


def reference(fit: LMMFit, kind: Freedom) -> Reference:
    """The reference of a fit. Raises SpecError for an unknown kind, FitError where the fit has no standard errors."""
    if kind not in get_args(Freedom):
        raise SpecError(
            f"Degrees of freedom must be of a known kind; found df={kind!r}. "
            f"Use one of: {', '.join(get_args(Freedom))}."
        )
    if fit.at is None:
        raise FitError(
            "Tests of fixed effects need a residual variance that the data determine; in this fit it is zero. "
            "Leave out effects until the response is not reproduced exactly."
        )
    if not len(fit.beta):
        raise FitError("Tests of fixed effects need fixed effects; this model has none. Add a term to the formula.")
    if kind == "kenward-roger":
        found = kenward_roger(fit)
        return Reference(kind, found.adjusted, found.joint, _boundary_note(fit))
    if kind == "satterthwaite":
        own = satterthwaite(fit)
        held = f"On the boundary: {', '.join(own.held)} held singular in the degrees of freedom." if own.held else ""
        return Reference(kind, own.C, lambda L: (own.joint_df(L), 1.0), (held,) if held else ())
    df = float(fit.equations.n - fit.equations.p) if kind == "residual" else np.inf
    return Reference(kind, fit.vcov_beta, lambda L: (df, 1.0), ())


def _boundary_note(fit: LMMFit) -> tuple[str, ...]:
    """All parameters count, which is what pbkrtest does too."""
    if not fit.singular:
        return ()
    return ("The fit lies on the boundary: Kenward-Roger counts all its variance parameters as free there.",)
