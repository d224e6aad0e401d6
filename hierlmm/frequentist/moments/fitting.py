"""The methods of moments by name: from a design to a `MomentsFit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.crossproducts import CrossProducts
from hierlmm.design.types import LMMDesign
from hierlmm.errors import DesignError, FitError, listed
from hierlmm.frequentist.lmm import fit_reml
from hierlmm.frequentist.lmm_results import LMMFit, LMMOutcome
from hierlmm.frequentist.moments import quadratic
from hierlmm.frequentist.moments.annihilator import Sums, inverse, is_positive_definite
from hierlmm.frequentist.moments.components import components, matrices, to_data_scale
from hierlmm.frequentist.moments.estimators import (
    Adjusted,
    Estimator,
    Minque,
    Partial,
    Sequential,
    Task,
    Uncorrected,
    is_explicit,
    unit_ratios,
)
from hierlmm.frequentist.moments.henderson import SquaresTable
from hierlmm.frequentist.moments.results import MomentsFit, MomentsOutcome
from hierlmm.frequentist.moments.uncertainty import MOST, Coordinates
from hierlmm.spec.residual import Independent
from hierlmm.spec.weights import Precision

Array = NDArray[np.float64]

SEQUENTIAL = "Henderson's method III, sums of squares in the order of the formula"


@dataclass(frozen=True, slots=True, eq=False)
class Working:
    """A design with its sums, the way back to the scale of the data, and its REML fit."""

    design: LMMDesign
    task: Task
    cp: CrossProducts
    T: Array
    reml: LMMFit

    @classmethod
    def of(cls, design: LMMDesign) -> Working:
        """Raises DesignError where the residuals are not independent with one unknown variance, or there are no random
        effects, and FitError where fixed and random effects reproduce the response exactly."""
        if not isinstance(design.spec.residual, Independent) or design.residual is not None:
            raise DesignError(
                "Moment estimators are for independent residuals of one unknown variance; the model has "
                f"{design.spec.residual}. Use method='reml'."
            )
        if not design.factors:
            raise DesignError(
                f"Variance components need a random-effects term; {design.spec.formula} has none. Add (1 | group)."
            )
        reml = fit_reml(design)
        if reml.outcome in (LMMOutcome.NO_RESIDUAL, LMMOutcome.NO_VARIATION):
            raise FitError(f"Moment estimators need variation of the residuals to measure. {reml.outcome.value}")
        sums, cp = Sums.of(design)
        order = tuple(cp.order.index(f) for f in range(len(design.factors)))
        found = components(design, cp)
        task = Task(sums, found, order, tuple(factor.name for factor in design.factors))
        return cls(design, task, cp, to_data_scale(found, cp), reml)


def fit_anova(design: LMMDesign) -> MomentsFit:
    """Analysis of variance: the classical table in balanced data, else Henderson III in formula order."""
    at = _intercepts(design, "anova")
    balanced = is_explicit(at.task, Sequential())
    title = "analysis of variance, balanced data" if balanced else SEQUENTIAL
    note = () if balanced else ("Unbalanced data have no one analysis of variance: another order, other sums.",)
    return _assembled(at, "anova", title, Sequential(), note)


def fit_henderson1(design: LMMDesign) -> MomentsFit:
    """Henderson's method I: sums of squares of totals, for random effects and a mean."""
    return _assembled(_intercepts(design, "henderson1"), "henderson1", "Henderson's method I", Uncorrected())


def fit_henderson2(design: LMMDesign) -> MomentsFit:
    """Henderson's method II: method I after adjusting y for the fixed effects."""
    return _assembled(_intercepts(design, "henderson2"), "henderson2", "Henderson's method II", Adjusted())


def fit_henderson3(design: LMMDesign) -> MomentsFit:
    """Henderson's method III with sequential sums of squares (type 1)."""
    return _assembled(_intercepts(design, "henderson3"), "henderson3", SEQUENTIAL, Sequential())


def fit_henderson3_partial(design: LMMDesign) -> MomentsFit:
    """Henderson's method III with each factor after all others (type 3)."""
    title = "Henderson's method III, each sum of squares after all others"
    return _assembled(_intercepts(design, "henderson3_partial"), "henderson3_partial", title, Partial())


def fit_mivque0(design: LMMDesign) -> MomentsFit:
    """MIVQUE(0): MINQUE with no variance but the residual one a priori. Any random-effects covariance."""
    at = Working.of(design)
    return _assembled(at, "mivque0", "MIVQUE(0)", Minque(np.zeros(len(at.task.found))))


def fit_minque(design: LMMDesign) -> MomentsFit:
    """MINQUE with a priori variances equal to the residual one (of slopes, on columns made orthonormal)."""
    at = Working.of(design)
    return _assembled(at, "minque", "MINQUE, a priori ratios 1", Minque(unit_ratios(at.task)))


def fit_minque_at(design: LMMDesign, ratios: tuple[Array, ...]) -> MomentsFit:
    """MINQUE at covariance matrices relative to the residual variance, per factor of the design (q, q).

    Raises DesignError where they do not have the shapes of the model, or V is not positive definite.
    """
    at = Working.of(design)
    shapes = [(len(f.coefficients),) * 2 for f in design.factors]
    given = [np.atleast_2d(np.asarray(G, dtype=np.float64)) for G in ratios]
    if [G.shape for G in given] != shapes:
        raise DesignError(
            f"A priori ratios are one matrix a grouping factor, of shapes {shapes}; found {[G.shape for G in given]}."
        )
    values = np.array([_value(component.matrix, given[at.cp.order[component.factor]]) for component in at.task.found])
    prior = np.linalg.solve(at.T, values)
    if not is_positive_definite(at.task.sums, matrices(at.task.found, prior, at.task.sums.widths)):
        raise DesignError("A priori ratios must give a positive definite covariance matrix of y; these do not.")
    return _assembled(at, "minque", "MINQUE, a priori ratios as given", Minque(prior))


def fit_minque_iterated(design: LMMDesign) -> MomentsFit:
    """MINQUE iterated from ratios 1 to its fixed point: REML where that is inside the parameter space."""
    at = Working.of(design)
    theta, steps = quadratic.iterated_minque(at.task.sums, at.task.found, unit_ratios(at.task))
    estimator = Minque(theta[:-1] / theta[-1])
    return _assembled(at, "minque_iterated", f"iterated MINQUE, {steps} steps", estimator, (), steps)


METHODS: dict[str, Callable[[LMMDesign], MomentsFit]] = {
    "anova": fit_anova,
    "henderson1": fit_henderson1,
    "henderson2": fit_henderson2,
    "henderson3": fit_henderson3,
    "henderson3_partial": fit_henderson3_partial,
    "mivque0": fit_mivque0,
    "minque": fit_minque,
    "minque_iterated": fit_minque_iterated,
}


def _value(matrix: Array, G: Array) -> float:
    return float(G[matrix != 0][0])


def _intercepts(design: LMMDesign, method: str) -> Working:
    """The sums of a model that has sums of squares. Raises DesignError for slopes and precision weights."""
    slopes = [f"{f.name}: {c}" for f in design.factors for c in f.coefficients if f.coefficients != ("Intercept",)]
    if slopes:
        raise DesignError(
            f"method={method!r} is for random intercepts; the model has {listed(slopes)}. For slopes and their "
            "covariances use method='mivque0' or 'minque', or hl.two_stage(...) for one grouping factor."
        )
    if isinstance(design.spec.weights, Precision) and method in ("henderson1", "henderson2"):
        raise DesignError(
            f"method={method!r} adds up rows of one variance; the model has precision weights "
            f"{design.spec.weights.column}. Use method='henderson3' or 'minque'."
        )
    return Working.of(design)


def _assembled(
    at: Working, method: str, title: str, estimator: Estimator, notes: tuple[str, ...] = (), steps: int = 0
) -> MomentsFit:
    design, task = at.design, at.task
    theta, table = estimator.solve(task), estimator.table(task)
    work = matrices(task.found, theta[:-1], task.sums.widths)
    back = tuple(at.cp.Z_map[task.order[f]] for f in range(len(design.factors)))
    G = tuple(B @ work[task.order[f]] @ B.T for f, B in enumerate(back))
    k = len(task.found)
    to_data = np.eye(k + 1)
    to_data[:k, :k] = at.T
    outcome = _outcome(work, float(theta[-1]))
    beta, vcov_beta, truncated = _fixed_effects(at, work, float(theta[-1]))
    coordinates = Coordinates.of(task.sums)
    explicit = is_explicit(task, estimator)
    vcov = np.full((k + 1, k + 1), np.nan)
    if coordinates is not None:
        vcov = to_data @ estimator.covariance(task, coordinates, theta) @ to_data.T
    if table is not None:
        expected = np.asarray(np.linalg.solve(to_data.T, table.coefficients.T).T)
        table = SquaresTable(table.squares, table.df, expected)
    return MomentsFit(
        spec=design.spec,
        design=design,
        method=method,
        title=title,
        outcome=outcome,
        components=task.found,
        estimates=to_data @ theta,
        vcov=vcov,
        G=G,
        squares=table,
        explicit=explicit,
        beta=beta,
        vcov_beta=vcov_beta,
        share=_shares(task, work, float(theta[-1])),
        reml=at.reml,
        steps=steps,
        notes=(
            *design.notes,
            *notes,
            *_about_reml(explicit, outcome),
            *truncated,
            *_about_errors(coordinates, table is not None and explicit, outcome),
        ),
    )


def _outcome(G: tuple[Array, ...], sigma2: float) -> MomentsOutcome:
    if sigma2 <= 0:
        return MomentsOutcome.NO_RESIDUAL
    inside = all(np.linalg.eigvalsh(part)[0] >= -1e-12 * np.abs(part).max() for part in G)
    return MomentsOutcome.INSIDE if inside else MomentsOutcome.OUTSIDE


def _fixed_effects(at: Working, G: tuple[Array, ...], sigma2: float) -> tuple[Array, Array, tuple[str, ...]]:
    """GLS with negative eigenvalues of G at zero, and what was done to G."""
    sums, cp = at.task.sums, at.cp
    usable = sigma2 > 0
    cut = tuple(_truncated(part) / sigma2 if usable else np.zeros_like(part) for part in G)
    V = inverse(sums, cut)
    H, right = V.among(sums.X, sums.X), V.among(sums.X, slice(len(sums.rest) - 1, None))[:, 0]
    C = cp.X_map
    beta = C @ np.linalg.solve(H, right) + cp.X_shift if sums.p else np.zeros(0)
    vcov = C @ np.linalg.solve(H, C.T) * (sigma2 if usable else np.nan) if sums.p else np.zeros((0, 0))
    if not usable:
        return beta, vcov, ("The residual variance is not positive: the fixed effects are those of least squares.",)
    changed = any(not np.allclose(a, b * sigma2, rtol=1e-12, atol=0) for a, b in zip(G, cut, strict=True))
    if not changed:
        return beta, vcov, ()
    return beta, vcov, ("The fixed effects and their errors take V with negative variances set to zero.",)


def _truncated(G: Array) -> Array:
    values, vectors = np.linalg.eigh(G)
    return G if values[0] >= 0 else np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def _shares(task: Task, G: tuple[Array, ...], sigma2: float) -> Array:
    """Share of the mean marginal variance of a row: of each factor in formula order, then of the residual."""
    sums = task.sums
    parts = []
    for f in task.order:
        levels, q = sums.widths[f]
        where = slice(0, 0) if f == 0 else sums.columns(f)
        held = sums.lead.sum(axis=0) if f == 0 else np.einsum(
            "gagb->ab", sums.rest[where, where].reshape(levels, q, levels, q)
        )  # fmt: skip
        parts.append(float((held * G[f]).sum()) / sums.n)
    return np.array([*parts, sigma2]) / (sum(parts) + sigma2)


def _about_reml(explicit: bool, outcome: MomentsOutcome) -> tuple[str, ...]:
    if explicit and outcome is MomentsOutcome.INSIDE:
        return ("The data are balanced for this model and no estimate is negative: REML is the same.",)
    if explicit:
        return (
            "The data are balanced for this model: REML would be the same if no estimate were negative; it is the "
            "best point inside the parameter space instead.",
        )
    return ("The data are unbalanced for this model: REML weights the sums of squares otherwise.",)


def _about_errors(at: Coordinates | None, exact: bool, outcome: MomentsOutcome) -> tuple[str, ...]:
    if at is None:
        return (f"Standard errors of variances are computed up to {MOST} effects; the model has more.",)
    if exact:
        return ("Standard errors from Var(MS) = 2 MS²/df for each mean square, exact under normality at these MS.",)
    return ("Standard errors of variances: exact under normality at these estimates.",)
