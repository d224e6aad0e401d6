"""Estimates of the mean squared errors of the areas of a fit, with what they are and how far they can be trusted."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.frequentist.area.tables import quantile

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]

WIDTH = 80
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AreaMSE:
    """Mean squared errors of M area estimates, units of y squared, in the order of `areas`.

    kind         what was asked for; convention the formula in words, with its source
    information  the variance of Â that g3 is made from, or that none is
    method       how A was estimated
    estimate     (M,) the estimates whose errors these are
    mse          (M,) to report; unbiased (M,) before it was made positive, the same where that was not needed
    mcse         (M,) Monte Carlo standard error of mse, 0 where nothing is simulated
    requested, replicates, failed  resampling: asked for, used, and left out because A could not be estimated
    seed         that every replicate follows from; -1 where nothing is simulated
    interrupted  whether the resampling was stopped before all were done
    notes        what a reader should know
    """

    kind: str
    convention: str
    information: str
    method: str
    areas: pd.Index
    estimate: Vector
    mse: Vector
    unbiased: Vector
    mcse: Vector
    requested: int = 0
    replicates: int = 0
    failed: int = 0
    seed: int = -1
    interrupted: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("estimate", "mse", "unbiased", "mcse"):
            copy = np.array(getattr(self, name), dtype=np.float64)
            copy.setflags(write=False)
            object.__setattr__(self, name, copy)

    def table(self, level: float = LEVEL) -> pd.DataFrame:
        """One row an area: area, estimate, mse, se, lower, upper (normal, of that level), unbiased, mcse."""
        se = np.sqrt(np.where(self.mse >= 0, self.mse, np.nan))
        reach = quantile(level) * se
        frame = pd.DataFrame(
            {
                "area": self.areas,
                "estimate": self.estimate,
                "mse": self.mse,
                "se": se,
                "lower": self.estimate - reach,
                "upper": self.estimate + reach,
                "unbiased": self.unbiased,
                "mcse": self.mcse,
            }
        )
        frame.attrs.update(kind=self.kind, convention=self.convention, information=self.information)
        return frame

    @property
    def frame(self) -> pd.DataFrame:
        """`table` with 95 % intervals."""
        return self.table()

    def summary(self) -> str:
        """Kind, convention and size of the errors in at most 80 columns, notes last."""
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return self.summary()

    def _lines(self) -> Iterator[str]:
        yield from textwrap.wrap(f"Mean squared errors of {len(self.areas)} areas: {self.convention}", WIDTH)
        yield from textwrap.wrap(f"Variance of the estimated A ({self.method}): {self.information}", WIDTH)
        if self.requested:
            lost = f", {self.failed} without an estimate of A and left out" if self.failed else ""
            ended = " (interrupted)" if self.interrupted else ""
            yield f"{self.replicates} of {self.requested} replicates{ended}{lost}; seed {self.seed}"
        yield f"{'':<26}{'smallest':>12}{'median':>12}{'largest':>12}"
        for name in ("mse", "se", *(["mcse"] if self.requested else [])):
            values = self.frame[name].to_numpy()
            cells = [float(f(values)) for f in (np.nanmin, np.nanmedian, np.nanmax)]
            yield f"{name:<26}" + "".join(f"{cell:>12.5g}" for cell in cells)
        for note in self.notes:
            yield ""
            yield from textwrap.wrap(note, WIDTH)


def negative_note(fit: AreaFit, unbiased: Vector) -> tuple[str, ...]:
    """Where an estimate that is unbiased to second order falls below 0, and what is done about it."""
    below = unbiased < 0
    if not below.any():
        return ()
    return (
        f"`unbiased` is below 0 in {below.sum()} of {below.size} areas; `mse` is leading exp(−correction/leading) in "
        "place of leading − correction wherever the correction takes away.",
    )
