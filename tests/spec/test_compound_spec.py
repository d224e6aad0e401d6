"""A compound spec is a value like others: refused where it contradicts itself, printed, the same after TOML."""

from __future__ import annotations

import dataclasses

import pytest

import hierlmm as hl
from hierlmm.errors import FormulaError, SpecError
from hierlmm.spec.compoundtext import any_from_toml

LIP = hl.compound("observed ~ 1", unit="district", sampling=hl.PoissonSampling("expected"))
HITS = hl.compound("hits ~ x + offset(o)", unit="player", sampling=hl.BinomialSampling("n"), unsampled="synthetic")
SPECS = [
    LIP,
    HITS,
    hl.compound("y ~ 0", unit="u", sampling=hl.NormalSampling(0.25)),
    hl.compound("`a b` ~ 0 + offset(c)", unit="the unit", sampling=hl.NormalSampling("v")),
]


@pytest.mark.parametrize("spec", SPECS)
def test_toml_gives_back_the_same_spec(spec: hl.CompoundSpec) -> None:
    """Without loss, for every family and option; a file's spec is read whatever its kind."""
    assert hl.CompoundSpec.from_toml(spec.to_toml()) == spec
    assert any_from_toml(spec.to_toml()) == spec


def test_equal_models_are_equal_values_with_one_hash_and_cannot_be_changed() -> None:
    """A number of numpy is the number that it is."""
    import numpy as np

    one, other = (hl.compound("y ~ 1", unit="u", sampling=hl.NormalSampling(v)) for v in (0.1, np.float64(0.1)))

    assert (one, hash(one), repr(one)) == (other, hash(other), repr(other))
    assert hl.compound("y~x+1", unit="u", sampling=hl.PoissonSampling("E")).formula == "y ~ 1 + x"
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.unit = "v"  # type: ignore[misc]


def test_columns_are_named_by_role() -> None:
    """What the model reads, each once; a common variance is no column."""
    assert HITS.columns().all == ("hits", "x", "o", "player", "n")
    assert SPECS[2].columns().all == ("y", "u")


def test_a_spec_is_shown_in_the_notation_of_a_textbook() -> None:
    """Observation, prior, predictor, formula; at most 80 columns."""
    assert str(LIP) == (
        "Compound sampling: Poisson counts, gamma prior\n"
        "  observed | θ ~ Poisson(expected · θ), one θ for each district\n"
        "  θ ~ Gamma(shape ν, rate ν/μ): mean μ, variance μ²/ν; log μ = β₀\n"
        "  Formula: observed ~ 1"
    )
    assert "logit μ = β₀ + β₁ x + o" in str(HITS).replace("\n      ", " ")
    assert max(map(len, str(HITS).splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling": "normal"}, "sampling of compound"),
        ({"sampling": hl.NormalSampling(0)}, "a column or one positive number"),
        ({"sampling": hl.NormalSampling(float("nan"))}, "a column or one positive number"),
        ({"sampling": hl.PoissonSampling(2.0)}, "exposure is the name of a column"),  # type: ignore[arg-type]
        ({"sampling": hl.BinomialSampling("y")}, "trials and the response are the same column 'y'"),
        ({"unit": "E"}, "unit and exposure are the same column 'E'"),
        ({"unit": " "}, "unit is the name of a column"),
        ({"unsampled": "drop"}, "unsampled is one of error, synthetic"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(arguments: dict[str, object], message: str) -> None:
    """As far as that is certain without data."""
    whole = {"unit": "u", "sampling": hl.PoissonSampling("E"), **arguments}

    with pytest.raises(SpecError, match=message):
        hl.compound("y ~ 1", **whole)  # type: ignore[arg-type]


def test_a_term_with_a_bar_is_refused_with_its_position() -> None:
    """Every unit has its parameter already."""
    with pytest.raises(FormulaError, match="leave out terms with a bar"):
        hl.compound("y ~ 1 + (1 | g)", unit="g", sampling=hl.PoissonSampling("E"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "compound"\nformula = "y ~ 1"', "needs unit, sampling"),
        ('kind = "compound"\nformula = "y ~ 1"\nunit = "u"\nsampling = "normal"', "a table with its kind"),
        ('kind = "compound"\nformula = "y ~ 1"\nunit = "u"\nsampling = {kind = "poisson", n = "n"}', "key exposure"),
        ('kind = "compound"\nformula = "y ~ 1"\nunit = "u"\narea = "a"', "no key area"),
        ('kind = "lmm"\nformula = "y ~ 1"', "has kind 'compound'"),
        ("kind = ", "not TOML"),
    ],
)
def test_text_that_is_no_compound_model_is_refused(text: str, message: str) -> None:
    """Naming the key."""
    with pytest.raises(SpecError, match=message):
        hl.CompoundSpec.from_toml(text)
