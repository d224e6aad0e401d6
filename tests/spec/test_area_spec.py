"""Specs of areas: transformations, effects, covariances and policies, as values, text and tables."""

from __future__ import annotations

import dataclasses

import pytest

import hierlmm as hl
from hierlmm.design.fingerprint import of_spec
from hierlmm.errors import SpecError
from hierlmm.spec import ModelSpec
from hierlmm.spec.residual import SamplingVariances

PLAIN = hl.fay_herriot("y ~ x", sampling_variance="D", area="a")
SPECS = {
    "log": hl.fay_herriot("y ~ x", sampling_variance="D", area="a", transformation=hl.Log()),
    "arcsine": hl.fay_herriot("y ~ x", area="a", transformation=hl.ArcsineRoot(size="n")),
    "arcsine with variances": hl.fay_herriot(
        "y ~ x", sampling_variance="D", area="a", transformation=hl.ArcsineRoot(size="n")
    ),
    "logit": hl.fay_herriot("I(y / 100) ~ x", sampling_variance="D", area="a", transformation=hl.Logit()),
    "covariance": hl.fay_herriot("y ~ x", sampling_covariance="S", area="a", unsampled="synthetic"),
    "spatial": hl.fay_herriot("y ~ x", sampling_variance="D", area="a", area_effects=hl.SAR("W", standardise="rows")),
    "policies": hl.fay_herriot(
        "y ~ x", sampling_variance="D", area="a", unsampled="synthetic", zero_variance="unsampled",
        absurd_variance="accept", missing_covariates="drop", sample_size="n",
    ),
    "all": hl.fay_herriot(
        "y ~ x", sampling_covariance="S", area="a", transformation=hl.Log(), area_effects=hl.SAR("W"), sample_size="n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_of_areas_is_a_value_and_goes_through_text(name):
    """Hashable, equal by value, told apart from the plain one, and what to_toml writes from_toml reads."""
    spec = SPECS[name]

    assert ModelSpec.from_toml(spec.to_toml()) == spec
    assert hash(dataclasses.replace(spec)) == hash(spec)
    assert spec != PLAIN
    assert spec.is_area_level
    assert all(len(line) <= 80 for line in str(spec).splitlines())


LINES = {
    "log": ["log(y) = β₀ + β₁ x + v[a] + e", "e ~ N(0, D), D = D/y² known", "taken back to the scale of y"],
    "arcsine": ["arcsin √y = ", "D = 1/(4 n) known"],
    "logit": ["logit(I(y / 100)) = ", "D = D/(I(y / 100) (1 - I(y / 100)))² known"],
    "covariance": ["e ~ N(0, S), S known", "are predicted from the covariates"],
    "all": ["e ~ N(0, H S H), S known; H diagonal, 1/y"],
    "spatial": ["v = ρ W v + u, u[a] ~ N(0, A); ρ and A are estimated", "its rows divided by their sums"],
    "policies": ["D = 0 are taken as areas without", "Absurd values of D", "without their covariates are left out"],
}


@pytest.mark.parametrize("name", LINES)
def test_a_spec_of_areas_reads_as_a_textbook(name):
    """The equation is that of the scale of the model; laws and policies stand below."""
    text = " ".join(str(SPECS[name]).split())

    for line in LINES[name]:
        assert line in text


def test_columns_and_matrices_are_listed_by_role():
    """Sizes of an arcsine and to hold variances against; matrices are no columns."""
    assert SPECS["arcsine"].columns().sample_size == ("n",)
    assert SPECS["arcsine"].columns().sampling_variance == ()
    assert SPECS["policies"].columns().all == ("y", "x", "a", "D", "n")
    assert SPECS["all"].matrices == ("W", "S")
    assert PLAIN.matrices == ()


def fh(**options):
    return lambda: hl.fay_herriot("y ~ x", area="a", **options)


REFUSED = [
    (fh(), r"needs sampling_variance \(a column\) or sampling_covariance"),
    (fh(sampling_variance="D", sampling_covariance="S"), "not both"),
    (fh(sampling_covariance="S", zero_variance="direct"), "positive definite"),
    (fh(sampling_covariance="S", transformation=hl.ArcsineRoot(size="n")), "follow from the effective sample sizes"),
    (fh(sampling_variance="D", transformation="log"), "one of Log, ArcsineRoot, Logit"),
    (fh(sampling_variance="D", transformation=hl.Log), "one of Log, ArcsineRoot, Logit"),
    (fh(sampling_variance="D", area_effects="sar"), r"one of IndependentEffects, SAR"),
    (fh(sampling_variance="D", area_effects=hl.SAR("W", standardise="yes")), "standardise is one of none, rows"),
    (fh(sampling_variance="D", area_effects=hl.SAR([[0, 1], [1, 0]])), "by its name.*found list"),
    (fh(sampling_covariance="S", area_effects=hl.SAR("S")), "are the same one, 'S'"),
    (fh(sampling_variance="D", absurd_variance="drop"), "absurd_variance is one of error, unsampled, accept"),
    (fh(sampling_variance="D", zero_variance="drop"), "zero_variance is one of error, direct, unsampled"),
    (fh(sampling_variance="D", missing_covariates="x"), "missing_covariates is one of error, drop"),
    (fh(sampling_variance="D", transformation=hl.ArcsineRoot(size="D")), "are the same column 'D'"),
    (fh(transformation=hl.ArcsineRoot(size="n"), zero_variance="direct"), "never 0.*zero_variance='direct'"),
    (fh(transformation=hl.ArcsineRoot(size="n"), sample_size="y"), "sample_size and the response are the same"),
    (fh(transformation=hl.ArcsineRoot(size="n"), sample_size=5), "sample_size is the name of a column; found 5"),
    (fh(transformation=hl.ArcsineRoot(size="y")), "size of ArcsineRoot.* and the response are the same column"),
    (fh(sampling_variance="D", sample_size="a"), "area and sample_size are the same column"),
    (
        lambda: hl.fay_herriot("log(y) ~ x", sampling_variance="D", area="a", transformation=hl.Log()),
        r"takes the response on the scale of the data; found 'log\(y\)'",
    ),
    (lambda: hl.lmm("y ~ x + (1 | a)", residual=hl.SAR("W")), "area_effects=SAR"),
    (lambda: dataclasses.replace(hl.lmm("y ~ (1 | a)"), area_effects=hl.SAR("W")), "whose groups are independent"),
    (lambda: dataclasses.replace(hl.lmm("y ~ (1 | a)"), transformation=hl.Log()), "log.y.$|as in log"),
    (lambda: dataclasses.replace(PLAIN, residual=SamplingVariances(None)), "column of its sampling variances"),
    (lambda: ModelSpec.from_mapping({"kind": "fay_herriot", "formula": "y ~ x", "area": "a", "area_effects":
                                     {"kind": "sar"}}), "needs matrix"),
    (lambda: ModelSpec.from_mapping({"kind": "fay_herriot", "formula": "y ~ x", "area": "a", "transformation": "log"}),
     "is a table with its kind"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_specs_that_contradict_themselves_are_refused(make, message):
    """Each refusal names what contradicts what."""
    with pytest.raises(SpecError, match=message):
        make()


def test_every_part_of_a_spec_is_in_its_fingerprint():
    """Two specs that differ in a scale, a policy or the name of a matrix are told apart; saved files hold that what a
    spec has by default is not in it (format1-AreaFit-milk.hlm)."""
    named = dataclasses.replace(PLAIN, residual=dataclasses.replace(PLAIN.residual, sample_size="n"))
    specs = (*SPECS.values(), PLAIN, named)

    assert len({of_spec(spec, spec.random) for spec in specs}) == len(specs)
