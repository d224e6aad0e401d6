"""What comes in with the table of areas: matrices by label, variances that are none, transformations; one test a trap.

Numbers in the ids are those of the list of hostile inputs.
"""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from design_tables import area_spec, areas, set_at
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import hierlmm as hl
from hierlmm.design import build, build_lmm, encode, with_response
from hierlmm.design.areavariances import is_absurd
from hierlmm.errors import DesignError

case = pytest.param
NAMES = areas()["area"].tolist()
SPATIAL = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", area_effects=hl.SAR("W"))
ROWS = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", area_effects=hl.SAR("W", standardise="rows"))
CORRELATED = hl.fay_herriot("y ~ x", sampling_covariance="S", area="area")


def ring(**changes):
    """W of ten areas on a ring, each with two neighbours of weight 1/2, as a labelled table."""
    W = (np.eye(10, k=1) + np.eye(10, k=-1) + np.eye(10, k=9) + np.eye(10, k=-9)) / 2
    return pd.DataFrame(W, index=changes.get("index", NAMES), columns=changes.get("columns", NAMES))


def blocks():
    """S of ten areas in pairs, as a labelled table."""
    S = np.diag(areas()["D"]) + 0.02 * np.kron(np.eye(5), np.ones((2, 2)) - np.eye(2))
    return pd.DataFrame(S, index=NAMES, columns=NAMES)


def changed(frame, row, column, value):
    frame = frame.copy()
    frame.loc[row, column] = value
    return frame


# matrices


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(10)), st.permutations(range(10)), st.permutations(range(10)))
def test_matrices_are_aligned_by_label_whatever_their_order(rows, columns, table):
    """Rows, columns and the table in any order: the design of a table in its order, and the same fingerprint parts."""
    spec = hl.fay_herriot("y ~ x", sampling_covariance="S", area="area", area_effects=hl.SAR("W"))
    W, S = ring().iloc[rows, columns], blocks().iloc[columns, rows]

    design = build(spec, areas().iloc[table], {"W": W, "S": S})

    here = design.areas.tolist()
    assert here == [NAMES[k] for k in table]
    assert_array_equal(design.proximity, ring().loc[here, here])
    assert_array_equal(design.covariance, blocks().loc[here, here])
    assert_array_equal(design.D, areas()["D"].to_numpy()[list(table)])
    assert build(spec, areas().iloc[table], {"W": ring(), "S": blocks()}).fingerprint == design.fingerprint


@pytest.mark.parametrize(
    "form",
    [
        lambda W: pl.from_pandas(W.reset_index(names="area")),
        lambda W: pa.Table.from_pandas(W.reset_index(names="area"), preserve_index=False),
        lambda W: W.reset_index(names="area"),
        lambda W: pd.read_csv(io.StringIO(W.to_csv())),
        lambda W: pd.read_csv(io.StringIO(W.to_csv()), index_col=0),
        lambda W: W.set_axis(pd.Categorical(W.index)),
    ],
    ids=["polars", "pyarrow", "label column", "csv", "csv with index", "categories"],
)
def test_tables_of_every_kind_hold_the_same_matrix(form):
    """With a column of labels or an index of them."""
    assert_array_equal(build(SPATIAL, areas(), {"W": form(ring())}).proximity, ring())


def test_numbers_as_labels_match_the_names_of_columns_that_a_file_has_as_text():
    """Areas 1, 2, ... in a CSV file: the columns are text there, the labels of rows are numbers."""
    data, W = areas(area=range(1, 11)), ring(index=range(1, 11), columns=range(1, 11))

    read = pd.read_csv(io.StringIO(W.to_csv()), index_col=0)

    assert_array_equal(build(SPATIAL, data, {"W": read.iloc[::-1]}).proximity, ring())


def test_a_covariance_matrix_may_be_a_sequence_of_blocks():
    """Blocks of labelled areas in any order are the matrix with zeros between them."""
    S, pairs = blocks(), [NAMES[k : k + 2] for k in (4, 0, 8, 2, 6)]

    design = build(CORRELATED, areas(), {"S": [S.loc[pair, pair] for pair in pairs]})

    assert_array_equal(design.covariance, S)
    with pytest.raises(DesignError, match="in S area 0, area 1 stands more than once"):
        build(CORRELATED, areas(), {"S": [S.loc[pair, pair] for pair in (*pairs, NAMES[:2])]})


EXTRA = [*NAMES[:9], "z"]
MATRICES_REFUSED = [
    case(ring().to_numpy(), r"must have labels.*numpy.ndarray of shape \(10, 10\).*index=labels", id="no labels"),
    case(ring().to_numpy().tolist(), "must have labels", id="a list"),
    case(ring().iloc[1:, 1:], "W has no row for areas area 0", id="an area is missing"),
    case(ring(index=EXTRA, columns=EXTRA), "no row for areas area 9.*have no area z", id="an area too many"),
    case(ring(index=[*NAMES[:9], "area 0"]), "in W area 0 stands more than once", id="a label stands twice"),
    case(ring(index=[*NAMES[:9], "z"]), "in W z labels only a row and area 9 only", id="39 rows and columns disagree"),
    case(ring(index=range(10), columns=range(10)), "have no area 0, 1, 2, 3, 4 and 5 more", id="positions for labels"),
    case(ring().iloc[:, :8], "must be square.*10 rows and 8 columns", id="not square"),
    case(ring().astype(object).where(lambda W: W != 0.5, "half"), "must be numbers; W", id="text"),
    case(changed(ring(), "area 3", "area 5", np.nan), r"no finite number at \(area 3, area 5\)", id="a missing weight"),
    case(changed(ring(), "area 3", "area 5", -1.0), r"a negative number at \(area 3, area 5\)", id="a negative weight"),
    case(changed(ring(), "area 3", "area 3", 1.0), "not 0 on the diagonal.*at area 3", id="its own neighbour"),
    case(ring() * 0, "all entries of W are 0", id="no neighbours at all"),
    case(ring(index=[*NAMES[:9], None]), "rows whose label is missing", id="a missing label"),
    case({"area 0": [1]}, "W is of type dict", id="a dict"),
    case(ring(index=[f"{n} " for n in NAMES], columns=[f"{n} " for n in NAMES]), "same writing, blanks", id="blanks"),
]


@pytest.mark.parametrize(("W", "message"), MATRICES_REFUSED)
def test_proximity_matrices_that_are_none_are_refused(W, message):
    """Labels that are missing, extra, twice, of another order of rows and columns; weights that are none."""
    with pytest.raises(DesignError, match=message):
        build(SPATIAL, areas(), {"W": W})


def test_labels_of_another_type_are_named():
    """33: areas 1 and labels "1" agree as text alone."""
    data, text = areas(area=range(10)), [str(k) for k in range(10)]

    with pytest.raises(DesignError, match="the areas are int such as 0, 1 and the labels of W str such as '0', '1'"):
        build(SPATIAL, data, {"W": ring(index=text, columns=text)})


def test_rows_are_divided_where_asked_for_and_sums_and_islands_are_reported():
    """Sums other than 1 are named with the way out; areas without neighbours keep a row of zeros."""
    W = changed(ring() * 4, "area 3", NAMES, 0.0)

    as_given, divided = build(SPATIAL, areas(), {"W": W}), build(ROWS, areas(), {"W": W})

    assert any("9 rows of W do not sum to 1 (sums run from 4 to 4)" in note for note in as_given.notes)
    assert any("were divided by their sums" in note for note in divided.notes)
    assert all(any("without neighbours in W" in n and "area 3" in n for n in d.notes) for d in (as_given, divided))
    assert_array_equal(as_given.proximity, W)
    assert_allclose(divided.proximity.sum(axis=1), [1, 1, 1, 0, *[1] * 6])
    assert_array_equal(divided.matrices["W"], W)
    assert build(SPATIAL, areas(), {"W": ring()}).notes == ()


# Covariances of the first two areas far above their variances.
PAIR = pd.DataFrame(np.pad([[0.0, 0.9], [0.9, 0.0]], (0, 8)), NAMES, NAMES)
COVARIANCES_REFUSED = [
    case(changed(blocks(), "area 0", "area 1", 0.03), r"symmetric; S is not at \(area 0, area 1\)", id="not symmetric"),
    case(blocks() + PAIR, "positive definite.*eigenvalue -.*areas area [01], area [01]", id="not positive definite"),
    case(pd.DataFrame(np.ones((10, 10)), NAMES, NAMES), "positive definite", id="singular"),
    case(changed(blocks(), "area 4", "area 4", -1.0), "S is negative for areas area 4", id="26 negative variance"),
    case(changed(blocks(), "area 4", "area 4", 0.0), "S is 0 for areas area 4.*or set their direct", id="25 zero"),
    case(changed(blocks(), "area 4", "area 5", np.inf), r"not at \(area 4, area 5\)", id="infinite covariance"),
    case(changed(blocks(), "area 4", "area 5", np.nan), r"not at \(area 4, area 5\)", id="missing covariance"),
    case(blocks().iloc[1:, 1:], "S has no row for areas area 0", id="an area is missing"),
    case([], "must have one; S is empty", id="no blocks"),
    case(areas()["D"], "S is of type pandas Series, one column.*sampling_variance", id="a column of variances"),
    case(pl.Series([1.0]), "S is of type polars Series", id="a polars column"),
]


@pytest.mark.parametrize(("S", "message"), COVARIANCES_REFUSED)
def test_covariance_matrices_that_are_none_are_refused(S, message):
    """Asymmetric and indefinite matrices name the areas."""
    with pytest.raises(DesignError, match=message):
        build(CORRELATED, areas(), {"S": S})


def test_matrices_in_the_place_of_others_are_remarked_on():
    """39: a transposed matrix of weights, whose columns sum to 1, and correlations for covariances."""
    rng = np.random.default_rng(3)
    W = pd.DataFrame(rng.dirichlet(np.ones(9), 10), NAMES)
    W = pd.DataFrame([np.insert(row, k, 0.0) for k, row in enumerate(W.to_numpy())], NAMES, NAMES)

    transposed = build(SPATIAL, areas(), {"W": W.T}).notes
    correlations = build(CORRELATED, areas(), {"S": pd.DataFrame(np.eye(10), NAMES, NAMES)}).notes

    assert any("columns of W sum to 1 and its rows do not" in note for note in transposed)
    assert build(SPATIAL, areas(), {"W": W}).notes == ()
    assert any("as that of correlations" in note for note in correlations)
    assert not any("correlations" in note for note in build(CORRELATED, areas(), {"S": blocks()}).notes)


def test_halves_that_differ_in_the_last_digit_are_averaged():
    """Also where one of them is 0: the matrix is exactly symmetric."""
    S = changed(blocks(), "area 0", "area 9", 1e-12)

    design = build(CORRELATED, areas(), {"S": S})

    assert_array_equal(design.covariance, design.covariance.T)
    assert design.covariance[0, 9] == 0.5e-12


def test_areas_without_a_direct_estimate_may_be_absent_from_the_covariance_matrix():
    """Their rows are nan, and they are predicted; the others must be there."""
    spec = hl.fay_herriot("y ~ x", sampling_covariance="S", area="area", unsampled="synthetic")
    data = set_at(areas(), 9, "y", np.nan)

    design = build(spec, data, {"S": blocks().iloc[:9, :9]})

    assert design.role.tolist() == ["sampled"] * 9 + ["unsampled"]
    assert np.isnan(design.covariance[9]).all()
    assert_array_equal(design.covariance[:9, :9], blocks().iloc[:9, :9])


@pytest.mark.parametrize(
    ("spec", "matrices", "message"),
    [
        (SPATIAL, None, "W is missing. Give it"),
        (SPATIAL, {"WW": ring()}, "Did you mean 'WW'"),
        (CORRELATED, None, "S is missing.*A column of variances is named by sampling_variance"),
        (SPATIAL, {"W": ring(), "S": blocks()}, "found also S"),
        (area_spec(), {"W": ring()}, r"names \(none\); found also W"),
        (SPATIAL, [ring()], "given by name"),
        (hl.lmm("y ~ x + (1 | area)"), {"W": ring()}, "found also W"),
    ],
)
def test_matrices_are_those_that_the_spec_names(spec, matrices, message):
    """Missing, misnamed and unasked for."""
    with pytest.raises(DesignError, match=message):
        build(spec, areas(), matrices)


# variances


def test_an_absurd_variance_is_refused_or_treated_as_asked():
    """A residual zero (1e-14 among variances near 1) and a missing-value code (1e12) are named with their values."""
    data = set_at(set_at(areas(), 2, "D", 1e-14), 7, "D", 1e12)

    named = r"areas area 2 \(1e-14\), area 7 \(1e\+12\) are a factor of more than 1e\+08"
    with pytest.raises(DesignError, match=named):
        build(area_spec(), data)
    out = build(area_spec(absurd_variance="unsampled"), data)
    accepted = build(area_spec(absurd_variance="accept"), data)

    assert out.areas[out.role == "unsampled"].tolist() == ["area 2", "area 7"]
    assert any("Absurd sampling variance, taken as areas without" in note for note in out.notes)
    assert accepted.sampled.all()
    assert any("taken as it stands: area 2, area 7" in note for note in accepted.notes)


def test_an_infinite_variance_is_an_area_without_an_estimate_where_asked_for():
    """It is refused otherwise, accepted or not."""
    data = set_at(areas(), 3, "D", np.inf)

    assert build(area_spec(absurd_variance="unsampled"), data).role[3] == "unsampled"
    for policy in ("error", "accept"):
        with pytest.raises(DesignError, match="column D is infinite for areas area 3"):
            build(area_spec(absurd_variance=policy), data)


def test_variances_of_real_surveys_are_not_absurd():
    """Ranges of 24 decades evenly spread, of counts by size, of equal ones, and a few of them: no false alarm; a zero
    but for rounding in them is one."""
    size = np.geomspace(1e3, 1e7, 40)

    assert not is_absurd(np.ones(25), np.logspace(-12, 12, 25)).any()
    assert not is_absurd(size, size * 20).any()
    assert not is_absurd(np.ones(20), np.full(20, 0.3)).any()
    assert not is_absurd(np.ones(3), np.array([1.0, 2.0, 1e11])).any()
    assert not is_absurd(np.zeros(20), np.linspace(0.1, 0.2, 20)).any()
    rounded = is_absurd(np.full(4, 0.3), np.array([1e-3, 2e-3, 1e-3, np.var([0.3] * 7) + 1e-33]))
    assert rounded.tolist() == [False, False, False, True]


def test_zero_variances_may_be_taken_as_no_estimate():
    """25: their direct estimate is kept in the design and not used."""
    design = build(area_spec(zero_variance="unsampled", unsampled="error"), set_at(areas(), 1, "D", 0.0))

    assert design.role[1] == "unsampled"
    assert design.y[1] == areas()["y"][1]
    assert any("Sampling variance 0, taken as areas without a direct estimate: area 1" in note for note in design.notes)


def many(slope, noise=0.1):
    rng = np.random.default_rng(5)
    n = np.geomspace(10, 2000, 30).round()
    x = rng.normal(size=30)
    D = 40 * n**slope * np.exp(noise * rng.normal(size=30))
    return pd.DataFrame({"area": range(30), "y": 100 + x, "x": x, "D": D, "n": n})


@pytest.mark.parametrize(("slope", "doubtful"), [(-1.0, False), (-0.5, True), (-0.8, False), (0.0, False)])
def test_standard_deviations_show_against_sample_sizes(slope, doubtful):
    """37: variances fall as 1/n, standard deviations as 1/√n, and only the latter is remarked on."""
    design = build(area_spec(sample_size="n"), many(slope))

    assert any("as standard deviations do" in note for note in design.notes) is doubtful
    assert_array_equal(design.size, many(slope)["n"])


def test_standard_errors_above_the_estimates_are_remarked_on():
    """37: in most areas the cv of the direct estimate exceeds 100 %."""
    notes = build(area_spec(), areas(D=np.full(10, 400.0))).notes

    assert any("In 10 of 10 areas the standard error exceeds the direct estimate" in note for note in notes)


def test_negative_sample_sizes_are_refused():
    """Sizes are held against the variances alone, and are read as such."""
    with pytest.raises(DesignError, match=r"column n is for areas 3\. Correct"):
        build(area_spec(sample_size="n"), set_at(many(-1.0), 3, "n", -5))


# covariates and labels


def test_an_area_without_its_covariates_is_refused_or_dropped():
    """An unsampled one too: it would get no estimate without a word."""
    data = set_at(set_at(areas(), 4, "y", np.nan), 4, "x", np.nan)

    with pytest.raises(DesignError, match=r'x is missing for areas area 4. Fill .*missing_covariates="drop"'):
        build(area_spec(unsampled="synthetic"), data)
    dropped = build(area_spec(unsampled="synthetic", missing_covariates="drop"), data)

    assert dropped.dropped.rows == (4,)
    assert "area 4" not in dropped.areas


# transformations

SHARES = areas(p=np.linspace(0.05, 0.95, 10), n=np.arange(20.0, 30.0), v=0.001)
ARCSINE = hl.fay_herriot("p ~ x", area="area", transformation=hl.ArcsineRoot(size="n"))
LOGIT = hl.fay_herriot("p ~ x", sampling_variance="v", area="area", transformation=hl.Logit())
LOG = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", transformation=hl.Log())
BESIDE = hl.fay_herriot("p ~ x", sampling_variance="v", area="area", transformation=hl.ArcsineRoot(size="n"))

TRANSFORMATIONS_REFUSED = [
    case(LOG, set_at(areas(), 2, "y", 0.0), r"log y exists for a positive y; y of areas area 2 \(0\)", id="log"),
    case(LOG, areas(y=lambda t: -t["y"]), "area 0 .-11.3., area 1", id="log of negative"),
    case(ARCSINE, SHARES.assign(p=SHARES["p"] * 100), r"percentages: write I\(p / 100\)", id="38 percent"),
    case(ARCSINE, set_at(SHARES, 0, "p", -0.1), r"lies between 0 and 1; p of areas area 0 \(-0.1\).*Corr", id="38"),
    case(LOGIT, set_at(SHARES, 9, "p", 1.0), "strictly between 0 and 1; p of areas area 9.*Arcsine", id="logit 1"),
    case(LOGIT, SHARES.assign(v=10.0), "is above it for 10 of 10 areas.*variances of percentages", id="38 variances"),
    case(ARCSINE, set_at(SHARES, 5, "n", 0.0), "column n is not for areas area 5", id="size 0"),
    case(ARCSINE, set_at(SHARES, 3, "p", 40.0), "area 3 .40. does not. The others are proportions", id="38 one"),
    case(ARCSINE, set_at(SHARES, 5, "n", 1e15), r"the variance 1/\(4 n\) of column n, whose median", id="absurd size"),
    case(BESIDE, set_at(SHARES, 5, "v", -0.1), "column v does not for areas area 5", id="26 arcsine negative variance"),
    case(BESIDE, set_at(SHARES, 5, "v", np.inf), "between 0 and 1/4.*areas area 5", id="arcsine infinite variance"),
    case(BESIDE, SHARES.assign(v=10.0), "column v does not .*percentages are divided", id="38 arcsine variances"),
    case(LOGIT, set_at(SHARES, 5, "v", 2.0), r"area 5 \(2\).*above 0.25, as no variance of a prop", id="38 one D"),
    case(LOG, set_at(areas(), 2, "y", 1e-200), "scale log must be positive and finite.*area 2, whose y", id="log of 0"),
    case(ARCSINE, SHARES.assign(n="many"), "Effective sample sizes must be numeric", id="size is text"),
    case(ARCSINE, set_at(SHARES, 5, "n", np.nan), "p or n is missing for areas area 5", id="27 size missing"),
]


@pytest.mark.parametrize(("spec", "data", "message"), TRANSFORMATIONS_REFUSED)
def test_estimates_outside_the_domain_of_a_transformation_are_refused(spec, data, message):
    """Areas and values are named, with the ways out."""
    with pytest.raises(DesignError, match=message):
        build(spec, data)


def test_a_transformed_design_has_both_scales():
    """y and D on the scale of the model by the delta method, direct and direct_variance as given."""
    log, arcsine, logit = build(LOG, areas()), build(ARCSINE, SHARES), build(LOGIT, SHARES)
    y, D, p = areas()["y"], areas()["D"], SHARES["p"]

    assert_allclose(log.y, np.log(y), rtol=1e-15)
    assert_allclose(log.D, D / y**2, rtol=1e-15)
    assert_array_equal(log.direct_variance, D)
    assert_allclose(arcsine.y, np.arcsin(np.sqrt(p)), rtol=1e-15)
    assert_allclose(arcsine.D, 1 / (4 * SHARES["n"]), rtol=1e-15)
    assert_allclose(arcsine.direct_variance, p * (1 - p) / SHARES["n"], rtol=1e-15)
    assert_array_equal(arcsine.size, SHARES["n"])
    assert_allclose(logit.y, np.log(p / (1 - p)), rtol=1e-14)
    assert_allclose(logit.D, 0.001 / (p * (1 - p)) ** 2, rtol=1e-14)
    assert_array_equal(logit.direct, p)
    assert build(area_spec(), areas()).direct is None


def test_proportions_of_0_and_1_are_no_exception_to_the_arcsine():
    """Their estimated variance is 0, the effective size gives 1/(4 n); a column of variances is for reporting."""
    data = set_at(set_at(SHARES.assign(v=lambda t: t["p"] * (1 - t["p"]) / t["n"]), 0, "p", 0.0), 0, "v", 0.0)

    design = build(BESIDE, data)

    assert design.sampled.all()
    assert (design.y[0], design.D[0], design.direct_variance[0]) == (0.0, 1 / 80, 0.0)


def test_a_variance_that_no_proportion_has_is_treated_as_asked():
    """Above 1/4: no estimate where that is asked for, or as it stands."""
    data = set_at(SHARES, 5, "v", 2.0)

    def role(policy):
        spec = hl.fay_herriot(
            "p ~ x", sampling_variance="v", area="area", transformation=hl.Logit(), absurd_variance=policy
        )
        return build(spec, data).role[5]

    assert (role("unsampled"), role("accept")) == ("unsampled", "sampled")


def test_effective_sizes_below_one_unit_are_remarked_on():
    """As sampling fractions in their place are."""
    notes = build(ARCSINE, SHARES.assign(n=SHARES["n"] / 1000)).notes

    assert any("sizes below 1 in column n: areas area 0, area 1" in note for note in notes)
    assert build(ARCSINE, SHARES).notes == ()


def test_a_transformed_covariance_matrix_follows_by_the_delta_method():
    """S_ij/(y_i y_j)."""
    spec = hl.fay_herriot("y ~ x", sampling_covariance="S", area="area", transformation=hl.Log())
    y = areas()["y"].to_numpy()

    design = build(spec, areas(), {"S": blocks()})

    assert_allclose(design.covariance, blocks() / np.outer(y, y), rtol=1e-14)
    assert_allclose(np.diagonal(design.covariance), design.D, rtol=1e-14)


@pytest.mark.parametrize(("spec", "data"), [(LOG, areas()), (ARCSINE, SHARES), (LOGIT, SHARES)])
def test_other_responses_are_given_on_the_scale_of_the_model(spec, data):
    """`direct` follows them back; the same response gives the same design."""
    design = build(spec, data)
    again = with_response(design, design.y)

    assert_allclose(again.direct, design.direct, rtol=1e-12)
    assert_array_equal(again.y, design.y)


def test_new_rows_need_neither_sizes_nor_matrices():
    """Covariates and labels are all that a prediction reads."""
    design = build(SPATIAL, areas(), {"W": ring()})

    rows = encode(design, pd.DataFrame({"area": ["area 3", "new"], "x": [1.0, 2.0]}))

    assert rows.codes[0].tolist() == [3, -1]


def test_a_linear_mixed_design_is_not_made_of_areas():
    """Every residual of areas is refused there."""
    with pytest.raises(DesignError, match="area-level spec"):
        build_lmm(CORRELATED, areas())
