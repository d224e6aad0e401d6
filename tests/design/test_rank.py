"""Which columns are redundant, against exact rational arithmetic and constructions whose answer is known."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hierlmm.design.rank import independent, unexplained

N = 40
RNG = np.random.default_rng(1234)
ONE = np.ones(N)
U, V, W = RNG.normal(size=(3, N))
DUMMIES = np.eye(3)[np.arange(N) % 3]


def exact(X):
    """Columns that earlier ones do not determine, by elimination in rational numbers."""
    columns = [[Fraction(int(v)) for v in column] for column in X.T]
    kept, keep = [], []
    for column in columns:
        for pivot, row in kept:
            factor = column[pivot] / row[pivot]
            column = [a - factor * b for a, b in zip(column, row, strict=True)]
        pivot = next((i for i, v in enumerate(column) if v), None)
        keep.append(pivot is not None)
        if pivot is not None:
            kept.append((pivot, column))
    return keep


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 8), st.booleans())
def test_small_whole_matrices_are_judged_as_by_rational_elimination(seed, n, p, intercept):
    """Entries -1, 0, 1, with copies and sums of columns; the witness computes in fractions."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-1, 2, size=(n, p))
    if p > 2:
        X[:, -1] = X[:, 0] + X[:, 1]
    if intercept:
        X[:, rng.integers(p)] = 1

    assert independent(X.astype(float)).tolist() == exact(X)


CASES = {
    "x and 2x + 1": ([ONE, U, 2 * U + 1], [1, 1, 0]),
    "far from zero": ([ONE, U + 1e8], [1, 1]),
    "far from zero, twice": ([ONE, U + 1e8, 2 * (U + 1e8) + 1], [1, 1, 0]),
    "further": ([ONE, U + 1e12, V], [1, 1, 1]),
    "constant up to rounding": ([ONE, 0.1 + 1e-17 * U, U], [1, 0, 1]),
    "earlier columns win": ([ONE, U, V, U + V, W], [1, 1, 1, 0, 1]),
    "intercept last": ([U, V, ONE], [1, 1, 1]),
    "intercept last after its indicators": ([*DUMMIES.T, ONE], [1, 1, 1, 0]),
    "indicators after the intercept": ([ONE, *DUMMIES.T], [1, 1, 1, 0]),
    "indicators and a far covariate": ([*DUMMIES.T, U + 1e8], [1, 1, 1, 1]),
    "a far covariate and indicators": ([U + 1e8, *DUMMIES.T], [1, 1, 1, 1]),
    "two sets of indicators": ([*DUMMIES.T, *np.eye(2)[np.arange(N) // 2 % 2].T], [1, 1, 1, 1, 0]),
    "no intercept, proportional": ([U, 3 * U], [1, 0]),
    "no intercept, shifted": ([U, U + 1], [1, 1]),
    "zeros": ([ONE, 0 * U, U], [1, 0, 1]),
    "zeros first": ([0 * U, ONE, U], [0, 1, 1]),
    "zeros alone": ([0 * U], [0]),
    "constant 5 before the intercept": ([5 * ONE, ONE, U], [1, 0, 1]),
    "units": ([ONE, 1e-200 * U, 1e200 * V, 1e-200 * (U + 2 * U)], [1, 1, 1, 0]),
    "cubic in the year": ([ONE, *(np.vander(2000.0 + np.arange(N), 4, increasing=True).T[1:])], [1, 1, 1, 1]),
}


@pytest.mark.parametrize("columns", CASES.values(), ids=CASES)
def test_constructed_columns_are_judged_as_constructed(columns):
    """Shifts, units and the order of columns as stated in each case."""
    X, keep = columns

    assert_array_equal(independent(np.column_stack(X)), np.array(keep, dtype=bool))


@pytest.mark.parametrize(("size", "keep"), [(1e-3, True), (1e-6, True), (1e-9, False)])
def test_near_dependence_is_decided_at_one_ten_millionth(size, keep):
    """The tolerance of R's lm, on centred columns."""
    assert independent(np.column_stack([ONE, U, U + size * V]))[-1] == keep


def test_more_columns_than_rows_leave_as_many_as_rows():
    """Rank is at most n."""
    assert independent(RNG.normal(size=(4, 9))).tolist() == [True] * 4 + [False] * 5


def test_rows_that_break_the_relation_of_a_dropped_column_are_found():
    """x2 = 2 x + 1 in the fit; far from zero too."""
    for shift in (0.0, 1e8):
        x = U + shift
        fitted = np.column_stack([ONE, x, 2 * x + 1])
        new = np.array([[1.0, shift + 3, 2 * (shift + 3) + 1], [1.0, shift + 3, 2 * (shift + 3) + 1.5]])

        assert unexplained(np.array([True, True, False]), fitted, new).tolist() == [False, True]


def test_without_an_intercept_the_relation_is_the_proportion():
    """x2 = 3 x."""
    fitted = np.column_stack([U, 3 * U])

    assert unexplained(np.array([True, False]), fitted, np.array([[1.0, 3.0], [1.0, 4.0]])).tolist() == [False, True]
