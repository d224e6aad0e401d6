"""A spec as TOML text and back, without loss."""

from __future__ import annotations

from hierlmm.errors import SpecError
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.table import from_mapping, to_mapping


def to_toml(spec: ModelSpec) -> str:
    """TOML text that `from_toml` reads as an equal spec.

    Raises SpecError for a spec made by hand whose terms are not in canonical order or spelling.
    """
    import tomli_w

    table = to_mapping(spec)
    if (read := from_mapping(table)) != spec:
        raise SpecError(
            f"A spec is written by its formula, and this one's, {spec.formula!r}, reads as another spec, {read!r}. "
            "Make it with lmm(...) or fay_herriot(...)."
        )
    return tomli_w.dumps(table)


def from_toml(text: str) -> ModelSpec:
    """The spec written in TOML text. Raises SpecError where it is no TOML or no spec, and FormulaError."""
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"The text is not TOML: {error}.") from None
    return from_mapping(table)
