"""What residual structures say about phi: natural parameters, starts by moments, bounds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from residual_cases import ALL, NAMES, T

from hierlmm.likelihood.residuals import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    HeterogeneousCompoundSymmetry,
    Stratified,
    Structure,
    Toeplitz,
    Unstructured,
)

each = pytest.mark.parametrize("structure", ALL, ids=NAMES)
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw(structure: Structure, phi: np.ndarray, N: int, rng: np.random.Generator) -> list[Rows]:
    """Residuals of N groups over all occasions, in shuffled order, a third of them with two rows missing."""
    occasion = np.array([rng.permutation(T) for _ in range(N)])
    R, _ = structure.relative(phi, occasion * 1.0, occasion)
    e = 3.0 * (np.linalg.cholesky(R) @ rng.standard_normal((N, T, 1)))[..., 0]
    third = N // 3
    return [
        (occasion[:third, :3] * 1.0, occasion[:third, :3], e[:third, :3]),
        (occasion[third:] * 1.0, occasion[third:], e[third:]),
    ]


def rows_of(structure: Structure, phi: np.ndarray) -> dict[tuple[str, tuple[int, ...]], float]:
    """Natural values by what they are."""
    natural = structure.natural(phi)
    return dict(zip(zip(natural.quantity, natural.index, strict=True), natural.values, strict=True))


@each
def test_natural_values_are_entries_of_the_matrix(structure: Structure) -> None:
    """Variance ratios are its diagonal, correlations its scaled off-diagonal; each row says which."""
    phi = 0.7 * np.random.default_rng(1).standard_normal(structure.size)
    every = np.arange(T)[None]
    S = structure.relative(phi, every * 1.0, every)[0][0]
    C = S / np.sqrt(np.outer(np.diag(S), np.diag(S)))

    rows = rows_of(structure, phi)

    for (quantity, index), value in rows.items():
        if quantity == "variance_ratio":
            assert value == pytest.approx(S[index[0], index[0]], rel=1e-13)
        elif quantity == "correlation":
            i, j = index if len(index) == 2 else (0, index[0] if index else 1)
            assert value == pytest.approx(C[i, j], rel=1e-13)
        elif quantity == "range":
            kept = 1 - rows.get(("nugget", ()), 0.0)
            assert C[0, 2] == pytest.approx(kept * np.exp(-2 / value), rel=1e-13)


@each
def test_the_jacobian_of_natural_values_is_their_derivative(structure: Structure) -> None:
    """Central differences extrapolated four times (Richardson): about 1e-12."""
    phi = 0.7 * np.random.default_rng(2).standard_normal(structure.size)
    jacobian = structure.natural(phi).jacobian

    for r, step in enumerate(np.eye(structure.size)):
        table = [
            (structure.natural(phi + h * step).values - structure.natural(phi - h * step).values) / (2 * h)
            for h in (4e-2, 2e-2, 1e-2, 5e-3)
        ]
        for order in (4, 16, 64):
            table = [(order * b - a) / (order - 1) for a, b in pairwise(table)]
        np.testing.assert_allclose(jacobian[:, r], table[0], rtol=1e-9, atol=1e-10)


@each
def test_starts_are_near_the_truth_of_many_groups(structure: Structure) -> None:
    """Moments of 4000 groups: variances and correlations to a few standard errors."""
    rng = np.random.default_rng(3)
    phi = 0.4 * rng.standard_normal(structure.size)

    started = structure.start(draw(structure, phi, 4000, rng))

    every = np.arange(T)[None]
    expected = structure.relative(phi, every * 1.0, every)[0][0]
    found = structure.relative(started, every * 1.0, every)[0][0]
    # Continuous starts are points of a grid.
    room = 0.3 if isinstance(structure, ContinuousAR1) else 0.15
    np.testing.assert_allclose(found, expected, atol=room * np.diag(expected).max())


@each
@pytest.mark.parametrize("unit", [1e-170, 1e-9, 1.0, 1e9])
def test_starts_do_not_depend_on_units_of_the_response_or_order_of_rows(structure: Structure, unit: float) -> None:
    rng = np.random.default_rng(4)
    groups = draw(structure, np.zeros(structure.size), 60, rng)
    turned = []
    for place, occasion, e in groups:
        turn, rows = rng.permutation(e.shape[1]), rng.permutation(len(e))
        turned.append(tuple(part[rows][:, turn] for part in (place, occasion, unit * e)))

    np.testing.assert_allclose(structure.start(turned), structure.start(groups), rtol=1e-9, atol=1e-9)


@each
@pytest.mark.parametrize(
    "groups",
    [
        [(np.zeros((7, 1)), np.zeros((7, 1), dtype=np.intp), np.ones((7, 1)))],
        [(np.zeros((0, 2)), np.zeros((0, 2), dtype=np.intp), np.ones((0, 2)))],
        [(np.array([[0.0, 4.0]]), np.array([[0, 4]]), np.zeros((1, 2)))],
        [(np.array([[0.0, 4.0]]), np.array([[0, 4]]), np.array([[1e200, -1e200]]))],
        [(np.arange(5.0)[None], np.arange(5)[None], np.array([[1.0, 1.0, 1.0, 1.0, 1.0]]))],
        [(np.arange(5.0)[None], np.arange(5)[None], np.array([[1.0, -1.0, 1.0, -1.0, 1.0]]))],
        [(np.arange(5.0)[None], np.arange(5)[None], np.array([[1e-12, 1.0, 0.0, 0.0, 1e6]]))],
    ],
    ids=["single rows", "no rows", "zeros", "huge", "constant", "alternating", "very unequal"],
)
def test_starts_lie_well_inside_whatever_the_residuals_are(structure: Structure, groups: list[Rows]) -> None:
    """Finite, not at a bound, and positive definite with room over all occasions."""
    phi = structure.start(groups)

    every = np.arange(T)[None]
    S = structure.relative(phi, every * 1.0, every)[0][0]
    assert phi.shape == (structure.size,)
    assert np.isfinite(phi).all()
    assert structure.at_bound(phi) == ()
    assert np.linalg.eigvalsh(S / np.sqrt(np.outer(np.diag(S), np.diag(S)))).min() > 1e-4


def test_an_ar1_start_without_neighbours_takes_the_root_at_the_shortest_lag() -> None:
    """Only positions 0 and 3: the mean product estimates rho³, whose sign is that of rho."""
    rng = np.random.default_rng(5)
    rho = -0.7
    e = rng.standard_normal((4000, 2))
    e[:, 1] = rho**3 * e[:, 0] + np.sqrt(1 - rho**6) * e[:, 1]
    place = np.tile([0.0, 3.0], (4000, 1))

    assert np.tanh(AR1().start([(place, place.astype(np.intp), e)])[0]) == pytest.approx(rho, abs=0.05)


def test_compound_symmetry_starts_at_a_negative_correlation_where_residuals_cancel() -> None:
    e = np.random.default_rng(6).standard_normal((500, 4))
    e -= 0.8 * e.mean(axis=1, keepdims=True)
    codes = np.zeros(e.shape, dtype=np.intp)

    rho = CompoundSymmetry(4).natural(CompoundSymmetry(4).start([(codes * 1.0, codes, e)])).values[0]

    # Var(e - 0.8 mean): covariance (0.04 - 1)/4 of variance 1 + (0.04 - 1)/4.
    assert rho == pytest.approx(-0.24 / 0.76, abs=0.02)


def test_pairs_of_occasions_never_seen_together_start_uncorrelated() -> None:
    rng = np.random.default_rng(7)
    left = np.tile([0, 1], (50, 1))
    e = rng.standard_normal((50, 1)) + 0.1 * rng.standard_normal((50, 2))
    groups = [(left * 1.0, left, e), (left + 3.0, left + 3, e[::-1])]

    C = rows_of(Unstructured(T), Unstructured(T).start(groups))
    rho = rows_of(Antedependence(T), Antedependence(T).start(groups))

    assert C["correlation", (0, 3)] == pytest.approx(0.0, abs=1e-12)
    assert C["correlation", (0, 1)] > 0.5
    assert rho["correlation", (1, 2)] == 0.0
    assert rho["correlation", (0, 1)] > 0.8


def test_interior_parameters_are_at_no_bound() -> None:
    rng = np.random.default_rng(8)
    for structure in ALL:
        assert structure.at_bound(rng.standard_normal(structure.size)) == ()


@pytest.mark.parametrize(
    ("structure", "phi", "sentence"),
    [
        (AR1(), [9.0], "correlation at lag 1 is at the bound of its space, 1"),
        (AR1(), [-9.0], "correlation at lag 1 is at the bound of its space, −1"),
        (CompoundSymmetry(4), [-17.0], "bound of its space, −1/3"),
        (CompoundSymmetry(4), [17.0], "no variance within groups"),
        (Stratified(3), [-17.0, 0.0], "residual variance of stratum two is at the bound"),
        (Stratified(3), [17.0, 17.0], "residual variance of stratum one is at the bound"),
        (HeterogeneousCompoundSymmetry(3, 3), [0.0, -17.0, 0.0], "residual variance of occasion three is"),
        (ContinuousAR1(1.0), [-8.0], "range is at the bound of its space, 0"),
        (ContinuousAR1(1.0), [17.0], "range is at the bound of its space, infinite"),
        (ContinuousAR1(1.0, nugget=True), [0.0, -17.0], "nugget is at the bound of its space, 0"),
        (ContinuousAR1(1.0, nugget=True), [0.0, 17.0], "nugget is at the bound of its space, 1"),
        (Toeplitz(3), [0.0, -9.0], "partial autocorrelation at lag 2 is at the bound of its space, −1"),
        (Antedependence(3), [0.0, 0.0, 0.0, 9.0], "correlation of occasions two and three is at the bound"),
        (Unstructured(3), [0.5, 0.0, 1.0, 0.0, -17.0], "residual of occasion three is a linear function"),
    ],
)
def test_a_parameter_at_its_bound_is_named(structure: Structure, phi: list[float], sentence: str) -> None:
    found = structure.at_bound(np.array(phi), ("one", "two", "three"))

    assert len(found) == 1
    assert sentence in found[0]
