"""Draws of β and b at draws of the variance parameters: exact, from their Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.conditional import Conditional, conditional
from hierlmm.bayes.density import Target, Variances, pieces
from hierlmm.bayes.lmmterms import Points
from hierlmm.bayes.results import Draws
from hierlmm.design.types import LMMDesign

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """Draws from weighted points, made while the points are visited for other reasons.

    chosen (S,) positions of the points that were drawn, ascending; order (S,) a permutation that undoes the sorting
    """

    target: Target
    points: Points
    chosen: NDArray[np.intp]
    order: NDArray[np.intp]
    beta: Array
    b: tuple[Array, ...]
    rng: np.random.Generator

    @classmethod
    def of(cls, target: Target, points: Points, size: int, rng: np.random.Generator) -> Resampled:
        """Choose `size` points independently with probability proportional to weight."""
        chosen = np.sort(rng.choice(points.weight.size, size=size, p=points.weight))
        return cls(target, points, chosen, rng.permutation(size), *_room(target.design, size), rng)

    def visit(self, here: NDArray[np.intp], at: Conditional) -> None:
        """Draw β and b at those of the points `here` (ascending positions) that were chosen."""
        wanted = np.flatnonzero((self.chosen >= here[0]) & (self.chosen <= here[-1]))
        if wanted.size:
            place = np.searchsorted(here, self.chosen[wanted])
            _fill(self.target, at[place], wanted, self.beta, self.b, self.rng)

    def draws(self) -> Draws:
        """The draws in random order, labelled."""
        psi = self.points.psi[self.chosen[self.order]]
        return labelled(self.target.design, psi, self.beta[self.order], tuple(b[self.order] for b in self.b))


def draws_given(target: Target, psi: Variances, rng: np.random.Generator) -> Draws:
    """Exact draws of β and b at given draws of the variance parameters, labelled."""
    beta, b = _room(target.design, psi.sigma.size)
    for here in pieces(target.cp, psi.sigma.size):
        at = conditional(target, psi[here])
        _fill(target, at, np.arange(here.start, here.start + at.sigma2.size), beta, b, rng)
    return labelled(target.design, psi, beta, b)


def _room(design: LMMDesign, size: int) -> tuple[Array, tuple[Array, ...]]:
    b = tuple(np.empty((size, len(f.levels), len(f.coefficients))) for f in design.factors)
    return np.empty((size, len(design.fixed))), b


def _fill(
    target: Target, at: Conditional, rows: NDArray[np.intp], beta: Array, b: tuple[Array, ...], rng: np.random.Generator
) -> None:
    found = at.draw(rng)
    beta[rows] = found.beta
    for position, f in enumerate(target.cp.order):
        b[f][rows] = found.b[position]


def labelled(design: LMMDesign, psi: Variances, beta: Array, b: tuple[Array, ...]) -> Draws:
    """One chain of draws with the names and dims they have in the PyMC model too.

    beta (term), sigma; per factor f sd_f (f_coef), corr_f (f_coef, f_coef_bis) where some block has two coefficients
    or more, b_f (f, f_coef).
    """
    variables: dict[str, tuple[tuple[str, ...], Array]] = {
        "beta": (("term",), beta[None]),
        "sigma": ((), psi.sigma[None]),
    }
    coords: dict[str, tuple[object, ...]] = {"term": design.fixed}
    for f, factor in enumerate(design.factors):
        name, coef = factor.name, f"{factor.name}_coef"
        variables[f"sd_{name}"] = ((coef,), psi.sd[f][None])
        coords |= {coef: factor.coefficients, name: tuple(factor.levels)}
        if any(len(block) > 1 for block in factor.blocks):
            variables[f"corr_{name}"] = ((coef, f"{coef}_bis"), psi.correlation[f][None])
            coords[f"{coef}_bis"] = factor.coefficients
        variables[f"b_{name}"] = ((name, coef), b[f][None])
    return Draws(variables=variables, coords=coords)
