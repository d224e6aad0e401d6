"""The random part by the covariance of its terms: columns, blocks and structures, against ones written out."""

import numpy as np
import pandas as pd
import pytest
from design_tables import table
from numpy.testing import assert_array_equal

from hierlmm.design import build, build_lmm
from hierlmm.errors import DesignError
from hierlmm.spec import lmm

DATA = table(
    z=np.cos(np.arange(72)),
    f=["u", "v", "w"] * 24,
    k=np.repeat(list("pqrstu"), 12),
    j=np.tile(np.repeat(["1", "2"], 3), 12),
)
U, V, W = (np.array(DATA["f"] == level, dtype=float) for level in "uvw")
X, ONE = DATA["x"].to_numpy(), np.ones(72)
ALL = ("general",) * 9

PARTS = [
    ("(f | g)", ("Intercept", "f[T.v]", "f[T.w]"), ((0, 1, 2),), ("general",), [ONE, V, W]),
    ("(0 + f | g)", ("f[u]", "f[v]", "f[w]"), ((0, 1, 2),), ("general",), [U, V, W]),
    ("us(0 + f | g)", ("f[u]", "f[v]", "f[w]"), ((0, 1, 2),), ("general",), [U, V, W]),
    ("diag(0 + f | g)", ("f[u]", "f[v]", "f[w]"), ((0,), (1,), (2,)), ALL[:3], [U, V, W]),
    ("(f || g)", ("Intercept", "f[u]", "f[v]", "f[w]"), ((0,), (1,), (2,), (3,)), ALL[:4], [ONE, U, V, W]),
    ("identity(0 + f | g)", ("f[u]", "f[v]", "f[w]"), ((0, 1, 2),), ("identity",), [U, V, W]),
    ("cs(0 + f | g)", ("f[u]", "f[v]", "f[w]"), ((0, 1, 2),), ("cs",), [U, V, W]),
    ("(x + z || g)", ("Intercept", "x", "z"), ((0,), (1,), (2,)), ALL[:3], [ONE, X, DATA["z"]]),
    ("diag(x | g)", ("Intercept", "x"), ((0,), (1,)), ALL[:2], [ONE, X]),
    ("(0 + f:x | g)", ("f[u]:x", "f[v]:x", "f[w]:x"), ((0, 1, 2),), ("general",), [U * X, V * X, W * X]),
    (
        "(1 | g) + (0 + x | g) + identity(0 + f | g)",
        ("Intercept", "x", "f[u]", "f[v]", "f[w]"),
        ((0,), (1,), (2, 3, 4)),
        ("general", "general", "identity"),
        [ONE, X, U, V, W],
    ),
    ("identity(0 + x + z | g)", ("x", "z"), ((0, 1),), ("identity",), [X, DATA["z"]]),
]


@pytest.mark.parametrize(("terms", "names", "blocks", "structures", "columns"), PARTS, ids=[one[0] for one in PARTS])
def test_terms_are_columns_blocks_and_structures(terms, names, blocks, structures, columns):
    """Names as formulaic writes them; independent coefficients are blocks of their own."""
    (factor,) = build_lmm(lmm(f"y ~ 1 + {terms}"), DATA).factors

    assert factor.coefficients == names
    assert (factor.blocks, factor.structures) == (blocks, structures)
    assert_array_equal(factor.Z, np.column_stack(columns))


def test_three_and_more_nested_levels():
    """(1 | a/b/c) is a, a:b and a:b:c, whatever the numbers inside are."""
    data = DATA.assign(m=np.tile([1, 2, 3], 24))

    factors = build_lmm(lmm("y ~ x + (1 | k/j/m)"), data).factors

    assert [factor.name for factor in factors] == ["k", "k:j", "k:j:m"]
    assert [len(factor.levels) for factor in factors] == [6, 12, 36]
    cells = data.groupby(["k", "j", "m"], sort=True).ngroup()
    assert_array_equal(factors[2].codes, cells)


@pytest.mark.parametrize("word", ["identity", "cs"])
def test_one_variance_of_one_column_is_a_plain_term(word):
    """A predictor of one category has one column: said with the term to write."""
    with pytest.raises(DesignError, match=r"at least 2 coefficients.*has the one f\[u\]\. Write \(0 \+ f \| g\)"):
        build_lmm(lmm(f"y ~ 1 + {word}(0 + f | g)"), DATA.assign(f="u"))


def test_columns_without_covariances_may_depend_on_one_another_but_not_be_zero():
    """Indicators beside the intercept have variances that differ; a zero column has none."""
    build_lmm(lmm("y ~ 1 + (f || g)"), DATA)
    with pytest.raises(DesignError, match=r"diag\(0 \+ x \+ z \| g\) z is zero"):
        build_lmm(lmm("y ~ 1 + diag(0 + x + z | g)"), DATA.assign(z=0.0))


def test_covariances_of_levels_that_never_meet_are_refused():
    """f is constant in each g: no two rows depend on the covariance of its levels; variances they have."""
    data = DATA.assign(f=np.repeat(["u", "v", "w"], 24))

    with pytest.raises(DesignError, match=r"no two rows depend on the covariance of f\[u\] and f\[v\] over g.*diag"):
        build_lmm(lmm("y ~ 1 + (0 + f | g)"), data)
    with pytest.raises(DesignError, match=r"no two rows depend on the correlation of f\[u\], f\[v\], f\[w\] over g"):
        build_lmm(lmm("y ~ 1 + cs(0 + f | g)"), data)

    assert build_lmm(lmm("y ~ 1 + diag(0 + f | g)"), data).factors


SAME = [
    ("(x || g)", "(1 | g) + (0 + x | g)"),
    ("diag(x | g)", "(1 | g) + (0 + x | g)"),
    ("(x + z || g)", "(1 | g) + diag(0 + x + z | g)"),
    ("us(x | g)", "(x | g)"),
]
DIFFERENT = [
    ("diag(0 + f | g)", "identity(0 + f | g)"),
    ("cs(0 + f | g)", "identity(0 + f | g)"),
    ("diag(0 + f | g)", "(0 + f | g)"),
    ("(x || g)", "(x | g)"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_ways_to_write_a_model_have_one_fingerprint(one, other):
    """So that results of both compare."""
    first, second = (build(lmm(f"y ~ 1 + {terms}"), DATA).fingerprint for terms in (one, other))

    assert first == second


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_covariances_have_different_fingerprints(one, other):
    """The columns are the same, the spec is not."""
    first, second = (build(lmm(f"y ~ 1 + {terms}"), DATA).fingerprint for terms in (one, other))

    assert first.differences(second) == ("spec",)


def test_many_groups_are_built_at_once():
    """HOSTILE 34, at a tenth of the size: nothing grows faster than the rows."""
    n = 100_000
    g = np.repeat(np.arange(n), 2)
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"y": rng.normal(size=2 * n), "x": rng.normal(size=2 * n), "g": g})

    assert len(build_lmm(lmm("y ~ x + (x || g)"), data).factors[0].levels) == n
