"""The command line: prints what the library computes, and refuses in one sentence with status 2."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

import hierlmm as hl
from hierlmm.cli import commands, main, program
from hierlmm.cli.datafile import read_table
from hierlmm.cli.output import printable
from hierlmm.cli.recipe import report_path
from hierlmm.errors import FileError

ROOT = Path(__file__).parents[1]
SITKA = "size ~ Time + (1 | tree)"
CATALOGUE = tuple(hl.models()["name"])


def run(*arguments: str) -> Result:
    """The command in this process: its output, errors and status."""
    return CliRunner().invoke(program, list(arguments), standalone_mode=True)


def status(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Status, output and errors of `main`, as a shell sees them."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    told = capsys.readouterr()
    return int(left.value.code or 0), told.out, told.err


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hierlmm", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def milk_csv(here: Path) -> Path:
    """The catalogue's milk data as a file of another name."""
    hl.load("milk").data.to_csv(here / "areas.csv", index=False)
    return here / "areas.csv"


MILK = ("--formula", "yi ~ C(MajorArea)", "--sampling-variance", "vardir", "--area", "SmallArea")


@pytest.mark.parametrize("name", CATALOGUE)
def test_fit_prints_the_summary_of_every_model_of_the_catalogue(name):
    """`hierlmm fit NAME` is hl.fit(...).summary(), in 80 columns."""
    case = hl.load(name)

    result = run("fit", name)

    assert result.exit_code == 0
    assert result.stdout == hl.fit(case.spec, case.data).summary().rstrip("\n") + "\n"
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stderr == ""


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_method_is_the_one_asked_for(method):
    """The log-likelihood in the output is that of the library's fit by the same method."""
    case = hl.load("sitka/slopes")

    told = json.loads(run("fit", "sitka/slopes", "--method", method, "--format", "json").stdout)

    assert told["method"] == method
    assert told["loglik"] == hl.fit(case.spec, case.data, method).loglik


def test_models_lists_the_catalogue():
    """Names, formulas, numbers of rows and titles, in 80 columns, and as data."""
    listing = hl.models()

    text, rows = run("models").stdout, json.loads(run("models", "--format", "json").stdout)
    table = pd.read_csv(io.StringIO(run("models", "--format", "csv").stdout))

    assert max(map(len, text.splitlines())) <= 80
    assert all(name in text for name in listing["name"])
    assert rows == listing.to_dict("records")
    pd.testing.assert_frame_equal(table, listing)


def test_csv_output_is_the_frames_to_the_last_digit():
    """Reading the output back gives equal numbers."""
    case = hl.load("sitka/slopes")
    fit = hl.fit(case.spec, case.data)

    for name in ("fixed", "variance_components", "random_effects", "group_coefficients"):
        text = run("fit", "sitka/slopes", "--format", "csv", "--table", name).stdout
        frame = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values={"se": ""})
        for column in ("estimate", "se"):
            pd.testing.assert_series_equal(frame[column], getattr(fit, name)[column], check_exact=True)


def test_csv_without_a_table_has_all_tables_of_a_fit_in_one():
    """The first column says which; the vocabulary is the same in all of them."""
    table = pd.read_csv(io.StringIO(run("fit", "milk", "--format", "csv").stdout))

    assert list(table["table"].unique()) == ["fixed", "A", "areas"]
    assert len(table) == 4 + 1 + 43
    assert table["estimate"].notna().all()


def test_json_output_has_every_table_and_no_number_that_json_lacks():
    """Strict JSON: a missing number is null. The numbers are those of the library."""
    case = hl.load("milk")
    comparison = hl.compare(hl.fit(case.spec, case.data), hl.posterior(case.spec, case.data, seed=5))

    result = run("compare", "milk", "--seed", "5", "--format", "json")
    told = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    assert set(told["tables"]) == {"table", "attribution", "mse", "boundary", "sensitivity"}
    estimates = [row["estimate"] for row in told["tables"]["table"]]
    assert estimates == [None if pd.isna(v) else v for v in comparison.table["estimate"]]
    assert told["posterior"]["seed"] == 5
    assert told["findings"] == list(comparison.findings)
    assert hl.ModelSpec.from_toml(told["spec"]) == case.spec


def test_priors_engine_and_draws_are_those_asked_for(monkeypatch):
    """What reaches the library is what was typed; several priors add up."""
    seen = {}
    whole = commands._compared

    def spy(*arguments):
        seen["result"], seed = whole(*arguments)
        return seen["result"], seed

    monkeypatch.setattr(commands, "_compared", spy)
    run("compare", "dyestuff", "--prior", "sd(Batch)=halfnormal(30)", "--prior", "residual=exponential(0.02)",
        "--draws", "30", "--seed", "1", "--method", "ml", "--format", "csv")  # fmt: skip

    posterior, fit = seen["result"].posterior, seen["result"].fit
    case = hl.load("dyestuff")
    priors = ["sd(Batch)=halfnormal(30)", "residual=exponential(0.02)"]
    by_hand = hl.posterior(case.spec, case.data, priors, draws=30, seed=1)
    assert posterior.priors == by_hand.priors
    assert (posterior.engine, posterior.sample.number, posterior.seed, fit.method) == ("integrate", 30, 1, "ml")
    pd.testing.assert_frame_equal(posterior.fixed, by_hand.fixed, check_exact=True)


@pytest.mark.parametrize("ending", ["csv", "parquet", "dta"])
def test_files_of_every_kind_are_fitted_as_the_table_they_hold(ending, here):
    """The same numbers from CSV, Parquet and Stata as from the table itself."""
    data = hl.load("sitka").data[["size", "Time", "tree"]].astype({"tree": str})
    path = here / f"trees.{ending}"
    {"csv": lambda: data.to_csv(path, index=False), "parquet": lambda: data.to_parquet(path),
     "dta": lambda: data.to_stata(path, write_index=False)}[ending]()  # fmt: skip

    told = json.loads(run("fit", str(path), "--formula", SITKA, "--format", "json").stdout)

    assert told["loglik"] == pytest.approx(hl.fit(hl.lmm(SITKA), data).loglik, rel=1e-14)


def test_an_area_model_is_stated_by_its_options(milk_csv):
    """`--formula --sampling-variance --area` is hl.fay_herriot(...)."""
    told = json.loads(run("fit", "areas.csv", *MILK, "--format", "json").stdout)

    assert told["loglik"] == hl.fit(hl.load("milk").spec, pd.read_csv(milk_csv)).loglik


def test_a_name_of_the_catalogue_wins_over_a_file_of_that_name(here, capsys):
    """As promised; a path with an ending or a directory is the file."""
    (here / "milk").write_text("not a table")

    assert status(capsys, "fit", "milk")[0] == 0
    assert "ends in .csv" in status(capsys, "fit", "./milk")[2]


def test_a_model_of_the_catalogue_can_be_changed_by_its_formula():
    """An area-level set keeps its columns; a formula with bars is a linear mixed model of the same table."""
    area = json.loads(run("fit", "milk", "--formula", "yi ~ 1", "--format", "json").stdout)
    mixed = json.loads(run("fit", "milk", "--formula", "yi ~ 1 + (1 | MajorArea)", "--format", "json").stdout)

    expected = hl.fay_herriot("yi ~ 1", sampling_variance="vardir", area="SmallArea")
    assert hl.ModelSpec.from_toml(area["spec"]) == expected
    assert hl.ModelSpec.from_toml(mixed["spec"]) == hl.lmm("yi ~ 1 + (1 | MajorArea)")


@pytest.mark.parametrize("method", ["fh", "pr", "ampl_yl", "mix"])
def test_areas_are_fitted_by_every_estimator_and_mixed_models_are_not(method, capsys):
    """A as hl.fit has it; a mixed model names its own estimators."""
    told = json.loads(run("fit", "milk", "--method", method, "--format", "json").stdout)
    case = hl.load("milk")

    assert told["tables"]["A"][0]["estimate"] == hl.fit(case.spec, case.data, method).A_hat
    code, _, err = status(capsys, "fit", "sitka", "--method", method)
    assert (code, "estimator of the linear mixed model" in err) == (2, True)


def test_a_fit_of_areas_writes_a_report_or_a_workbook_by_the_ending(here, monkeypatch, capsys):
    """Both beside the summary; the lines of the report give the fit again; other endings and models are refused."""
    told = run("fit", "milk", "--method", "fh", "-o", "out.html")
    run("fit", "milk", "-o", "out.xlsx")
    page = (here / "out.html").read_text(encoding="utf-8")

    assert "Report: out.html" in told.stderr
    assert "hierlmm fit milk --method fh --output out.html" in page
    lines = page.split("<pre>")[-1].split("</pre>")[0].replace("&#39;", "'")
    scope: dict[str, object] = {}
    exec(lines, scope)
    assert scope["fit"].method == "fh"
    assert pd.read_excel("out.xlsx", sheet_name="estimates").shape[0] == 43
    assert "an HTML report or an Excel workbook" in status(capsys, "fit", "milk", "-o", "out.pdf")[2]
    assert "of area-level models" in status(capsys, "fit", "sitka", "-o", "out.html")[2]


def test_transformations_and_matrices_are_stated_by_options(here):
    """Log, arcsine with its sizes, and sampling covariances from a file: the fits of the same specs in Python."""
    case = hl.load("milk")
    data = case.data.assign(share=case.data["yi"] / 4)
    data.to_csv("areas.csv", index=False)
    S = pd.DataFrame(0.0, data["SmallArea"], data["SmallArea"])
    for area, variance in zip(data["SmallArea"], data["vardir"], strict=True):
        S.loc[area, area] = variance
    S.to_csv("S.csv")
    area = ("--area", "SmallArea", "--format", "json")

    def A(*options: str) -> float:
        return float(json.loads(run("fit", "areas.csv", *options, *area).stdout)["tables"]["A"][0]["estimate"])

    log = hl.fay_herriot("yi ~ 1", sampling_variance="vardir", area="SmallArea", transformation=hl.Log())
    root = hl.fay_herriot("share ~ 1", area="SmallArea", transformation=hl.ArcsineRoot(size="ni"))
    plain = hl.fay_herriot("yi ~ 1", sampling_variance="vardir", area="SmallArea")
    given = ("--formula", "yi ~ 1", "--sampling-variance", "vardir", "--transformation", "log")
    assert A(*given) == pytest.approx(hl.fit(log, data).A_hat, rel=1e-9)
    given = ("--formula", "share ~ 1", "--transformation", "arcsine(ni)")
    assert A(*given) == pytest.approx(hl.fit(root, data).A_hat, rel=1e-9)
    given = ("--formula", "yi ~ 1", "--sampling-covariance", "S", "--matrix", "S=S.csv")
    assert A(*given) == pytest.approx(hl.fit(plain, data).A_hat, rel=1e-9)


def test_unusual_areas_are_treated_as_asked(here, capsys):
    """Without the option an area without an estimate is refused by name; with it, its estimate is synthetic."""
    data = hl.load("milk").data
    data.loc[3, "yi"], data.loc[5, "vardir"] = None, 0.0
    data.to_csv("areas.csv", index=False)

    code, _, err = status(capsys, "fit", "areas.csv", *MILK)
    told = run("fit", "areas.csv", *MILK, "--unsampled", "synthetic", "--zero-variance", "direct",
               "--format", "csv", "--table", "areas")  # fmt: skip
    roles = pd.read_csv(io.StringIO(told.stdout))["role"]

    assert code == 2
    assert "unsampled" in err
    assert (roles[3], roles[5]) == ("unsampled", "direct")


SECOND = ("--formula", "y ~ x + (1 | g)")
REFUSED = {
    "neither name nor file": (("fit", "nothing"), "'nothing' is neither"),
    "a near miss": (("fit", "mlik"), "Did you mean 'milk'?"),
    "no such file": (("fit", "none.csv", *SECOND), "there is no file 'none.csv'"),
    "a directory": (("fit", ".", *SECOND), "'.' is neither"),
    "no such model": (("fit", "sitka/nothing"), "no model of sitka called 'nothing'"),
    "a file without formula": (("fit", "t.csv"), "needs --formula; the columns of t.csv are y, x, g"),
    "an unknown ending": (("fit", "t.txt", *SECOND), "ends in .csv, .parquet, .dta; found '.txt'"),
    "a formula that cannot be read": (("fit", "t.csv", "--formula", "y ~ x + (1 | g"), "parenthesis"),
    "code in a formula": (("fit", "t.csv", "--formula", "y ~ __import__('os').system('x') + (1 | g)"), "^"),
    "an unknown column": (("fit", "t.csv", "--formula", "y ~ z + (1 | g)"), "z"),
    "text for a response": (("fit", "t.csv", "--formula", "g ~ x + (1 | x)"), "g"),
    "no random effects": (("fit", "t.csv", "--formula", "y ~ x"), "(1 | group)"),
    "half an area model": (("fit", "t.csv", "--formula", "y ~ x", "--area", "g"), "--sampling-variance is missing"),
    "bars in an area model": (
        ("fit", "t.csv", *SECOND, "--area", "g", "--sampling-variance", "x"), "leave out terms with a bar"),
    "area options for a mixed model": (("fit", "sitka", "--unsampled", "synthetic"), "Only area-level models have"),
    "other columns without a formula": (("fit", "milk", "--area", "SmallArea"), "state it whole"),
    "an unknown method": (("fit", "milk", "--method", "mle"), "'mle' is not one of"),
    "an unknown engine": (("compare", "milk", "--engine", "stan"), "'stan' is not one of"),
    "an unknown option": (("compare", "milk", "--priors", "x"), "--priors"),
    "an unknown command": (("explain", "milk"), "No such command 'explain'"),
    "a seed that is none": (("compare", "milk", "--seed", "-1"), "-1 is not in the range"),
    "draws that are none": (("compare", "milk", "--draws", "many"), "'many' is not a valid integer"),
    "a prior that is none": (("compare", "milk", "--prior", "sd=wishart(2)"), "wishart"),
    "a prior of another parameter": (("compare", "milk", "--prior", "sd(tree)=flat"), "tree"),
    "an improper posterior": (("compare", "milk", "--prior", "sd=flat(log)"), "improper"),
    "a table without csv": (("fit", "milk", "--table", "areas"), "add --format csv"),
    "an unknown table": (("fit", "milk", "--format", "csv", "--table", "x"), "--table is one of"),
    "a table of the other family": (("fit", "milk", "--format", "csv", "--table", "random_effects"), "has the tables"),
    "a report in no directory": (("compare", "milk", "-o", "none/out.html"), "directory of 'none/out.html' must exist"),
    "a report over a directory": (("compare", "milk", "-o", "."), "is a directory"),
    "a save in no directory": (("fit", "milk", "--save", "none/fit.hlm"), "directory of 'none/fit.hlm' must exist"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused_with_status_2_and_a_sentence(arguments, sentence, here, capsys):
    """No traceback, nothing on standard output, nothing left on disk."""
    (here / "t.csv").write_text("y,x,g\n" + "".join(f"{k * k % 7},{k},{'abc'[k % 3]}\n" for k in range(12)))
    (here / "t.txt").write_text("y,x,g\n1,2,a\n")

    code, out, err = status(capsys, *arguments)

    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert out == ""
    assert sorted(os.listdir(here)) == ["t.csv", "t.txt"]


FILES = {
    "empty": (b"", "is empty"),
    "blank": (b"\n\n", "is empty"),
    "only a header": (b"y,x,g\n", "has none"),
    "Latin-1": ("y,x,g\n1,2,a\n3,4,é\n".encode("latin-1"), r"line 3 of .* has the byte 0xe9"),
    "UTF-16": ("y,x,g\n1,2,a\n".encode("utf-16"), "line 1 of .* has the byte 0xff"),
    "zero byte": (b"y,x,g\n1,2,\0\n", "line 2 of .* has a zero byte"),
    "a longer line": (b"y,x,g\n1,2,a\n3,4,b,5\n", "line 3"),
    "an open quotation": (b'y,x,g\n1,2,"a\n3,4,b\n', "row 1|EOF"),
    "semicolons": (b"y;x;g\n1;2;a\n", "are by ';'"),
    "tabs": (b"y\tx\tg\n1\t2\ta\n", "are by a tab"),
    "a name twice": (b"y,x,x\n1,2,3\n", "has x twice"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES.keys())
def test_csv_files_with_a_fault_are_refused_where_the_fault_is(content, message, tmp_path):
    """pandas alone would rename columns, shift them or stop with a byte offset."""
    path = tmp_path / "t.csv"
    path.write_bytes(content)

    with pytest.raises(FileError, match=message):
        read_table(path)


@pytest.mark.parametrize("ending", ["parquet", "dta"])
def test_files_that_are_not_what_their_ending_says_are_refused(ending, tmp_path):
    """The sentence names the file."""
    path = tmp_path / f"t.{ending}"
    path.write_bytes(b"y,x\n1,2\n" * 50)

    with pytest.raises(FileError, match=rf"t\.{ending} is not a \.{ending} file"):
        read_table(path)


def test_a_byte_order_mark_and_exact_decimals_are_read(tmp_path):
    """Excel's CSV UTF-8; a decimal is the nearest double, as Python reads it."""
    (tmp_path / "t.csv").write_bytes("\ufeffy,ü\n0.1234567890123456789,a\n".encode())

    table = read_table(tmp_path / "t.csv")

    assert list(table.columns) == ["y", "ü"]
    assert table["y"][0] == 0.1234567890123456789


REPORTS = {
    "milk": "milk-report.html",
    "sitka/slopes": "sitka-slopes-report.html",
    "../../x.csv": "x-report.html",
    "a/b c;rm -rf.parquet": "b-c-rm-rf-report.html",
    "<script>.csv": "script-report.html",
    "é.csv": "hierlmm-report.html",
    "x" * 300 + ".csv": "x" * 60 + "-report.html",
}


@pytest.mark.parametrize(("target", "name"), REPORTS.items())
def test_the_report_has_a_plain_name_in_the_working_directory(target, name):
    """No part of a path, nothing a shell or a browser would act upon, never too long."""
    assert report_path(target, None, "text") == Path(name)


def test_the_report_goes_where_it_is_asked_to():
    """With JSON and CSV there is a report only on demand."""
    assert report_path("milk", "a/out.html", "json") == Path("a/out.html")
    assert report_path("milk", None, "json") is None


def test_compare_prints_the_summary_and_says_where_the_report_is(here):
    """Standard output is the result alone; an older report is replaced."""
    (here / "milk-report.html").write_text("old")
    case = hl.load("milk")

    result = run("compare", "milk", "--seed", "2")

    comparison = hl.compare(hl.fit(case.spec, case.data), hl.posterior(case.spec, case.data, seed=2))
    assert result.stdout == comparison.summary().rstrip("\n") + "\n"
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stderr == "Report: milk-report.html\n"
    assert "<html" in (here / "milk-report.html").read_text(encoding="utf-8")[:200].lower()


def test_what_a_report_prints_reproduces_it(milk_csv, here, monkeypatch):
    """The command and the Python lines at its end give the numbers it shows."""
    told = {}
    monkeypatch.setattr("hierlmm.report.html.write", lambda result, path, **lines: told.update(lines, result=result))
    run("compare", "areas.csv", *MILK, "--method", "ml", "--prior", "sd=halft(3, 0.5)", "--seed", "7", "--draws", "50")
    monkeypatch.undo()
    monkeypatch.chdir(here)
    shown = told["result"]

    names: dict[str, object] = {}
    exec(compile(told["code"], "report", "exec"), names)
    again = subprocess.run(
        told["command"].replace("hierlmm", f"{sys.executable} -m hierlmm", 1) + " --format csv",
        shell=True, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    pd.testing.assert_frame_equal(names["comparison"].table, shown.table, check_exact=True)
    assert again.stdout == run("compare", "areas.csv", *MILK, "--method", "ml", "--prior", "sd=halft(3, 0.5)", "--seed",
                               "7", "--draws", "50", "--format", "csv").stdout  # fmt: skip
    assert (here / "areas-report.html").exists()


@pytest.mark.parametrize("target", ["sitka/slopes", "milk"])
def test_the_python_lines_of_a_catalogue_model_load_it_by_name(target, here, monkeypatch):
    """`case = hl.load(...)` and the spec of the case, or the changed spec in full."""
    told = []
    monkeypatch.setattr("hierlmm.report.html.write", lambda result, path, **lines: told.append(lines["code"]))
    changed = ("--formula", "yi ~ 1") if target == "milk" else ()
    run("compare", target, *changed, "--draws", "0", "--seed", "1")

    code = told[0].rsplit("\n", 4)[0]
    names: dict[str, object] = {}
    exec(compile(code, "report", "exec"), names)

    case = hl.load(target)
    expected = hl.fay_herriot("yi ~ 1", sampling_variance="vardir", area="SmallArea") if changed else case.spec
    assert names["spec"] == expected


def test_results_are_saved_for_python(here):
    """`--save` is result.save(...)."""
    fit, comparison = run("fit", "milk", "--save", "fit.hlm"), run(
        "compare", "milk", "--save", "both.hlm", "--format", "csv", "--seed", "3")  # fmt: skip

    assert hl.read("fit.hlm").loglik == hl.read("both.hlm").fit.loglik
    assert "Saved: fit.hlm" in fit.stderr
    assert "Saved: both.hlm" in comparison.stderr


def test_control_characters_do_not_reach_the_terminal(here, capsys):
    """A label that would clear the screen, or call the terminal's codes, is shown as text."""
    data = hl.load("milk").data.astype({"SmallArea": str})
    data.loc[0, "SmallArea"] = "\x1b[2Jx"
    data.to_csv("areas.csv", index=False)

    result = run("fit", "areas.csv", *MILK)
    code, _, err = status(capsys, "fit", "\x1b[2J.csv")

    assert "\x1b" not in result.stdout
    assert (code, "\x1b" in err) == (2, False)
    assert printable("a\x1b[0m\tb\n\x9bc") == "a\\x1b[0m\tb\n\\x9bc"


def test_ctrl_c_ends_with_130(monkeypatch, capsys):
    """128 + SIGINT, as the shell expects, and a word."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hierlmm.frequentist.methods.fit_design", stop)
    code, out, err = status(capsys, "fit", "milk")

    assert (code, out) == (130, "")
    assert err.endswith("Stopped.\n")


def test_a_reader_that_goes_away_is_no_error():
    """`hierlmm ... | head` says nothing on standard error."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hierlmm", "fit", "sitka/slopes", "--format", "csv"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    process.stdout.close()

    said = process.stderr.read()
    process.stderr.close()

    assert (process.wait(), said) == (1, b"")


def test_a_full_device_is_one_sentence():
    """Output that cannot be written is status 2."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hierlmm", "models"], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("Error: The output could not be written: No space left")


def test_a_terminal_without_unicode_gets_its_output():
    """Greek letters become question marks rather than an error."""
    done = shell("fit", "milk", PYTHONIOENCODING="ascii")

    assert done.returncode == 0
    assert "0.96819" in done.stdout


def test_progress_is_shown_where_somebody_watches():
    """On a terminal the step that is running is on standard error; elsewhere nothing is."""
    code = "import time; from hierlmm.cli.progress import step\nwith step('Fitting'): time.sleep(0.3)"
    watched, slave = pty.openpty()

    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    quiet = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    subprocess.run([sys.executable, "-c", code], stderr=slave, check=True, env=env)
    os.close(slave)

    assert b"Fitting ..." in os.read(watched, 10_000)
    assert (quiet.stdout, quiet.stderr) == ("", "")
    os.close(watched)


LOADED = """
import sys
from hierlmm.cli import main
try:
    main(["compare", "milk", "-o", "out.html"])
finally:
    print(*({"pymc", "pytensor", "numba", "arviz"} & set(sys.modules)), file=sys.stderr)
"""


def test_compare_milk_needs_no_pymc_no_cache_and_no_home(here):
    """Within 30 s where HOME and every cache directory cannot be written to, and without a warning."""
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NUMBA_CACHE_DIR"), "/dev/null/none")
    environment = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"}
    begun = time.monotonic()

    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=False,
                          env={**environment, "PYTHONPATH": str(ROOT), **nowhere})  # fmt: skip

    assert done.returncode == 0
    assert time.monotonic() - begun < 30
    assert done.stderr == "Report: out.html\n\n"
    assert (here / "out.html").stat().st_size > 10_000


@pytest.mark.nuts
def test_the_other_engine_compares_too(here):
    """`--engine nuts` samples through PyMC; the posterior says so."""
    told = json.loads(run("compare", "eight-schools", "--engine", "nuts", "--draws", "1000", "--seed", "1",
                          "--prior", "sd=halfcauchy(5)", "--format", "json").stdout)  # fmt: skip

    assert told["posterior"]["engine"] == "nuts"
    assert told["versions"]["pymc"]


def test_ctrl_c_from_a_keyboard_ends_a_process_with_130():
    """The signal itself, sent while the program reads its table from a pipe that stays silent."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import hierlmm.cli.commands as c, time, hierlmm.cli as cli\n"
         "c.subject = lambda *a: (print('ready', flush=True), time.sleep(60))\ncli.main(['fit', 'milk'])"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert (process.returncode, err.strip()) == (130, "Stopped.")


def test_the_module_runs_and_knows_its_version():
    """`python -m hierlmm`, the entry point and the package metadata agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert shell("--version").stdout == f"hierlmm {hl.__version__}\n"
    assert project["version"] == hl.__version__
    assert project["scripts"] == {"hierlmm": "hierlmm.cli:main"}


@pytest.mark.parametrize("arguments", [("--help",), ("compare", "-h"), ("fit", "--help"), ("models", "--help")])
def test_help_fits_80_columns(arguments):
    """Every option says what it is."""
    text = run(*arguments).stdout

    assert max(map(len, text.splitlines())) <= 80
    assert "Usage:" in text
