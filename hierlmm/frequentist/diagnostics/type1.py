"""How often a t test that ignores groups rejects a true hypothesis: by simulation, exactly, and by the design effect.

Two arms of J groups with m rows each, whole groups in one arm, as in a cluster-randomised trial analysed row by row:
y = u_group + e, Var(u) = icc, Var(e) = 1 - icc, no difference between the arms. With DEFF = 1 + (m - 1) icc the pooled
t statistic on nu = 2 J m - 2 degrees of freedom satisfies

    t² = DEFF z² nu / (DEFF A + (1 - icc) B),   z ~ N(0, 1), A ~ chi²(2 J - 2), B ~ chi²(2 J (m - 1)),

and A / (A + B) ~ Beta is independent of A + B, so that the rejection rate is an average of tails of t over one Beta
variable. In large samples it is 2 Phi(-c / sqrt(DEFF)).

Sources: Kish (1965), Survey Sampling, section 5.4 (the design effect); Scott & Holt (1982), JASA 77:848-854.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import SpecError
from hierlmm.frequentist.bootstrap.arguments import check_seed, finite

Array = NDArray[np.float64]

# Nodes of the Gauss-Jacobi rule for the exact rate: the integrand is analytic, and 40 give twelve digits.
NODES = 80
# Draws that are held at once.
CHUNK = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TypeOneError:
    """Rejection rates of the t test that ignores groups, where the arms do not differ.

    frame   icc, group_size, groups (per arm), design_effect, estimate (the simulated rate), se (its Monte Carlo error),
            exact, approximate (by the design effect): one row a combination
    level   nominal level of the test; draws data sets simulated for each row; seed what they were drawn with
    """

    frame: pd.DataFrame
    level: float
    draws: int
    seed: int

    def __str__(self) -> str:
        lines = [
            f"Type I error of a t test at level {self.level:g} that ignores groups",
            f"{self.draws} draws each, seed {self.seed}",
            f"{'icc':>8}{'size':>7}{'groups':>8}{'deff':>9}{'simulated':>11}{'se':>9}{'exact':>9}{'by deff':>9}",
        ]
        for icc, m, J, deff, rate, se, exact, approximate in self.frame.to_numpy():
            lines.append(f"{icc:8.3g}{m:7.0f}{J:8.0f}{deff:9.3f}{rate:11.4f}{se:9.4f}{exact:9.4f}{approximate:9.4f}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def simulate_type1(
    icc: float | Sequence[float] = (0.0, 0.01, 0.05, 0.1, 0.2),
    group_size: int | Sequence[int] = (5, 10, 20, 50),
    groups: int = 10,
    draws: int = 10_000,
    *,
    seed: int,
    level: float = 0.05,
) -> TypeOneError:
    """Simulate the t test that compares two arms of `groups` groups each and takes their rows as independent.

    icc         intraclass correlations, from 0 to 1; group_size rows in each group; every combination is simulated
    groups      groups in each of the two arms
    draws       data sets for each combination, drawn through the sums of squares on which the test rests
    level       nominal level, between 0 and 1

    Raises SpecError for values out of range, FitError for a seed that is none.
    """
    check_seed(seed)
    iccs, sizes = _several("icc", icc), _several("group_size", group_size)
    _check(iccs, sizes, groups, draws, level)
    rng = np.random.default_rng(seed)
    rows = []
    for rho, m in product(iccs, (int(size) for size in sizes)):
        rate = _simulated(rho, m, groups, draws, level, rng)
        se = float(np.sqrt(rate * (1 - rate) / draws))
        exact, approximate = exact_rate(rho, m, groups, level), approximate_rate(rho, m, groups, level)
        rows.append((rho, m, groups, design_effect(rho, m), rate, se, exact, approximate))
    columns = ["icc", "group_size", "groups", "design_effect", "estimate", "se", "exact", "approximate"]
    return TypeOneError(frame=pd.DataFrame(rows, columns=columns), level=level, draws=draws, seed=seed)


def design_effect(icc: float, group_size: int) -> float:
    """Variance of a mean of groups over that of as many independent rows: 1 + (m - 1) icc."""
    return 1.0 + (group_size - 1) * icc


def exact_rate(icc: float, group_size: int, groups: int, level: float) -> float:
    """Probability that the test rejects, to about twelve digits."""
    from scipy.special import stdtr

    nu, c = _critical(group_size, groups, level)
    share, weight = _beta_rule(groups - 1.0, float(groups * (group_size - 1)))
    ratio = (1 - icc) / design_effect(icc, group_size)
    return float(weight @ (2 * stdtr(nu, -c * np.sqrt(share + ratio * (1 - share)))))


def approximate_rate(icc: float, group_size: int, groups: int, level: float) -> float:
    """The rate for many groups: the statistic is sqrt(DEFF) times a t variable."""
    from scipy.special import stdtr

    nu, c = _critical(group_size, groups, level)
    return float(2 * stdtr(nu, -c / np.sqrt(design_effect(icc, group_size))))


def _critical(m: int, J: int, level: float) -> tuple[int, float]:
    """Degrees of freedom of the test that ignores groups, and its critical value."""
    from scipy.special import stdtrit

    nu = 2 * J * m - 2
    return nu, float(-stdtrit(nu, level / 2))


def _beta_rule(a: float, b: float) -> tuple[Array, Array]:
    """Nodes in (0, 1) and weights of expectations under Beta(a, b); at an end where a or b is 0.

    Golub & Welsch (1969), Math. Comp. 23:221-230, with the Jacobi recurrence: weights add to 1 by construction.
    """
    if a == 0 or b == 0:
        return np.array([0.0 if a == 0 else 1.0]), np.ones(1)
    alpha, beta, k = b - 1.0, a - 1.0, np.arange(NODES, dtype=np.float64)
    s = 2 * k + alpha + beta
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = (beta**2 - alpha**2) / (s * (s + 2))
        middle[0] = (beta - alpha) / (alpha + beta + 2)
        k, s = k[1:], s[1:]
        side = 4 * k * (k + alpha) * (k + beta) * (k + alpha + beta) / (s**2 * (s + 1) * (s - 1))
        side[0] = 4 * (1 + alpha) * (1 + beta) / ((2 + alpha + beta) ** 2 * (3 + alpha + beta))
    values, vectors = np.linalg.eigh(np.diag(middle) + np.diag(np.sqrt(side), 1) + np.diag(np.sqrt(side), -1))
    return np.clip(0.5 * (1 + values), 0.0, 1.0), np.asarray(vectors[0] ** 2)


def _simulated(icc: float, m: int, J: int, draws: int, level: float, rng: np.random.Generator) -> float:
    """Share of the draws in which |t| exceeds its critical value."""
    nu, c = _critical(m, J, level)
    rejected = 0
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        between = rng.chisquare(2 * J - 2, size) if J > 1 else np.zeros(size)
        within = rng.chisquare(2 * J * (m - 1), size) if m > 1 else np.zeros(size)
        deff = design_effect(icc, m)
        pooled = (deff * between + (1 - icc) * within) / nu
        rejected += int((deff * rng.standard_normal(size) ** 2 > c**2 * pooled).sum())
    return rejected / draws


def _several(name: str, values: float | Sequence[float]) -> list[float]:
    try:
        return [float(value) for value in np.atleast_1d(np.asarray(values, dtype=np.float64)).ravel()]
    except (TypeError, ValueError):
        raise SpecError(f"`{name}` is a number or several; found {values!r}. Correct it.") from None


def _whole(value: object) -> bool:
    """Whether a value is a whole number of 1 or more, 2.0 included."""
    return finite(value) and value >= 1 and value == int(value)


def _check(iccs: list[float], sizes: list[float], groups: int, draws: int, level: float) -> None:
    for name, rule, wrong in (
        ("icc", "a number from 0 to 1", [v for v in iccs if not 0 <= v <= 1]),
        ("group_size", "a whole number, 1 or more", [v for v in sizes if not _whole(v)]),
        ("groups", "a whole number of groups per arm, 1 or more", [groups] * (not _whole(groups))),
        ("draws", "a whole number, 1 or more", [draws] * (not _whole(draws))),
        ("level", "a number between 0 and 1", [level] * (not (finite(level) and 0 < level < 1))),
    ):
        if wrong:
            raise SpecError(f"`{name}` is {rule}; found {wrong[0]!r}. Correct it.")
    if groups == 1 and 1 in sizes:
        raise SpecError("`group_size` is 2 or more where there is one group per arm; found 1. Correct it.")
    if not iccs or not sizes:
        raise SpecError("`icc` and `group_size` have at least one value; found an empty sequence. Give one.")
