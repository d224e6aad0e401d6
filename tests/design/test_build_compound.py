"""Designs of compound models: arrays with labels, and refusals that name the units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

import hierlmm as hl
from hierlmm.design.compound import build_compound, with_observations
from hierlmm.errors import DesignError

POISSON = hl.compound("y ~ 1 + x", unit="u", sampling=hl.PoissonSampling("E"))
BINOMIAL = hl.compound("y ~ 1", unit="u", sampling=hl.BinomialSampling("n"))
NORMAL = hl.compound("y ~ 1", unit="u", sampling=hl.NormalSampling("D"))


def table(**changes: object) -> pd.DataFrame:
    """Six units; columns replaced by `changes`."""
    data = {
        "u": list("fedcba"), "y": [3.0, 0, 5, 1, 2, 4], "x": [0.1, 0.4, -0.3, 0.2, 0.9, -1.0],
        "E": [2.5, 1.0, 4.0, 0.5, 3.0, 2.0], "n": [5, 5, 6, 4, 4, 4], "D": [0.5, 0.4, 0.3, 0.2, 0.6, 0.7],
    }  # fmt: skip
    return pd.DataFrame({**data, **changes})


def test_units_stay_in_table_order_with_their_labels() -> None:
    """Nothing is reordered; polars gives the same design, whose fingerprint says so."""
    design = build_compound(POISSON, table())
    other = build_compound(POISSON, pl.from_pandas(table()))

    assert list(design.units) == list("fedcba")
    assert design.fixed == ("Intercept", "x")
    assert design.direct == pytest.approx([1.2, 0, 1.25, 2, 2 / 3, 2], rel=1e-15)
    assert other.fingerprint == design.fingerprint
    assert build_compound(POISSON, table(E=1.0)).fingerprint.differences(design.fingerprint) == ("variances",)


def test_a_normal_design_is_the_area_level_one() -> None:
    """The Fay-Herriot engine sees the same arrays; one number serves all units."""
    data = table()
    area = build_compound(NORMAL, data).area
    common = build_compound(hl.compound("y ~ 1", unit="u", sampling=hl.NormalSampling(0.3)), data)

    assert area is not None
    assert area.spec == hl.fay_herriot("y ~ 1", sampling_variance="D", area="u")
    assert (common.size == 0.3).all()
    assert list(common.table.columns) == ["u", "y"] or set(common.table.columns) == {"y", "u"}


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (POISSON, {"y": [3, 0, 5, -1, 2, 4]}, r"whole number, 0 or more; found y of E for units c \(-1 of 0.5\)"),
        (POISSON, {"y": [3, 0, 5.5, 1, 2, 4]}, r"whole number.*d \(5.5 of 4\)"),
        (POISSON, {"E": [2.5, 1, 4, 0, 3, 2]}, r"no counts without exposure.*c \(1 of 0\)"),
        (POISSON, {"E": [2.5, 1, -4, 1, 3, 2]}, r"exposure must be finite, 0 or more.*d \(5 of -4\)"),
        (POISSON, {"E": [2.5, 1, np.inf, 1, 3, 2]}, r"exposure must be finite"),
        (POISSON, {"E": list("abcdef")}, "Exposures must be numeric; column E holds text"),
        (POISSON, {"E": [2.5, np.nan, 4, 1, 3, 2]}, "a positive exposure; y or E is missing or 0 for units e"),
        (POISSON, {"y": [3, np.nan, 5, 1, 2, 4]}, 'units e. Remove them, or use unsampled="synthetic"'),
        (POISSON, {"x": [0.1, np.nan, 0, 1, 2, 3]}, "label and its predictors; x is missing in rows 1"),
        (POISSON, {"u": list("aedcba")}, "one row; in column u a stands more than once"),
        (BINOMIAL, {"y": [6, 0, 5, 1, 2, 4]}, r"more successes than trials; found y of n for units f \(6 of 5\)"),
        (BINOMIAL, {"n": [5, 5.5, 6, 4, 4, 4]}, r"number of trials must be a whole number.*e \(0 of 5.5\)"),
        (BINOMIAL, {"y": [3, 0, 5, 1, 0, 4], "n": [5, 5, 6, 4, 0, 4]}, "positive number of trials.*units b"),
        (NORMAL, {"D": [0.5, 0, 0.3, 0.2, 0.6, 0.7]}, "sampling variance must be positive; column D is 0 for units e"),
        (NORMAL, {"D": [0.5, -1, 0.3, 0.2, 0.6, 0.7]}, "negative for areas e"),
    ],
)
def test_bad_input_is_refused_naming_the_units(spec: hl.CompoundSpec, changes: dict[str, object], message: str) -> None:
    """HOSTILE, row 46, and its neighbours."""
    with pytest.raises(DesignError, match=message):
        build_compound(spec, table(**changes))


def test_units_without_exposure_or_trials_stay_outside_by_choice() -> None:
    """unsampled="synthetic": named in a note, and given the prior."""
    spec = hl.compound("y ~ 1", unit="u", sampling=hl.PoissonSampling("E"), unsampled="synthetic")

    design = build_compound(spec, table(y=[3, 0, np.nan, 1, 2, 4], E=[2.5, 0, 4, 0.5, 3, 2]))

    assert list(design.role) == ["sampled", "unsampled", "unsampled", "sampled", "sampled", "sampled"]
    assert "e, d" in design.notes[0]
    assert np.isnan(design.direct[1:3]).all()


def test_an_exposure_in_other_units_is_noted() -> None:
    """O_i >> E_i is fitted as it stands, and said."""
    spec = hl.compound("y ~ 1", unit="u", sampling=hl.PoissonSampling("E"))

    design = build_compound(spec, table(y=[300, 0, 5, 1, 2, 9], E=[250.0, 100, 400, 50, 300, 0.002]))

    assert any("rate of a is more than 100 times the pooled rate" in note for note in design.notes)


def test_no_more_units_than_coefficients_is_refused() -> None:
    """Nothing would be left to estimate a variance from."""
    with pytest.raises(DesignError, match="found 2 units and 2 coefficients"):
        build_compound(POISSON, table().head(2))


def test_new_observations_are_held_to_the_same_rules() -> None:
    """In the order of the design; the fingerprint follows the response alone."""
    design = build_compound(BINOMIAL, table())
    other = with_observations(design, [1, 1, 1, 1, 1, 1])

    assert (other.y == 1).all()
    assert other.fingerprint.differences(design.fingerprint) == ("response",)
    with pytest.raises(DesignError, match="more successes than trials"):
        with_observations(design, [9, 1, 1, 1, 1, 1])
    with pytest.raises(DesignError, match=r"shape \(2,\) for 6 units"):
        with_observations(design, [1, 1])


def test_a_table_without_one_observed_unit_is_refused_as_such() -> None:
    """Not as a model without an intercept."""
    spec = hl.compound("y ~ 1", unit="u", sampling=hl.PoissonSampling("E"), unsampled="synthetic")
    with pytest.raises(DesignError, match="none of 6 units has a count and a positive exposure"):
        build_compound(spec, table(y=0, E=0.0))
