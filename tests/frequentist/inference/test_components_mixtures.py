"""Chi-bar-square mixtures against closed-form weights."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hierlmm.frequentist.inference import mixtures
from hierlmm.frequentist.inference.mixtures import Cone, mixture_tail

DRAWS = 20_000


def mixture(weights, q, free=0):
    """Upper tail of the mixture of chi²(free), chi²(free + 1), ..."""
    return sum(w * (stats.chi2.sf(q, j + free) if j + free else 0.0) for j, w in enumerate(weights))


def simulated(cone, information, q):
    return mixture_tail(q, cone, information, DRAWS, np.random.default_rng(11))


@pytest.mark.parametrize(
    ("statistic", "free", "p"),
    [
        (5.402826093645956, 0, 0.01005),
        (6.368955313621143, 0, 0.005806697217726976),
        (39.80991724301791, 1, 1.2732898937971343e-09),
    ],
)
def test_one_variance_has_halves(statistic, free, p):
    """Dyestuff by ML and REML, and the slopes of Sitka with their covariance (nlme 3.1.162)."""
    tail = mixture_tail(statistic, Cone(free, (1,)), None, 0, np.random.default_rng(1))

    assert tail.p == pytest.approx(p, rel=1e-3 if p == 0.01005 else 1e-9)
    assert tail.mc_error == 0


@pytest.mark.parametrize("rho", [-0.7, 0.0, 0.5])
def test_two_variances_by_simulation_have_their_closed_form(rho, monkeypatch):
    """Shapiro (1985): both positive with probability 1/4 + arcsin(rho) / 2 pi; units of the parameters differ."""
    units = np.diag([1.0, 100.0])
    information = np.linalg.inv(units @ np.array([[1, rho], [rho, 1]]) @ units)
    exact = mixture_tail(3.0, Cone(1, (1, 1)), information, 0, np.random.default_rng(1))
    monkeypatch.setattr(mixtures, "known_weights", lambda *_: None)

    found = simulated(Cone(1, (1, 1)), information, 3.0)

    both = 0.25 + np.arcsin(rho) / (2 * np.pi)
    assert exact.p == pytest.approx(mixture((0.5 - both, 0.5, both), 3.0, 1), rel=1e-12)
    assert abs(found.p - exact.p) < 4 * found.mc_error


@pytest.mark.parametrize("q", [1.0, 6.0, 30.0])
def test_three_variances_have_their_closed_form(q):
    """Orthant probabilities of three normals from the correlations of the estimators and of the information."""
    R = np.array([[1, 0.5, 0.3], [0.5, 1, -0.2], [0.3, -0.2, 1]])
    information = np.linalg.inv(R * np.outer([1, 10, 0.01], [1, 10, 0.01]))

    found = simulated(Cone(0, (1, 1, 1)), information, q)

    P = np.linalg.inv(R)
    P /= np.sqrt(np.outer(np.diag(P), np.diag(P)))
    all_in, none_in = ((2 * np.pi - np.arccos(C[np.triu_indices(3, 1)]).sum()) / (4 * np.pi) for C in (R, P))
    assert abs(found.p - mixture((none_in, 0.5 - all_in, 0.5 - none_in, all_in), q)) < 4 * found.mc_error


@pytest.mark.parametrize("free", [0, 2])
@pytest.mark.parametrize("D", [np.eye(2), np.array([[3.0, 0], [0, 0.2]]), np.array([[1, 0.5], [0, 2.0]])])
@pytest.mark.parametrize("q", [1.0, 30.0])
def test_a_covariance_matrix_of_two_is_a_circular_cone(D, free, q):
    """Information diag(1, 2, 1), where the cone has half-angle 45 degrees; C -> D C D' does not change the law."""
    J = np.array(
        [
            [D[0, 0] ** 2, 2 * D[0, 0] * D[0, 1], D[0, 1] ** 2],
            [D[0, 0] * D[1, 0], D[0, 0] * D[1, 1] + D[0, 1] * D[1, 0], D[0, 1] * D[1, 1]],
            [D[1, 0] ** 2, 2 * D[1, 0] * D[1, 1], D[1, 1] ** 2],
        ]
    )

    found = simulated(Cone(free, (2,)), J.T @ np.diag([1.0, 2, 1]) @ J, q)

    cap = (1 - np.cos(np.pi / 4)) / 2
    assert abs(found.p - mixture((cap, 0.5 - cap, 0.5 - cap, cap), q, free)) < 4 * found.mc_error


def test_a_zero_statistic_has_p_one():
    """The point mass at zero belongs to the upper tail at zero."""
    for cone in (Cone(0, (1,)), Cone(0, (1, 1)), Cone(0, (2,))):
        assert mixture_tail(0.0, cone, np.eye(cone.constrained), DRAWS, np.random.default_rng(1)).p == 1.0
