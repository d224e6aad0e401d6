"""A spec as the table of a catalogue, and back: plain words and texts, as TOML holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hierlmm.errors import SpecError, listed
from hierlmm.spec.areaeffects import SAR, IndependentEffects
from hierlmm.spec.build import fay_herriot, lmm
from hierlmm.spec.residual import (
    AR1,
    Antedependence,
    AreaResidual,
    CompoundSymmetry,
    ContinuousAR1,
    HeterogeneousAR1,
    HeterogeneousCompoundSymmetry,
    Independent,
    KnownVariances,
    SamplingCovariance,
    Stratified,
    Toeplitz,
    Unstructured,
)
from hierlmm.spec.transformation import ArcsineRoot, Log, Logit
from hierlmm.spec.weights import Frequency, Precision

if TYPE_CHECKING:
    from hierlmm.spec.model import ModelSpec

# Keys of a catalogue table by kind of model; "linear" is one without random effects, such as the null of a test.
KEYS = {
    "lmm": ("formula", "residual", "weights"),
    "linear": ("formula", "residual", "weights"),
    "fay_herriot": (
        "formula",
        "sampling_variance",
        "sampling_covariance",
        "area",
        "transformation",
        "area_effects",
        "unsampled",
        "zero_variance",
        "absurd_variance",
        "missing_covariates",
        "sample_size",
    ),
}
REQUIRED = {"lmm": ("formula",), "linear": ("formula",), "fay_herriot": ("formula", "area")}
# Keys whose value is a table of its own: its `kind`, and the arguments of that type.
KINDS: Mapping[str, Mapping[str, type]] = MappingProxyType(
    {
        "residual": {
            "independent": Independent,
            "known_variances": KnownVariances,
            "stratified": Stratified,
            "compound_symmetry": CompoundSymmetry,
            "heterogeneous_compound_symmetry": HeterogeneousCompoundSymmetry,
            "ar1": AR1,
            "heterogeneous_ar1": HeterogeneousAR1,
            "continuous_ar1": ContinuousAR1,
            "toeplitz": Toeplitz,
            "antedependence": Antedependence,
            "unstructured": Unstructured,
        },
        "weights": {"frequency": Frequency, "precision": Precision},
        "transformation": {one.name: one for one in (Log, ArcsineRoot, Logit)},
        "area_effects": {"independent": IndependentEffects, "sar": SAR},
    }
)

Table = dict[str, object]


def to_mapping(spec: ModelSpec) -> Table:
    """The catalogue table of a spec: `from_mapping` of it is the spec. Values equal to a default are left out."""
    residual = spec.residual
    if isinstance(residual, AreaResidual):
        return {"kind": "fay_herriot", "formula": spec.formula, **_of_area(spec, residual)}
    table: Table = {"kind": "lmm" if spec.random else "linear", "formula": spec.formula}
    if residual != Independent():
        table["residual"] = _part("residual", residual)
    if spec.weights is not None:
        table["weights"] = _part("weights", spec.weights)
    return table


def _of_area(spec: ModelSpec, residual: AreaResidual) -> Table:
    table: Table = {}
    if isinstance(residual, SamplingCovariance):
        table["sampling_covariance"] = residual.matrix
    elif residual.column is not None:
        table["sampling_variance"] = residual.column
    table["area"] = spec.random[0].group[0]
    table |= _changed(residual, "column", "matrix")
    if spec.transformation is not None:
        table["transformation"] = _part("transformation", spec.transformation)
    if spec.area_effects != IndependentEffects():
        table["area_effects"] = _part("area_effects", spec.area_effects)
    return table


def from_mapping(table: Mapping[str, object]) -> ModelSpec:
    """The spec that a catalogue table describes: `kind`, `formula` and the arguments of that constructor.

    Raises SpecError naming unknown, missing or mistyped keys, and FormulaError.
    """
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KEYS:
        raise SpecError(f"A model's kind is one of {', '.join(KEYS)}; found {kind!r}.")
    values = {key: value for key, value in table.items() if key != "kind"}
    _check_keys(f"A model of kind {kind!r}", values, KEYS[kind], REQUIRED[kind])
    parts: dict[str, Any] = {key: _read_part(key, values.pop(key)) for key in KINDS if key in values}
    if wrong := [key for key, value in values.items() if not isinstance(value, str)]:
        raise SpecError(f"The values of {listed(wrong)} must be text.")
    texts = {key: str(value) for key, value in values.items()}
    if kind == "fay_herriot":
        return fay_herriot(**texts, **parts)  # type: ignore[arg-type]  # the policies are checked by ModelSpec
    spec = lmm(texts["formula"], **parts)
    if kind == "linear" and spec.random:
        raise SpecError(f"A model of kind 'linear' has no random-effects terms; found {listed(spec.random)}.")
    return spec


def _check_keys(what: str, values: Mapping[str, object], known: tuple[str, ...], required: tuple[str, ...]) -> None:
    if unknown := [key for key in values if key not in known]:
        raise SpecError(f"{what} has no key {listed(unknown)}; it has {', '.join(known) or 'none'}.")
    if missing := [key for key in required if key not in values]:
        raise SpecError(f"{what} needs {listed(missing)}.")


def _part(key: str, value: Any) -> Table:
    """The table of one of the parts in KINDS: {"kind": "ar1", "group": "tree", "position": "occasion"}."""
    kind = next(kind for kind, one in KINDS[key].items() if type(value) is one)
    return {"kind": kind, **_changed(value)}


def _changed(value: Any, *without: str) -> Table:
    """The fields of a dataclass by name, without those equal to their default."""
    named = {field.name: (getattr(value, field.name), field.default) for field in fields(value)}
    return {name: given for name, (given, default) in named.items() if name not in without and given != default}


def _read_part(key: str, table: object) -> object:
    """The part that a sub-table describes; its columns are checked with the spec."""
    kinds = KINDS[key]
    if not isinstance(table, Mapping):
        raise SpecError(f"The value of {key} is a table with its kind and columns, [{key}] in TOML; found {table!r}.")
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise SpecError(f"The kind of {key} is one of {', '.join(kinds)}; found {kind!r}.")
    values = {name: value for name, value in table.items() if name != "kind"}
    known: tuple[Field[Any], ...] = fields(kinds[kind])
    required = tuple(field.name for field in known if field.default is MISSING)
    _check_keys(f"The {key} of kind {kind!r}", values, tuple(field.name for field in known), required)
    return kinds[kind](**values)
