"""`python tests/benchmarks/stream.py`: ten million rows in 16 Parquet files, fitted in one pass and in memory.

Each way runs in a process of its own, so that its peak memory is its own; what interpreter and imports take is measured
before and taken off. `--rows`, `--groups` and `--files` change the size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

FORMULA = "y ~ x + f + (x | g)"


def simulate(folder: Path, rows: int, groups: int, files: int) -> None:
    """Correlated slopes over the groups, a categorical predictor, x and y away from zero."""
    rng = np.random.default_rng(20261121)
    effects = rng.multivariate_normal([0.0, 0.0], [[2.0, 0.3], [0.3, 0.5]], groups)
    for number in range(files):
        n = rows // files + (number < rows % files)
        g, x, f = rng.integers(0, groups, n), rng.normal(20.0, 3.0, n), rng.integers(0, 4, n)
        y = 100 + 0.5 * x + 0.2 * f + effects[g, 0] + effects[g, 1] * x + rng.normal(0, 1.5, n)
        labels = pd.Categorical.from_codes(f, ["a", "b", "c", "d"])
        pd.DataFrame({"y": y, "x": x, "f": labels.astype("str"), "g": g}).to_parquet(
            folder / f"part-{number:02d}.parquet"
        )


def held(field: str) -> float:
    """Memory of this process in MB, from Linux's own account: now (VmRSS), or the peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measured(folder: Path, way: str) -> dict[str, object]:
    """One fit in this process: seconds, peak memory over imports in MB, and the estimates."""
    import pyarrow.parquet  # noqa: F401  counted with the imports
    import scipy.linalg  # noqa: F401

    import hierlmm as hl

    spec = hl.lmm(FORMULA)
    rng = np.random.default_rng(0)
    small = pd.DataFrame(
        {"y": rng.normal(size=60), "x": rng.normal(size=60), "f": ["a", "b"] * 30, "g": [1, 2, 3] * 20}
    )
    hl.fit(spec, iter([small]))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before = held("VmRSS")
    start = time.perf_counter()
    fit = hl.fit(spec, folder if way == "stream" else pd.read_parquet(folder))
    return {
        "seconds": time.perf_counter() - start,
        "MB": held("VmHWM") - before,
        "objective": fit.objective,
        "estimates": [*fit.beta.tolist(), fit.sigma2, *fit.G[0].ravel().tolist()],
        "BLUPs": fit.b[0].ravel().tolist(),
    }


def apart(folder: Path, way: str) -> dict[str, object]:
    """`measured` in a process of its own."""
    run = subprocess.run([sys.executable, __file__, "--child", way, str(folder)], stdout=subprocess.PIPE, check=True)
    found: dict[str, object] = json.loads(run.stdout)
    return found


def main() -> None:
    """Simulate, fit both ways, print time, memory and how far apart the estimates are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--groups", type=int, default=3_000)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        way, folder = arguments.child
        print(json.dumps(measured(Path(folder), way)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(folder, arguments.rows, arguments.groups, arguments.files)
        ways = {way: apart(folder, way) for way in ("stream", "memory")}
    print(f"{FORMULA}: {arguments.rows} rows in {arguments.files} files, {arguments.groups} groups")
    for way, one in ways.items():
        print(f"  {way:8s}{one['seconds']:8.2f} s  {one['MB']:8.0f} MB over imports  objective {one['objective']!r}")
    for what in ("objective", "estimates", "BLUPs"):
        a, b = (np.atleast_1d(np.asarray(ways[way][what], dtype=float)) for way in ways)
        print(f"  largest relative difference of {what}: {np.abs(a - b).max() / np.abs(b).max():.1e}")


if __name__ == "__main__":
    main()
