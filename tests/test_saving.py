"""Any result in one file: read as it was saved, written whole or not at all, and nothing else is accepted."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import os
import resource
import subprocess
import sys
import zipfile
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.design.types import AreaDesign, LMMDesign
from hierlmm.errors import FileError
from hierlmm.saving import FORMAT, read, save
from hierlmm.saving.archive import MANIFEST, Source, Store
from hierlmm.saving.codec import Decoder, Encoder
from hierlmm.saving.designs import Designs
from hierlmm.saving.registry import ENUMS, VALUES, enum_class, value_class

DATA = Path(__file__).parent / "data"
COMPARISON_FRAMES = ("table", "attribution", "mse", "boundary", "sensitivity")
LMM_FRAMES = ("fixed", "variance_components", "random_effects", "group_coefficients")
AREA_FRAMES = ("fixed", "A", "areas")
AREAS = hl.fay_herriot("y ~ x", sampling_variance="D", area="name", unsampled="synthetic")
TREES = hl.lmm("size ~ Time * treat + (1 + Time | tree) + (1 | site)")


def area_table() -> pd.DataFrame:
    """Twelve areas whose numbers follow no pattern that a model would fit exactly; the last has no estimate."""
    k = np.arange(12)
    x = np.cos(1.7 * k)
    y = 2 + x + np.sin(2.9 * k * k) * 1.3
    y[-1] = np.nan
    return pd.DataFrame({"name": [f"A {i}" for i in k], "x": x, "y": y, "D": 0.3 + 0.1 * (k % 5)})


def tree_table() -> pd.DataFrame:
    """Ten trees measured five times, at three sites; one size is missing, and one tree is called by two scripts."""
    tree, time = np.repeat(np.arange(10), 5), np.tile(np.arange(5.0), 10)
    size = 4 + 0.5 * time + np.sin(3.1 * tree) * (1 + 0.2 * time) + 0.3 * np.cos(7.3 * tree * time + time)
    size[7] = np.nan
    return pd.DataFrame(
        {
            "size": size,
            "Time": time,
            "treat": pd.Categorical(np.where(tree % 2 == 0, "none", "ozone"), categories=["ozone", "none"]),
            "tree": [f"tree {i} å木" for i in tree],
            "site": tree % 3,
        },
        index=pd.date_range("2020-01-01", periods=50),
    )


class Results(dict[str, object]):
    """A result of every kind that files hold, each computed when first asked for."""

    def __missing__(self, kind: str) -> object:
        spec, table = (AREAS, area_table()) if kind.startswith("area") else (TREES, tree_table())
        if kind.endswith("fit"):
            self[kind] = hl.fit(spec, table)
        elif kind.endswith("posterior"):
            self[kind] = hl.posterior(spec, table, draws=20, seed=3)
        else:
            family = kind.split()[0]
            self[kind] = hl.compare(self[f"{family} fit"], self[f"{family} posterior"])
        return self[kind]


@pytest.fixture(scope="module")
def results() -> Results:
    """The results, shared by the tests: they are frozen."""
    return Results()


KINDS = ("area fit", "area posterior", "area comparison", "lmm fit", "lmm posterior", "lmm comparison")


def names_of(result: object) -> tuple[str, ...]:
    if isinstance(result, hl.Comparison):
        return COMPARISON_FRAMES
    return AREA_FRAMES if isinstance(result, hl.AreaFit | hl.AreaPosterior) else LMM_FRAMES


def assert_equal(a: object, b: object, at: str = "result") -> None:
    """Equal values of equal types, down to the last bit, walked field by field."""
    assert type(a) is type(b), at
    if isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b, err_msg=at, strict=True)
    elif isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b, check_exact=True, check_freq=False)
        assert a.attrs == b.attrs
    elif isinstance(a, pd.Index):
        pd.testing.assert_index_equal(a, b, exact=True)
    elif isinstance(a, tuple):
        assert len(a) == len(b), at
        for k, (one, two) in enumerate(zip(a, b, strict=True)):
            assert_equal(one, two, f"{at}.{k}")
    elif isinstance(a, dict):
        assert list(a) == list(b), at
        for key in a:
            assert_equal(a[key], b[key], f"{at}.{key}")
    elif is_dataclass(a) and not isinstance(a, type):
        for part in fields(a):
            assert_equal(getattr(a, part.name), getattr(b, part.name), f"{at}.{part.name}")
    elif isinstance(a, float) and np.isnan(a):
        assert np.isnan(b), at
    else:
        assert a == b, at


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_every_kind_is_read_as_it_was_saved(kind, results, tmp_path):
    """Identity: the fields are walked and compared bit by bit, designs and labels included."""
    path = save(results[kind], tmp_path / "r.hlm")

    assert_equal(results[kind], read(path))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_text_of_a_read_result_equal_the_saved(kind, results, tmp_path):
    """Equal to rounding: the working arrays are computed again, and BLAS may add in another order."""
    result = results[kind]
    result.save(tmp_path / "r.hlm")

    again = hl.read(tmp_path / "r.hlm")

    for name in names_of(result):
        pd.testing.assert_frame_equal(getattr(result, name), getattr(again, name), rtol=1e-10)
    assert str(again.summary()) == str(result.summary())
    if hasattr(result, "draws"):
        assert result.draws.identical(again.draws)


def test_a_read_fit_predicts_simulates_and_refits_as_the_saved(results, tmp_path):
    """To rounding: the working arrays that are recomputed serve as the first ones did."""
    for kind, new in (("lmm fit", tree_table().iloc[:9]), ("area fit", area_table())):
        fit = results[kind]
        again = read(save(fit, tmp_path / "r.hlm"))

        pd.testing.assert_frame_equal(fit.predict(new), again.predict(new), rtol=1e-10)
        y = fit.simulate(1, seed=1).iloc[:, 0]
        pd.testing.assert_frame_equal(y.to_frame(), again.simulate(1, seed=1).iloc[:, [0]], rtol=1e-10)
        pd.testing.assert_frame_equal(fit.refit(y).fixed, again.refit(y).fixed, rtol=1e-10)


@pytest.mark.parametrize("kind", ["lmm fit", "area fit"])
def test_a_refit_keeps_its_own_response(kind, results, tmp_path):
    """A refit's response is not in the table that its design is rebuilt from, and is saved beside it."""
    y = results[kind].simulate(1, seed=2).iloc[:, 0].to_numpy()
    refit = results[kind].refit(y)

    again = read(save(refit, tmp_path / "r.hlm"))

    assert_equal(refit, again)
    pd.testing.assert_frame_equal(refit.fixed, again.fixed, check_exact=True)


@pytest.mark.parametrize("spec", [AREAS, TREES], ids=["areas", "trees"])
def test_a_table_that_changes_after_the_fit_changes_no_file(spec, tmp_path):
    """What is saved is what was fitted, whatever its owner does to the table afterwards."""
    table = area_table() if spec is AREAS else tree_table()
    table = table[list(spec.columns().all)]
    fit = hl.fit(spec, table)
    before = fit.fixed

    table.iloc[0, 0] = 99.0
    table[spec.response] *= 2
    again = read(save(fit, tmp_path / "r.hlm"))

    pd.testing.assert_frame_equal(again.fixed, before, check_exact=True)
    assert_equal(fit, again)


def test_fits_without_an_optimum_are_read_too(tmp_path):
    """A response without residual variation has no theta: the limit is computed anew and keeps the saved numbers."""
    table = pd.DataFrame({"g": list("aabbccdd"), "x": np.arange(8.0)})
    limits = {"2 * x": 2 * table["x"], "group means": table["g"].map({"a": 1.0, "b": 4.0, "c": 2.0, "d": 9.0})}

    for y in limits.values():
        fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), table.assign(y=y))
        again = read(save(fit, tmp_path / "r.hlm"))

        assert fit.at is None
        assert_equal(fit, again)


def test_equal_results_are_equal_files(results, tmp_path):
    """No clock, no path and no memory address gets into a file."""
    again = hl.posterior(AREAS, area_table(), draws=20, seed=3)

    one, two = save(results["area posterior"], tmp_path / "1"), save(again, tmp_path / "2")

    assert one.read_bytes() == two.read_bytes()


def test_a_comparison_holds_its_design_once(results, tmp_path):
    """Fit and posterior share the table, as they did."""
    path = save(results["lmm comparison"], tmp_path / "r.hlm")

    manifest = json.loads(zipfile.ZipFile(path).read(MANIFEST))
    again = read(path)

    assert len(manifest["designs"]) == 1
    assert again.fit.design is again.posterior.design


def test_a_file_says_what_it_holds_without_hierlmm(results, tmp_path):
    """Format, versions, spec, fingerprint, seed, priors and tolerances stand in plain JSON."""
    path = save(results["area comparison"], tmp_path / "r.hlm")

    manifest = json.loads(zipfile.ZipFile(path).read(MANIFEST))

    assert (manifest["format"], manifest["kind"]) == (FORMAT, "Comparison")
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["versions"]["hierlmm"] == hl.__version__
    assert hl.ModelSpec.from_toml(manifest["spec"]) == AREAS
    assert manifest["fingerprint"]["variances"] == results["area fit"].fingerprint.variances
    assert manifest["posterior"]["seed"] == 3
    assert any("sd(name:Intercept)" in line for line in manifest["posterior"]["priors"])
    assert manifest["fit"]["tolerances"]["decrement"] == 1e-10


def test_files_hold_no_pickle(results, tmp_path):
    """Members are JSON, npy without objects, and Parquet."""
    archive = zipfile.ZipFile(save(results["lmm comparison"], tmp_path / "r.hlm"))

    for name in archive.namelist():
        if name.endswith(".npy"):
            np.lib.format.read_array(archive.open(name), allow_pickle=False)
        else:
            assert name == MANIFEST or pd.read_parquet(io.BytesIO(archive.read(name))).shape is not None


def round_trip(value: object) -> object:
    """The value, coded and decoded through an archive in memory."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        code = json.loads(json.dumps(Encoder(Store(archive), Designs())(value, "v"), allow_nan=False))
    with zipfile.ZipFile(stream) as archive:
        return Decoder(Source(archive), Designs([]))(code)


FRAMES = {
    "text": pd.DataFrame({"a": ["x", "ü", ""]}),
    "text with gaps": pd.DataFrame({"a": ["x", None, "z"]}, dtype=object),
    "text with nan": pd.DataFrame({"a": ["x", np.nan, "z"]}, dtype=object),
    "mixed": pd.DataFrame({"a": [1, "1", 1.0, True, None]}, dtype=object),
    "mixed beside numbers": pd.DataFrame({"a": [1, "1"], "b": [0.5, -0.0]}),
    "numbers": pd.DataFrame({"a": [0.1, np.nan, np.inf], "b": np.array([1, 2, 3], dtype=np.int16)}),
    "half precision": pd.DataFrame({"a": np.array([0.1, np.nan], dtype=np.float16)}),
    "complex": pd.DataFrame({"a": [1 + 2j, 3.0]}),
    "nullable": pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": pd.array([True, None], dtype="boolean")}),
    "ordered": pd.DataFrame({"a": pd.Categorical(["l", "h", None], ["l", "m", "h"], ordered=True)}),
    "numbered categories": pd.DataFrame({"a": pd.Categorical([2, 1], [2, 1, 3])}),
    "interval categories": pd.DataFrame({"a": pd.cut([0.5, 1.5, 2.5], [0, 1, 2, 3])}),
    "dates": pd.DataFrame({"a": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Berlin")}),
    "periods": pd.DataFrame({"a": pd.period_range("2020-01", periods=2, freq="M")}),
    "no rows": pd.DataFrame({"a": pd.Series(dtype=float), "b": pd.Series(dtype=object)}),
    "no columns": pd.DataFrame(index=pd.RangeIndex(3)),
    "numbered columns": pd.DataFrame(np.eye(2)),
    "equal names": pd.DataFrame(np.eye(2), columns=["a", "a"]),
    "odd names": pd.DataFrame(np.eye(3), columns=["../../x", "=HYPERLINK()", "<script>"]),
    "row labels": pd.DataFrame({"a": [1.0, 2.0]}, index=pd.Index(["p", "q"], name="place")),
    "mixed row labels": pd.DataFrame({"a": [1.0, 2.0]}, index=pd.Index([1, "1"])),
    "two levels": pd.DataFrame({"a": [1.0, 2.0]}, pd.MultiIndex.from_tuples([("p", 1), ("q", 2)], names=["a", None])),
    "a stretch": pd.DataFrame({"a": [1.0, 2.0]}, index=pd.RangeIndex(5, 9, 2, name="k")),
}  # fmt: skip


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_tables_are_read_with_their_dtypes_and_labels(frame):
    """Parquet changes some of these; what it changes is kept beside it."""
    again = round_trip(frame)

    pd.testing.assert_frame_equal(frame, again, check_exact=True, check_freq=False)
    for name in range(frame.shape[1]):
        column, read_back = frame.iloc[:, name], again.iloc[:, name]
        if column.dtype == object:
            assert [type(v) for v in column] == [type(v) for v in read_back]


def test_a_column_that_no_file_holds_is_refused_by_name():
    """Silence would be a table that differs from the one that was fitted."""
    frame = pd.DataFrame({"a": pd.arrays.SparseArray([0.0, 1.0])})

    with pytest.raises(FileError, match=r"exactly or not at all; the column v\.a has the type Sparse"):
        round_trip(frame)


LABELS = (
    None, True, 7, -0.0, 1e-320, np.inf, "é\n<b>", "", (1, ("a",)), [1, 2], {("a", 1): 0.1},
    pd.Timestamp("2020-01-01 12:00", tz="Asia/Tokyo"), pd.Timestamp(1, unit="ns"), pd.Timedelta(5, unit="ns"),
    pd.Period("2020Q1", freq="Q"), pd.Interval(0, 1.5, closed="left"), datetime.date(2020, 2, 29),
    datetime.datetime(2020, 2, 29, 1), datetime.time(1, 2), decimal.Decimal("0.10"), pd.Index(["a", "b"], name="n"),
)  # fmt: skip


@pytest.mark.parametrize("value", LABELS, ids=str)
def test_labels_of_every_usual_type_are_kept(value):
    """Groups and areas may be dates, classes of a number or numbers as well as text."""
    again = round_trip((value,))[0]

    assert_equal(value, again)


def test_labels_of_other_types_are_refused_with_their_place():
    """A label that is an arbitrary object would need code to be read."""
    with pytest.raises(FileError, match=r"found object .* at v\.1, which files have no form for"):
        round_trip((1, object()))


def test_arrays_that_are_shared_stay_shared_and_are_read_only():
    """An array that two fields hold is in the file once."""
    x = np.arange(3.0)
    one, two = round_trip((x, x))

    assert one is two
    assert not one.flags.writeable


def test_every_class_that_a_result_is_made_of_is_registered(results, tmp_path):
    """The list of classes has no name that does not exist and lacks none that a result needs."""
    for name in VALUES:
        assert is_dataclass(value_class(name))
    for name in ENUMS:
        assert issubclass(enum_class(name), Enum)
    for kind in KINDS:
        save(results[kind], tmp_path / "r.hlm")


# Files that hierlmm 0.1.0 wrote, read by every later version: what they hold, with a number known from elsewhere.
# milk: the catalogue's root of the score in 40-digit arithmetic, and its quadrature over A with 3200 nodes. dyestuff:
# closed forms of the balanced one-way layout (Searle, Casella and McCulloch 1992, Variance Components), in which the
# posterior mean of the intercept is the mean of the data whatever the variances. eight-schools: the mean weighted by
# 1/sigma squared, in rational arithmetic. sleepstudy: Newton's method on the criterion in extended precision.
FORMAT_1 = {
    "AreaFit-milk": (lambda fit: fit.A_hat, 0.018550334762766674),
    "AreaPosterior-milk": (lambda posterior: posterior.A["estimate"][0], 0.022658228737168152),
    "Comparison-eight-schools": (lambda comparison: comparison.fit.fixed["estimate"][0], 7.685616724956035),
    "LMMFit-sleepstudy": (lambda fit: fit.objective, 1743.6282719584908),
    "LMMPosterior-dyestuff": (lambda posterior: posterior.fixed["estimate"][0], 1527.5),
    "Comparison-dyestuff": (lambda comparison: comparison.fit.variance_components["estimate"][0], 1764.05),
}


@pytest.mark.parametrize("name", FORMAT_1)
def test_files_of_format_1_are_read_for_ever(name):
    """A later version that cannot read these must raise the format, and read both."""
    kind, _, model = name.partition("-")
    number, expected = FORMAT_1[name]

    result = read(DATA / f"format1-{name}.hlm")

    assert type(result).__name__ == kind
    assert result.spec == hl.load(model).spec
    assert number(result) == pytest.approx(expected, rel=1e-8)
    assert result.summary()


def changed(path: Path, to: Path, **entries: object) -> Path:
    """A copy of a saved file whose manifest has other entries."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == MANIFEST:
                content = json.dumps({**json.loads(content), **entries}).encode()
            new.writestr(name, content)
    return to


def test_a_newer_format_is_refused_by_name(results, tmp_path):
    """The message names the format, the version that wrote it, and what to do."""
    path = save(results["area fit"], tmp_path / "r.hlm")
    newer = changed(path, tmp_path / "n.hlm", format=FORMAT + 1, versions={"hierlmm": "9.2"}, result={"is": "new"})
    message = rf"format {FORMAT + 1}, written by hierlmm 9\.2.*Install hierlmm 9\.2 or newer"

    with pytest.raises(FileError, match=message):
        read(newer)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": "1"}, "of another kind"),
        ({"format": 0}, "format 1 to 1; found 'AreaFit' in format 0"),
        ({"kind": "Model"}, "found 'Model'"),
        ({"kind": "LMMFit"}, "LMMFit announced, AreaFit found"),
        ({"result": {"is": "value", "class": "Popen", "fields": {}}}, "damaged or changed"),
        ({"result": {"is": "os.system"}}, "damaged or changed"),
        ({"result": {"is": "value", "class": "AreaFit", "fields": {}}}, "damaged or changed"),
        ({"result": [], "designs": None}, "damaged or changed"),
    ],
)
def test_a_changed_manifest_is_refused(entries, message, results, tmp_path):
    """Only the registered classes are ever made, from the fields they have."""
    path = save(results["area fit"], tmp_path / "r.hlm")

    with pytest.raises(FileError, match=message):
        read(changed(path, tmp_path / "c.hlm", **entries))


def test_other_data_than_the_saved_are_noticed(results, tmp_path):
    """The rebuilt design is held to the fingerprint, and the criterion at the estimates to the saved one."""
    path = save(results["lmm fit"], tmp_path / "r.hlm")
    manifest = json.loads(zipfile.ZipFile(path).read(MANIFEST))
    manifest["designs"][0]["fingerprint"]["predictors"] = "0"
    other = manifest["result"]["fields"]
    other["objective"] += 1e-6

    with pytest.raises(FileError, match="design that was saved; they differ in predictors"):
        read(changed(path, tmp_path / "d.hlm", designs=manifest["designs"]))
    with pytest.raises(FileError, match="criterion at the saved estimates must be the saved one"):
        read(changed(path, tmp_path / "o.hlm", result=manifest["result"]))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"a,b\n1,2\n", bytes(99)], ids=["", "zip", "csv", "zeros"])
def test_files_of_other_programs_are_refused(content, tmp_path):
    """Whatever is not a saved result is said not to be one."""
    path = tmp_path / "x.hlm"
    path.write_bytes(content)

    with pytest.raises(FileError, match="of another kind, or cut off"):
        read(path)


def test_a_zip_file_of_another_program_is_refused(tmp_path):
    """Spreadsheets and wheels are zip files too."""
    with zipfile.ZipFile(tmp_path / "x.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")

    with pytest.raises(FileError, match="of another kind"):
        read(tmp_path / "x.xlsx")


def test_missing_files_and_directories_are_named(tmp_path):
    """The reason is the operating system's."""
    with pytest.raises(FileError, match=r"none\.hlm cannot be read: No such file"):
        read(tmp_path / "none.hlm")
    with pytest.raises(FileError, match="cannot be read: Is a directory"):
        read(tmp_path)


@pytest.mark.parametrize("part", [0.01, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(part, results, tmp_path):
    """A copy that stopped half way has no directory at its end."""
    content = save(results["area comparison"], tmp_path / "r.hlm").read_bytes()
    (tmp_path / "cut.hlm").write_bytes(content[: int(part * len(content))])

    with pytest.raises(FileError, match="cut off"):
        read(tmp_path / "cut.hlm")


def test_a_damaged_byte_is_noticed_or_without_effect(results, tmp_path):
    """Bytes changed one at a time, at 150 places spread over the file: FileError, or the same result."""
    result = results["area fit"]
    content = bytearray(save(result, tmp_path / "r.hlm").read_bytes())
    places = np.random.default_rng(0).choice(len(content), 150, replace=False)
    refused = 0

    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        (tmp_path / "d.hlm").write_bytes(damaged)
        try:
            again = read(tmp_path / "d.hlm")
        except FileError:
            refused += 1
        else:
            assert_equal(result, again)

    assert refused > 75


def test_only_results_are_saved(tmp_path):
    """A design or a table is not a result."""
    with pytest.raises(FileError, match="comparisons can be saved; found DataFrame"):
        save(area_table(), tmp_path / "r.hlm")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file_and_no_other(results, tmp_path, monkeypatch):
    """The old file is there until the new one is whole, whatever stops the writing."""
    path = save(results["area fit"], tmp_path / "r.hlm")
    before = path.read_bytes()

    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "array", stop)
    with pytest.raises(KeyboardInterrupt):
        save(results["area posterior"], path)

    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["r.hlm"]


def test_missing_directories_and_things_that_are_no_files_are_refused(results, tmp_path):
    """Saving over a device or a directory would not make a file."""
    with pytest.raises(FileError, match="could not be written: No such file or directory"):
        save(results["area fit"], tmp_path / "none" / "r.hlm")
    with pytest.raises(FileError, match="saved to a file; found something else"):
        save(results["area fit"], tmp_path)
    with pytest.raises(FileError, match="saved to a file; found something else"):
        save(results["area fit"], "/dev/null")


FULL_DISK = """
import os, resource, sys
import hierlmm as hl
fit = hl.read(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    fit.save(sys.argv[2])
except hl.FileError as error:
    print(error)
print(os.listdir(os.path.dirname(sys.argv[2])))
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on the size of files")
def test_a_full_disk_leaves_nothing_behind(results, tmp_path):
    """A process that may write 2000 bytes a file gets a sentence, and no part of a file stays."""
    path = save(results["area fit"], tmp_path / "r.hlm")
    (tmp_path / "full").mkdir()

    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(tmp_path / "full" / "s.hlm")],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip

    assert "could not be written: File too large. Nothing was left behind" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_designs_are_not_confused_with_each_other():
    """The two families of designs are told apart by their class, whichever is written first."""
    assert not issubclass(LMMDesign, AreaDesign)
