"""`OMP_NUM_THREADS=1 python tests/benchmarks/bootstrap_lrt.py`: parametric-bootstrap likelihood ratios, 1,000 each.

The target is the politeness data, under 5 s for 1,000 replicates on two cores; pbkrtest 0.5.2 beside it where R has it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pandas as pd
from timing import medians

import hierlmm as hl

POLITE = "frequency ~ {} + (1 | subject) + (1 | scenario)"
CASES = {
    "politeness attitude": ("politeness", POLITE.format("gender"), POLITE.format("attitude + gender"), "ml"),
    "politeness scenario": ("politeness", "frequency ~ attitude + gender + (1 | subject)",
                            POLITE.format("attitude + gender"), "reml"),
    "Sitka treat": ("sitka", "size ~ Time + (1 | tree)", "size ~ Time * treat + (1 | tree)", "ml"),
    "sleepstudy slopes": ("sleepstudy", "Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days | Subject)",
                          "reml"),
}  # fmt: skip
DRAWS, ROUNDS, TARGET, R_DRAWS = 1000, 5, 5.0, 50

R_SCRIPT = """
suppressMessages({{library(lme4); library(pbkrtest)}}); options(warn = -1)
d <- read.csv("{folder}/data.csv"); for (f in c("subject", "scenario")) d[[f]] <- factor(d[[f]])
a <- lmer({alternative}, d, REML = FALSE); n <- lmer({null}, d, REML = FALSE)
t <- proc.time()[["elapsed"]]; suppressMessages(PBmodcomp(a, n, nsim = {draws}))
cat((proc.time()[["elapsed"]] - t) / {draws})
"""


def pbkrtest(data: pd.DataFrame, null: str, alternative: str) -> float | None:
    """Seconds a replicate of PBmodcomp, timed inside R; None where R or the package is missing."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        data.to_csv(Path(folder) / "data.csv", index=False)
        script = R_SCRIPT.format(folder=folder, null=null, alternative=alternative, draws=R_DRAWS)
        done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def main() -> None:
    """Print seconds for 1,000 replicates, and whether politeness meets its target."""
    for name, (model, null, alternative, method) in CASES.items():
        data = hl.load(model).data
        small, large = (hl.fit(hl.lmm(formula), data, method=method) for formula in (null, alternative))
        start = time.perf_counter()
        found = hl.bootstrap_lrt(small, large, DRAWS, seed=1)
        cold = time.perf_counter() - start
        run = {"run": lambda small=small, large=large: hl.bootstrap_lrt(small, large, DRAWS, seed=1)}
        seconds = medians(run, ROUNDS, warm_up=0)["run"]
        print(f"{name}: {DRAWS} replicates {seconds:.3f} s (first {cold:.3f} s), p {found.p:.4g}, "
              f"{found.failures} failed")  # fmt: skip
        if name == "politeness attitude":
            print(f"  {'met' if seconds < TARGET else 'MISSED'}: under {TARGET:.0f} s")
            if (each := pbkrtest(data, null, alternative)) is not None:
                print(f"  pbkrtest: {1000 * each:.1f} s for 1,000, {DRAWS * each / seconds:.0f} times as long")


if __name__ == "__main__":
    main()
