"""Whether Markov chains can be believed: checks that run on every fit, whatever the sampler reports itself.

Rank-normalised split R-hat, bulk and tail effective sample sizes: Vehtari, Gelman, Simpson, Carpenter & Bürkner
(2021), Bayesian Analysis 16:667-718. E-BFMI: Betancourt (2016), arXiv:1604.00695.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.results import Draws

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]

# Vehtari et al. (2021) §4: R-hat below 1.01, and 100 effective draws a chain of bulk and of tail.
RHAT = 1.01
ESS_PER_CHAIN = 100
# Energy fraction of missing information below which momentum resampling explores the energies too slowly.
BFMI = 0.3
# Quantiles whose effective sample size is the tail's.
TAIL = (0.05, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainDiagnostics:
    """What the checks found on one set of chains.

    sampler                      "pymc" or "nutpie"
    chains, draws, requested     chains kept, draws of each kept, draws of each asked for
    divergences                  transitions in which the leapfrog integrator failed, over all chains
    rhat, ess_bulk, ess_tail     worst over the parameters, and its name: ("sd_tree[Time]", 1.02); nan where the
                                 draws of a parameter do not move
    bfmi                         smallest E-BFMI of a chain
    retries                      earlier attempts that failed a check, as one sentence each
    """

    sampler: str
    chains: int
    draws: int
    requested: int
    divergences: int
    rhat: tuple[str, float]
    ess_bulk: tuple[str, float]
    ess_tail: tuple[str, float]
    bfmi: float
    retries: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check passed; where not, the posterior must not be taken for agreement or disagreement."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence a failed check, with what to do; empty where all passed."""
        enough = ESS_PER_CHAIN * self.chains
        worst = min(self.ess_bulk[1], self.ess_tail[1])
        found = {
            f"Sampling was interrupted after {self.draws} of {self.requested} draws a chain; draw again.": (
                self.draws >= self.requested
            ),
            f"{self.divergences} of {self.chains * self.draws} transitions diverged: part of the posterior was not "
            "reached; raise target_accept, or sample the marginal form.": self.divergences == 0,
            f"The chains disagree: R-hat of {self.rhat[0]} is {self.rhat[1]:.3f}, and should be below {RHAT}; "
            "draw more, or look for two modes.": self.rhat[1] < RHAT,
            f"Too few effective draws: {self.ess_bulk[1]:.0f} for the mean of {self.ess_bulk[0]} and "
            f"{self.ess_tail[1]:.0f} for the tails of {self.ess_tail[0]}, where {enough} are needed; draw more.": (
                worst >= enough
            ),
            f"The energies mix slowly: E-BFMI is {self.bfmi:.2f}, and should be at least {BFMI}; "
            "sample the marginal form.": self.bfmi >= BFMI,
        }
        # a statistic that is not a number has not passed
        return tuple(sentence for sentence, passed in found.items() if not passed)

    def as_mapping(self) -> dict[str, float | int | str]:
        """The numbers by name, as a posterior carries them; `failures` is empty where every check passed."""
        return {
            "failures": " ".join(self.failures),
            "sampler": self.sampler,
            "chains": self.chains,
            "draws": self.draws,
            "divergences": self.divergences,
            "rhat": self.rhat[1],
            "rhat_of": self.rhat[0],
            "ess_bulk": self.ess_bulk[1],
            "ess_bulk_of": self.ess_bulk[0],
            "ess_tail": self.ess_tail[1],
            "ess_tail_of": self.ess_tail[0],
            "bfmi": self.bfmi,
        }

    def describe(self) -> tuple[str, ...]:
        """Lines for a summary: failures first, then the numbers."""
        numbers = (
            f"{self.chains} chains of {self.draws} draws ({self.sampler}), {self.divergences} divergences, worst R-hat "
            f"{self.rhat[1]:.3f}, least effective draws {self.ess_bulk[1]:.0f} (bulk) and {self.ess_tail[1]:.0f} "
            f"(tail), E-BFMI {self.bfmi:.2f}"
        )
        return (*self.failures, *self.retries, numbers)


def check(
    draws: Draws, watched: Sequence[str], sampler: str, requested: int, retries: Sequence[str]
) -> ChainDiagnostics:
    """Run every check on the variables named in `watched`, and on the sampler's `diverging` and `energy`.

    requested: draws asked of each chain. Entries of matrices that are constant by construction (the diagonal of a
    correlation matrix, and the zeros between covariance blocks) are left out.
    """
    varied = _entries(draws, watched)
    # draws that do not move divide by zero; what comes out is not a number, and has not passed
    with np.errstate(all="ignore"):
        rhat = arviz_stats().rhat(varied)
        bulk = arviz_stats().ess(varied, method="bulk")
        tail = arviz_stats().ess(varied, method="tail", prob=TAIL)
        fractions = energy_fractions(draws.stats["energy"])
    return ChainDiagnostics(
        sampler=sampler,
        chains=draws.chains,
        draws=draws.number,
        requested=requested,
        divergences=int(draws.stats["diverging"].sum()),
        rhat=_worst(varied, rhat, largest=True),
        ess_bulk=_worst(varied, bulk, largest=False),
        ess_tail=_worst(varied, tail, largest=False),
        bfmi=float(fractions.min()),
        retries=tuple(retries),
    )


def arviz_stats() -> Any:
    """The module of that name, loaded when first asked for."""
    import arviz_stats

    return arviz_stats


def _entries(draws: Draws, watched: Sequence[str]) -> xr.Dataset:
    """All entries of the watched variables side by side as `x` (chain, draw, quantity), with their names."""
    import xarray as xr

    names: list[str] = []
    columns: list[Array] = []
    for name in watched:
        dims, values = draws.variables[name]
        flat = values.reshape(draws.chains, draws.number, -1)
        for k, label in enumerate(labels(name, [draws.coords[dim] for dim in dims])):
            column = flat[..., k]
            if not (name.startswith("corr_") and np.isin(column, (0.0, 1.0)).all()):
                names.append(label)
                columns.append(column)
    x = np.stack(columns, axis=-1)
    return xr.Dataset({"x": (("chain", "draw", "quantity"), x)}, coords={"quantity": names})


def labels(name: str, coords: Sequence[Sequence[object]]) -> list[str]:
    """A name for each entry of a variable, the last dimension running fastest: "sd_tree[Time]"."""
    inside = [", ".join(str(value) for value in entry) for entry in itertools.product(*coords)]
    return [f"{name}[{text}]" if text else name for text in inside]


def _worst(varied: xr.Dataset, statistic: xr.Dataset, *, largest: bool) -> tuple[str, float]:
    """Name and value of the worst entry; an entry that is not a number (draws that do not move) is the worst."""
    values = np.asarray(statistic["x"], dtype=np.float64)
    k = int(np.argmax(values) if largest else np.argmin(values))
    return str(varied["quantity"].values[k]), float(values[k])


def energy_fractions(energy: Array) -> Array:
    """(chains,) energy fraction of missing information of energies (chains, draws): E-BFMI."""
    return np.asarray(np.square(np.diff(energy, axis=1)).mean(axis=1) / energy.var(axis=1))
