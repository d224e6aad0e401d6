"""The commands on compound models of the catalogue: hierlmm fit lip-cancer, hierlmm compare baseball/hits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from hierlmm import catalogue
from hierlmm.cli.progress import step
from hierlmm.spec.compound import CompoundSpec

if TYPE_CHECKING:
    from hierlmm.compare.compound import CompoundComparison
    from hierlmm.frequentist.compound.results import CompoundFit

FIT_TABLES = ("hyperparameters", "units")
COMPARISON_TABLES = ("table", "attribution", "variance")


def case_of(target: str) -> catalogue.Case | None:
    """The catalogue's entry where the target names a compound model of it."""
    if target.partition("/")[0] not in catalogue.names() or Path(target).suffix:
        return None
    case = catalogue.load(target)
    return case if isinstance(case.spec, CompoundSpec) else None


def check_plain(model: dict[str, Any], matrix: tuple[str, ...], report: str | None) -> None:
    """Refuse options that compound models have not."""
    given = [name for name, value in model.items() if value is not None] + ["matrix"] * bool(matrix)
    given += ["output"] * (report is not None)
    if given:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(
            f"A compound model of the catalogue is fitted as it stands and has no report file; found {flags}. State "
            "another model in Python, with hierlmm.compound(...)."
        )


def fitted(case: catalogue.Case, method: str) -> CompoundFit:
    """The fit by a method; "reml", the default of the command, is "ml" for counts."""
    from hierlmm.frequentist.methods import fit

    spec = cast("CompoundSpec", case.spec)
    chosen = None if method == "reml" else method
    with step("Estimating the prior"):
        return fit(spec, case.data, chosen)


def compared(
    case: catalogue.Case, method: str, engine: str, priors: tuple[str, ...], draws: int, seed: int | None
) -> CompoundComparison:
    """Fit and posterior of the entry, compared."""
    from hierlmm.bayes.engines import posterior
    from hierlmm.compare import compare

    spec = cast("CompoundSpec", case.spec)
    one = fitted(case, method)
    with step("Integrating the posterior" if engine == "integrate" else "Sampling the posterior"):
        chosen = cast("Literal['integrate', 'nuts']", engine)
        two = posterior(spec, case.data, priors or None, chosen, draws, seed)
    with step("Comparing, and under other priors"):
        return compare(one, two)


def about(target: str, case: catalogue.Case) -> dict[str, Any]:
    """What the tables of a result were computed from."""
    return {"target": target, "formula": case.spec.formula, "spec": case.spec.to_toml()}
