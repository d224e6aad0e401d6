"""Terms evaluated by formulaic, in an environment that holds the data's columns, the transforms, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, listed
from hierlmm.spec.formula import formulaic_formula
from hierlmm.spec.guard import ELEMENTWISE
from hierlmm.spec.lexer import lex

Matrix = NDArray[np.float64]


def evaluate(terms: tuple[str, ...], frame: pd.DataFrame, truths: frozenset[str]) -> tuple[Matrix, Any]:
    """Columns of the terms (n, k), and formulaic's specification with which new rows are coded alike.

    frame   doubles and categories, complete
    truths  names of the columns that held truth values

    Raises DesignError naming the terms where formulaic cannot compute them.
    """
    with _Evaluation(terms):
        result = formulaic_formula(terms).get_model_matrix(
            frame, context=_context(truths), output="numpy", na_action="ignore"
        )
    return np.array(result, dtype=np.float64).reshape(len(frame), -1), result.model_spec


def evaluate_again(terms: tuple[str, ...], state: Any, frame: pd.DataFrame, truths: frozenset[str]) -> Matrix:
    """The same columns for new rows, with the state of the transforms that `evaluate` returned."""
    with _Evaluation(terms):
        result = state.get_model_matrix(frame, context=_context(truths))
    return np.array(result, dtype=np.float64).reshape(len(frame), -1)


@lru_cache(maxsize=4096)
def plain_factors(term: str) -> tuple[str, ...] | None:
    """Columns of a term that is a product of columns: "x:`a b`" -> ("x", "a b"); None where it has expressions."""
    if term == "1":
        return ()
    tokens = lex(term)
    return tuple(token.text for token in tokens[::2]) if all(token.kind == "name" for token in tokens[::2]) else None


def _context(truths: frozenset[str]) -> dict[str, Callable[..., Any]]:
    """The functions that expressions may call beside formulaic's transforms."""
    from formulaic.transforms import TRANSFORMS

    def C(data: Any, *args: Any, **options: Any) -> Any:
        """Numbers arrive as doubles; categories are named after the whole numbers and truth values they stand for."""
        if isinstance(data, pd.Series) and data.dtype == np.float64:
            if data.name in truths:
                data = data.astype(bool)
            elif (data == data.round()).all() and (data.abs() < 2**53).all():
                data = data.astype(np.int64)
        return TRANSFORMS["C"](data, *args, **options)

    return {**{name: getattr(np, name) for name in ELEMENTWISE}, "C": C}


class _Evaluation:
    """Evaluation of terms: numpy's warnings are held back (what is not finite is refused later), formulaic's
    warning of unknown categories and every failure become a DesignError naming the terms."""

    def __init__(self, terms: tuple[str, ...]) -> None:
        self.terms = terms

    def __enter__(self) -> None:
        from formulaic.errors import DataMismatchWarning

        self.numpy = np.errstate(all="ignore")
        self.python = warnings.catch_warnings()
        self.numpy.__enter__()
        self.python.__enter__()
        warnings.simplefilter("error", DataMismatchWarning)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.python.__exit__(kind, error, trace)
        self.numpy.__exit__(kind, error, trace)
        if error is None or isinstance(error, DesignError) or not isinstance(error, Exception):
            return
        expressions = [term for term in self.terms if plain_factors(term) is None] or list(self.terms)
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        if isinstance(error, Warning):
            reason = f"categories outside its levels: {reason[reason.find('{') : reason.find('}') + 1]}."
        raise DesignError(
            f"The terms of the formula must be computable from the data; {listed(expressions)} gave: {reason} "
            "Check the values and options of the expression."
        ) from error


def factor_levels(state: Any) -> dict[str, tuple[object, ...]]:
    """Levels of each categorical factor that formulaic coded, the reference level first."""
    found = {}
    for factor, (kind, held) in state.encoder_state.items():
        if kind is None or kind.value != "categorical" or "categories" not in held:
            continue
        levels = list(held["categories"])
        base = getattr(held["contrasts"].contrasts, "base", None)
        if base in levels:
            levels = [base, *(level for level in levels if level != base)]
        found[factor] = tuple(levels)
    return found
