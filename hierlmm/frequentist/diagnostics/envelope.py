"""Ordered residuals and random effects beside those of data simulated from the fitted model and fitted again.

Every simulated response goes through the same fit as the data did, so that the envelope contains what estimation does
to residuals and predictions: they are not independent, and shrinkage makes them look more normal than they are.

Sources: Atkinson (1981), Biometrika 68:13-20 (envelopes by simulation); Aldor-Noiman, Brown, Buja, Rolke & Stine
(2013), The American Statistician 67:249-260 (bands that hold for all points at once).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.streamchecks import require_rows
from hierlmm.errors import DesignError, FitError, listed
from hierlmm.frequentist.bootstrap.arguments import check_count, check_seed
from hierlmm.frequentist.lmm_refits import FAILED, LMMRefits
from hierlmm.frequentist.lmm_structured import residual_variances

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# Numbers of simulated responses that are held at once.
AT_ONCE = 8_000_000
# Fewest simulations that leave something outside a 95 % band.
FEWEST = 39


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Envelope:
    """n ordered values and the bands in which those of `draws` simulated fits lie.

    labels     (n,) whose values they are, in ascending order of the values; values (n,)
    lower, upper        (n,) pointwise band: it holds `level` of the simulations at each place
    all_lower, all_upper (n,) simultaneous band: about `level` of the simulations lie in it at every place
    middle     (n,) mean of the simulations at each place
    failures   simulated fits without an answer, which are left out; seed what was drawn with
    """

    labels: pd.Index
    values: Array
    lower: Array
    upper: Array
    all_lower: Array
    all_upper: Array
    middle: Array
    level: float
    draws: int
    failures: int
    seed: int

    @property
    def outside(self) -> pd.Index:
        """Labels of the values outside the simultaneous band."""
        return self.labels[(self.values < self.all_lower) | (self.values > self.all_upper)]


def residual_envelope(fit: LMMFit, draws: int = 499, *, seed: int, level: float = 0.95) -> Envelope:
    """Ordered Pearson residuals with bands from `draws` responses simulated from the fit and fitted again.

    Raises DesignError where rows were not kept; FitError where the residual variance is zero, for fewer than 39 draws,
    and where most of the simulated fits fail.
    """
    if not fit.sigma2 > 0:
        raise FitError(
            "An envelope of residuals needs a residual variance, and that of this fit is zero. Nothing is left to draw."
        )
    own = fit.conditional_residuals.to_numpy() / np.sqrt(residual_variances(fit))
    simulated, failures = _simulated(fit, draws, seed, level, _pearson)
    return _enveloped(fit.design.index, own, simulated, level, failures, draws, seed)


def effect_envelope(
    fit: LMMFit, group: str = "", term: str = "Intercept", draws: int = 499, *, seed: int, level: float = 0.95
) -> Envelope:
    """Ordered predicted random effects of one coefficient, in its units, with bands as for the residuals.

    group  a grouping factor; "": the first. Raises DesignError for an unknown group or term; otherwise as above.
    """
    f, column = place_of(fit, group, term)

    def effects(refits: LMMRefits) -> Array:
        return refits.blups()[f][:, :, column]

    simulated, failures = _simulated(fit, draws, seed, level, effects)
    own = fit.b[f][:, column]
    return _enveloped(fit.design.factors[f].levels, own, simulated, level, failures, draws, seed)


def place_of(fit: LMMFit, group: str, term: str) -> tuple[int, int]:
    """Positions of a grouping factor and of one of its coefficients; "": the first. Raises DesignError for none."""
    names = [factor.name for factor in fit.design.factors]
    if not names or group and group not in names:
        raise DesignError(
            f"`group` must be a grouping factor of the model; found {group!r}, one of {listed(names) or 'none'}."
        )
    f = names.index(group) if group else 0
    known = fit.design.factors[f].coefficients
    if term and term not in known:
        raise DesignError(
            f"`term` must be a random coefficient of {names[f]}; found {term!r}, and it has {listed(known)}."
        )
    return f, known.index(term) if term else 0


def _pearson(refits: LMMRefits) -> Array:
    """(B, n) conditional residuals over the residual sds of each refit."""
    origin = refits.origin
    left = refits.responses - origin.design.offset[:, None] - origin.design.X @ refits.beta.T
    for factor, b in zip(origin.design.factors, refits.blups(), strict=True):
        for column, z in enumerate(factor.Z.T):
            left -= z[:, None] * b[:, factor.codes, column].T
    if len(origin.phi):
        variances = [
            residual_variances(replace(origin, sigma2=float(sigma2), phi=phi))
            for sigma2, phi in zip(refits.sigma2, refits.phi, strict=True)
        ]
        return np.asarray((left / np.sqrt(np.column_stack(variances))).T)
    known = 1.0 if origin.design.scale is None else np.sqrt(origin.design.scale)[:, None]
    return np.asarray((left / known / np.sqrt(refits.sigma2)).T)


def _simulated(
    fit: LMMFit, draws: int, seed: int, level: float, values: Callable[[LMMRefits], Array]
) -> tuple[Array, int]:
    """(B, n) sorted values of the simulated fits that have an answer, and how many have none."""
    require_rows(fit.design, "Envelopes")
    check_seed(seed)
    check_count("draws", draws, "simulations", 499, least=None)
    if draws < FEWEST:
        raise FitError(
            f"`draws` is a number of simulations, {FEWEST} or more, so that a 95 % band leaves some out; found "
            f"{draws!r}. Use for example draws=499."
        )
    if not 0 < level < 1:
        raise FitError(f"`level` is a number between 0 and 1; found {level!r}. Use for example level=0.95.")
    found, failures = list[Array](), 0
    for refits in _refits(fit, draws, np.random.default_rng(seed)):
        sound = np.array([outcome not in FAILED for outcome in refits.outcomes], dtype=bool)
        failures += int((~sound).sum())
        found.append(np.sort(np.asarray(values(refits))[sound], axis=1))
    if failures > draws // 2:
        raise FitError(
            f"An envelope needs simulated fits that have an answer; {failures} of {draws} have none. See "
            "fit.refits(fit.simulate(...)) for the reasons."
        )
    return np.concatenate(found), failures


def _refits(fit: LMMFit, draws: int, rng: np.random.Generator) -> Iterator[LMMRefits]:
    size = max(1, AT_ONCE // max(len(fit.design.y), 1))
    for start in range(0, draws, size):
        yield fit.refits(fit.simulate(min(size, draws - start), seed=rng))


def _enveloped(
    labels: pd.Index, own: Array, simulated: Array, level: float, failures: int, draws: int, seed: int
) -> Envelope:
    order = np.argsort(own, kind="stable")
    lower, upper = np.quantile(simulated, [(1 - level) / 2, (1 + level) / 2], axis=0)
    all_lower, all_upper = simultaneous(simulated, level)
    return Envelope(
        labels=labels[order], values=own[order], lower=lower, upper=upper, all_lower=all_lower, all_upper=all_upper,
        middle=simulated.mean(axis=0), level=level, draws=draws, failures=failures, seed=seed,
    )  # fmt: skip


def simultaneous(simulated: Array, level: float) -> tuple[Array, Array]:
    """(n,) lower and upper ends of a band that holds about `level` of the (B, n) curves whole.

    The median plus and minus a common multiple of the distances to pointwise quantiles. One half of the curves gives
    these distances, the other half the multiple that holds `level` of its curves: a band that is fitted to the curves
    it is judged by is too narrow.
    """
    shape, judge = simulated[::2], simulated[1::2]
    middle = np.median(shape, axis=0)
    low, high = np.quantile(shape, [(1 - level) / 2, (1 + level) / 2], axis=0)
    apart = judge - middle
    size = np.where(apart < 0, middle - low, high - middle)
    ratio = np.divide(np.abs(apart), size, out=np.zeros_like(apart), where=size > 0)
    multiple = float(np.quantile(ratio.max(axis=1), level, method="higher"))
    return middle - multiple * (middle - low), middle + multiple * (high - middle)
