"""Spatial area-level models for tests: published data, simulated ones, and dense Gaussian algebra as a witness."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from hierlmm.likelihood.area.correlated import blocks_of, independent, rotation
from hierlmm.likelihood.area.spatial import problem

DATA = Path(__file__).parents[2] / "data"
REFERENCE = json.loads((DATA / "spatial_exact.json").read_text())


def proximity(name, labels):
    pairs = pd.read_csv(DATA / f"{name}_proximity.csv.gz", dtype={"area": str, "neighbour": str})
    wide = pairs.pivot_table(index="area", columns="neighbour", values="weight", fill_value=0.0)
    return wide.reindex(index=labels, columns=labels, fill_value=0.0)


def published(name):
    """y, X, D and W of a data set of `spatial_exact.json`."""
    if name == "grapes":
        table = pd.read_csv(DATA / "grapes.csv")
        y, D = table["grapehect"].to_numpy(), table["var"].to_numpy()
        X, labels = table[["area", "workdays"]].to_numpy(), table["municipality"]
    else:
        table = pd.read_csv(DATA / "eusilcA_districts.csv")
        y, D = table["mean"].to_numpy(), table["variance"].to_numpy()
        X = np.column_stack([np.ones(len(table)), table[["cash", "self_empl"]]])
        labels = table["domain"]
    return y, X, D, proximity(name, labels).to_numpy()


def published_problem(name):
    y, X, D, W = published(name)
    return problem(W, y, X, independent(D), np.ones(len(y), dtype=bool))


class Dense:
    """The model by (M, M) matrices and their inverses, as a textbook writes it."""

    def __init__(self, y, X, S, W, inside):
        self.y, self.X, self.S, self.W = y, X, S, W
        self.inside = inside

    def problem(self):
        return problem(self.W, self.y, self.X, rotation(blocks_of(self.S)), self.inside)

    def G(self, A, rho):
        B = np.linalg.inv(np.eye(len(self.W)) - rho * self.W)
        return A * B @ B.T

    def at(self, A, rho):
        """V⁻¹, (X'V⁻¹X)⁻¹, β, c = G_·s V⁻¹ and P."""
        G, s = self.G(A, rho), self.inside
        Vi = np.linalg.inv(G[np.ix_(s, s)] + self.S)
        X = self.X[s]
        cov = np.linalg.inv(X.T @ Vi @ X)
        P = Vi - Vi @ X @ cov @ X.T @ Vi
        return Vi, cov, cov @ X.T @ Vi @ self.y, G[:, s] @ Vi, P

    def loglik(self, A, rho, method):
        Vi, cov, beta, _, _ = self.at(A, rho)
        r = self.y - self.X[self.inside] @ beta
        m, p = len(r), len(beta)
        value = -(m * np.log(2 * np.pi) - np.linalg.slogdet(Vi)[1] + r @ Vi @ r) / 2
        return value + (p * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1]) / 2 * (method == "reml")


def simulated(seed, M=14, outside=(2, 9), A=2.0, rho=0.5, correlated=True):
    """Few areas on a random directed graph with an island, some without data, correlated sampling errors."""
    rng = np.random.default_rng(seed)
    W = (rng.random((M, M)) < 0.25) * rng.random((M, M))
    np.fill_diagonal(W, 0.0)
    W[3] = 0.0
    W /= np.maximum(W.sum(axis=1), 1e-300)[:, None]
    inside = np.ones(M, dtype=bool)
    inside[list(outside)] = False
    m = int(inside.sum())
    S = np.diag(rng.uniform(0.3, 2.0, m))
    if correlated:
        S[:4, :4] += 0.2
        S[5:9, 5:9] += 0.3 * np.eye(4)[::-1]
    X = np.column_stack([np.ones(M), rng.normal(size=M)])
    v = np.linalg.solve(np.eye(M) - rho * W, np.sqrt(A) * rng.normal(size=M))
    y = (X @ [50.0, 2.0] + v)[inside] + np.linalg.cholesky(S) @ rng.normal(size=m)
    return Dense(y, X, S, W, inside)
