"""Cluster-robust covariance of the fixed effects: inference that leans on clusters, not on the model of V or normality.

With W_i = V_i⁻¹ of the fit, M = (X'WX)⁻¹ and e_i the marginal residuals of cluster i,

    Var(beta) = M [sum over clusters of X_i'W_i A_i e_i e_i'A_i'W_i X_i] M,

A_i = I (CR0), also multiplied by m/(m - 1) of m clusters (CR1), the symmetric matrix that makes the estimate unbiased
where V is true, A_i (V_i - X_i M X_i') A_i' = V_i (CR2), or (I - X_i M X_i'W_i)⁻¹ (CR3). Degrees of freedom are
Satterthwaite's where V is true.

Source: Liang & Zeger (1986), Biometrika 73:13-22 (CR0); Bell & McCaffrey (2002), Survey Methodology 28:169-181 (CR2,
CR3, degrees of freedom); Pustejovsky & Tipton (2018), J. Bus. Econ. Stat. 36:672-683 (GLS with working covariances).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, FitError
from hierlmm.frequentist.inference.robust_clusters import Clusters, clusters_of
from hierlmm.frequentist.lmm_frames import covariance_roots
from hierlmm.frequentist.lmm_noise import covariance_among

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
RobustType = Literal["CR0", "CR1", "CR2", "CR3"]

# Rows of a cluster beyond which its (n_i, n_i) matrices are not formed: 128 MB each.
LARGEST = 4000
# Eigenvalues this small beside the largest are zero: directions that the fixed effects reproduce within a cluster.
NOTHING = 1e-10
# Clusters below which degrees of freedom that are still smaller deserve a sentence.
FEW = 4.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RobustCovariance:
    """Cluster-robust covariance of the fixed effects of a fit.

    covariance  (p, p) labelled by the fixed effects
    frame       term, estimate, se, df (Satterthwaite), t, p (two-sided), lower, upper (95 %, t with df)
    """

    type: RobustType
    cluster: str
    clusters: int
    covariance: pd.DataFrame
    frame: pd.DataFrame

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the table should know."""
        if float(self.frame["df"].min()) >= FEW:
            return ()
        few = self.frame.loc[self.frame["df"] < FEW, "term"]
        return (
            f"Degrees of freedom below {FEW:g} ({', '.join(few)}): few clusters carry these effects, and p values from "
            "so few are rough (Bell & McCaffrey 2002).",
        )

    def summary(self) -> str:
        """The table as text, at most 80 columns wide."""
        lines = [f"Cluster-robust covariance {self.type}: {self.clusters} clusters of {self.cluster}"]
        lines.append(f"{'':<30}{'estimate':>12}{'se':>11}{'df':>8}{'t':>9}{'p':>10}")
        for row in self.frame.itertuples():
            lines.append(
                f"{str(row.term)[:29]:<30}{row.estimate:>12.6g}{row.se:>11.4g}{row.df:>8.2f}{row.t:>9.3f}{row.p:>10.3g}"
            )
        for note in self.notes:
            lines += ["", *textwrap.wrap(note, 80)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary()


def robust(fit: LMMFit, type: RobustType = "CR2", cluster: object = None) -> RobustCovariance:  # noqa: A002
    """Covariance, t and p of the fixed effects by the residuals of clusters.

    cluster  a grouping factor or column of the table by name, or the labels of the n rows; default: the outermost
             grouping factor
    Raises FitError for an unknown type and fits without residual variance; DesignError where V is not block diagonal
    over the clusters (crossed factors), where there are fewer than two, where rows were streamed or stand for several,
    and where a cluster is too large for its matrices.
    """
    if type not in get_args(RobustType):
        raise FitError(f"`type` is one of {', '.join(get_args(RobustType))}; found {type!r}. Use one of these.")
    if fit.at is None:
        raise FitError(f"A robust covariance needs a residual variance; this fit has none: {fit.outcome.value}")
    found = clusters_of(fit, cluster, "A cluster-robust covariance")
    _check_rows(fit, found)
    M, e = fit.vcov_beta, fit.marginal_residuals.to_numpy()
    meat, sums = np.zeros_like(M), _Sums([], [])
    for rows, V in _blocks(fit, found):
        X = fit.design.X[rows]
        g = _adjusted(type, X, V, M)
        score = g.T @ e[rows]
        meat += np.outer(score, score)
        sums.add(g @ M, X, V)
    if type == "CR1":
        meat *= len(found) / (len(found) - 1)
    covariance = M @ meat @ M
    names = list(fit.design.fixed)
    labelled = pd.DataFrame(0.5 * (covariance + covariance.T), names, names)
    frame = _frame(names, fit.beta, np.sqrt(np.maximum(np.diagonal(covariance), 0.0)), sums.freedom(M))
    return RobustCovariance(type=type, cluster=found.name, clusters=len(found), covariance=labelled, frame=frame)


def _check_rows(fit: LMMFit, found: Clusters) -> None:
    frequency = fit.design.frequency
    if frequency is not None and (frequency > 1).any():
        raise DesignError(
            f"Residuals belong to single rows, and here rows stand for several: frequencies go up to "
            f"{frequency.max():g}. Write each row as often as it was seen, and fit that table."
        )
    sizes = np.bincount(found.codes)
    largest = int(sizes.argmax())
    if sizes[largest] > LARGEST:
        raise DesignError(
            f"Clusters have at most {LARGEST} rows here, because V_i is formed whole; {found.labels[largest]} of "
            f"{found.name} has {sizes[largest]}. Cluster by a variable with smaller groups, or use fit.bootstrap."
        )


def _blocks(fit: LMMFit, clusters: Clusters) -> Iterator[tuple[Codes, Array]]:
    """Rows and marginal covariance V_i (n_i, n_i) of each cluster."""
    factors, roots = fit.design.factors, covariance_roots(fit)
    for rows in clusters.rows():
        V = covariance_among(fit, rows)
        for factor, root in zip(factors, roots, strict=True):
            half, codes = factor.Z[rows] @ root, factor.codes[rows]
            V += (half @ half.T) * (codes[:, None] == codes)
        yield rows, V


def _adjusted(type: RobustType, X: Array, V: Array, M: Array) -> Array:  # noqa: A002
    """A_i'W_i X_i (n_i, p)."""
    L = np.linalg.cholesky(V)
    WX = np.linalg.solve(L.T, np.linalg.solve(L, X))
    if type == "CR3":
        return np.asarray(np.linalg.solve((np.eye(len(M)) - M @ (X.T @ WX)).T, WX.T).T)
    if type != "CR2":
        return np.asarray(WX)
    D = L.T @ (V - X @ M @ X.T) @ L
    values, vectors = np.linalg.eigh(0.5 * (D + D.T))
    present = values > NOTHING * values[-1]
    half = L @ vectors[:, present]
    return np.asarray((half / np.sqrt(values[present])) @ (half.T @ WX))


@dataclass(slots=True, eq=False)
class _Sums:
    """What the degrees of freedom of each effect need: with g_i (n_i, p) per effect, d = g'Vg and h = X'g.

    P_ij = d_i where i = j, less h_i'M h_j, is the covariance of g_i'e_i and g_j'e_j where V is true.
    """

    d: list[Array]
    h: list[Array]

    def add(self, g: Array, X: Array, V: Array) -> None:
        self.d.append((g * (V @ g)).sum(axis=0))
        self.h.append(X.T @ g)

    def freedom(self, M: Array) -> Array:
        """(p,) (sum of P_ii)² / sum of P_ij²."""
        d, h = np.array(self.d), np.array(self.h)  # (m, p), (m, p, p): cluster, row of X', effect
        own = np.einsum("iaj,ab,ibj->ij", h, M, h)
        H = np.einsum("iaj,ibj->jab", h, h)
        MH = M @ H
        squares = (d * d - 2 * d * own).sum(axis=0) + np.einsum("jab,jba->j", MH, MH)
        return np.asarray((d - own).sum(axis=0) ** 2 / squares)


def _frame(names: list[str], beta: Array, se: Array, df: Array) -> pd.DataFrame:
    from scipy.special import stdtr, stdtrit

    with np.errstate(divide="ignore", invalid="ignore"):
        t = beta / se
    reach = se * stdtrit(df, 0.975)
    return pd.DataFrame(
        {
            "term": names, "estimate": beta, "se": se, "df": df, "t": t, "p": 2 * stdtr(df, -np.abs(t)),
            "lower": beta - reach, "upper": beta + reach,
        }
    )  # fmt: skip
