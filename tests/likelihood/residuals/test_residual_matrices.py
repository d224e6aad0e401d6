"""R(phi)/sigma² of every residual structure: definition, derivatives, closed forms and invariances."""

from __future__ import annotations

import numpy as np
import pytest
from residual_cases import ALL, NAMES, STRUCTURES, UNIT, T, patterns, witness

from hierlmm.likelihood.residuals import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    HeterogeneousAR1,
    HeterogeneousCompoundSymmetry,
    Stratified,
    Structure,
    Toeplitz,
    Unstructured,
    over_occasions,
)

STEP = 1e-30
EVERY = np.arange(T)[None]
each = pytest.mark.parametrize("structure", ALL, ids=NAMES)


def full(structure: Structure, phi: np.ndarray, place: np.ndarray | None = None) -> np.ndarray:
    """The matrix over all occasions."""
    return structure.relative(np.asarray(phi, dtype=float), EVERY * 1.0 if place is None else place[None], EVERY)[0][0]


@pytest.mark.parametrize(("structure", "count"), STRUCTURES, ids=NAMES)
def test_the_number_of_covariance_parameters_over_five_occasions(structure: Structure, count: int) -> None:
    """CS 2, AR1 2, ARH1 6, Toeplitz 5, ante-dependence 9, unstructured 15, as nlme and SAS count them."""
    assert structure.size + 1 == count
    assert len(structure.natural(np.zeros(structure.size)).values) == structure.size


@each
@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_matrices_and_derivatives_are_those_of_the_definition(structure: Structure, spread: float) -> None:
    """Entry by entry in complex arithmetic, and complex-step derivatives of that: no difference is taken."""
    rng = np.random.default_rng(5)
    for k in (1, 3, 5):
        place, occasion = patterns(rng, 3, k)
        phi = spread * rng.standard_normal(structure.size)

        R, dR = structure.relative(phi, place, occasion)

        assert R.shape == (3, k, k)
        assert dR.shape == (structure.size, 3, k, k)
        expected = witness(structure, list(phi), place, occasion).real
        np.testing.assert_allclose(R, expected, rtol=1e-12, atol=1e-13 * np.abs(expected).max())
        for r in range(structure.size):
            turned = [complex(x, STEP * (r == i)) for i, x in enumerate(phi)]
            slope = witness(structure, turned, place, occasion).imag / STEP
            np.testing.assert_allclose(dR[r], slope, rtol=1e-11, atol=1e-12 * max(1.0, np.abs(slope).max()))


@each
def test_every_parameter_gives_a_positive_definite_symmetric_matrix(structure: Structure) -> None:
    rng = np.random.default_rng(6)
    place, occasion = patterns(rng, 4, 5)
    for _ in range(100):
        R, dR = structure.relative(1.2 * rng.standard_normal(structure.size), place, occasion)

        assert np.linalg.eigvalsh(R).min() > 0
        np.testing.assert_array_equal(R, R.swapaxes(1, 2))
        np.testing.assert_allclose(dR, dR.swapaxes(2, 3), rtol=1e-15, atol=1e-15)


@each
def test_extreme_parameters_stay_finite(structure: Structure) -> None:
    """No overflow, nan or warning where an optimiser may stray: a bound is approached, not passed."""
    place, occasion = patterns(np.random.default_rng(7), 2, 4)
    for value in (-200.0, -40.0, 40.0, 200.0):
        R, dR = structure.relative(np.full(structure.size, value), place, occasion)
        natural = structure.natural(np.full(structure.size, value))

        assert np.isfinite(R).all()
        assert np.isfinite(dR).all()
        assert np.isfinite(natural.values).all()
        assert np.isfinite(natural.jacobian).all()
        assert structure.at_bound(np.full(structure.size, value))
        assert all("bound of its space" in s for s in structure.at_bound(np.full(structure.size, value)))


@each
def test_the_order_of_rows_changes_nothing_but_their_order(structure: Structure) -> None:
    rng = np.random.default_rng(8)
    place, occasion = patterns(rng, 3, 5)
    phi = rng.standard_normal(structure.size)
    turn = rng.permutation(5)

    R, dR = structure.relative(phi, place, occasion)
    turned, d_turned = structure.relative(phi, place[:, turn], occasion[:, turn])

    np.testing.assert_array_equal(turned, R[:, turn][:, :, turn])
    np.testing.assert_array_equal(d_turned, dR[:, :, turn][:, :, :, turn])


@each
def test_missing_occasions_leave_the_others_as_they_are(structure: Structure) -> None:
    rng = np.random.default_rng(9)
    place, occasion = patterns(rng, 3, 5)
    phi = rng.standard_normal(structure.size)

    R, _ = structure.relative(phi, place, occasion)
    part, _ = structure.relative(phi, place[:, 1:4], occasion[:, 1:4])

    np.testing.assert_array_equal(part, R[:, 1:4, 1:4])


@each
def test_only_differences_of_positions_matter(structure: Structure) -> None:
    rng = np.random.default_rng(10)
    place, occasion = patterns(rng, 3, 4)
    phi = rng.standard_normal(structure.size)

    np.testing.assert_array_equal(
        structure.relative(phi, place + 1024.0, occasion)[0], structure.relative(phi, place, occasion)[0]
    )


@each
def test_parameters_of_zero_are_independence_with_equal_variances(structure: Structure) -> None:
    """Where independence is inside the space: a finite range always correlates."""
    R = full(structure, np.zeros(structure.size))

    if isinstance(structure, ContinuousAR1):
        assert R[0, 1] == pytest.approx(np.exp(-1 / UNIT) * (0.5 if structure.nugget else 1.0), rel=1e-15)
    else:
        np.testing.assert_array_equal(R, np.eye(T))


@pytest.mark.parametrize("rho", [-0.8, -0.1, 0.4, 0.95])
def test_the_inverse_of_ar1_is_tridiagonal(rho: float) -> None:
    """(1 - rho²) C⁻¹ has 1, 1 + rho², ..., 1 on the diagonal and -rho beside it; |C| = (1 - rho²)^(T - 1)."""
    C = full(AR1(), np.array([np.arctanh(rho)]))

    beside = np.diag(np.full(T - 1, -rho), 1)
    expected = np.diag([1, *[1 + rho**2] * (T - 2), 1]) + beside + beside.T
    np.testing.assert_allclose(np.linalg.inv(C) * (1 - rho**2), expected, atol=1e-13)
    assert np.linalg.slogdet(C)[1] == pytest.approx((T - 1) * np.log1p(-(rho**2)), rel=1e-12)


def test_ar1_has_finite_derivatives_at_independence() -> None:
    """d rho^lag/d rho at rho = 0 is 1 at lag 1 and 0 at any other lag."""
    _, dR = AR1().relative(np.zeros(1), EVERY * 1.0, EVERY)

    np.testing.assert_array_equal(dR[0, 0], np.eye(T, k=1) + np.eye(T, k=-1))


def test_ar1_reaches_over_long_gaps() -> None:
    """Few rows far apart: powers of each lag rather than of all lags between."""
    C = AR1().relative(np.array([3.0]), np.array([[0.0, 10.0, 100000.0]]), np.zeros((1, 3), dtype=np.intp))[0][0]

    rho = np.tanh(3.0)
    np.testing.assert_allclose(C[0], [1, rho**10, rho**100000], rtol=1e-13)


@pytest.mark.parametrize("phi", [-30.0, -2.0, 0.5, 12.0])
def test_compound_symmetry_has_two_eigenvalues_with_ratio_exp_phi(phi: float) -> None:
    """1 + (k - 1) rho once and 1 - rho otherwise, of ratio e^phi; rho runs from -1/(k - 1) to 1."""
    C = full(CompoundSymmetry(T), np.array([phi]))

    rho = C[0, 1]
    assert -1 / (T - 1) <= rho < 1
    assert (1 + (T - 1) * rho) / (1 - rho) == pytest.approx(np.exp(phi), rel=1e-9, abs=1e-15)
    np.testing.assert_allclose(np.linalg.eigvalsh(C), np.sort([1 + (T - 1) * rho, *[1 - rho] * (T - 1)]), atol=1e-14)


def test_compound_symmetry_of_pairs_reaches_minus_one() -> None:
    assert CompoundSymmetry(2).natural(np.array([-3.0])).values[0] == pytest.approx(np.tanh(-1.5), rel=1e-15)


def test_toeplitz_is_ar1_where_the_higher_partial_autocorrelations_are_zero() -> None:
    phi = np.array([0.7, 0.0, 0.0, 0.0])

    np.testing.assert_allclose(full(Toeplitz(T), phi), full(AR1(), phi[:1]), rtol=1e-14)


def test_toeplitz_determinant_is_the_product_of_its_prediction_errors() -> None:
    """|C| = prod (1 - pi_m²)^(T - m): Durbin (1960), Levinson (1946)."""
    phi = np.array([0.7, -0.4, 1.1, -0.2])
    C = full(Toeplitz(T), phi)

    expected = sum((T - m) * np.log1p(-(np.tanh(x) ** 2)) for m, x in enumerate(phi, start=1))
    assert np.linalg.slogdet(C)[1] == pytest.approx(expected, rel=1e-12)


def test_ante_dependence_with_equal_parameters_is_ar1_and_its_inverse_tridiagonal() -> None:
    equal = np.concatenate([np.zeros(T - 1), np.full(T - 1, 0.6)])
    phi = np.random.default_rng(11).standard_normal(2 * T - 2)

    np.testing.assert_allclose(full(Antedependence(T), equal), full(AR1(), equal[-1:]), rtol=1e-14)
    precision = np.linalg.inv(full(Antedependence(T), phi))
    far = np.abs(np.subtract.outer(np.arange(T), np.arange(T))) > 1
    assert np.abs(precision[far]).max() < 1e-12 * np.abs(precision).max()


def test_unstructured_reaches_any_positive_definite_matrix() -> None:
    rng = np.random.default_rng(12)
    for _ in range(20):
        root = rng.standard_normal((T, T + 1))
        S = root @ root.T

        phi = Unstructured(T).parameters(S)

        np.testing.assert_allclose(full(Unstructured(T), phi), S / S[0, 0], rtol=1e-11, atol=1e-12)


def test_heterogeneous_structures_contain_the_others() -> None:
    """Equal variances give the homogeneous form; no correlation gives one variance per stratum."""
    ratios = np.array([0.3, -0.2, 0.5, 0.1])

    same = np.concatenate([np.zeros(4), [0.8]])
    np.testing.assert_array_equal(full(HeterogeneousAR1(T), same), full(AR1(), same[-1:]))
    np.testing.assert_array_equal(full(HeterogeneousCompoundSymmetry(T, T), same), full(CompoundSymmetry(T), same[-1:]))
    np.testing.assert_array_equal(full(HeterogeneousAR1(T), np.append(ratios, 0.0)), full(Stratified(T), ratios))


def test_heterogeneous_ar1_reads_lags_from_positions_and_variances_from_occasions() -> None:
    """Occasions at positions 0, 1, 4, 5, 9: gaps count in the correlation, not in the list of variances."""
    place = np.array([0.0, 1.0, 4.0, 5.0, 9.0])
    C = full(HeterogeneousAR1(T), np.array([0.0, 0.0, 0.0, 0.0, 0.5]), place)

    np.testing.assert_allclose(C[1], np.tanh(0.5) ** np.abs(place - 1.0), rtol=1e-14)


def test_continuous_ar1_is_free_of_the_unit_of_time() -> None:
    """Times and unit in days or in years, the same phi: the same matrix; the range changes its unit."""
    times, phi = np.array([[0.0, 0.3, 2.0, 2.1]]), np.array([0.4, -1.0])
    codes = np.zeros((1, 4), dtype=np.intp)
    days, years = ContinuousAR1(0.5, nugget=True), ContinuousAR1(0.5 * 365.25, nugget=True)

    np.testing.assert_allclose(
        days.relative(phi, times, codes)[0], years.relative(phi, times * 365.25, codes)[0], rtol=1e-13
    )
    np.testing.assert_allclose(years.natural(phi).values, days.natural(phi).values * [365.25, 1.0], rtol=1e-14)


def test_continuous_ar1_over_whole_times_is_ar1() -> None:
    rho = 0.63
    C = full(ContinuousAR1(1.0), np.array([-np.log(-np.log(rho))]))

    np.testing.assert_allclose(C, full(AR1(), np.array([np.arctanh(rho)])), rtol=1e-13)


def test_the_nugget_is_no_part_of_the_variance_of_a_row_with_itself_and_all_of_it_at_equal_times() -> None:
    """Two rows at one time correlate 1 - c."""
    structure, phi = ContinuousAR1(1.0, nugget=True), np.array([0.0, -1.2])
    C = structure.relative(phi, np.array([[2.0, 2.0, 3.0]]), np.zeros((1, 3), dtype=np.intp))[0][0]

    c = structure.natural(phi).values[1]
    assert c == pytest.approx(1 / (1 + np.exp(1.2)), rel=1e-15)
    np.testing.assert_allclose(C[0], [1.0, 1 - c, (1 - c) * np.exp(-1)], rtol=1e-14)


def test_the_matrix_over_all_occasions_and_its_correlations() -> None:
    """Variances 1 and 4 and a correlation of one half, written out."""
    S, C = over_occasions(HeterogeneousAR1(2), np.array([np.log(2.0), np.arctanh(0.5)]), np.array([0.0, 1.0]))

    np.testing.assert_allclose(S, [[1.0, 1.0], [1.0, 4.0]], rtol=1e-14)
    np.testing.assert_allclose(C, [[1.0, 0.5], [0.5, 1.0]], rtol=1e-14)
