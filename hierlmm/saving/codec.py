"""Values as JSON beside arrays and tables, and back: tuples, mappings, numbers, labels, and the registered classes.

A JSON list is a tuple; whatever JSON has no type for is an object whose "is" names its kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.bayes.compoundpriors import CompoundPriors
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.compound import CompoundDesign
from hierlmm.design.types import AreaDesign, LMMDesign
from hierlmm.errors import FileError
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.saving import labels, registry
from hierlmm.saving.archive import Source, Store
from hierlmm.saving.designs import Designs
from hierlmm.saving.fits import checked, decode_lmm_fit, encode_lmm_fit
from hierlmm.saving.tables import decode_frame, decode_index, encode_frame, encode_index
from hierlmm.spec.model import ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """Turns values into JSON, writing arrays and tables to the store and designs to their list."""

    store: Store
    designs: Designs

    def __call__(self, value: Any, at: str) -> Any:
        """The JSON of `value`; `at` is its place in the result. Raises FileError for a type that files have not."""
        if value is None or isinstance(value, (bool, str)):
            return value if value is None or isinstance(value, bool) else str(value)
        if isinstance(value, Enum):
            return self._enum(value, at)
        if isinstance(value, np.generic) and type(value.item()) is not type(value):
            return self(pd.Timestamp(value) if isinstance(value, np.datetime64) else value.item(), at)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"is": "float", "value": str(float(value))}
        return self._container(value, at)

    def _container(self, value: Any, at: str) -> Any:
        if isinstance(value, tuple):
            return [self(item, f"{at}.{k}") for k, item in enumerate(value)]
        if isinstance(value, list):
            return {"is": "list", "items": [self(item, f"{at}.{k}") for k, item in enumerate(value)]}
        if isinstance(value, Mapping):
            return {"is": "mapping", "items": [[self(k, at), self(item, f"{at}.{k}")] for k, item in value.items()]}
        if isinstance(value, np.ndarray):
            return self._array(value, at)
        if isinstance(value, pd.DataFrame):
            return encode_frame(value, self.store, self, at)
        if isinstance(value, pd.Index):
            return encode_index(value, self.store, self, at)
        return self._ours(value, at)

    def _ours(self, value: Any, at: str) -> Any:
        if isinstance(value, (LMMDesign, AreaDesign, CompoundDesign)):
            return {"is": "design", "number": self.designs.number(value, self)}
        if isinstance(value, LMMFit):
            return encode_lmm_fit(value, self, at)
        if isinstance(value, ModelSpec):
            return {"is": "spec", "toml": value.to_toml()}
        if isinstance(value, CompoundPriors):
            return {"is": "compound_priors", "value": self(value.to_mapping(), at)}
        if isinstance(value, ResolvedPriors):
            return {"is": "priors", "value": self(value.to_mapping(), at)}
        if (name := registry.value_name(value)) is not None:
            inside = {part.name: self(getattr(value, part.name), f"{at}.{part.name}") for part in fields(value)}
            return {"is": "value", "class": name, "fields": inside}
        if isinstance(value, pd.Interval):
            ends = {"left": self(value.left, at), "right": self(value.right, at)}
            return {"is": "interval", **ends, "closed": value.closed}
        if (kind := labels.kind_of(value)) is not None:
            return {"is": "label", "kind": kind, "value": labels.KINDS[kind][1](value)}
        raise FileError(
            f"A result is saved by value; found {type(value).__name__} {value!r:.60} at {at}, which files have no form "
            "for. Use text, numbers or dates as labels of rows, groups and areas."
        )

    def _array(self, value: np.ndarray[Any, Any], at: str) -> dict[str, Any]:
        if value.dtype.hasobject:
            return {"is": "objects", "shape": list(value.shape), "items": [self(item, at) for item in value.ravel()]}
        return {"is": "array", "at": self.store.array(value, at)}

    def _enum(self, value: Enum, at: str) -> dict[str, Any]:
        if (name := registry.enum_name(value)) is None:
            raise FileError(f"Files have no form for {value!r} at {at}.")
        return {"is": "enum", "class": name, "name": value.name}


@dataclass(frozen=True, slots=True, eq=False)
class Decoder:
    """Turns JSON back into values; what it reads must have been written by an Encoder."""

    source: Source
    designs: Designs

    def __call__(self, code: Any) -> Any:
        """The value of `code`. Raises KeyError, TypeError or ValueError for JSON that is no value's."""
        if isinstance(code, list):
            return tuple(self(item) for item in code)
        if not isinstance(code, dict):
            return code
        return DECODERS[code["is"]](self, code)

    def fields(self, code: Mapping[str, Any]) -> dict[str, Any]:
        """Values by name."""
        return {name: self(item) for name, item in code.items()}

    def value(self, code: dict[str, Any]) -> Any:
        """A value of a registered class."""
        value = registry.value_class(code["class"])(**self.fields(code["fields"]))
        return checked(value) if isinstance(value, AreaFit) else value

    def mapping(self, code: dict[str, Any]) -> dict[Any, Any]:
        """A dictionary."""
        return {self(key): self(item) for key, item in code["items"]}

    def objects(self, code: dict[str, Any]) -> np.ndarray[Any, Any]:
        """An array of Python objects."""
        out = np.empty(len(code["items"]), dtype=object)
        out[:] = [self(item) for item in code["items"]]
        return out.reshape(code["shape"])


DECODERS: Mapping[str, Callable[[Decoder, dict[str, Any]], Any]] = {
    "float": lambda _, code: float(code["value"]),
    "list": lambda decode, code: [decode(item) for item in code["items"]],
    "mapping": Decoder.mapping,
    "array": lambda decode, code: decode.source.array(code["at"]),
    "objects": Decoder.objects,
    "table": lambda decode, code: decode_frame(code, decode.source, decode),
    "range": lambda decode, code: decode_index(code, decode.source, decode),
    "index": lambda decode, code: decode_index(code, decode.source, decode),
    "label": lambda _, code: labels.KINDS[code["kind"]][2](code["value"]),
    "interval": lambda decode, code: pd.Interval(decode(code["left"]), decode(code["right"]), code["closed"]),
    "enum": lambda _, code: registry.enum_class(code["class"])[code["name"]],
    "spec": lambda _, code: ModelSpec.from_toml(code["toml"]),
    "compound_priors": lambda decode, code: CompoundPriors.from_mapping(decode(code["value"])),
    "priors": lambda decode, code: ResolvedPriors.from_mapping(decode(code["value"])),
    "design": lambda decode, code: decode.designs.decode(code["number"], decode),
    "value": Decoder.value,
    "LMMFit": lambda decode, code: decode_lmm_fit(code, decode),
}
