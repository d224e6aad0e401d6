"""Prior densities integrate to one or behave as the power they claim; names, texts and defaults do what they say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from bayes_cases import area_design, slopes_design
from scipy import integrate, stats

from hierlmm.bayes import priors as hp
from hierlmm.bayes import priortext
from hierlmm.errors import PriorError

D = (1.0, 0.25, 4.0, 0.5)


def days_design(y, days, groups):
    return slopes_design(y, days, groups, slope="Days")


def five_areas():
    return area_design([1.0, 2, 3, 4, np.nan], [*D, np.nan], np.ones((5, 1)), list("abcde"),
                       ["sampled"] * 4 + ["unsampled"], ("Intercept",))  # fmt: skip


PROPER = [
    hp.HalfT(4, 2.5), hp.HalfT(3, 59.3), hp.HalfCauchy(5), hp.HalfNormal(0.3), hp.Exponential(2), hp.Uniform(7),
    hp.InverseGamma(2, 3), hp.InverseGamma(0.5, 0.1), hp.UniformShrinkage(D), hp.DattaRaoSmith(None, D),
]
IMPROPER = [hp.Flat("sd"), hp.Flat("variance"), hp.Flat("covariance", 3), hp.Flat("log"), hp.GaneshLahiri(D),
            hp.Jeffreys(D), hp.DattaRaoSmith(0.5, D)]


@pytest.mark.parametrize("prior", PROPER, ids=str)
def test_proper_sd_densities_integrate_to_one(prior):
    """Definition of a density; adaptive quadrature over log sd on both sides of 1."""
    def integrand(t):
        return math.exp(float(prior.log_density(math.exp(t))) + t)

    ends = [-60.0, -5.0, 0.0, math.log(min(prior.largest, 1e3)), 60.0]
    total = sum(integrate.quad(integrand, a, b, epsabs=1e-13, limit=500)[0] for a, b in itertools.pairwise(ends))

    assert prior.orders[0] > 0 > prior.orders[1]
    assert total == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("prior", [*PROPER, *IMPROPER], ids=str)
def test_stated_orders_are_the_slopes_of_the_density_at_both_ends(prior):
    """density ~ sd^(a-1) means a log-log slope of a - 1."""
    at_zero, at_infinity = prior.orders
    for order, t in ((at_zero, -12.0), (at_infinity, 12.0)):
        if math.isinf(order):
            continue
        high, low = prior.log_density(np.exp([t + 0.5, t - 0.5]))
        assert float(high - low) == pytest.approx(order - 1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("prior", "scipy_log_density"),
    [
        (hp.HalfT(4, 2.5), lambda x: math.log(2) + stats.t(4, scale=2.5).logpdf(x)),
        (hp.HalfCauchy(5), stats.halfcauchy(scale=5).logpdf),
        (hp.HalfNormal(0.3), stats.halfnorm(scale=0.3).logpdf),
        (hp.Exponential(2), stats.expon(scale=0.5).logpdf),
        (hp.InverseGamma(2, 3), lambda x: stats.invgamma(2, scale=3).logpdf(x**2) + np.log(2 * x)),
    ],
    ids=lambda value: str(value)[:12],
)
def test_sd_densities_equal_scipys(prior, scipy_log_density):
    """scipy.stats as independent implementation."""
    x = np.array([0.01, 0.3, 1.0, 4.0])

    np.testing.assert_allclose(prior.log_density(x), scipy_log_density(x), rtol=1e-12, atol=1e-12)


def test_normal_density_equals_scipys():
    """scipy.stats as independent implementation."""
    np.testing.assert_allclose(hp.Normal(1, 2).log_density([0.0, 3.0]), stats.norm(1, 2).logpdf([0.0, 3.0]), rtol=1e-14)


def test_area_priors_equal_their_published_form_up_to_a_constant():
    """PRIORS: Ganesh & Lahiri 2008, Jeffreys, Datta, Rao & Smith 2005, uniform shrinkage, as densities in A."""
    A, d = np.array([0.2, 3.0]), np.asarray(D)
    V = A[:, None] + d
    published = {
        hp.GaneshLahiri(D): (V**-2).sum(1) / ((d / V) ** 2).sum(1),
        hp.Jeffreys(D): np.sqrt((V**-2).sum(1)),
        hp.DattaRaoSmith(0.25, D): (A + 0.25) ** 2 * (V**-2).sum(1),
        hp.UniformShrinkage(D): (A + 4 / (1 / d).sum()) ** -2.0,
    }

    for prior, density in published.items():
        in_A = prior.log_density(np.sqrt(A)) - np.log(2 * np.sqrt(A))
        assert in_A[1] - in_A[0] == pytest.approx(math.log(density[1] / density[0]), abs=1e-12)


def test_ganesh_lahiri_and_datta_rao_smith_are_flat_on_A_for_equal_variances():
    """PRIORS: equal D reduces both to flat A."""
    equal = (0.7,) * 5
    for prior in (hp.GaneshLahiri(equal), hp.DattaRaoSmith(0.7, equal)):
        difference = prior.log_density([0.1, 2.0]) - hp.Flat("variance").log_density([0.1, 2.0])
        assert difference[0] == pytest.approx(difference[1], abs=1e-12)


@pytest.mark.parametrize("eta", [0.7, 1.0, 2.5])
def test_lkj_in_two_dimensions_is_the_closed_form(eta):
    """Density ∝ (1-ρ²)^(η-1) with constant 2^(2η-1) B(η, η), integrated numerically."""
    def density(rho):
        return math.exp(float(hp.LKJ(eta).log_density([[1, rho], [rho, 1]])))

    total = integrate.quad(lambda a: density(math.sin(a)) * math.cos(a), -math.pi / 2 + 1e-9, math.pi / 2 - 1e-9)[0]

    assert total == pytest.approx(1.0, abs=1e-5)


def test_lkj_one_in_three_dimensions_is_one_over_the_volume_of_the_elliptope():
    """The volume of the 3 x 3 correlation matrices is π²/2 (Rousseeuw & Molenberghs 1994)."""
    assert float(hp.LKJ(1).log_density(np.eye(3))) == pytest.approx(-math.log(math.pi**2 / 2), abs=1e-12)


@pytest.mark.parametrize("prior", [*PROPER, *IMPROPER, hp.Normal(0.1, 1 / 3), hp.LKJ(2)], ids=str)
def test_text_of_a_prior_reads_back_as_the_same_prior(prior):
    """Round trip; the sampling variances come from the design and are not in the text."""
    again = priortext.read(priortext.exact(prior))

    unbound = type(prior)(prior.at) if isinstance(prior, hp.DattaRaoSmith) else prior
    if getattr(prior, "D", None) and not isinstance(prior, hp.DattaRaoSmith):
        unbound = type(prior)()
    assert again == unbound


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sd(tree)=halft(3,2.5)", hp.Priors(sd={"tree": hp.HalfT(3, 2.5)})),
        (" sd( tree:Time ) = exponential( 1e0 ) ", hp.Priors(sd={"tree:Time": hp.Exponential(1)})),
        ("sd=flat(variance)", hp.Priors(sd=hp.Flat("variance"))),
        ("fixed=normal(0,10)", hp.Priors(fixed=hp.Normal(0, 10))),
        ("fixed(attitude[T.pol])=normal(0,-1e-3)", None),
        ("fixed(attitude[T.pol])=normal(-5,2)", hp.Priors(fixed={"attitude[T.pol]": hp.Normal(-5, 2)})),
        ("residual=halfnormal(1)", hp.Priors(residual=hp.HalfNormal(1))),
        ("correlation(tree)=lkj(2)", hp.Priors(correlation={"tree": hp.LKJ(2)})),
        ("flat_sd", hp.Priors(preset="flat_sd")),
        ("tau=flat", None), ("sd(tree)=halft(3)", None), ("sd=halft(3,x)", None), ("sd=lkj(2)", None),
        ("residual(a)=flat", None), ("sd=", None), ("", None), ("sd=halft(3,0)", None), ("sd=halft(3,nan)", None),
        ("sd=__import__('os')", None), ("sd=jeffreys(1)", None),
    ],
)
def test_prior_texts_parse_or_are_refused_as_prior_errors(text, expected):
    """DESIGN: the command-line form of priors."""
    if expected is None:
        with pytest.raises(PriorError):
            hp.parse_prior(text)
    else:
        assert hp.parse_prior(text) == expected


def test_later_prior_texts_win_and_single_names_refine_general_ones():
    """A general text first, then a refinement of it."""
    priors = hp.priors_from(["flat_sd", "sd=halfnormal(1)", "sd(g:Days)=halfnormal(2)", "residual=uniform(9)"])
    resolved = priors.resolve(days_design([1.0, 2, 4, 3], [0, 1, 2, 3], list("aabb")))

    assert resolved.factors[0].sd == (hp.HalfNormal(1), hp.HalfNormal(2))
    assert resolved.residual == hp.Uniform(9)


def test_default_scales_are_sd_of_y_over_rms_of_the_centred_column():
    """DESIGN: HalfT(4, sd(y)/rms of the centred column), sd(y) for intercept and residual, LKJ(1), flat β."""
    y = [1.0, 2, 4, 3]
    resolved = hp.Priors().resolve(days_design(y, [100.0, 102, 104, 106], list("aabb")))

    sd_y, rms = stats.tstd(y), math.sqrt(5.0)
    assert [p.scale for p in resolved.factors[0].sd] == pytest.approx([sd_y, sd_y / rms], rel=1e-14)
    assert isinstance(resolved.residual, hp.HalfT)
    assert resolved.residual.scale == pytest.approx(sd_y, rel=1e-14)
    assert resolved.factors[0].correlation == (hp.LKJ(1.0),)
    assert resolved.fixed == (None, None)
    assert resolved.describe() == (
        "Intercept, Days ~ flat", "sd(g:Intercept) ~ halft(4, 1.291)", "sd(g:Days) ~ halft(4, 0.5774)",
        "correlation(g: Intercept, Days) ~ lkj(1)", "residual sd ~ halft(4, 1.291)",
    )


def test_flat_variance_preset_is_flat_on_the_elements_of_the_covariance_matrix():
    """Jacobian of (s1, s2, ρ) -> (s1², ρ s1 s2, s2²) is 4 s1² s2², by differences."""
    resolved = hp.Priors(preset="flat_variance").resolve(days_design([1.0, 2, 4, 3], [0, 1, 2, 3], list("aabb")))
    s1, s2, rho, h = 0.7, 1.9, 0.3, 1e-6

    def elements(s1, s2, rho):
        return np.array([s1**2, rho * s1 * s2, s2**2])

    at = np.array([s1, s2, rho])
    J = np.column_stack([(elements(*(at + e)) - elements(*(at - e))) / (2 * h) for e in h * np.eye(3)])
    log_jacobian = math.log(abs(np.linalg.det(J)))
    ours = sum(float(p.log_density(s)) for p, s in zip(resolved.factors[0].sd, (s1, s2), strict=True))
    assert ours == pytest.approx(log_jacobian, abs=1e-8)


@pytest.mark.parametrize("preset", ["default", "flat_sd", "flat_variance", "ganesh_lahiri", "jeffreys",
                                    "uniform_shrinkage", "datta_rao_smith"])
def test_resolved_priors_survive_the_mapping_they_are_saved_as(preset):
    """Round trip, area priors with the sampling variances of the areas in the fit."""
    resolved = hp.Priors(preset=preset, fixed=hp.Normal(0, 1 / 3)).resolve(five_areas())

    assert hp.ResolvedPriors.from_mapping(resolved.to_mapping()) == resolved
    assert resolved.residual is None


def test_area_default_is_flat_on_the_sd():
    """DESIGN: Fay-Herriot flat on √A."""
    assert hp.Priors().resolve(five_areas()).factors[0].sd == (hp.Flat("sd"),)


@pytest.mark.parametrize(
    ("priors", "design", "match"),
    [
        (hp.Priors(sd={"tree": hp.Flat()}), "lmm", "found tree"),
        (hp.Priors(fixed={"Dayz": hp.Normal(0, 1)}), "lmm", "Did you mean 'Days'"),
        (hp.Priors(preset="jeffreys"), "lmm", "area-level"),
        (hp.Priors(sd=hp.GaneshLahiri()), "lmm", "linear mixed model"),
        (hp.Priors(residual=hp.Flat()), "area", "no residual sd"),
        (hp.Priors(correlation=hp.LKJ(1)), "area", "no correlations"),
    ],
)
def test_priors_for_parts_the_model_does_not_have_are_refused(priors, design, match):
    """Names come from the design; the message says which exist."""
    target = five_areas() if design == "area" else days_design([1.0, 2, 4, 3], [0, 1, 2, 3], list("aabb"))

    with pytest.raises(PriorError, match=match):
        priors.resolve(target)


def test_default_priors_of_a_constant_response_are_refused():
    """HOSTILE 3: a constant response has no scale to take a prior's from."""
    with pytest.raises(PriorError, match="constant response"):
        hp.Priors().resolve(days_design([2.0] * 4, [0, 1, 2, 3], list("aabb")))


@pytest.mark.parametrize(
    "arguments",
    [{"sd": hp.LKJ(1)}, {"fixed": hp.HalfT(3, 1)}, {"fixed": hp.Flat("variance")}, {"correlation": hp.Flat()},
     {"preset": "horseshoe"}, {"sd": {"g": 3.0}}],
)
def test_priors_of_the_wrong_kind_are_refused_when_stated(arguments):
    """A prior of a correlation is no prior of an sd, and so on."""
    with pytest.raises(PriorError):
        hp.Priors(**arguments)
