"""Posteriors by NUTS against exact ones, and what happens when sampling goes wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bayes_cases import area_design, factor, lmm_design, reference
from compile_cases import areas, crossed_slopes

from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.density import Variances, target
from hierlmm.bayes.diagnostics import check
from hierlmm.bayes.engines import of_design
from hierlmm.bayes.priors import Flat, HalfCauchy, HalfNormal, Normal, Priors
from hierlmm.bayes.results import Draws
from hierlmm.bayes.sample import NutsOptions
from hierlmm.bayes.sample_area import complete, sample_area
from hierlmm.bayes.sample_lmm import _effects, sample_lmm
from hierlmm.bayes.sample_summaries import summarise
from hierlmm.errors import FitError, PriorError

pytest.importorskip("pymc")
nuts = pytest.mark.nuts

# Few draws: what is tested is agreement within Monte Carlo error, not the error's size.
SHORT = NutsOptions(draws=500, tune=500, chains=2, cores=1, retries=0)
# Monte Carlo errors beyond which a mean is wrong; one in 16,000 by chance, and its own error is estimated too.
FAR = 4.0
FORMS = ("hierarchical", "marginal")


def eight_schools():
    known = reference("bayes_area.json")["eight_schools"]
    design = area_design(
        known["y"], np.square(known["sd"]), np.ones((8, 1)), areas=list("ABCDEFGH"), fixed=("Intercept",)
    )
    return known, design, Priors(fixed=Normal(0, 5), sd=HalfCauchy(5)).resolve(design)


def rats():
    """The rats of posteriordb: (1 + x || rat) with x centred, every sd flat, both means N(0, 100²)."""
    data, known = reference("bayes_lmm.json")["rats"], reference("bayes_lmm.json")["rats_model"]["parameters"]
    x = np.asarray(data["x"], float) - data["xbar"]
    Z = np.column_stack([np.ones(x.size), x])
    design = lmm_design(
        data["y"], Z, ("Intercept", "x"), [factor("rat", data["rat"], Z, ("Intercept", "x"), ((0,), (1,)))]
    )
    return known, design, Priors(fixed=Normal(0, 100), sd=Flat("sd"), residual=Flat("sd")).resolve(design)


def distance(estimates, exact):
    """Largest distance from exact means, in Monte Carlo standard errors."""
    return float(np.max(np.abs(estimates.estimate - np.asarray(exact)) / estimates.mcse))


def second_moments(posterior, name, mean, sd):
    """Largest distance of the mean of (x - exact mean)² from the exact variance, in Monte Carlo standard errors."""
    values = posterior.sample.variables[name][1]
    return distance(summarise((values - np.asarray(mean)) ** 2), np.square(sd))


@nuts
@pytest.mark.parametrize("form", FORMS)
def test_eight_schools_are_within_four_monte_carlo_errors(form):
    """Witness: posteriordb's model by quadrature, checked there against 10,000 reference draws."""
    known, design, priors = eight_schools()

    found = sample_area(design, priors, replace(SHORT, form=form), 20261121)

    theta = np.array(known["theta"])
    assert found.diagnostics["divergences"] == 0
    assert distance(found.terms.theta, theta[:, 0]) < FAR
    assert distance(found.fixed_effects, [known["mu"][0]]) < FAR
    assert abs(found.variance.estimate[1] - known["tau"][0]) < FAR * found.variance.mcse[1]
    assert second_moments(found, "theta", theta[:, 0], theta[:, 1]) < FAR
    assert second_moments(found, "beta", [known["mu"][0]], [known["mu"][1]]) < FAR


@nuts
@pytest.mark.parametrize("form", FORMS)
def test_growing_rats_are_within_four_monte_carlo_errors(form):
    """Witness: posteriordb's rats_model by quadrature, two step sizes agreeing to 4e-10."""
    known, design, priors = rats()

    found = sample_lmm(design, priors, replace(SHORT, form=form), 20261122)

    def exact(*names):
        return np.array([known[name][0] for name in names])

    def both(term):
        return exact(*(f"{term}[{k}]" for k in range(1, 31)))

    sd = {(c.group, c.term): found.component_estimates.estimate[k] for k, c in enumerate(found.components)
          if c.quantity == "sd"}  # fmt: skip
    error = {(c.group, c.term): found.component_estimates.mcse[k] for k, c in enumerate(found.components)
             if c.quantity == "sd"}  # fmt: skip
    names = {("rat", "Intercept"): "sigma_alpha", ("rat", "x"): "sigma_beta", ("Residual", ""): "sigma_y"}
    assert distance(found.fixed_effects, exact("mu_alpha", "mu_beta")) < FAR
    assert max(abs(sd[key] - known[name][0]) / error[key] for key, name in names.items()) < FAR
    # 60 quantities: the largest of so many independent distances exceeds 4 once in 260 such tests
    assert distance(found.terms.sums[0], np.column_stack([both("alpha"), both("beta")])) < FAR + 0.5


@nuts
def test_correlated_slopes_agree_with_the_exact_engine():
    """Two engines that share no integration: importance sampling of the variances, and NUTS on all parameters."""
    data = reference("bayes_lmm.json")["sleepstudy"]
    days = np.asarray(data["days"], float)
    Z = np.column_stack([np.ones(days.size), days])
    design = lmm_design(
        data["y"], Z, ("Intercept", "days"), [factor("subject", data["subject"], Z, ("Intercept", "days"), ((0, 1),))]
    )
    priors = Priors().resolve(design)

    sampled = of_design(design, priors, "nuts", seed=5, nuts=SHORT)
    exact = of_design(design, priors, "integrate", seed=5)

    for frame in ("fixed", "variance_components", "random_effects", "group_coefficients"):
        own, other = getattr(sampled, frame), getattr(exact, frame)
        assert list(own.columns) == list(other.columns)
        distances = (own["estimate"] - other["estimate"]).abs() / np.hypot(own["mcse"], other["mcse"])
        assert distances.max() < FAR + 0.5
    assert list(sampled.draws["posterior"].data_vars) == list(exact.draws["posterior"].data_vars)
    predicted, other = sampled.predict(), exact.predict()
    assert ((predicted["estimate"] - other["estimate"]).abs() / np.hypot(predicted["mcse"], other["mcse"])).max() < FAR


@nuts
def test_nutpie_gives_the_same_posterior():
    """Witness: posteriordb's model by quadrature; nutpie's statistics arrive under the same names."""
    pytest.importorskip("nutpie")
    known, design, priors = eight_schools()

    found = sample_area(design, priors, replace(SHORT, sampler="nutpie", form="marginal"), 11)

    assert distance(found.terms.theta, np.array(known["theta"])[:, 0]) < FAR
    assert found.diagnostics["sampler"] == "nutpie"
    assert {"diverging", "energy", "tree_depth", "acceptance_rate"} <= set(found.sample.stats)


@nuts
def test_the_result_says_how_it_was_sampled_and_can_be_repeated():
    """The same seed gives the same draws; the notes name the coordinates of the effects."""
    _, design, priors = eight_schools()

    first, second = (sample_area(design, priors, SHORT, 7) for _ in range(2))

    assert first.engine == "nuts"
    assert first.seed == 7
    assert any("non-centred: area:Intercept" in note for note in first.notes)
    assert np.array_equal(first.sample.variables["theta"][1], second.sample.variables["theta"][1])
    assert first.draws["posterior"]["theta"].dims == ("chain", "draw", "area")
    assert first.draws["sample_stats"]["diverging"].shape == (2, 500)


@nuts
def test_an_interrupted_run_keeps_its_draws_and_is_marked(monkeypatch):
    """Ctrl-C in the middle of the second chain: draws are kept, the result says first that it is incomplete."""
    _, design, priors = eight_schools()
    plain = backend().pm.sample

    def interrupted(*args, **kwargs):
        def stop(trace, draw):
            if draw.chain == 1 and draw.draw_idx >= 800:
                raise KeyboardInterrupt

        return plain(*args, callback=stop, **kwargs)

    monkeypatch.setattr(backend().pm, "sample", interrupted)

    found = sample_area(design, priors, replace(SHORT, form="marginal", retries=1), 3)

    assert 0 < found.sample.number < 500
    assert found.diagnostics["failures"].startswith("Sampling was interrupted")
    assert found.notes[0].startswith("Sampling was interrupted")
    assert found.summary().startswith("This posterior failed its checks")


@nuts
def test_failed_checks_lead_to_a_stricter_longer_attempt_and_stay_on_record():
    """Eight draws a chain cannot pass; the second attempt has twice as many and a higher target."""
    _, design, priors = eight_schools()
    few = NutsOptions(draws=8, tune=50, chains=2, cores=1, retries=1, form="marginal")

    found = sample_area(design, priors, few, 3)

    assert found.sample.number == 16
    assert found.diagnostics["failures"]
    assert any(note.startswith("Attempt 1 (target_accept 0.95):") for note in found.notes)


def test_an_improper_posterior_is_refused_before_sampling():
    """Flat on A needs more than p + 2 areas (THEORY; hbsae's test): three areas and one coefficient are too few."""
    design = area_design([1.0, 2.0, 4.0], [1.0, 1.0, 1.0], np.ones((3, 1)), fixed=("Intercept",))

    with pytest.raises(PriorError, match="proper only"):
        of_design(design, Priors(preset="flat_variance").resolve(design), "nuts", seed=1, nuts=SHORT)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (ImportError("No module named 'nutpie'"), "must be installed"),
        (RuntimeError("Chain 2 failed."), "stopped: Chain 2 failed. "),
        (ValueError("Not enough samples to build a trace."), "stopped: Not enough samples"),
    ],
)
def test_a_sampler_that_breaks_off_is_reported_as_such(monkeypatch, raised, said):
    """A killed chain or a missing sampler is a FitError with what to do, not a traceback of PyMC's."""
    _, design, priors = eight_schools()

    def broken(**_):
        raise raised

    monkeypatch.setattr(backend().pm, "sample", broken)

    with pytest.raises(FitError, match=said):
        sample_area(design, priors, SHORT, 1)


def test_areas_outside_the_chains_are_drawn_from_their_exact_distributions():
    """Closed forms given beta and A: gamma y + (1 - gamma) x'beta, gamma D; x'beta, A; the direct estimate."""
    design = areas()
    N, tau, beta = 40_000, 1.2, np.array([1.0, 0.4])
    drawn = Draws(
        variables={
            "beta": (("term",), np.broadcast_to(beta, (2, N // 2, 2))),
            "tau": ((), np.full((2, N // 2), tau)),
        },
        coords={"term": design.fixed},
    )

    theta = complete(design, drawn, np.random.default_rng(4)).variables["theta"][1].reshape(N, -1)

    mean = design.X @ beta + design.offset
    gamma = tau**2 / (tau**2 + design.D[:7])
    expected = np.append(gamma * design.y[:7] + (1 - gamma) * mean[:7], [mean[7], design.y[8]])
    variance = np.append(gamma * design.D[:7], [tau**2, 0.0])
    assert np.abs(theta.mean(axis=0) - expected)[:8] == pytest.approx(
        np.zeros(8), abs=FAR * np.sqrt(variance[:8].max() / N)
    )
    assert theta[:, :8].var(axis=0) == pytest.approx(variance[:8], rel=FAR * np.sqrt(2 / N))
    assert np.all(theta[:, 8] == design.y[8])


def test_integrated_effects_are_drawn_from_their_exact_distribution_given_beta():
    """Closed form on dense matrices: b | y, beta ~ N(GZ'V⁻¹(y - Xb), G - GZ'V⁻¹ZG), crossed factors with slopes."""
    design = crossed_slopes()
    of = target(design, Priors(fixed=Normal(0, 3), sd=HalfNormal(1), residual=HalfNormal(1)).resolve(design))
    N, beta = 20_000, np.array([1.5, 0.7])
    sd = (np.array([0.8, 1.1]), np.array([1.0, 0.5, 0.4, 0.6]))
    R = [np.eye(2), np.eye(4)]
    R[0][0, 1] = R[0][1, 0] = 0.4
    R[1][0, 1] = R[1][1, 0] = -0.6
    psi = Variances(
        tuple(np.broadcast_to(s, (N, s.size)) for s in sd),
        tuple(np.broadcast_to(r, (N, *r.shape)) for r in R),
        np.full(N, 0.9),
    )

    drawn = _effects(of, psi, np.broadcast_to(beta, (N, 2)), np.random.default_rng(5))

    Z, blocks = [], []
    for f, s, r in zip(design.factors, sd, R, strict=True):
        dense = np.zeros((len(design.y), len(f.levels), f.Z.shape[1]))
        dense[np.arange(len(design.y)), f.codes] = f.Z
        Z.append(dense.reshape(len(design.y), -1))
        blocks += [np.outer(s, s) * r] * len(f.levels)
    Z = np.hstack(Z)
    G = np.zeros((Z.shape[1], Z.shape[1]))
    at = 0
    for block in blocks:
        G[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    V = Z @ G @ Z.T + 0.81 * np.eye(len(Z))
    gain = np.linalg.solve(V, Z @ G).T
    mean = gain @ (design.y - design.offset - design.X @ beta)
    cov = G - gain @ Z @ G
    b = np.hstack([part.reshape(N, -1) for part in drawn])
    z = (b.mean(axis=0) - mean) / np.sqrt(np.diagonal(cov) / N)
    assert np.abs(z).max() < FAR + 0.5
    scale = np.sqrt(np.outer(np.diagonal(cov), np.diagonal(cov)))
    assert np.abs(np.cov(b.T) - cov).max() < (FAR + 1.5) * scale.max() * np.sqrt(2 / N)


def test_a_posterior_that_failed_is_marked_for_the_comparison():
    """What hl.compare reads: the sentences of the failed checks, empty where all passed (HOSTILE case 48)."""
    rng = np.random.default_rng(1)
    stats = {"diverging": np.zeros((2, 400), bool), "energy": rng.standard_normal((2, 400))}
    good = Draws(variables={"tau": ((), rng.standard_normal((2, 400)))}, coords={}, stats=stats)
    stuck = Draws(variables={"tau": ((), np.stack([np.zeros(400), np.ones(400)]))}, coords={}, stats=stats)

    assert check(good, ["tau"], "pymc", 400, ()).as_mapping()["failures"] == ""
    assert "disagree" in check(stuck, ["tau"], "pymc", 400, ()).as_mapping()["failures"]
