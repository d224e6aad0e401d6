"""Residual structures and weights of a spec: what contradicts itself, what it reads, prints and writes."""

from __future__ import annotations

import dataclasses

import pytest

import hierlmm as hl
from hierlmm.errors import SpecError
from hierlmm.spec import Columns, ModelSpec, fay_herriot, lmm
from hierlmm.spec.residual import Correlated, LMMResidual

# Each structure, its sub-table typed by hand, and what its lines say (Pinheiro and Bates 2000, chapter 5).
STRUCTURES: list[tuple[LMMResidual, str, list[str]]] = [
    (hl.KnownVariances("v"), 'kind = "known_variances"\ncolumn = "v"\n', ["ε ~ N(0, v), independent, v = v known"]),
    (
        hl.Stratified("a:b"),
        'kind = "stratified"\nby = "a:b"\n',
        ["ε ~ N(0, σ²[a:b]), independent, one variance for each a:b"],
    ),
    (
        hl.CompoundSymmetry("tree"),
        'kind = "compound_symmetry"\ngroup = "tree"\n',
        [
            "ε[tree] ~ N(0, R), independent between levels of tree",
            "R has variance σ² and correlation ρ between any two rows",
        ],
    ),
    (
        hl.HeterogeneousCompoundSymmetry("tree", "t"),
        'kind = "heterogeneous_compound_symmetry"\ngroup = "tree"\noccasion = "t"\n',
        ["R has variances σ²[t] and correlation ρ between any two rows"],
    ),
    (
        hl.AR1("a:b", "t"),
        'kind = "ar1"\ngroup = "a:b"\nposition = "t"\n',
        [
            "ε[a:b] ~ N(0, R), independent between levels of a:b",
            "R has variance σ² and correlation ρ^d at distance d in t",
        ],
    ),
    (
        hl.HeterogeneousAR1("tree", "t"),
        'kind = "heterogeneous_ar1"\ngroup = "tree"\nposition = "t"\n',
        ["R has variances σ²[t] and correlation ρ^d at distance d in t"],
    ),
    (
        hl.ContinuousAR1("tree", "days"),
        'kind = "continuous_ar1"\ngroup = "tree"\ntime = "days"\n',
        ["R has variance σ² and correlation exp(-d/r) at distance d in days"],
    ),
    (
        hl.ContinuousAR1("tree", "days", nugget=True),
        'kind = "continuous_ar1"\ngroup = "tree"\ntime = "days"\nnugget = true\n',
        ["R has variance σ² and correlation (1 - c)·exp(-d/r) at distance d in days, c"],
    ),
    (
        hl.Toeplitz("tree", "t"),
        'kind = "toeplitz"\ngroup = "tree"\nposition = "t"\n',
        ["R has variance σ² and a correlation for each distance in t"],
    ),
    (
        hl.Antedependence("tree", "t"),
        'kind = "antedependence"\ngroup = "tree"\noccasion = "t"\n',
        ["R has variances σ²[t] and a correlation of each t with the next"],
    ),
    (
        hl.Unstructured("tree", "t"),
        'kind = "unstructured"\ngroup = "tree"\noccasion = "t"\n',
        ["R has variances σ²[t] and a covariance for each pair of t: unstructured"],
    ),
]
CORRELATED = [one for one, _, _ in STRUCTURES if isinstance(one, Correlated)]


@pytest.mark.parametrize(("residual", "table", "lines"), STRUCTURES)
def test_a_structure_is_printed_and_written(residual: LMMResidual, table: str, lines: list[str]) -> None:
    """Its sub-table reads as an equal spec, and its lines keep to 80 columns."""
    spec = lmm("y ~ x", residual=residual)

    assert spec.to_toml() == f'kind = "linear"\nformula = "y ~ 1 + x"\n\n[residual]\n{table}'
    assert ModelSpec.from_toml(spec.to_toml()) == spec
    for line in lines:
        assert line in str(spec)
    assert max(map(len, str(spec).splitlines())) <= 80


@pytest.mark.parametrize("residual", [one for one, _, _ in STRUCTURES])
def test_every_structure_is_a_value_of_its_own(residual: LMMResidual) -> None:
    """Hashable, and with it the spec differs from every other."""
    specs = {lmm("y ~ x", residual=one) for one, _, _ in STRUCTURES} | {lmm("y ~ x")}

    assert len(specs) == len(STRUCTURES) + 1
    assert lmm("y ~ x", residual=residual) in specs


def test_a_marginal_model_prints_as_in_a_textbook() -> None:
    """Typed by hand; without random effects and with independent rows it is a linear model."""
    spec = lmm("size ~ Time", residual=hl.AR1("tree", "occasion"), weights=hl.Precision("w"))

    assert str(spec) == (
        "Marginal linear model\n"
        "  size = β₀ + β₁ Time + ε\n"
        "  ε[tree] ~ N(0, R), independent between levels of tree\n"
        "  R has variance σ² and correlation ρ^d at distance d in occasion\n"
        "  The variance of ε is divided by w (precision weights)\n"
        "  Formula: size ~ 1 + Time"
    )
    assert str(lmm("y ~ x", weights=hl.Frequency("n"))) == (
        "Linear model\n"
        "  y = β₀ + β₁ x + ε\n"
        "  ε ~ N(0, σ²), independent\n"
        "  Each row counts n times (frequency weights)\n"
        "  Formula: y ~ 1 + x"
    )


def test_covariances_print_as_in_a_textbook() -> None:
    """One line a term; the type of its matrix in words."""
    text = str(lmm("y ~ (x || g) + diag(x | h) + identity(0 + f | k) + cs(0 + x + z | l)"))

    assert "  b₂[g] ~ N(0, G₂), one for each g; G₂ is diagonal\n" in text
    assert "  (b₃, b₄)[h] ~ N(0, G₃), one for each h; G₃ is 2 × 2 diagonal\n" in text
    assert "  b₅[k] ~ N(0, G₄), one for each k; G₄ is one variance times the identity\n" in text
    assert "G₅ is 2 × 2 compound symmetric: one\n      variance and one correlation\n" in text


def test_columns_of_structure_and_weights_have_roles() -> None:
    """After those of the formula; a joined group is its columns."""
    spec = lmm("y ~ x + (1 | a)", residual=hl.AR1("a:b", "t"), weights=hl.Precision("my w"))

    assert spec.columns() == Columns(
        response=("y",),
        fixed=("x",),
        random=(),
        groups=("a",),
        offset=(),
        sampling_variance=(),
        residual=("a", "b", "t"),
        weights=("my w",),
    )
    assert spec.columns().all == ("y", "x", "a", "b", "t", "my w")
    assert lmm("y ~ x", residual=hl.KnownVariances("v")).columns().residual == ("v",)
    assert lmm("y ~ x", residual=hl.Stratified("s:r")).columns().residual == ("s", "r")
    assert lmm("y ~ x", residual=hl.ContinuousAR1("g", "time", nugget=True)).columns().residual == ("g", "time")


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        ("ar1", "one of Independent, KnownVariances, .*; found 'ar1'"),
        (hl.AR1, r"made with the columns it reads, as in hl\.AR1\(group='tree', position='occasion'\); found <class"),
        (None, "found None"),
        (hl.AR1("", "t"), r"The group of AR1\(...\) is the name of a column; found ''"),
        (hl.AR1(3, "t"), r"The group of AR1\(...\) is the name of a column; found 3"),  # type: ignore[arg-type]
        (hl.AR1("g", ["t"]), r"The position of AR1\(...\) is the name of a column; found \['t'\]"),  # type: ignore[arg-type]
        (hl.AR1("a:", "t"), "The group of AR1.* is the name of a column; found ''"),
        (hl.AR1("a:a", "t"), "names a column twice: 'a:a'"),
        (hl.AR1("g", "g"), r"The group and the position of AR1\(...\) are the same column 'g'"),
        (hl.AR1("g:t", "t"), "The group and the position .* are the same column 't'"),
        (hl.Toeplitz("y", "t"), "The group of Toeplitz.* and the response are the same column 'y'"),
        (hl.Unstructured("g", "y"), "The occasion of Unstructured.* and the response are the same column 'y'"),
        (hl.KnownVariances("y"), "The column of KnownVariances.* and the response are the same column 'y'"),
        (hl.Stratified("y"), "The by of Stratified.* and the response are the same column 'y'"),
        (hl.ContinuousAR1("g", "time", nugget=1), "nugget is True or False; found 1"),  # type: ignore[arg-type]
    ],
)
def test_a_structure_that_names_no_columns_is_refused(residual: object, message: str) -> None:
    """Each error says which field, and what was found there."""
    with pytest.raises(SpecError, match=message):
        lmm("y ~ x", residual=residual)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("w", r"hl.Frequency\('w'\) for rows seen w times, hl.Precision\('w'\).*; found 'w'"),
        (hl.Precision, "found <class"),
        (hl.Frequency(2), r"The column of Frequency\(...\) is the name of a column; found 2"),  # type: ignore[arg-type]
        (hl.Precision("y"), r"The column of Precision\(...\) and the response are the same column 'y'"),
    ],
)
def test_weights_say_what_they_are(weights: object, message: str) -> None:
    """A bare column is refused, for its meaning would be a guess."""
    with pytest.raises(SpecError, match=message):
        lmm("y ~ x", weights=weights)  # type: ignore[arg-type]


def test_the_number_of_trials_may_weigh_a_proportion() -> None:
    """I(y / n) with weights n: only the response as a whole cannot be its own weight."""
    assert lmm("I(y / n) ~ x", weights=hl.Precision("n")).columns().all == ("y", "n", "x")


@pytest.mark.parametrize("residual", CORRELATED)
def test_rows_that_count_twice_have_no_place_in_a_series(residual: LMMResidual) -> None:
    """Precision weights scale its variances and are taken."""
    with pytest.raises(SpecError, match=r"each row has one place.*hl\.Precision"):
        lmm("y ~ x", residual=residual, weights=hl.Frequency("w"))

    assert lmm("y ~ x", residual=residual, weights=hl.Precision("w")).weights == hl.Precision("w")


def test_known_variances_take_frequencies_and_no_precisions() -> None:
    """And the area-level model no weights at all."""
    area = fay_herriot("y ~ x", sampling_variance="v", area="a")

    with pytest.raises(SpecError, match=r"residual variances are known, read from 'v'.*'w' have nothing left to say"):
        lmm("y ~ x", residual=hl.KnownVariances("v"), weights=hl.Precision("w"))
    with pytest.raises(SpecError, match=r"weights and the column of KnownVariances.* are the same column 'v'"):
        lmm("y ~ x", residual=hl.KnownVariances("v"), weights=hl.Frequency("v"))
    with pytest.raises(SpecError, match=r"area-level model takes no weights.*Precision.*variance D/w"):
        dataclasses.replace(area, weights=hl.Precision("w"))
    assert lmm("y ~ x", residual=hl.KnownVariances("v"), weights=hl.Frequency("w")).weights == hl.Frequency("w")


@pytest.mark.parametrize(
    ("formula", "residual"),
    [
        ("y ~ x + (1 | g)", hl.CompoundSymmetry("g")),
        ("y ~ x + (1 + x | g)", hl.CompoundSymmetry("g")),
        ("y ~ x + (x || g)", hl.CompoundSymmetry("g")),
        ("y ~ x + diag(x | g)", hl.Toeplitz("g", "t")),
        ("y ~ x + (1 | b:a)", hl.CompoundSymmetry("a:b")),
        ("y ~ x + (1 | g)", hl.Unstructured("g", "t")),
        ("y ~ x + (1 | h) + (x | g)", hl.Unstructured("g", "t")),
    ],
)
def test_random_effects_that_the_residuals_contain_are_refused(formula: str, residual: LMMResidual) -> None:
    """An intercept over g adds a constant to each covariance within g, which these structures have free already."""
    with pytest.raises(SpecError, match=r"cannot be told apart from the residual \w+\(...\) over the same groups"):
        lmm(formula, residual=residual)


@pytest.mark.parametrize(
    ("formula", "residual"),
    [
        ("y ~ x + (1 | h)", hl.CompoundSymmetry("g")),
        ("y ~ x + (1 | a)", hl.CompoundSymmetry("a:b")),
        ("y ~ x + (0 + x | g)", hl.CompoundSymmetry("g")),
        ("y ~ x + identity(1 + x | g)", hl.CompoundSymmetry("g")),
        ("y ~ x + (1 | g)", hl.AR1("g", "t")),
        ("y ~ x + (1 | g)", hl.ContinuousAR1("g", "t")),
        ("y ~ x + (x | g)", hl.HeterogeneousAR1("g", "t")),
        ("y ~ x + (1 | h)", hl.Unstructured("g", "t")),
        ("y ~ x + (0 + x | g)", hl.Unstructured("g", "t")),
        ("y ~ x + (1 | g)", hl.Stratified("g")),
    ],
)
def test_what_only_data_can_judge_is_taken(formula: str, residual: LMMResidual) -> None:
    """Identified for some designs: left to the data."""
    assert lmm(formula, residual=residual).residual == residual


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('residual = "ar1"', r"The value of residual is a table with its kind and columns, \[residual\] in TOML"),
        ("residual = {}", "kind of residual is one of independent, known_variances, .*; found None"),
        ('residual = {kind = "AR1"}', "found 'AR1'"),
        ('residual = {kind = "ar1", group = "g"}', "The residual of kind 'ar1' needs position"),
        (
            'residual = {kind = "ar1", group = "g", position = "t", time = "s"}',
            "kind 'ar1' has no key time; it has group, position",
        ),
        ('residual = {kind = "ar1", group = 1, position = "t"}', "The group of AR1.* is the name of a column; found 1"),
        ('residual = {kind = "independent", by = "g"}', "kind 'independent' has no key by; it has none"),
        ('weights = "w"', r"The value of weights is a table with its kind and columns, \[weights\]"),
        ('weights = {kind = "analytic", column = "w"}', "kind of weights is one of frequency, precision"),
        ('weights = {kind = "precision"}', "The weights of kind 'precision' needs column"),
    ],
)
def test_a_table_that_is_no_structure_is_refused_by_key(text: str, message: str) -> None:
    """Each error names the key, and what is allowed."""
    with pytest.raises(SpecError, match=message):
        ModelSpec.from_toml(f'kind = "lmm"\nformula = "y ~ (1 | h)"\n{text}')


def test_sub_tables_of_a_mixed_model() -> None:
    """Typed by hand, as a catalogue writes them; independent residuals may be said and are not written."""
    text = (
        'kind = "lmm"\nformula = "y ~ 1 + x + diag(0 + x | g)"\n\n'
        '[residual]\nkind = "stratified"\nby = "s"\n\n[weights]\nkind = "frequency"\ncolumn = "n"\n'
    )
    spec = lmm("y ~ x + (0 + x || g)", residual=hl.Stratified("s"), weights=hl.Frequency("n"))

    assert ModelSpec.from_toml(text) == spec
    assert spec.to_toml() == text
    assert ModelSpec.from_toml('kind = "linear"\nformula = "y ~ x"\n[residual]\nkind = "independent"') == lmm("y ~ x")


def test_an_area_table_has_no_residual_of_its_own() -> None:
    """The structure of the area-level model is that of its sampling variances."""
    table = {"kind": "fay_herriot", "formula": "y ~ x", "sampling_variance": "v", "area": "a"}
    with pytest.raises(SpecError, match="has no key weights"):
        ModelSpec.from_mapping({**table, "weights": {"kind": "precision", "column": "w"}})
