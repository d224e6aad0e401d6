"""Comparisons to draw and to write, made once, and a table whose names attack whatever shows them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

import hierlmm as hl

HOSTILE = (
    "<script>alert(1)</script>",
    '=HYPERLINK("http://example.org/")',
    "../../x",
    "$\\frac",
    "<img src=http://example.org/x.png onerror=alert(1)>",
    "&amp;",
    "a" * 200,
    "東京都",
    "+1",
    "@x\ty",
)


@cache
def comparison(name: str, method: str = "reml", *priors: str) -> hl.Comparison:
    """A catalogue model fitted by `method` and by exact integration, with 1000 draws."""
    case = hl.load(name)
    posterior = hl.posterior(case.spec, case.data, priors=priors, draws=1000, seed=1)
    return hl.compare(hl.fit(case.spec, case.data, method), posterior)


@cache
def hostile() -> hl.Comparison:
    """79 areas, ten of them with names that are markup, formulas, paths or mathematics; one row with a missing value,
    one column that another determines, one area without a direct estimate."""
    rng = np.random.default_rng(20261121)
    m = 79
    D, x = rng.uniform(0.2, 3.0, m), rng.normal(size=m)
    table = pd.DataFrame(
        {
            "area <b>": [*HOSTILE, *(f"Area with a long name, number {i}" for i in range(m - len(HOSTILE)))],
            "y": 2 + x + rng.normal(size=m) * np.sqrt(D + 0.5),
            "D": D,
            "x": x,
            "twice": 2 * x,
            "g": np.resize(["<i>one</i>", "two", "{{ 7 * 7 }}"], m),
        }
    )
    table.loc[40, "x"] = np.nan
    table.loc[41, "y"] = np.nan
    spec = hl.fay_herriot(
        "y ~ x + twice + g", sampling_variance="D", area="area <b>", unsampled="synthetic", missing_covariates="drop"
    )
    return hl.compare(hl.fit(spec, table), hl.posterior(spec, table, draws=100, seed=1))
