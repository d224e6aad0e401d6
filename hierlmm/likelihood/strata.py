"""Residual variances that differ between strata of the rows: products by stratum, added with their weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.series import UNEQUAL
from hierlmm.likelihood.structured import Weighted

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class StrataModel:
    """S strata with residual variances sigma² exp(2 phi_s), phi = 0 for the first: S - 1 elements of phi.

    lead (S, G, q, q), lead_rest (S, G, q, m), rest (S, m, m): the products of each stratum's rows, whatever the number
    of rows; count (S,) rows of each; ols (S,) mean squared ordinary least squares residual of each
    """

    base: CrossProducts
    lead: Array
    lead_rest: Array
    rest: Array
    count: Array
    ols: Array

    @property
    def size(self) -> int:
        return len(self.count) - 1

    @property
    def work(self) -> int:
        """Numbers touched by one evaluation."""
        return self.lead.size + self.lead_rest.size + self.rest.size

    def start(self) -> Array:
        """Log ratios of the ordinary least squares residuals, within a factor of e³ of one another."""
        safe = np.maximum(self.ols, 1e-12 * self.ols.max(initial=1e-300))
        return np.asarray(np.clip(0.5 * np.log(safe[1:] / safe[0]), -3.0, 3.0))

    def at(self, phi: Array) -> Weighted:
        """The weighted products at phi and their derivatives; nan where variances are too unequal for doubles."""
        weights = np.exp(-2 * np.concatenate([[0.0], phi]))
        if weights.min() < UNEQUAL * weights.max():
            weights = np.full_like(weights, np.nan)
        lead, lead_rest, rest = (np.tensordot(weights, part, axes=1) for part in (self.lead, self.lead_rest, self.rest))
        products: Any = self.base  # a dataclass of the caller's; only its arrays are replaced
        log_det = 2 * float(self.count[1:] @ phi)
        cp = replace(products, lead=lead, lead_rest=lead_rest, rest=rest, log_scale=self.base.log_scale + log_det)
        slope = -2 * weights[1:]

        def gram(b: Array, trailing: Array) -> Array:
            inner = self.lead_rest[1:] @ trailing
            squares = (
                np.einsum("ga,sgab,gb->s", b, self.lead[1:], b)
                - 2 * (inner * b).sum(axis=(1, 2))
                + (self.rest[1:] @ trailing) @ trailing
            )
            return np.diag(4 * weights[1:] * squares)

        return Weighted(
            cp,
            slope[:, None, None, None] * self.lead[1:],
            slope[:, None, None, None] * self.lead_rest[1:],
            slope[:, None, None] * self.rest[1:],
            2.0 * self.count[1:],
            gram,
        )
