"""Which variance components the rows can tell apart, against the n x n matrices themselves."""

import numpy as np
import pytest
from design_tables import table
from numpy.testing import assert_allclose

from hierlmm.design import build_lmm
from hierlmm.design.directions import Residuals, inner_products, working
from hierlmm.design.weights import RowWeights
from hierlmm.errors import DesignError
from hierlmm.spec import lmm
from hierlmm.spec.residual import Independent

ROWS = np.arange(72)
DATA = table(z=np.cos(ROWS), k=["p", "q", "r"] * 24, c=np.repeat(ROWS[:12] % 4, 6))
FORMULAS = [
    "y ~ x + (1 | g)",
    "y ~ x + (x | g)",
    "y ~ x + (x || g)",
    "y ~ x + (1 + x + z | g)",
    "y ~ x + (x | g) + (1 | k)",
    "y ~ x + (x | g) + (z | k)",
    "y ~ x + (1 | g/k)",
    "y ~ x + (c | g)",
]


def derivatives(factors):
    """Dense dV/dpsi: the identity, and z_a z_b' + z_b z_a' within levels, for every free entry of every block."""
    out = [np.eye(72)]
    for factor in factors:
        Z, same = working(factor), factor.codes[:, None] == factor.codes
        for block in factor.blocks:
            for i, a in enumerate(block):
                for b in block[i:]:
                    S = np.outer(Z[:, a], Z[:, b])
                    out.append((S + S.T) * same)
    return np.array(out)


@pytest.mark.parametrize("formula", FORMULAS)
def test_inner_products_equal_traces_of_dense_matrices(formula):
    """tr(S_i S_j) from per-level sums and from 72 x 72 matrices."""
    factors = build_lmm(lmm(formula), DATA).factors
    S = derivatives(factors)

    names, gram = inner_products(factors, Residuals(Independent(), None, RowWeights(None, None)))

    assert len(names) == len(S)
    assert_allclose(gram, np.einsum("iab,jab->ij", S, S), rtol=1e-11, atol=1e-9)


CONFOUNDED = [
    ("y ~ x + (1 | h)", {"h": ROWS}),
    ("y ~ x + (1 | g) + (1 | h)", {"h": np.repeat(ROWS[:12] * 2, 6)}),
    ("y ~ x + (1 | g) + (1 | g:h)", {"h": np.repeat(ROWS[:12], 6)}),
    ("y ~ x + (h | g)", {"h": np.repeat(ROWS[:12] % 2, 6)}),
    ("y ~ x + (h || g)", {"h": np.repeat(ROWS[:12] % 2 + 1.0, 6) * 0 + 2.0}),
    ("y ~ 1 + (1 | g) + (0 + h | g)", {"h": ["u", "v"] * 36}),
    ("y ~ x + (1 | g) + (1 | g:h)", {"h": ROWS}),
    ("y ~ x + (0 + h | g)", {"h": np.tile([-1.0, 1.0], 36) * 3, "g": ROWS}),
]


@pytest.mark.parametrize(("formula", "columns"), CONFOUNDED)
def test_confounded_components_are_refused(formula, columns):
    """The dense derivatives are linearly dependent in each case, which is the witness."""
    with pytest.raises(DesignError, match="cannot be told from"):
        build_lmm(lmm(formula), DATA.assign(**columns))


def test_slope_of_a_group_covariate_with_three_values_is_identified():
    """Three variances determine the three entries of the covariance matrix; two would not."""
    factors = build_lmm(lmm("y ~ x + (c | g)"), DATA).factors
    S = derivatives(factors).reshape(4, -1)

    assert np.linalg.matrix_rank(S) == 4


def test_heteroscedastic_singletons_are_identified():
    """(0 + x | row) with several |x| is a variance that grows with x squared, not the residual variance."""
    assert build_lmm(lmm("y ~ 1 + (0 + x | h)"), DATA.assign(h=ROWS)).factors[0].coefficients == ("x",)
