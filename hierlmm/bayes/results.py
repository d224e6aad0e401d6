"""What every posterior is, whichever engine computed it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes.propriety import Propriety
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.types import AreaDesign, Fingerprint, LMMDesign
from hierlmm.spec.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

Array = NDArray[np.float64]
Engine = Literal["integrate", "nuts"]
# Probability of every interval in a posterior: equal tails, as the fits' two-sided 95 %.
LEVEL = 0.95
TAILS = (0.5 * (1.0 - LEVEL), 0.5 * (1.0 + LEVEL))


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """Posterior summaries of an array of parameters, all of one shape.

    estimate  posterior mean; se posterior sd: nan where it does not exist (the result's notes say why)
    lower, upper  equal-tailed 95 % interval
    mcse      Monte Carlo standard error of `estimate`: 0 where it comes from an integral
    """

    estimate: Array
    se: Array
    lower: Array
    upper: Array
    mcse: Array

    def columns(self) -> dict[str, Array]:
        """The five arrays by column name, flattened."""
        names = ("estimate", "se", "lower", "upper", "mcse")
        return {name: np.array(getattr(self, name), dtype=np.float64).ravel() for name in names}


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Draws from a posterior, with their labels, before they are an xarray object.

    variables  name -> (dims after chain and draw, values (chains, draws, ...))
    coords     dim -> labels
    stats      sampler statistics: name -> values (chains, draws); empty for independent draws
    """

    variables: Mapping[str, tuple[tuple[str, ...], Array]]
    coords: Mapping[str, tuple[object, ...]]
    stats: Mapping[str, Array] = field(default_factory=dict)

    @property
    def chains(self) -> int:
        """Number of chains; one where draws are independent."""
        return len(next(iter(self.variables.values()))[1])

    @property
    def number(self) -> int:
        """Draws a chain."""
        return len(next(iter(self.variables.values()))[1][0])

    def tree(self) -> xr.DataTree:
        """DataTree with the group `posterior` (dims chain, draw, ...), and `sample_stats` where there are any."""
        import xarray as xr

        index = {"chain": np.arange(self.chains), "draw": np.arange(self.number)}
        labels = {dim: list(values) for dim, values in self.coords.items()}
        posterior = xr.Dataset(
            {name: (("chain", "draw", *dims), values) for name, (dims, values) in self.variables.items()},
            coords={**index, **labels},
        )
        groups = {"posterior": posterior}
        if self.stats:
            groups["sample_stats"] = xr.Dataset(
                {name: (("chain", "draw"), values) for name, values in self.stats.items()}, coords=index
            )
        return xr.DataTree.from_dict(groups)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Posterior(ABC):
    """The posterior of a model given its data: what both families and both engines share.

    engine       "integrate" (exact, independent draws) or "nuts"
    priors       the concrete prior of every parameter
    propriety    why the posterior is proper and which moments exist
    diagnostics  numbers that say how far to trust the result, by name
    notes        sentences a reader needs: missing moments, unusual data, what was done about them
    seed         seed of the draws, enough to repeat them
    sample       the draws as arrays; `draws` is their DataTree
    fixed_effects, cov_beta  posterior of β: Estimates (p,) and covariance matrix (p, p)
    """

    design: LMMDesign | AreaDesign
    engine: Engine
    priors: ResolvedPriors
    propriety: Propriety
    diagnostics: Mapping[str, float | int | str]
    notes: tuple[str, ...]
    seed: int
    sample: Draws
    fixed_effects: Estimates
    cov_beta: Array

    def __post_init__(self) -> None:
        for part in fields(self):
            freeze(getattr(self, part.name))

    @property
    def spec(self) -> ModelSpec:
        """The model specification."""
        return self.design.spec

    @property
    def fingerprint(self) -> Fingerprint:
        """What the posterior was computed from."""
        return self.design.fingerprint

    @property
    def draws(self) -> xr.DataTree:
        """The draws as a labelled DataTree, group `posterior` with dims chain and draw."""
        return self.sample.tree()

    @property
    def fixed(self) -> pd.DataFrame:
        """Fixed effects: term, estimate, se, lower, upper, mcse."""
        return pd.DataFrame({"term": list(self.design.fixed), **self.fixed_effects.columns()})

    @abstractmethod
    def predict(self, new: object) -> pd.DataFrame:
        """Posterior predictions for new rows."""

    @abstractmethod
    def summary(self) -> str:
        """The result as text, 80 columns wide."""

    def __repr__(self) -> str:
        return self.summary()

    def save(self, path: str | Path) -> None:
        """Write the posterior with its draws to one file that `hierlmm.read` loads."""
        from hierlmm.saving import save

        save(self, path)


def freeze(value: object) -> None:
    """Make the arrays a result is built from read-only, nested values of ours included."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif isinstance(value, tuple):
        for item in value:
            freeze(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            freeze(item)
    elif is_dataclass(value) and not isinstance(value, (LMMDesign, AreaDesign)):
        for part in fields(value):
            freeze(getattr(value, part.name))
