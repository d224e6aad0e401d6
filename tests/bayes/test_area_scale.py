"""Posteriors of area means on the scale of the data, against integrals in two dimensions, draws and the PyMC model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad_vec

import hierlmm as hl
from hierlmm.bayes.areascale import exponential_order
from hierlmm.bayes.compile_area import on_data_scale
from hierlmm.bayes.priors import Exponential, HalfNormal, HalfT, Uniform
from hierlmm.likelihood.area.scales import SCALES

TRANSFORMATIONS = {"log": hl.Log(), "arcsine_root": hl.ArcsineRoot(size="n"), "logit": hl.Logit()}
# Nodes of the Gauss-Hermite rule of the witness: exact for the polynomials that these smooth functions nearly are.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


def table(m=12, seed=4):
    """Proportions and their variances; the last area has no direct estimate."""
    rng = np.random.default_rng(seed)
    x, n = rng.normal(size=m), rng.integers(20, 80, m)
    p = np.clip(rng.binomial(n, 1 / (1 + np.exp(-0.6 * x))), 1, n - 1) / n
    frame = pd.DataFrame({"area": [f"a{k}" for k in range(m)], "p": p, "x": x, "n": n, "D": p * (1 - p) / n})
    frame.loc[m - 1, "p"] = np.nan
    return frame


def spec(name):
    variance = {} if name == "arcsine_root" else {"sampling_variance": "D"}
    return hl.fay_herriot("p ~ x", area="area", transformation=TRANSFORMATIONS[name], unsampled="synthetic", **variance)


def exact(name, posterior, upper):
    """E g and sd of g under a flat prior of τ on (0, upper), by dense formulas: (2, M)."""
    design, scale = posterior.design, SCALES[name]
    into = design.sampled
    y, X, D = design.y[into], design.X[into], design.D[into]

    def at(tau):
        V = tau**2 + D
        C = np.linalg.inv((X.T / V) @ X)
        beta = C @ (X.T / V) @ y
        r = y - X @ beta
        loglik = -0.5 * (np.log(V).sum() - np.linalg.slogdet(C)[1] + r @ (r / V))
        gamma = np.where(into, tau**2 / (tau**2 + np.where(into, design.D, 1.0)), 0.0)
        mean = design.X @ beta + gamma * np.where(into, design.y - design.X @ beta, 0.0)
        reach = (1 - gamma)[:, None] * design.X
        g1 = np.where(into, gamma * np.where(into, design.D, 0.0), tau**2)
        sd = np.sqrt(g1 + np.einsum("ij,jk,ik->i", reach, C, reach))
        g = scale.back(mean + sd * NODES[:, None])
        w = WEIGHTS / WEIGHTS.sum()
        return np.exp(loglik - peak) * np.concatenate([[1.0], w @ g, w @ g**2])

    peak = 0.0
    peak = max(np.log(at(t)[0]) for t in np.linspace(1e-3, upper, 50))
    total = quad_vec(at, 0.0, upper, epsabs=1e-13, epsrel=1e-11)[0]
    M = len(design.areas)
    mean = total[1 : M + 1] / total[0]
    return mean, np.sqrt(total[M + 1 :] / total[0] - mean**2)


@pytest.mark.parametrize("name", SCALES)
def test_means_and_sds_are_the_integrals(name):
    """Over A by adaptive quadrature and over θ by Gauss-Hermite, under a flat prior of the area sd that ends."""
    posterior = hl.posterior(spec(name), table(), priors=hl.Priors(sd=Uniform(1.0)), draws=0)
    mean, sd = exact(name, posterior, 1.0)

    tolerance = 1e-7 if name != "arcsine_root" else 2e-4  # the witness's rule does not see where sin² is cut
    assert_allclose(posterior.areas["estimate"], mean, rtol=tolerance)
    assert_allclose(posterior.areas["se"], sd, rtol=20 * tolerance)


@pytest.mark.parametrize("name", SCALES)
def test_quantiles_are_those_of_the_model_taken_back_and_draws_agree(name):
    """g never falls; 4,000 draws of `mean` have the exact mean and sd within their Monte Carlo error."""
    prior = hl.Priors(sd=Uniform(0.6))
    posterior = hl.posterior(spec(name), table(), priors=prior, seed=11)
    frame, draws = posterior.areas, posterior.draws["posterior"]["mean"].values[0]

    for end in ("lower", "upper"):
        assert_allclose(frame[end], SCALES[name].back(posterior.model_scale[end].to_numpy()), rtol=1e-12)
    error = frame["se"] / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - frame["estimate"]) < 4.5 * error).all()
    assert_allclose(draws.std(axis=0), frame["se"], rtol=0.15)
    inside = (draws > frame["lower"].to_numpy()) & (draws < frame["upper"].to_numpy())
    assert_allclose(inside.mean(axis=0), 0.95, atol=0.02)


@pytest.mark.parametrize("name", SCALES)
def test_rows_to_predict_for_are_the_areas(name):
    """Own rows as in `areas`, an area that is not in the fit a new draw from the population."""
    posterior = hl.posterior(spec(name), table(), priors=hl.Priors(sd=Uniform(0.6)), draws=0)
    own = posterior.predict(table())

    for column in ("estimate", "se", "lower", "upper"):
        assert_allclose(own[column], posterior.areas[column], rtol=1e-9)
    new = posterior.predict(table().assign(area="new"))
    assert_allclose(new["estimate"].iloc[-1], posterior.areas["estimate"].iloc[-1], rtol=1e-9)


def test_means_of_exponentials_exist_only_under_priors_that_end_or_fall_fast():
    """E exp θ of a new draw is E exp(A/2 ...): infinite under a power tail, and so under the flat default."""
    data, name = table(), "log"
    flat = hl.posterior(spec(name), data, draws=100, seed=1)
    ends = hl.posterior(spec(name), data, priors=hl.Priors(sd=Uniform(0.8)), draws=0)
    wide = hl.posterior(spec(name), data, priors=hl.Priors(sd=HalfNormal(0.8)), draws=0)

    assert np.isnan(flat.areas["estimate"].iloc[-1])
    assert np.isfinite(flat.areas["estimate"].iloc[:-1]).all()
    assert np.isfinite(flat.areas[["lower", "upper"]]).all(axis=None)
    assert any("does not exist" in note and "a11" in note for note in flat.notes)
    assert np.isfinite(ends.areas[["estimate", "se"]]).all(axis=None)
    assert np.isfinite(wide.areas["estimate"].iloc[-1])
    assert np.isnan(wide.areas["se"].iloc[-1])


def test_the_order_of_an_exponential_moment_is_that_of_the_prior():
    """exp(cA) against exp(-A/(2s²)), a power, or an end."""
    assert exponential_order(HalfNormal(0.5)) == 2.0
    assert exponential_order(HalfT(4, 1.0)) == 0.0
    assert exponential_order(Exponential(3.0)) == 0.0
    assert exponential_order(Uniform(2.0)) == np.inf


def test_a_fit_and_a_posterior_are_compared_on_the_scale_of_the_model():
    """The steps of a difference add up there; the comparison says so."""
    data = table()
    compared = hl.compare(hl.fit(spec("logit"), data), hl.posterior(spec("logit"), data, seed=2))
    rows = compared.table[compared.table["part"] == "area"]

    assert_allclose(rows["estimate"], compared.fit.eblup, rtol=1e-12)
    assert_allclose(rows["posterior"], compared.posterior.model_scale["estimate"], rtol=1e-12)
    assert any("on the scale of the model, Logit" in line for line in compared.findings)


def test_areas_known_exactly_stay_as_given():
    """D = 0 with zero_variance="direct": mean and limits are the direct estimate, in draws and predictions too."""
    data = table()
    data.loc[2, "D"] = 0.0
    direct = hl.fay_herriot(
        "p ~ x", area="area", sampling_variance="D", transformation=hl.Logit(), unsampled="synthetic",
        zero_variance="direct",
    )  # fmt: skip
    posterior = hl.posterior(direct, data, draws=10, seed=1)

    row = posterior.areas.iloc[2]
    assert row[["estimate", "lower", "upper", "se"]].tolist() == [*[data["p"][2]] * 3, 0.0]
    assert (posterior.draws["posterior"]["mean"].values[..., 2] == data["p"][2]).all()
    assert_allclose(posterior.predict(data)["estimate"].iloc[2], data["p"][2], rtol=1e-12)


def test_a_posterior_in_a_file_is_read_as_it_was(tmp_path):
    """Means on the scale of the data and their draws are kept."""
    posterior = hl.posterior(spec("logit"), table(), draws=20, seed=1)

    posterior.save(tmp_path / "posterior.hlm")
    back = hl.read(tmp_path / "posterior.hlm")

    pd.testing.assert_frame_equal(back.areas, posterior.areas)
    assert_allclose(back.draws["posterior"]["mean"], posterior.draws["posterior"]["mean"], rtol=0)


@pytest.mark.parametrize("name", SCALES)
def test_the_pymc_model_has_the_means_on_the_scale_of_the_data(name):
    """`mean` (area) is g(theta), beyond the ends of the range too."""
    pm = pytest.importorskip("pymc")
    theta = np.linspace(-0.4, 1.9, 11)

    model = hl.to_pymc(spec(name), table())
    got = on_data_scale(TRANSFORMATIONS[name], pm.math.constant(theta)).eval()

    assert model.named_vars_to_dims["mean"] == ("area",)
    assert_allclose(got, SCALES[name].back(theta), rtol=1e-12)
