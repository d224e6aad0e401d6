"""Whether one fit's residual structure is a special case of another's, and holds random effects of the other's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import Codes, GroupingFactor
from hierlmm.spec import residual as kinds

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

# Each residual structure and those that it is directly a special case of, with the same group and occasions.
WIDER: dict[str, tuple[str, ...]] = {
    "CompoundSymmetry": ("HeterogeneousCompoundSymmetry", "Toeplitz"),
    "HeterogeneousCompoundSymmetry": ("Unstructured",),
    "AR1": ("HeterogeneousAR1", "Toeplitz"),
    "HeterogeneousAR1": ("Antedependence",),
    "Antedependence": ("Unstructured",),
    "Toeplitz": ("Unstructured",),
}
# Those that have a variance for each occasion, so that variances by occasion are a special case of them.
BY_OCCASION = {"HeterogeneousCompoundSymmetry", "HeterogeneousAR1", "Antedependence", "Unstructured"}


@dataclass(frozen=True, slots=True)
class Boundary:
    """What of the larger model's variances vanishes in the smaller one.

    kind  "none": parameters that vanish inside their range; "one": one variance with `covariances` covariances;
          "several": more than one variance
    tested  coefficients by group that vanish, None for all of a group; empty where no names tell
    """

    kind: Literal["none", "one", "several"]
    covariances: int = 0
    tested: tuple[tuple[str, tuple[str, ...] | None], ...] = ()


def residual_nested(small: LMMFit, large: LMMFit) -> Boundary | None:
    """What of the residual structure vanishes in the smaller model; None where it is not a special case."""
    a, b = small.spec.residual, large.spec.residual
    if a == b:
        return Boundary("none")
    if isinstance(a, kinds.ContinuousAR1) and isinstance(b, kinds.ContinuousAR1):
        alike = (a.group, a.time) == (b.group, b.time) and b.nugget
        return Boundary("one") if alike else None
    if isinstance(a, kinds.Independent):
        if isinstance(b, kinds.ContinuousAR1):  # correlation zero is the end of the range of a positive one
            return Boundary("several" if b.nugget else "one")
        return None if isinstance(b, kinds.KnownVariances) else Boundary("none")
    names, wider = _fields(a), _fields(b)
    if isinstance(a, kinds.Stratified):
        return Boundary("none") if type(b).__name__ in BY_OCCASION and wider[-1] == a.by else None
    if names != wider or type(b).__name__ not in _ancestors(type(a).__name__):
        alike = _occasions_nested(a, b) or _times_nested(small, large)
        return Boundary("none") if alike else None
    return Boundary("none")


def absorbed(factor: GroupingFactor, block: tuple[int, ...], small: LMMFit, large: LMMFit) -> bool:
    """Whether the larger model's residual structure holds a block of random effects of the smaller one beside its
    residuals: a random intercept is compound symmetry with a correlation that is not negative."""
    a, b, rows = small.spec.residual, large.spec.residual, large.design.residual
    scaled = small.design.scale is not None or large.design.scale is not None
    if rows is None or scaled or not np.array_equal(factor.codes, rows.codes) or residual_nested(small, large) is None:
        return False
    Z = factor.Z[:, block]
    if isinstance(b, kinds.Unstructured):
        return all(_fixed_by(rows.occasion, column) for column in Z.T)
    if Z.shape[1] != 1 or not (Z == Z[0]).all():
        return False
    plain = isinstance(a, kinds.Independent | kinds.CompoundSymmetry)
    return isinstance(b, kinds.Toeplitz) or (
        plain and isinstance(b, kinds.CompoundSymmetry | kinds.HeterogeneousCompoundSymmetry)
    )


def _times_nested(small: LMMFit, large: LMMFit) -> bool:
    """Correlations by time are a special case of any where the occasion fixes the time."""
    a, b = small.spec.residual, large.spec.residual
    if not isinstance(a, kinds.ContinuousAR1) or not isinstance(b, kinds.Unstructured) or a.group != b.group:
        return False
    times, occasions = small.design.residual, large.design.residual
    return times is not None and occasions is not None and _fixed_by(occasions.occasion, times.place)


def _fixed_by(codes: Codes, values: NDArray[np.float64]) -> bool:
    """Whether rows of the same code have the same value."""
    first = np.zeros(int(codes.max(initial=-1)) + 1)
    first[codes] = values
    return bool((first[codes] == values).all())


def _occasions_nested(a: object, b: object) -> bool:
    """Compound symmetry asks for no occasions: it is a special case of structures of the same group that do."""
    alike = isinstance(a, kinds.CompoundSymmetry) and getattr(b, "group", None) == a.group
    return alike and type(b).__name__ in _ancestors("CompoundSymmetry")


def _fields(kind: object) -> tuple[object, ...]:
    return tuple(getattr(kind, name) for name in ("group", "occasion", "position", "time", "by") if hasattr(kind, name))


def _ancestors(name: str) -> set[str]:
    found = set[str]()
    for wider in WIDER.get(name, ()):
        found |= {wider} | _ancestors(wider)
    return found
