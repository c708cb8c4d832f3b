"""Tables, and levels that were never fitted."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.reparam import LocScaleReparam, TransformReparam
from numpyro.infer.util import log_density

from lamina.handlers import predicting, record_terms
from lamina.layers import EmbeddingLayer, RandomEffectsLayer
from lamina.links import gaussian_link
from lamina.priors import Adaptive, Fixed
from support import run

pytestmark = pytest.mark.usefixtures("strict_shapes", "quick_compilation")

C, M, DRAWS = 3, 2, 4000
TABLE = np.arange(C * M, dtype=float).reshape(C, M)
VALUES = {"g.lmbda": np.array(0.5), "g.theta": TABLE}
CODES = np.array([-1, 2, -5, -1, 0])


def embedding(unseen="draw", **options):
    return EmbeddingLayer(unseen=unseen, num_categories=C, embedding_dim=M, **options)


def predict(layer, codes, key, values=VALUES):
    """The layer's output while predicting with this key."""
    return np.asarray(run(predicting(layer, key=key), "g", codes, values=values))


def many(layer, codes, lmbda, seed=0):
    """(draws, n, m): predictions with a key and a scale for each draw."""
    keys = jax.random.split(jax.random.key(seed), len(lmbda))
    codes = jnp.asarray(codes)

    def one(key, lmbda):
        values = {"g.lmbda": lmbda, "g.theta": jnp.asarray(TABLE)}
        return run(predicting(layer, key=key), "g", codes, values=values)

    return np.asarray(jax.jit(jax.vmap(one))(keys, jnp.asarray(lmbda)))


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


NOISE = 4.0 / np.sqrt(DRAWS)  # four standard errors of a mean or a correlation


@pytest.mark.parametrize("unseen", ["draw", "zero", "error"])
def test_a_fit_refuses_negative_codes(unseen):
    with pytest.raises(ValueError, match="EmbeddingLayer 'g': code -5 is negative"):
        run(embedding(unseen), "g", CODES)
    layer = RandomEffectsLayer(num_categories=C, unseen=unseen)
    with pytest.raises(ValueError, match="RandomEffectsLayer 'g': code -5 is negative"):
        log_density(layer, ("g", CODES), {}, {})


def test_seen_levels_read_the_table_and_unseen_ones_one_draw_each(key):
    found = predict(embedding(), CODES, key)
    assert found.shape == (5, M)
    assert_array_equal(found[[1, 4]], TABLE[[2, 0]])
    assert_array_equal(found[0], found[3])
    assert not np.any(np.isclose(found[0], found[2]))
    assert not np.isclose(found[0, 0], found[0, 1])


def test_zero_puts_unseen_levels_at_the_priors_centre(key):
    found = predict(embedding("zero"), CODES, key)
    assert_array_equal(found[[0, 2, 3]], np.zeros((3, M)))
    assert_array_equal(found[[1, 4]], TABLE[[2, 0]])


def test_error_refuses_unseen_levels_in_a_prediction_too(key):
    with pytest.raises(ValueError, match=r"code -5 is negative.*'draw' or 'zero'"):
        predict(embedding("error"), CODES, key)
    assert_array_equal(predict(embedding("error"), [0, 2], key), TABLE[[0, 2]])


def test_any_other_policy_raises():
    with pytest.raises(ValueError, match=r"`unseen` is 'mean'; it is 'draw'"):
        EmbeddingLayer(unseen="mean")


@pytest.mark.parametrize("unseen", ["draw", "zero", "error"])
def test_codes_past_the_table_raise_in_a_prediction_too(unseen, key):
    with pytest.raises(ValueError, match="code 3 is past its table of 3"):
        predict(embedding(unseen), [0, 3], key)


@pytest.mark.parametrize("unseen", ["draw", "zero", "error"])
def test_traced_codes_give_nan_where_they_may_not_be(unseen, key):
    codes = jnp.array([0, C, -1])
    layer = embedding(unseen)
    fitted = jax.jit(lambda c: run(layer, "g", c, values=VALUES))(codes)
    assert_array_equal(fitted[0], TABLE[0])
    assert np.isnan(fitted[1:]).all()
    predicted = jax.jit(
        lambda c: run(predicting(layer, key=key), "g", c, values=VALUES)
    )(codes)
    assert_array_equal(predicted[0], TABLE[0])
    assert np.isnan(predicted[1]).all()
    assert np.isnan(predicted[2]).all() == (unseen == "error")


@pytest.mark.parametrize("sizes", [[1] * 5, [2, 3], [5]])
def test_chunks_of_rows_agree_eager_or_compiled(sizes, key):
    layer = embedding()
    whole = predict(layer, CODES, key)
    chunks = np.split(CODES, np.cumsum(sizes)[:-1])
    found = [predict(layer, chunk, key) for chunk in chunks]
    assert_array_equal(np.concatenate(found), whole)
    compiled = jax.jit(lambda c: run(predicting(layer, key=key), "g", c, values=VALUES))
    assert_allclose(compiled(jnp.asarray(CODES)), whole, rtol=1e-6)


def test_draws_follow_the_scale_of_their_own_posterior_draw():
    lmbda = np.random.default_rng(0).uniform(0.2, 3.0, size=DRAWS)
    found = many(embedding(), CODES, lmbda)
    for row in (0, 2):
        z = found[:, row] / lmbda[:, None]
        assert abs(z.mean()) < NOISE / np.sqrt(M)
        assert abs(z.std() - 1.0) < NOISE / np.sqrt(2 * M)
    assert (
        abs(correlation(found[:, 0] / lmbda[:, None], lmbda[:, None] * [1, 1])) < NOISE
    )
    assert_array_equal(found[:, 0], found[:, 3])


def test_levels_and_coordinates_are_independent():
    found = many(embedding(), [-1, -2, -3], np.ones(DRAWS))
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert abs(correlation(found[:, a], found[:, b])) < NOISE / np.sqrt(M)
    assert abs(correlation(found[:, 0, 0], found[:, 0, 1])) < NOISE


def named(*names):
    """A model of the sum of one layer under several names."""

    def model(codes):
        for name in names:
            embedding()(name, codes)

    return model


def scoped(*prefixes):
    def model(codes):
        for prefix in prefixes:
            with handlers.scope(prefix=prefix, divider="."):
                embedding()("g", codes)

    return model


@pytest.mark.parametrize(
    ("model", "terms"),
    [
        (named("a", "b"), ["a.term", "b.term"]),
        (scoped("a", "b"), ["a.g.term", "b.g.term"]),
    ],
)
def test_two_sites_draw_independently(model, terms):
    def one(key):
        sites = handlers.trace(
            handlers.seed(record_terms(predicting(model, key=key)), 0)
        ).get_trace(jnp.array([-1]))
        return [
            sites[term]["value"][0] / sites[term.replace("term", "lmbda")]["value"]
            for term in terms
        ]

    first, second = jax.vmap(one)(jax.random.split(jax.random.key(0), DRAWS))
    assert abs(correlation(first, second)) < NOISE / np.sqrt(M)
    assert abs(first.std() - 1.0) < NOISE / np.sqrt(2 * M)


REPARAMETERISED = {
    "theta non-centred": (Adaptive(), {"g.theta": LocScaleReparam(0.0)}),
    "lmbda transformed": (
        Adaptive(dist.LogNormal(0.0, 0.2)),
        {"g.lmbda": TransformReparam()},
    ),
    "both": (
        Adaptive(dist.LogNormal(0.0, 0.2)),
        {"g.lmbda": TransformReparam(), "g.theta": LocScaleReparam(0.0)},
    ),
}


@pytest.mark.parametrize("name", REPARAMETERISED)
@pytest.mark.parametrize("prefix", [None, "left"])
def test_draws_follow_scales_that_handlers_rewrote_or_renamed(name, prefix):
    """A scale hidden in a reparameterisation is the posterior's all the same."""
    prior, config = REPARAMETERISED[name]

    def base(codes):
        return embedding(prior=prior)("g", codes)

    model = handlers.reparam(base, config=config)
    if prefix:
        model = handlers.scope(model, prefix=prefix, divider=".")
    dot = f"{prefix}." if prefix else ""
    rng = np.random.default_rng(0)
    lmbda = jnp.asarray(rng.uniform(5.0, 9.0, size=DRAWS))  # far outside its prior
    values = {f"{dot}g.lmbda": lmbda}
    if "g.lmbda" in config:
        values = {f"{dot}g.lmbda_base": jnp.log(lmbda)}

    def one(key, values):
        fixed = handlers.substitute(predicting(model, key=key), data=values)
        return handlers.seed(fixed, 0)(jnp.array([-3]))

    keys = jax.random.split(jax.random.key(0), DRAWS)
    found = jax.vmap(one)(keys, values)
    z = np.asarray(found[:, 0] / lmbda[:, None])
    assert abs(z.std() - 1.0) < NOISE / np.sqrt(2 * M)


def local_scales(name, shape, coefficient="beta", *, suffix="", scale_shape=None):
    """A prior with a scale for each level as well as one for all."""
    lmbda = numpyro.sample(f"{name}.lmbda", dist.HalfNormal(1.0))
    local = numpyro.sample(
        f"{name}.local", dist.Uniform(1.0, 3.0).expand((shape[0], 1)).to_event(2)
    )
    z = numpyro.sample(f"{name}.z", dist.Normal().expand(shape).to_event(2))
    return lmbda * local * z


@pytest.mark.parametrize("c", [1, 2, 5])
def test_any_prior_draws_what_belongs_to_a_level_and_keeps_what_is_shared(c):
    layer = EmbeddingLayer(prior=local_scales, num_categories=c, embedding_dim=2)
    lmbda = np.random.default_rng(0).uniform(0.2, 3.0, size=DRAWS)

    def one(key, lmbda):
        values = {"g.lmbda": lmbda, "g.local": jnp.full((c, 1), 100.0)}
        return run(predicting(layer, key=key), "g", jnp.array([-1]), values=values)

    keys = jax.random.split(jax.random.key(0), DRAWS)
    found = np.asarray(jax.vmap(one)(keys, jnp.asarray(lmbda)))[:, 0] / lmbda[:, None]
    # Uniform(1, 3) has a second moment of 13 / 3, of which the local scale's is made
    second, fourth = 13.0 / 3.0, 3.0 * (3.0**5 - 1.0) / 10.0
    error = np.sqrt((fourth - second**2) / DRAWS)
    assert abs((found**2).mean() - second) < 4.0 * error


@pytest.mark.parametrize("c", [1, 2])
def test_a_table_of_few_levels_draws_like_any_other(c, key):
    layer = RandomEffectsLayer(num_categories=c)
    values = {"g.lmbda": np.array(0.5), "g.theta": np.full((c, 1), 7.0)}
    found = predict(layer, [-1, 0, -2], key, values)
    assert found[1] == 7.0
    assert len({float(v) for v in found[:, 0]}) == 3
    assert np.all(np.abs(found[[0, 2]]) < 4.0 * 0.5)


def test_a_fixed_prior_draws_from_itself(key):
    layer = embedding(prior=Fixed(dist.Normal(50.0, 0.1)))
    found = predict(layer, [-1, 1], key, {"g.theta": TABLE})
    assert np.all(np.abs(found[0] - 50.0) < 1.0)
    assert_array_equal(found[1], TABLE[1])


@pytest.mark.parametrize("dim", [-1, -2])
def test_each_replicate_draws_at_its_own_scale(dim):
    size = 2000
    lead = (size,) + (1,) * (-dim - 1)

    def model(codes):
        with numpyro.plate("replicates", size, dim=dim):
            return embedding()("g", codes)

    lmbda = np.random.default_rng(0).uniform(5.0, 9.0, size=lead)
    values = {"g.lmbda": lmbda, "g.theta": np.broadcast_to(TABLE, (*lead, C, M))}
    key = jax.random.key(0)
    found = run(predicting(model, key=key), np.array([-1, 2, -1]), values=values)
    assert found.shape == (*lead, 3, M)
    found = np.asarray(found).reshape(size, 3, M)
    assert_array_equal(found[:, 1], np.broadcast_to(TABLE[2], (size, M)))
    assert_array_equal(found[:, 0], found[:, 2])
    z = found[:, 0] / lmbda.reshape(size, 1)
    assert abs(z.mean()) < 4.0 / np.sqrt(size * M)
    assert abs(z.std() - 1.0) < 4.0 / np.sqrt(2 * size * M)


def test_without_any_key_a_draw_is_refused():
    with pytest.raises(ValueError, match=r"no key.*handlers\.seed.*`unseen` to 'zero'"):
        with predicting(), handlers.substitute(data=VALUES):
            embedding()("g", np.array([-1]))
    with predicting(), handlers.substitute(data=VALUES):
        assert_array_equal(embedding("zero")("g", np.array([-1])), np.zeros((1, M)))
        assert_array_equal(embedding()("g", np.array([1])), TABLE[[1]])


def regression(codes, y=None, unseen="draw"):
    mu = RandomEffectsLayer(unseen=unseen)("g", codes, C)
    return gaussian_link(mu, y)


def posterior(rng, draws):
    """Draws of a fit whose scale is far from its prior."""
    return {
        "g.lmbda": rng.uniform(5.0, 9.0, size=draws),
        "g.theta": rng.normal(size=(draws, C, 1)),
        "sigma": np.full(draws, 0.1),
    }


@pytest.mark.parametrize("jitted", [False, True])
def test_numpyros_predictive_draws_unseen_levels(jitted):
    draws = posterior(np.random.default_rng(0), DRAWS)
    predict = Predictive(record_terms(regression), draws)
    predict = jax.jit(predict) if jitted else predict
    with jax.numpy_rank_promotion("allow"):
        found = predict(jax.random.key(1), jnp.array([-1, 2, -4, -1]))
    terms = np.asarray(found["g.term"])[..., 0]
    assert_allclose(terms[:, 1], draws["g.theta"][:, 2, 0], rtol=1e-6)
    assert_array_equal(terms[:, 0], terms[:, 3])
    for row in (0, 2):
        z = terms[:, row] / draws["g.lmbda"]
        assert abs(z.mean()) < NOISE
        assert abs(z.std() - 1.0) < NOISE / np.sqrt(2)
    assert abs(correlation(terms[:, 0], terms[:, 2])) < NOISE
    assert found["obs"].shape == (DRAWS, 4)


def test_numpyros_predictive_knows_the_other_policies():
    draws = posterior(np.random.default_rng(0), 5)
    key, codes = jax.random.key(1), np.array([-1, 2])
    with jax.numpy_rank_promotion("allow"):
        found = Predictive(record_terms(regression), draws)(key, codes, unseen="zero")
        assert_array_equal(found["g.term"][:, 0, 0], np.zeros(5))
        with pytest.raises(ValueError, match="code -1 is negative"):
            Predictive(regression, draws)(key, codes, unseen="error")


def test_prior_predictions_draw_unseen_levels():
    with jax.numpy_rank_promotion("allow"):
        found = Predictive(record_terms(regression), num_samples=DRAWS)(
            jax.random.key(1), jnp.array([-1, 1])
        )
    z = np.asarray(found["g.term"])[..., 0] / np.asarray(found["g.lmbda"])[:, None]
    assert np.all(np.abs(z.std(axis=0) - 1.0) < NOISE / np.sqrt(2))
    assert abs(correlation(z[:, 0], z[:, 1])) < NOISE


def test_an_observation_in_a_fit_never_scores_an_unseen_level():
    """Traced codes cannot be read, so the density is NaN and no level is borrowed."""
    values = {"g.lmbda": 1.0, "g.theta": np.zeros((C, 1)), "sigma": 1.0}
    density = jax.jit(
        lambda codes, y: log_density(regression, (codes, y), {}, values)[0]
    )
    assert np.isfinite(density(np.array([0, 1]), np.zeros(2)))
    assert np.isnan(density(np.array([0, -1]), np.zeros(2)))
    assert np.isnan(density(np.array([0, C]), np.zeros(2)))
