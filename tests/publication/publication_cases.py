"""Small area-level data sets and their answers from dense textbook matrices, written apart from the package."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

import hierlmm as hl

SPEC = hl.fay_herriot(
    "y ~ x", sampling_variance="D", area="area", unsampled="synthetic", zero_variance="direct"
)


@cache
def table() -> pd.DataFrame:
    """24 areas in three regions and two types, two without a direct estimate, one without sampling error."""
    rng = np.random.default_rng(20261121)
    M = 24
    x = rng.uniform(0, 2, M)
    D = rng.uniform(0.2, 1.5, M)
    theta = 10 + 2 * x + rng.normal(0, 0.8, M)
    y = theta + np.sqrt(D) * rng.standard_normal(M)
    D[5] = 0.0
    y[[3, 17]], D[[3, 17]] = np.nan, np.nan
    return pd.DataFrame(
        {
            "area": [f"a{k:02d}" for k in rng.permutation(M)],
            "y": y,
            "x": x,
            "D": D,
            "pop": rng.integers(50, 500, M),
            "region": np.array(["north", "south", "west"])[rng.integers(0, 3, M)],
            "type": np.array(["town", "rural"])[np.arange(M) % 2],
        }
    )


@cache
def fitted(method: str = "reml") -> hl.AreaFit:
    """The fit of the table."""
    return hl.fit(SPEC, table(), method)


@cache
def posterior() -> hl.AreaPosterior:
    """The exact posterior of the table, with draws."""
    return hl.posterior(SPEC, table(), draws=20_000, seed=5)


def by_area(column: str) -> pd.Series:
    """A column of the table keyed by area."""
    return table().set_index("area")[column]


def shares(by: str | None = None) -> pd.Series:
    """Population shares, of all areas or within each group."""
    pop = by_area("pop").astype(float)
    return pop / (pop.sum() if by is None else pop.groupby(by_area(by)).transform("sum"))


def rows_of(weights: pd.Series, by: str | None = None) -> np.ndarray:
    """(R, M) weights of sorted groups."""
    w = weights.to_numpy()
    if by is None:
        return w[None]
    groups = by_area(by).to_numpy()
    return np.stack([w * (groups == g) for g in sorted(set(groups))])


def blup_given(A: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At a known A: estimates (M,), covariance matrix of their errors, and H (M, m) with estimates H y of the fit.

    From Var(Hy − θ) = H V H' − A (H E' + E H') + A I, E picking the areas in the fit out of all.
    """
    data = table()
    X = np.column_stack([np.ones(len(data)), data["x"]])
    into = (data["D"] > 0).to_numpy()
    Xs, D = X[into], data["D"].to_numpy()[into]
    Vi = np.diag(1 / (A + D))
    beta = np.linalg.solve(Xs.T @ Vi @ Xs, Xs.T @ Vi)
    E = np.eye(len(data))[:, into]
    H = X @ beta + A * E @ Vi @ (np.eye(len(D)) - Xs @ beta)
    V = np.diag(A + D)
    errors = H @ V @ H.T - A * (E @ H.T + H @ E.T) + A * np.eye(len(data))
    estimate = H @ data["y"].to_numpy()[into]
    known = (data["D"] == 0).to_numpy()
    estimate[known] = data["y"].to_numpy()[known]
    H[known], errors[known], errors[:, known] = 0, 0, 0
    return estimate, errors, H


def restricted_loglik(A: float) -> float:
    """log restricted likelihood of the table up to a constant, by dense matrices."""
    data = table()
    into = (data["D"] > 0).to_numpy()
    y, D = data["y"].to_numpy()[into], data["D"].to_numpy()[into]
    X = np.column_stack([np.ones(into.sum()), data["x"][into]])
    Vi = np.diag(1 / (A + D))
    XVX = X.T @ Vi @ X
    r = y - X @ np.linalg.solve(XVX, X.T @ Vi @ y)
    return -0.5 * (np.log(A + D).sum() + np.linalg.slogdet(XVX)[1] + r @ Vi @ r)
