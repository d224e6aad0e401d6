"""`OMP_NUM_THREADS=1 python tests/benchmarks/intervals.py`: intervals of every parameter, by profile and by bootstrap.

R's times are those of confint(), bootMer() and clubSandwich, inside R; they are left out where R or the package is
missing.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from timing import medians, table

import hierlmm as hl

CASES = {
    "sleepstudy slopes": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", ["Subject"]),
    "Penicillin": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", ["plate", "sample"]),
    "Sitka, treatment": ("sitka", "size ~ Time * treat + (1 | tree)", ["tree"]),
}
DRAWS, R_DRAWS, ROUNDS = 1000, 40, 9
TARGET_MS = 100.0

R_SCRIPT = """
suppressMessages(library(lme4)); options(warn = -1)
d <- read.csv("{folder}/data.csv"); for (f in c({factors})) d[[f]] <- factor(d[[f]])
m <- suppressMessages(lmer({formula}, d))
s <- function(e) {{ t <- proc.time()[["elapsed"]]; suppressMessages(force(e)); proc.time()[["elapsed"]] - t }}
cat(s(confint(m, quiet = TRUE)), "\\n")
cat(s(bootMer(m, function(x) c(fixef(x), getME(x, "theta")), nsim = {draws}, seed = 1)) / {draws}, "\\n")
if (requireNamespace("clubSandwich", quietly = TRUE) && length(c({factors})) == 1)
  cat(s(clubSandwich::coef_test(m, vcov = "CR2", test = "Satterthwaite")), "\\n")
"""


def by_r(formula: str, data: object, factors: list[str]) -> list[float]:
    """Seconds of a profile, of one bootstrap replicate, and of CR2 with its degrees of freedom; what R can do of it."""
    if shutil.which("Rscript") is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        data.to_csv(Path(folder) / "data.csv", index=False)  # type: ignore[attr-defined]
        names = ", ".join(f'"{name}"' for name in factors)
        script = R_SCRIPT.format(folder=folder, factors=names, formula=formula, draws=R_DRAWS)
        done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=False)
    return [float(line) for line in done.stdout.split()] if done.returncode == 0 else []


def main() -> None:
    """Print milliseconds, and whether the profile of the sleepstudy slopes is under its target."""
    rows, notes = {}, []
    for name, (model, formula, factors) in CASES.items():
        data = hl.load(model).data.dropna().reset_index(drop=True)
        fit = hl.fit(hl.lmm(formula), data)
        calls = {
            "profile": fit.confint,
            "bootstrap": lambda fit=fit: fit.bootstrap(draws=DRAWS, seed=1),
            "observed": lambda fit=fit: fit.information("observed"),
        }
        if len(factors) == 1:
            calls["CR2"] = fit.robust
        ours = medians(calls, ROUNDS)
        theirs = by_r(formula, data, factors)
        ours["bootstrap"] /= DRAWS
        for key, seconds in zip(("profile", "bootstrap", "CR2"), theirs, strict=False):
            rows[f"{name}, {key}"] = {"hierlmm": ours[key], "R": seconds}
        for key, seconds in ours.items():
            rows.setdefault(f"{name}, {key}", {"hierlmm": seconds})
        if name.startswith("sleepstudy"):
            found = ours["profile"] * 1e3
            met = "met" if found < TARGET_MS else "MISSED"
            notes.append(f"profile intervals of the sleepstudy slopes: {found:.0f} ms ({met}: {TARGET_MS:.0f} ms)")
    print(table("Intervals; a bootstrap per replicate", rows))
    print(*notes, sep="\n")


if __name__ == "__main__":
    main()
