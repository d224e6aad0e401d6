"""`python tests/benchmarks/fit.py`: whole fits from data frame and formula, against peers in the same run."""

from __future__ import annotations

import subprocess
import sys
import warnings

import peers
from timing import medians, table

import hierlmm as hl

CASES = {
    "sleepstudy slopes": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", ["Subject"]),
    "politeness": (
        "politeness",
        "frequency ~ attitude + gender + (1 | subject) + (1 | scenario)",
        ["subject", "scenario"],
    ),
    "Penicillin": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", ["plate", "sample"]),
    "Sitka slopes": ("sitka", "size ~ Time + (Time | tree)", ["tree"]),
}
ROUNDS = 25


COLD = """
import time, warnings
warnings.simplefilter("ignore")
import hierlmm as hl
data = hl.load({model!r}).data.dropna().reset_index(drop=True)
start = time.perf_counter()
hl.fit(hl.lmm({formula!r}), data)
print(time.perf_counter() - start)
"""


def cold(model: str, formula: str) -> float:
    """Seconds of the first fit of a process, whose lazy imports it pays; nothing is compiled."""
    code = COLD.format(model=model, formula=formula)
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print the table; a peer that is not installed is left out."""
    warnings.simplefilter("ignore")
    rows, first = {}, {}
    for name, (model, formula, factors) in CASES.items():
        data = hl.load(model).data.dropna().reset_index(drop=True)
        alternatives = {"hierlmm": lambda formula=formula, data=data: hl.fit(hl.lmm(formula), data)}
        for peer in (peers.mixedlm, peers.statsmodels):
            call = peer(formula, data)
            if call is not None:
                alternatives[peer.__name__] = call
        row = medians(alternatives, ROUNDS)
        seconds = peers.lme4(formula, data, factors, ROUNDS)
        if seconds is not None:
            row["lme4"] = seconds
        rows[name] = row
        first[name] = {"hierlmm": cold(model, formula)}
    print(table("First fit of a process", first))
    print(table("Fit from data frame and formula, REML, with standard errors and BLUPs", rows))


if __name__ == "__main__":
    main()
