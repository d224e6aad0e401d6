"""What may be done to the data without changing the answer, on random tables of every shape."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_cases import (
    EXACT,
    FORMULAS,
    METHODS,
    Dense,
    assert_close,
    assert_same_model,
    assert_same_variances,
    checked,
    tables,
)
from numpy.testing import assert_allclose

import hierlmm as hl

SHIFTS = st.sampled_from([0.0, -3.0, 250.0])
SCALES = st.sampled_from([1e-6, 0.3, -1.0, -40.0, 1e6])
SEEDS = st.integers(0, 2**32 - 1)


@given(data=tables(), formula=FORMULAS, method=METHODS, seed=SEEDS)
@checked(25)
def test_order_of_rows_does_not_matter(data, formula, method, seed):
    """Permuted rows: criterion, variances, coefficients and BLUPs; fitted values in the new order."""
    one = hl.fit(hl.lmm(formula), data, method)
    other = hl.fit(one.spec, data.sample(frac=1, random_state=seed), method)

    assert_same_variances(one, other)
    assert_close(other.objective, one.objective, 1.0)
    assert_close(other.beta, one.beta, 1.0)
    for b, c in zip(one.b, other.b, strict=True):
        assert_close(c, b, np.std(data["y"]))
    assert_close(other.conditional_fitted[data.index], one.conditional_fitted, np.std(data["y"]))


@given(data=tables(), formula=FORMULAS, method=METHODS, seed=SEEDS)
@checked(25)
def test_names_of_groups_permute_their_effects(data, formula, method, seed):
    """Other names for the groups, in another order: the same effects and errors under the new names."""
    names = np.random.default_rng(seed).permutation(9)
    renamed = data["g"].map(lambda name: f"new {names[int(name[1:])]}")
    one = hl.fit(hl.lmm(formula), data, method)
    other = hl.fit(one.spec, data.assign(g=renamed), method)

    assert_same_variances(one, other)
    f = [factor.name for factor in one.design.factors].index("g")
    new = dict(zip(data["g"], renamed, strict=True))
    places = [list(other.design.factors[f].levels).index(new[old]) for old in one.design.factors[f].levels]
    assert_close(other.b[f][places], one.b[f], np.std(data["y"]))
    assert_close(other.b_error[f][places], one.b_error[f], one.sigma2)


@given(data=tables(), formula=FORMULAS, method=METHODS, shift=SHIFTS, scale=SCALES)
@checked(30)
def test_units_and_origin_of_the_response(data, formula, method, shift, scale):
    """y -> a + c y: variances by c², effects by c, the intercept by a as well; -2 log density by 2 nu log|c|."""
    one = hl.fit(hl.lmm(formula), data, method)
    other = hl.fit(one.spec, data.assign(y=scale * (shift + data["y"])), method)
    n, p = one.design.X.shape
    sd = np.std(data["y"])
    moved = one.beta.copy()
    moved[0] += shift

    assert_same_variances(one, other, scale)
    assert_close(other.beta / scale, moved, abs(shift) + sd)
    assert_close(other.vcov_beta / scale**2, one.vcov_beta, np.diagonal(one.vcov_beta).max())
    for b, c in zip(one.b, other.b, strict=True):
        assert_close(c / scale, b, sd)
    nu = n - p if method == "reml" else n
    assert_close(other.objective, one.objective + 2 * nu * np.log(abs(scale)), n)


@given(
    data=tables(),
    formula=st.sampled_from(["y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + z + (x | g)", "y ~ x + (x | g) + (1 | h)"]),
    method=METHODS,
    shift=SHIFTS,
    scale=SCALES,
)
@checked(30)
def test_units_and_origin_of_a_predictor(data, formula, method, shift, scale):
    """x -> c (x + a) where every coefficient of x has its intercept: effects and covariances by the inverse map."""
    one = hl.fit(hl.lmm(formula), data, method)
    other = hl.fit(one.spec, data.assign(x=scale * (data["x"] + shift)), method)
    p = len(one.beta)
    back = np.eye(p)  # coefficients on the old scale from those on the new
    back[0, 1], back[1, 1] = scale * shift, scale

    assert_close(other.sigma2, one.sigma2)
    assert_close(back @ other.beta, one.beta, 1.0)
    assert_close(back @ other.vcov_beta @ back.T, one.vcov_beta, np.diagonal(one.vcov_beta).max() * (1 + shift**2))
    for G, H in zip(one.G, other.G, strict=True):
        own = back[:2, :2] if "(x |" in formula and len(G) == 2 else np.eye(len(G))
        assert_close(own @ H @ own.T, G, (np.diagonal(G).max() + one.sigma2) * (1 + shift**2))
    change = 2 * np.log(abs(scale)) if method == "reml" else 0.0
    assert_close(other.objective, one.objective + change, len(data))


@given(data=tables(), method=METHODS, random=st.sampled_from(["(1 | g)", "(z | g)", "(1 | g) + (1 | h)"]), seed=SEEDS)
@checked(25)
def test_another_basis_of_the_fixed_effects(data, method, random, seed):
    """X -> X B: the same variances and fitted values; coefficients by B⁻¹; the restricted criterion by 2 log|det B|."""
    B = np.eye(3)
    B[:, 1:] = np.random.default_rng(seed).uniform(-2, 2, (3, 2)) + 3 * np.eye(3)[:, 1:]
    X = np.column_stack([np.ones(len(data)), data["x"], data["z"]]) @ B
    one = hl.fit(hl.lmm(f"y ~ x + z + {random}"), data, method)
    other = hl.fit(hl.lmm(f"y ~ u + v + {random}"), data.assign(u=X[:, 1], v=X[:, 2]), method)

    assert_same_variances(one, other)
    assert_close(B @ other.beta, one.beta, 1.0 + np.abs(other.beta).max() * np.abs(B).max())
    assert_close(other.conditional_fitted, one.conditional_fitted, np.std(data["y"]))
    change = 2 * np.linalg.slogdet(B)[1] if method == "reml" else 0.0
    assert_close(other.objective, one.objective + change, len(data))


@given(data=tables(), formula=FORMULAS, method=METHODS, seed=SEEDS)
@checked(25)
def test_fixed_effects_added_to_the_response_are_found(data, formula, method, seed):
    """y -> y + X d: variances, criterion and BLUPs as they were, beta + d."""
    one = hl.fit(hl.lmm(formula), data, method)
    d = np.random.default_rng(seed).normal(0, 3, len(one.beta))
    other = hl.fit(one.spec, data.assign(y=data["y"] + one.design.X @ d), method)

    assert_same_variances(one, other)
    assert_close(other.beta, one.beta + d, 1.0)
    assert_close(other.objective, one.objective, 1.0)
    for b, c in zip(one.b, other.b, strict=True):
        assert_close(c, b, np.std(data["y"]))


@given(data=tables(), formula=FORMULAS, seed=SEEDS)
@checked(15)
def test_reml_is_the_likelihood_of_any_error_contrasts(data, formula, seed):
    """For every A with A'X = 0 the density of A'y differs from the restricted one by log|A'A| - log|X'X| alone.

    Harville (1974), Biometrika 61:383-385. Two bases: one orthonormal, one of residuals recombined at random.
    """
    fit = hl.fit(hl.lmm(formula), data)
    dense = Dense.of(fit)
    n, p = dense.X.shape
    complement = np.linalg.qr(dense.X, mode="complete").Q[:, p:]
    mixed = complement @ np.random.default_rng(seed).normal(size=(n - p, n - p))
    V = dense.V(fit.G, fit.sigma2)

    for A in (complement, mixed):
        C, e = A.T @ V @ A, A.T @ dense.y
        value = (n - p) * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + e @ np.linalg.solve(C, e)
        constant = np.linalg.slogdet(A.T @ A)[1] - np.linalg.slogdet(dense.X.T @ dense.X)[1]
        # a random square matrix of this size has a condition number of up to 1e5
        assert_allclose(value - constant, fit.objective, rtol=EXACT, atol=1e-8)
        # and sigma² solves its likelihood equation, also where a variance is held at zero
        by_scale = np.linalg.solve(C, A.T @ V @ A).trace() - e @ np.linalg.solve(C, e)
        assert_allclose(by_scale / (n - p), 0.0, atol=1e-8)


@given(data=tables(), formula=FORMULAS, method=METHODS, seed=SEEDS)
@checked(25)
def test_a_frequency_is_so_many_equal_rows(data, formula, method, seed):
    """Frequency weights of 1 to 3 equal the rows written out, in every number of the fit."""
    data = data.assign(w=np.random.default_rng(seed).integers(1, 4, len(data)))
    written = data.loc[data.index.repeat(data["w"])].reset_index(drop=True)
    one = hl.fit(hl.lmm(formula), written, method)
    other = hl.fit(hl.lmm(formula, weights=hl.Frequency("w")), data, method)

    assert_same_variances(one, other)
    assert_close(other.objective, one.objective, 1.0)
    assert_close(other.beta, one.beta, 1.0)
    assert_close(other.vcov_beta, one.vcov_beta, np.diagonal(one.vcov_beta).max())
    assert_close([other.aic, other.bic], [one.aic, one.bic], 1.0)


@given(data=tables(), formula=FORMULAS, method=METHODS)
@checked(15)
def test_a_precision_is_no_frequency(data, formula, method):
    """Precisions of 2 throughout say that sigma² is that of rows twice as noisy: everything else stays as it was.

    Rows counted twice have another likelihood, and a sigma² of the rows as they are.
    """
    plain = hl.fit(hl.lmm(formula), data, method)
    precise = hl.fit(hl.lmm(formula, weights=hl.Precision("w")), data.assign(w=2.0), method)
    counted = hl.fit(hl.lmm(formula, weights=hl.Frequency("w")), data.assign(w=2), method)

    assert_close(precise.sigma2, 2 * plain.sigma2)
    assert_close(precise.objective, plain.objective, 1.0)
    assert_close(precise.vcov_beta, plain.vcov_beta, np.diagonal(plain.vcov_beta).max())
    for G, H in zip(plain.G, precise.G, strict=True):
        assert_close(H, G, np.diagonal(G).max() + plain.sigma2)
    assert abs(counted.objective - plain.objective) > 1
    assert counted.sigma2 < 0.9 * precise.sigma2


@given(data=tables(), formula=FORMULAS, method=METHODS)
@checked(15)
def test_a_column_of_zeros_adds_nothing(data, formula, method):
    """A predictor that is zero in every row is left out and named; nothing else changes."""
    one = hl.fit(hl.lmm(formula), data, method)
    other = hl.fit(hl.lmm(formula.replace("y ~ x", "y ~ x + nothing")), data.assign(nothing=0.0), method)

    assert "nothing" in " ".join(map(str, other.design.aliased))
    assert other.design.fixed == one.design.fixed
    assert_same_variances(one, other)
    assert_same_model(one, other)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("pieces", [2, 7])
def test_copies_of_the_data_move_nothing_but_the_errors(method, pieces):
    """k copies of each group under new names: the ML estimates are those of one copy, exactly; REML's tend to them."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(8), 5)
    one = {"g": g, "x": rng.normal(size=40), "y": rng.normal(size=8)[g] + rng.normal(size=40)}
    copies = pd.concat([pd.DataFrame(one).assign(g=[f"{k}/{i}" for i in g]) for k in range(pieces)])
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), pd.DataFrame(one), "ml")
    many = hl.fit(hl.lmm("y ~ x + (1 | g)"), copies, method)

    if method == "ml":
        assert_close(many.beta, fit.beta, 1.0)
        assert_close([many.sigma2, many.G[0].item()], [fit.sigma2, fit.G[0].item()])
        assert_close(many.objective, pieces * fit.objective)
        assert_close(many.vcov_beta, fit.vcov_beta / pieces, np.diagonal(fit.vcov_beta).max())
    else:
        assert abs(many.sigma2 / fit.sigma2 - 1) < 0.05 / (pieces - 1)
