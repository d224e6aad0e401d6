"""Designs in files: spec, table and response; the design is rebuilt from them and held to its fingerprint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import numpy as np

from hierlmm.design import build, with_response
from hierlmm.design.compound import CompoundDesign, build_compound, with_observations
from hierlmm.design.moments import Moments
from hierlmm.design.streamdesign import design_of
from hierlmm.design.types import AreaDesign, Fingerprint, LMMDesign
from hierlmm.errors import FileError, listed
from hierlmm.spec.compound import CompoundSpec
from hierlmm.spec.compoundtext import any_from_toml
from hierlmm.spec.model import ModelSpec

Design = LMMDesign | AreaDesign | CompoundDesign


class Designs:
    """The designs of one file, each written once: a comparison's fit and posterior mostly share theirs."""

    def __init__(self, codes: list[dict[str, Any]] | None = None) -> None:
        self.codes: list[dict[str, Any]] = [] if codes is None else codes
        self._known: dict[int, Design] = {}
        self._origins: dict[int, Design] = {}

    def number(self, design: Design, encode: Callable[[Any, str], Any]) -> int:
        """The place of the design in the list, writing it where it is new."""
        for number, known in self._known.items():
            if known is design or (known.fingerprint == design.fingerprint and known.table.equals(design.table)):
                return number
        number = len(self.codes)
        self._known[number] = design
        self.codes.append(
            {
                "spec": design.spec.to_toml(),
                "table": encode(design.table, f"design{number}"),
                "y": encode(design.y, f"design{number}.y"),
                "fingerprint": asdict(design.fingerprint),
            }
        )
        if isinstance(design, AreaDesign) and design.matrices:
            matrices = {name: encode(table, f"design{number}.{name}") for name, table in design.matrices.items()}
            self.codes[number]["matrices"] = matrices
        if isinstance(design, LMMDesign) and design.streamed is not None:
            sums = np.frombuffer(design.streamed.moments.to_bytes(), dtype=np.uint8)
            self.codes[number]["moments"] = encode(sums, f"design{number}.moments")
        return number

    def decode(self, number: int, decode: Callable[[Any], Any]) -> Design:
        """The design at a place, rebuilt. Raises FileError where it is not the one that was saved."""
        if number not in self._known:
            code = self.codes[number]
            if "moments" in code:
                sums = Moments.from_bytes(np.asarray(decode(code["moments"])).tobytes())
                self._known[number] = design_of(ModelSpec.from_toml(code["spec"]), sums)
                return self._known[number]
            first = self._built(code, decode)
            y = decode(code["y"])
            self._known[number] = design = first
            if not np.array_equal(first.y, y, equal_nan=True):
                anew = with_observations if isinstance(first, CompoundDesign) else with_response
                self._known[number] = design = anew(cast("Any", first), y)
                self._origins[id(design)] = first
            _check(design, Fingerprint(**code["fingerprint"]))
        return self._known[number]

    def _built(self, code: dict[str, Any], decode: Callable[[Any], Any]) -> Design:
        spec = any_from_toml(code["spec"])
        if isinstance(spec, CompoundSpec):
            return build_compound(spec, decode(code["table"]))
        matrices = {name: decode(table) for name, table in code.get("matrices", {}).items()}
        return build(spec, decode(code["table"]), matrices)

    def origin(self, design: Design) -> Design | None:
        """For a decoded design whose response is not its table's, as after a refit: the design of the table."""
        return self._origins.get(id(design))


def _check(design: Design, saved: Fingerprint) -> None:
    """Raise FileError where the rebuilt design is not the one that was saved."""
    if parts := saved.differences(design.fingerprint):
        raise FileError(
            f"The data in the file, read by this version, must give the design that was saved; they differ in "
            f"{listed(parts)}. Read the file with the version that wrote it, or fit again."
        )
