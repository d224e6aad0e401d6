"""The commands compare, fit and models, and their options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from hierlmm.cli import compound, output, recipe
from hierlmm.cli.progress import step
from hierlmm.cli.subject import Choices, Subject, subject

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit
    from hierlmm.frequentist.lmm_results import LMMFit

Command = TypeVar("Command", bound=Callable[..., Any])
Format = Literal["text", "json", "csv"]

TARGET = click.argument("target", metavar="NAME|FILE")
# Estimators of mixed models and areas, then of areas alone, then of compound models.
METHODS = (
    "reml", "ml", "fh", "pr", "amrl_ll", "ampl_ll", "amrl_yl", "ampl_yl", "mix", "moments", "james_stein",
    "positive_part", "limited_translation", "morris",
)  # fmt: skip
METHOD = click.option(
    "--method", type=click.Choice(METHODS), default="reml", show_default=True, metavar="METHOD",
    help="Estimator of the variances: reml, ml; of areas also fh, pr, amrl_ll, ampl_ll, amrl_yl, ampl_yl, mix; of "
    "compound models also moments, james_stein, positive_part, limited_translation, morris.",
)  # fmt: skip
FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "csv"]),
    default="text",
    show_default=True,
    help="What standard output gets: the summary, every table, or one table.",
)
TABLE = click.option("--table", help="With csv: which table.")
SAVE = click.option("--save", type=click.Path(dir_okay=False), help="Save the result, for hierlmm.read(...).")


def model_options(command: Command) -> Command:
    """The options that say what is modelled."""
    for option in (
        click.option("--matrix", "matrix", multiple=True, metavar="NAME=FILE",
                     help="A matrix that the model names: a table with a first column of labels."),
        click.option("--spatial", metavar="NAME[:rows]", help="Spatial effects by this matrix, rows made to sum to 1."),
        click.option("--sampling-covariance", metavar="NAME", help="Matrix of the sampling covariances."),
        click.option("--transformation", metavar="log|logit|arcsine(COLUMN)",
                     help="Scale of the area model; COLUMN has effective sizes."),
        click.option("--missing-covariates", type=click.Choice(["error", "drop"]), help="Areas without covariates."),
        click.option("--absurd-variance", type=click.Choice(["error", "unsampled", "accept"]),
                     help="Areas of a variance that no survey gives."),
        click.option("--zero-variance", type=click.Choice(["error", "direct", "unsampled"]),
                     help="Areas of sampling variance 0."),
        click.option("--unsampled", type=click.Choice(["error", "synthetic"]), help="Areas without a direct estimate."),
        click.option("--area", metavar="COLUMN", help="Column of the area labels."),
        click.option("--sampling-variance", metavar="COLUMN", help="Column of the known sampling variances."),
        click.option("--formula", help="Model in lme4's notation; for areas the fixed part alone."),
    ):
        command = option(command)
    return command


@click.command()
@TARGET
@model_options
@METHOD
@click.option("--engine", type=click.Choice(["integrate", "nuts"]), default="integrate", show_default=True,
              help="Exact integration, or NUTS through PyMC.")  # fmt: skip
@click.option("--prior", "priors", multiple=True, metavar="PRIOR",
              help="Such as 'sd(tree)=halft(3, 2.5)', or a preset such as flat_sd; may be repeated.")  # fmt: skip
@click.option("--draws", type=click.IntRange(min=0), default=4000, show_default=True, help="Posterior draws in all.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the draws; default: a fresh one, which is shown.")
@click.option("-o", "--output", "report", metavar="FILE", type=click.Path(dir_okay=False),
              help="The HTML report; default: <name>-report.html here, none with json and csv.")  # fmt: skip
@FORMAT
@TABLE
@SAVE
def compare(
    target: str,
    method: str,
    engine: str,
    priors: tuple[str, ...],
    draws: int,
    seed: int | None,
    report: str | None,
    form: Format,
    table: str | None,
    save: str | None,
    matrix: tuple[str, ...],
    **model: str | None,
) -> None:
    """Fit one model both ways and explain the difference.

    NAME is a model of the catalogue (milk, sitka/slopes; see "hierlmm
    models"), FILE a table: CSV, Parquet or Stata, with --formula.

    \b
    hierlmm compare milk
    hierlmm compare trees.csv --formula 'size ~ Time + (Time | tree)'
    hierlmm compare areas.csv --formula 'y ~ x' \\
        --sampling-variance D --area name -o areas.html
    """
    if (case := compound.case_of(target)) is not None:
        compound.check_plain(model, matrix, report)
        _check_table(table, form, compound.COMPARISON_TABLES)
        _check_writable(save)
        found = compound.compared(case, method, engine, priors, draws, seed)
        output.show(found, form, table, compound.about(target, case))
        _save(found, save)
        return
    _check_table(table, form, output.COMPARISON_TABLES)
    path = recipe.report_path(target, report, form)
    _check_writable(path, save)
    model_of = subject(target, Choices(**model), matrix)
    result, seed = _compared(model_of, method, engine, priors, draws, seed)
    output.show(result, form, table, recipe.about(model_of))
    if path is not None:
        told = recipe.Settings(method=method, engine=engine, priors=priors, draws=draws, seed=seed)
        with step("Writing the report"):
            from hierlmm.report.html import write

            write(result, path, command=recipe.command(model_of, told, path), code=recipe.code(model_of, told, path))
        click.echo(f"Report: {path}", err=True)
    _save(result, save)


@click.command()
@TARGET
@model_options
@METHOD
@click.option("-o", "--output", "report", metavar="FILE", type=click.Path(dir_okay=False),
              help="Of areas: an HTML report or an Excel workbook, by the ending.")  # fmt: skip
@FORMAT
@TABLE
@SAVE
def fit(
    target: str,
    method: str,
    report: str | None,
    form: Format,
    table: str | None,
    save: str | None,
    matrix: tuple[str, ...],
    **model: str | None,
) -> None:
    """Fit a model and print it.

    NAME and FILE as in "hierlmm compare".

    \b
    hierlmm fit sitka/slopes
    hierlmm fit lip-cancer
    hierlmm fit milk --method fh --output milk.xlsx
    """
    if (case := compound.case_of(target)) is not None:
        compound.check_plain(model, matrix, report)
        _check_table(table, form, compound.FIT_TABLES)
        _check_writable(save)
        found = compound.fitted(case, method)
        output.show(found, form, table, compound.about(target, case))
        _save(found, save)
        return
    _check_table(table, form, output.FIT_TABLES)
    _check_writable(report, save)
    model_of = subject(target, Choices(**model), matrix)
    _check_report(model_of, report)
    with step(f"Fitting by {method.upper()}"):
        from hierlmm.frequentist.methods import fit as fitted

        result = cast("LMMFit | AreaFit", fitted(model_of.spec, model_of.data, method, matrices=model_of.matrices))
    output.show(result, form, table, recipe.about(model_of))
    if report is not None:
        with step("Writing the report"):
            _write_area(cast("AreaFit", result), model_of, method, Path(report))
        click.echo(f"Report: {report}", err=True)
    _save(result, save)


@click.command()
@FORMAT
def models(form: Format) -> None:
    """List the catalogue."""
    from hierlmm.catalogue import models as listing

    output.show_models(listing(), form)


def _compared(
    model_of: Subject, method: str, engine: str, priors: tuple[str, ...], draws: int, seed: int | None
) -> tuple[Any, int]:
    """The comparison, from one reading of the table, and the seed of its draws."""
    with step(f"Fitting by {method.upper()}"):
        from hierlmm.bayes.engines import of_design
        from hierlmm.bayes.priors import priors_from
        from hierlmm.design import build
        from hierlmm.frequentist.methods import fit_design

        given = priors_from(priors or None)
        design = build(model_of.spec, model_of.data, model_of.matrices)
        one = fit_design(design, method)
    how = "Integrating the posterior" if engine == "integrate" else "Sampling the posterior"
    with step(how):
        two = of_design(design, given.resolve(design), cast("Literal['integrate', 'nuts']", engine), draws, seed)
    with step("Comparing, and under other priors"):
        from hierlmm.compare import compare as compared

        return compared(one, two), two.seed


def _check_table(table: str | None, form: Format, known: tuple[str, ...]) -> None:
    if table is not None and form != "csv":
        raise click.UsageError("--table chooses what --format csv prints; leave it out, or add --format csv.")
    if table is not None and table not in known:
        raise click.UsageError(f"--table is one of {', '.join(known)}; found {table!r}.")


def _check_report(model_of: Subject, path: str | None) -> None:
    """Refuse reports of what has none of its own, and files of another kind."""
    if path is None:
        return
    if not model_of.spec.is_area_level:
        raise click.UsageError(
            "--output writes reports of area-level models; hierlmm compare writes those of mixed models."
        )
    if Path(path).suffix.lower() not in (".html", ".xlsx"):
        raise click.UsageError(f"--output is an HTML report or an Excel workbook, .html or .xlsx; found {path!r}.")


def _write_area(fit: AreaFit, model_of: Subject, method: str, path: Path) -> None:
    if path.suffix.lower() == ".xlsx":
        fit.to_excel(path)
        return
    from hierlmm.report.area_page import write_area

    told = recipe.fit_command(model_of, method, path)
    write_area(fit, path, command=told, code=recipe.fit_code(model_of, method, path))


def _check_writable(*paths: str | Path | None) -> None:
    """Refuse before the work what could not be written after it."""
    for path in paths:
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise click.UsageError(f"The directory of {str(path)!r} must exist; it does not. Create it first.")


def _save(result: Any, path: str | None) -> None:
    if path is None:
        return
    from hierlmm.saving import save

    save(result, path)
    click.echo(f"Saved: {path}", err=True)
