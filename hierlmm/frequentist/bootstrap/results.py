"""Replicates of a bootstrap, and the intervals and biases that they give."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.inference.confint_results import COLUMNS, Intervals, quantile
from hierlmm.frequentist.inference.confint_text import name
from hierlmm.frequentist.labelled_lines import labelled
from hierlmm.frequentist.lmm_refits import FAILED, refits_of
from hierlmm.frequentist.lmm_results import LMMOutcome

if TYPE_CHECKING:
    from hierlmm.frequentist.bootstrap.samplers import Kind
    from hierlmm.frequentist.bootstrap.state import Batch
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
IntervalKind = Literal["percentile", "basic", "normal", "studentized"]
SHOWN = ("effect", "sd", "correlation", "range", "nugget")
NAMES = ["group", "term", "term2", "quantity"]
WIDTH = 80

NOT_RANDOM = (
    "Intervals from the survivors alone are not a random sample of the replicates: which responses cannot be fitted is "
    "not chance. Look at `problems`, and simplify the model if there are many."
)
WILD = (
    "Only fixed effects are reported: weights of one sign or size a cluster leave the products of residuals within it, "
    "from which variances are estimated, as they are."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Bootstrap:
    """Replicates of the estimates of a fit: B of the `requested` ones are done, K quantities.

    names       (K,) group, term, term2, quantity, as in the frame of `refits`
    fitted      (K,) the fit's own estimates
    values      (B, K) those of the replicates; missing where there is none
    replicates  (B,) their numbers: replicate i is drawn from SeedSequence(seed, spawn_key=(i,))
    outcomes    (B,) how each refit ended
    problems    (number, reason) of each replicate without an estimate
    interrupted whether it was stopped before all were done
    """

    kind: Kind
    weights: str
    method: str
    formula: str
    requested: int
    seed: int
    names: tuple[tuple[str, str, str, str], ...]
    fitted: Array
    values: Array
    replicates: NDArray[np.intp]
    outcomes: tuple[LMMOutcome, ...]
    problems: tuple[tuple[int, str], ...]
    interrupted: bool

    def __post_init__(self) -> None:
        for value in (self.fitted, self.values, self.replicates):
            value.setflags(write=False)

    @classmethod
    def of(
        cls, fit: LMMFit, kind: Kind, weights: str, requested: int, seed: int, done: Sequence[Batch], interrupted: bool
    ) -> Bootstrap:
        """The replicates of the batches that are done; of a wild bootstrap those of the fixed effects."""
        own = refits_of(fit).frame
        kept = np.ones(len(own), dtype=bool) if kind != "wild" else own["quantity"].isin(["effect", "se"]).to_numpy()
        values = np.concatenate([batch.values for batch in done]) if done else np.zeros((0, len(own)))
        numbers = [np.arange(batch.start, batch.start + len(batch.outcomes), dtype=np.intp) for batch in done]
        return cls(
            kind=kind, weights=weights if kind == "wild" else "", method=fit.method, formula=fit.spec.formula,
            requested=requested, seed=int(seed),
            names=tuple(own.loc[kept, NAMES].itertuples(index=False, name=None)),
            fitted=own.loc[kept, "estimate"].to_numpy(dtype=np.float64, copy=True),
            values=np.array(values[:, kept]),
            replicates=np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.intp),
            outcomes=tuple(LMMOutcome[name] for batch in done for name in batch.outcomes),
            problems=tuple(problem for batch in done for problem in batch.problems), interrupted=interrupted,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.replicates)

    @property
    def sound(self) -> NDArray[np.bool_]:
        """(B,) which replicates have a certified estimate."""
        return np.array([outcome not in FAILED for outcome in self.outcomes], dtype=bool)

    @property
    def failures(self) -> int:
        """How many replicates have none."""
        return int((~self.sound).sum())

    @property
    def frame(self) -> pd.DataFrame:
        """Long frame: replicate, group, term, term2, quantity, estimate; missing where a replicate failed."""
        B, K = self.values.shape
        frame = pd.DataFrame(self.names, columns=NAMES).iloc[np.tile(np.arange(K), B)].reset_index(drop=True)
        frame.insert(0, "replicate", np.repeat(self.replicates, K))
        frame["estimate"] = np.where(self.sound[:, None], self.values, np.nan).ravel()
        return frame

    @property
    def table(self) -> pd.DataFrame:
        """group, term, term2, quantity, estimate, bias (mean of the replicates less the estimate), se (their sd)."""
        frame = pd.DataFrame(self.names, columns=NAMES)
        frame["estimate"] = self.fitted
        sound = self.values[self.sound]
        frame["bias"] = sound.mean(axis=0) - self.fitted if len(sound) else np.nan
        frame["se"] = sound.std(axis=0, ddof=1) if len(sound) > 1 else np.nan
        return frame[frame["quantity"].isin(SHOWN)].reset_index(drop=True)

    def intervals(self, kind: IntervalKind = "percentile", level: float = 0.95) -> Intervals:
        """Intervals from the replicates that were fitted.

        percentile   quantiles of the replicates (linear between order statistics)
        basic        twice the estimate less those: the quantiles of the error, turned round
        normal       estimate less bias ± z sd of the replicates
        studentized  estimate less se times the quantiles of (replicate - estimate) / its se: fixed effects only

        Source: Davison & Hinkley (1997), Bootstrap Methods and their Application, ch. 5. Raises FitError for an unknown
        kind, a level outside (0, 1), and fewer than two replicates.
        """
        if kind not in get_args(IntervalKind):
            raise FitError(f"`kind` is one of {', '.join(get_args(IntervalKind))}; found {kind!r}. Use one of these.")
        if not 0 < level < 1:
            raise FitError(f"`level` is a probability between 0 and 1; found {level!r}. Use for example level=0.95.")
        sound = self.values[self.sound]
        if len(sound) < 2:
            raise FitError(
                f"Intervals need two replicates or more; found {len(sound)} that could be fitted. Draw more."
            )
        tails = [0.5 - 0.5 * level, 0.5 + 0.5 * level]
        rows = []
        for k, names in enumerate(self.names):
            if names[3] not in SHOWN or (kind == "studentized" and names[3] != "effect"):
                continue
            limits = self._limits(kind, sound, k, tails, quantile(level))
            rows.append((*names, float(self.fitted[k]), *limits, f"{kind} bootstrap"))
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        return Intervals(method="bootstrap", level=level, frame=frame, notes=self.notes)

    def _limits(self, kind: IntervalKind, sound: Array, k: int, tails: list[float], z: float) -> tuple[float, float]:
        values, fitted = sound[:, k], float(self.fitted[k])
        if kind == "normal":
            centre, half = 2 * fitted - float(values.mean()), z * float(values.std(ddof=1))
            return centre - half, centre + half
        if kind == "studentized":
            s = self.names.index(("", self.names[k][1], "", "se"))
            low, high = np.quantile((values - fitted) / sound[:, s], tails)
            return fitted - float(high * self.fitted[s]), fitted - float(low * self.fitted[s])
        low, high = (float(value) for value in np.quantile(values, tails))
        return (low, high) if kind == "percentile" else (2 * fitted - high, 2 * fitted - low)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that belong to every number made of these replicates."""
        out = []
        if self.failures:
            out.append(f"{self.failures} of {len(self)} replicates FAILED and are left out. {NOT_RANDOM}")
        if len(self) < self.requested:
            out.append(f"Interrupted: {len(self)} of {self.requested} replicates are done.")
        if self.sound.sum() == 1:
            out.append("One replicate has no standard error. Draw more.")
        if self.kind == "wild":
            out.append(WILD)
        return tuple(out)

    def summary(self) -> str:
        """Estimate, bias and standard error as text, at most 80 columns wide."""
        of = f", {self.weights} weights" if self.weights else ""
        lines = [
            f"{self.kind.capitalize()} bootstrap{of}: {len(self)} replicates, seed {self.seed}, {self.method.upper()}"
        ]
        lines += textwrap.wrap(self.formula, WIDTH, initial_indent="  ", subsequent_indent="  ")
        singular = sum(outcome in (LMMOutcome.AT_ZERO, LMMOutcome.SINGULAR) for outcome in self.outcomes)
        if singular:
            lines.append(f"{singular} of them on the boundary of the parameter space")
        lines.append(f"{'':<40}{'estimate':>13}{'bias':>13}{'se':>13}")
        for *names, estimate, bias, se in self.table.itertuples(index=False):
            lines += labelled(name(*names), 40, f" {estimate:>12.6g} {_number(bias)} {_number(se)}")
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, WIDTH)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary()


def _number(value: float) -> str:
    """A column of the summary: a dash where there is no number."""
    return f"{'-':>12}" if np.isnan(value) else f"{value:>12.4g}"
