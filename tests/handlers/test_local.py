"""Local reparameterization: used where it is sound, the same expectation, less noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.contrib.control_flow import scan as numpyro_scan
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO, autoguide
from numpyro.infer.reparam import LocScaleReparam

from infer_helpers import (
    in_batches,
    largest_error,
    normal_guide,
    regression,
    start,
    start_params,
)
from lamina.effects import product
from lamina.handlers import row_weights
from lamina.handlers.local import local_reparameterization
from lamina.handlers.soundness import LOCAL
from lamina.infer import LocalReparameterization_ELBO, elbo, svi_run_batched
from lamina.layers import AdaptiveLayer, InterceptLayer, RandomEffectsLayer
from lamina.links import gaussian_link_exp, logit_link, poisson_link
from lamina.products import affine, lookup

N, D, C = 12, 2, 3


@pytest.fixture(scope="module")
def rows():
    made, _ = regression(N, D)
    made["g"] = np.arange(N) % C
    return {
        k: jnp.asarray(v, jnp.float32 if k in "xy" else int) for k, v in made.items()
    }


def weights(name="w", shape=(D, 1)):
    prior = dist.Normal(0.0, 1.0).expand(list(shape)).to_event(len(shape))
    return numpyro.sample(name, prior)


def outcome(mu, y, scale=0.5, name="y"):
    numpyro.sample(name, dist.Normal(mu, scale), obs=y)


def net(x, y, activation=jnp.tanh, width=4, **_):
    hidden = activation(product(affine, x, weights("w1", (x.shape[1], width))))
    outcome(product(affine, hidden, weights("w2", (width, 1)))[:, 0], y)


def layers(x, y, g, **_):
    mu = AdaptiveLayer()("x", x) + RandomEffectsLayer()("g", g, C)
    gaussian_link_exp(mu + InterceptLayer()("c"), y)


def linear(x, y, **_):
    outcome(product(affine, x, weights())[:, 0], y)


def mean_field(model, rows):
    """A hand-written mean-field guide: quicker to start than an automatic one."""
    latent = {}

    def run(rows):
        with handlers.trace() as sites, handlers.seed(rng_seed=0):
            model(**rows)
        for name, site in sites.items():
            if site["type"] == "sample" and not site["is_observed"]:
                fn = site["fn"]
                real = getattr(fn.support, "base_constraint", fn.support)
                latent[name] = fn.shape(), real is dist.constraints.real

    jax.eval_shape(run, rows)

    def guide(**_):
        for name, (shape, real) in latent.items():
            if real:
                normal_guide(name, shape)
            else:
                loc = numpyro.param(f"{name}.loc", jnp.zeros(shape))
                numpyro.sample(name, dist.LogNormal(loc, 0.2).to_event(len(shape)))

    return guide


def estimators(model, rows, guide=None, params=None):
    """What the objective reports for each site."""
    loss = LocalReparameterization_ELBO()
    loss.prepare(params or {}, model, guide or mean_field(model, rows), **rows)
    return loss.estimators


# --- where it is used --------------------------------------------------------------


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.relu])
def test_both_layers_of_a_net_have_it(activation, rows):
    model = functools.partial(net, activation=activation)
    assert estimators(model, rows) == {"w1": LOCAL, "w2": LOCAL}


@pytest.mark.slow
def test_layers_have_it_where_a_product_is_linear(rows):
    loss, guide = LocalReparameterization_ELBO(), autoguide.AutoNormal(layers)
    svi = SVI(layers, guide, optax.adam(0.01), loss)
    _, value = jax.jit(svi.update)(start(svi, rows), **rows)
    assert np.isfinite(value)
    found = loss.estimators
    assert {name for name, kind in found.items() if kind == LOCAL} == {
        "x.beta",
        "g.theta",
    }
    assert list(found) == ["x.lmbda", "x.beta", "g.lmbda", "g.theta", "c.beta", "sigma"]
    assert found["c.beta"].endswith("it enters no product linear in it")
    assert found["sigma"].endswith("its guide is no mean-field Normal")


def positive_outcome(x, y, **_):
    mean = jnp.exp(product(affine, x, weights())[:, 0])
    numpyro.sample("y", dist.Gamma(2.0, 2.0 / mean), obs=jnp.abs(y))


def share(x, y, **_):
    mean = jax.nn.sigmoid(product(affine, x, weights())[:, 0])
    numpyro.sample("y", dist.Beta(4 * mean, 4 - 4 * mean), obs=y)


def counts_as_floats(x, y, **_):
    poisson_link(product(affine, x, weights()), y)


def binary_as_floats(x, y, **_):
    logit_link(product(affine, x, weights()), y)


def row_latent(x, y, **_):
    z = numpyro.sample("z", dist.Normal(product(affine, x, weights())[:, 0], 1.0))
    outcome(z, y)


def scoped(x, y, **_):
    with handlers.scope(prefix="net", divider="."):
        linear(x, y)


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (positive_outcome, jnp.abs),
        (share, jax.nn.sigmoid),
        (counts_as_floats, lambda y: jnp.round(jnp.abs(y))),
        (binary_as_floats, lambda y: (y > 0).astype(y.dtype)),
        (scoped, lambda y: y),
    ],
)
def test_any_outcome_may_have_it(model, change, rows):
    """The rows that the model is examined on are made up, whatever the support."""
    given = {**rows, "y": change(rows["y"])}
    (kind,) = estimators(model, given).values()
    assert kind == LOCAL


def test_a_row_latent_around_a_product(rows):
    def guide(x, y, **_):
        normal_guide("w", (D, 1))
        numpyro.sample("z", dist.Normal(0.5 * y, 0.3))

    found = estimators(row_latent, rows, guide)
    assert found["w"] == LOCAL
    assert found["z"] != LOCAL


def test_site_names_are_free(rows):
    """Also those that the arguments of functions inside have."""

    def model(x, y, **_):
        mu = product(affine, x, weights("fn")) + product(affine, x, weights("data"))
        outcome(mu[:, 0], y)

    assert estimators(model, rows) == {"fn": LOCAL, "data": LOCAL}


# --- where it is not ---------------------------------------------------------------


def shared(x, y, **_):
    w = weights()
    outcome(product(affine, x, w)[:, 0] * product(affine, x**2, w)[:, 0], y)


def also_outside(x, y, **_):
    w = weights()
    outcome(product(affine, x, w)[:, 0] + w.sum(), y)


def in_a_scale(x, y, **_):
    w = weights()
    with handlers.scale(scale=jnp.exp(w.sum())):
        outcome(product(affine, x, w)[:, 0], y)


def in_another_prior(x, y, **_):
    w = weights()
    v = numpyro.sample("v", dist.Normal(w[0, 0], 1.0).expand([D, 1]).to_event(2))
    outcome(product(affine, x, w)[:, 0] + product(affine, x, v)[:, 0], y)


def derived(x, y, **_):
    outcome(product(affine, x, 2.0 * weights())[:, 0], y)


def data_from_itself(x, y, **_):
    w = weights()
    outcome(product(affine, x * jnp.tanh(w[:, 0]), w)[:, 0], y)


def not_a_product(x, y, **_):
    outcome((x @ weights())[:, 0], y)


def not_linear(x, y, **_):
    outcome(product(lambda x, w: jnp.tanh(x @ w), x, weights())[:, 0], y)


def reparameterised(x, y, **_):
    with handlers.reparam(config={"w": LocScaleReparam(0.0)}):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
        prior = dist.Normal(0.0, scale).expand([D, 1]).to_event(2)
        outcome(product(affine, x, numpyro.sample("w", prior))[:, 0], y)


def scanned(x, y, **_):
    """A recurrence: one draw of the coefficients enters every step."""
    w = weights(shape=(1, 1))

    def step(h, _):
        return jnp.tanh(product(affine, h, w) + x[:, :1]), None

    h, _ = jax.lax.scan(step, x[:, :1], None, length=3)
    outcome(h[:, 0], y)


def scanned_rows(x, y, **_):
    w = weights()

    def step(carry, row):
        return carry, product(affine, row[None], w)[0, 0]

    outcome(jax.lax.scan(step, 0.0, x)[1], y)


def scanned_by_numpyro(x, y, **_):
    w = weights()

    def step(carry, row):
        return carry, product(affine, row[None], w)[0, 0]

    outcome(numpyro_scan(step, 0.0, x)[1], y)


def mapped(x, y, **_):
    w = weights()
    outcome(jax.vmap(lambda row: product(affine, row[None], w)[0, 0])(x), y)


def centred(x, y, **_):
    mu = product(affine, x, weights())[:, 0]
    outcome(mu - mu.mean(), y)


def faintly_centred(x, y, **_):
    """Beside a sharp density, an interaction too small to see in its digits."""
    mu = product(affine, x, weights())[:, 0]
    sharp = dist.Normal(mu, 1e-4).log_prob(y).sum()
    numpyro.factor("y", sharp + dist.Normal(mu.mean(), 10.0).log_prob(y).sum())


def multivariate(x, y, **_):
    covariance = jnp.eye(len(x)) + 0.2
    mu = product(affine, x, weights())[:, 0]
    numpyro.sample("y", dist.MultivariateNormal(mu, covariance), obs=y)


def siamese(x, y, **_):
    """Rows 0 and 1 are a pair, 2 and 3 the next."""
    both = product(affine, x, weights())[:, 0].reshape(-1, 2)
    outcome(both[:, 0] - both[:, 1], y[::2])


def indexed_pairs(x, y, g, **_):
    """Rows that integers among the data set against each other."""
    mu = product(affine, x, weights())[:, 0]
    outcome(mu[g] - mu[2 * g % 3], y)


def neighbours(x, y, **_):
    outcome(jnp.cumsum(product(affine, x, weights())[:, 0]), y)


def largest(x, y, **_):
    mu = product(affine, x, weights())[:, 0]
    outcome(mu.max() * jnp.ones(len(x)), y)


def of_categories(x, y, g, **_):
    """A product of three categories, that the rows look up."""
    features = jnp.arange(6.0).reshape(C, D)
    outcome(product(affine, features, weights())[g, 0], y)


def one_size(x, y, **_):
    outcome(product(affine, x, weights())[:, 0] + jnp.arange(float(N)), y)


INTERACT = "rows interact after its product"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (shared, "it enters 2 products"),
        (also_outside, "it enters the density outside its product"),
        (in_a_scale, "it enters the density outside its product"),
        (in_another_prior, "it enters the density outside its product"),
        (data_from_itself, "it enters the density outside its product"),
        (derived, "it enters no product linear in it"),
        (not_a_product, "it enters no product linear in it"),
        (not_linear, "it enters no product linear in it"),
        (scanned, "its product runs inside a scan, map or jit"),
        (scanned_rows, "its product runs inside a scan, map or jit"),
        (mapped, "its product runs inside a scan, map or jit"),
        (centred, INTERACT),
        (faintly_centred, INTERACT),
        (multivariate, INTERACT),
        (siamese, INTERACT),
        (indexed_pairs, INTERACT),
        (neighbours, INTERACT),
        (largest, INTERACT),
        (of_categories, "its product has not one row for each row of the data"),
        (one_size, "could not be examined on made-up rows"),
    ],
)
def test_it_falls_back_and_says_why(model, reason, rows):
    found = estimators(model, rows)["w"]
    assert found.startswith("reparameterization: ")
    assert reason in found


def test_it_falls_back_inside_numpyros_scan(rows):
    assert estimators(scanned_by_numpyro, rows)["w"] != LOCAL


def test_a_reparameterised_site_falls_back(rows):
    found = estimators(reparameterised, rows)
    assert set(found) == {"scale", "w_decentered"}
    assert LOCAL not in found.values()


@pytest.mark.parametrize(
    ("guide", "reason"),
    [
        (autoguide.AutoMultivariateNormal, "its guide is no mean-field Normal"),
        (autoguide.AutoDelta, "its guide is no mean-field Normal"),
    ],
)
def test_a_guide_that_is_not_mean_field_falls_back(guide, reason, rows):
    guide = guide(linear)
    svi = SVI(linear, guide, optax.adam(0.01), Trace_ELBO())
    params = svi.get_params(start(svi, rows))
    assert reason in estimators(linear, rows, guide, params)["w"]


def test_a_draw_that_the_guide_reads_falls_back(rows):
    """The draws of `w` and `v` depend on each other, so `w` has to be drawn."""

    def model(x, y, **_):
        mu = product(affine, x, weights("w")) + product(affine, x, weights("v"))
        outcome(mu[:, 0], y)

    def guide(**_):
        w = normal_guide("w", (D, 1))
        through = product(affine, jnp.eye(D), w)
        numpyro.sample("v", dist.Normal(-through, 0.3).to_event(2))

    found = estimators(model, rows, guide)
    assert "another guide site reads it" in found["w"]
    assert found["v"] == LOCAL


def test_without_an_owner_a_product_is_itself(rows):
    """The handler touches only the sites that it is given."""
    x, w = rows["x"], jnp.ones((D, 1))

    def model():
        return product(affine, x, numpyro.deterministic("w", w))

    handled = local_reparameterization(model, posteriors={}, sites=frozenset({"w"}))
    assert_allclose(handlers.seed(handled, 0)(), x @ w, rtol=1e-6)


# --- the same expectation ----------------------------------------------------------

DRAWS = 20_000


def losses_and_gradients(model, guide, rows, loss, draws, seed=0):
    """Draws of a loss and its gradient, at parameters away from any optimum."""
    svi = SVI(model, guide, optax.adam(0.01), loss)
    params = start_params(svi, rows)

    def one(key):
        def value(params):
            return loss.loss(key, svi.constrain_fn(params), model, guide, **rows)

        return jax.value_and_grad(value)(params)

    keys = jax.random.split(jax.random.key(seed), draws)
    return jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=500))(keys)


def z_scores(a, b):
    """How far the means of two samples are apart, in standard errors."""

    def score(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
        difference = np.abs(a.mean(0) - b.mean(0))
        return np.where(difference == 0.0, 0.0, difference / np.maximum(error, 1e-12))

    return np.concatenate(
        [
            score(x, y).ravel()
            for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
        ]
    )


def row_products(x, y, g, **_):
    """Every linear product, one of them in an outcome that is not Normal."""
    mu = product(affine, x, weights("w")) + product(lookup, g, weights("table", (C, 1)))
    outcome(mu[:, 0], y)
    numpyro.sample("count", dist.Poisson(jnp.exp(0.3 * mu[:, 0])), obs=g)


@pytest.mark.parametrize(
    "model",
    [
        net,
        *(
            pytest.param(m, marks=pytest.mark.slow)
            for m in (layers, row_products, shared)
        ),
    ],
    ids=lambda model: model.__name__,
)
def test_loss_and_gradients_have_the_plain_expectation(model, rows):
    """A z-test of every entry over seeds, for a model that falls back too."""
    guide, loss = mean_field(model, rows), LocalReparameterization_ELBO()
    local = losses_and_gradients(model, guide, rows, loss, DRAWS, 1)
    plain = losses_and_gradients(model, guide, rows, TraceMeanField_ELBO(), DRAWS, 2)
    scores = z_scores(local, plain)
    # the largest of some dozens of scores, each standard normal
    assert scores.max() < 4.5


@pytest.mark.parametrize("model", [neighbours, also_outside])
def test_the_test_of_expectations_can_fail(model, rows, monkeypatch):
    """Forced upon a model where it is unsound, it is told apart at once."""
    rows = {**rows, "x": rows["x"] + 2.0}
    guide = mean_field(model, rows)
    plain = losses_and_gradients(model, guide, rows, TraceMeanField_ELBO(), DRAWS, 2)
    monkeypatch.setattr(elbo, "local_sites", lambda *_: {"w": LOCAL})
    loss = LocalReparameterization_ELBO()
    local = losses_and_gradients(model, guide, rows, loss, DRAWS, 1)
    assert z_scores(local, plain).max() > 10.0


@pytest.mark.parametrize(
    "model",
    [
        shared,
        *(
            pytest.param(m, marks=pytest.mark.slow)
            for m in (also_outside, derived, scanned, centred, siamese)
        ),
    ],
)
def test_a_fallback_is_the_plain_objective(model, rows):
    """With no site to handle, draw for draw."""
    guide = mean_field(model, rows)
    local, plain = (
        losses_and_gradients(model, guide, rows, loss, 5)
        for loss in (LocalReparameterization_ELBO(), TraceMeanField_ELBO())
    )
    for a, b in zip(*map(jax.tree.leaves, (local, plain)), strict=True):
        assert_allclose(a, b, rtol=1e-5)


def test_sites_of_the_guide_alone_stay_in_the_objective(rows):
    """The entropy of an auxiliary draw, here ln(2 pi e 0.49) / 2, is part of the loss."""

    def auxiliary(**_):
        numpyro.sample("noise", dist.Normal(0.0, 0.7), infer={"is_auxiliary": True})
        mean_field_guide()

    mean_field_guide = mean_field(linear, rows)
    loss = LocalReparameterization_ELBO()
    with_site, _ = losses_and_gradients(linear, auxiliary, rows, loss, DRAWS)
    without, _ = losses_and_gradients(linear, mean_field_guide, rows, loss, DRAWS)
    assert loss.estimators == {"w": LOCAL}
    difference = with_site.mean() - without.mean()
    entropy = 0.5 * np.log(2 * np.pi * np.e * 0.49)
    error = np.sqrt((with_site.var() + without.var()) / DRAWS)
    assert abs(difference + entropy) < 4 * error
    assert 8 * error < entropy


def test_several_particles_are_their_mean(rows):
    guide = mean_field(net, rows)
    one, many = (
        losses_and_gradients(
            net, guide, rows, LocalReparameterization_ELBO(particles), 4000, particles
        )
        for particles in (1, 4)
    )
    assert z_scores(one, many).max() < 4.5
    ratio = one[0].var() / many[0].var()
    assert 3.4 < ratio < 4.6


def test_rows_draw_noise_of_their_own(rows):
    """Given a guide, entries of a product are independent with the known moments."""
    x = rows["x"]
    posterior = dist.Normal(jnp.array([[0.5], [-1.0]]), jnp.array([[0.3], [2.0]]))

    def model():
        return product(affine, x, weights())

    handled = local_reparameterization(
        handlers.substitute(model, data={"w": jnp.zeros((D, 1))}),
        posteriors={"w": {"fn": posterior.to_event(2)}},
        sites=frozenset({"w"}),
    )
    draw = jax.vmap(lambda key: handlers.seed(handled, key)()[:, 0])
    draws = np.asarray(draw(jax.random.split(jax.random.key(0), 50_000)))
    sd = np.sqrt(np.asarray(x**2 @ posterior.scale**2))[:, 0]
    mean = np.asarray(x @ posterior.loc)[:, 0]
    assert np.abs((draws.mean(0) - mean) / sd).max() < 4.5 / np.sqrt(50_000)
    assert_allclose(draws.std(0), sd, rtol=0.02)
    correlations = np.corrcoef(draws.T) - np.eye(N)
    assert np.abs(correlations).max() < 5 / np.sqrt(50_000)


def test_rows_of_zeros_have_slopes():
    """Their product has no variance, and the root none that is finite."""
    x = jnp.array([[0.0, 0.0], [1.0, 2.0]])
    data = {"x": x, "y": jnp.array([0.3, -0.2])}
    guide = mean_field(linear, data)
    loss = LocalReparameterization_ELBO()
    losses, gradients = losses_and_gradients(linear, guide, data, loss, 3)
    assert loss.estimators == {"w": LOCAL}
    assert np.isfinite(losses).all()
    assert all(np.isfinite(g).all() and np.any(g) for g in gradients.values())


# --- less noise --------------------------------------------------------------------


def gradient_variances(model, guide, rows, draws):
    """For each block of parameters: the mean variance, plain and local."""
    found = []
    for loss in (TraceMeanField_ELBO(), LocalReparameterization_ELBO()):
        _, gradients = losses_and_gradients(model, guide, rows, loss, draws)
        found.append({k: float(g.var(0).mean()) for k, g in gradients.items()})
    return found


@pytest.mark.slow
def test_a_net_of_two_layers_has_a_fifth_of_the_noise_in_every_block():
    """Locations and scales of both layers, at a guide that has been fitted a while."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 10))
    data = {"x": jnp.asarray(x), "y": jnp.asarray(np.sin(x[:, 0]))}
    model = functools.partial(net, width=16)
    guide = mean_field(model, data)
    svi = SVI(model, guide, optax.adam(0.01), TraceMeanField_ELBO())
    fitted = svi_run_batched(svi, 0, 1000, 400, **data).params

    def fitted_guide(**rows):
        with handlers.substitute(data=fitted):
            guide(**rows)

    plain, local = gradient_variances(model, fitted_guide, data, 400)
    assert set(plain) == {"w1.loc", "w1.scale", "w2.loc", "w2.scale"}
    ratios = {name: plain[name] / local[name] for name in plain}
    assert min(ratios.values()) > 5.0, ratios


# --- beside the rest of the library ------------------------------------------------


def test_minibatches_are_unbiased_too(rows):
    """Over batches and seeds together, against the plain ELBO of all rows."""
    data = {k: v for k, v in rows.items() if k != "g"}
    guide = mean_field(net, data)
    loss = LocalReparameterization_ELBO()
    svi = SVI(net, guide, optax.sgd(0.0), loss)
    full, _ = losses_and_gradients(net, guide, data, TraceMeanField_ELBO(), DRAWS)
    result = svi_run_batched(svi, 0, DRAWS, 4, init_state=start(svi, data), **data)
    assert loss.estimators == {"w1": LOCAL, "w2": LOCAL}
    assert z_scores(result.losses, full) < 4.5


def test_weights_are_on_top_of_it_to_the_last_digit(rows):
    """Where the guide has no spread, a minibatch's gradient has no noise but its rows."""

    def guide(**_):
        loc = numpyro.param("w.loc", jnp.full((D, 1), 0.3))
        numpyro.sample("w", dist.Normal(loc, 1e-6).to_event(2))

    def gradient(loss, model, rows):
        def value(params):
            return loss.loss(jax.random.key(0), params, model, guide, **rows)

        return jax.jit(jax.grad(value))({"w.loc": jnp.full((D, 1), 0.3)})

    data = {k: v for k, v in rows.items() if k != "g"}
    full = gradient(TraceMeanField_ELBO(), linear, data)
    weighed = row_weights(linear, weight=3.0, sites=frozenset({"y"}))
    loss, parts = LocalReparameterization_ELBO(), in_batches(data, 4)
    batches = [{k: v[i] for k, v in parts.items()} for i in range(3)]
    found = [gradient(loss, weighed, batch) for batch in batches]
    assert loss.estimators == {"w": LOCAL}
    mean = jax.tree.map(lambda *g: sum(g) / 3, *found)
    assert largest_error(mean, full) < 1e-3


@pytest.fixture
def calls(monkeypatch):
    """The examinations made so far."""
    made, examine = [], elbo.local_sites

    def counted(*args):
        made.append(args)
        return examine(*args)

    monkeypatch.setattr(elbo, "local_sites", counted)
    return made


@pytest.mark.parametrize("jit", [False, True])
def test_it_works_in_a_loop_of_your_own(jit, rows):
    """Also where JAX traces the data, and with constants of any kind."""

    def model(x, y, offset, form):
        assert form == "linear"
        outcome(product(affine, x, weights())[:, 0] + offset.sum(), y)

    def guide(**_):
        normal_guide("w", (D, 1))

    data = {"x": rows["x"], "y": rows["y"], "offset": jnp.array([0.5, -0.5, 0.1])}
    loss = LocalReparameterization_ELBO(batch_size=N)
    svi = SVI(model, guide, optax.adam(0.01), loss, form="linear")
    state = svi.init(jax.random.key(0), **data)
    update = jax.jit(svi.update) if jit else svi.update
    _, value = update(state, **data)
    assert np.isfinite(value)
    assert loss.estimators == {"w": LOCAL}


def test_the_loop_tells_it_which_arguments_hold_rows(rows, calls):
    def model(x, y, offset, form):
        outcome(product(affine, x, weights())[:, 0] + offset.sum(), y)

    def guide(**_):
        normal_guide("w", (D, 1))

    for length, size in ((4, 4), (N, 4), (3, N)):
        calls.clear()
        loss = LocalReparameterization_ELBO()
        svi = SVI(model, guide, optax.adam(0.01), loss)
        constants = {"offset": np.zeros(length), "form": "linear"}
        data = {"x": rows["x"], "y": rows["y"]}
        result = svi_run_batched(svi, 0, 3, size, constants=constants, **data)
        assert np.isfinite(result.losses).all()
        assert loss.estimators == {"w": LOCAL}
        assert len(calls) == 1


def test_reports_are_found_once_for_each_model(rows, calls):
    guide = mean_field(linear, rows)
    svi = SVI(linear, guide, optax.adam(0.01), LocalReparameterization_ELBO())
    state = start(svi, rows)
    for _ in range(2):
        state, _ = svi.update(state, **rows)
    assert len(calls) == 1


def test_one_row(rows):
    one = {k: v[:1] for k, v in rows.items()}
    assert estimators(layers, one)["x.beta"] == LOCAL


def test_a_model_that_fails_says_so_itself(rows):
    """The examination hides no error of the model's own."""

    def broken(x, y, **_):
        outcome(product(affine, x, weights(shape=(D + 1, 1)))[:, 0], y)

    def guide(**_):
        normal_guide("w", (D + 1, 1))

    loss = LocalReparameterization_ELBO()
    with pytest.raises(Exception, match=r"einsum|[Ss]ize|dimension"):
        loss.loss(jax.random.key(0), {}, broken, handlers.seed(guide, 0), **rows)


def test_it_learns_the_conjugate_posterior():
    """Bishop (2006), eqs 3.53 and 3.54; orthogonal columns, so mean-field is exact."""
    data, _ = regression(200, 3, seed=1)
    x = np.linalg.qr(data["x"])[0] * np.sqrt(200)
    data["x"] = x
    precision = x.T @ x / 0.5**2 + np.eye(3)
    mean = np.linalg.solve(precision, x.T @ data["y"] / 0.5**2)
    sd = 1 / np.sqrt(np.diag(precision))
    model = linear_of(3)
    guide = mean_field(model, data)
    rate = optax.cosine_decay_schedule(0.02, 4000, alpha=1e-3)
    loss = LocalReparameterization_ELBO()
    svi = SVI(model, guide, optax.adam(rate), loss)
    params = svi_run_batched(svi, 0, 4000, 50, **data).params
    assert loss.estimators == {"w": LOCAL}
    assert_allclose((params["w.loc"][:, 0] - mean) / sd, 0.0, atol=0.1)
    assert_allclose(params["w.scale"][:, 0] / sd, 1.0, atol=0.05)


def linear_of(columns):
    def model(x, y):
        outcome(product(affine, x, weights(shape=(columns, 1)))[:, 0], y)

    return model
