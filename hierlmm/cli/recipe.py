"""How a result is had again: the command and the Python lines that a report prints at its end."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hierlmm.cli.datafile import PYTHON
from hierlmm.cli.subject import Subject

# Longest name of a report, without its ending; file systems stop at 255 bytes.
NAME = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the two results were computed: the options of compare, with the seed that was used."""

    method: str
    engine: str
    priors: tuple[str, ...]
    draws: int
    seed: int


def report_path(target: str, chosen: str | None, form: str) -> Path | None:
    """Where the report goes: where it was asked for, else here under the name of the target; none beside data."""
    if chosen is not None:
        return Path(chosen)
    if form != "text":
        return None
    name = target if not Path(target).suffix else Path(target).stem
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")[:NAME]
    return Path(f"{plain or 'hierlmm'}-report.html")


def about(subject: Subject) -> dict[str, Any]:
    """What the tables of a result were computed from."""
    return {"target": subject.target, "formula": subject.spec.formula, "spec": subject.spec.to_toml()}


def command(subject: Subject, told: Settings, path: Path) -> str:
    """The command line, with the seed that was used, quoted for a shell."""
    words = ["hierlmm", "compare", subject.target]
    for name, value in subject.choices.given().items():
        words += [f"--{name.replace('_', '-')}", value]
    words += [] if told.method == "reml" else ["--method", told.method]
    words += [] if told.engine == "integrate" else ["--engine", told.engine]
    for prior in told.priors:
        words += ["--prior", prior]
    words += [] if told.draws == 4000 else ["--draws", str(told.draws)]
    return shlex.join([*words, "--seed", str(told.seed), "--output", str(path)])


def code(subject: Subject, told: Settings, path: Path) -> str:
    """Lines of Python that give the same results and report."""
    lines = ["import hierlmm as hl"]
    if subject.file is None:
        lines += ["", f"case = hl.load({subject.target!r})", "data = case.data"]
    else:
        reader = PYTHON[subject.file.suffix.lower()].format(path=repr(str(subject.file)))
        lines += ["import pandas as pd", "", f"data = {reader}"]
    lines.append(f"spec = {_spec(subject)}")
    options = [f"engine={told.engine!r}", f"draws={told.draws}", f"seed={told.seed}"]
    options = ([f"priors={list(told.priors)!r}"] if told.priors else []) + options
    return "\n".join(
        [
            *lines,
            f"fit = hl.fit(spec, data, method={told.method!r})",
            f"posterior = hl.posterior(spec, data, {', '.join(options)})",
            "comparison = hl.compare(fit, posterior)",
            f"comparison.report({str(path)!r})",
        ]
    )


def _spec(subject: Subject) -> str:
    """The spec as Python: the catalogue's, or the constructor with its arguments."""
    from hierlmm.spec.table import to_mapping

    if subject.file is None and not subject.choices.given():
        return "case.spec"
    table = to_mapping(subject.spec)
    kind, formula = table.pop("kind"), table.pop("formula")
    arguments = [repr(formula), *(f"{name}={value!r}" for name, value in table.items())]
    return f"hl.{kind}({', '.join(arguments)})"
