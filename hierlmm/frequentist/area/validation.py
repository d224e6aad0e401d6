"""Models and methods compared without the truth: by thinned direct estimates, and by leaving out areas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.types import AreaDesign
from hierlmm.errors import ComparisonError, FitError, SpecError, listed
from hierlmm.frequentist.area.comparing import check_same_areas
from hierlmm.frequentist.area.leave_one_out import deleted, fit_area
from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.area.thinning import EPSILON, area_design, check_epsilon, draw, part, split, thinned_design
from hierlmm.frequentist.area.validation_results import DIRECT, Scores, Validation
from hierlmm.frequentist.bootstrap.arguments import check_count, check_seed
from hierlmm.frequentist.bootstrap.progress import Progress, check_progress, shown
from hierlmm.spec.model import ModelSpec

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
# An estimator by name, or a function of a spec and a table whose result has a frame `areas` with area, estimate and se.
Method = str | Callable[[ModelSpec, pd.DataFrame], Any]

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A model to be compared: its name, what it is fitted by, and its design on the data."""

    name: str
    spec: ModelSpec
    method: Method
    design: AreaDesign


def validate(
    models: ModelSpec | Mapping[str, ModelSpec | tuple[ModelSpec, Method]] | Sequence[ModelSpec],
    data: object,
    method: Method | Sequence[Method] = "reml",
    *,
    seed: int,
    epsilon: float = EPSILON,
    repetitions: int = 200,
    level: float = 0.95,
    leave_out: Literal["areas", "nothing"] = "areas",
    progress: Progress = "none",
    matrices: Mapping[str, object] | None = None,
) -> Validation:
    """Compare area-level models on the same direct estimates: see `area.thinning` for what the scores are.

    models       one spec, several, or by name; beside a name a spec, or a spec and its method
    method       for those without one of their own; several are crossed with the models. An estimator by name, or a
                 function of a spec and a table, such as one that calls hl.posterior, whose result has a frame `areas`
                 with area, estimate and se: it is given the part to fit by as a table
    epsilon      share of the information to fit by; repetitions: how often the estimates are split
    seed         repetition r depends on it and on r alone, and is the same for every model
    level        of the intervals whose coverage is counted
    leave_out    "areas": each area is also left out whole, which scores extrapolation; "nothing": it is not, as it is
                 not for methods that are functions
    progress     "bar" shows a bar on standard error
    matrices     of all specs, by name

    Raises ComparisonError where the models do not have the same areas, direct estimates and variances in the fit, and
    what fitting them raises.
    """
    check_epsilon(epsilon)
    check_seed(seed)
    check_count("repetitions", repetitions, "repetitions", 200, least=2)
    quantile(level)
    check_progress(progress)
    if leave_out not in ("areas", "nothing"):
        raise FitError(f"`leave_out` is 'areas' or 'nothing'; found {leave_out!r}. Use one of these.")
    chosen = list(_candidates(models, method, data, matrices))
    if not chosen:
        raise SpecError("A validation needs a model and a method; found none of one or the other. Give both.")
    check_same_areas([one.design for one in chosen], [one.name for one in chosen])
    first = chosen[0].design
    noise = draw(first, repetitions, np.random.default_rng(seed))
    scores = [_direct(first, noise, epsilon, level)]
    named = [one for one in chosen if isinstance(one.method, str)] if leave_out == "areas" else []
    steps = len(chosen) * repetitions + len(named) * int(first.sampled.sum())
    with shown(progress, steps, name="validation") as advance:
        scores += [_thinned(one, noise, epsilon, level, advance) for one in chosen]
        left_out = [_left_out(one, level, advance) for one in named]
    return Validation(
        areas=first.areas[first.sampled], variance=first.D[first.sampled].copy(), level=level,
        epsilon=epsilon, repetitions=repetitions, seed=seed,
        thinned=tuple(scores), left_out=tuple(left_out),
    )  # fmt: skip


def _candidates(models: Any, method: Any, data: object, matrices: Mapping[str, object] | None) -> Iterator[Candidate]:
    """Names, specs, methods and designs of all that are compared."""
    methods = [method] if isinstance(method, str) or callable(method) else list(method)
    specs = {"": models} if isinstance(models, ModelSpec) else models
    if not isinstance(specs, Mapping):
        specs = {spec.formula if isinstance(spec, ModelSpec) else str(spec): spec for spec in specs}
        if len(specs) < len(models):
            raise ComparisonError(
                "Models with the same formula need names to be told apart; found "
                f"{listed([spec.formula for spec in models])}. Give a mapping from name to spec."
            )
    seen = {DIRECT}
    for name, given in specs.items():
        spec, own = given if isinstance(given, tuple) else (given, None)
        if not isinstance(spec, ModelSpec):
            raise SpecError(f"A model to validate is a spec, or a spec and its method; found {spec!r} for {name!r}.")
        design = area_design(spec, data, {k: v for k, v in (matrices or {}).items() if k in spec.matrices})
        for each in methods if own is None else [own]:
            label = _label(str(name) or spec.formula, each, len(methods) > 1 and own is None, seen)
            _check_method(spec, each)
            yield Candidate(label, spec, each, design)


def _label(name: str, method: Method, several: bool, seen: set[str]) -> str:
    label = f"{name}, {_word(method)}" if several else name
    while label in seen:
        label += "'"
    seen.add(label)
    return label


def _word(method: Method) -> str:
    return method if isinstance(method, str) else getattr(method, "__name__", "function").strip("<>")


def _check_method(spec: ModelSpec, method: object) -> None:
    from hierlmm.frequentist.methods import check_method

    if callable(method):
        return
    check_method(spec, str(method))


def _thinned(one: Candidate, noise: Matrix, epsilon: float, level: float, advance: Callable[[int], None]) -> Scores:
    """Scores of one model on every split."""
    design, into = one.design, one.design.sampled
    shape = (len(noise), int(into.sum()))
    estimate, mse = np.full(shape, np.nan), np.full(shape, np.nan)
    for r, e in enumerate(noise):
        y, _ = split(design, e, epsilon)
        found = _fitted(one, y, epsilon)
        if found is not None:
            estimate[r], mse[r] = found[0][into], found[1][into]
        advance(1)
    return _scored(one.name, _word(one.method), design, estimate, mse, noise[:, into], epsilon, level)


def _fitted(one: Candidate, y: Vector, epsilon: float) -> tuple[Vector, Vector] | None:
    """(M,) estimates and mean squared errors on the scale of the model, None where there is no estimate."""
    if isinstance(one.method, str):
        fit = fit_area(thinned_design(one.design, y, epsilon), one.method)
        return (fit.eblup, fit.mse) if fit.certificate.converged else None
    return _by_function(one, y, epsilon)


def _by_function(one: Candidate, y: Vector, epsilon: float) -> tuple[Vector, Vector]:
    """The same from a function of a spec and a table."""
    assert callable(one.method)
    table, matrices = part(one.design, y, epsilon)
    result = one.method(one.spec, table, **({"matrices": matrices} if matrices else {}))
    frame = getattr(result, "areas", result)
    if not isinstance(frame, pd.DataFrame) or not {"area", "estimate", "se"} <= set(frame.columns):
        raise FitError(
            f"A function to validate returns a result whose `areas` is a frame with area, estimate and se; {one.name} "
            f"returned {type(result).__name__}. Return what hl.fit or hl.posterior does."
        )
    frame = frame.set_index("area").reindex(one.design.areas)
    return frame["estimate"].to_numpy(dtype=np.float64), np.square(frame["se"].to_numpy(dtype=np.float64))


def _direct(design: AreaDesign, noise: Matrix, epsilon: float, level: float) -> Scores:
    """The direct estimates of the first part as they stand, with error D/ε: what every model is to be better than."""
    into = design.sampled
    y = np.array([split(design, e, epsilon)[0][into] for e in noise])
    mse = np.broadcast_to(design.D[into] / epsilon, y.shape)
    return _scored(DIRECT, "", design, y, mse, noise[:, into], epsilon, level)


def _scored(
    name: str, method: str, design: AreaDesign, estimate: Matrix, mse: Matrix, e: Matrix, epsilon: float, level: float
) -> Scores:
    """Scores (R, m) of estimates on the second part y − c e, c² = ε/(1 − ε), whose variances are D/(1 − ε).

    (θ̂ − y + c e)² − D/(1 − ε) with e², whose mean is D, put at its mean: (θ̂ − y)² + 2 c e (θ̂ − y) − D.
    """
    y, D = design.y[design.sampled], design.D[design.sampled]
    c = np.sqrt(epsilon / (1 - epsilon))
    squared = np.square(estimate - y) + 2 * c * e * (estimate - y) - D
    return _judged(name, method, squared, estimate - (y - c * e), mse + D / (1 - epsilon), level)


def _left_out(one: Candidate, level: float, advance: Callable[[int], None]) -> Scores:
    """Scores (1, m) of predictions of each area from all others."""
    found = deleted(fit_area(one.design, str(one.method)), advance=advance)
    y, D = one.design.y[found.where], one.design.D[found.where]
    distance = np.where(found.converged, found.estimate - y, np.nan)
    squared = np.square(distance) - D
    return _judged(one.name, _word(one.method), squared[None], distance[None], (found.mse + D)[None], level)


def _judged(name: str, method: str, squared: Matrix, distance: Matrix, variance: Matrix, level: float) -> Scores:
    known = np.isfinite(distance)
    inside = np.where(known, np.abs(distance) <= quantile(level) * np.sqrt(variance), np.nan)
    log_score = -(LOG_2PI + np.log(variance) + np.square(distance) / variance) / 2
    return Scores(name=name, method=method, squared=squared, inside=inside, log_score=log_score)
