"""The compiled models have exactly the stated density, in every form and under every prior.

"Up to one constant": PyMC evaluates a few normalising constants (log 2 in half-t and normal densities) in single
precision, so the constant is zero to 1e-7, while the density varies with the parameters to full precision.
"""

from __future__ import annotations

import numpy as np
import pytest
from compile_cases import (
    area_density,
    area_model,
    areas,
    crossed,
    crossed_slopes,
    differences,
    lmm_density,
    lmm_model,
    no_fixed_effects,
    one_slope,
)
from scipy import stats

from hierlmm.bayes.joint_density import (
    AreaPoint,
    LMMPoint,
    correlation_of,
    log_jacobian_partial,
    log_joint_area,
    log_joint_lmm,
    log_marginal_area,
    log_marginal_lmm,
)
from hierlmm.bayes.priors import (
    LKJ,
    DattaRaoSmith,
    Exponential,
    Flat,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    Normal,
    Priors,
    Uniform,
)

pytest.importorskip("pymc")

CONSTANT = 1e-7
VARIES = 1e-10

AREA_PRIORS = {
    "default": Priors(),
    "proper": Priors(fixed=Normal(0, 5), sd=HalfCauchy(5)),
    "partly flat": Priors(fixed={"x": Normal(0.5, 2)}, sd=InverseGamma(2, 3)),
    "uniform": Priors(sd=Uniform(8)),
    **{name: Priors(preset=name) for name in ("flat_variance", "ganesh_lahiri", "jeffreys", "uniform_shrinkage")},
    "datta_rao_smith": Priors(preset="datta_rao_smith"),
    "datta_rao_smith of one area": Priors(sd=DattaRaoSmith(at=0.7)),
}
LMM_PRIORS = {
    "default": Priors(),
    "flat": Priors(preset="flat_variance"),
    "proper": Priors(
        fixed=Normal(0, 10), sd=HalfNormal(2), residual=Exponential(0.7), correlation=LKJ(2.5)
    ),
}
MIXED = Priors(
    fixed={"x": Normal(1, 2)},
    sd={"g:x": HalfNormal(1), "g:Intercept": HalfT(3, 2), "h": InverseGamma(1.5, 2), "g:w": Flat("variance")},
    residual=Flat("log"),
)
DESIGNS = {
    "slope": one_slope, "crossed": crossed, "crossed slopes": crossed_slopes, "no fixed effects": no_fixed_effects
}  # fmt: skip


def assert_equal_up_to_one_constant(pairs):
    difference = pairs[:, 0] - pairs[:, 1]
    size = max(1.0, np.abs(pairs).max())
    assert np.isfinite(pairs).all()
    assert np.ptp(difference) < VARIES * size
    assert abs(difference.mean()) < CONSTANT


@pytest.mark.parametrize("form", ["centred", "non-centred", "marginal"])
@pytest.mark.parametrize("name", AREA_PRIORS)
def test_an_area_model_has_our_density(name, form):
    """Witness: the numpy density of joint_density, itself held to scipy below; 50 points of the sampler's space."""
    design = areas()
    priors = AREA_PRIORS[name].resolve(design)

    pairs = differences(area_model(design, priors, form), area_density(design, priors, form))

    assert_equal_up_to_one_constant(pairs)


@pytest.mark.parametrize("form", ["centred", "non-centred", "marginal"])
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", LMM_PRIORS)
def test_a_mixed_model_has_our_density(name, design, form):
    """Witness: the numpy density of joint_density; correlations enter through partial correlations with Jacobian."""
    own = DESIGNS[design]()
    priors = LMM_PRIORS[name].resolve(own)

    pairs = differences(lmm_model(own, priors, form), lmm_density(own, priors, form))

    assert_equal_up_to_one_constant(pairs)


@pytest.mark.parametrize("form", ["mixed", "marginal"])
def test_coefficients_of_one_block_may_differ_in_prior_and_in_coordinates(form):
    """Five families of priors in one model, and blocks of which some coefficients are centred and some are not."""
    own = crossed_slopes()
    priors = MIXED.resolve(own)

    pairs = differences(lmm_model(own, priors, form), lmm_density(own, priors, form))

    assert_equal_up_to_one_constant(pairs)


def test_our_area_density_is_the_product_of_scipys_densities():
    """Witness: scipy's normal and half-Cauchy densities, term by term, and the sum of two normals when integrated."""
    design = areas()
    priors = Priors(fixed=Normal(0, 5), sd=HalfCauchy(5)).resolve(design)
    rng = np.random.default_rng(1)
    beta, tau, theta = rng.normal(size=2), 1.3, rng.normal(3, 1, 7)
    y, D = design.y[:7], design.D[:7]
    mean = design.X[:7] @ beta + design.offset[:7]
    prior = stats.norm(0, 5).logpdf(beta).sum() + stats.halfcauchy(scale=5).logpdf(tau)

    joint = log_joint_area(design, priors, AreaPoint(beta=beta, tau=tau, theta=theta))
    marginal = log_marginal_area(design, priors, beta, tau)

    likelihood = stats.norm(theta, np.sqrt(D)).logpdf(y).sum() + stats.norm(mean, tau).logpdf(theta).sum()
    assert joint == pytest.approx(likelihood + prior, rel=1e-12)
    assert marginal == pytest.approx(stats.norm(mean, np.sqrt(tau**2 + D)).logpdf(y).sum() + prior, rel=1e-12)


def lmm_point(design, seed=2):
    rng = np.random.default_rng(seed)
    correlation, sd, b = [], [], []
    for f in design.factors:
        q = f.Z.shape[1]
        R = np.eye(q)
        for block in f.blocks:
            z = rng.uniform(-0.8, 0.8, len(block) * (len(block) - 1) // 2)
            R[np.ix_(block, block)] = correlation_of(z, len(block))
        correlation.append(R)
        sd.append(rng.uniform(0.5, 2, q))
        b.append(rng.normal(size=(len(f.levels), q)))
    return LMMPoint(
        beta=rng.normal(size=2), sigma=0.8, sd=tuple(sd), correlation=tuple(correlation), b=tuple(b)
    )


def test_our_mixed_model_density_is_the_product_of_scipys_densities():
    """Witness: scipy's univariate and multivariate normal, half-normal, exponential; LKJ(1) on 2 x 2 is uniform."""
    design = crossed_slopes()
    priors = Priors(fixed=Normal(0, 10), sd=HalfNormal(2), residual=Exponential(0.7)).resolve(design)
    at = lmm_point(design)
    h, g = design.factors
    mean = design.X @ at.beta + design.offset
    mean += (h.Z * at.b[0][h.codes]).sum(axis=1) + (g.Z * at.b[1][g.codes]).sum(axis=1)
    prior = stats.norm(0, 10).logpdf(at.beta).sum() + stats.expon(scale=1 / 0.7).logpdf(at.sigma)
    prior += stats.halfnorm(scale=2).logpdf(np.concatenate(at.sd)).sum()
    # volumes of the 2 x 2 and of the 3 x 3 correlation matrices: 2 and pi²/2 (Rousseeuw & Molenberghs 1994)
    prior -= np.log(2) + np.log(np.pi**2 / 2)

    effects = sum(
        stats.multivariate_normal(np.zeros(len(G)), G).logpdf(b).sum() for G, b in zip(at.G, at.b, strict=True)
    )
    likelihood = stats.norm(mean, at.sigma).logpdf(design.y).sum()

    assert log_joint_lmm(design, priors, at) == pytest.approx(likelihood + effects + prior, rel=1e-12)


def test_our_marginal_density_is_the_dense_normal_density():
    """Witness: scipy's multivariate normal with V = sigma² I + Z G Z' formed densely."""
    design = crossed_slopes()
    priors = Priors(preset="flat_sd").resolve(design)
    at = lmm_point(design)
    V = at.sigma**2 * np.eye(len(design.y))
    for f, G in zip(design.factors, at.G, strict=True):
        V += (f.Z @ G @ f.Z.T) * (f.codes[:, None] == f.codes)
    volumes = np.log(2) + np.log(np.pi**2 / 2)

    own = log_marginal_lmm(design, priors, at)

    dense = stats.multivariate_normal(design.X @ at.beta + design.offset, V).logpdf(design.y)
    assert own == pytest.approx(dense - volumes, rel=1e-11)


def test_the_jacobian_of_partial_correlations_is_that_of_finite_differences():
    """Witness: the determinant of central differences of the six correlations of a 4 x 4 matrix."""
    z = np.array([0.3, -0.5, 0.2, 0.6, -0.1, 0.4])
    below = np.tril_indices(4, -1)

    def correlations(partial):
        return correlation_of(partial, 4)[below]

    step = 1e-6
    J = np.array([(correlations(z + step * e) - correlations(z - step * e)) / (2 * step) for e in np.eye(6)])

    assert log_jacobian_partial(z, 4) == pytest.approx(np.linalg.slogdet(J)[1], abs=1e-7)
