"""Simulation-based calibration: parameters drawn from the prior rank uniformly among posterior draws.

Talts, Betancourt, Simpson, Vehtari & Gelman (2018, arXiv:1804.06788); the log likelihood is ranked too, because a wrong
determinant shows there and in the variances but not in the means (Modrák et al. 2023, Bayesian Analysis).
"""

from __future__ import annotations

import numpy as np
from bayes_cases import area_design, slopes_design
from scipy import stats

from hierlmm.bayes import priors as hp
from hierlmm.bayes.areaposterior import area_posterior
from hierlmm.bayes.lmmposterior import lmm_posterior

DRAWS = 31
BINS = 8


def uniformity(ranks):
    """p value of a chi-square test of ranks 0..DRAWS in BINS equal bins."""
    counts = np.bincount(np.asarray(ranks) * BINS // (DRAWS + 1), minlength=BINS)
    return stats.chisquare(counts).pvalue


def test_area_posterior_is_calibrated():
    """240 simulations of 12 areas: τ, a coefficient, an area mean and the log likelihood; p > 1e-4 for each."""
    rng = np.random.default_rng(20261121)
    D, X = rng.uniform(0.3, 2.0, 12), np.column_stack([np.ones(12), np.linspace(-1, 1, 12)])
    priors = hp.Priors(fixed=hp.Normal(0, 2), sd=hp.HalfNormal(1))
    ranks = []

    for seed in range(240):
        tau, beta = abs(rng.normal()), 2 * rng.normal(size=2)
        theta = X @ beta + tau * rng.normal(size=12)
        y = theta + np.sqrt(D) * rng.normal(size=12)
        design = area_design(y, D, X)
        draws = area_posterior(design, priors.resolve(design), DRAWS, seed).sample.variables
        drawn = {name: values[0] for name, (_, values) in draws.items()}
        fit = stats.norm.logpdf(y, drawn["theta"], np.sqrt(D)).sum(axis=1)
        truth = stats.norm.logpdf(y, theta, np.sqrt(D)).sum()
        pairs = ((drawn["tau"], tau), (drawn["beta"][:, 1], beta[1]), (drawn["theta"][:, 0], theta[0]), (fit, truth))
        ranks.append([int((values < true).sum()) for values, true in pairs])
    assert min(uniformity(column) for column in np.array(ranks).T) > 1e-4


def test_mixed_model_posterior_is_calibrated():
    """160 simulations of correlated slopes: both sds, the correlation, σ, β, b and the log likelihood; p > 1e-4."""
    rng = np.random.default_rng(20261122)
    g, x = np.repeat(np.arange(8), 4), np.tile([-1.5, -0.5, 0.5, 1.5], 8)
    Z = np.column_stack([np.ones(32), x])
    priors = hp.Priors(fixed=hp.Normal(0, 2), sd=hp.HalfNormal(1), correlation=hp.LKJ(2), residual=hp.HalfNormal(1))
    ranks = []

    for seed in range(160):
        sd, sigma, rho = np.abs(rng.normal(size=2)), abs(rng.normal()), 2 * rng.beta(2, 2) - 1
        beta = 2 * rng.normal(size=2)
        root = sd[:, None] * np.array([[1, 0], [rho, np.sqrt(1 - rho**2)]])
        b = rng.normal(size=(8, 2)) @ root.T
        mean = Z @ beta + (Z * b[g]).sum(axis=1)
        y = mean + sigma * rng.normal(size=32)
        design = slopes_design(y, x, g)
        draws = lmm_posterior(design, priors.resolve(design), DRAWS, seed).sample.variables
        drawn = {name: values[0] for name, (_, values) in draws.items()}
        means = drawn["beta"] @ Z.T + np.einsum("skq,kq->sk", drawn["b_g"][:, g], Z)
        fit = stats.norm.logpdf(y, means, drawn["sigma"][:, None]).sum(axis=1)
        pairs = (
            (drawn["sd_g"][:, 0], sd[0]), (drawn["sd_g"][:, 1], sd[1]), (drawn["corr_g"][:, 1, 0], rho),
            (drawn["sigma"], sigma), (drawn["beta"][:, 1], beta[1]), (drawn["b_g"][:, 0, 1], b[0, 1]),
            (fit, stats.norm.logpdf(y, mean, sigma).sum()),
        )  # fmt: skip
        ranks.append([int((values < true).sum()) for values, true in pairs])
    assert min(uniformity(column) for column in np.array(ranks).T) > 1e-4
