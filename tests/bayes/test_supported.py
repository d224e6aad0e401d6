"""Specs that the Bayesian half does not fit are refused at each way in; a linear model without groups is fitted."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import SpecError

rng = np.random.default_rng(5)
DATA = pd.DataFrame(
    {
        "y": rng.normal(size=24),
        "x": np.tile([0.0, 1.0, 2.0, 4.0], 6),
        "t": np.tile([1, 2, 3, 4], 6),
        "g": np.repeat(list("abcdef"), 4),
        "w": np.tile([1, 2, 3, 1], 6),
    }
)

REFUSED = {
    "residual": (hl.lmm("y ~ x", residual=hl.AR1("g", "t")), r"found residual=AR1\(group='g', position='t'\)"),
    "known variances": (hl.lmm("y ~ x + (1 | g)", residual=hl.KnownVariances("w")), "found residual=KnownVariances"),
    "stratified": (hl.lmm("y ~ x + (1 | g)", residual=hl.Stratified("t")), "found residual=Stratified"),
    "weights": (hl.lmm("y ~ x + (1 | g)", weights=hl.Precision("w")), r"found weights=Precision\(column='w'\)"),
    "identity": (hl.lmm("y ~ x + identity(x | g)"), r"found identity\(1 \+ x \| g\)"),
    "cs": (hl.lmm("y ~ x + cs(x | g)"), r"found cs\(1 \+ x \| g\)"),
    "all": (
        hl.lmm("y ~ x + cs(x | g)", residual=hl.Stratified("t"), weights=hl.Frequency("w")),
        r"found residual=Stratified.*, weights=Frequency.*, cs\(1 \+ x \| g\)\. Leave these out, or .* hl\.fit",
    ),
}


@pytest.mark.parametrize(("spec", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("way_in", [hl.posterior, hl.to_pymc, hl.prior_predictive])
def test_what_only_hl_fit_knows_is_refused_at_each_way_in(way_in, spec, message):
    """Before the data are looked at: the error is the same whatever they are."""
    with pytest.raises(SpecError, match=message):
        way_in(spec, DATA)
    with pytest.raises(SpecError, match="Posteriors and PyMC models exist for independent residuals"):
        way_in(spec, "no table")


def test_diagonal_terms_are_blocks_of_one_column():
    """diag(x | g) is (1 | g) + diag(0 + x | g), whose posterior is the same to the last digit."""
    one, other = (
        hl.posterior(hl.lmm(f"y ~ x + {text}"), DATA, draws=0, seed=1)
        for text in ("diag(x | g)", "(1 | g) + diag(0 + x | g)")
    )

    assert_allclose(one.fixed_effects.estimate, other.fixed_effects.estimate, rtol=1e-12)
    assert_allclose(one.fixed_effects.se, other.fixed_effects.se, rtol=1e-12)


def test_the_posterior_of_a_linear_model_is_the_textbooks():
    """Flat in β and σ: σ² is inverse gamma ((n - p - 1)/2, RSS/2), and β given it normal around least squares.

    Gelman et al., Bayesian Data Analysis (3rd ed.), section 14.2, with p(σ) = 1 in place of 1/σ. The integral over σ
    is by importance sampling, good to a Monte Carlo error; means of β given σ are exact.
    """
    posterior = hl.posterior(hl.lmm("y ~ x"), DATA, priors="residual=flat", draws=500, seed=1)
    X = np.column_stack([np.ones(24), DATA["x"]])
    beta, rss, *_ = np.linalg.lstsq(X, DATA["y"].to_numpy(), rcond=None)
    variance = rss[0] / (24 - 2 - 3)  # mean of the inverse gamma
    components = posterior.variance_components.set_index("quantity")

    assert_allclose(posterior.fixed_effects.estimate, beta, rtol=1e-9)
    assert_allclose(posterior.fixed_effects.se, np.sqrt(variance * np.diagonal(np.linalg.inv(X.T @ X))), rtol=2e-2)
    assert_allclose(components.loc["variance", "estimate"], variance, rtol=2e-2)


def test_a_linear_model_has_empty_frames_of_random_effects():
    """With the columns that those of a mixed model have, so that code for one reads the other."""
    linear, mixed = (hl.posterior(hl.lmm(text), DATA, draws=0, seed=1) for text in ("y ~ x", "y ~ x + (1 | g)"))

    for name in ("random_effects", "group_coefficients"):
        assert len(getattr(linear, name)) == 0
        assert list(getattr(linear, name)) == list(getattr(mixed, name))
