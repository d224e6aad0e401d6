"""Models whose covariance parameters a design can and cannot tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from hierlmm.likelihood.identified import RandomRows, ResidualRows, confounded
from hierlmm.likelihood.residuals import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    HeterogeneousAR1,
    HeterogeneousCompoundSymmetry,
    Stratified,
    Structure,
    Toeplitz,
    Unstructured,
)


def balanced(groups: int, T: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of groups and occasions of rows, every group over all occasions."""
    return np.repeat(np.arange(groups), T), np.tile(np.arange(T), groups)


def residual(
    structure: Structure,
    codes: np.ndarray,
    place: np.ndarray,
    scale: np.ndarray | None = None,
    sigma2: str | None = "sigma2",
) -> ResidualRows:
    """Residual rows with parameters phi1, phi2, ... and sigma2; occasions are the whole parts of places."""
    return ResidualRows(
        structure=structure,
        names=tuple(f"phi{r + 1}" for r in range(structure.size)),
        sigma2=sigma2,
        codes=codes,
        place=place * 1.0,
        occasion=place.astype(np.intp),
        scale=np.ones(len(codes)) if scale is None else scale,
    )


def intercepts(codes: np.ndarray, name: str = "(1 | g)") -> RandomRows:
    return RandomRows(name=name, codes=codes, Z=np.ones((len(codes), 1)))


def slopes(codes: np.ndarray, x: np.ndarray) -> RandomRows:
    return RandomRows(name="(1 + x | g)", codes=codes, Z=np.column_stack([np.ones(len(codes)), x]))


CONFOUNDED = [
    (CompoundSymmetry(5), {"(1 | g)", "sigma2", "phi1"}),
    (Toeplitz(5), {"(1 | g)", "sigma2", "phi1", "phi2", "phi3", "phi4"}),
    (Unstructured(5), {"(1 | g)", "sigma2", *(f"phi{r}" for r in range(1, 15))}),
]
IDENTIFIED = [
    AR1(),
    HeterogeneousAR1(5),
    Stratified(5),
    ContinuousAR1(1.0),
    ContinuousAR1(1.0, nugget=True),
    Antedependence(5),
    HeterogeneousCompoundSymmetry(5, 5),
]


@pytest.mark.parametrize(("structure", "names"), CONFOUNDED, ids=lambda value: type(value).__name__)
def test_random_intercepts_are_part_of_some_residual_structures(structure: Structure, names: set[str]) -> None:
    """G 11' + sigma² C stays in the family: one combination for each, of which the intercepts are part."""
    g, t = balanced(20, 5)

    found = confounded([intercepts(g)], residual(structure, g, t))

    assert len(found) == 1
    assert set(found[0]) <= names
    assert {"(1 | g)", "phi1"} <= set(found[0])


@pytest.mark.parametrize("structure", IDENTIFIED, ids=repr)
def test_random_intercepts_beside_other_structures_are_identified(structure: Structure) -> None:
    g, t = balanced(20, 5)

    assert confounded([intercepts(g)], residual(structure, g, t)) == ()


@pytest.mark.parametrize("structure", [*IDENTIFIED, *(s for s, _ in CONFOUNDED)], ids=repr)
def test_every_structure_alone_is_identified(structure: Structure) -> None:
    g, t = balanced(20, 5)

    assert confounded([], residual(structure, g, t)) == ()


@pytest.mark.parametrize(("T", "identified"), [(2, False), (3, True), (4, True)])
def test_intercepts_beside_ar1_need_three_positions(T: int, identified: bool) -> None:
    """With two positions there is one covariance for two parameters."""
    g, t = balanced(20, T)

    found = confounded([intercepts(g)], residual(AR1(), g, t))

    assert (found == ()) is identified
    if not identified:
        assert set(found[0]) == {"(1 | g)", "sigma2", "phi1"}


def test_a_correlation_within_groups_of_one_row_is_a_parameter_of_nothing() -> None:
    rows = np.arange(30)

    assert confounded([], residual(AR1(), rows, rows % 5)) == (("phi1",),)


def test_a_nugget_needs_more_than_one_difference_of_times() -> None:
    """Pairs always 2.5 apart: one correlation for range and nugget."""
    g, t = balanced(20, 2)

    found = confounded([], residual(ContinuousAR1(1.0, nugget=True), g, 2.5 * t))
    shifted = confounded([], residual(ContinuousAR1(1.0, nugget=True), g, 2.5 * t + (g == 3) * t))

    assert found == (("phi1", "phi2"),)
    assert shifted == ()


def test_a_stratum_without_rows_and_strata_that_are_levels() -> None:
    """A variance without rows; one of each row beside a random effect of each row."""
    rows = np.arange(40)

    assert confounded([], residual(Stratified(4), rows, rows % 3)) == (("phi3",),)
    assert confounded([intercepts(rows, "(1 | row)")], residual(Stratified(2), rows, rows % 2)) == (
        ("(1 | row)", "sigma2", "phi1"),
    )
    assert confounded([intercepts(rows // 4)], residual(Stratified(2), rows, rows % 2)) == ()


def test_lags_and_pairs_of_occasions_never_seen_are_named() -> None:
    """Positions 0, 1 and 4 (lags 1, 3, 4): lag 2 only matters through the others; pair (0, 1) never together."""
    g, k = balanced(20, 3)
    place = np.array([0, 1, 4])[k]
    pairs, half = balanced(20, 2)
    occasion = np.where(pairs % 2 == 0, 2 * half, half + 1)

    lags = confounded([], residual(Toeplitz(5), g, place))
    unseen = confounded([], residual(Unstructured(3), pairs, occasion))

    assert len(lags) == 1
    assert "phi2" in lags[0]
    assert "phi1" not in lags[0]
    assert len(unseen) == 1
    assert "phi1" in unseen[0]


@pytest.mark.parametrize("origin", [0.0, 2000.0, 1e6])
@pytest.mark.parametrize("unit", [1.0, 1e-8, 1e8])
def test_random_slopes_do_not_depend_on_origin_and_unit_of_time(origin: float, unit: float) -> None:
    """(1 + t | g) is identified beside AR1 over five positions; beside Toeplitz its intercept is part of the lags."""
    g, t = balanced(20, 5)
    x = unit * (origin + t)

    assert confounded([slopes(g, x)], residual(AR1(), g, t)) == ()
    assert len(confounded([slopes(g, x)], residual(Toeplitz(5), g, t))) == 1


def test_slopes_that_are_constant_are_named() -> None:
    g, t = balanced(20, 5)

    assert ("(1 + x | g)",) in confounded([slopes(g, np.full(100, 7.0))], residual(AR1(), g, t))


def test_crossed_factors_are_told_apart_by_pairs_of_rows_across_residual_groups() -> None:
    """Items shared by subjects: within a subject each item is seen once, and looks like the residual variance."""
    subject, item = balanced(20, 5)
    own = subject * 5 + item

    crossed = [intercepts(subject, "(1 | subject)"), intercepts(item, "(1 | item)")]
    assert confounded(crossed, residual(AR1(), subject, item)) == ()
    nested = [intercepts(subject, "(1 | subject)"), intercepts(own, "(1 | own)")]
    # A random effect of each row beside AR1 is a nugget, which is identified; beside independent rows it is not.
    assert confounded(nested, residual(AR1(), subject, item)) == ()
    assert confounded(nested, residual(Stratified(1), np.arange(100), 0 * item)) == (("(1 | own)", "sigma2"),)


def test_a_few_small_groups_among_many_rows_are_enough() -> None:
    """3000 groups of two rows, and one of three in the last place: intercepts beside AR1 are identified by it alone."""
    g = np.append(np.repeat(np.arange(3000), 2), [3000] * 3)
    t = np.append(np.tile([0, 1], 3000), [0, 1, 2])

    assert confounded([intercepts(g)], residual(AR1(), g, t)) == ()
    assert len(confounded([intercepts(g[:-3])], residual(AR1(), g[:-3], t[:-3]))) == 1


def test_what_identifies_a_model_may_stand_in_later_rounds() -> None:
    """Two strata, the second only in the last, smallest groups."""
    g = np.append(np.repeat(np.arange(300), 4), 300 + np.repeat(np.arange(40), 2))
    stratum = (g >= 300).astype(np.intp)

    assert confounded([intercepts(g)], residual(Stratified(2), g, stratum)) == ()


def test_one_long_series_is_cut_and_still_identified() -> None:
    t = np.arange(3000)

    assert confounded([], residual(ContinuousAR1(1.0, nugget=True), 0 * t, t)) == ()


def test_known_residual_variances_leave_random_effects_of_rows_identified() -> None:
    """Meta-analysis: (1 | study) beside known variances, also beside sigma² where they differ."""
    rows, variances = np.arange(12), np.linspace(1, 3, 12)
    effect = [intercepts(rows, "(1 | study)")]

    known = residual(Stratified(1), rows, 0 * rows, scale=variances, sigma2=None)
    assert confounded(effect, known) == ()
    assert confounded(effect, residual(Stratified(1), rows, 0 * rows, scale=variances)) == ()
    assert confounded(effect, residual(Stratified(1), rows, 0 * rows)) == (("(1 | study)", "sigma2"),)


def test_compound_symmetric_and_identity_blocks_have_two_and_one_parameters() -> None:
    """Over two levels of f seen once in each group, cs is all of a two by two covariance with equal variances."""
    g, f = balanced(20, 3)
    Z = np.eye(3)[f]
    twice = np.concatenate([g, g]), np.concatenate([f, f])

    cs = RandomRows(name="cs", codes=g, Z=Z, structure="cs")
    same = RandomRows(name="identity", codes=g, Z=Z, structure="identity")
    assert confounded([same], residual(Stratified(1), np.arange(60), 0 * f)) == (("identity", "sigma2"),)
    assert confounded([cs], residual(Stratified(1), np.arange(60), 0 * f)) == (("cs", "sigma2"),)
    doubled = RandomRows(name="cs", codes=twice[0], Z=np.concatenate([Z, Z]), structure="cs")
    assert confounded([doubled], residual(Stratified(1), np.arange(120), 0 * twice[0])) == ()


def test_the_gram_matrix_of_dense_derivatives_gives_the_same_rank() -> None:
    """A small unbalanced crossed design, its matrices dV/dpsi formed densely: rank by singular values."""
    rng = np.random.default_rng(1)
    g = np.sort(rng.integers(0, 9, 40))
    t = np.concatenate([np.arange(c) for c in np.bincount(g, minlength=9)])
    h, x = rng.integers(0, 4, 40), rng.standard_normal(40)
    blocks = [slopes(h, x), intercepts(g)]
    T = int(t.max()) + 1

    for structure in (AR1(), Toeplitz(T), CompoundSymmetry(T)):
        found = confounded(blocks, residual(structure, g, t))

        assert len(found) == 5 + structure.size - dense_rank(structure, g, t, h, x)


def dense_rank(structure: Structure, g: np.ndarray, t: np.ndarray, h: np.ndarray, x: np.ndarray) -> int:
    """Rank of the matrices dV/dpsi of (1 + x | h) + (1 | g) with the residual structure, as vectors."""
    same_h, same_g = np.equal.outer(h, h), np.equal.outer(g, g)
    ones = np.ones(len(g))
    directions = [same_h * (np.outer(a, b) + np.outer(b, a)) for a, b in ((ones, ones), (ones, x), (x, x))]
    phi = 0.3 * np.random.default_rng(2).standard_normal(structure.size)
    R, dR = structure.relative(phi, t[None] * 1.0, t[None])
    directions += [same_g * 1.0, same_g * R[0], *(same_g * d[0] for d in dR)]
    flat = np.array([d.ravel() / np.linalg.norm(d) for d in directions])
    return int(np.linalg.matrix_rank(flat, tol=1e-7))
