"""Layers for areas: what they refuse, areas without rows, and recovery."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lamina
from lamina.dependence import CAR, Adjacency, KnownCovariance
from lamina.handlers import predicting
from lamina.layers import (
    BYM2Layer,
    CARLayer,
    FixedPriorLayer,
    InterceptLayer,
    RandomEffectsLayer,
)
from lamina.links import gaussian_link, poisson_link
from lamina.priors import Fixed
from support import run, trace

SIDE = 6
GRID = np.arange(SIDE**2).reshape(SIDE, SIDE)
ACROSS = np.stack([GRID[:, :-1].ravel(), GRID[:, 1:].ravel()], axis=1)
DOWN = np.stack([GRID[:-1].ravel(), GRID[1:].ravel()], axis=1)
LATTICE = Adjacency.from_edges(np.concatenate([ACROSS, DOWN]), SIDE**2)
W = LATTICE.matrix().toarray()
C = SIDE**2
LAYERS = [CARLayer, BYM2Layer]


@pytest.mark.parametrize("cls", LAYERS)
def test_an_adjacency_is_needed_and_checked(cls):
    with pytest.raises(TypeError, match=rf"{cls.__name__} 'g': `adjacency` is missing"):
        run(cls(), "g", np.array([0]))
    one_way = W.copy()
    one_way[0, 7] = 1.0
    with pytest.raises(ValueError, match="not symmetric: area 0 has area 7"):
        cls(one_way)


def test_islands_are_for_bym2():
    padded = np.pad(W, ((0, 1), (0, 1)))
    with pytest.raises(ValueError, match=r"areas \[36\] have no neighbours"):
        CARLayer(padded)
    assert run(BYM2Layer(padded), "g", np.array([36])).shape == (1, 1)


@pytest.mark.parametrize("cls", LAYERS)
def test_the_layer_is_its_prior(cls):
    with pytest.raises(ValueError, match=r"`prior` is given.*RandomEffectsLayer"):
        cls(W, prior=Fixed())
    with pytest.raises(ValueError, match=r"`unseen` is 'draw'.*no known neighbours"):
        cls(W, unseen="draw")


def test_the_layer_is_the_prior_on_a_table():
    codes = np.array([3, 3, 30])
    by_prior = RandomEffectsLayer(num_categories=C, prior=CAR(LATTICE))
    values = {k: v["value"] for k, v in trace(by_prior, "g", codes).items()}
    expected = run(by_prior, "g", codes, values=values)
    assert_array_equal(run(CARLayer(W), "g", codes, values=values), expected)


@pytest.mark.parametrize("cls", LAYERS)
def test_layers_are_values(cls):
    one, same = cls(W), cls(LATTICE)
    assert one == same
    assert hash(one) == hash(same)
    assert one != cls(W, lmbda_kwargs={"scale": 2.0})
    assert pickle.loads(pickle.dumps(one)) == one
    shown = f"{cls.__name__}(adjacency=Adjacency(num_areas=36, 60 edges))"
    assert repr(one) == shown


@pytest.mark.parametrize("cls", LAYERS)
def test_codes_are_areas(cls, key):
    with pytest.raises(ValueError, match="code 36 is past its table of 36"):
        run(cls(W), "g", np.array([36]))
    with pytest.raises(TypeError, match="codes have dtype float64"):
        run(cls(W), "g", np.array([0.5]))
    with pytest.raises(ValueError, match="code -1 is negative"):
        run(predicting(cls(W), key=key), "g", np.array([-1]))
    found = run(predicting(cls(W, unseen="zero"), key=key), "g", np.array([-1, 4]))
    assert found[0] == 0.0
    assert found[1] != 0.0


@pytest.mark.parametrize("prior", [CAR(LATTICE), KnownCovariance(np.eye(C))])
def test_levels_that_relate_to_none_are_not_drawn(prior, key):
    layer = RandomEffectsLayer(num_categories=C, prior=prior)
    model = predicting(layer, key=key)
    with pytest.raises(
        ValueError, match=r"code -2 is a level.*Include it when fitting"
    ):
        run(model, "g", np.array([3, -2]))
    assert run(model, "g", np.array([3, 0])).shape == (2, 1)
    found = jax.jit(lambda codes: run(model, "g", codes))(jnp.array([3, -2]))
    assert_array_equal(np.isnan(found[:, 0]), [False, True])
    zero = RandomEffectsLayer(num_categories=C, prior=prior, unseen="zero")
    assert run(predicting(zero, key=key), "g", np.array([-2])) == 0.0


def test_a_traced_adjacency_says_what_to_do():
    def model(w, codes):
        return CARLayer(w)("g", codes)

    with pytest.raises(TypeError, match=r"traced by JAX.*outside of the model"):
        jax.jit(lambda w: run(model, w, np.array([0])))(W)


def smooth_field(seed):
    """Effects by a proper autoregression of scale 1.5 and alpha 0.97."""
    precision = np.diag(W.sum(axis=1)) - 0.97 * W
    rng = np.random.default_rng(seed)
    theta = 1.5 * np.linalg.cholesky(np.linalg.inv(precision)) @ rng.normal(size=C)
    return theta, rng


def exact(theta_prior, codes, y, noise):
    """Posterior mean of the effects, all scales known: Bishop (2006), eq. 2.116."""
    design = np.eye(C)[codes]
    precision = np.linalg.inv(theta_prior) + design.T @ design / noise**2
    covariance = np.linalg.inv(precision)
    return covariance @ design.T @ y / noise**2, np.sqrt(np.diag(covariance))


def fixed(number):
    return dist.Uniform(number - 1e-4, number + 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("centered", [False, True])
def test_car_effects_have_the_exact_posterior_where_scales_are_known(centered):
    theta, rng = smooth_field(0)
    codes = rng.choice(np.arange(C - 4), size=60)  # the last four have no rows
    y = theta[codes] + 0.5 * rng.normal(size=60)
    prior = CAR(
        LATTICE, centered=centered, lmbda_dist=fixed(1.5), alpha_dist=fixed(0.97)
    )
    layer = RandomEffectsLayer(num_categories=C, prior=prior)

    def model(codes, y=None):
        return gaussian_link(layer("g", codes), y, scale=0.5)

    data = {"codes": codes, "y": y}
    options = {"num_warmup": 500, "num_samples": 2000, "num_chains": 1}
    posterior = lamina.fit(model, data, method="mcmc", **options)
    every = posterior.predict({"codes": np.arange(C)}, kind="mean")
    matrix = 1.5**2 * np.linalg.inv(np.diag(W.sum(axis=1)) - 0.97 * W)
    mean, sd = exact(matrix, codes, y, 0.5)
    assert np.all(np.abs(every.mean - mean) < 0.15 * sd)
    assert_allclose(every.sd, sd, rtol=0.15)


@pytest.mark.slow
def test_bym2_recovers_a_smooth_map_of_counts():
    rng = np.random.default_rng(3)
    x, y = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE))
    theta = (0.8 * np.sin(2.0 * x) + 0.5 * y).ravel()
    exposure = rng.normal(size=C)
    count = rng.poisson(np.exp(1.5 + 0.4 * exposure + theta))

    def model(exposure, area, y=None):
        eta = InterceptLayer(coef_kwargs={"loc": 0.0, "scale": 5.0})("a")
        eta = eta + FixedPriorLayer()("b", exposure) + BYM2Layer(LATTICE)("g", area)
        return poisson_link(eta, y)

    data = {"exposure": exposure, "area": np.arange(C), "y": count}
    options = {"num_warmup": 500, "num_samples": 500, "num_chains": 1}
    draws = lamina.fit(model, data, method="mcmc", **options).draws
    slope = draws["b.beta"].ravel()
    assert abs(slope.mean() - 0.4) < 3.0 * slope.std()
    assert draws["g.phi"].mean() > 0.5
    effects = draws["g.theta"].reshape(-1, C).mean(axis=0)
    assert np.corrcoef(effects, theta)[0, 1] > 0.9
    deviation = draws["g.lmbda"].mean()
    assert 0.3 < deviation < 1.2


@pytest.mark.slow
def test_the_intrinsic_autoregression_recovers_its_scale():
    rng = np.random.default_rng(1)
    values, vectors = np.linalg.eigh(np.diag(W.sum(axis=1)) - W)
    theta = vectors[:, 1:] @ (0.8 * rng.normal(size=C - 1) / np.sqrt(values[1:]))
    codes = np.repeat(np.arange(C), 3)
    y = 2.0 + theta[codes] + 0.3 * rng.normal(size=len(codes))

    def model(codes, y=None):
        eta = InterceptLayer(coef_kwargs={"loc": 0.0, "scale": 5.0})("a")
        return gaussian_link(eta + CARLayer(W, proper=False)("g", codes), y)

    options = {"num_warmup": 500, "num_samples": 500, "num_chains": 1}
    draws = lamina.fit(model, {"codes": codes, "y": y}, method="mcmc", **options).draws
    for site, truth in (("g.lmbda", 0.8), ("a.beta", 2.0), ("sigma", 0.3)):
        found = draws[site].ravel()
        assert abs(found.mean() - truth) < 3.0 * found.std()
    assert_allclose(draws["g.theta"].sum(axis=-2), 0.0, atol=1e-4)
