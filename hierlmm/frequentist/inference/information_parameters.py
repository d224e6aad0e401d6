"""The variance parameters of a fit as a reader names them, and their derivatives in the coordinates of the engine.

On the scale "variance" they are the elements of each G and the residual variances; on the scale "sd" the standard
deviations and correlations. A block of one variance has one of them, one of one variance and one correlation two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.lmm_structured import natural_parameters

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
Scale = Literal["variance", "sd"]
Name = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """group, term, term2, quantity; its value, and what it is of: factor of the design and two coefficients."""

    name: Name
    value: float
    factor: int = -1
    pair: tuple[int, int] = (0, 0)

    @property
    def label(self) -> str:
        """ "variance(Days | Subject)", "covariance(Days, Intercept | Subject)", "variance(Residual)"."""
        group, term, term2, quantity = self.name
        inner = ", ".join(part for part in (term, term2) if part)
        return f"{quantity}({inner} | {group})" if inner else f"{quantity}({group})"


def of_random_effects(fit: LMMFit, scale: Scale) -> list[Parameter]:
    """Those of the covariance matrices, factor by factor and block by block, columns of the lower triangle in order."""
    out = []
    for f, (factor, G) in enumerate(zip(fit.design.factors, fit.G, strict=True)):
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            if structure == "general":
                pairs = [(block[r], block[c]) for c in range(len(block)) for r in range(c, len(block))]
            else:
                pairs = [(block[0], block[0])] + ([(block[1], block[0])] if structure == "cs" else [])
            shared = ", ".join(factor.coefficients[a] for a in block) if structure != "general" else ""
            for a, b in pairs:
                names = (shared, "") if shared else (factor.coefficients[a], factor.coefficients[b] if a != b else "")
                out.append(_parameter(f, factor.name, names, G, (a, b), scale))
    return out


def _parameter(f: int, group: str, names: tuple[str, str], G: Array, pair: tuple[int, int], scale: Scale) -> Parameter:
    a, b = pair
    if scale == "variance":
        quantity, value = "variance" if a == b else "covariance", float(G[a, b])
    elif a == b:
        quantity, value = "sd", float(np.sqrt(G[a, a]))
    else:
        size = float(np.sqrt(G[a, a] * G[b, b]))
        quantity, value = "correlation", float(G[a, b]) / size if size > 0 else np.nan
    return Parameter((group, *names, quantity), value, f, pair)


def of_residuals(fit: LMMFit, scale: Scale) -> list[Parameter]:
    """Residual variances (or sds), correlations, range and nugget; none where the variances are known."""
    from hierlmm.frequentist.lmm_structured import residual_rows

    if fit.equations.known_sigma2:
        return []
    left_out = "sd" if scale == "variance" else "variance"
    rows = [row for row in residual_rows(fit, None) if row[3] != left_out]
    return [Parameter(row[:4], float(row[4])) for row in rows]


def gradients(fit: LMMFit, parameters: Sequence[Parameter], dG: Sequence[Array], scale: Scale, k: int) -> Array:
    """(r, k) derivatives of r random-effects parameters in k coordinates, from those of each G, (k, q, q)."""
    out = []
    for one in parameters:
        G, slopes, (a, b) = fit.G[one.factor], dG[one.factor], one.pair
        if scale == "variance":
            out.append(slopes[:, a, b])
        elif a == b:
            out.append(slopes[:, a, a] / (2 * np.sqrt(G[a, a])))
        else:
            own = slopes[:, a, a] / G[a, a] + slopes[:, b, b] / G[b, b]
            out.append(slopes[:, a, b] / np.sqrt(G[a, a] * G[b, b]) - 0.5 * one.value * own)
    return np.array(out).reshape(len(parameters), k)


def residual_gradients(fit: LMMFit, scale: Scale, phi: slice, log_sigma2: int, k: int) -> Array:
    """(r, k) derivatives of the residual parameters in k coordinates, phi and log sigma² among them."""
    if fit.equations.known_sigma2:
        return np.zeros((0, k))
    natural, unit = natural_parameters(fit), np.zeros(k)
    unit[log_sigma2] = 1.0
    half = 1.0 if scale == "variance" else 0.5

    def level(variance: float) -> float:
        return variance if scale == "variance" else float(np.sqrt(variance))

    out = [half * level(fit.sigma2) * unit]
    for quantity, value, slope in zip(natural.quantity, natural.values, natural.jacobian, strict=True):
        own = np.zeros(k)
        own[phi] = slope
        if quantity == "variance_ratio":
            own = half * level(fit.sigma2 * float(value)) * (unit + own / value)
        out.append(own)
    return np.array(out)
