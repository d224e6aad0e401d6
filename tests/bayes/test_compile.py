"""What a compiled model promises its user: names, dims, labels, forms, replaceable data, and honest refusals."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from bayes_cases import area_design, factor, lmm_design, reference
from compile_cases import MODE, areas, crossed_slopes

import hierlmm as hl
from hierlmm.bayes.compile import compile_model, parametrisation, prior_predictive
from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.compile_mode import lmm_mode
from hierlmm.bayes.priors import LKJ, Exponential, HalfCauchy, HalfNormal, InverseGamma, Normal, Priors, SDPrior
from hierlmm.errors import DesignError, PriorError, SpecError
from hierlmm.likelihood.area.estimators import estimate_reml

pytest.importorskip("pymc")


def growth(trees=6, times=4, seed=4):
    rng = np.random.default_rng(seed)
    tree = np.repeat([f"t{k}" for k in range(trees)], times)
    time = np.tile(np.arange(times, dtype=float), trees)
    line = rng.normal(0, 2, trees).repeat(times) + rng.normal(0, 0.5, trees).repeat(times) * time
    return pd.DataFrame({"tree": tree, "time": time, "size": 5 + time + line + rng.normal(0, 0.3, tree.size)})


def direct_estimates(m=8, seed=2):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"area": [f"a{k}" for k in range(m)], "y": rng.normal(5, 2, m), "D": rng.uniform(0.5, 2, m), "x": np.arange(m)}
    )


GROWTH = hl.lmm("size ~ time + (time | tree)")
AREAS = hl.fay_herriot("y ~ x", sampling_variance="D", area="area")


@pytest.mark.parametrize("form", ["hierarchical", "marginal"])
def test_a_mixed_model_has_the_names_and_labels_of_its_results(form):
    """The contract that draws of both engines share; b is a variable of the hierarchical form only."""
    model = hl.to_pymc(GROWTH, growth(), form=form)
    dims = model.named_vars_to_dims

    assert tuple(model.coords["term"]) == ("Intercept", "time")
    assert tuple(model.coords["tree"]) == tuple(f"t{k}" for k in range(6))
    assert tuple(model.coords["tree_coef"]) == ("Intercept", "time")
    assert tuple(dims["beta"]) == ("term",)
    assert tuple(dims["sd_tree"]) == ("tree_coef",)
    assert tuple(dims["corr_tree"]) == ("tree_coef", "tree_coef_bis")
    assert "sigma" in model.named_vars
    assert ("b_tree" in model.named_vars) == (form == "hierarchical")


@pytest.mark.parametrize("form", ["hierarchical", "marginal"])
def test_an_area_model_has_the_names_and_labels_of_its_results(form):
    """The contract that draws of both engines share; theta is a variable of the hierarchical form only."""
    model = hl.to_pymc(AREAS, direct_estimates(), form=form)

    assert tuple(model.coords["term"]) == ("Intercept", "x")
    assert tuple(model.coords["area"]) == tuple(f"a{k}" for k in range(8))
    assert {"beta", "tau", "A", "y"} <= set(model.named_vars)
    assert ("theta" in model.named_vars) == (form == "hierarchical")


def test_areas_without_a_direct_estimate_or_sampling_error_are_left_to_prediction():
    """Only areas with a positive known sampling variance carry information on A."""
    design = areas()

    model = compile_model(design, Priors().resolve(design))

    assert len(model.coords["area"]) == int((design.role == "sampled").sum()) == 7


def test_a_model_can_be_extended_and_its_data_replaced():
    """A plain pm.Model: further terms join it, and pm.set_data moves its log density as the closed form says."""
    pm = backend().pm
    frame = direct_estimates()
    model = hl.to_pymc(AREAS, frame, form="marginal")
    with model:
        pm.Potential("more", -0.5 * model["tau"] ** 2)
    logp = model.compile_logp(vars=[model["y"]], mode=MODE)
    start = model.initial_point()

    before = float(logp(start))
    with model:
        pm.set_data({"y_observed": frame["y"].to_numpy() + 1.0})
    after = float(logp(start))

    tau, beta = np.exp(start["tau_log__"]), compile_beta(model, start)
    V, r = tau**2 + frame["D"], frame["y"] - beta[0] - beta[1] * frame["x"]
    assert before == pytest.approx(-0.5 * float((r**2 / V + np.log(2 * np.pi * V)).sum()), rel=1e-10)
    assert after - before == pytest.approx(-0.5 * float((((r + 1) ** 2 - r**2) / V).sum()), rel=1e-9)
    assert any(v.name == "more" for v in model.potentials)


def compile_beta(model, point):
    """beta in natural units at a point of the sampler's space."""
    return model.compile_fn(model.replace_rvs_by_values([model["beta"]])[0], inputs=model.value_vars, mode=MODE,
                            on_unused_input="ignore")(point)  # fmt: skip


def test_sampling_starts_at_the_restricted_mode():
    """Witness: REML estimates from the optimiser in the likelihood; the variances are interior here."""
    frame = growth()
    model = hl.to_pymc(GROWTH, frame)
    fit = hl.fit(GROWTH, frame)

    start = model.initial_point()

    assert np.exp(start["sigma_log__"]) == pytest.approx(np.sqrt(fit.sigma2), rel=1e-6)
    assert compile_beta(model, start) == pytest.approx(fit.beta, rel=1e-6)


def test_strong_data_are_centred_and_weak_data_are_not():
    """Papaspiliopoulos et al. (2007): centred where gamma is above one half and the variance clearly above zero."""
    rng = np.random.default_rng(6)
    X = np.ones((30, 1))
    precise = area_design(rng.normal(0, 3, 30), np.full(30, 0.1), X, fixed=("Intercept",))
    vague = area_design(rng.normal(0, 3, 30), np.full(30, 20.0), X, fixed=("Intercept",))

    assert set(parametrisation(precise).values()) == {"centred"}
    assert set(parametrisation(vague).values()) == {"non-centred"}


def test_eight_schools_are_not_centred():
    """REML puts A at zero there (THEORY of the boundary), where centred effects are trapped in a funnel."""
    eight = reference("bayes_area.json")["eight_schools"]
    design = area_design(eight["y"], np.square(eight["sd"]), np.ones((8, 1)), fixed=("Intercept",))

    assert estimate_reml(design.y, design.X, design.D).A == 0.0
    assert parametrisation(design) == {"area:Intercept": "non-centred"}


def test_a_coefficient_without_variance_is_not_centred_beside_one_with():
    """Two coefficients of one block: intercepts far apart, slopes all equal."""
    rng = np.random.default_rng(8)
    g, x = np.repeat(np.arange(12), 8), np.tile(np.linspace(-1, 1, 8), 12)
    y = 10.0 * rng.normal(size=12)[g] + x + rng.normal(0, 1, g.size)
    Z = np.column_stack([np.ones(g.size), x])
    design = lmm_design(y, Z, ("Intercept", "x"), [factor("g", g, Z, ("Intercept", "x"), ((0, 1),))])

    chosen = parametrisation(design)

    assert chosen == {"g:Intercept": "centred", "g:x": "non-centred"}
    model = compile_model(design, Priors().resolve(design))
    assert model.parametrisation == chosen
    assert {"coef_g_Intercept", "b_g_x_unit"} <= {v.name for v in model.free_RVs}


def test_a_fixed_effect_joins_one_random_coefficient_only():
    """Crossed intercepts: the shared fixed intercept can be the mean of one factor's effects, not of both."""
    mode = lmm_mode(crossed_slopes())

    columns = [c for effect in mode.effects.values() for c in effect.columns]

    assert len(columns) == len(set(columns))


def test_a_predictor_of_groups_belongs_to_the_mean_of_their_effects():
    """x_j varies between groups only, so b_j is centred around beta_0 + beta_1 x_j."""
    rng = np.random.default_rng(10)
    g = np.repeat(np.arange(15), 6)
    x = rng.normal(size=15)
    y = 1 + 2 * x[g] + 4 * rng.normal(size=15)[g] + rng.normal(size=g.size)
    one = np.ones((g.size, 1))
    X = np.column_stack([one[:, 0], x[g]])
    design = lmm_design(y, X, ("Intercept", "x"), [factor("g", g, one, ("Intercept",), ((0,),))])

    effect = lmm_mode(design).effects["g:Intercept"]

    assert effect.columns == (0, 1)
    assert effect.weight == pytest.approx(np.column_stack([np.ones(15), x]), abs=1e-12)


class Triangular(SDPrior):
    """A user's own family, known by its density only."""

    def log_density(self, sd):
        return np.log(np.maximum(0.0, 1.0 - np.asarray(sd)))

    @property
    def orders(self):
        return 1.0, -np.inf


def test_a_prior_pymc_cannot_state_is_refused_with_the_engine_that_can():
    """The exact engine needs only the density."""
    frame = direct_estimates()

    with pytest.raises(PriorError, match=r"found Triangular.*engine=\"integrate\""):
        hl.to_pymc(AREAS, frame, Priors(sd=Triangular()))


@pytest.mark.parametrize("form", ["centered", "", None])
def test_an_unknown_form_is_refused(form):
    """There are two forms."""
    with pytest.raises(SpecError, match="'hierarchical' or 'marginal'"):
        hl.to_pymc(GROWTH, growth(), form=form)


@pytest.mark.parametrize("name", ["term", "sigma", "a/b"])
def test_a_group_named_like_a_part_of_the_model_is_refused(name):
    """Its dimension would collide with one that every model has; the message says to rename the column."""
    frame = growth().rename(columns={"tree": name})

    with pytest.raises(DesignError, match=f"found {name}"):
        hl.to_pymc(hl.lmm(f"size ~ time + (1 | `{name}`)"), frame)


def test_the_units_of_the_response_do_not_matter():
    """y -> c y moves the starting point in natural units and leaves that of the sampler where it was."""
    frame = growth()
    small = hl.to_pymc(GROWTH, frame).initial_point()
    large = hl.to_pymc(GROWTH, frame.assign(size=1e9 * frame["size"])).initial_point()

    assert np.exp(large["sigma_log__"] - small["sigma_log__"]) == pytest.approx(1e9, rel=1e-6)
    assert np.abs(large["beta_linear__"]).max() < 1e-6
    assert np.abs(large["coef_tree_linear__"]).max() < 1e-6


def test_a_flat_prior_has_no_prior_predictive_and_says_so():
    """The refusal comes from hierlmm and names the parameters, not from inside PyMC."""
    with pytest.raises(PriorError, match=r"flat prior.*Intercept, x, sd\(area:Intercept\)"):
        prior_predictive(AREAS, direct_estimates())


PROPER = Priors(fixed=Normal(0, 2), sd=HalfNormal(1.5), correlation=LKJ(2), residual=Exponential(2))


def test_prior_draws_have_the_moments_of_the_priors():
    """Witness: closed-form moments; E sd = 1.5 sqrt(2/pi), E sigma = 1/2, Var beta = 4, Var rho = 1/(2 eta + 1)."""
    tree = prior_predictive(GROWTH, growth(), PROPER, draws=4000, seed=11)
    prior = tree["prior"].to_dataset()
    root = np.sqrt(4000)

    assert prior["sd_tree"].mean() == pytest.approx(1.5 * np.sqrt(2 / np.pi), abs=4 * 1.0 / root)
    assert prior["sigma"].mean() == pytest.approx(0.5, abs=4 * 0.5 / root)
    assert prior["beta"].std() == pytest.approx(2.0, abs=4 * 2.0 / root)
    assert prior["corr_tree"].values[0, :, 0, 1].var() == pytest.approx(1 / 5, abs=4 * 0.25 / root)
    assert prior["b_tree"].dims == ("chain", "draw", "tree", "tree_coef")
    assert tree["prior_predictive"]["y"].shape == (1, 4000, 24)


def test_prior_draws_of_an_area_model_follow_its_hierarchy():
    """Witness: Var y_i = Var x_i'beta + E A + D_i, with A inverse gamma of mean scale / (shape - 1)."""
    frame = direct_estimates()
    priors = Priors(fixed=Normal(0, 1), sd=InverseGamma(6, 10))

    tree = prior_predictive(AREAS, frame, priors, draws=8000, seed=12)

    variance = tree["prior_predictive"]["y"].values[0].var(axis=0)
    expected = 1 + frame["x"].to_numpy() ** 2 + 10 / 5 + frame["D"].to_numpy()
    assert variance == pytest.approx(expected, rel=0.08)


def test_draws_of_a_correlation_matrix_are_lkj():
    """Witness: under LKJ(eta) a correlation is Beta(a, a) on (-1, 1), a = eta + q/2 - 1, of variance 1/(2a + 1)."""
    design = crossed_slopes()
    priors = Priors(fixed=Normal(0, 1), sd=HalfCauchy(1), residual=HalfNormal(1), correlation=LKJ(1.5)).resolve(design)
    model = compile_model(design, priors)
    pm = backend().pm

    R = pm.draw(model["corr_g"], draws=4000, random_seed=13, mode=MODE)

    below = np.stack([R[:, 1, 0], R[:, 3, 0], R[:, 3, 1]])
    assert below.var(axis=1) == pytest.approx(np.full(3, 1 / (2 * 2.0 + 1)), rel=0.08)
    assert np.abs(R[:, 2, [0, 1, 3]]).max() == 0.0


def test_importing_hierlmm_does_not_load_pymc():
    """The compiler is part of hierlmm; PyMC is loaded when a model is asked for."""
    code = "import hierlmm as hl, sys; hl.to_pymc; hl.NutsOptions; sys.exit('pymc' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
