"""Which variance components the rows can tell apart, against the n x n matrices themselves."""

from dataclasses import replace

import numpy as np
import pytest
from design_tables import table
from numpy.testing import assert_allclose

from hierlmm.design import build_lmm
from hierlmm.design.directions import Residuals, inner_products, working
from hierlmm.design.random import random_part
from hierlmm.design.residual import residual_rows
from hierlmm.design.source import read
from hierlmm.design.weights import RowWeights
from hierlmm.errors import DesignError, SpecError
from hierlmm.spec import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    HeterogeneousAR1,
    HeterogeneousCompoundSymmetry,
    Independent,
    Stratified,
    Toeplitz,
    Unstructured,
    lmm,
)

PLAIN = Residuals(Independent(), None, RowWeights(None, None))
ROWS = np.arange(72)
DATA = table(z=np.cos(ROWS), k=["p", "q", "r"] * 24, c=np.repeat(ROWS[:12] % 4, 6))
FORMULAS = [
    "y ~ x + (1 | g)",
    "y ~ x + (x | g)",
    "y ~ x + (x || g)",
    "y ~ x + (1 + x + z | g)",
    "y ~ x + (x | g) + (1 | k)",
    "y ~ x + (x | g) + (z | k)",
    "y ~ x + (1 | g/k)",
    "y ~ x + (c | g)",
]


def derivatives(factors):
    """Dense dV/dpsi: the identity, and z_a z_b' + z_b z_a' within levels, for every free entry of every block."""
    out = [np.eye(72)]
    for factor in factors:
        Z, same = working(factor), factor.codes[:, None] == factor.codes
        for block in factor.blocks:
            for i, a in enumerate(block):
                for b in block[i:]:
                    S = np.outer(Z[:, a], Z[:, b])
                    out.append((S + S.T) * same)
    return np.array(out)


@pytest.mark.parametrize("formula", FORMULAS)
def test_inner_products_equal_traces_of_dense_matrices(formula):
    """tr(S_i S_j) from per-level sums and from 72 x 72 matrices."""
    factors = build_lmm(lmm(formula), DATA).factors
    S = derivatives(factors)

    names, gram = inner_products(factors, PLAIN)

    assert len(names) == len(S)
    assert_allclose(gram, np.einsum("iab,jab->ij", S, S), rtol=1e-11, atol=1e-9)


CONFOUNDED = [
    ("y ~ x + (1 | h)", {"h": ROWS}),
    ("y ~ x + (1 | g) + (1 | h)", {"h": np.repeat(ROWS[:12] * 2, 6)}),
    ("y ~ x + (1 | g) + (1 | g:h)", {"h": np.repeat(ROWS[:12], 6)}),
    ("y ~ x + (h | g)", {"h": np.repeat(ROWS[:12] % 2, 6)}),
    ("y ~ x + (h || g)", {"h": np.repeat(ROWS[:12] % 2 + 1.0, 6) * 0 + 2.0}),
    ("y ~ 1 + (1 | g) + (0 + h | g)", {"h": ["u", "v"] * 36}),
    ("y ~ x + (1 | g) + (1 | g:h)", {"h": ROWS}),
    ("y ~ x + (0 + h | g)", {"h": np.tile([-1.0, 1.0], 36) * 3, "g": ROWS}),
]


@pytest.mark.parametrize(("formula", "columns"), CONFOUNDED)
def test_confounded_components_are_refused(formula, columns):
    """The dense derivatives are linearly dependent in each case, which is the witness."""
    with pytest.raises(DesignError, match="cannot be told from"):
        build_lmm(lmm(formula), DATA.assign(**columns))


def test_slope_of_a_group_covariate_with_three_values_is_identified():
    """Three variances determine the three entries of the covariance matrix; two would not."""
    factors = build_lmm(lmm("y ~ x + (c | g)"), DATA).factors
    S = derivatives(factors).reshape(4, -1)

    assert np.linalg.matrix_rank(S) == 4


def test_heteroscedastic_singletons_are_identified():
    """(0 + x | row) with several |x| is a variance that grows with x squared, not the residual variance."""
    assert build_lmm(lmm("y ~ 1 + (0 + x | h)"), DATA.assign(h=ROWS)).factors[0].coefficients == ("x",)


def covariance(residual, theta, t, same):
    """R of 72 rows by its textbook definition (Pinheiro & Bates 2000, ch. 5): sds by occasion from theta's head."""
    match residual:
        case CompoundSymmetry():
            return theta[0] * same * np.where(np.eye(72), 1, theta[1])
        case HeterogeneousCompoundSymmetry():
            return np.outer(theta[t], theta[t]) * same * np.where(np.eye(72), 1, theta[-1])
        case AR1():
            return theta[0] * same * theta[1] ** np.abs(t[:, None] - t)
        case HeterogeneousAR1():
            return np.outer(theta[t], theta[t]) * same * theta[-1] ** np.abs(t[:, None] - t)
        case ContinuousAR1(nugget=True):
            near = np.exp(-np.abs(t[:, None] - t) / theta[1])
            return theta[0] * same * np.where(np.eye(72), 1, theta[2] * near)
        case ContinuousAR1():
            return theta[0] * same * np.exp(-np.abs(t[:, None] - t) / theta[1])
        case Toeplitz():
            return same * theta[np.abs(t[:, None] - t)]
        case Antedependence():
            T = t.max() + 1
            log = np.concatenate([[0], np.cumsum(np.log(theta[T:]))])
            return np.outer(theta[t], theta[t]) * same * np.exp(-np.abs(log[t][:, None] - log[t]))
        case Unstructured():
            T = t.max() + 1
            S = np.zeros((T, T))
            S[np.triu_indices(T)] = theta
            S = S + np.triu(S, 1).T
            return same * S[t][:, t]


def size(residual, T):
    kind = type(residual)
    sizes = {HeterogeneousCompoundSymmetry: T + 1, HeterogeneousAR1: T + 1, Toeplitz: T, Antedependence: 2 * T - 1}
    return sizes.get(kind, T * (T + 1) // 2 if kind is Unstructured else 2 + getattr(residual, "nugget", False))


def witness(residual, formula, data):
    """Rank of all derivatives of V, those of R by central differences at a random point, and their number."""
    t = data["t"].to_numpy()
    same = data["u"].to_numpy()[:, None] == data["u"].to_numpy()
    theta = np.random.default_rng(7).uniform(0.3, 0.9, size(residual, t.max() + 1))
    step = 1e-5
    moved = [
        (covariance(residual, theta + e, t, same) - covariance(residual, theta - e, t, same)) / (2 * step)
        for e in step * np.eye(len(theta))
    ]
    random = derivatives(random_part(lmm(formula, residual=residual), *complete_columns(data))[0])[1:]
    S = np.array([*moved, *random]).reshape(len(moved) + len(random), -1)
    singular = np.linalg.svd(S / np.linalg.norm(S, axis=1, keepdims=True), compute_uv=False)
    return int((singular > 1e-6).sum()), len(S)


def complete_columns(data):
    source = read(data, list(data.columns))
    return source.columns, source.index


WITHIN = DATA.assign(t=np.tile(np.arange(6), 12), u=DATA["g"], c=np.repeat(ROWS[:12] % 4, 6))
PAIRS = DATA.assign(t=np.tile([0, 1], 36), u=np.repeat(ROWS[:36], 2), s=np.repeat(ROWS[:12], 6))
RESIDUALS = [
    CompoundSymmetry("u"),
    HeterogeneousCompoundSymmetry("u", "t"),
    AR1("u", "t"),
    HeterogeneousAR1("u", "t"),
    ContinuousAR1("u", "t"),
    ContinuousAR1("u", "t", nugget=True),
    Toeplitz("u", "t"),
    Antedependence("u", "t"),
    Unstructured("u", "t"),
]
BESIDE = ["(1 | g)", "(1 | u)", "(x | g)", "(0 + x | g)", "(1 | k)", "(1 | g) + (1 | k)", "(t || g)"]


@pytest.mark.parametrize("residual", RESIDUALS, ids=repr)
@pytest.mark.parametrize("random", BESIDE)
@pytest.mark.parametrize("data", [WITHIN, PAIRS], ids=["six rows a group", "two"])
def test_random_effects_beside_residual_structures_are_accepted_where_identified(residual, random, data):
    """The rank of the dense derivatives of V says whether; a spec may be refused without data already."""
    formula = f"y ~ 1 + {random}"
    try:
        rank, count = witness(residual, formula, data)
    except SpecError:
        return
    refusal = refusal_of(lmm(formula, residual=residual), data)

    if "nugget needs pairs" not in refusal:
        assert ("cannot be told from" in refusal) == (rank < count)
        assert bool(refusal) == (rank < count)


def refusal_of(spec, data):
    try:
        build_lmm(spec, data)
    except DesignError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("random", ["identity(0 + h | g)", "cs(0 + h | g)", "identity(0 + x + z | g)"])
def test_blocks_of_one_variance_move_all_their_entries_at_once(random):
    """Inner products against the sums of the dense matrices of the block's entries."""
    data = DATA.assign(h=["u", "v", "w"] * 24)
    factors = build_lmm(lmm(f"y ~ 1 + {random}"), data).factors
    Z, same = working(factors[0]), factors[0].codes[:, None] == factors[0].codes
    q = Z.shape[1]
    S = [np.eye(72), 2 * Z @ Z.T * same]
    if factors[0].structures == ("cs",):
        S.append(Z @ (np.ones((q, q)) - np.eye(q)) @ Z.T * same)

    _, gram = inner_products(factors, PLAIN)

    assert_allclose(gram, np.einsum("iab,jab->ij", S, S), rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (x | g) + (1 | k)"])
@pytest.mark.parametrize("strata", [False, True])
def test_counts_and_relative_variances_enter_as_repeated_rows_with_their_variances(formula, strata):
    """The Gram matrix of the table written out, residual directions diag(v) or those of the strata."""
    count, v = 1 + ROWS % 3, 1.0 + ROWS % 5
    again = np.repeat(ROWS, count)
    stratum = ROWS % 2
    factors = build_lmm(lmm(formula), DATA).factors
    written = [replace(f, Z=working(f)[again], codes=f.codes[again]) for f in factors]
    S = []
    for s in (0, 1) if strata else (None,):
        S.append(np.diag((v / v.mean() * (1 if s is None else stratum == s))[again]))
    for factor in written:
        same = factor.codes[:, None] == factor.codes
        for a, b in [(0, 0), (0, 1), (1, 1)][: 3 if factor.Z.shape[1] > 1 else 1]:
            M = np.outer(factor.Z[:, a], factor.Z[:, b])
            S.append((M + M.T) * same)
    rows = None
    if strata:
        rows = residual_rows(Stratified("r"), *complete_columns(DATA.assign(r=stratum)))[0]
    residuals = Residuals(Stratified("r") if strata else Independent(), rows, RowWeights(count.astype(float), v))

    _, gram = inner_products(factors, residuals)

    assert_allclose(gram, np.einsum("iab,jab->ij", S, S), rtol=1e-11, atol=1e-9)
