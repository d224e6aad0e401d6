"""A surface with one fixed effect held: X loses the direction of the effect, y what it contributes there.

Both are linear maps of the columns [X, y], so the cross-products of the rows are enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.optimum import Surface
from hierlmm.likelihood.structured import ResidualModel, Weighted

Array = NDArray[np.float64]


def with_effect_held(surface: Surface, a: Array, t: float) -> Surface:
    """The surface with a'beta = t held, a (p,) on the working scale: X loses a direction, y what it contributes."""
    p, size = len(a), float(np.linalg.norm(a))
    Q = np.linalg.qr(np.column_stack([a / size, np.eye(p)]))[0]
    q, N = a / size, Q[:, 1:p]
    turn = np.zeros((p + 1, p))
    turn[:p, : p - 1], turn[:p, -1], turn[p, -1] = N, -q * t / size, 1.0
    if surface.residual is None:
        cp = _turned(surface.cp, turn)
        return Surface(cp, None, surface.parameters, surface.method)
    return Surface.of(_TurnedModel(surface.residual, turn), surface.method)


def _after(R: int, turn: Array) -> Array:
    """The map of all trailing columns: the R effects stay, [X, y] are turned."""
    out = np.zeros((R + len(turn), R + turn.shape[1]))
    out[:R, :R], out[R:, R:] = np.eye(R), turn
    return out


def _turned(cp: CrossProducts, turn: Array) -> CrossProducts:
    """Products of the columns [Z, (X, y) turn]."""
    A = _after(len(cp.rest) - len(turn), turn)
    products: Any = cp  # a dataclass of the caller's; only its arrays are replaced
    lead = cp.lead_rest @ (A if cp.lead_rest.shape[-1] == len(A) else turn)
    out: CrossProducts = replace(products, p=cp.p - 1, lead_rest=lead, rest=A.T @ cp.rest @ A)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _TurnedModel:
    """A residual model with its columns [X, y] turned."""

    model: ResidualModel
    turn: Array

    @property
    def base(self) -> CrossProducts:
        return _turned(self.model.base, self.turn)

    @property
    def size(self) -> int:
        return self.model.size

    @property
    def work(self) -> int:
        return self.model.work

    def start(self) -> Array:
        return self.model.start()

    def at(self, phi: Array) -> Weighted:
        found = self.model.at(phi)
        A = _after(found.rest.shape[-1] - len(self.turn), self.turn)
        return Weighted(
            _turned(found.cp, self.turn), found.lead, found.lead_rest @ A, A.T @ found.rest @ A, found.log_det,
            lambda b, trailing: found.gram(b, A @ trailing),
        )  # fmt: skip


def working_effect(cp: CrossProducts, direction: Array) -> tuple[Array, float]:
    """A fixed effect a'beta as a_work'beta_work + shift."""
    return np.asarray(cp.X_map.T @ direction), float(direction @ cp.X_shift)
