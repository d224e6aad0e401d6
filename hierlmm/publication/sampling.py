"""Joint draws of all areas: those of a posterior, or of N(estimate, covariance of the errors) for a fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.bootstrap.arguments import check_count, generator_of
from hierlmm.publication.estimates import AreaEstimates

Array = NDArray[np.float64]

# Numbers that are drawn at once: 800 MB, several times over while they are ranked.
LARGEST = 100_000_000


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
