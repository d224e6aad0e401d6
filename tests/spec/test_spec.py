"""A spec is a value: equal by content, hashable, printable, and the same after TOML."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from hierlmm.errors import FormulaError, SpecError
from hierlmm.spec import Columns, Independent, ModelSpec, RandomTerm, SamplingVariances, fay_herriot, lmm

SITKA = lmm("size ~ Time * treat + (1 + Time | tree)")
MILK = fay_herriot("yi ~ C(MajorArea)", sampling_variance="vardir", area="SmallArea")
# One of each kind, and the options that differ from their defaults.
SPECS = [
    SITKA,
    MILK,
    lmm("log(y) ~ 0 + C(g, contr.sum) + `a b`:x + offset(log(t)) + (x*z || a/b) + (1 | `g h`)"),
    fay_herriot("y ~ 0 + x + offset(o)", sampling_variance="var dir", area="a.b", unsampled="synthetic"),
    fay_herriot("y ~ 1", sampling_variance="v", area="a", unsampled="synthetic", zero_variance="direct"),
    dataclasses.replace(SITKA, random=()),
]


def test_equal_models_are_equal_values_with_one_hash() -> None:
    """Specs made from different texts of one model can stand for each other in sets and caches."""
    same = lmm("size~treat*Time-treat:Time+treat:Time+(Time|tree)")

    assert lmm("y ~ x + (1|g)") == lmm("y ~ 1 + x + (1 | g)")
    assert len({lmm("y ~ x + (1|g)"), lmm("y ~ 1 + x + (1 | g)")}) == 1
    assert lmm("y ~ (x || g)") == lmm("y ~ (1 | g) + diag(0 + x | g)")
    assert lmm("y ~ (1 | a/b)") == lmm("y ~ (1 | a) + (1 | a:b)")
    assert same != SITKA  # the names of columns follow the order written: treat:Time, not Time:treat
    assert lmm("y ~ x + (1 | g)") != lmm("y ~ x + (1 | h)")


def test_a_spec_cannot_be_changed() -> None:
    """Frozen: what was fitted is what the result's spec says."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SITKA.response = "other"  # type: ignore[misc]


def test_fay_herriot_is_the_mixed_model_with_known_variances() -> None:
    """DESIGN: a random intercept for each area, and residual variances read from a column."""
    assert MILK.random == (RandomTerm(("1",), ("SmallArea",)),)
    assert MILK.residual == SamplingVariances("vardir", "error", "error")
    assert MILK.is_area_level
    assert not SITKA.is_area_level
    assert MILK.formula == "yi ~ 1 + C(MajorArea)"


@pytest.mark.parametrize("spec", SPECS)
def test_toml_gives_back_the_same_spec(spec: ModelSpec) -> None:
    """Without loss, for every kind and option."""
    assert ModelSpec.from_toml(spec.to_toml()) == spec


def test_toml_is_the_table_of_the_catalogue() -> None:
    """Written by hand: the keys are the arguments of the constructor, defaults left out."""
    assert MILK.to_toml() == (
        'kind = "fay_herriot"\nformula = "yi ~ 1 + C(MajorArea)"\nsampling_variance = "vardir"\narea = "SmallArea"\n'
    )
    assert lmm("y ~ (1 | g)").to_toml() == 'kind = "lmm"\nformula = "y ~ 1 + (1 | g)"\n'


def test_a_spec_that_its_formula_does_not_describe_is_not_written() -> None:
    """Terms out of order would come back as another spec: refused, not lost."""
    spec = dataclasses.replace(SITKA, fixed=("Time", "1"))

    with pytest.raises(SpecError, match="reads as another spec"):
        spec.to_toml()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "kind is one of lmm, linear, fay_herriot; found None"),
        ({"kind": "glmm", "formula": "y ~ (1 | g)"}, "kind is one of lmm, linear, fay_herriot; found 'glmm'"),
        ({"kind": "lmm"}, "needs formula"),
        ({"kind": "lmm", "formula": "y ~ (1 | g)", "area": "a", "colour": "b"}, "has no key area, colour"),
        ({"kind": "fay_herriot", "formula": "y ~ x", "area": "a"}, "needs sampling_variance"),
        ({"kind": "lmm", "formula": 3}, "values of formula must be text"),
        ({"kind": "linear", "formula": "y ~ (1 | g)"}, "has no random-effects terms"),
        (
            {"kind": "fay_herriot", "formula": "y ~ x", "area": "a", "sampling_variance": "v", "unsampled": "drop"},
            "unsampled is one of error, synthetic; found 'drop'",
        ),
    ],
)
def test_a_table_that_is_no_spec_is_refused_by_key(table: dict[str, object], message: str) -> None:
    """Each error names the key or the value, and what is allowed."""
    with pytest.raises(SpecError, match=message):
        ModelSpec.from_mapping(table)


def test_text_that_is_no_toml_is_refused() -> None:
    """The decoder's own error says where."""
    with pytest.raises(SpecError, match=r"not TOML: .*line 1"):
        ModelSpec.from_toml("kind = lmm")


def test_an_area_model_takes_no_random_term() -> None:
    """Its random effect is that of `area`; the error points at the bar."""
    with pytest.raises(FormulaError, match="random effect is that of area='a'") as caught:
        fay_herriot("y ~ x + (1 | g)", sampling_variance="v", area="a")
    assert caught.value.position == 11


def test_specs_that_contradict_themselves_are_refused() -> None:
    """One column cannot play two of the parts response, variance and area; residual and model must fit."""
    for arguments, message in [
        ({"sampling_variance": "y", "area": "a"}, "sampling_variance and the response are the same column 'y'"),
        ({"sampling_variance": "v", "area": "y"}, "area and the response are the same column 'y'"),
        ({"sampling_variance": "v", "area": "v"}, "area and sampling_variance are the same column 'v'"),
        ({"sampling_variance": "", "area": "a"}, "sampling_variance is the name of a column; found ''"),
        ({"sampling_variance": "v", "area": "a", "zero_variance": "drop"}, "zero_variance is one of error, direct"),
    ]:
        with pytest.raises(SpecError, match=message):
            fay_herriot("y ~ x", **arguments)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"structure of lmm\(...\) is one of Independent, .*use fay_herriot"):
        lmm("y ~ (1 | g)", residual=SamplingVariances("v"))  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="exactly one random intercept"):
        dataclasses.replace(SITKA, residual=SamplingVariances("v"))


def test_columns_are_listed_by_role() -> None:
    """Each role lists its columns once, in order; `all` lists every column once."""
    spec = lmm("log(y) ~ C(g) + bs(x, df=4) + x:z + offset(log(t)) + (x | a/b) + (0 + w | `g h`)")

    assert spec.columns() == Columns(
        response=("y",),
        fixed=("g", "x", "z"),
        random=("x", "w"),
        groups=("a", "b", "g h"),
        offset=("t",),
        sampling_variance=(),
        residual=(),
        weights=(),
    )
    assert spec.columns().all == ("y", "g", "x", "z", "w", "a", "b", "g h", "t")
    assert MILK.columns().all == ("yi", "MajorArea", "SmallArea", "vardir")


def test_a_mixed_model_prints_as_in_a_textbook() -> None:
    """Typed by hand from the model's definition (THEORY: y = Xβ + Zb + ε, b ~ N(0, G))."""
    assert str(SITKA) == (
        "Linear mixed model\n"
        "  size = β₀ + β₁ Time + β₂ treat + β₃ Time:treat + b₁[tree] + b₂[tree] Time + ε\n"
        "  (b₁, b₂)[tree] ~ N(0, G), one for each tree; G is 2 × 2 unstructured\n"
        "  ε ~ N(0, σ²), independent\n"
        "  Formula: size ~ 1 + Time + treat + Time:treat + (1 + Time | tree)"
    )


def test_the_area_model_prints_as_the_mixed_model_it_is() -> None:
    """D is said to be known, and the model to be a mixed model with a random intercept for each area."""
    assert str(MILK) == (
        "Fay-Herriot area-level model\n"
        "  yi = β₀ + β₁′C(MajorArea) + v[SmallArea] + e\n"
        "  v[SmallArea] ~ N(0, A), one for each SmallArea; A is estimated\n"
        "  e ~ N(0, D), D = vardir known\n"
        "  This is the linear mixed model with a random intercept for each SmallArea and\n"
        "      known residual variances.\n"
        "  Formula: yi ~ 1 + C(MajorArea)"
    )


@pytest.mark.parametrize("spec", SPECS)
def test_no_printed_line_is_wider_than_80_columns(spec: ModelSpec) -> None:
    """For every kind and option."""
    assert max(map(len, str(spec).splitlines())) <= 80


def test_importing_the_spec_loads_none_of_the_heavy_packages() -> None:
    """DESIGN: `import hierlmm` stays light; formulaic and the writer of TOML come with their first use."""
    code = "import sys, hierlmm.spec; print({'formulaic', 'tomli_w'} & set(sys.modules))"

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert out.strip() == "set()"


def test_the_default_residual_is_independent() -> None:
    """One residual variance, estimated."""
    assert SITKA.residual == Independent()
