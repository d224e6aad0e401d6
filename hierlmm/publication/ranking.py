"""`ranks`: where each area stands among all, and how little of that the data settle.

The rank of area i is 1 + Σ_j 1(θ_j beats θ_i). Its posterior mean has the least squared error; ranking the estimates
does not, because estimates of badly measured areas are shrunk to the middle (Laird and Louis 1989, J. Educ. Stat.
14:29-46; Goldstein and Spiegelhalter 1996, JRSS A 159:385-443). Ranks depend on the areas jointly, so that they are
computed from joint draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.bootstrap.arguments import check_count, generator_of
from hierlmm.publication.estimates.form import AreaEstimates
from hierlmm.publication.estimates.marginals import monte_carlo_error, tails
from hierlmm.publication.estimates.reading import estimates_of
from hierlmm.publication.text import lines_of, table

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]
First = Literal["largest", "smallest"]

# Numbers that are drawn at once: 800 MB, several times over while they are ranked.
LARGEST = 100_000_000

GAUSSIAN = (
    "Of a fit, the areas are drawn from a normal distribution about the estimates{where} with the joint covariance "
    "matrix of their errors: given the fitted area variance, whose own uncertainty enters through the mse alone."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Ranks:
    """Ranks of M areas, 1 the `first`.

    frame   area, estimate, se, rank (of the expected rank; equal ones share the best), expected_rank, mcse (its Monte
            Carlo error), lower, upper (equal-tailed interval of the rank), top_k for each k: P(rank <= k)
    first   which area has rank 1
    level   of the intervals; draws how many the ranks come from
    notes   sentences that belong to the table
    """

    frame: pd.DataFrame
    first: First
    level: float
    draws: int
    notes: tuple[str, ...]

    def summary(self) -> str:
        """The areas in the order of their ranks, at most 80 columns wide."""
        ordered = self.frame.sort_values("expected_rank", kind="stable").drop(columns="mcse")
        heading = f"Ranks of {len(self.frame)} areas, the {self.first} first; {self.draws} joint draws"
        return "\n".join([heading, "", *table(ordered), *lines_of(self.notes)])

    def __repr__(self) -> str:
        return self.summary()


def ranks(
    result: object,
    *,
    first: First = "largest",
    top: int | Iterable[int] = (),
    draws: int = 10_000,
    seed: int | np.random.Generator | None = None,
    level: float = 0.95,
) -> Ranks:
    """Expected ranks of the areas, intervals of their ranks, and the probability of being among the first.

    result  an area-level fit or posterior, or what hl.aggregate or hl.benchmark made of one
    first   which area has rank 1, that with the "largest" value or the "smallest"
    top     k, or several, for P(rank <= k); at most as many as there are areas
    draws, seed  for a fit, which needs a seed; a posterior has draws of its own, and these are not read

    Raises FitError for a posterior without draws and for estimates that do not exist.
    """
    check_first(first)
    estimates = estimates_of(result)
    M = len(estimates.areas)
    ks = list(top) if isinstance(top, Iterable) and not isinstance(top, str) else [top]
    for k in ks:
        check_count("top", k, "areas", min(10, M))
        if k > M:
            raise FitError(f"`top` counts areas, of which there are {M}; found {k}. Use {M} or fewer.")
    tail = tails(level)
    drawn = joint_draws(estimates, draws, seed)
    places = ranked(drawn if first == "smallest" else -drawn)
    pooled = places.reshape(-1, M)
    expected = pooled.mean(axis=0)
    lower, upper = np.quantile(pooled, tail, axis=0, method="inverted_cdf")
    frame = pd.DataFrame(
        {
            "area": estimates.areas,
            "estimate": estimates.estimate,
            "se": np.sqrt(estimates.mse),
            "rank": np.searchsorted(np.sort(expected), expected, side="left") + 1,
            "expected_rank": expected,
            "mcse": monte_carlo_error(places),
            "lower": lower,
            "upper": upper,
            **{f"top_{k}": (pooled <= k).mean(axis=0) for k in ks},
        }
    )
    return Ranks(frame=frame, first=first, level=level, draws=len(pooled), notes=basis_notes(estimates))


def check_first(first: str) -> None:
    """Refuse what is neither the largest nor the smallest."""
    if first not in get_args(First):
        raise FitError(f"`first` is 'largest' or 'smallest'; found {first!r}. Use one of these.")


def joint_draws(estimates: AreaEstimates, draws: int, seed: int | np.random.Generator | None) -> Array:
    """(chains, S, M) draws of areas that all exist; `draws` and `seed` are for a fit, a posterior has its own."""
    estimates.require(np.ones(len(estimates.areas), dtype=bool))
    if estimates.half == "posterior":
        return estimates.drawn
    check_count("draws", draws, "draws", 4000, least=2)
    if draws * len(estimates.areas) > LARGEST:
        raise FitError(
            f"Draws of all areas are held at once, up to {LARGEST:,} numbers; {draws} draws of "
            f"{len(estimates.areas)} areas are more. Use draws={LARGEST // len(estimates.areas)} or fewer."
        )
    if seed is None:
        raise FitError("The areas of a fit are drawn about their estimates, which needs a seed; give one, as seed=1.")
    rng = generator_of(seed)
    if estimates.bent is not None:
        return estimates.bent.sample(draws, rng)[None]
    return (estimates.estimate + estimates.errors.sample(draws, rng))[None]


def ranked(values: Array) -> Array:
    """Ranks along the last axis, 1 the smallest; equal values share the mean of their ranks."""
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        from scipy.stats import rankdata

        return np.asarray(rankdata(values, axis=-1))
    out = np.empty(values.shape)
    np.put_along_axis(out, order, np.arange(1.0, values.shape[-1] + 1), axis=-1)
    return out


def basis_notes(estimates: AreaEstimates, gaussian: str = GAUSSIAN) -> tuple[str, ...]:
    """What a distribution of the areas conditions on, and on which scale it is normal; then the result's own notes."""
    if estimates.half == "posterior":
        return estimates.notes
    where = "" if estimates.bent is None else f" on the scale of the model ({estimates.bent.name})"
    return (gaussian.format(where=where), *estimates.notes)
