"""What a residual structure is: R(phi)/sigma² of groups of rows, its derivatives, and its parameters in natural terms.

Var(e) of a group is sigma² D^(1/2) C D^(1/2), with C a correlation matrix and D^(1/2) the standard deviations relative
to that of the first occasion (or stratum), so that sigma² is the residual variance there. phi is unconstrained: every
phi in R^size gives a positive definite matrix, and phi = 0 gives independence with equal variances in every structure
but `ContinuousAR1`, where independence is a limit.

U patterns of k rows are evaluated at once: `place` (U, k) holds positions or times, `occasion` (U, k) codes into the
sorted occasions or strata. Rows may stand in any order; only differences of places matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Quantity = Literal["variance_ratio", "correlation", "range", "nugget"]
VARIANCE_RATIO: Quantity = "variance_ratio"
CORRELATION: Quantity = "correlation"

# place (N, k), occasion (N, k) and residuals (N, k) of N groups of k rows.
Groups = Sequence[tuple[Array, Codes, Array]]

# A correlation this close to its bound is at it, and a conditional variance this small beside the variance: the search
# goes no farther than 1e-8 (`series.SINGULAR`), as the criterion has no digits beyond.
AT_BOUND = 1e-7
# A standard deviation this many times smaller than another is zero: the search ends at 1e-5 (`series.UNEQUAL`).
AT_ZERO = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Natural:
    """The parameters of a structure as they are read, one row each.

    quantity "variance_ratio": variance at an occasion (or in a stratum) over that at the first; index (occasion,)
             "correlation": index () the one of compound symmetry, (lag,) of serial structures with the lag in steps,
             (i, j) with i < j of two occasions
             "range": the time over which a continuous-time correlation falls to 1/e, in units of time; index ()
             "nugget": the part of the variance that is not serially correlated; index ()
    index    occasions are codes from 0, so the variance ratios start at 1
    values (r,); jacobian (r, size): d values / d phi
    """

    quantity: tuple[Quantity, ...]
    index: tuple[tuple[int, ...], ...]
    values: Array
    jacobian: Array


class Structure(Protocol):
    """A family of residual covariance matrices with unconstrained parameters phi (size,)."""

    @property
    def size(self) -> int:
        """Number of elements of phi; the structure has one covariance parameter more, sigma²."""
        ...

    def relative(self, phi: Array, place: Array, occasion: Codes) -> tuple[Array, Array]:
        """R/sigma² (U, k, k) of U patterns of k rows, and its derivatives (size, U, k, k)."""
        ...

    def natural(self, phi: Array) -> Natural:
        """The parameters as variance ratios, correlations, range and nugget."""
        ...

    def start(self, groups: Groups) -> Array:
        """phi (size,) by moments of ordinary least squares residuals: finite, and well inside the space."""
        ...

    def at_bound(self, phi: Array, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """A sentence for each parameter within rounding of the bound of its space; `labels` name the occasions."""
        ...


def join(*parts: Natural) -> Natural:
    """Rows of several independent parts of phi, in the order of phi."""
    sizes = [part.jacobian.shape[1] for part in parts]
    rows, column = [], 0
    for part, size in zip(parts, sizes, strict=True):
        rows.append(np.pad(part.jacobian, ((0, 0), (column, sum(sizes) - column - size))))
        column += size
    return Natural(
        tuple(q for part in parts for q in part.quantity),
        tuple(i for part in parts for i in part.index),
        np.concatenate([part.values for part in parts]),
        np.concatenate(rows),
    )


def over_occasions(structure: Structure, phi: Array, place: Array) -> tuple[Array, Array]:
    """R/sigma² (T, T) and the correlations (T, T) of a group seen at all T occasions, whose places are `place` (T,)."""
    S = structure.relative(phi, place[None], np.arange(len(place))[None])[0][0]
    sd = np.sqrt(np.diagonal(S))
    return S, S / (sd[:, None] * sd)


def sech2(phi: Array) -> Array:
    """d tanh(phi)/dphi = 1 - tanh², without loss where tanh(phi) is near 1."""
    t = np.exp(-2.0 * np.abs(phi))
    return np.asarray(4.0 * t / (1.0 + t) ** 2)


def correlation_bound(rho: float, what: str) -> tuple[str, ...]:
    """The sentence about a correlation at -1 or 1, if it is there."""
    if 1.0 - abs(rho) >= AT_BOUND:
        return ()
    bound = "1" if rho > 0 else "−1"
    return (f"{what} is at the bound of its space, {bound}: the residuals there determine each other",)


def label(labels: Sequence[str], code: int) -> str:
    """How a sentence names an occasion or stratum: by its label, else by its number from 1."""
    return str(labels[code]) if labels else f"number {code + 1}"
