"""The catalogue keeps its word: every folder is what it says, and every answer is what hierlmm gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import chi2

import hierlmm as hl
from hierlmm.catalogue import QUANTITIES, Answer, names
from hierlmm.frequentist.boundary_test import boundary_test

MODELS = Path(__file__).resolve().parents[1] / "models"
# The columns of a result frame that a label of the catalogue is made of, joined by "/".
PATHS = {
    "fixed": ("term",),
    "variance_components": ("group", "term", "term2"),
    "random_effects": ("group", "term", "level"),
    "group_coefficients": ("group", "term", "level"),
    "areas": ("area",),
    "hyperparameters": ("term",),
    "units": ("unit",),
}
ANSWERS = [(dataset, answer) for dataset in names() for answer in hl.load(dataset).answers]


def identity(pair: tuple[str, Answer]) -> str:
    """What pytest calls the test of an answer."""
    dataset, answer = pair
    key = f"[{answer.key}]" if answer.key else ""
    return f"{dataset}/{answer.model}-{answer.by}-{answer.quantity}{key}-{'-'.join(answer.source.split()[:1])}"


def labelled(frame: pd.DataFrame, table: str, column: str) -> dict[str, tuple[float, float]]:
    """Value and Monte Carlo error by label, of a frame or, in `variance_components`, of the rows of a quantity."""
    if table == "variance_components":
        frame = frame[frame["quantity"] == column]
        if column in ("covariance", "correlation"):  # of two terms, in either order; one of a residual may have none
            pairs = frame[frame["term2"].map(_text) != ""]
            frame = pd.concat([frame, pairs.rename(columns={"term": "term2", "term2": "term"})])
        column = "estimate"
    parts = [[_text(value) for value in frame[name]] for name in PATHS[table]]
    keys = ["/".join(word for word in words if word) for words in zip(*parts, strict=True)]
    errors = frame["mcse"] if "mcse" in frame else [0.0] * len(frame)
    assert len(set(keys)) == len(keys)
    return {key: (float(value), float(error)) for key, value, error in zip(keys, frame[column], errors, strict=True)}


def _text(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def fixed_correlation(result: hl.LMMFit, label: str) -> tuple[float, float]:
    """The entry of the labelled correlation matrix for a label term/term."""
    one, other = label.split("/")
    return float(result.fixed_correlation.loc[one, other]), 0.0


def variance(result: hl.AreaFit | hl.AreaPosterior, term: str, column: str) -> tuple[float, float]:
    """The area variance or its root, from the frame `A`."""
    row = result.A[result.A["term"] == term].iloc[0]
    return float(row[column]), float(row.get("mcse", 0.0))


def error_ratio(result: hl.CompoundFit | hl.CompoundPosterior, truth: pd.Series) -> tuple[float, float]:
    """Sum of squared errors of the direct estimates over that of the estimates."""
    errors = result.units[["direct", "estimate"]].sub(truth.to_numpy(), axis=0).pow(2).sum()
    return float(errors["direct"] / errors["estimate"]), 0.0


def scalar(
    result: object, answer: Answer, other: Callable[[str], hl.LMMFit], data: pd.DataFrame
) -> tuple[float | str, float]:
    """A quantity that is one value of the whole result; `other` fits another model of the data set."""
    if answer.quantity == "error_ratio":
        return error_ratio(result, data[answer.key])
    if answer.quantity == "criterion":
        return -2 * result.loglik, 0.0
    if answer.quantity == "outcome":
        return result.outcome.name, 0.0
    if answer.quantity.startswith("boundary."):
        group, term = answer.key.split("/")
        test = boundary_test(result, group, term)
        return {"statistic": test.statistic, "p": test.p}[answer.quantity.partition(".")[2]], 0.0
    if answer.quantity.startswith("lrt."):
        null = other(answer.key)
        statistic = 2 * (result.loglik - null.loglik)
        df = result.n_parameters - null.n_parameters
        return (statistic if answer.quantity == "lrt.statistic" else float(chi2.sf(statistic, df))), 0.0
    if answer.quantity.partition(".")[0] in ("A", "tau"):
        return variance(result, *answer.quantity.split("."))
    return float(getattr(result, answer.quantity)), 0.0


def found(
    result: object, answer: Answer, other: Callable[[str], hl.LMMFit], data: pd.DataFrame
) -> list[tuple[float | str, float]]:
    """Value and Monte Carlo error for each of the answer's values, read from the result's public face."""
    if not answer.labels:
        return [scalar(result, answer, other, data)]
    table, _, column = answer.quantity.partition(".")
    if answer.quantity == "fixed.correlation":
        return [fixed_correlation(result, label) for label in answer.labels]
    values = labelled(getattr(result, table), table, column)
    prefix = f"{answer.key}/" if answer.key else ""
    return [values[prefix + label] for label in answer.labels]


@pytest.mark.parametrize(
    "pair",
    [pytest.param(pair, id=identity(pair), marks=[pytest.mark.nuts] * (pair[1].by == "nuts")) for pair in ANSWERS],
)
def test_answer(pair: tuple[str, Answer], catalogue_result: Callable[..., object]) -> None:
    """The value, tolerance, reason and source stand in the model.toml of the data set."""
    dataset, answer = pair
    name = f"{dataset}/{answer.model}"
    result = catalogue_result(name, answer.by, answer.priors)

    data = hl.load(dataset).data
    values = found(result, answer, lambda model: catalogue_result(f"{dataset}/{model}", answer.by), data)

    for expected, (value, error) in zip(answer.values, values, strict=True):
        if isinstance(expected, str):
            assert value == expected
        else:
            allowed = answer.atol + answer.rtol * abs(expected) + answer.mcse * error
            assert abs(value - expected) <= allowed, f"{value!r} for {expected!r} within {allowed:.3g}: {answer.why}"


@pytest.mark.parametrize("dataset", names())
def test_a_folder_is_what_it_says(dataset: str) -> None:
    """Stated rows, columns, levels in order; a publication, a reason why it may ship, and models that round-trip."""
    case = hl.load(dataset)

    assert [column.name for column in case.columns] == list(case.data.columns)
    for column in case.columns:
        if column.kind == "category":
            assert tuple(case.data[column.name].cat.categories) == column.levels
            assert set(case.data[column.name]) == set(column.levels)
    assert all(len(text) > 40 for text in (case.provenance, case.publication, case.licence))
    for spec in case.specs.values():
        assert type(spec).from_toml(spec.to_toml()) == spec
        assert set(spec.columns().all) <= set(case.data.columns)


@pytest.mark.parametrize("dataset", names())
def test_every_model_has_answers_with_reasons_and_sources(dataset: str) -> None:
    """STYLE: the tolerance comes from the source, and says why."""
    case = hl.load(dataset)

    assert {answer.model for answer in case.answers} == set(case.specs)
    for answer in case.answers:
        assert answer.definition
        assert len(answer.why) > 5
        assert len(answer.source) > 40
        assert sum(tolerance > 0 for tolerance in (answer.atol, answer.rtol, answer.mcse)) <= 1


def test_the_catalogue_has_the_promised_data_sets() -> None:
    """DESIGN: the models that the documentation and the tutorials rely on."""
    assert names() == (
        "baseball", "dyestuff", "dyestuff2", "eight-schools", "lip-cancer", "milk", "penicillin", "politeness", "sitka",
        "sleepstudy",
    )  # fmt: skip


def test_milk_variances_are_the_printed_standard_errors_squared_without_rounding() -> None:
    """Fay-Herriot wants D = SD², and 0.163 squared is 0.026569, whatever binary arithmetic makes of it."""
    from decimal import Decimal

    lines = (MODELS / "milk" / "data.csv").read_text(encoding="utf-8").split()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]

    assert len(rows) == 43
    assert all(Decimal(row["vardir"]) == Decimal(row["SD"]) ** 2 for row in rows)


def test_baseball_averages_are_those_of_the_counts_and_two_printed_ones_differ() -> None:
    """The columns that are computed are, and the provenance names the players whose printed average is another."""
    data = hl.load("baseball").data
    rest = data["remaining_hits"] / data["remaining_at_bats"]

    assert (data["average"] == data["hits"] / data["at_bats"]).all()
    assert (data["remaining"] == rest).all()
    assert list(data["player"][(data["printed_remaining"] - rest).abs() > 0.00051]) == ["Kessinger", "Williams"]


def test_a_name_with_a_slash_chooses_one_model() -> None:
    """`hl.load("sitka/slopes")` of DESIGN; the answers follow."""
    case = hl.load("sitka/treatment")

    assert case.name == "sitka/treatment"
    assert case.spec == hl.lmm("size ~ Time * treat + (1 | tree)")
    assert {answer.model for answer in case.reference} == {"treatment"}
    assert hl.load("sitka").model == "slopes"


def test_models_lists_every_model_with_names_that_load() -> None:
    """The default model of a data set comes first, so that the list shows what the short name means."""
    table = hl.models()

    first = table.groupby(table["name"].str.partition("/")[0])["name"].first()
    assert [hl.load(name).name for name in first.index] == list(first)
    assert all(hl.load(name).name == name for name in table["name"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Milk", "no data set called 'Milk'; it has .*dyestuff, .*Did you mean 'milk'"),
        ("sitka/slope", "no model of sitka called 'slope'; it has slopes, .*Did you mean 'slopes'"),
        ("../models/milk", r"no data set called '\.\.'"),
        ("", "no data set called ''"),
    ],
)
def test_an_unknown_name_is_refused_with_those_there_are(name: str, message: str) -> None:
    """One sentence that says what exists and what was probably meant; a path is no name."""
    with pytest.raises(hl.FileError, match=message):
        hl.load(name)


DATA = """
[data]
title = "t"
rows = 2
default = "one"
provenance = "p"
publication = "p"
licence = "l"
[data.columns]
y = { kind = "number", meaning = "m" }
g = { kind = "category", levels = ["b", "a"], meaning = "m" }
[model.one]
kind = "lmm"
formula = "y ~ 1 + (1 | g)"
[source]
s = "source"
[[answer]]
model = "one"
method = "reml"
quantity = "fixed.estimate"
labels = ["Intercept"]
value = [1.0]
rtol = 1e-8
why = "w"
source = "s"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of one data set, to be spoilt."""
    monkeypatch.setattr("hierlmm.catalogue._folder", lambda: tmp_path)
    place = tmp_path / "toy"
    place.mkdir()
    (place / "model.toml").write_text(DATA, encoding="utf-8")
    (place / "data.csv").write_text("y,g\n1.5,a\n2.5,b\n", encoding="utf-8")
    return place


def test_levels_keep_the_stated_order(folder: Path) -> None:
    """The first level stated is the reference level, whatever the alphabet says."""
    case = hl.load("toy")

    assert list(case.data["g"].cat.categories) == ["b", "a"]
    assert case.answers[0].values == (1.0,)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "t"', "", "missing or unknown: title"),
        ("[source]", "[sauce]", "missing or unknown: sauce, source"),
        ("rows = 2", "rows = 3", "columns and rows that model.toml states"),
        ('levels = ["b", "a"]', 'levels = ["b"]', "levels of 'g' that model.toml does not state"),
        ('kind = "category", levels', 'kind = "number", levels', "kind is number, integer, or category"),
        ('"y ~ 1 + (1 | g)"', '"y ~ 1 + (1 | "', "model 'one' of the catalogue entry 'toy' cannot be read"),
        ('method = "reml"', 'method = "guess"', "'method'|missing or unknown"),
        ('model = "one"', 'model = "two"', "no model 'two'"),
        ('"fixed.estimate"', '"fixed.guess"', "no quantity 'fixed.guess'"),
        ("value = [1.0]", "value = [1.0, 2.0]", "2 values for 1 labels"),
        ("rtol = 1e-8", "rtol = 1e-8\natol = 1.0", "exactly one of atol, rtol, mcse"),
        ('source = "s"', 'source = "t"', "no source 't'"),
        ('method = "reml"', 'engine = "nuts"\npriors = "p"', "no priors 'p'"),
        ("[data]", "[data", "could not be read"),
    ],
)
def test_a_folder_that_contradicts_itself_is_refused(folder: Path, old: str, new: str, message: str) -> None:
    """Each table of model.toml is held to its keys, and the data to what the tables state."""
    assert old in DATA
    (folder / "model.toml").write_text(DATA.replace(old, new, 1), encoding="utf-8")

    with pytest.raises(hl.FileError, match=message):
        hl.load("toy")


def test_data_that_cannot_be_read_are_refused(folder: Path) -> None:
    """A word in a column of numbers."""
    (folder / "data.csv").write_text("y,g\n1.5,a\nmany,b\n", encoding="utf-8")

    with pytest.raises(hl.FileError, match=r"data\.csv could not be read"):
        hl.load("toy")


def test_every_defined_quantity_is_used_by_an_answer() -> None:
    """A definition nobody uses is a definition nobody checks."""
    used = {answer.quantity for _, answer in ANSWERS}

    assert used == set(QUANTITIES)
