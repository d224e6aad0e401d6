"""hl.posterior: one call for both families, priors in any of their forms, seeds kept, misuse refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from bayes_cases import reference

import hierlmm as hl
from hierlmm.bayes.lmmresults import LMMPosterior

DYESTUFF = reference("bayes_lmm.json")["dyestuff"]
LMM_DATA = pd.DataFrame({"Yield": DYESTUFF["y"], "Batch": DYESTUFF["batch"]})
LMM = hl.lmm("Yield ~ 1 + (1 | Batch)")
SCHOOLS = reference("bayes_area.json")["eight_schools"]
AREA_DATA = pd.DataFrame({"y": SCHOOLS["y"], "D": np.square(SCHOOLS["sd"]), "school": list("ABCDEFGH")})
AREA = hl.fay_herriot("y ~ 1", sampling_variance="D", area="school")


def test_area_and_mixed_models_go_through_one_call():
    """bayes/eight_schools to six digits through the public face; the mixed model by its closed-form mean."""
    area = hl.posterior(AREA, AREA_DATA, priors=["fixed=normal(0, 5)", "sd=halfcauchy(5)"], draws=10, seed=1)
    mixed = hl.posterior(LMM, LMM_DATA, draws=10, seed=1)

    np.testing.assert_allclose(area.areas[["estimate", "se"]], SCHOOLS["theta"], rtol=1e-6)
    assert isinstance(mixed, LMMPosterior)
    assert mixed.fixed.estimate[0] == pytest.approx(np.mean(DYESTUFF["y"]), rel=1e-10)
    assert area.spec == AREA
    assert mixed.fingerprint == mixed.design.fingerprint


def test_areas_that_are_fitted_predict_themselves_and_new_ones_do_not_need_a_response():
    """predict: rows of the fit by their key; a new area from its covariates alone."""
    result = hl.posterior(AREA, AREA_DATA, draws=0, seed=1)

    frame = result.predict(pd.DataFrame({"school": ["H", "new"]}))
    assert frame.estimate[0] == pytest.approx(result.areas.estimate[7], rel=1e-12)
    assert frame.estimate[1] == pytest.approx(result.fixed.estimate[0], rel=1e-12)
    assert list(frame.area) == ["H", "new"]


def test_mixed_models_predict_known_and_new_levels_from_a_table():
    """predict: a known batch is β + b, a new one β with the between-batch variance added."""
    result = hl.posterior(LMM, LMM_DATA, draws=0, seed=1)

    frame = result.predict(pd.DataFrame({"Batch": ["A", "Z"]}), new_levels="population")
    assert frame.estimate[0] == pytest.approx(result.group_coefficients.estimate[0], rel=1e-9)
    assert frame.se[0] == pytest.approx(result.group_coefficients.se[0], rel=1e-9)
    assert frame.estimate[1] == pytest.approx(result.fixed.estimate[0], rel=1e-9)
    assert list(frame.new_levels) == ["", "Batch"]
    pd.testing.assert_frame_equal(result.predict(), result.predict(LMM_DATA))
    with pytest.raises(hl.DesignError, match=r'Batch has Z in rows 1.*new_levels="population"'):
        result.predict(pd.DataFrame({"Batch": ["A", "Z"]}))


def test_a_fresh_seed_is_kept_and_repeats_the_draws():
    """The seed that was drawn from entropy is enough to have the same draws again."""
    first = hl.posterior(LMM, LMM_DATA, draws=20)
    again = hl.posterior(LMM, LMM_DATA, draws=20, seed=first.seed)
    other = hl.posterior(LMM, LMM_DATA, draws=20)

    assert (first.draws["posterior"]["sigma"] == again.draws["posterior"]["sigma"]).all()
    assert first.seed != other.seed


def test_no_draws_are_needed_for_means_and_intervals():
    """draws=0: the same tables, an empty draw dimension."""
    none, some = (hl.posterior(LMM, LMM_DATA, draws=draws, seed=1) for draws in (0, 100))

    pd.testing.assert_frame_equal(none.variance_components, some.variance_components)
    assert none.draws["posterior"].sizes["draw"] == 0


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"engine": "gibbs"}, hl.FitError, "'integrate' or 'nuts'"),
        ({"draws": -1}, hl.FitError, "0 or more"),
        ({"draws": 2.5}, hl.FitError, "0 or more"),
        ({"priors": "sd(Batches)=flat"}, hl.PriorError, "Did you mean 'Batch'"),
        ({"priors": "horseshoe"}, hl.PriorError, "preset"),
        ({"priors": "sd=flat(log)"}, hl.PriorError, "whatever the data"),
        ({"nuts": hl.NutsOptions()}, hl.FitError, "engine 'nuts'"),
    ],
)
def test_misuse_is_refused_with_what_to_do(arguments, error, match):
    """STYLE 21: each refusal names the rule, what was found and what to do."""
    with pytest.raises(error, match=match):
        hl.posterior(LMM, LMM_DATA, **arguments)


def test_frames_have_the_columns_of_the_fits_and_the_monte_carlo_error():
    """DESIGN: one vocabulary in both halves, so that tables concatenate."""
    fit, post = hl.fit(LMM, LMM_DATA), hl.posterior(LMM, LMM_DATA, draws=0, seed=1)
    for name in ("variance_components", "random_effects", "group_coefficients"):
        ours, theirs = getattr(post, name), getattr(fit, name)
        assert set(ours.columns) - {"mcse"} <= set(theirs.columns) | {"g1", "g2", "g3"}, name
        assert "mcse" in ours.columns
        labels = [c for c in ("group", "level", "term", "term2", "quantity") if c in ours]
        pd.testing.assert_frame_equal(ours[labels], theirs[labels])
    area_fit, area_post = hl.fit(AREA, AREA_DATA), hl.posterior(AREA, AREA_DATA, draws=0, seed=1)
    assert set(area_fit.areas.columns) - {"mse_unbiased"} | {"mcse"} == set(area_post.areas.columns)
