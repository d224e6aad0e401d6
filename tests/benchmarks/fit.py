"""`python tests/benchmarks/fit.py`: whole fits from data frame and formula, against peers in the same run."""

from __future__ import annotations

import warnings

import peers
from timing import medians, table

import hierlmm as hl

CASES = {
    "sleepstudy slopes": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", ["Subject"]),
    "politeness": (
        "politeness",
        "frequency ~ attitude + gender + (1 | subject) + (1 | scenario)",
        ["subject", "scenario"],
    ),
    "Penicillin": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", ["plate", "sample"]),
    "Sitka slopes": ("sitka", "size ~ Time + (Time | tree)", ["tree"]),
}
ROUNDS = 25


def main() -> None:
    """Print the table; a peer that is not installed is left out."""
    warnings.simplefilter("ignore")
    rows = {}
    for name, (model, formula, factors) in CASES.items():
        data = hl.load(model).data.dropna().reset_index(drop=True)
        alternatives = {"hierlmm": lambda formula=formula, data=data: hl.fit(hl.lmm(formula), data)}
        for peer in (peers.mixedlm, peers.statsmodels):
            call = peer(formula, data)
            if call is not None:
                alternatives[peer.__name__] = call
        row = medians(alternatives, ROUNDS)
        seconds = peers.lme4(formula, data, factors, ROUNDS)
        if seconds is not None:
            row["lme4"] = seconds
        rows[name] = row
    print(table("Fit from data frame and formula, REML, with standard errors and BLUPs", rows))


if __name__ == "__main__":
    main()
