"""The same fits by other programs, each from data frame and formula to a result with standard errors and BLUPs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd

LME4 = """
suppressMessages(library(lme4))
d <- read.csv("{csv}"); for (f in c({factors})) d[[f]] <- factor(d[[f]])
one <- function() {{ m <- lmer({formula}, d); list(summary(m), ranef(m, condVar = TRUE)) }}
now <- function() proc.time()[["elapsed"]]
if ({once}) {{ t <- now(); one(); cat(now() - t); quit() }}
for (i in 1:3) one()
cat(median(sapply(1:{rounds}, function(i) {{ t <- now(); for (k in 1:5) one(); (now() - t) / 5 }})))
"""


def mixedlm(formula: str, data: pd.DataFrame, condvar: bool = True) -> Callable[[], object] | None:
    """mixedlm (Rust): fit, standard errors, BLUPs, with their conditional variances where `condvar`."""
    if importlib.util.find_spec("mixedlm") is None:
        return None
    import mixedlm as peer

    def call() -> object:
        fit = peer.lmer(formula, data)
        return fit.ranef(condVar=condvar), fit.vcov()

    return call


def statsmodels(formula: str, data: pd.DataFrame) -> Callable[[], object] | None:
    """statsmodels MixedLM, for one grouping factor."""
    bars = re.findall(r"\(([^|()]+)\|([^|()]+)\)", formula)
    if importlib.util.find_spec("statsmodels") is None or len(bars) != 1:
        return None
    import statsmodels.formula.api as smf

    fixed = re.split(r"\+\s*\(", formula)[0]

    def call() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = smf.mixedlm(fixed, data, groups=data[bars[0][1].strip()], re_formula=f"~{bars[0][0]}")
            fit = model.fit(reml=True)
            return fit.bse, fit.random_effects

    return call


def lme4(formula: str, data: pd.DataFrame, factors: list[str], rounds: int, once: bool = False) -> float | None:
    """lme4 in R: seconds a call, median, timed inside R without its start; None where R or lme4 is missing.

    once  for fits of many seconds: one call, without warm-up
    """
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "data.csv"
        data.to_csv(csv, index=False)
        names = ", ".join(f'"{name}"' for name in factors)
        script = LME4.format(csv=csv, factors=names, formula=formula, rounds=rounds, once="TRUE" if once else "FALSE")
        done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None
