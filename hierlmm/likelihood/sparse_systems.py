"""What a system of random effects offers to the factor that is eliminated before it.

With S = Z'V⁻¹Z of the effects (V without them) and their T = Lambda Lambda', everything that a fit needs comes from
D = (S + T⁻¹)⁻¹ = Lambda (Lambda'S Lambda + I)⁻¹ Lambda', which exists at a singular T too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Sizes = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Inverse:
    """What the gradient and the prediction errors need of D.

    values (length,) D at the places of the system; blocks per factor (levels, q, q) its diagonal blocks; grams per
    factor (q, q) the sum over levels of the diagonal blocks of S - S D S.
    """

    values: Array
    blocks: tuple[Array, ...]
    grams: tuple[Array, ...]


class System(Protocol):
    """S and T of all effects of some factors, factorised; R effects in order.

    log_det that of Lambda'S Lambda + I; solve D B and quadratic B'D B for (R, k) B; inverse D itself, asked for once.
    """

    @property
    def log_det(self) -> float: ...
    def solve(self, B: Array) -> Array: ...
    def quadratic(self, B: Array) -> Array: ...
    def inverse(self) -> Inverse: ...


class Places(Protocol):
    """Where the products of two of these effects are kept in a vector of `length`.

    `position` of pairs i >= j; `diagonal` the places of the products of each effect with itself; `raw` all of them
    from the (R, R) matrix of products, `system` what they stand for at the factors Lambda.
    """

    @property
    def columns(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def diagonal(self) -> Codes | slice: ...
    def position(self, i: Codes, j: Codes) -> Codes: ...
    def raw(self, rest: Array) -> Array: ...
    def system(self, values: Array, factors: Sequence[Array]) -> System: ...
