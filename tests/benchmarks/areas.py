"""`OMP_NUM_THREADS=1 python tests/benchmarks/areas.py`: Fay-Herriot fits with mean squared errors, and bootstraps.

Beside them run a script of our own in R that does what small-area programs there do, with dense m x m matrices
(`dense_fay_herriot.R`: a stand-in, since the packages themselves are not on every machine), and the Python packages
samplics and svy-sae where the interpreter named by PEERS_PYTHON (default: this one) has them. A peer is left out where
it would take minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
from timing import medians, table

import hierlmm as hl
from hierlmm.design import build
from hierlmm.frequentist.methods import fit_design
from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.likelihood.area.many import estimate_many, predict_many

SPEC = hl.fay_herriot("y ~ x0 + x1 + x2 + x3", sampling_variance="D", area="area")
SIZES = {40: 201, 1_000: 51, 100_000: 5}
# Largest problem given to a program that forms m x m matrices.
DENSE = 1_000
REPLICATES, BOOTSTRAP_AREAS = 1_000, 500
TARGET = 20.0
# Seconds allowed to a peer, start and warm-up included.
PATIENCE = 120

PEERS = {
    "samplics": """
from samplics.sae import EblupAreaModel
from samplics.utils.types import FitMethod
X = d[["x0", "x1", "x2", "x3"]].to_numpy()
def call():
    model = EblupAreaModel(FitMethod.reml)
    model.fit(yhat=d.y.to_numpy(), X=X, area=d.area.to_numpy(), error_std=d.D.to_numpy() ** 0.5, intercept=True)
    model.predict(X=X, area=d.area.to_numpy(), intercept=True)
""",
    "svy-sae": """
import polars, svy_sae
p = polars.DataFrame({name: d[name].to_numpy() for name in d if name != "area"} | {"area": d.area.to_list()})
def call():
    svy_sae.AreaLevel(p).fh("y", x=["x0", "x1", "x2", "x3"], area="area", variance="D")
""",
}
TIMED = """
import statistics, sys, time, warnings
warnings.simplefilter("ignore")
import pandas as pd
d = pd.read_csv(sys.argv[1])
{call}
times = []
for k in range(int(sys.argv[2]) + 2):
    start = time.perf_counter()
    call()
    times.append(time.perf_counter() - start)
print("seconds", statistics.median(times[2:]))
"""


def areas(m: int) -> pd.DataFrame:
    """m areas with four covariates; area variance 1, sampling variances from 0.3 to 3."""
    rng = np.random.default_rng(m)
    X, D = rng.normal(size=(m, 4)), rng.uniform(0.3, 3, m)
    y = 1 + X @ [0.5, -1, 0.3, 2] + rng.normal(size=m) * np.sqrt(1 + D)
    return pd.DataFrame({"area": [f"a{i}" for i in range(m)], "y": y, "D": D} | {f"x{j}": X[:, j] for j in range(4)})


def dense_r(csv: Path, rounds: int) -> tuple[float, float] | None:
    """Seconds a call of the stand-in in R from arrays and from a formula; None where R is missing."""
    if shutil.which("Rscript") is None:
        return None
    script = Path(__file__).with_name("dense_fay_herriot.R")
    done = subprocess.run(["Rscript", script, csv, str(rounds)], capture_output=True, text=True, check=False)
    return tuple(map(float, done.stdout.split())) if done.returncode == 0 else None


def peer(name: str, csv: Path, rounds: int) -> float | None:
    """Seconds a call of a Python package; None where it is missing, fails, or takes too long."""
    interpreter = os.environ.get("PEERS_PYTHON", sys.executable)
    code = TIMED.format(call=PEERS[name])
    command = [interpreter, "-c", code, csv, str(rounds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return None
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("seconds")]
    return float(found[0]) if done.returncode == 0 and found else None


def fits() -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Times from a prepared design and from data frame and formula, with those of peers beside."""
    prepared, whole = {}, {}
    for m, rounds in SIZES.items():
        data = areas(m)
        design = build(SPEC, data)
        name = f"{m:,} areas"
        times = medians(
            {"arrays": lambda design=design: fit_design(design, "reml"), "all": lambda data=data: hl.fit(SPEC, data)},
            rounds,
        )
        prepared[name], whole[name] = {"hierlmm": times["arrays"]}, {"hierlmm": times["all"]}
        if m > DENSE:
            continue
        with tempfile.TemporaryDirectory() as folder:
            csv = Path(folder) / "areas.csv"
            data.to_csv(csv, index=False)
            if (found := dense_r(csv, 9 if m < DENSE else 3)) is not None:
                prepared[name]["dense R"], whole[name]["dense R"] = found
            for package in PEERS:
                if (seconds := peer(package, csv, 5 if m < DENSE else 1)) is not None:
                    whole[name][package] = seconds
    return prepared, whole


def bootstrap() -> dict[str, dict[str, float]]:
    """1,000 replicates of 500 areas: area variance, coefficients and estimates of each, by every estimator."""
    data = areas(BOOTSTRAP_AREAS)
    design = build(SPEC, data)
    y = hl.fit(SPEC, data).simulate(REPLICATES, seed=1).to_numpy().T

    def refits(method: str) -> None:
        found = estimate_many(method, y, design.X, design.D)
        predict_many(found.A, y, design.X, design.D)

    times = medians({method: lambda method=method: refits(method) for method in ESTIMATORS}, 3, warm_up=1)
    rows = {f"estimates by {method}": {"hierlmm": seconds} for method, seconds in times.items()}
    fit = hl.fit(SPEC, data)
    start = time.perf_counter()
    fit.mean_squared_error("bootstrap", replicates=REPLICATES, seed=1)
    return rows | {"mean squared errors": {"hierlmm": time.perf_counter() - start}}


def memory(m: int) -> float:
    """Peak of memory of a prepared fit, bytes an area."""
    design = build(SPEC, areas(m))
    fit_design(design, "reml")
    tracemalloc.start()
    fit_design(design, "reml")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / m


def main() -> None:
    """Print the tables, and how the goals came out."""
    prepared, whole = fits()
    print(table("Fit with mean squared errors, prepared design, REML", prepared))
    print(table("The same from data frame and formula", whole))
    rows = bootstrap()
    print(table(f"{REPLICATES:,} replicates of {BOOTSTRAP_AREAS} areas", rows))
    print("Peak memory of a fit, bytes an area: " + ", ".join(f"{memory(m):.0f} of {m:,}" for m in (1_000, 100_000)))
    for name, row in prepared.items():
        if "dense R" in row:
            ratio = row["dense R"] / row["hierlmm"]
            print(f"{name}: 1/{ratio:.0f} of the dense script's time, goal 1/{TARGET:.0f}")


if __name__ == "__main__":
    main()
