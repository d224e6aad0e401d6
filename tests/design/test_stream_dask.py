"""The worked example of moments in parts: Dask's workers sum their Parquet files, and the sums add up to the fit."""

from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl

distributed = pytest.importorskip("distributed")

# Dask and the libraries below it warn of their own future while a cluster starts and stops.
pytestmark = pytest.mark.filterwarnings("ignore")

SPEC = hl.lmm("y ~ x * f + (x | g) + (1 | h)", residual=hl.Stratified("s"))


@pytest.fixture
def client() -> Iterator["distributed.Client"]:
    """Two workers that are threads of this process; a cluster's address would stand here."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def table(n: int = 4000) -> pd.DataFrame:
    rng = np.random.default_rng(9)
    data = pd.DataFrame(
        {
            "x": rng.normal(50, 4, n),
            "f": rng.choice(["a", "b", "c"], n),
            "g": rng.integers(0, 60, n),
            "h": rng.choice([f"h{number}" for number in range(12)], n),
            "s": rng.choice(["plain", "rough"], n),
        }
    )
    slopes = rng.normal(0, 0.3, 60)[data["g"]] * (data["x"] - 50)
    data["y"] = 10 + data["x"] + slopes + rng.normal(size=60)[data["g"]]
    data["y"] += rng.normal(size=n) * np.where(data["s"] == "rough", 2.0, 1.0)
    return data


def summed(spec: hl.ModelSpec, file: Path) -> bytes:
    """What runs on a worker: one file in, a few kilobytes out, as bytes so that nothing is pickled but them."""
    return hl.moments(spec, pd.read_parquet(file)).to_bytes()


def test_workers_sum_files_and_their_sums_give_the_fit(client: "distributed.Client", tmp_path: Path) -> None:
    """The fit of the whole table, whichever worker finishes first."""
    data = table()
    files = []
    for number, start in enumerate(range(0, len(data), 500)):
        files.append(tmp_path / f"part-{number}.parquet")
        data.iloc[start : start + 500].to_parquet(files[-1])

    parts = client.map(summed, [SPEC] * len(files), files)
    moments = [hl.Moments.from_bytes(part) for _, part in distributed.as_completed(parts, with_results=True)]
    fit = hl.fit(SPEC, reduce(add, moments))

    whole = hl.fit(SPEC, data)
    assert fit.objective == pytest.approx(whole.objective, rel=1e-10)
    np.testing.assert_allclose(fit.beta, whole.beta, rtol=1e-7)
    np.testing.assert_allclose(fit.phi, whole.phi, rtol=1e-7)
    for a, b in zip(fit.b, whole.b, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
