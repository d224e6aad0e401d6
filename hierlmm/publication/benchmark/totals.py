"""What benchmarked estimates must add up to: totals of groups of areas, matched by label, and how well they are known.

R totals t_r = Σ_i w_ri θ_i, each over the areas of one group. One grouping gives one margin; several groupings, as
region and type of place, give several, whose totals must agree with one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, FitError, listed
from hierlmm.publication.estimates.form import AreaEstimates
from hierlmm.publication.keyed import Keys, check_labels, group_name, groups, numbers, refuse

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]
Of = Literal["mean", "total"]
Unlisted = Literal["error", "keep"]
Known = Literal["exactly", "with error", "internal"]

# The group of all areas, where no groups are given.
ALL = "all areas"
LACKING = 'Give each a total, or use unlisted="keep" to leave the areas of these groups as they are.'
# Shares of a mean must add up to one within this: what is left is rounding of double precision, not of print.
SHARES = 1e-9
# Totals of one margin implied by those of another must agree within this share of them.
AGREE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class EstimatedTotals:
    """Totals known with an error of their own, apart from that of the areas: from another survey, or a projection.

    values      a number, or numbers by group: a mapping or Series
    se          standard errors, in the same form, of totals that are independent of one another
    covariance  their covariance matrix instead, a DataFrame labelled by group on both sides
    """

    values: object
    se: object = None
    covariance: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if (self.se is None) == (self.covariance is None):
            raise DesignError(
                "Estimated totals have standard errors `se` or a `covariance`, one of the two; found "
                f"{'neither' if self.se is None else 'both'}. For totals without error give them as they are."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Margin:
    """One grouping of the areas: codes (M,) into labels, -1 for areas whose group has no total."""

    name: str
    codes: Codes
    labels: pd.Index


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constraints:
    """R totals that the estimates must add up to.

    margins     the groupings, whose labels in turn are the rows
    member      (R, M) 1.0 where the area belongs to the group of the row; W (R, M) its weights, 0 elsewhere
    target      (R,) totals; noise (R, R) covariance matrix of their own errors, zero where there is none
    known       "exactly", "with error", or "internal": the weighted direct estimates of the same areas
    kept        (k,) rows that determine the others, all where there is one margin
    """

    margins: tuple[Margin, ...]
    member: Matrix
    W: Matrix
    target: Vector
    noise: Matrix
    known: Known
    kept: Codes

    @property
    def rows(self) -> pd.DataFrame:
        """margin and group of each row."""
        names = [margin.name for margin in self.margins for _ in margin.labels]
        return pd.DataFrame({"margin": names, "group": [label for margin in self.margins for label in margin.labels]})

    @property
    def names(self) -> list[str]:
        """What errors call each row."""
        several = len(self.margins) > 1
        return [f"{margin} {group}" if several else str(group) for margin, group in self.rows.itertuples(index=False)]


def constraints_of(
    estimates: AreaEstimates, totals: object, weights: object, by: object, of: Of, data: object, unlisted: Unlisted
) -> Constraints:
    """The constraints; raises DesignError naming areas, groups and both numbers where something does not match."""
    for name, value, kind in (("of", of, Of), ("unlisted", unlisted, Unlisted)):
        if value not in get_args(kind):
            raise FitError(f"`{name}` is {' or '.join(map(repr, get_args(kind)))}; found {value!r}. Use one of these.")
    keys = estimates.keys
    w = numbers(weights, "weights", keys, data)
    refuse(w < 0, "weights", "must be 0 or more for each", "negative", keys, "Correct them.")
    margins = _margins(by, keys, data)
    values, spread = (totals.values, totals) if isinstance(totals, EstimatedTotals) else (totals, None)
    if len(margins) > 1 and spread is not None:
        raise DesignError(
            "Totals over several groupings must agree, so they are known exactly or internal; found EstimatedTotals "
            f"for {listed(margin.name for margin in margins)}. Benchmark to one grouping, or give the totals alone."
        )
    internal = isinstance(values, str)
    if internal and values != "internal":
        raise DesignError(f'Totals are numbers, or "internal" for the weighted direct estimates; found {values!r}.')
    if not internal:
        margins, targets = _targets(values, margins, unlisted)
    member = np.concatenate([_member(margin) for margin in margins])
    W = member * w
    names = [str(label) for margin in margins for label in margin.labels]
    _check_weights(W, w, of, names)
    target = _internal(estimates, W) if internal else np.concatenate(targets)
    noise = np.zeros((len(W), len(W))) if spread is None else _noise(spread, margins[0])
    known: Known = "internal" if internal else "exactly" if spread is None else "with error"
    kept = _independent(W, target, names) if len(margins) > 1 else np.arange(len(W))
    return Constraints(
        margins=margins, member=member, W=W, target=target, noise=noise, known=known, kept=kept
    )


def _margins(by: object, keys: Keys, data: object) -> tuple[Margin, ...]:
    """The groupings in the order given: one, or a list of several."""
    if by is None:
        return (Margin("all", np.zeros(len(keys.labels), dtype=np.intp), pd.Index([ALL])),)
    each = by if isinstance(by, list | tuple) else [by]
    names = [group_name(one, "group") for one in each]
    if len(set(names)) < len(names) or not names:
        raise DesignError(f"Each of several groupings has a name of its own; found {listed(names)}. Name the Series.")
    return tuple(Margin(name, *groups(one, name, keys, data)) for one, name in zip(each, names, strict=True))


def _targets(
    values: object, margins: tuple[Margin, ...], unlisted: Unlisted
) -> tuple[tuple[Margin, ...], list[Vector]]:
    """The totals by row, and the margins without the groups that have none."""
    given: list[object] = [values]
    if len(margins) > 1:
        names = {margin.name for margin in margins}
        if not isinstance(values, Mapping) or set(values) != names:
            raise DesignError(
                "Totals over several groupings are a mapping from the name of each to its totals; expected "
                f"{listed(sorted(names))}, found {listed(values) if isinstance(values, Mapping) else type(values)}."
            )
        given = [values[margin.name] for margin in margins]
    kept, targets = [], []
    for margin, totals in zip(margins, given, strict=True):
        margin = _listed_only(margin, totals) if unlisted == "keep" else margin
        if len(margin.labels) > 1 and not isinstance(totals, Mapping | pd.Series):
            raise DesignError(
                f"Each group has a total of its own, matched by label; found {_described(totals)} for "
                f"{len(margin.labels)} groups of {margin.name}. Give a mapping or Series from groups to totals."
            )
        kept.append(margin)
        targets.append(numbers(totals, "totals", Keys(margin.name, margin.labels, lacking=LACKING)))
    return tuple(kept), targets


def _described(totals: object) -> str:
    """Totals without labels."""
    return "one value" if np.ndim(totals) == 0 else f"{len(totals)} values without labels"  # type: ignore[arg-type]


def _listed_only(margin: Margin, totals: object) -> Margin:
    """The margin with the groups that have a total; the areas of the others belong to none."""
    if not isinstance(totals, Mapping | pd.Series):
        return margin
    found = pd.Index(list(totals) if isinstance(totals, Mapping) else totals.index)
    labels = margin.labels[margin.labels.isin(found)]
    check_labels(Keys(margin.name, labels), found, "totals")
    return Margin(margin.name, labels.get_indexer(margin.labels)[margin.codes], labels)


def _member(margin: Margin) -> Matrix:
    return np.asarray(margin.codes == np.arange(len(margin.labels))[:, None], dtype=np.float64)


def _check_weights(W: Matrix, w: Vector, of: Of, names: list[str]) -> None:
    """Refuse groups without weight, and shares that do not add up to one."""
    sums = W.sum(axis=1)
    if (empty := sums == 0).any():
        raise DesignError(
            f"The weights of a group must not all be 0; they are in {listed(np.array(names)[empty])}. Correct them, or "
            "leave these groups out of the totals."
        )
    if of == "mean" and (wrong := np.abs(sums - 1) > SHARES).any():
        found = listed(f"{names[r]} {sums[r]:.10g}" for r in np.flatnonzero(wrong))
        raise DesignError(
            f"The weights of a mean are shares that add up to 1 in each group; {wrong.sum()} of {len(sums)} do not: "
            f"{found} (over all areas {w.sum():.10g}). Divide them by their sum in the group, as in w / "
            'w.groupby(group).transform("sum"); or use of="total" where the benchmark is Σ w θ.'
        )


def _internal(estimates: AreaEstimates, W: Matrix) -> Vector:
    """The weighted direct estimates; refuses areas that have a weight and no direct estimate."""
    lacking = np.isnan(estimates.direct) & np.asarray((W > 0).any(axis=0))
    refuse(
        lacking, "internal totals", "need a direct estimate of each", "none", estimates.keys,
        "Give these areas weight 0, or use totals known from elsewhere.",
    )  # fmt: skip
    return W @ np.where(np.isnan(estimates.direct), 0.0, estimates.direct)


def _noise(totals: EstimatedTotals, margin: Margin) -> Matrix:
    """Covariance matrix of the errors of the totals."""
    keys = Keys(margin.name, margin.labels)
    if totals.covariance is None:
        se = numbers(totals.se, "standard errors of the totals", keys)
        refuse(se < 0, "standard errors", "must be 0 or more for each", "negative", keys, "Correct them.")
        return np.diag(se**2)
    table = totals.covariance
    if not isinstance(table, pd.DataFrame):
        raise DesignError(f"`covariance` is a DataFrame labelled by group on both sides; found {type(table).__name__}.")
    for labels in (table.index, table.columns):
        check_labels(keys, labels, "covariances of the totals")
    T = table.loc[margin.labels, margin.labels].to_numpy(dtype=np.float64)
    lowest = float(np.linalg.eigvalsh((T + T.T) / 2)[0]) if np.isfinite(T).all() else np.nan
    if not (np.allclose(T, T.T, rtol=1e-10, atol=0) and lowest >= -1e-10 * np.abs(T).max()):
        raise DesignError(
            "The covariance matrix of the totals must be symmetric and have no negative eigenvalue; its smallest is "
            f"{lowest:.4g}. Correct it."
        )
    return np.asarray((T + T.T) / 2)


def _independent(W: Matrix, target: Vector, names: list[str]) -> Codes:
    """Rows that determine the others. Refuses totals that contradict one another."""
    from scipy.linalg import qr

    scaled = W / np.linalg.norm(W, axis=1)[:, None]
    R, order = qr(scaled.T, mode="r", pivoting=True)
    rank = int((np.abs(np.diagonal(R)) > AGREE * np.abs(R[0, 0])).sum())
    kept, rest = np.sort(order[:rank]), np.sort(order[rank:])
    implied = np.linalg.lstsq(W[kept].T, W[rest].T, rcond=None)[0].T @ target[kept]
    wrong = np.abs(implied - target[rest]) > AGREE * (np.abs(implied) + np.abs(target[rest]))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise DesignError(
            f"Totals of several groupings must agree; {names[rest[at]]} is {target[rest[at]]:.10g}, where the others "
            f"imply {implied[at]:.10g}. Correct the totals, or bring one grouping to the sum of the other first."
        )
    return np.asarray(kept, dtype=np.intp)
