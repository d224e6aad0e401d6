"""The methods of moments written with n x n matrices, as the textbooks define them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd


def projection(columns):
    return columns @ np.linalg.pinv(columns)


def crossed():
    """Two crossed factors with empty and unequal cells, and a covariate."""
    generator = np.random.default_rng(3)
    data = pd.DataFrame({"a": generator.integers(0, 5, 40), "b": generator.integers(0, 4, 40)})
    return _response(data, generator, data["b"].to_numpy(), "y ~ x + (1 | a) + (1 | b)")


def nested():
    """Groups within groups, unequal numbers, and a covariate."""
    generator = np.random.default_rng(4)
    inner = np.repeat(range(11), generator.integers(1, 6, 11))
    data = pd.DataFrame({"a": inner // 3, "b": inner % 3})
    return _response(data, generator, inner, "y ~ x + (1 | a/b)")


def _response(data, generator, second, formula):
    data["x"] = generator.uniform(size=len(data))
    effects = generator.normal(size=20)[data["a"]] + generator.normal(size=20)[second]
    data["y"] = 3 + 2 * data["x"] + effects + generator.normal(size=len(data))
    return data, formula, np.column_stack([np.ones(len(data)), data["x"]])


class Dense:
    """y (n,), X (n, p), and Z one matrix of indicators a factor."""

    def __init__(self, y, X, Z):
        self.y, self.X, self.Z, self.n = y, X, Z, len(y)
        self.V = [z @ z.T for z in Z]

    def estimate(self, method):
        """Estimates, and their covariance with V at them."""
        if method in ("mivque0", "minque", "minque_iterated"):
            prior = np.zeros((self.n, self.n)) if method == "mivque0" else sum(self.V)
            theta, forms, S = self.minque(self.V, prior)
            while method == "minque_iterated":
                before = theta
                theta, forms, S = self.minque(
                    self.V, sum(t * V for t, V in zip(theta, self.V, strict=False)) / theta[-1]
                )
                if np.abs(theta - before).max() < 1e-13 * np.abs(theta).max():
                    break
            return theta, self.covariance(forms, np.linalg.inv(S), theta)
        forms = {"henderson1": self.one, "henderson2": self.two, "henderson3_partial": self.partial}.get(
            method, self.sequential
        )()
        directions = [*self.V, np.eye(self.n)]
        K = np.array([[np.trace(A @ V) for V in directions] for A in forms])
        theta = np.linalg.solve(K, [self.y @ A @ self.y for A in forms])
        return theta, self.covariance(forms, np.linalg.inv(K), theta)

    def covariance(self, forms, K, theta):
        V = self.marginal(theta)
        return K @ np.array([[2 * np.trace(A @ V @ B @ V) for B in forms] for A in forms]) @ K.T

    def marginal(self, theta):
        return theta[-1] * np.eye(self.n) + sum(t * V for t, V in zip(theta, self.V, strict=False))

    def fixed_effects(self, theta):
        """GLS with negative variances at zero."""
        V = self.marginal(np.maximum(theta, 0.0))
        W = np.linalg.solve(V, self.X)
        return np.linalg.solve(self.X.T @ W, W.T @ self.y)

    def minque(self, directions, prior):
        V = np.eye(self.n) + prior
        W = np.linalg.inv(V)
        P = W - W @ self.X @ np.linalg.inv(self.X.T @ W @ self.X) @ self.X.T @ W
        every = [*directions, np.eye(self.n)]
        S = np.array([[np.trace(P @ A @ P @ B) for B in every] for A in every])
        forms = [P @ A @ P for A in every]
        return np.linalg.solve(S, [self.y @ A @ self.y for A in forms]), forms, S

    def sequential(self):
        steps = [projection(np.column_stack([self.X, *self.Z[:i]])) for i in range(len(self.Z) + 1)]
        return [*(b - a for a, b in pairwise(steps)), np.eye(self.n) - steps[-1]]

    def partial(self):
        full = projection(np.column_stack([self.X, *self.Z]))
        without = [projection(np.column_stack([self.X, *self.Z[:i], *self.Z[i + 1 :]])) for i in range(len(self.Z))]
        return [*(full - P for P in without), np.eye(self.n) - full]

    def one(self):
        """Totals of each factor, and all squares, less those of the mean."""
        mean = np.full((self.n, self.n), 1 / self.n)
        return [*(projection(z) - mean for z in self.Z), np.eye(self.n) - mean]

    def two(self):
        """The same of y - X1 b, b by least squares with the random effects as fixed."""
        within = np.eye(self.n) - projection(np.column_stack(self.Z))
        X1 = self.X[:, 1:]
        K = np.eye(self.n) - X1 @ np.linalg.solve(X1.T @ within @ X1, X1.T @ within)
        return [K.T @ A @ K for A in self.one()]
