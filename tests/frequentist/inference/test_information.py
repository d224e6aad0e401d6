"""Information matrices against dense traces and high-order differences of the dense criterion."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl

METHODS = ("reml", "ml")
CASES = {
    "slopes": ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    "crossed": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    "intercept": ("sitka", "size ~ Time * treat + (1 | tree)"),
    "independent": ("sitka", "size ~ Time + (Time || tree)"),
}


def sitka() -> pd.DataFrame:
    """79 trees at 5 times, with the occasions numbered."""
    table = hl.load("sitka").data
    return table.assign(occ=table.groupby("tree")["Time"].rank().astype(int))


def some(name: str) -> pd.DataFrame:
    """Two thirds of a table, so that nothing is balanced and observed and expected information differ."""
    table = hl.load(name).data
    return table[(7 * np.arange(len(table))) % 3 != 0]


@pytest.fixture(scope="module", params=[(case, method) for case in CASES for method in METHODS],
                ids=lambda pair: "-".join(pair))  # fmt: skip
def fit(request):
    case, method = request.param
    name, formula = CASES[case]
    return hl.fit(hl.lmm(formula), some(name), method)


class Dense:
    """V of a fit as a function of its variance parameters, in the order of the information, by n x n matrices."""

    def __init__(self, fit: hl.LMMFit) -> None:
        self.fit, self.X, self.y = fit, fit.design.X, fit.design.y
        n = len(self.y)
        self.slopes = []
        for factor in fit.design.factors:
            same = factor.codes[:, None] == factor.codes
            for block in factor.blocks:
                for c, b in enumerate(block):
                    for a in block[c:]:
                        E = np.zeros((len(factor.coefficients),) * 2)
                        E[a, b] = E[b, a] = 1.0
                        self.slopes.append(same * (factor.Z @ E @ factor.Z.T))
        self.slopes.append(np.eye(n))
        values = []
        for factor, G in zip(fit.design.factors, fit.G, strict=True):
            for block in factor.blocks:
                values += [G[a, b] for c, b in enumerate(block) for a in block[c:]]
        self.values = np.array([*values, fit.sigma2])

    def projected(self, values):
        V = np.tensordot(values, np.array(self.slopes), axes=1)
        W = np.linalg.inv(V)
        M = np.linalg.inv(self.X.T @ W @ self.X)
        return V, W, M, W - W @ self.X @ M @ self.X.T @ W

    def loglik(self, values, beta=None):
        """Log likelihood (restricted under REML), beta profiled out unless given."""
        V, W, M, P = self.projected(values)
        r = self.y - self.X @ beta if beta is not None else self.y
        quadratic = r @ (W if beta is not None else P) @ r
        value = -0.5 * (np.linalg.slogdet(V)[1] + quadratic)
        return value + (0.5 * np.linalg.slogdet(M)[1] if self.fit.method == "reml" else 0.0)


def hessian(f, x, h):
    """Second derivatives by central differences of the fourth order in both directions."""
    weights = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
    out = np.empty((len(x), len(x)))
    for i in range(len(x)):
        for j in range(i + 1):
            total = 0.0
            for a, u in weights.items():
                for b, v in weights.items():
                    moved = x.copy()
                    moved[i] += a * h[i]
                    moved[j] += b * h[j]
                    total += u * v * f(moved)
            out[i, j] = out[j, i] = total / (h[i] * h[j])
    return out


def test_expected_and_average_are_the_dense_formulas(fit):
    """½ tr(P V_r P V_s), V⁻¹ for P under ML; ½ y'P V_r P V_s P y."""
    dense = Dense(fit)
    _, W, _, P = dense.projected(dense.values)
    Q = P if fit.method == "reml" else W
    expected = 0.5 * np.array([[np.sum((Q @ a) * (Q @ b).T) for b in dense.slopes] for a in dense.slopes])
    images = np.array([a @ P @ dense.y for a in dense.slopes])
    average = 0.5 * images @ P @ images.T

    assert_allclose(fit.information().matrix, expected, rtol=1e-7, atol=1e-12)
    assert_allclose(fit.information("average").matrix, average, rtol=1e-6, atol=1e-7 * np.abs(average).max())


def test_observed_is_the_hessian_of_the_dense_criterion(fit):
    """Fourth-order differences of the log likelihood that was maximised: 1e-5 of each pair of diagonal elements."""
    dense = Dense(fit)
    found = fit.information("observed")
    se = found.frame["se"].to_numpy()
    exact = -hessian(dense.loglik, dense.values, 0.02 * se)

    assert_allclose(found.matrix * np.outer(se, se), exact * np.outer(se, se), atol=2e-5)
    assert_allclose(found.covariance, np.linalg.inv(found.matrix), rtol=1e-6, atol=1e-10)


def test_sds_and_correlations_by_the_chain_rule(fit):
    """Observed information of sds and correlations: differences of the same criterion in those."""
    dense = Dense(fit)
    found = fit.information("observed", "sd")
    quantities = found.frame["quantity"].tolist()

    def elements(x):
        out = np.empty_like(x)
        for i, quantity in enumerate(quantities):
            out[i] = x[i] ** 2 if quantity == "sd" else x[i] * x[i - 1] * x[i + 1]
        return out

    start = found.frame["estimate"].to_numpy()
    se = found.frame["se"].to_numpy()
    exact = -hessian(lambda x: dense.loglik(elements(x)), start, 0.02 * se)

    assert_allclose(elements(start), dense.values, rtol=1e-10)
    assert_allclose(found.matrix * np.outer(se, se), exact * np.outer(se, se), atol=2e-5)


def test_fixed_effects_join_under_the_observed_information(fit):
    """ML: the inverse of the Hessian in (beta, psi) together. Both: beta-hat's derivative in psi by differences."""
    dense, p = Dense(fit), len(fit.beta)
    found = fit.information("observed", of="all")
    se = found.frame["se"].to_numpy()
    slopes = np.array([
        (_beta(dense, dense.values + h) - _beta(dense, dense.values - h)) / (2 * h.max())
        for h in np.diag(1e-4 * se[p:])
    ]).T  # fmt: skip
    cross = slopes @ found.covariance.to_numpy()[p:, p:]

    scale = np.outer(se[:p], se[p:])
    assert_allclose(found.covariance.to_numpy()[:p, p:] / scale, cross / scale, atol=1e-6)
    assert_allclose(found.matrix.to_numpy() @ found.covariance.to_numpy(), np.eye(len(se)), atol=1e-6)
    if fit.method == "ml":
        whole = -hessian(
            lambda x: dense.loglik(x[p:], x[:p]), np.concatenate([fit.beta, dense.values]), 0.02 * se
        )  # fmt: skip
        assert_allclose(found.matrix * np.outer(se, se), whole * np.outer(se, se), atol=2e-5)


def _beta(dense, values):
    _, W, M, _ = dense.projected(values)
    return M @ dense.X.T @ W @ dense.y


def test_expected_information_separates_effects_and_variances(fit):
    """A zero block, and (X'V⁻¹X)⁻¹ beside the inverse information."""
    found, p = fit.information(of="all"), len(fit.beta)

    assert not found.matrix.to_numpy()[:p, p:].any()
    assert_allclose(found.covariance.to_numpy()[:p, :p], fit.vcov_beta, rtol=1e-9)
    assert_allclose(found.covariance.to_numpy()[p:, p:], fit.information().covariance, rtol=1e-9)
    assert list(found.matrix.index[:p]) == list(fit.design.fixed)


def by_tree(fit: hl.LMMFit, matrix):
    """-2 log likelihood of size ~ Time of 79 trees with V = matrix(values), 5 x 5."""
    table = sitka().sort_values(["tree", "occ"])
    y = table["size"].to_numpy().reshape(79, 5)
    X = np.column_stack([np.ones(5), np.sort(table["Time"].unique())])

    def loglik(values):
        V = matrix(values)
        VX = np.linalg.solve(V, X)
        A = 79 * X.T @ VX
        r = y - X @ np.linalg.solve(A, VX.T @ y.sum(axis=0))
        value = 79 * np.linalg.slogdet(V)[1] + (r * np.linalg.solve(V, r.T).T).sum()
        return -0.5 * (value + (np.linalg.slogdet(A)[1] if fit.method == "reml" else 0.0))

    return X, loglik


def _ar1(x):
    return x[0] ** 2 * x[1] ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))


def _unstructured(x):
    R = np.eye(5)
    R[np.triu_indices(5, 1)] = x[5:]
    return np.outer(x[:5], x[:5]) * (R + R.T - np.eye(5))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("structure", "matrix"), [(hl.AR1, _ar1), (hl.Unstructured, _unstructured)])
def test_residual_structures_against_five_by_five_matrices(structure, matrix, method):
    """Sitka by gls, sds and correlations: observed by differences of the criterion tree by tree, expected by traces
    of differences of V."""
    fit = hl.fit(hl.lmm("size ~ Time", residual=structure("tree", "occ")), sitka(), method)
    observed, expected = (fit.information(kind, "sd") for kind in ("observed", "expected"))
    x, se = observed.frame["estimate"].to_numpy(), expected.frame["se"].to_numpy()
    X, loglik = by_tree(fit, matrix)
    W = np.linalg.inv(matrix(x))
    slopes = [(matrix(x + h) - matrix(x - h)) / (2 * h.max()) for h in np.diag(1e-4 * se)]
    traces = 79 * np.array([[np.sum((W @ a) * (W @ b).T) for b in slopes] for a in slopes])
    if method == "reml":
        M = np.linalg.inv(79 * X.T @ W @ X)
        one = [79 * X.T @ W @ a @ W @ X for a in slopes]
        traces += np.array([[np.trace(M @ a @ M @ b) for b in one] for a in one])
        traces -= 2 * 79 * np.array([[np.trace(M @ X.T @ W @ a @ W @ b @ W @ X) for b in slopes] for a in slopes])

    assert_allclose(expected.matrix * np.outer(se, se), 0.5 * traces * np.outer(se, se), atol=1e-6)
    near = 1 / np.sqrt(np.diag(expected.matrix))
    exact = -hessian(loglik, x, 0.02 * near)
    assert_allclose(observed.matrix * np.outer(near, near), exact * np.outer(near, near), atol=2e-5)


def test_random_effects_beside_a_structure_agree_with_equal_models():
    """A random intercept with AR(1) residuals: the expected information from clusters lies with the observed one; the
    compound symmetry part alone is the random intercept model, whose information has traces of its own."""
    table = sitka()
    both = hl.fit(hl.lmm("size ~ Time + (1 | tree)", residual=hl.HeterogeneousAR1("tree", "occ")), table, "ml")
    names = ["sd(Intercept | tree)", *(f"sd({i} | Residual)" for i in range(1, 6)), "correlation(lag 1 | Residual)"]
    marginal = hl.fit(hl.lmm("size ~ Time", residual=hl.CompoundSymmetry("tree")), table, "ml")
    random = hl.fit(hl.lmm("size ~ Time + (1 | tree)"), table, "ml")
    a, s = (random.G[0][0, 0], random.sigma2)
    jacobian = np.array([[1.0, 1.0], [s / (a + s) ** 2, -a / (a + s) ** 2]])  # of a + s and a / (a + s)

    for kind in ("expected", "observed", "average"):
        assert list(both.information(kind, "sd").matrix.index) == names
        assert_allclose(
            marginal.information(kind).covariance,
            jacobian @ random.information(kind).covariance.to_numpy() @ jacobian.T, rtol=1e-5,
        )  # fmt: skip


def test_blocks_of_one_variance_have_one_parameter():
    """identity: one variance; cs: a variance and a covariance. Observed by differences of the dense criterion."""
    rng = np.random.default_rng(5)
    g, f = np.repeat(np.arange(14), 6), np.tile(np.repeat(np.arange(3), 2), 14)
    b = rng.multivariate_normal(np.zeros(3), 2 * (0.6 * np.eye(3) + 0.4), 14)
    table = pd.DataFrame({"y": b[g, f] + rng.normal(size=84), "f": np.array(list("abc"))[f], "g": g}).drop([3, 40, 66])
    same_g, same_f = (table[c].to_numpy()[:, None] == table[c].to_numpy() for c in ("g", "f"))
    for structure, parts in (
        ("identity", [same_g & same_f, np.eye(81)]),
        ("cs", [same_g & same_f, same_g & ~same_f, np.eye(81)]),
    ):
        fit = hl.fit(hl.lmm(f"y ~ f + {structure}(0 + f | g)"), table)
        dense = Dense(fit)
        dense.slopes = [np.asarray(part, dtype=float) for part in parts]
        found = fit.information("observed")
        x, se = found.frame["estimate"].to_numpy(), found.frame["se"].to_numpy()
        exact = -hessian(dense.loglik, x, 0.02 * se)

        assert found.frame["term"][0] == "f[a], f[b], f[c]"
        assert_allclose(found.matrix * np.outer(se, se), exact * np.outer(se, se), atol=2e-5)


def test_known_variances_and_boundaries():
    """Known residual variances leave A alone: ½ tr P². On the boundary the variance scale has an information, of which
    what is held has no inverse; the sd scale has none."""
    milk = hl.load("milk").data
    known = hl.fit(hl.lmm("yi ~ 1 + (1 | SmallArea)", residual=hl.KnownVariances("vardir")), milk)
    w = 1 / (known.G[0][0, 0] + milk["vardir"].to_numpy())
    P = np.diag(w) - np.outer(w, w) / w.sum()
    zero = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff2").data)
    s4 = zero.sigma2**2
    found = zero.information()

    assert_allclose(known.information().matrix, [[0.5 * np.sum(P * P)]], rtol=1e-9)
    # 6 batches of 5: tr(PZZ') = 25, tr(PZZ'PZZ') = 125, tr(P²) = 29 over the powers of sigma²
    assert_allclose(found.matrix, 0.5 / s4 * np.array([[125, 25], [25, 29]]), rtol=1e-9)
    assert found.covariance.iloc[0].isna().all()
    assert_allclose(found.covariance.iloc[1, 1], 2 * s4 / 29, rtol=1e-9)
    assert "on the boundary are held" in found.summary()
    with pytest.raises(hl.FitError, match=r"variance\(|sd\(Intercept \| Batch\).*scale='variance'"):
        zero.information(scale="sd")


def test_bad_requests_are_refused():
    fit = hl.fit(hl.lmm("Reaction ~ Days + (1 | Subject)"), hl.load("sleepstudy").data)

    with pytest.raises(hl.FitError, match=r"expected, observed, average; found 'fisher'"):
        fit.information("fisher")
    with pytest.raises(hl.FitError, match=r"variance, sd; found 'log'"):
        fit.information(scale="log")
    with pytest.raises(hl.FitError, match=r"'variances' or 'all'; found True"):
        fit.information(of=True)
