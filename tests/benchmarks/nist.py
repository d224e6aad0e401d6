"""`python tests/benchmarks/nist.py`: correct digits on NIST's one-way sets, beside those of other programs."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

import hierlmm as hl

DATA = Path(__file__).parents[1] / "data"
QUANTITIES = {"var_group": "group variance", "msw": "residual variance"}
LONGEST = 16.0


def digits(value: float, exact: str) -> float:
    """Correct digits, -log10 of the relative error, at most those of a double."""
    error = abs(Fraction(value) / Fraction(Decimal(exact)) - 1)
    return LONGEST if error == 0 else min(LONGEST, -float(np.log10(float(error))))


def table(quantity: str, rows: dict[str, dict[str, float | None]]) -> str:
    """One line a set; a dash where a program stopped with an error."""
    names = list(next(iter(rows.values())))
    lines = [f"Correct digits of the {quantity}, REML", f"{'':<10}" + "".join(f"{name:>13}" for name in names)]
    for name, row in rows.items():
        values = (f"{'-':>13}" if value is None else f"{value:13.1f}" for value in row.values())
        lines.append(f"{name:<10}" + "".join(values))
    return "\n".join(lines)


def main() -> None:
    """Fit the eleven sets and print the tables; `attainable` is the exact answer after the data became doubles."""
    sets = json.loads((DATA / "nist.json").read_text())["sets"]
    text = pd.read_csv(DATA / "nist.csv.gz", dtype=str)
    rows: dict[str, dict[str, dict[str, float | None]]] = {quantity: {} for quantity in QUANTITIES}
    for name, case in sets.items():
        data = text[text["set"] == name]
        fit = hl.fit(hl.lmm("y ~ 1 + (1 | group)"), data.assign(y=[float(y) for y in data["y"]]), method="reml")
        ours = {"var_group": float(fit.G[0][0, 0]), "msw": fit.sigma2}
        for quantity in QUANTITIES:
            exact = case["exact"][quantity]
            rows[quantity][name] = {
                "attainable": digits(float(case["exact_of_doubles"][quantity]), exact),
                "hierlmm": digits(ours[quantity], exact),
                **{peer: own[quantity] for peer, own in case["peers"].items()},
            }
    print("\n\n".join(table(words, rows[quantity]) for quantity, words in QUANTITIES.items()))


if __name__ == "__main__":
    main()
