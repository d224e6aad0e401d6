"""`python tests/benchmarks/large.py [CASE ...]`: large fits against mixedlm and lme4 in the same run, time and memory.

mixedlm is called with standard errors and BLUPs, and once more with the conditional variances of the BLUPs, which
hierlmm's fit contains. Memory is the peak of a fresh process during its first fit, over what the interpreter held
with table and imports loaded (Linux only).
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import peers
from timing import medians, table

import hierlmm as hl

INSTEVAL = Path(__file__).parents[1] / "data" / "InstEval.csv.gz"


def nested() -> pd.DataFrame:
    """31,000 rows of 2,400 classes in 131 schools."""
    rng = np.random.default_rng(1)
    n, classes, schools = 31_000, 2_400, 131
    school_of = np.sort(rng.integers(0, schools, classes))
    klass = rng.integers(0, classes, n)
    x = rng.normal(size=n)
    effects = rng.normal(0, 0.7, schools)[school_of[klass]] + rng.normal(0, 0.5, classes)[klass]
    y = 1 + 0.4 * x + effects + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "school": school_of[klass] + 1, "klass": klass + 1})


def million() -> pd.DataFrame:
    """A million rows of 10,000 groups with correlated slopes."""
    rng = np.random.default_rng(2)
    n, G = 1_000_000, 10_000
    g = rng.integers(0, G, n)
    b = rng.multivariate_normal([0, 0], [[1.0, 0.3], [0.3, 0.5]], G)
    x = rng.normal(size=n)
    return pd.DataFrame({"y": 2 + x + b[g, 0] + b[g, 1] * x + rng.normal(size=n), "x": x, "g": g})


def insteval() -> pd.DataFrame:
    """Lecture ratings at ETH Zürich (lme4's InstEval): 73,421 rows, 2,972 students, 1,128 lecturers, 14 departments."""
    return pd.read_csv(INSTEVAL)


CASES: dict[str, tuple[Callable[[], pd.DataFrame], str, list[str], int]] = {
    "nested 31k": (nested, "y ~ x + (1 | school) + (1 | klass)", ["school", "klass"], 9),
    "InstEval": (insteval, "y ~ service + (1 | s) + (1 | d) + (1 | dept)", ["s", "d", "dept"], 5),
    "InstEval dept:service": (
        insteval,
        "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)",
        ["s", "d", "dept", "service"],
        5,
    ),
    "1e6 rows slopes": (million, "y ~ x + (x | g)", ["g"], 5),
}

MEMORY = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {here!r})
import large
if {who!r} == "hierlmm":
    import hierlmm as hl
    from scipy.linalg import lapack
    call = lambda: hl.fit(hl.lmm({formula!r}), data)
else:
    import mixedlm
    def call():
        fit = mixedlm.lmer({formula!r}, data)
        return fit.ranef(condVar=False), fit.vcov()
data = large.CASES[{case!r}][0]()
def held(key):
    return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) / 1024
open("/proc/self/clear_refs", "w").write("5")
before = held("VmRSS")
result = call()
print(held("VmHWM") - before)
"""


def memory(case: str, who: str) -> float:
    """Peak MB of one fit in a process of its own."""
    script = MEMORY.format(here=str(Path(__file__).parent), who=who, formula=CASES[case][1], case=case)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def main() -> None:
    """Print times, ratios and peak memory of the cases named on the command line, or of all."""
    warnings.simplefilter("ignore")
    rows, peaks = {}, {}
    for case in sys.argv[1:] or CASES:
        make, formula, factors, rounds = CASES[case]
        data = make()
        alternatives: dict[str, Callable[[], object]] = {
            "hierlmm": lambda formula=formula, data=data: hl.fit(hl.lmm(formula), data)
        }
        for condvar in (False, True):
            call = peers.mixedlm(formula, data, condvar=condvar)
            if call is not None and (not condvar or not case.startswith("InstEval")):
                alternatives["mixedlm condVar" if condvar else "mixedlm"] = call
        rows[case] = medians(alternatives, rounds, warm_up=1)
        seconds = peers.lme4(formula, data, factors, 1, once=True)
        if seconds is not None:
            rows[case]["lme4"] = seconds
        peaks[case] = {who: memory(case, who) for who in ("hierlmm", "mixedlm")}
    print(table("Fit from data frame and formula, REML, with standard errors and BLUPs", rows))
    print(table("Peak memory over interpreter, imports and table", peaks, unit="MB", scale=1.0))


if __name__ == "__main__":
    main()
