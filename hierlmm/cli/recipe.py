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
    words = ["hierlmm", "compare", *_model_words(subject, told.method)]
    words += [] if told.engine == "integrate" else ["--engine", told.engine]
    for prior in told.priors:
        words += ["--prior", prior]
    words += [] if told.draws == 4000 else ["--draws", str(told.draws)]
    return shlex.join([*words, "--seed", str(told.seed), "--output", str(path)])


def fit_command(subject: Subject, method: str, path: Path) -> str:
    """The command line of a fit and its report."""
    return shlex.join(["hierlmm", "fit", *_model_words(subject, method), "--output", str(path)])


def _model_words(subject: Subject, method: str) -> list[str]:
    """The model and how it is fitted, as options."""
    words = [subject.target]
    for name, value in subject.choices.given().items():
        words += [f"--{name.replace('_', '-')}", value]
    for name, file in subject.matrix_files.items():
        words += ["--matrix", f"{name}={file}"]
    return words + ([] if method == "reml" else ["--method", method])


def _model_lines(subject: Subject) -> list[str]:
    """Lines of Python that make `data`, `spec` and, where there are any, `matrices`."""
    lines = ["import hierlmm as hl"]
    if subject.file is None:
        lines += ["", f"case = hl.load({subject.target!r})", "data = case.data"]
    else:
        lines += ["import pandas as pd", "", f"data = {_reader(subject.file)}"]
    lines.append(f"spec = {_spec(subject)}")
    if subject.matrix_files:
        read = (f"    {name!r}: {_reader(file)}," for name, file in subject.matrix_files.items())
        lines += ["matrices = {", *read, "}"]
    return lines


def _handed_on(subject: Subject) -> str:
    return ", matrices=matrices" if subject.matrix_files else ""


def fit_code(subject: Subject, method: str, path: Path) -> str:
    """Lines of Python that give the same fit and report."""
    fitted = f"fit = hl.fit(spec, data, method={method!r}{_handed_on(subject)})"
    return "\n".join([*_model_lines(subject), fitted, f"fit.report({str(path)!r})"])


def code(subject: Subject, told: Settings, path: Path) -> str:
    """Lines of Python that give the same results and report."""
    more = _handed_on(subject)
    options = [f"engine={told.engine!r}", f"draws={told.draws}", f"seed={told.seed}"]
    options = ([f"priors={list(told.priors)!r}"] if told.priors else []) + options
    return "\n".join(
        [
            *_model_lines(subject),
            f"fit = hl.fit(spec, data, method={told.method!r}{more})",
            f"posterior = hl.posterior(spec, data, {', '.join(options)}{more})",
            "comparison = hl.compare(fit, posterior)",
            f"comparison.report({str(path)!r})",
        ]
    )


def _reader(file: Path) -> str:
    return PYTHON[file.suffix.lower()].format(path=repr(str(file)))


def _spec(subject: Subject) -> str:
    """The spec as Python: the catalogue's, or the constructor with its arguments."""
    from hierlmm.spec.table import to_mapping

    if subject.file is None and not subject.choices.given():
        return "case.spec"
    table = to_mapping(subject.spec)
    kind, formula = table.pop("kind"), table.pop("formula")
    parts = {"transformation": subject.spec.transformation, "area_effects": subject.spec.area_effects}
    texts = {name: f"hl.{parts[name]!r}" if name in parts else repr(value) for name, value in table.items()}
    arguments = [repr(formula), *(f"{name}={text}" for name, text in texts.items())]
    return f"hl.{kind}({', '.join(arguments)})"
