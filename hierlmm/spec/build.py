"""The ways to a model specification: hl.lmm, hl.fay_herriot and the catalogue's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from hierlmm.errors import FormulaError, SpecError, listed
from hierlmm.spec.formula import first_bar, parse
from hierlmm.spec.lexer import quoted
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import Independent, KnownVariances, UnsampledPolicy, ZeroVariancePolicy
from hierlmm.spec.terms import RandomTerm

# Keys of a catalogue table by kind of model; "linear" is the null model without random effects.
KEYS = {
    "lmm": ("formula",),
    "linear": ("formula",),
    "fay_herriot": ("formula", "sampling_variance", "area", "unsampled", "zero_variance"),
}

INDEPENDENT = Independent()


def lmm(formula: str, residual: Independent = INDEPENDENT) -> ModelSpec:
    """A linear mixed model y = Xβ + Zb + ε in lme4's notation (Bates et al. 2015, J. Stat. Softw. 67(1)).

    formula   "size ~ Time * treat + (1 + Time | tree)"; terms (x || g) have independent coefficients, (1 | a/b)
              is (1 | a) + (1 | a:b), offset(x) enters with coefficient 1
    residual  Independent(): one residual variance

    Raises FormulaError with the position where the text cannot be read or has no random-effects term.
    """
    response, fixed, offset, random = parse(formula)
    if not random:
        raise FormulaError(
            "A mixed model has at least one random-effects term: add (1 | g) for groups g. "
            "For regression without groups use statsmodels or another package.",
            formula,
            len(formula),
        )
    if not isinstance(residual, Independent):
        raise SpecError(
            f"The residual of lmm(...) is Independent(); found {residual!r}. "
            "For known sampling variances use fay_herriot(...)."
        )
    return ModelSpec(response=response, fixed=fixed, random=random, residual=residual, offset=offset)


def fay_herriot(
    formula: str,
    *,
    sampling_variance: str,
    area: str,
    unsampled: UnsampledPolicy = "error",
    zero_variance: ZeroVariancePolicy = "error",
) -> ModelSpec:
    """The area-level model of Fay and Herriot (1979, JASA 74, 269-277): y_i = x_i'β + v_i + e_i.

    formula            "yi ~ C(MajorArea)": fixed part only, the random effect v_i ~ N(0, A) is the area's
    sampling_variance  column of the known variances D_i of e_i, units of y squared
    area               column of the area labels, one row an area
    unsampled          "error" or "synthetic": rows without a direct estimate or variance
    zero_variance      "error" or "direct": rows with D_i = 0

    It is the linear mixed model with a random intercept for each area and known residual variances. Raises
    FormulaError with the position, or SpecError for the other arguments.
    """
    response, fixed, offset, random = parse(formula)
    if random:
        raise FormulaError(
            f"In fay_herriot(...) the random effect is that of area={area!r}: leave out terms with a bar.",
            formula,
            first_bar(formula),
        )
    residual = KnownVariances(sampling_variance, unsampled, zero_variance)
    effect = RandomTerm(("1",), (area,))
    return ModelSpec(response=response, fixed=fixed, random=(effect,), residual=residual, offset=offset)


def from_mapping(table: Mapping[str, object]) -> ModelSpec:
    """The spec that a catalogue table describes: `kind`, `formula` and the arguments of that constructor.

    Raises SpecError naming unknown, missing or mistyped keys, and FormulaError.
    """
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KEYS:
        raise SpecError(f"A model's kind is one of {', '.join(KEYS)}; found {kind!r}.")
    values = {key: value for key, value in table.items() if key != "kind"}
    if unknown := [key for key in values if key not in KEYS[kind]]:
        raise SpecError(f"A model of kind {kind!r} has no key {listed(unknown)}; it has {', '.join(KEYS[kind])}.")
    required = KEYS[kind][:3]
    if missing := [key for key in required if key not in values]:
        raise SpecError(f"A model of kind {kind!r} needs {listed(missing)}.")
    if wrong := [key for key, value in values.items() if not isinstance(value, str)]:
        raise SpecError(f"The values of {listed(wrong)} must be text.")
    texts = {key: str(value) for key, value in values.items()}
    if kind == "fay_herriot":
        return fay_herriot(**texts)  # type: ignore[arg-type]  # the two policies are checked by ModelSpec
    return lmm(texts["formula"]) if kind == "lmm" else _linear(texts["formula"])


def _linear(formula: str) -> ModelSpec:
    """The null model without random effects, which tests of a boundary need."""
    response, fixed, offset, random = parse(formula)
    if random:
        raise SpecError(f"A model of kind 'linear' has no random-effects terms; found {listed(random)}.")
    return ModelSpec(response=response, fixed=fixed, random=(), offset=offset)


def check(spec: ModelSpec) -> None:
    """Refuse a spec that contradicts itself; called whenever a ModelSpec is made. Raises SpecError."""
    residual = spec.residual
    if not isinstance(residual, KnownVariances):
        return
    for name, value, choices in (
        ("unsampled", residual.unsampled, get_args(UnsampledPolicy)),
        ("zero_variance", residual.zero_variance, get_args(ZeroVariancePolicy)),
    ):
        if value not in choices:
            raise SpecError(f"{name} is one of {listed(choices)}; found {value!r}.")
    if len(spec.random) != 1 or spec.random[0].coefficients != ("1",) or len(spec.random[0].group) != 1:
        raise SpecError("An area-level model has exactly one random intercept, over one column of areas.")
    area = spec.random[0].group[0]
    for name, column in (("sampling_variance", residual.column), ("area", area)):
        if not isinstance(column, str) or not column.strip():
            raise SpecError(f"{name} is the name of a column; found {column!r}.")
        if quoted(column) == spec.response:
            raise SpecError(f"{name} and the response are the same column {column!r}.")
    if area == residual.column:
        raise SpecError(f"area and sampling_variance are the same column {area!r}.")
