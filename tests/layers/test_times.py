"""Random walks at irregular times: learned once, bridged, and gone on from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lamina
from lamina.brownian import between, cell_of, ends_of_cells
from lamina.handlers import learn, predicting, remembering
from lamina.layers import InterceptLayer, RandomWalkLayer
from support import enable_x64, run, shapes

TIMES = np.array([2.0, 2.5, 6.0, 7.0])
ROWS = np.array([6.0, 2.0, 7.0, 2.5, 2.0])
LAYER = RandomWalkLayer(embedding_dim=1)
LMBDA = 0.8
STEPS = np.array([[1.0], [-0.5], [2.0], [0.3]])
VALUES = {"f.lmbda": np.array(LMBDA), "f.theta": STEPS}
LEVELS = np.cumsum(np.sqrt([1.0, 0.5, 3.5, 1.0]) * STEPS[:, 0])


def asked(layer, key, times=ROWS, **data):
    """The layer in a prediction that remembers its fit to these times."""

    def model(t, **data):
        return layer("f", t, **data)

    kept = remembering(model, learn(model, {"t": times, **data}))
    return predicting(kept, key=key)


def test_steps_have_the_variance_of_their_gaps():
    assert shapes(LAYER, "f", ROWS) == {"f.lmbda": (), "f.theta": (4, 1)}
    found = run(LAYER, "f", ROWS, values=VALUES)
    assert_allclose(found[:, 0], LEVELS[[2, 0, 3, 1, 0]], rtol=1e-6)
    column = run(LAYER, "f", ROWS[:, None], values=VALUES)
    assert_array_equal(column, found)


def test_one_row_is_one_time():
    found = run(LAYER, "f", np.array([1971.25]), values={"f.theta": np.ones((1, 1))})
    assert_allclose(found, [[1.0]])


def covariance_given_the_fit(t):
    """Brownian motion at `t` given its levels at TIMES: dense conditional Gaussians."""
    both = np.concatenate([TIMES, t])
    dense = LMBDA**2 * (np.minimum.outer(both, both) - TIMES[0] + 1.0)
    k = len(TIMES)
    weights = np.linalg.solve(dense[:k, :k], dense[:k, k:]).T
    return weights @ LEVELS, dense[k:, k:] - weights @ dense[:k, k:]


def test_other_times_follow_the_brownian_bridge_and_go_on():
    new = np.array([2.125, 3.0, 3.1, 5.9, 6.5, 7.25, 9.0, 30.0])
    draws = 4000

    def one(key):
        return run(asked(LAYER, key), jnp.asarray(new), values=VALUES)[:, 0]

    with enable_x64():
        keys = jax.random.split(jax.random.key(1), draws)
        found = np.asarray(jax.jit(lambda k: jax.lax.map(one, k, batch_size=500))(keys))
    mean, covariance = covariance_given_the_fit(new)
    sd = np.sqrt(np.diag(covariance))
    error = 4.5 / np.sqrt(draws)
    assert_allclose((found.mean(axis=0) - mean) / sd, 0.0, atol=error)
    scale = np.outer(sd, sd)
    assert_allclose(np.cov(found.T) / scale, covariance / scale, atol=1.5 * error)


def test_any_order_and_company_of_times_agrees(key):
    new = np.array([6.0, 3.3, 50.0, 7.0, 3.3, 8.0, 2.0, 2.25])
    predict = jax.jit(lambda t: run(asked(LAYER, key), t, values=VALUES))
    together = np.asarray(predict(new))
    assert_allclose(together[[0, 3, 6], 0], LEVELS[[2, 3, 0]], rtol=1e-6)
    assert_array_equal(together[1], together[4])
    alone = [predict(new[i : i + 1])[0] for i in range(len(new))]
    assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert_allclose(predict(new[::-1])[::-1], together, rtol=1e-5, atol=1e-5)


def test_paths_between_times_are_continuous(key):
    near = 3.0 + np.array([0.0, 1e-4, 2e-4])
    far = np.array([7.0, 7.0 + 1e-4])
    found = run(asked(LAYER, key), np.concatenate([near, far]), values=VALUES)[:, 0]
    assert np.all(abs(np.diff(found[:3])) < 6 * LMBDA * 1e-2)
    assert abs(found[4] - found[3]) < 6 * LMBDA * 1e-2
    assert np.ptp(found[:3]) > 0.0


GROUPED = {
    "f.lmbda": np.array(LMBDA),
    "f.theta": np.random.default_rng(5).normal(size=(2, 4, 1)),
}


def test_groups_walk_at_their_own_levels_and_new_ones_from_the_start():
    layer = RandomWalkLayer(embedding_dim=1, num_groups=2)
    fitted = np.array([0, 1, 0, 1, 0])
    levels = np.cumsum(
        np.sqrt([1.0, 0.5, 3.5, 1.0]) * GROUPED["f.theta"][..., 0], axis=1
    )
    found = run(layer, "f", ROWS, group=fitted, values=GROUPED)[:, 0]
    assert_allclose(found, levels[fitted, [2, 0, 3, 1, 0]], rtol=1e-5)

    def model(t, g):
        return layer("f", t, group=g)

    kept = remembering(model, learn(model, {"t": ROWS, "g": fitted}))
    new = jnp.array([8.0, 8.0, 2.0, 6.0, 8.0])
    groups = jnp.array([0, 1, -1, -1, -2])
    draws = 3000

    def one(key):
        return run(predicting(kept, key=key), new, groups, values=GROUPED)[:, 0]

    keys = jax.random.split(jax.random.key(2), draws)
    found = np.asarray(jax.jit(lambda k: jax.lax.map(one, k, batch_size=500))(keys))
    mean = [levels[0, 3], levels[1, 3], 0.0, 0.0, 0.0]
    variance = np.array([1.0, 1.0, 1.0, 5.0, 7.0])
    sd = LMBDA * np.sqrt(variance)
    assert_allclose((found.mean(axis=0) - mean) / sd, 0.0, atol=4.5 / np.sqrt(draws))
    correlation = np.eye(5)
    correlation[2, 3] = correlation[3, 2] = np.sqrt(1.0 / 5.0)
    expected = correlation * np.outer(sd, sd)
    assert_allclose(
        np.cov(found.T) / np.outer(sd, sd), expected / np.outer(sd, sd), atol=0.12
    )


def test_times_that_cannot_be_meant_raise(key):
    with pytest.raises(ValueError, match="1 of 2 values, in rows 1 of the times"):
        run(LAYER, "f", np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="closer than numbers of this size"):
        run(LAYER, "f", np.array([1.7e9, 1.7e9 + 1.0]))
    with pytest.raises(
        ValueError, match=r"time 1.5 is before the first fitted one, 2.0"
    ):
        run(asked(LAYER, key), np.array([3.0, 1.5]), values=VALUES)
    kept = remembering(LAYER, {"f.times": TIMES})
    with pytest.raises(
        ValueError, match=r"time 3.0 is none of the 4 that were learned"
    ):
        run(kept, "f", np.array([2.0, 3.0]), values=VALUES)
    with pytest.raises(ValueError, match="floating times and `order` is 2"):
        run(RandomWalkLayer(order=2, embedding_dim=1), "f", ROWS)
    with pytest.raises(TypeError, match="`num_categories` is missing"):
        run(LAYER, "f", np.array([0, 1]))
    with pytest.raises(TypeError, match="codes have dtype float64"):
        run(LAYER, "f", ROWS, num_categories=8)
    with pytest.raises(ValueError, match="learned from the training data"):
        run(predicting(LAYER, key=key), "f", ROWS)


def test_traced_times_before_the_first_give_nan(key):
    predict = jax.jit(lambda t: run(asked(LAYER, key), t, values=VALUES))
    found = predict(jnp.array([1.0, 2.0]))
    assert np.isnan(found[0]).all()
    assert_allclose(found[1], LEVELS[:1], rtol=1e-6)


def test_stretches_double_and_their_ends_add_up():
    ahead = np.array([0.0, 0.5, 1.0, 2.9, 3.0, 100.0])
    cell, part = cell_of(jnp.asarray(ahead))
    assert_allclose(2.0**cell - 1.0 + part * 2.0**cell, ahead, rtol=1e-6)
    assert_array_equal(cell, [0, 0, 1, 1, 2, 6])
    last = np.array([[1.0], [-2.0]])
    ends = ends_of_cells(jnp.asarray(last), jnp.asarray(0.25), jnp.ones((2, 3, 1)))
    moves = np.cumsum([0.0, 0.5, 0.5 * np.sqrt(2.0), 1.0])
    assert_allclose(ends[..., 0], last + moves, rtol=1e-6)


def test_a_bridge_without_noise_is_a_line():
    at = jnp.array([0.0, 0.3, 0.5, 1.0])
    found = between(
        jnp.zeros((4, 1)),
        jnp.full((4, 1), 2.0),
        jnp.ones(4),
        at,
        lambda node: jnp.zeros((4, 1)),
    )
    assert_allclose(found[:, 0], 2.0 * at, atol=1e-5)


def model(t, y=None):
    mean = InterceptLayer(coef_kwargs={"loc": 0.0, "scale": 5.0})("mean")
    return lamina.gaussian_link_exp(mean + LAYER("f", t), y)


def irregular(n=60):
    rng = np.random.default_rng(3)
    t = np.round(np.sort(rng.uniform(0.0, 30.0, size=n)), 2)
    level = np.cumsum(
        np.sqrt(np.diff(t, prepend=t[0] - 1.0)) * 0.5 * rng.normal(size=n)
    )
    return t, 2.0 + level, 0.2 * rng.normal(size=n)


def test_a_fit_learns_its_times_once_and_predicts_in_any_chunks():
    t, level, noise = irregular()
    posterior = lamina.fit(
        model, {"t": t, "y": level + noise}, num_steps=50, batch_size=20, num_draws=100
    )
    assert posterior.draws["f.theta"].shape[-2:] == (len(np.unique(t)), 1)
    new = {"t": np.array([t[3], 40.0, t[5] + 0.003, 31.0])}
    whole, rows = (
        posterior.predict(new, kind="mean", draws=True, chunk_rows=size)
        for size in (None, 1)
    )
    assert_allclose(whole.draws, rows.draws, rtol=1e-4, atol=1e-4)


def kriged(t, y, new, lmbda, sigma):
    """Mean and variance of the level at new times: a dense conditional Gaussian."""

    def dense(a, b):  # of the intercept and the walk
        return 5.0**2 + lmbda**2 * (np.minimum.outer(a, b) - t[0] + 1.0)

    weights = np.linalg.solve(dense(t, t) + sigma**2 * np.eye(len(t)), dense(t, new)).T
    return weights @ y, np.diag(dense(new, new) - weights @ dense(t, new))


@pytest.mark.slow
def test_levels_left_out_are_those_of_the_dense_gaussian():
    t, level, noise = irregular(120)
    y, kept = level + noise, np.arange(120) % 4 != 1
    new = np.append(t[~kept], [31.0, 45.0])
    posterior = lamina.fit(
        model,
        {"t": t[kept], "y": y[kept]},
        method="mcmc",
        noncentered=["f.theta"],
        num_warmup=300,
        num_samples=300,
        num_chains=1,
    )
    found = posterior.predict({"t": new}, kind="mean")
    draws = zip(
        posterior.draws["f.lmbda"].ravel()[::3],
        posterior.draws["sigma"].ravel()[::3],
        strict=True,
    )
    means, variances = zip(
        *(kriged(t[kept], y[kept], new, *draw) for draw in draws), strict=True
    )
    sd = np.sqrt(np.mean(variances, axis=0) + np.var(means, axis=0))
    assert_allclose((found.mean - np.mean(means, axis=0)) / sd, 0.0, atol=0.3)
    assert_allclose(found.sd / sd, 1.0, atol=0.2)
    lmbda = posterior.draws["f.lmbda"]
    assert abs(lmbda.mean() - 0.5) < 3 * lmbda.std()
