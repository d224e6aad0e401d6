"""Terms evaluated by formulaic, in an environment that holds the data's columns, the transforms, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.groupmeans import transforms
from hierlmm.errors import DesignError, listed
from hierlmm.spec.algebra import expression
from hierlmm.spec.formula import formulaic_formula
from hierlmm.spec.guard import ELEMENTWISE, SEVERAL, SINGLE
from hierlmm.spec.lexer import lex

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

# formulaic's transforms that learn from the rows, as means or quantiles: a row that counts twice stands twice.
LEARNING = (SINGLE | SEVERAL) - {"I", "C"}
# Most rows that are written out for them.
MOST_ROWS = 20_000_000


def evaluate(
    terms: tuple[str, ...], frame: pd.DataFrame, truths: frozenset[str], count: Vector | None = None
) -> tuple[Matrix, Any]:
    """Columns of the terms (n, k), and formulaic's specification with which new rows are coded alike.

    frame   doubles and categories, complete
    truths  names of the columns that held truth values
    count   (n,) how often each row counts where a transform learns from the rows; None: once

    Raises DesignError naming the terms where formulaic cannot compute them.
    """
    rows = None
    if count is not None and (learning := [term for term in terms if _learns(term)]):
        if count.sum() > MOST_ROWS:
            raise DesignError(
                f"{listed(learning)} learns from the rows, each as often as its frequency says; {count.sum():g} rows "
                f"are more than the {MOST_ROWS} it can. Compute the column first."
            )
        times = count.astype(np.intp)
        rows, count = np.cumsum(times) - 1, None
        frame = frame.take(np.repeat(np.arange(len(frame)), times)).reset_index(drop=True)
    with _Evaluation(terms):
        result = formulaic_formula(terms).get_model_matrix(
            frame, context=_context(truths, count), output="numpy", na_action="ignore"
        )
    matrix = np.array(result, dtype=np.float64).reshape(len(frame), -1)
    return matrix if rows is None else matrix[rows], result.model_spec


@lru_cache(maxsize=4096)
def _learns(term: str) -> bool:
    """Whether a term calls one of formulaic's transforms that learn from the rows."""
    if term == "1":
        return False
    calls = [expression(token, term).calls for token in lex(term)[::2] if token.kind != "name"]
    return any(LEARNING & names for names in calls)


def evaluate_again(terms: tuple[str, ...], state: Any, frame: pd.DataFrame, truths: frozenset[str]) -> Matrix:
    """The same columns for new rows, with the state of the transforms that `evaluate` returned."""
    with _Evaluation(terms):
        result = state.get_model_matrix(frame, context=_context(truths, None))
    return np.array(result, dtype=np.float64).reshape(len(frame), -1)


@lru_cache(maxsize=4096)
def plain_factors(term: str) -> tuple[str, ...] | None:
    """Columns of a term that is a product of columns: "x:`a b`" -> ("x", "a b"); None where it has expressions."""
    if term == "1":
        return ()
    tokens = lex(term)
    return tuple(token.text for token in tokens[::2]) if all(token.kind == "name" for token in tokens[::2]) else None


def _context(truths: frozenset[str], count: Vector | None) -> dict[str, Callable[..., Any]]:
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

    return {**{name: getattr(np, name) for name in ELEMENTWISE}, **transforms(count), "C": C}


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
