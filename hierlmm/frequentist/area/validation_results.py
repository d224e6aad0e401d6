"""Scores of models on data that they were not fitted to, side by side."""

from __future__ import annotations

import textwrap
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

WIDTH = 80
# The row of the direct estimates themselves, among the scores of models.
DIRECT = "direct estimates"
ANOTHER_QUESTION = (
    "Leaving out areas asks another question: how an area that was not sampled is predicted, where its own direct "
    "estimate has no weight. The two may rank models otherwise; thinning is about areas that have one."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Scores of one model: R repetitions (1 where areas were left out) of m areas; nan where there was no estimate.

    squared    (R, m) squared distance from the independent part less its known variance: without bias for the squared
               error of the estimate, and so below 0 at times
    inside     (R, m) 1 where the independent part lay in the interval of the model, 0 where not
    log_score  (R, m) log density of the independent part
    """

    name: str
    method: str
    squared: Matrix
    inside: Matrix
    log_score: Matrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Validation:
    """Models compared by thinned direct estimates, and by leaving out each area.

    areas      (m,) labels of the areas that were scored; variance (m,) their sampling variances; level: of intervals
    epsilon    share of the information to fit by; repetitions, seed: of the splits
    thinned    the scores of the direct estimates themselves and of each model; left_out those of each model, or none
    """

    areas: pd.Index
    variance: Vector
    level: float
    epsilon: float
    repetitions: int
    seed: int
    thinned: tuple[Scores, ...]
    left_out: tuple[Scores, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """Scores by thinning: one row for the direct estimates, and one a model, in the order given.

        model, method
        mse, mse_mc        mean squared error of the estimates made from the first part, and its Monte Carlo error
        behind, behind_mc, behind_se  mse less that of the best model, its Monte Carlo error, and its standard error
                           over areas, taken as independent: what another survey could change
        relative           mean over areas of the squared error over the sampling variance D: 1/ε for the direct
                           estimates themselves; no few areas with large variances decide it
        coverage           share of the independent parts inside the intervals of the model
        log_score, log_score_mc  mean log density of the independent part
        failures           repetitions without an estimate; these are left out for all
        """
        frame = _table(self.thinned)
        kept = _kept(self.thinned)
        relative = [_all(one.squared[kept] / self.variance) for one in self.thinned]
        frame.insert(list(frame.columns).index("coverage"), "relative", relative)
        return frame

    @property
    def left_out_frame(self) -> pd.DataFrame:
        """Most of these columns for predictions of each area from all others; there are no Monte Carlo errors."""
        return _table(self.left_out).drop(columns=["mse_mc", "behind_mc", "log_score_mc"])

    @property
    def by_area(self) -> pd.DataFrame:
        """model, area, mse, coverage, log_score (means over the repetitions), left_out: scores of single areas."""
        rows = []
        for left_out, scores in ((False, self.thinned), (True, self.left_out)):
            for one in scores:
                rows.append(
                    pd.DataFrame(
                        {
                            "model": one.name, "area": self.areas, "mse": _mean(one.squared),
                            "coverage": _mean(one.inside), "log_score": _mean(one.log_score), "left_out": left_out,
                        }
                    )
                )  # fmt: skip
        return pd.concat(rows, ignore_index=True)

    @property
    def best(self) -> str:
        """The model of the smallest mean squared error by thinning."""
        return _best(self.frame)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that belong to the numbers."""
        out = [
            f"mse is that of estimates made from {100 * self.epsilon:.3g} % of the information. From all of it every "
            "model does better, and the more so the less it shrinks."
        ]
        if (self.frame["mse"].to_numpy()[1:] < 0).any():
            out.append(
                "A mean squared error below 0 says that a few direct estimates are too imprecise to score by: read the "
                "column relative and the log score."
            )
        failures = int(self.frame["failures"].sum())
        if failures:
            out.append(f"{failures} fits had no estimate; their repetitions are left out for all models.")
        if self.left_out:
            out.append(ANOTHER_QUESTION)
            other = _best(self.left_out_frame)
            if len(self.left_out) > 1:
                out.append(
                    f"Both put {other} first."
                    if other == self.best
                    else f"Here they differ: thinning puts {self.best} first, leaving out areas {other}."
                )
            lost = np.isnan(np.array([one.squared for one in self.left_out])).any(axis=(0, 1))
            if lost.any():
                out.append(f"{int(lost.sum())} areas determine a coefficient alone and could not be left out.")
        return tuple(out)

    def plot(self) -> Figure:
        """How far each model is behind the best, by thinning and where areas were left out."""
        from hierlmm.report.validation_plots import validation_figure

        return validation_figure(self)

    def summary(self) -> str:
        """The scores as text, at most 80 columns wide."""
        frame, m = self.frame, len(self.areas)
        lines = [
            f"Validation on {m} areas, {self.repetitions} splits of the direct estimates, seed {self.seed}",
            f"{100 * self.epsilon:.3g} % of the information to fit by, the rest to score on",
            *_lines(frame, self.level),
        ]
        if self.left_out:
            lines += ["", "Each area left out and predicted from the others", *_lines(self.left_out_frame, self.level)]
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, WIDTH)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary()


def _table(scores: tuple[Scores, ...]) -> pd.DataFrame:
    kept = _kept(scores)
    models = [k for k, one in enumerate(scores) if one.name != DIRECT]
    means = [float(np.nanmean(one.squared[kept])) if kept.any() else np.nan for one in scores]
    best = min(models, key=lambda k: means[k]) if models else 0
    rows = []
    for k, one in enumerate(scores):
        apart = one.squared[kept] - scores[best].squared[kept]
        rows.append(
            {
                "model": one.name, "method": one.method,
                "mse": means[k], "mse_mc": _mc(one.squared[kept]),
                "behind": means[k] - means[best], "behind_mc": _mc(apart), "behind_se": _over_areas(apart),
                "coverage": _all(one.inside[kept]),
                "log_score": _all(one.log_score[kept]), "log_score_mc": _mc(one.log_score[kept]),
                "failures": int(np.isnan(one.squared).all(axis=1).sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _kept(scores: tuple[Scores, ...]) -> NDArray[np.bool_]:
    """(R,) repetitions in which every model has an estimate."""
    if not scores:
        return np.zeros(0, dtype=bool)
    return np.asarray(~np.any([np.isnan(one.squared).all(axis=1) for one in scores], axis=0))


def _mc(values: Matrix) -> float:
    """Monte Carlo standard error of the mean over repetitions."""
    if len(values) < 2:
        return np.nan
    return float(np.nanmean(values, axis=1).std(ddof=1) / np.sqrt(len(values)))


def _over_areas(values: Matrix) -> float:
    """Standard error of the mean over areas taken as independent."""
    each = _mean(values)
    each = each[np.isfinite(each)]
    return float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else np.nan


def _all(values: Matrix) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def _mean(values: Matrix) -> Vector:
    """(m,) means over the repetitions that have a value, nan where none has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=0))


def _best(frame: pd.DataFrame) -> str:
    models = frame[frame["model"] != DIRECT]
    return str(models["model"].iloc[int(np.argmin(models["mse"].to_numpy()))])


def _lines(frame: pd.DataFrame, level: float) -> list[str]:
    """The table of one kind of scores."""
    thinned = "mse_mc" in frame
    inside = f"in {100 * level:g} %"
    more = f"{'MC error':>9}{'over D':>8}" if thinned else f"{'':>17}"
    lines = [f"{'':<20}{'mse':>11}{more}{'behind':>10}{'se':>7}{inside:>8}{'log':>7}"]
    for row in frame.to_dict("records"):
        more = f"{row['mse_mc']:>9.1g}{row['relative']:>8.3g}" if thinned else f"{'':>17}"
        apart = f"{row['behind']:>10.3g}{row['behind_se']:>7.1g}" if row["behind"] else f"{'best':>10}{'':>7}"
        last = f"{100 * row['coverage']:>6.0f} %{row['log_score']:>7.2f}"
        lines.append(f"{row['model'][:19]:<20}{row['mse']:>11.4g}{more}{apart}{last}")
    return lines
