"""`OMP_NUM_THREADS=1 python tests/benchmarks/refit.py`: a new response for the same rows, many at once and singly.

The responses are simulated from the fit, the same for every program, so that some of them have singular answers.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd
from timing import medians, table

import hierlmm as hl

CASES = {
    "sleepstudy slopes": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", ["Subject"]),
    "Penicillin": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", ["plate", "sample"]),
    "Sitka slopes": ("sitka", "size ~ Time + (Time | tree)", ["tree"]),
}
RESPONSES, ROUNDS, SINGLE = 1000, 9, 40
TARGET = 100.0

R_SCRIPT = """
suppressMessages(library(lme4)); options(warn = -1)
d <- read.csv("{folder}/data.csv"); for (f in c({factors})) d[[f]] <- factor(d[[f]])
Y <- as.matrix(read.csv("{folder}/responses.csv"))
m <- suppressMessages(lmer({formula}, d))
one <- function(i) {{ t <- proc.time()[["elapsed"]]
  suppressMessages(for (k in 1:5) refit(m, Y[, i])); (proc.time()[["elapsed"]] - t) / 5 }}
for (i in 1:3) one(i)
cat(median(sapply(1:{rounds}, one)))
"""


def lme4(formula: str, data: pd.DataFrame, responses: pd.DataFrame, factors: list[str]) -> float | None:
    """lme4's refit: seconds a response, median over responses, timed inside R; None where R or lme4 is missing."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        data.to_csv(Path(folder) / "data.csv", index=False)
        responses.to_csv(Path(folder) / "responses.csv", index=False)
        names = ", ".join(f'"{name}"' for name in factors)
        script = R_SCRIPT.format(folder=folder, factors=names, formula=formula, rounds=min(SINGLE, responses.shape[1]))
        done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def main() -> None:
    """Print times per response, how many answers are singular, and whether lme4's refit takes 100 times as long."""
    warnings.simplefilter("ignore")
    rows, notes = {}, []
    for name, (model, formula, factors) in CASES.items():
        data = hl.load(model).data.dropna().reset_index(drop=True)
        fit = hl.fit(hl.lmm(formula), data)
        responses = fit.simulate(RESPONSES, seed=1)
        Y = responses.to_numpy()
        start = time.perf_counter()
        first = fit.refits(Y)
        cold = time.perf_counter() - start
        many = medians({"refits": lambda fit=fit, Y=Y: fit.refits(Y)}, ROUNDS)["refits"]
        single = medians({str(i): lambda fit=fit, y=Y[:, i]: fit.refit(y) for i in range(SINGLE)}, 1)
        rows[name] = {"refits": many / RESPONSES, "refit": pd.Series(single).median()}
        note = (
            f"{name}: {RESPONSES} refits {many:.4f} s (first call {cold:.4f} s), {int(first.singular.sum())} singular"
        )
        if (seconds := lme4(formula, data, responses, factors)) is not None:
            rows[name]["lme4 refit"] = seconds
            ratio = seconds / rows[name]["refits"]
            note += f", lme4's refit {ratio:.0f} times ({'met' if ratio >= TARGET else 'MISSED'}: {TARGET:.0f})"
        notes.append(note)
    print(table(f"A new response, per response; {RESPONSES} at once, and one by one", rows))
    print(*notes, sep="\n")


if __name__ == "__main__":
    main()
