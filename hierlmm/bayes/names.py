"""Names of grouping factors, which become names of dimensions and variables of the draws."""

from __future__ import annotations

from hierlmm.design.types import LMMDesign
from hierlmm.errors import DesignError, listed

# Names that variables, data and dimensions of every model have already.
TAKEN = frozenset({"X", "beta", "chain", "draw", "offset", "row", "sigma", "term", "y", "y_observed"})


def check_group_names(design: LMMDesign) -> None:
    """Raise DesignError for a grouping factor whose name is that of another part of the draws or of the PyMC model."""
    names = [factor.name for factor in design.factors]
    derived = {f"{name}_{end}" for name in names for end in ("coef", "coef_bis", "pair")}
    derived |= {f"{start}_{name}" for name in names for start in ("b", "corr", "sd")}
    if taken := [name for name in names if name in TAKEN or name in derived or "/" in name]:
        raise DesignError(
            "The name of a grouping factor becomes that of a dimension of the draws and may hold no '/', nor be one of "
            f"{', '.join(sorted(TAKEN))} or another factor's; found {listed(taken)}. Rename the column."
        )
