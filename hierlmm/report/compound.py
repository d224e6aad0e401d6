"""Pictures of compound sampling: what the prior makes of every unit's direct estimate."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hierlmm.bayes.compoundresults import CompoundPosterior
from hierlmm.frequentist.compound.results import CompoundFit
from hierlmm.report.appearance import DIRECT, DIRECT_MARKER, FIT, FIT_MARKER, GUIDE, POSTERIOR, POSTERIOR_MARKER, plain
from hierlmm.report.predicted import LIMIT


def plot_units(result: CompoundFit | CompoundPosterior, *, ax: Axes, limit: int = LIMIT) -> Axes:
    """Draw each unit's direct estimate, its estimate with 95 % interval, and the prior mean it is pulled to.

    Units run from the largest to the smallest estimate, the `limit` with the largest pull where there are more.
    Returns `ax`.
    """
    frame = _chosen(result.units, limit)
    row = np.arange(len(frame), dtype=np.float64)
    fit = isinstance(result, CompoundFit)
    colour, marker = (FIT, FIT_MARKER) if fit else (POSTERIOR, POSTERIOR_MARKER)
    ax.hlines(row, frame[["direct", "estimate"]].min(axis=1), frame[["direct", "estimate"]].max(axis=1), color=GUIDE,
              linewidth=2.6, zorder=1)  # fmt: skip
    ax.plot(frame["prior_mean"], row, "|", color=DIRECT, markersize=7, label="prior mean", zorder=2)
    ax.plot(frame["direct"], row, DIRECT_MARKER, markerfacecolor="white", markeredgecolor=DIRECT, markersize=5,
            label="direct", zorder=3)  # fmt: skip
    ax.hlines(row, frame["lower"], frame["upper"], color=colour, linewidth=1.4, zorder=4)
    ax.plot(frame["estimate"], row, marker, color=colour, markersize=4.5, zorder=5,
            label="empirical Bayes" if fit else "posterior")  # fmt: skip
    ax.set_yticks(row, [plain(str(unit)) for unit in frame["unit"]])
    ax.set_ylim(len(frame) - 0.4, -0.6)
    ax.set_xlabel("θ")
    ax.set_ylabel(plain(result.spec.unit))
    ax.legend(loc="best")
    return ax


def _chosen(units: pd.DataFrame, limit: int) -> pd.DataFrame:
    pull = (units["direct"] - units["estimate"]).abs().fillna(0.0)
    kept = units.loc[pull.sort_values(ascending=False, kind="stable").index[:limit]]
    return kept.sort_values("estimate", ascending=False, kind="stable")
