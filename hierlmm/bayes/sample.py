"""The no-U-turn sampler on the compiled model: draws, with the checks that decide whether they can be believed."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.diagnostics import ChainDiagnostics, check
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import Draws
from hierlmm.design.types import AreaDesign, LMMDesign
from hierlmm.errors import FitError

if TYPE_CHECKING:
    from hierlmm.bayes.arearesults import AreaPosterior
    from hierlmm.bayes.lmmresults import LMMPosterior

Sampler = Literal["pymc", "nutpie"]
Form = Literal["hierarchical", "marginal"]

# What a further attempt changes after failed checks: smaller steps, and twice the draws and the tuning.
STRICTER = 0.99
LONGER = 2

# Names that nutpie gives to what the arviz schema calls otherwise.
STATISTICS = {"depth": "tree_depth", "mean_tree_accept": "acceptance_rate", "logp": "lp"}
KEPT = ("diverging", "energy", "lp", "tree_depth", "acceptance_rate", "n_steps", "step_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class NutsOptions:
    """How to sample: every setting whose default differs between samplers and their versions is written out.

    draws, tune    kept and tuning draws of each chain; chains >= 2, so that they can be compared
    cores          processes; None is one a chain, as far as there are cores
    sampler        "pymc", or "nutpie" where that is installed
    target_accept  mean acceptance that the step size is tuned to, between 0 and 1
    form           "hierarchical" samples the effects, "marginal" integrates them out and draws them afterwards
    retries        further attempts after failed checks, each with target_accept 0.99 and twice the draws
    progress       "bar" shows the sampler's progress, "none" keeps it silent
    """

    draws: int = 1000
    tune: int = 1000
    chains: int = 4
    cores: int | None = None
    sampler: Sampler = "pymc"
    target_accept: float = 0.95
    form: Form = "hierarchical"
    retries: int = 1
    progress: Literal["none", "bar"] = "none"

    def __post_init__(self) -> None:
        wrong = [
            f"{name}={getattr(self, name)!r}"
            for name, least in (("draws", 4), ("tune", 1), ("chains", 2), ("retries", 0))
            if getattr(self, name) < least
        ]
        wrong += [] if self.cores is None or self.cores > 0 else [f"cores={self.cores!r}"]
        wrong += [] if 0 < self.target_accept < 1 else [f"target_accept={self.target_accept!r}"]
        wrong += [] if self.sampler in ("pymc", "nutpie") else [f"sampler={self.sampler!r}"]
        wrong += [] if self.form in ("hierarchical", "marginal") else [f"form={self.form!r}"]
        if wrong:
            raise FitError(
                "Sampling needs draws >= 4, tune >= 1, chains >= 2, retries >= 0, cores >= 1, target_accept between "
                "0 and 1, sampler 'pymc' or 'nutpie', form 'hierarchical' or 'marginal'; found "
                f"{', '.join(wrong)}. Change these NutsOptions."
            )


def nuts_posterior(
    design: LMMDesign | AreaDesign, priors: ResolvedPriors, draws: int, seed: int, nuts: NutsOptions | None
) -> LMMPosterior | AreaPosterior:
    """The posterior of a design by NUTS; `draws` in all, over four chains, where `nuts` does not say otherwise.

    Raises PriorError where the posterior is improper, FitError where the sampler could not run.
    """
    options = NutsOptions(draws=max(4, -(-draws // 4))) if nuts is None else nuts
    if isinstance(design, AreaDesign) and design.proximity is not None:
        from hierlmm.bayes.sample_spatial import sample_spatial

        return sample_spatial(design, priors, options, seed)
    if isinstance(design, AreaDesign):
        from hierlmm.bayes.sample_area import sample_area

        return sample_area(design, priors, options, seed)
    from hierlmm.bayes.sample_lmm import sample_lmm

    return sample_lmm(design, priors, options, seed)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chains:
    """What the sampler returned: draws of the model's variables with its statistics, the checks, the time taken."""

    draws: Draws
    diagnostics: ChainDiagnostics
    seconds: float


def run(model: Any, watched: Sequence[str], options: NutsOptions, seed: int) -> Chains:
    """Sample the model, and again while a check fails and a retry is left; the last attempt is returned.

    watched: names of the variables that the checks look at. Ctrl-C ends sampling and keeps the draws made so far,
    which then fail the check of their number. Raises FitError where the sampler could not start or broke off.
    """
    said: list[str] = []
    for attempt in range(options.retries + 1):
        own_seed = int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
        begun = time.perf_counter()
        draws = _read(_sample(model, options, own_seed), model)
        seconds = time.perf_counter() - begun
        found = check(draws, watched, options.sampler, options.draws, said)
        if found.passed or draws.number < options.draws:
            break
        said.append(f"Attempt {attempt + 1} (target_accept {options.target_accept:g}): {found.failures[0]}")
        stricter = max(STRICTER, options.target_accept)
        options = replace(
            options, draws=LONGER * options.draws, tune=LONGER * options.tune, target_accept=stricter
        )
    return Chains(draws=draws, diagnostics=found, seconds=seconds)


def _sample(model: Any, options: NutsOptions, seed: int) -> Any:
    """pm.sample with every setting written out; its container, which differs between versions."""
    pm = backend().pm
    progress = options.progress == "bar"
    try:
        with _quiet(progress), model:
            return pm.sample(
                draws=options.draws,
                tune=options.tune,
                chains=options.chains,
                cores=options.cores,
                nuts_sampler=options.sampler,
                target_accept=options.target_accept,
                random_seed=seed,
                progressbar=progress,
                # nutpie never runs PyMC's checks; ours run on every fit
                compute_convergence_checks=False,
            )
    except ImportError as cause:
        raise FitError(
            f"The sampler must be installed; found no {options.sampler} ({cause}). "
            "Install hierlmm with the extra [nutpie], or use NutsOptions(sampler='pymc')."
        ) from cause
    except (ValueError, RuntimeError, pm.exceptions.SamplingError) as cause:
        raise FitError(
            f"Sampling must start and run to its end; {options.sampler} stopped: {_first_line(cause)}. "
            "Interrupted while tuning, no draw is kept; otherwise check the data and priors for extreme values, "
            "use cores=1 where a process was killed, or use engine='integrate'."
        ) from cause


def spoken(centring: Mapping[str, str], form: Form) -> str:
    """How the effects were sampled, as one sentence for a result's notes."""
    if form == "marginal":
        return "The random effects were integrated out of the sampled model and drawn from their exact distribution."
    ways = {way: [name for name, own in centring.items() if own == way] for way in ("centred", "non-centred")}
    said = "; ".join(f"{way}: {', '.join(names)}" for way, names in ways.items() if names)
    return f"Coordinates of the random effects, chosen by their shrinkage at the REML estimate: {said}."


def _first_line(cause: BaseException) -> str:
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")


@contextmanager
def _quiet(progress: bool) -> Iterator[None]:
    """Without a progress bar the sampler says nothing; its own warnings are what our checks are for."""
    logger = logging.getLogger("pymc")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        warnings.filterwarnings("ignore", module="nutpie")
        logger.setLevel(level if progress else logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _read(container: Any, model: Any) -> Draws:
    """Draws of the model's named variables from an InferenceData (PyMC 5) or a DataTree (PyMC 6)."""
    import xarray as xr

    tree = container if isinstance(container, xr.DataTree) else container.to_datatree()
    posterior, stats = tree["posterior"].to_dataset(), tree["sample_stats"].to_dataset()
    stats = stats.rename({name: kept for name, kept in STATISTICS.items() if name in stats and kept not in stats})
    wanted = [variable.name for variable in (*model.free_RVs, *model.deterministics)]
    names = model.named_vars_to_dims
    variables = {
        name: (tuple(names.get(name, ())), posterior[name].transpose("chain", "draw", ...).values) for name in wanted
    }
    # an interrupted sampler may pad the chains that it had not finished: keep the draws that all of them have
    whole = np.all([np.isfinite(v).reshape(*v.shape[:2], -1).all(-1).all(0) for _, v in variables.values()], axis=0)
    kept = int(np.argmin([*whole, False]))
    return Draws(
        variables={name: (dims, values[:, :kept]) for name, (dims, values) in variables.items()},
        coords={dim: tuple(values) for dim, values in model.coords.items() if values is not None},
        stats={name: stats[name].transpose("chain", "draw").values[:, :kept] for name in KEPT if name in stats},
    )
