"""Rows that pass once: what is fitted from batches, files and sums is what the table in memory gives."""

from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hierlmm as hl
from hierlmm.errors import DesignError, FileError
from hierlmm.frequentist.boundary_test import boundary_test

N = 3000


def table(seed: int = 4) -> pd.DataFrame:
    """Groups, categories, weights; x and y far from zero; gaps in rows 3 and 2700; level "z" of f in one row."""
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": rng.normal(200, 3, N),
            "z": rng.normal(size=N),
            "f": rng.choice(list("abc"), N),
            "g": rng.integers(0, 40, N),
            "h": rng.choice(["u", "v", "w"], N),
            "w": rng.integers(1, 4, N),
            "p": rng.uniform(0.5, 2, N),
            "v": rng.uniform(0.5, 2, N),
        }
    )
    effect = rng.normal(size=(40, 2))[data["g"]]
    data["y"] = (
        1e4 + data["x"] + effect[:, 0] + effect[:, 1] * data["z"] + rng.normal(size=N) * (1 + (data["h"] == "u"))
    )
    data.loc[3, "x"], data.loc[2700, "f"], data.loc[2650, "f"] = np.nan, None, "z"
    return data


MODELS = {
    "slopes": hl.lmm("y ~ z + (z | g)"),
    "far from zero": hl.lmm("y ~ x + (1 + x | g)"),
    "categories": hl.lmm("y ~ x * f + (1 | g)"),
    "interactions alone": hl.lmm("y ~ z + f:h + (1 | g)"),
    "no intercept": hl.lmm("y ~ 0 + f + f:x + (1 | g)"),
    "elementwise": hl.lmm("log(y) ~ log(x) + I(z ** 2) + C(w) + (1 | g)"),
    "aliased": hl.lmm("y ~ x + I(2 * x) + f + (1 | g)"),
    "crossed and nested": hl.lmm("y ~ z + (z | g) + (1 | f:h)"),
    "factor slopes": hl.lmm("y ~ z + (0 + h | g)"),
    "independent": hl.lmm("y ~ z + (z || g)"),
    "one variance": hl.lmm("y ~ z + identity(0 + h | g)"),
    "compound symmetric": hl.lmm("y ~ z + cs(0 + h | g)"),
    "frequency": hl.lmm("y ~ z + (z | g)", weights=hl.Frequency("w")),
    "precision": hl.lmm("y ~ z + (1 | g)", weights=hl.Precision("p")),
    "known variances": hl.lmm("y ~ z + (1 | g)", residual=hl.KnownVariances("v")),
    "strata": hl.lmm("y ~ z + (z | g)", residual=hl.Stratified("h")),
    "fixed alone": hl.lmm("y ~ z + f"),
    "offset": hl.lmm("y ~ z + offset(x) + (1 | g)"),
}


def batches(data: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    return (data.iloc[start : start + size] for start in range(0, len(data), size))


def largest(a: object, b: object) -> float:
    """Largest difference, relative to the largest entry."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-300)) if y.size else 0.0


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_gives_the_fit_of_the_table(name: str) -> None:
    """Two ways to the same cross-products: columns of the whole table, and sums over batches that add."""
    spec, data = MODELS[name], table()
    memory, stream = hl.fit(spec, data), hl.fit(spec, batches(data, 700))

    assert stream.design.fixed == memory.design.fixed
    assert stream.design.aliased == memory.design.aliased
    for a, b in zip(stream.design.factors, memory.design.factors, strict=True):
        assert (a.name, a.coefficients, a.blocks, a.structures) == (b.name, b.coefficients, b.blocks, b.structures)
        assert a.levels.tolist() == b.levels.tolist()
    assert stream.objective == pytest.approx(memory.objective, rel=1e-10)
    assert stream.sigma2 == pytest.approx(memory.sigma2, rel=1e-8)
    for field in ("beta", "vcov_beta", "phi"):
        assert largest(getattr(stream, field), getattr(memory, field)) < 1e-7, field
    for field in ("G", "b", "b_error"):
        for a, b in zip(getattr(stream, field), getattr(memory, field), strict=True):
            assert largest(a, b) < 1e-6, field
    new = data.dropna().iloc[:20]
    assert largest(stream.predict(new)[["estimate", "se"]], memory.predict(new)[["estimate", "se"]]) < 1e-8
    assert stream.bic == pytest.approx(memory.bic, rel=1e-10)


def sums(spec: hl.ModelSpec, data: pd.DataFrame, size: int, step: int = 1) -> hl.Moments:
    return reduce(add, [hl.moments(spec, part) for part in list(batches(data, size))[::step]])


@pytest.mark.parametrize("name", ["slopes", "far from zero", "categories", "crossed and nested", "strata", "frequency"])
def test_size_and_order_of_the_parts_change_nothing(name: str) -> None:
    """Beyond 1e-10: fits of parts of 37 to 3000 rows, added forwards and backwards, of a sorted table too."""
    spec, data = MODELS[name], table()
    first = hl.fit(spec, hl.moments(spec, data))
    for other in (
        sums(spec, data, 37),
        sums(spec, data, 500, -1),
        sums(spec, data.sort_values(["x", "h"]), 250),
        sums(spec, data.sort_values("g"), 100),
    ):
        fit = hl.fit(spec, other)
        assert fit.objective == pytest.approx(first.objective, rel=1e-10)
        assert largest(fit.beta, first.beta) < 1e-10
        assert largest(np.diagonal(fit.vcov_beta), np.diagonal(first.vcov_beta)) < 1e-8
        assert fit.fingerprint == first.fingerprint


def test_adding_is_symmetric_and_associative() -> None:
    """Every sum of three parts, to rounding."""
    spec, data = MODELS["categories"], table()
    a, b, c = (hl.moments(spec, part) for part in batches(data, 1000))
    one = hl.fit(spec, (a + b) + c)
    for other in (a + (b + c), c + (a + b), (b + c) + a):
        fit = hl.fit(spec, other)
        assert fit.objective == pytest.approx(one.objective, rel=1e-12)
        assert fit.design.fixed == one.design.fixed


def test_moments_travel_as_bytes() -> None:
    """Every array and label comes back; what is no moments is refused."""
    data = table()
    data["d"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(data["g"], unit="D")
    data["c"] = pd.Categorical(data["h"], categories=["w", "u", "v", "unseen"])
    spec = hl.lmm("y ~ c + z + (1 | d) + (1 | g:h)", residual=hl.Stratified("c"))
    moments = hl.moments(spec, data)
    again = hl.Moments.from_bytes(moments.to_bytes())

    assert again.to_bytes() == moments.to_bytes()
    assert hl.fit(spec, again).objective == hl.fit(spec, moments).objective
    assert hl.fit(spec, again).design.fixed[1:3] == ("c[T.u]", "c[T.v]")
    assert hl.fit(spec, again + moments).equations.n == 2 * moments.used
    with pytest.raises(FileError, match="to_bytes"):
        hl.Moments.from_bytes(b"nothing")


def test_files_folders_and_arrow_streams(tmp_path: Path) -> None:
    """The same fit from each kind of source."""
    spec, data = MODELS["categories"], table()
    expected = hl.fit(spec, data).objective
    arrow = pa.Table.from_pandas(data, preserve_index=False)
    for number in range(4):
        pq.write_table(arrow.slice(number * 750, 750), tmp_path / f"part-{number}.parquet", row_group_size=200)
    one = tmp_path / "one.parquet"
    pq.write_table(arrow, one)
    sources = {
        "file": one,
        "text": str(one),
        "reader": pa.RecordBatchReader.from_batches(arrow.schema, arrow.to_batches(300)),
        "batches": iter(arrow.to_batches(300)),
        "polars": (pl.from_arrow(arrow.slice(start, 1000)) for start in (0, 1000, 2000)),
        "list": [data.iloc[:10], data.iloc[10:]],
    }
    for name, source in sources.items():
        assert hl.fit(spec, source).objective == pytest.approx(expected, rel=1e-10), name
    one.unlink()
    fit = hl.fit(spec, tmp_path)
    assert fit.objective == pytest.approx(expected, rel=1e-10)
    assert fit.design.dropped.rows == (3, 2700)


def test_rows_that_are_left_out_are_counted_and_the_first_named() -> None:
    """As in memory, where all are listed."""
    data = table()
    data.loc[100:199, "z"] = np.nan
    fit = hl.fit(MODELS["slopes"], batches(data, 130))

    assert len(fit.design.dropped) == 100
    assert "100 rows dropped for missing values in z: 100, 101, 102, 103, 104 and 95 more." in fit.summary().replace(
        "\n  ", " "
    )


def test_a_batch_without_a_complete_row_counts() -> None:
    """It adds its gaps and nothing else."""
    data = table()
    data.loc[500:599, "z"] = np.nan
    expected = hl.fit(MODELS["slopes"], data)

    assert hl.fit(MODELS["slopes"], batches(data, 100)).objective == pytest.approx(expected.objective, rel=1e-10)


def test_declared_orders_are_kept_where_all_parts_agree_and_sorted_where_they_do_not() -> None:
    """Groups and predictors; the same fit either way, but for the reference level."""
    data = table().dropna().replace({"f": {"z": "a"}})
    spec = hl.lmm("y ~ f + z + (z | h)")
    declared = [part.astype({"h": pd.CategoricalDtype(["w", "u", "v"])}) for part in batches(data, 900)]
    kept = hl.fit(spec, declared)
    mixed = hl.fit(
        spec,
        [
            part.astype(
                {"f": pd.CategoricalDtype(order), "h": pd.CategoricalDtype(["v", "w", "u"][:: 1 - 2 * (i % 2)])}
            )
            for i, (part, order) in enumerate(
                zip(
                    batches(data, 900),
                    (["c", "b", "a"], ["a", "c", "b"], ["b", "a", "c"], ["c", "a", "b"]),
                    strict=True,
                )
            )
        ],
    )
    plain = hl.fit(spec, data)

    assert kept.design.factors[0].levels.tolist() == ["w", "u", "v"]
    assert mixed.design.factors[0].levels.tolist() == ["u", "v", "w"]
    assert mixed.design.levels["f"] == ("a", "b", "c")
    for fit, order in ((kept, [2, 0, 1]), (mixed, [0, 1, 2])):
        assert fit.objective == pytest.approx(plain.objective, rel=1e-10)
        assert largest(fit.beta, plain.beta) < 1e-7
        assert largest(fit.b[0], plain.b[0][order]) < 1e-6


def test_what_needs_rows_is_refused() -> None:
    """Residuals, fitted values, refits; predictions for new rows and a saved file work."""
    data = table()
    fit = hl.fit(MODELS["slopes"], batches(data, 1000))
    for ask in (
        lambda: fit.conditional_fitted,
        lambda: fit.marginal_residuals,
        lambda: fit.predict(),
        lambda: fit.simulate(1, seed=1),
        lambda: fit.refit(data["y"]),
        lambda: fit.marginal_covariance(1),
        lambda: boundary_test(fit, fit.design.factors[0].name, "x"),
    ):
        with pytest.raises(DesignError, match="passed in a stream"):
            ask()


def test_a_fit_of_a_stream_is_read_from_its_file(tmp_path: Path) -> None:
    """The sums are in the file instead of the table."""
    fit = hl.fit(MODELS["strata"], batches(table(), 1000))
    fit.save(tmp_path / "fit.hlm")
    again = hl.read(tmp_path / "fit.hlm")

    assert again.summary() == fit.summary()
    assert again.fingerprint == fit.fingerprint


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (hl.lmm("y ~ poly(x, 2) + (1 | g)"), r"poly\(x, 2\) uses poly"),
        (hl.lmm("y ~ center(x) + (1 | g)"), "center"),
        (hl.lmm("y ~ within(x, g) + (1 | g)"), "within"),
        (hl.lmm("y ~ C(f, contr.sum) + (1 | g)"), "contrast"),
        (hl.lmm("y ~ x + (1 | g)", residual=hl.AR1("g", "w")), "AR1"),
        (hl.fay_herriot("y ~ x", sampling_variance="v", area="g"), "area-level"),
    ],
)
def test_models_that_need_all_rows_are_refused(spec: hl.ModelSpec, reason: str) -> None:
    """With the reason and the way out."""
    with pytest.raises(DesignError, match=reason):
        hl.fit(spec, batches(table(), 1000))


def test_sources_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    """Paths that do not exist, folders without Parquet, files that are something else; missing columns."""
    (tmp_path / "text.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    spec = MODELS["slopes"]
    with pytest.raises(FileError, match="does not exist"):
        hl.fit(spec, tmp_path / "nothing")
    with pytest.raises(FileError, match="none that ends in"):
        hl.fit(spec, tmp_path)
    with pytest.raises(FileError, match="cannot be read"):
        hl.fit(spec, tmp_path / "text.csv")
    table().drop(columns="z").to_parquet(tmp_path / "part.parquet")
    with pytest.raises(DesignError, match="z is missing"):
        hl.fit(spec, tmp_path)
    with pytest.raises(DesignError, match="at least 2 complete rows"):
        hl.fit(spec, iter([]))


def test_moments_of_another_model_are_refused() -> None:
    """They neither add nor fit."""
    data = table()
    one, other = hl.moments(MODELS["slopes"], data), hl.moments(MODELS["categories"], data)
    with pytest.raises(DesignError, match="one model"):
        one + other
    with pytest.raises(DesignError, match="another"):
        hl.fit(MODELS["slopes"], other)


def test_a_column_that_changes_kind_is_refused() -> None:
    """Numbers in one batch, text in the next: predictors and groups."""
    data = table()
    text = data.assign(g="g" + data["g"].astype(str))
    with pytest.raises(DesignError, match="g"):
        hl.fit(MODELS["slopes"], iter([data, text]))
    with pytest.raises(DesignError, match="f holds numbers in some"):
        hl.fit(MODELS["categories"], iter([data, data.assign(f=1.5)]))


def test_components_that_no_rows_can_tell_apart_are_refused() -> None:
    """As for a table: each row its own group, one group, the same groups twice."""
    data = table().dropna().reset_index(drop=True)
    data["row"], data["one"], data["same"] = range(len(data)), 1, data["g"] + 100
    for formula, reason in (
        ("y ~ z + (1 | row)", "of its own"),
        ("y ~ z + (1 | one)", "at least 2 levels"),
        ("y ~ z + (1 | g) + (1 | same)", "cannot be told from"),
    ):
        with pytest.raises(DesignError, match=reason):
            hl.fit(hl.lmm(formula), batches(data, 900))


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e10])
def test_shifts_lose_no_digits(offset: float) -> None:
    """One-way analysis of variance in integers over 1024, exact in doubles; balanced, so that REML = ANOVA."""
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 1000, size=(30, 20)) + 400 * rng.integers(0, 9, size=(30, 1))
    y = (whole / 1024).ravel() + offset
    data = pd.DataFrame({"y": y, "g": np.repeat(np.arange(30), 20)})
    between = 20 * ((whole.mean(axis=1) - whole.mean()) ** 2).sum() / 29
    within = ((whole - whole.mean(axis=1, keepdims=True)) ** 2).sum() / (30 * 19)
    fit = hl.fit(hl.lmm("y ~ 1 + (1 | g)"), batches(data.sample(frac=1, random_state=1), 64))

    assert fit.sigma2 * 1024**2 == pytest.approx(within, rel=1e-9)
    assert float(fit.G[0][0, 0]) * 1024**2 == pytest.approx((between - within) / 20, rel=1e-8)


def test_columns_in_the_names_of_folders_are_refused_and_hidden_files_left_out(tmp_path: Path) -> None:
    """Hive's layout, as Spark and Dask write it, and the temporary parts that they leave."""
    rows = pa.table({"y": [1.0, 2.0, 4.0, 3.0], "x": [0.0, 1.0, 2.0, 5.0], "f": ["p", "p", "q", "q"]})
    pq.write_to_dataset(rows, tmp_path / "hive", partition_cols=["f"])
    with pytest.raises(FileError, match="names of sub-folders hold f"):
        hl.fit(hl.lmm("y ~ x"), tmp_path / "hive")

    (tmp_path / "plain" / "_temporary").mkdir(parents=True)
    pq.write_table(rows, tmp_path / "plain" / "part.parquet")
    pq.write_table(rows, tmp_path / "plain" / "_temporary" / "part.parquet")
    assert hl.fit(hl.lmm("y ~ x"), tmp_path / "plain").equations.n == 4
