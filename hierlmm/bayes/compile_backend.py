"""PyMC and PyTensor, loaded when first asked for, and the linear changes of coordinates our models sample in."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Backend:
    """`pm` is pymc, `pt` is pytensor.tensor, `Linear` and `Elementwise` our transforms (classes)."""

    pm: Any
    pt: Any
    Linear: Any
    Elementwise: Any


@cache
def backend() -> Backend:
    """Load PyMC once.

    PyTensor warns at its first compilation that no BLAS is linked, which holds of every installation by pip and
    says nothing about our models; it is asked for here, where the warning can be dropped, so that a session that
    turns warnings into errors still works.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pymc as pm
        import pytensor
        import pytensor.tensor as pt

        _ = pytensor.config.blas__ldflags  # type: ignore[attr-defined]
    logging.getLogger("pytensor.tensor.blas").setLevel(logging.ERROR)
    return Backend(pm, pt, *_transforms(pt))


def _transforms(pt: Any) -> tuple[Any, Any]:
    from pymc.logprob.transforms import Transform

    class Linear(Transform):  # type: ignore[misc]
        """x = B w + shift for the last axis of x; B (k, k) invertible, shift broadcast against x.

        The Jacobian is constant, so that the density in x is untouched: only the sampler sees w.
        """

        name = "linear"
        ndim_supp = 1

        def __init__(self, B: Array, shift: Array) -> None:
            self.B = np.asarray(B, dtype=np.float64)
            self.shift = np.asarray(shift, dtype=np.float64)
            self.inverse = np.linalg.solve(self.B, np.eye(len(self.B)))
            self.log_det = float(np.linalg.slogdet(self.B)[1])

        def forward(self, value: Any, *inputs: Any) -> Any:
            return pt.dot(value - self.shift, self.inverse.T)

        def backward(self, value: Any, *inputs: Any) -> Any:
            return pt.dot(value, self.B.T) + self.shift

        def log_jac_det(self, value: Any, *inputs: Any) -> Any:
            return pt.full(value.shape[:-1], np.float64(self.log_det))

    class Elementwise(Transform):  # type: ignore[misc]
        """x = scale * w + shift, element by element; scale > 0 and shift broadcast against x."""

        name = "scaled"
        ndim_supp = 0

        def __init__(self, scale: Array, shift: Array) -> None:
            self.scale = np.asarray(scale, dtype=np.float64)
            self.shift = np.asarray(shift, dtype=np.float64)

        def forward(self, value: Any, *inputs: Any) -> Any:
            return (value - self.shift) / self.scale

        def backward(self, value: Any, *inputs: Any) -> Any:
            return value * self.scale + self.shift

        def log_jac_det(self, value: Any, *inputs: Any) -> Any:
            return pt.zeros_like(value) + np.log(self.scale)

    return Linear, Elementwise
