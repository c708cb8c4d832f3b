"""How terms are put together in a model, as docs/combining.md shows it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

import lamina
import pages
from cases import AREAS, CASES, SIZES
from lamina import fit, prior_predictive
from lamina.effects import product
from lamina.handlers import predicting, record_terms
from lamina.layers import FixedPriorLayer, RandomEffectsLayer
from lamina.links import poisson_link
from lamina.priors import Adaptive, Fixed
from lamina.products import affine
from support import log_prob, run, shape_of, shapes, trace

pytestmark = pytest.mark.usefixtures("strict_shapes")

PAGE = "combining.md"
GROUPS = 6


@pytest.fixture(scope="module")
def page():
    """What the page defines: its models, layers and priors."""
    return pages.definitions(PAGE)


def rows(n):
    rng = np.random.default_rng(n)
    return rng, rng.normal(size=(n, 2)), rng.integers(0, GROUPS, n)


def agrees(found, shown):
    """Whether a printed line says the same: its words, and its numbers roughly.

    Draws differ from machine to machine by what a chain's length leaves open; whole
    numbers above 50 are effective sample sizes.
    """
    if pages.NUMBER.sub("#", found).split() != pages.NUMBER.sub("#", shown).split():
        return False
    for a, b in zip(
        pages.NUMBER.findall(found), pages.NUMBER.findall(shown), strict=True
    ):
        size = "." not in b and int(b) > 50
        x, y = float(a), float(b)
        if abs(x - y) > (0.5 * y if size else 0.05 + 0.03 * abs(y)):
            return False
    return True


@pytest.mark.slow
def test_the_page_prints_what_it_says():
    namespace = {"__name__": "page"}
    with jax.numpy_rank_promotion("allow"):
        for code, shown in pages.blocks(PAGE):
            found = pages.printed(code, namespace)
            lines = zip(found.splitlines(), shown.splitlines(), strict=True)
            assert all(agrees(a, b) for a, b in lines), f"{found}\nis not\n{shown}"


def test_what_is_printed_is_compared():
    assert agrees("sigma  0.49  1655", "sigma  0.52  1500")
    assert not agrees("sigma  0.49", "sigma  0.60")
    assert not agrees("sigma  0.49", "tau  0.49")
    assert not agrees("sigma  0.49  100", "sigma  0.49  1500")
    assert not agrees("[0.1 0.2]", "[0.1]")


@pytest.mark.parametrize("n", [1, 6])
def test_terms_add(page, n):
    rng, x, group = rows(n)
    y = rng.normal(size=n)
    values = {
        "b.beta": np.array([[1.0]]),
        "x.beta": rng.normal(size=(2, 1)),
        "group.theta": rng.normal(size=(GROUPS, 1)),
        "sigma": np.array(0.7),
    }
    sites = trace(record_terms(page["additive"]), x, group, y, values=values)
    parts = {
        "b": np.ones((1, 1)),
        "x": x @ values["x.beta"],
        "group": values["group.theta"][group],
    }
    for name, expected in parts.items():
        assert_allclose(sites[f"{name}.term"]["value"], expected, rtol=1e-5)
    found = sites["obs"]["fn"].log_prob(jnp.asarray(y))
    mean = sum(parts.values())[:, 0]
    assert_allclose(found, stats.norm.logpdf(y, mean, 0.7), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 6])
def test_one_layer_feeds_a_mean_and_a_scale(page, n):
    rng, x, _ = rows(n)
    y, beta, b = rng.normal(size=n), rng.normal(size=(2, 2)), rng.normal(size=(1, 2))
    model, values = page["mean_and_scale"], {"f.beta": beta, "b.beta": b}
    found = log_prob(model, "obs", x, y, values=values)
    f = b + x @ beta
    expected = stats.norm.logpdf(y, f[:, 0], np.exp(f[:, 1]))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert shapes(model, x)["f.lmbda"] == (2,)


@pytest.mark.parametrize("n", [1, 6])
def test_one_layer_feeds_a_mean_and_a_share_of_zeros(page, n):
    rng, x, _ = rows(n)
    y, beta, b = rng.poisson(1.0, n), rng.normal(size=(2, 2)), rng.normal(size=(1, 2))
    values = {"f.beta": beta, "b.beta": b}
    found = log_prob(page["mean_and_zeros"], "obs", x, y, values=values)
    f = b + x @ beta
    zero = special.expit(f[:, 1])
    mass = zero * (y == 0) + (1.0 - zero) * stats.poisson.pmf(y, np.exp(f[:, 0]))
    assert_allclose(found, np.log(mass), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 6])
def test_the_noise_differs_by_group(page, n):
    rng, _, group = rows(n)
    y, theta = rng.normal(size=n), rng.normal(size=(GROUPS, 1))
    values = {
        "s.group.theta": theta,
        "s.beta": np.full((1, 1), -0.3),
        "b.beta": np.ones((1, 1)),
    }
    found = log_prob(page["noise_by_group"], "obs", group, y, values=values)
    expected = stats.norm.logpdf(y, 1.0, np.exp(-0.3 + theta[group, 0]))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 6])
def test_a_term_is_scaled_by_group(page, n):
    rng, x, group = rows(n)
    y = rng.normal(size=n)
    values = {
        "f.beta": rng.normal(size=(2, 1)),
        "factor.theta": rng.normal(size=(GROUPS, 1)),
        "sigma": np.array(0.7),
    }
    found = log_prob(page["strength_by_group"], "obs", x, group, y, values=values)
    mean = np.exp(values["factor.theta"][group, 0]) * (x @ values["f.beta"])[:, 0]
    assert_allclose(found, stats.norm.logpdf(y, mean, 0.7), rtol=1e-4, atol=1e-4)


def test_the_levels_scales_differ_by_region(page):
    rng, _, group = rows(6)
    lmbda, theta = np.array([0.2, 1.5]), rng.normal(size=(GROUPS, 1))
    values = {"group.lmbda": lmbda, "group.theta": theta}
    found = log_prob(page["scale_by_region"], "group.theta", group, values=values)
    scale = lmbda[[0, 0, 0, 0, 1, 1]][:, None]
    assert_allclose(found, stats.norm.logpdf(theta, 0.0, scale).sum(), rtol=1e-4)


@pytest.mark.parametrize("n", [1, 6])
def test_two_products_share_one_set_of_coefficients(page, n):
    rng, _, home = rows(n)
    away, y = rng.integers(0, GROUPS, n), rng.integers(0, 2, n)
    theta = rng.normal(size=(GROUPS, 1))
    recorded, values = record_terms(page["contest"]), {"skill.theta": theta}
    sites = trace(recorded, home, away, y, values=values)
    assert_allclose(sites["home.term"]["value"], theta[home], rtol=1e-6)
    assert_allclose(sites["away.term"]["value"], theta[away], rtol=1e-6)
    odds = (theta[home] - theta[away])[:, 0]
    expected = stats.bernoulli.logpmf(y, special.expit(odds))
    found = sites["obs"]["fn"].log_prob(jnp.asarray(y))
    assert_allclose(found, expected, rtol=1e-4)
    sampled = {k for k, s in sites.items() if s["type"] == "sample"}
    assert sampled == {"skill.lmbda", "skill.theta", "obs"}


@pytest.mark.parametrize("method", ["vi", "mcmc", "map"])
def test_a_repeated_name_raises_by_any_method(page, method):
    data = {"home": [0, 1], "away": [1, 0], "y": [0, 1]}
    with pytest.raises(ValueError, match=r"'skill.lmbda' is used by two sites.*share"):
        fit(page["repeated"], data, method=method)
    with pytest.raises(ValueError, match=r"'skill.lmbda' is used by two sites"):
        prior_predictive(page["repeated"], data)


def test_shared_coefficients_are_right_in_replicates():
    rng = np.random.default_rng(0)
    x, z, beta = (
        rng.normal(size=(4, 2)),
        rng.normal(size=(4, 2)),
        rng.normal(size=(3, 2, 1)),
    )

    def model():
        with numpyro.plate("replicates", 3):
            shared = Adaptive()("mu", (2, 1))
        return product(affine, x, shared) + product(affine, z, shared)

    found = run(model, values={"mu.beta": beta})
    assert_allclose(found, np.einsum("nd,rdu->rnu", x + z, beta), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [1, 6])
def test_exposure_multiplies_and_an_offset_is_added(page, n):
    rng, x, _ = rows(n)
    time, y, beta = rng.uniform(1, 9, n), rng.poisson(3.0, n), rng.normal(size=(2, 1))
    values = {"f.beta": beta, "b.beta": np.full((1, 1), 0.3)}
    found = log_prob(page["rate"], "obs", x, time, y, values=values)
    rate = time * np.exp(0.3 + x @ beta)[:, 0]
    assert_allclose(found, stats.poisson.logpmf(y, rate), rtol=1e-4)
    y, values = rng.normal(size=n), {"b.beta": values["b.beta"], "sigma": np.array(0.7)}
    found = log_prob(page["known_slope"], "obs", x, y, values=values)
    expected = stats.norm.logpdf(y, 0.3 + 0.7 * x[:, 0], 0.7)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_flat_offset_that_would_set_rows_against_rows_raises():
    def model(x, offset, y):
        with jax.numpy_rank_promotion("allow"):
            return poisson_link(offset + FixedPriorLayer()("f", x), y)

    with pytest.raises(ValueError, match=r"`y` has shape \(3,\).* shape \(3, 3\)"):
        run(model, np.ones((3, 2)), jnp.ones(3), np.ones(3, int))


@pytest.mark.parametrize("n", [1, 6])
def test_two_outcomes_have_names_of_their_own(page, n):
    rng, x, group = rows(n)
    size, visits = rng.normal(size=n), rng.poisson(2.0, n)
    b, beta = rng.normal(size=(1, 2)), rng.normal(size=(2, 2))
    theta = rng.normal(size=(GROUPS, 1))
    values = {
        "b.beta": b,
        "f.beta": beta,
        "group.theta": theta,
        "loading": np.array(0.4),
        "size.sigma": np.array(0.7),
    }
    model, data = page["two_outcomes"], (x, group, size, visits)
    f = b + x @ beta
    level = theta[group, 0]
    found = log_prob(model, "size", *data, values=values)
    expected = stats.norm.logpdf(size, f[:, 0] + level, 0.7)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    found = log_prob(model, "visits", *data, values=values)
    expected = stats.poisson.logpmf(visits, np.exp(f[:, 1] + 0.4 * level))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    sites = trace(model, *data)
    assert "sigma" not in sites
    assert {k for k, s in sites.items() if s.get("is_observed")} == {"size", "visits"}


@pytest.mark.parametrize("n", [1, 6])
def test_a_layer_of_ones_own(page, n):
    layer, x = page["SaturationLayer"](), np.random.default_rng(n).uniform(size=n)
    values = {"v.beta": np.array([[2.0]]), "v.rate.beta": np.array([[-0.5]])}
    found = run(layer, "v", x, values=values)
    expected = 2.0 * x / (np.exp(-0.5) + x)
    assert_allclose(found, expected[:, None], rtol=1e-5)
    assert set(shapes(layer, "v", x)) == {
        "v.lmbda",
        "v.beta",
        "v.rate.lmbda",
        "v.rate.beta",
    }
    known = page["SaturationLayer"](prior=Fixed())
    assert set(shapes(known, "v", x)) == {"v.beta", "v.rate.beta"}
    assert known == page["SaturationLayer"](prior=Fixed()) != layer
    with pytest.raises(TypeError, match="SaturationLayer 'v': `x` holds"):
        run(layer, "v", np.array(["a"]))


def test_a_prior_of_ones_own(page):
    around = page["Around"](scale=0.6)
    assert repr(around) == "Around(scale=0.6)"
    assert around == page["Around"](0.6)
    mean, theta = np.array(1.5), np.random.default_rng(0).normal(size=(GROUPS, 1))
    model, values = page["around"], {"group.mean": mean, "group.theta": theta}
    found = log_prob(model, "group.theta", np.arange(3), values=values)
    assert_allclose(found, stats.norm.logpdf(theta, 1.5, 0.6).sum(), rtol=1e-4)


def test_a_prior_of_ones_own_draws_levels_that_were_not_fitted(page, key):
    layer = RandomEffectsLayer(num_categories=GROUPS, prior=page["Around"](scale=0.1))
    new, values = -1 - np.arange(400), {"g.mean": np.array(5.0)}
    found = run(predicting(layer, key=key), "g", new, values=values)[:, 0]
    assert abs(found.mean() - 5.0) < 4.0 * 0.1 / 20.0
    assert abs(found.std() - 0.1) < 4.0 * 0.1 / np.sqrt(800.0)


COMBINATIONS = [
    code
    for _, _, cell in pages.tables(PAGE)["Any prior on any layer"]
    for code in pages.coded(cell)
]


def test_the_table_names_every_prior():
    named = " ".join(COMBINATIONS)
    values = [getattr(lamina.priors, name) for name in lamina.priors.__all__]
    priors = {v.__name__ for v in values if isinstance(v, type) and callable_prior(v)}
    priors |= {"Correlated", "KnownCovariance", "CAR", "BYM2"}
    missing = {name for name in priors if f"{name}(" not in named and name != "Fixed"}
    assert missing <= {"Horseshoe"}, missing  # whose constructor is `expecting`, too
    assert "Horseshoe.expecting(" in named
    assert "Fixed(" in named


def callable_prior(value):
    form = lamina.priors.PriorForm
    return issubclass(value, form) and value is not form


@pytest.mark.parametrize("code", COMBINATIONS)
def test_the_combinations_of_the_table(code, page):
    root = np.random.default_rng(0).normal(size=(4, 4))
    known = {"dist": dist, "kinship": root @ root.T + np.eye(4), "areas": AREAS}
    layer = eval(code, {**vars(lamina), **known, "sparse": page["sparse"]})
    case = replace(CASES[type(layer).__name__], layer=layer)
    data = case.arguments(5)
    with jax.numpy_rank_promotion("allow"):  # within NumPyro's own distributions
        found = run(case, "mu", *data)
    width = getattr(layer, "units", 1)
    expected = case.shape(case.output, 5)[:1] + (
        (width,) if case.output == "(n, u)" else case.shape(case.output, 5)[1:]
    )
    assert found.shape == expected
    assert np.isfinite(found).all()


KINSHIP = 0.5 * np.eye(SIZES["c"]) + 0.5
PRIORS = [
    Adaptive(groups="column"),
    Fixed(),
    lamina.Horseshoe(),
    lamina.R2D2(),
    lamina.SpikeAndSlab(),
    lamina.Signed(-1),
    lamina.Ordered(),
    lamina.SumToZero(),
    lamina.Correlated(),
    lamina.KnownCovariance(KINSHIP),
]
OWN = {"CARLayer", "BYM2Layer"}
"""Layers that are their priors."""
SINGLE = {"InterceptLayer", "MonotonicLayer"}
"""Layers of one coefficient to a unit, which could not sum to zero."""


@pytest.mark.parametrize("prior", PRIORS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("which", sorted(set(CASES) - OWN))
def test_any_prior_on_any_layer(which, prior):
    """It gives the layer's shape, or says why it cannot."""
    case = CASES[which]
    case = replace(case, layer=replace(case.layer, prior=prior))
    data = case.arguments(5)

    def output():
        with jax.numpy_rank_promotion("allow"):  # within NumPyro's own distributions
            return run(case, "mu", *data)

    own = {f"mu.{site}" for site in case.own_priors}
    tables = {s[0] for site, s in case.tensor_shapes("mu").items() if site not in own}
    related = isinstance(prior, lamina.KnownCovariance)
    if isinstance(prior, lamina.SumToZero) and which in SINGLE:
        with pytest.raises(ValueError, match="at least two along their first axis"):
            shape_of(output)
    elif related and tables != {SIZES["c"]}:
        with pytest.raises(ValueError, match="KnownCovariance relates 4 levels"):
            shape_of(output)
    else:
        assert shape_of(output) == case.shape(case.output, 5)


@pytest.mark.parametrize("which", sorted(OWN))
def test_an_area_layer_is_its_prior(which):
    with pytest.raises(ValueError, match="this layer is its prior"):
        replace(CASES[which].layer, prior=Fixed())


@pytest.mark.slow
def test_shares_of_zeros_and_factors_by_group_are_found_again(page):
    rng = np.random.default_rng(0)
    n = 800
    x, group = rng.normal(size=(n, 2)), rng.integers(0, GROUPS, n)
    f = np.array([0.8, -0.5]) + x @ np.array([[0.4, 0.0], [0.0, 0.9]])
    zero = rng.uniform(size=n) < special.expit(f[:, 1])
    y = np.where(zero, 0, rng.poisson(np.exp(f[:, 0])))
    found = nuts(page["mean_and_zeros"], {"x": x, "y": y})
    near(found.draws["f.beta"], np.array([[0.4, 0.0], [0.0, 0.9]]))

    factor = np.array([0.5, 0.8, 1.0, 1.2, 1.6, 2.2])
    slopes = np.array([[1.0], [-0.6]])
    y = factor[group] * (x @ slopes)[:, 0] + 0.3 * rng.normal(size=n)
    found = nuts(page["strength_by_group"], {"x": x, "group": group, "y": y})
    draws = np.exp(found.draws["factor.theta"]) * found.draws["f.beta"][..., :1, :]
    near(draws[..., 0], factor)  # the product is known, its two parts are not


def nuts(model, data):
    with jax.numpy_rank_promotion("allow"):
        return fit(
            model, data, method="mcmc", num_chains=2, num_warmup=400, num_samples=400
        )


def near(draws, truth):
    mean, sd = draws.mean(axis=(0, 1)), draws.std(axis=(0, 1))
    assert np.all(np.abs(mean - truth) < 4.0 * sd)
    assert np.all(sd < 0.25)
