"""What the criteria and profiles of an estimator are of."""

from __future__ import annotations

# Estimators whose criterion, and interval of A, is the full likelihood; of all others it is the restricted one.
FULL = ("ml", "ampl_ll", "ampl_yl")


def criterion_name(method: str) -> str:
    """The criterion of an estimator of variances."""
    return "−2 log likelihood" if method in FULL else "REML criterion"
