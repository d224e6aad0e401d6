"""`python tests/benchmarks/posterior.py`: 4,000 exact draws against Bambi with PyMC and nutpie, end to end."""

from __future__ import annotations

import importlib.util
import time
import warnings

import numpy as np
import pandas as pd
from timing import medians, table

import hierlmm as hl
from hierlmm.bayes.engines import of_design
from hierlmm.bayes.priors import Priors
from hierlmm.design import build

# Known sampling variances go into Bambi as an offset of log sigma.
CASES = {
    "milk": ("milk", ("yi ~ C(MajorArea) + (1 | SmallArea)", "sigma ~ 0 + offset(log_sd)")),
    "sleepstudy slopes": ("sleepstudy", ("Reaction ~ Days + (Days | Subject)",)),
    "Sitka slopes": ("sitka/slopes", ("size ~ Time + (Time | tree)",)),
}


def bambi_seconds(formulas: tuple[str, ...], data: pd.DataFrame, sampler: str) -> float:
    """One run of Bambi from formula to 4 x 1,000 draws, compilation included."""
    import bambi

    if "SD" in data:
        data = data.assign(log_sd=np.log(data["SD"]))
    start = time.perf_counter()
    bambi.Model(bambi.Formula(*formulas), data).fit(
        draws=1000, tune=1000, chains=4, cores=2, inference_method=sampler, progressbar=False, random_seed=1
    )
    return time.perf_counter() - start


def main() -> None:
    """Print end-to-end times, and the time of the draws once the design is built."""
    warnings.simplefilter("ignore")
    rows, built = {}, {}
    for name, (model, formulas) in CASES.items():
        case = hl.load(model)
        design = build(case.spec, case.data)
        priors = Priors().resolve(design)
        row = medians({"hierlmm": lambda case=case: hl.posterior(case.spec, case.data, seed=1)}, 5)
        built[name] = medians({"hierlmm": lambda d=design, p=priors: of_design(d, p, draws=4000, seed=1)}, 9)
        if importlib.util.find_spec("bambi") is not None:
            for sampler in ("pymc", "nutpie"):
                if sampler == "pymc" or importlib.util.find_spec("nutpie") is not None:
                    row[f"bambi {sampler}"] = bambi_seconds(formulas, case.data, sampler)
        rows[name] = row
    print(table("Posterior from data frame and formula, 4,000 draws", rows))
    print()
    print(table("4,000 exact draws with means and sds, design built", built))


if __name__ == "__main__":
    main()
