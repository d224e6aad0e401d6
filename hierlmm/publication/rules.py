"""When an estimate may be published: thresholds on its precision, or an office's own function.

The default is Statistics Canada's: a coefficient of variation up to 16.5 per cent is published, up to 33.3 per cent
with caution, and above not at all. The other measures are those of the U.S. National Center for Health Statistics
(Parker et al. 2017, Vital and Health Statistics 2(175)): effective sample size, absolute and relative width of the
interval, degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, FitError, listed
from hierlmm.frequentist.bootstrap.arguments import finite

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]
Status = Literal["publish", "publish with caution", "suppress"]
CvOf = Literal["estimate", "complement", "smaller"]
Thresholds = tuple[float, float]

# First thresholds of measures without unit that are in per cent beyond doubt: of the cv, and of about four times it.
SHARES = {"cv": 1.0, "relative_width": 4.0}

STATUSES: tuple[Status, ...] = get_args(Status)
PUBLISH, CAUTION, SUPPRESS = STATUSES


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicationRules:
    """Thresholds, each a pair: beyond the first with caution, beyond the second not at all. None: no such rule.

    cv                  se / |estimate|, without unit: 0.165 is 16.5 per cent. A first threshold above 1 is refused: it
                        was meant in per cent
    cv_of               what `cv` is relative to: the "estimate"; for proportions also its "complement" 1 − p, or the
                        "smaller" of the two, so that 2 and 98 per cent are judged alike
    width               upper − lower, units of the estimates
    relative_width      (upper − lower) / |estimate|, without unit
    effective_size      of the sample in the area, below the first with caution, below the second not at all
    degrees_of_freedom  of the variance in the area, likewise
    undefined_cv        status where the estimate is 0, so that it has no cv or relative width
    unsampled           status of areas without a direct estimate, whose value is the model's alone

    A status is "publish", "publish with caution" or "suppress"; the strictest of the rules holds.
    """

    cv: Thresholds | None = (0.165, 0.333)
    cv_of: CvOf = "estimate"
    width: Thresholds | None = None
    relative_width: Thresholds | None = None
    effective_size: Thresholds | None = None
    degrees_of_freedom: Thresholds | None = None
    undefined_cv: Status = "suppress"
    unsampled: Status = "publish with caution"

    def __post_init__(self) -> None:
        for name in ("cv", "width", "relative_width", "effective_size", "degrees_of_freedom"):
            if isinstance(pair := getattr(self, name), list):
                object.__setattr__(self, name, tuple(pair))
            _check_pair(name, getattr(self, name), rising=name in ("cv", "width", "relative_width"))
        for name, most in SHARES.items():
            if (pair := getattr(self, name)) is not None and pair[0] > most:
                raise FitError(
                    f"`{name}` is a share of the estimate, not per cent, its first threshold at most {most:g}; found "
                    f"{pair!r}. Write 16.5 per cent as 0.165."
                )
        for name, kind in (("cv_of", CvOf), ("undefined_cv", Status), ("unsampled", Status)):
            if (value := getattr(self, name)) not in get_args(kind):
                raise FitError(f"`{name}` is one of {', '.join(map(repr, get_args(kind)))}; found {value!r}.")

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """status and reasons for each row of a frame with the columns of `Publication.frame`."""
        judged = Judged(len(frame))
        estimate, se = frame["estimate"].to_numpy(float), frame["se"].to_numpy(float)
        judged.mark(np.isnan(estimate), SUPPRESS, ["no estimate"] * len(frame))
        known = np.isfinite(estimate)
        judged.mark(known & ~np.isfinite(se), SUPPRESS, ["no standard error"] * len(frame))
        if self.cv is not None:
            self._judge_cv(judged, frame["area"], estimate, se)
        if self.relative_width is not None:
            reasons = ["relative interval width undefined, the estimate is 0"] * len(frame)
            judged.mark(estimate == 0, self.undefined_cv, reasons)
        for name, words in (("width", "interval width"), ("relative_width", "relative interval width")):
            judged.above(getattr(self, name), frame[name].to_numpy(float), words)
        for name in ("effective_size", "degrees_of_freedom"):
            judged.below(getattr(self, name), frame[name].to_numpy(float), name.replace("_", " "), known)
        without = known & (frame["role"] == "unsampled").to_numpy()
        judged.mark(without, self.unsampled, ["no direct estimate"] * len(frame))
        return pd.DataFrame({"status": judged.status, "reasons": judged.reasons}, index=frame.index)

    def _judge_cv(self, judged: Judged, areas: pd.Series, estimate: Vector, se: Vector) -> None:
        base, words = np.abs(estimate), "cv"
        if self.cv_of != "estimate":
            if (outside := (estimate < 0) | (estimate > 1)).any():
                raise DesignError(
                    f"cv_of={self.cv_of!r} is for proportions, between 0 and 1; found {listed(estimate[outside])} for "
                    f"{listed(areas[outside])}. Divide percentages by 100 before the fit; keep a model of proportions "
                    "inside by transformation=hl.Logit() or hl.ArcsineRoot(); or use cv_of='estimate'."
                )
            rest = 1 - estimate
            base = rest if self.cv_of == "complement" else np.minimum(estimate, rest)
            words = "cv of the complement" if self.cv_of == "complement" else "cv of the smaller share"
        zero = base == 0
        what = "estimate is 0" if self.cv_of == "estimate" else "share is 0"
        judged.mark(zero, self.undefined_cv, [f"cv undefined, the {what}"] * base.size)
        judged.above(self.cv, se / np.where(zero, np.nan, base), words)


Rules = PublicationRules | Callable[[pd.DataFrame], object]


class Judged:
    """Statuses of n areas and why, as rules are applied one after another."""

    def __init__(self, size: int) -> None:
        self._grade = np.zeros(size, dtype=np.intp)
        self._reasons: list[list[str]] = [[] for _ in range(size)]

    @property
    def status(self) -> list[str]:
        """The strictest status of each area."""
        return [STATUSES[grade] for grade in self._grade]

    @property
    def reasons(self) -> list[str]:
        """Why it is not published without caution; empty where it is."""
        return ["; ".join(each) for each in self._reasons]

    def mark(self, where: Mask, status: Status, reasons: list[str]) -> None:
        """Give a status to the areas `where` holds, unless they have a stricter one, with a reason for each."""
        grade = STATUSES.index(status)
        if not grade:
            return
        self._grade = np.where(where, np.maximum(self._grade, grade), self._grade)
        for i in np.flatnonzero(where):
            self._reasons[i].append(reasons[i])

    def above(self, limits: Thresholds | None, values: Vector, words: str) -> None:
        """Caution above the first limit, nothing above the second."""
        if limits is not None:
            with np.errstate(invalid="ignore"):
                self._beyond(values > limits[0], values > limits[1], limits, values, f"{words} {{:.3g}} above {{:g}}")

    def below(self, limits: Thresholds | None, values: Vector, words: str, known: Mask) -> None:
        """Caution below the first limit, nothing below the second, nor where there is no value."""
        if limits is None:
            return
        self.mark(known & np.isnan(values), SUPPRESS, [f"{words} not known"] * values.size)
        with np.errstate(invalid="ignore"):
            first, second = known & (values < limits[0]), known & (values < limits[1])
        self._beyond(first, second, limits, values, f"{words} {{:.3g}} below {{:g}}")

    def _beyond(self, first: Mask, second: Mask, limits: Thresholds, values: Vector, text: str) -> None:
        reasons = [text.format(v, limits[1] if strict else limits[0]) for v, strict in zip(values, second, strict=True)]
        self.mark(np.asarray(first & ~second), CAUTION, reasons)
        self.mark(second, SUPPRESS, reasons)


def judge(rules: Rules, frame: pd.DataFrame) -> pd.DataFrame:
    """status and reasons by the rules, or by an office's function, whose answer is checked.

    A function is given a copy of the frame and returns the statuses: a Series with its index, one value a row, or a
    frame with the columns status and, if it likes, reasons. Where there is no estimate the status is "suppress",
    whatever it returns: comparisons with a missing number are false, and would let it pass.
    """
    judged = _judge(rules, frame)
    none = (frame["estimate"].isna() & (judged["status"] != SUPPRESS)).to_numpy()
    judged.loc[none, ["status", "reasons"]] = [SUPPRESS, "no estimate"]
    return judged


def _judge(rules: Rules, frame: pd.DataFrame) -> pd.DataFrame:
    """The same as the rules have it."""
    answer = rules(frame.copy())
    given = answer if isinstance(answer, pd.DataFrame) else None
    if given is not None and "status" not in given:
        raise FitError(f"Rules return a column `status`; found the columns {listed(given.columns)}. Name it so.")
    status = _aligned(answer if given is None else given["status"], frame, "statuses")
    if (wrong := ~status.isin(STATUSES)).any():
        raise FitError(
            f"A status is one of {', '.join(map(repr, STATUSES))}; the rules gave {listed(status[wrong].unique())} for "
            f"{listed(frame.loc[wrong, 'area'])}. Return one of these."
        )
    if given is None or "reasons" not in given:
        return pd.DataFrame({"status": status, "reasons": np.where(status == PUBLISH, "", "by the office's rules")})
    reasons = _aligned(given["reasons"], frame, "reasons").fillna("").astype(str)
    return pd.DataFrame({"status": status, "reasons": reasons})


def _aligned(values: object, frame: pd.DataFrame, what: str) -> pd.Series:
    """One value a row of the frame. Raises FitError for another number, or other rows."""
    if isinstance(values, pd.Series):
        if len(values) == len(frame) and values.index.is_unique and frame.index.isin(values.index).all():
            return values.loc[frame.index]
    elif isinstance(values, list | tuple | np.ndarray) and np.shape(values) == (len(frame),):
        return pd.Series(values, index=frame.index)
    size = len(values) if hasattr(values, "__len__") else "no"
    raise FitError(
        f"Rules return one value a row of the frame they are given, {len(frame)}, or a Series with its index; the "
        f"{what} are {type(values).__name__} with {size} values. Return a list, an array, or a Series of frame.index."
    )


def _check_pair(name: str, pair: object, *, rising: bool) -> None:
    if pair is None:
        return
    ok = isinstance(pair, tuple) and len(pair) == 2 and all(finite(x) and x >= 0 for x in pair)
    order = "the second not below the first" if rising else "the second not above the first"
    if not ok or (pair[0] > pair[1] if rising else pair[0] < pair[1]):  # type: ignore[index]
        raise FitError(
            f"`{name}` is a pair of numbers of 0 or more, {order}: (with caution beyond, not at all beyond); found "
            f"{pair!r}. Use for example {'(0.165, 0.333)' if rising else '(30, 10)'}, or None for no such rule."
        )
