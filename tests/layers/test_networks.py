"""Hidden units and attention between linear maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

import lamina
from cases import CASES, attention
from lamina.layers import AttentionLayer, MLPLayer
from lamina.links import gaussian_link
from lamina.priors import Adaptive
from support import run, shape_of, shapes

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")


def draws(layer, x, count=400):
    """(count, n, u): the layer under its prior."""
    keys = jax.random.split(jax.random.key(0), count)
    one = lambda key: run(layer, "mu", x, seed=key)  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(one))(keys))


def weights(layer, x, seed=0):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=v) for k, v in shapes(layer, "mu", x).items()}


ACTIVATIONS = {
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "relu": lambda z: np.maximum(z, 0.0),
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
    "silu": lambda z: z / (1.0 + np.exp(-z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "tanh": np.tanh,
    jnp.sin: np.sin,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("skip", [False, True])
def test_hidden_layers_follow_one_another(activation, n, skip):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 2))
    layer = MLPLayer(units=2, hidden=(3, 3), activation=activation, skip=skip)
    values = weights(layer, x)
    phi = ACTIVATIONS[activation]
    mean, square = (
        sum(
            integrate.quad(lambda z, p=p: phi(z) ** p * stats.norm.pdf(z), *side)[0]
            for side in ((-9.0, 0.0), (0.0, 9.0))
        )
        for p in (1, 2)
    )
    h = x
    for k, width in enumerate((2, 3), 1):
        inputs = np.hstack([h, np.ones((n, 1))])
        z = inputs @ values[f"mu.beta{k}"] / np.sqrt(width + 1)
        new = (phi(z) - mean) / np.sqrt(square - mean**2)
        h = (h + new) / np.sqrt(2.0) if skip and k == 2 else new
    expected = np.hstack([h, np.ones((n, 1))]) @ values["mu.beta3"] / 2.0
    assert_allclose(run(layer, "mu", x, values=values), expected, rtol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("skip", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_deep_networks_keep_unit_variance(activation, skip):
    x = np.array([[1.0, -1.0, 0.5, np.sqrt(1.75)]])  # mean square one
    layer = MLPLayer(hidden=(100,) * 4, activation=activation, skip=skip)
    assert_allclose((draws(layer, x) ** 2).mean(), 1.0, rtol=0.35)


def test_attention_keeps_unit_variance():
    x = np.array([[1.0, -1.0, 0.5, np.sqrt(1.75)]])
    layer = AttentionLayer(embedding_dim=16, num_heads=4, num_blocks=3)
    assert_allclose((draws(layer, x) ** 2).mean(), 1.0, rtol=0.35)


def test_an_adaptive_prior_learns_a_scale_for_each_unit():
    layer = MLPLayer(prior=Adaptive(), hidden=(3,), units=2)
    assert shapes(layer, "mu", np.ones((4, 5))) == {
        "mu.lmbda1": (3,),
        "mu.beta1": (6, 3),
        "mu.lmbda2": (2,),
        "mu.beta2": (4, 2),
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hidden": ()}, "`hidden` is empty.*AdaptiveLayer"),
        ({"hidden": 32}, r"`hidden` is 32.*\(32,\)"),
        ({"hidden": (3, 0)}, "`hidden` is 0"),
        ({"hidden": (3, 4), "skip": True}, r"`skip` adds.*widths are \(3, 4\)"),
        ({"activation": "swish2"}, "`activation` is 'swish2'; it is one of.*'relu'"),
        ({"activation": None}, "`activation` is None"),
    ],
)
def test_what_no_network_can_be_raises(given, message):
    with pytest.raises(ValueError, match=f"MLPLayer: {message}"):
        MLPLayer(**given)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (jnp.zeros_like, "variance 0.0"),
        (lambda z: jnp.where(z > 5.0, jnp.inf, z), "variance (nan|inf)"),
        (jnp.sum, r"makes shape \(\)"),
    ],
)
def test_an_activation_maps_units_one_by_one_to_finite_numbers(activation, message):
    with pytest.raises(ValueError, match=f"MLPLayer 'mu': `activation`.*{message}"):
        run(MLPLayer(activation=activation), "mu", np.ones((2, 2)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"embedding_dim": 6, "num_heads": 4}, "4 heads do not share equally"),
        ({"num_heads": 0}, "`num_heads` is 0"),
        ({"num_blocks": 0}, "`num_blocks` is 0"),
        ({"hidden": -1}, "`hidden` is -1"),
        ({"embedding_dim": 0}, "`embedding_dim` is 0"),
    ],
)
def test_what_no_transformer_can_be_raises(given, message):
    with pytest.raises(ValueError, match=f"AttentionLayer: .*{message}"):
        AttentionLayer(**given)


def normed(z):
    return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)


def test_a_second_block_norms_the_tokens_that_it_attends_to():
    """Two blocks by whole arrays; one block is in the shared battery, by loops."""
    x = np.random.default_rng(0).normal(size=(3, 2))
    layer = AttentionLayer(embedding_dim=4, num_heads=1, num_blocks=2, hidden=3)
    w = {k.removeprefix("mu."): v for k, v in weights(layer, x).items()}
    columns = x[:, :, None] * w["slope.beta"] + w["token.beta"][1:]
    first = np.broadcast_to(w["token.beta"][0], (3, 1, 4))
    t = np.concatenate([first, columns / np.sqrt(2.0)], axis=1)
    for k in (1, 2):
        seen = t if k == 1 else normed(t)
        q, key, v = (seen @ w[f"{p}.beta{k}"] / 2.0 for p in ("query", "key", "value"))
        score = np.exp(q @ key.transpose(0, 2, 1) / 2.0)
        share = score / score.sum(-1, keepdims=True)
        t = t + share @ v @ w[f"mix.beta{k}"] / 2.0
        one = np.ones((3, 3, 1))
        both = np.concatenate([normed(t), one], -1) @ w[f"gate.beta{k}"] / np.sqrt(5.0)
        gated = np.sqrt(2.0) * both[..., :3] * np.maximum(both[..., 3:], 0.0)
        t = t + np.concatenate([gated, one], -1) @ w[f"back.beta{k}"] / 2.0
    last = np.sqrt(2.0) * np.maximum(normed(t[:, 0]), 0.0)
    expected = np.hstack([last, np.ones((3, 1))]) @ w["head.beta"] / np.sqrt(5.0)
    values = {f"mu.{k}": v for k, v in w.items()}
    assert_allclose(run(layer, "mu", x, values=values), expected, rtol=1e-8)


def test_heads_share_the_embedding():
    """With one head the same weights give another function than with two."""
    case = CASES["AttentionLayer"]
    (x,) = case.arguments(3)
    values = case.coefficients("mu")
    one = AttentionLayer(embedding_dim=4, num_heads=1, hidden=3, units=2)
    w = {k.removeprefix("mu."): v for k, v in values.items()}
    found = run(one, "mu", x, values=values)
    assert_allclose(found, attention(x, heads=1, **w), rtol=1e-8)
    assert np.abs(found - attention(x, heads=2, **w)).max() > 1e-3


@pytest.mark.parametrize("layer", [MLPLayer(), AttentionLayer()])
@pytest.mark.parametrize("n", [1, 4])
def test_a_flat_input_is_one_column(layer, n):
    assert shape_of(run, layer, "mu", np.arange(1.0, n + 1.0)) == (n, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "method"),
    [
        (MLPLayer(hidden=(8,)), "mcmc"),
        (MLPLayer(hidden=(16, 16), skip=True, activation="silu"), "vi"),
    ],
)
def test_a_network_learns_a_curve(layer, method):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2.0, 2.0, size=300)
    y = np.sin(2.0 * x) + 0.1 * rng.normal(size=300)

    def model(x, y=None):
        gaussian_link(3.0 * layer("mu", x[:, None]), y)

    options = {
        "mcmc": {"num_warmup": 300, "num_samples": 200, "num_chains": 1},
        "vi": {"num_steps": 6000, "progress_bar": False},
    }
    with jax.numpy_rank_promotion("allow"):
        posterior = lamina.fit(
            model, {"x": x, "y": y}, method=method, **options[method]
        )
        new = np.linspace(-1.8, 1.8, 7)
        found = posterior.predict({"x": new}, kind="mean")
    assert_allclose(found.mean, np.sin(2.0 * new), atol=0.15)


@pytest.mark.slow
def test_attention_learns_which_column_counts():
    """The sign of one column tells which of the other two is the outcome."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    y = np.where(x[:, 0] > 0, x[:, 1], x[:, 2]) + 0.1 * rng.normal(size=600)

    def model(x, y=None):
        gaussian_link(2.0 * AttentionLayer()("mu", x), y)

    with jax.numpy_rank_promotion("allow"):
        posterior = lamina.fit(model, {"x": x, "y": y}, method="map", num_steps=4000)
        found = posterior.predict(kind="mean").mean
    linear = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.mean((found - y) ** 2) < 0.3 * np.mean((x @ linear - y) ** 2)
