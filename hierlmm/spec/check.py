"""Specs that contradict themselves are refused here, as far as that is certain without data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from hierlmm.errors import SpecError, listed
from hierlmm.spec import guard
from hierlmm.spec.areaeffects import SAR, AreaEffects, IndependentEffects, Standardisation
from hierlmm.spec.covariance import Covariance, Diagonal, General
from hierlmm.spec.lexer import quoted, unquoted
from hierlmm.spec.residual import (
    JOINED,
    AbsurdVariancePolicy,
    AreaResidual,
    CompoundSymmetry,
    ContinuousAR1,
    Correlated,
    KnownVariances,
    LMMResidual,
    MissingCovariatesPolicy,
    Residual,
    SamplingCovariance,
    SamplingVariances,
    Toeplitz,
    UnsampledPolicy,
    Unstructured,
    ZeroVariancePolicy,
    joined_columns,
    named_columns,
)
from hierlmm.spec.transformation import ArcsineRoot, Transformation
from hierlmm.spec.weights import Frequency, Precision, Weights

if TYPE_CHECKING:
    from hierlmm.spec.model import ModelSpec
    from hierlmm.spec.terms import RandomTerm

# What may be said of unusual areas, by the field of the residual that says it.
POLICIES = {
    "unsampled": UnsampledPolicy,
    "zero_variance": ZeroVariancePolicy,
    "absurd_variance": AbsurdVariancePolicy,
    "missing_covariates": MissingCovariatesPolicy,
}
SIZE = "The size of ArcsineRoot(...)"


def check(spec: ModelSpec) -> None:
    """Refuse a spec that contradicts itself; called whenever a ModelSpec is made. Raises SpecError."""
    _check_types(spec)
    if isinstance(spec.residual, AreaResidual):
        _check_area(spec, spec.residual)
        return
    _check_not_of_areas(spec)
    _check_columns(spec, spec.residual)
    _check_weights(spec)
    if isinstance(spec.residual, Correlated):
        _check_identified(spec, spec.residual)


def names_of(union: object) -> str:
    """The names of a union's types, as they are written: "Frequency, Precision"."""
    return ", ".join(one.__name__ for one in get_args(union))


def _check_types(spec: ModelSpec) -> None:
    if not isinstance(spec.residual, Residual):
        raise SpecError(
            f"A residual structure is one of {names_of(Residual)}, made with the columns it reads, as in "
            f"hl.AR1(group='tree', position='occasion'); found {spec.residual!r}."
        )
    if spec.weights is not None and not isinstance(spec.weights, Weights):
        raise SpecError(
            "Weights say what they are: hl.Frequency('w') for rows seen w times, hl.Precision('w') for residual "
            f"variances σ²/w; found {spec.weights!r}."
        )
    for term in spec.random:
        if not isinstance(term.covariance, Covariance):
            raise SpecError(f"The covariance of a term is one of {names_of(Covariance)}; found {term.covariance!r}.")


def _check_not_of_areas(spec: ModelSpec) -> None:
    """Refuse parts of an area-level model in a linear mixed one."""
    if spec.transformation is not None:
        raise SpecError(
            f"A transformation is that of an area-level model, made by fay_herriot(...); found {spec.transformation!r} "
            "in a linear mixed model. Transform the response in the formula, as in log(y)."
        )
    if spec.area_effects != IndependentEffects():
        raise SpecError(
            f"Effects of areas are those of an area-level model, made by fay_herriot(...); found {spec.area_effects!r} "
            "in a linear mixed model, whose groups are independent. Leave them out."
        )


def _check_area(spec: ModelSpec, residual: AreaResidual) -> None:
    for name, choices in POLICIES.items():
        if (value := getattr(residual, name, "error")) not in get_args(choices):
            raise SpecError(f"{name} is one of {listed(get_args(choices))}; found {value!r}.")
    if len(spec.random) != 1 or spec.random[0].coefficients != ("1",) or len(spec.random[0].group) != 1:
        raise SpecError("An area-level model has exactly one random intercept, over one column of areas.")
    if spec.weights is not None:
        known = repr(residual.column) if isinstance(residual, SamplingVariances) else f"in {residual.matrix!r}"
        raise SpecError(
            f"An area-level model takes no weights, for each row has its own known variance {known}; "
            f"found {spec.weights!r}. Put what the weight says into the variance: a row of weight w has variance D/w."
        )
    _check_transformation(spec, residual)
    _check_matrices(spec)
    parts: dict[str, object] = {"area": spec.random[0].group[0]}
    if isinstance(residual, SamplingVariances) and residual.column is not None:
        parts["sampling_variance"] = residual.column
    if isinstance(spec.transformation, ArcsineRoot):
        parts[SIZE] = spec.transformation.size
    if residual.sample_size is not None and residual.sample_size != parts.get(SIZE):
        parts["sample_size"] = residual.sample_size
    taken = dict[object, str]()
    for name, column in parts.items():
        _check_column(name, column, spec.response)
        if (other := taken.setdefault(column, name)) != name:
            raise SpecError(f"{other} and {name} are the same column {column!r}.")


def _check_transformation(spec: ModelSpec, residual: AreaResidual) -> None:
    """The transformation is one, transforms a response that is not transformed yet, and knows the variances."""
    given = spec.transformation
    if given is None:
        if isinstance(residual, SamplingVariances) and residual.column is None:
            raise SpecError(
                "An area-level model needs the column of its sampling variances; only ArcsineRoot(...), whose sizes "
                "give them, does without."
            )
        return
    if not isinstance(given, Transformation):
        raise SpecError(
            f"A transformation is one of {names_of(Transformation)}, made with the columns it reads, as in "
            f"hl.ArcsineRoot(size='n_eff'); found {given!r}."
        )
    if isinstance(given, ArcsineRoot) and isinstance(residual, SamplingCovariance):
        raise SpecError(
            "The sampling variances of ArcsineRoot(...) follow from the effective sample sizes, so that a matrix "
            f"{residual.matrix!r} has nothing left to say. Leave out one of the two."
        )
    if isinstance(given, ArcsineRoot) and (policy := getattr(residual, "zero_variance", "error")) != "error":
        raise SpecError(
            "The sampling variances of ArcsineRoot(...) are 1/(4 n), never 0, so that zero_variance has nothing to "
            f"say; found zero_variance={policy!r}. Leave it out, and set the size to missing, with "
            'unsampled="synthetic", for areas that are to be predicted.'
        )
    if unquoted(spec.response) is None and (calls := guard.read(spec.response).calls - {"I"}):
        raise SpecError(
            f"A transformation takes the response on the scale of the data; found {spec.response!r}, which calls "
            f"{listed(sorted(calls))}, and {given!r}. Leave out one of the two."
        )


def _check_matrices(spec: ModelSpec) -> None:
    effects = spec.area_effects
    if not isinstance(effects, AreaEffects):
        raise SpecError(f"The area_effects are one of {names_of(AreaEffects)}, as in hl.SAR('W'); found {effects!r}.")
    if isinstance(effects, SAR) and effects.standardise not in get_args(Standardisation):
        raise SpecError(f"standardise is one of {listed(get_args(Standardisation))}; found {effects.standardise!r}.")
    for name in (names := spec.matrices):
        if not isinstance(name, str) or not name.strip():
            raise SpecError(
                "A matrix stands in a spec by its name, and is given beside the data: hl.SAR('W') with "
                f"matrices={{'W': table}}; found {type(name).__name__}."
            )
    if len(set(names)) < len(names):
        raise SpecError(f"The proximity and the sampling covariance matrix are the same one, {names[0]!r}.")


def _check_column(name: str, column: object, response: str) -> None:
    if not isinstance(column, str) or not column.strip():
        raise SpecError(f"{name} is the name of a column; found {column!r}.")
    if quoted(column) == response:
        raise SpecError(f"{name} and the response are the same column {column!r}.")


def _check_columns(spec: ModelSpec, residual: LMMResidual) -> None:
    """The columns of the residual structure and of the weights are names, and none plays two of these parts."""
    if isinstance(residual, ContinuousAR1) and not isinstance(residual.nugget, bool):
        raise SpecError(f"nugget is True or False; found {residual.nugget!r}.")
    kind, taken = type(residual).__name__, dict[str, str]()
    for field, column in _parts(residual):
        name = f"The {field} of {kind}(...)"
        _check_column(name, column, spec.response)
        if (other := taken.setdefault(column, field)) != field:
            raise SpecError(f"The {other} and the {field} of {kind}(...) are the same column {column!r}.")
    if isinstance(spec.weights, Weights):
        column = spec.weights.column
        _check_column(f"The column of {type(spec.weights).__name__}(...)", column, spec.response)
        if column in taken:
            raise SpecError(f"The weights and the {taken[column]} of {kind}(...) are the same column {column!r}.")


def _parts(residual: LMMResidual) -> Iterator[tuple[str, str]]:
    """Each field of a residual structure with each of its columns; a value that is no text stands as it is."""
    for field in type(residual).__dataclass_fields__:
        value = getattr(residual, field)
        if field not in JOINED or not isinstance(value, str):
            if field != "nugget":
                yield field, value
            continue
        columns = joined_columns(value)
        if len(set(columns)) < len(columns):
            raise SpecError(f"The {field} of {type(residual).__name__}(...) names a column twice: {value!r}.")
        yield from ((field, column) for column in columns)


def _check_weights(spec: ModelSpec) -> None:
    residual, kind = spec.residual, type(spec.residual).__name__
    if isinstance(spec.weights, Frequency) and isinstance(residual, Correlated):
        raise SpecError(
            f"Frequency weights say that a row was seen several times, and in the series that {kind}(...) describes "
            "each row has one place: a row that counts twice has none. Write whole groups twice under new labels, or "
            "use hl.Precision(...) where the weight is a precision."
        )
    if isinstance(spec.weights, Precision) and isinstance(residual, KnownVariances):
        raise SpecError(
            f"The residual variances are known, read from {residual.column!r}, so precision weights "
            f"{spec.weights.column!r} have nothing left to say. Leave out one of the two."
        )


def _check_identified(spec: ModelSpec, residual: Correlated) -> None:
    """Refuse random intercepts that the residual structure already contains, whatever the data.

    A slope beside an unstructured residual is contained where its x is a function of the occasion: the data decide.
    """
    group = frozenset(named_columns(residual)["group"])
    kind = type(residual).__name__
    if not isinstance(residual, CompoundSymmetry | Toeplitz | Unstructured):
        return
    contained = "a random intercept adds one number to every covariance within a group, and it has that already"
    for term in spec.random:
        if frozenset(term.group) != group or not _has_own_intercept(term):
            continue
        raise SpecError(
            f"The random effects {term} cannot be told apart from the residual {kind}(...) over the same groups "
            f"{residual.group!r}: {contained}. Leave out one of the two."
        )


def _has_own_intercept(term: RandomTerm) -> bool:
    """Whether an intercept varies with a variance that no other coefficient shares."""
    return "1" in term.coefficients and (isinstance(term.covariance, General | Diagonal) or len(term.coefficients) == 1)
