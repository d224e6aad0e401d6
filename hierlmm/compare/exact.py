"""The exact posteriors that one comparison needs: one design under several priors, each integrated once."""

from __future__ import annotations

from dataclasses import dataclass, field

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.engines import of_design
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.bayes.priors import ResolvedPriors
from hierlmm.errors import FitError, PriorError


@dataclass(frozen=True, slots=True, eq=False)
class ExactPosteriors:
    """Exact posteriors of the design of `posterior`, which is one of them where its engine is "integrate".

    known  what has been asked for so far, refusals included: attribution and sensitivity share most of their priors
    """

    posterior: LMMPosterior | AreaPosterior
    known: dict[ResolvedPriors, LMMPosterior | AreaPosterior | PriorError | FitError] = field(default_factory=dict)

    def under(self, priors: ResolvedPriors) -> LMMPosterior | AreaPosterior:
        """The exact posterior under `priors`. Raises PriorError where it is improper, FitError where it failed."""
        asked = self.posterior
        if priors not in self.known:
            try:
                itself = asked.engine == "integrate" and priors == asked.priors
                found = asked if itself else of_design(asked.design, priors, draws=0, seed=asked.seed)
            except (PriorError, FitError) as error:
                self.known[priors] = error
            else:
                self.known[priors] = found
        answer = self.known[priors]
        if isinstance(answer, (PriorError, FitError)):
            raise answer
        return answer
