"""Pairs with means of their own: maximum likelihood of the variance is wrong by half, however many the pairs.

y_i1, y_i2 ~ N(mu_i, sigma²), i = 1 ... m. With z_i = y_i1 - y_i2 ~ N(0, 2 sigma²), the maximum likelihood estimate is
sum z² / (4 m), which tends to sigma² / 2; the restricted one sum z² / (2 m), which tends to sigma². Neyman & Scott
(1948, Econometrica 16:1-32).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError
from hierlmm.frequentist.bootstrap.arguments import finite, generator_of, whole

Array = NDArray[np.float64]

# Numbers of pairs in the frame between 1 and m.
POINTS = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NeymanScott:
    """Both estimates from m pairs, and along the way there.

    pairs   (m, 2) the data; sigma the standard deviation they were drawn with
    path    pairs, ml, reml, ml_limit = sigma² / 2, reml_limit = sigma², reml_se = sigma² sqrt(2 / pairs): estimates
            from the first pairs
    """

    pairs: Array
    sigma: float
    path: pd.DataFrame

    @property
    def ml(self) -> float:
        """Maximum likelihood estimate of sigma² from all pairs."""
        return float(self.path["ml"].iloc[-1])

    @property
    def reml(self) -> float:
        """Restricted maximum likelihood estimate of sigma² from all pairs."""
        return float(self.path["reml"].iloc[-1])

    @property
    def table(self) -> pd.DataFrame:
        """The data as a table for y ~ 0 + pair: columns y and pair, of text."""
        m = len(self.pairs)
        return pd.DataFrame({"y": self.pairs.ravel(), "pair": [f"p{i}" for i in np.repeat(np.arange(m), 2)]})

    def __repr__(self) -> str:
        last = self.path.iloc[-1]
        return (
            f"{len(self.pairs)} pairs with means of their own, sigma² = {self.sigma**2:.6g}\n"
            f"  maximum likelihood             {last.ml:12.6g}   tends to sigma²/2 = {last.ml_limit:.6g}\n"
            f"  restricted maximum likelihood  {last.reml:12.6g}   tends to sigma²   = {last.reml_limit:.6g}"
        )


def neyman_scott(m: int, sigma: float, seed: int | np.random.Generator) -> NeymanScott:
    """Draw m pairs, whose means are spread with standard deviation 10 sigma, and estimate sigma² both ways.

    Raises DesignError where m is no positive whole number or sigma is not positive and finite; FitError for a seed
    that is none.
    """
    if not (whole(m) and m >= 1):
        raise DesignError(f"The number of pairs must be a whole number of at least 1; found {m!r}.")
    if not (finite(sigma) and sigma > 0):
        raise DesignError(f"The standard deviation must be positive and finite; found {sigma!r}.")
    generator = generator_of(seed)
    means = 10 * sigma * generator.standard_normal((m, 1))
    pairs = np.asarray(means + sigma * generator.standard_normal((m, 2)))
    pairs.setflags(write=False)
    squares = np.cumsum((pairs[:, 0] - pairs[:, 1]) ** 2)
    at = np.unique(np.round(np.geomspace(1, m, POINTS)).astype(int))
    variance = float(sigma) ** 2
    path = pd.DataFrame({"pairs": at, "ml": squares[at - 1] / (4 * at), "reml": squares[at - 1] / (2 * at)})
    path = path.assign(ml_limit=variance / 2, reml_limit=variance, reml_se=variance * np.sqrt(2 / at))
    return NeymanScott(pairs=pairs, sigma=float(sigma), path=path)
