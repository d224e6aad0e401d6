"""`python tests/benchmarks/posterior.py`: 4,000 exact draws against Bambi with PyMC and nutpie, end to end."""

from __future__ import annotations

import importlib.util
import time
import warnings

from timing import medians, table

import hierlmm as hl
from hierlmm.bayes.engines import of_design
from hierlmm.bayes.priors import Priors
from hierlmm.design import build

CASES = {
    "milk": ("milk", None),
    "sleepstudy slopes": ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    "Sitka slopes": ("sitka/slopes", "size ~ Time + (Time | tree)"),
}


def bambi_seconds(formula: str, data: object, sampler: str) -> float:
    """One run of Bambi from formula to 4 x 1,000 draws, compilation included."""
    import bambi

    start = time.perf_counter()
    bambi.Model(formula, data).fit(
        draws=1000, tune=1000, chains=4, cores=2, inference_method=sampler, progressbar=False, random_seed=1
    )
    return time.perf_counter() - start


def main() -> None:
    """Print end-to-end times, and the time of the draws once the design is built."""
    warnings.simplefilter("ignore")
    rows, built = {}, {}
    for name, (model, formula) in CASES.items():
        case = hl.load(model)
        design = build(case.spec, case.data)
        priors = Priors().resolve(design)
        row = medians({"hierlmm": lambda case=case: hl.posterior(case.spec, case.data, seed=1)}, 5)
        built[name] = medians({"hierlmm": lambda d=design, p=priors: of_design(d, p, draws=4000, seed=1)}, 9)
        if formula is not None and importlib.util.find_spec("bambi") is not None:
            for sampler in ("pymc", "nutpie"):
                if sampler == "pymc" or importlib.util.find_spec("nutpie") is not None:
                    row[f"bambi {sampler}"] = bambi_seconds(formula, case.data, sampler)
        rows[name] = row
    print(table("Posterior from data frame and formula, 4,000 draws", rows))
    print()
    print(table("4,000 exact draws with means and sds, design built", built))


if __name__ == "__main__":
    main()
