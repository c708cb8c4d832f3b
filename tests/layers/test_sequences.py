"""Sequences: their levels, their forecasts, and one for each group."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpyro import handlers
from scipy import stats

from lamina.handlers import predicting
from lamina.layers import AR1Layer, RandomWalkLayer
from lamina.priors import Fixed
from support import log_prob, run, shapes

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")

LAYER = RandomWalkLayer(num_categories=4, embedding_dim=2)
STEPS = {"walk.theta": np.array([[1.0, 0.0], [0.5, 2.0], [-2.0, 1.0], [0.0, 1.0]])}


@pytest.mark.parametrize("codes", [[3], [0, 1, 2, 3], [[2], [2], [0]]])
def test_the_walk_stands_at_the_sum_of_its_steps(codes):
    walk = np.array([[1.0, 0.0], [1.5, 2.0], [-0.5, 3.0], [-0.5, 4.0]])
    found = run(LAYER, "walk", np.array(codes), values=STEPS)
    assert_allclose(found, walk[np.array(codes).reshape(-1)])


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        ([0, 4], ValueError, "RandomWalkLayer 'walk': code 4 is past its table of 4"),
        ([0, -1], ValueError, "code -1 is negative"),
        ([0.0, 1.0], TypeError, "dtype float64"),
        ([[0, 1]], ValueError, r"shape \(1, 2\)"),
    ],
)
def test_codes_outside_the_walk_raise(codes, error, message):
    with pytest.raises(error, match=message):
        run(LAYER, "walk", np.array(codes))


def test_a_walk_has_no_unseen_level_even_in_a_prediction(key):
    with pytest.raises(ValueError, match="code -1 is negative"):
        run(predicting(LAYER, key=key), "walk", np.array([0, -1]))


def test_traced_codes_outside_the_walk_give_nan():
    @jax.jit
    def walk(codes):
        return run(LAYER, "walk", codes, values=STEPS)

    found = walk(jnp.array([1, 4, -1]))
    assert_allclose(found[0], [1.5, 2.0])
    assert np.isnan(found[1:]).all()


def test_an_order_of_two_adds_the_slope_and_its_changes():
    layer = RandomWalkLayer(order=2, num_categories=4, embedding_dim=2)
    slope = np.array([[0.5, -1.0]])
    values = {**STEPS, "walk.slope.beta": slope}
    found = run(layer, "walk", np.array([3, 0, 1, 2]), values=values)
    expected = np.cumsum(slope + np.cumsum(STEPS["walk.theta"], axis=0), axis=0)
    assert_allclose(found, expected[[3, 0, 1, 2]])
    assert shapes(layer, "walk", np.array([0])) == {
        "walk.lmbda": (),
        "walk.theta": (4, 2),
        "walk.slope.lmbda": (),
        "walk.slope.beta": (1, 2),
    }


@pytest.mark.parametrize("order", [0, 3, True, None])
def test_any_other_order_raises(order):
    with pytest.raises(ValueError, match=f"`order` is {order}"):
        RandomWalkLayer(order=order)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho_dist": dist.Normal}, "no low"),
        ({"rho_dist": dist.Normal(0.0, 1.0)}, r"allows values beyond -1 and 1"),
        ({"rho_kwargs": {"low": -2.0, "high": 1.0}}, r"allows values beyond -1 and 1"),
    ],
)
def test_an_autocorrelation_beyond_one_raises(options, message):
    with pytest.raises(
        (ValueError, TypeError), match=message.replace("no low", "takes")
    ):
        AR1Layer(**options)


def test_any_prior_between_minus_one_and_one_goes_on_rho():
    ready = dist.TruncatedNormal(0.5, 0.2, low=-1.0, high=1.0)
    layer = AR1Layer(rho_dist=ready, num_categories=2, embedding_dim=1)
    density = log_prob(layer, "f.rho", "f", np.array([0]), values={"f.rho": 0.3})
    cut = stats.truncnorm(-1.5 / 0.2, 0.5 / 0.2, 0.5, 0.2)
    assert_allclose(density, cut.logpdf(0.3), rtol=1e-6)


# Forecasts: what many draws of one posterior value do beyond the last index.

DRAWS, C, RHO, LMBDA = 6000, 3, 0.7, 0.5
LAST = np.array([[1.0], [0.5], [-0.2]])
SLOPE = 0.3
FITTED = {
    "f.lmbda": np.array(LMBDA),
    "f.theta": LAST,
    "f.rho": np.array(RHO),
    "f.slope.lmbda": np.array(1.0),
    "f.slope.beta": np.array([[SLOPE]]),
}
FORMS = {
    "walk": RandomWalkLayer(num_categories=C, embedding_dim=1),
    "integrated walk": RandomWalkLayer(order=2, num_categories=C, embedding_dim=1),
    "autoregression": AR1Layer(num_categories=C, embedding_dim=1),
}
AHEAD = np.array([1, 2, 5, 20])


def theory(form):
    """Means and the covariance of forecasts at AHEAD, from their definitions."""
    h = AHEAD
    if form == "walk":
        return np.full(4, LAST.sum()), LMBDA**2 * np.minimum.outer(h, h)
    if form == "autoregression":
        level = LAST[0, 0]
        for step in LAST[1:, 0]:
            level = RHO * level + np.sqrt(1 - RHO**2) * step
        apart = abs(np.subtract.outer(h, h))
        both = np.add.outer(h, h)
        return level * RHO**h, LMBDA**2 * (RHO**apart - RHO**both)
    slopes = SLOPE + np.cumsum(LAST[:, 0])
    weights = [[max(a - s + 1, 0) for s in range(1, 21)] for a in h]
    return slopes.sum() + h * slopes[-1], LMBDA**2 * np.array(weights) @ np.array(
        weights
    ).T


def forecasts(layer, codes, values=FITTED, draws=DRAWS, **data):
    """(draws, n, m): one prediction for each key."""
    keys = jax.random.split(jax.random.key(3), draws)
    codes = jnp.asarray(codes)
    data = {k: jnp.asarray(v) for k, v in data.items()}

    def one(key):
        return run(predicting(layer, key=key), "f", codes, values=values, **data)

    return np.asarray(
        jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=500))(keys)
    )


def compiled(layer, values):
    """The layer as a function of codes, and of groups where it has some."""

    @jax.jit
    def call(codes, *groups):
        data = {"group": groups[0]} if groups else {}
        return run(layer, "f", codes, values=values, **data)

    return call


@pytest.mark.parametrize("form", FORMS)
def test_forecasts_have_the_mean_and_covariance_of_the_process(form):
    found = forecasts(FORMS[form], C - 1 + AHEAD)[..., 0]
    mean, covariance = theory(form)
    sd = np.sqrt(np.diag(covariance))
    error = 4.5 / np.sqrt(DRAWS)
    assert_allclose((found.mean(axis=0) - mean) / sd, 0.0, atol=error)
    scaled = np.cov(found.T) / np.outer(sd, sd)
    assert_allclose(scaled, covariance / np.outer(sd, sd), atol=1.5 * error)


@pytest.mark.parametrize("form", FORMS)
def test_fitted_rows_keep_their_levels_and_equal_codes_agree(form, key):
    codes = np.array([40, 0, 3, 2, 40, 1, 3])
    layer = FORMS[form]
    asked = compiled(predicting(layer, key=key), FITTED)
    found = np.asarray(asked(codes))
    fitted = run(layer, "f", codes[[1, 3, 5]], values=FITTED)
    assert_allclose(found[[1, 3, 5]], fitted, rtol=1e-12)
    assert_array_equal(found[0], found[4])
    assert_array_equal(found[2], found[6])
    alone = [asked(codes[i : i + 1])[0] for i in range(len(codes))]
    assert_allclose(found, alone, rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_fit_refuses_codes_past_the_table(form):
    with pytest.raises(ValueError, match=f"code {C} is past its table of {C}"):
        run(FORMS[form], "f", np.array([0, C]))


def test_a_forecast_without_end_raises(key):
    with pytest.raises(ValueError, match="more than 100000 steps past the last fitted"):
        run(predicting(LAYER, key=key), "walk", np.array([1_700_000_000]))
    traced = jax.jit(
        lambda codes: run(predicting(LAYER, key=key), "walk", codes, values=STEPS)
    )
    assert np.isnan(traced(jnp.array([1_700_000_000]))).all()


def test_a_forecast_without_a_key_raises():
    with pytest.raises(ValueError, match="no key to draw it with"):
        handlers.substitute(predicting(LAYER), data={**STEPS, "walk.lmbda": 1.0})(
            "walk", np.array([7])
        )


def test_any_prior_goes_on_as_it_is(key):
    """Steps that are all one, known, go on being one."""
    prior = Fixed(dist.Uniform, {"low": 1.0, "high": 1.0 + 1e-9})
    layer = RandomWalkLayer(prior=prior, num_categories=1, embedding_dim=2)
    found = run(predicting(layer, key=key), "f", np.array([0, 4, 9]))
    assert_allclose(found, np.array([[1.0] * 2, [5.0] * 2, [10.0] * 2]), rtol=1e-6)


def test_coordinates_replicates_and_names_are_independent():
    layer = RandomWalkLayer(num_categories=2, embedding_dim=2)

    def model(codes):
        with numpyro.plate("replicates", 2):
            a = layer("a", codes)
        return jnp.concatenate([a[0], a[1], layer("b", codes)], axis=1)

    values = {
        "a.lmbda": np.ones(2),
        "a.theta": np.zeros((2, 2, 2)),
        "b.lmbda": np.ones(()),
        "b.theta": np.zeros((2, 2)),
    }

    def one(key):
        return run(predicting(model, key=key), jnp.array([4]), values=values)[0]

    draws = 3000
    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), draws))
    correlation = np.corrcoef(np.asarray(found).T)
    assert_allclose(correlation, np.eye(6), atol=4.5 / np.sqrt(draws))
    assert_allclose(found.std(axis=0), np.sqrt(3.0), rtol=0.07)


# One sequence for each group.

G = 2
GROUPED = {
    "f.lmbda": np.array(LMBDA),
    "f.theta": np.random.default_rng(8).normal(size=(G, C, 1)),
    "f.rho": np.array(RHO),
    "f.slope.lmbda": np.array(2.0),
    "f.slope.beta": np.array([[0.4], [-1.0]]),
}


def one_group(g):
    """The values of a layer that has this group alone."""
    return {
        **GROUPED,
        "f.theta": GROUPED["f.theta"][g],
        "f.slope.beta": GROUPED["f.slope.beta"][g : g + 1],
    }


@pytest.mark.parametrize("form", FORMS)
def test_each_group_has_a_sequence_of_its_own(form):
    layer = replace(FORMS[form], num_groups=G)
    codes, groups = np.array([2, 0, 1, 2]), np.array([1, 1, 0, 0])
    found = run(layer, "f", codes, group=groups, values=GROUPED)
    for row in range(4):
        alone = run(
            FORMS[form], "f", codes[row : row + 1], values=one_group(groups[row])
        )
        assert_allclose(found[row], alone[0], rtol=1e-12)
    sites = shapes(layer, "f", codes, group=groups)
    assert sites["f.theta"] == (G, C, 1)
    assert sites.get("f.slope.beta", (G, 1)) == (G, 1)


@pytest.mark.parametrize("form", FORMS)
def test_groups_go_on_from_their_own_levels_by_their_own_steps(form):
    layer = replace(FORMS[form], num_groups=G)
    codes, groups = np.array([C + 4, C + 4, 1]), np.array([0, 1, 1])
    draws = 3000
    found = forecasts(layer, codes, GROUPED, draws, group=groups)[..., 0]
    for row in range(2):
        alone = forecasts(FORMS[form], codes[:1], one_group(row), draws)[..., 0]
        bound = 7.0 / np.sqrt(draws)
        assert abs(found[:, row].mean() - alone.mean()) < bound * alone.std()
        assert abs(found[:, row].std() / alone.std() - 1.0) < bound
    assert abs(np.corrcoef(found[:, 0], found[:, 1])[0, 1]) < 4.5 / np.sqrt(draws)
    assert np.ptp(found[:, 2]) == 0.0


def unseen_variance(form, t):
    """The variance of a new sequence at index t, from its start."""
    if form == "walk":
        return LMBDA**2 * (t + 1)
    if form == "autoregression":
        return LMBDA**2
    steps = sum((t - s + 1) ** 2 for s in range(t + 1))
    return LMBDA**2 * steps + 2.0**2 * (t + 1) ** 2


@pytest.mark.parametrize("form", FORMS)
def test_groups_that_were_not_fitted_get_a_new_sequence(form, key):
    layer = replace(FORMS[form], num_groups=G)
    codes, groups = np.array([0, 5, 5, 1, 0]), np.array([-1, -1, -7, 1, -1])
    draws = 3000
    found = forecasts(layer, codes, GROUPED, draws, group=groups)[..., 0]
    for row, t in [(0, 0), (1, 5), (2, 5)]:
        sd = np.sqrt(unseen_variance(form, t))
        assert abs(found[:, row].mean()) < 4.5 * sd / np.sqrt(draws)
        assert abs(found[:, row].std() / sd - 1.0) < 4.5 / np.sqrt(2 * draws)
    assert abs(np.corrcoef(found[:, 1], found[:, 2])[0, 1]) < 4.5 / np.sqrt(draws)
    assert_array_equal(found[:, 0], found[:, 4])
    assert np.ptp(found[:, 3]) == 0.0
    asked = compiled(predicting(layer, key=key), GROUPED)
    together = asked(codes, groups)
    for row in range(5):
        alone = asked(codes[row : row + 1], groups[row : row + 1])
        assert_allclose(alone[0], together[row], rtol=1e-12)


def test_zero_and_error_are_policies_for_groups_that_were_not_fitted(key):
    codes, groups = np.array([0, 5]), np.array([-1, -1])
    zero = replace(FORMS["walk"], num_groups=G, unseen="zero")
    found = run(predicting(zero, key=key), "f", codes, group=groups, values=GROUPED)
    assert_array_equal(found, np.zeros((2, 1)))
    error = replace(zero, unseen="error")
    with pytest.raises(ValueError, match=r"'f', groups: code -1 is negative"):
        run(predicting(error, key=key), "f", codes, group=groups, values=GROUPED)
    with pytest.raises(ValueError, match=r"'f', groups: code -1 is negative"):
        run(zero, "f", np.array([0, 1]), group=groups, values=GROUPED)
    with pytest.raises(ValueError, match=r"`unseen` is 'mean'; for groups"):
        AR1Layer(unseen="mean")


@pytest.mark.parametrize(
    ("options", "data", "error", "message"),
    [
        ({"num_groups": 2}, {}, TypeError, "codes of the groups are missing"),
        ({}, {"group": np.array([0])}, TypeError, "`num_groups` is missing"),
        (
            {"num_groups": 2},
            {"group": np.array([0, 1])},
            ValueError,
            r"shape \(2,\) and `x` has shape \(1,\)",
        ),
        ({"num_groups": 2}, {"group": np.array([2])}, ValueError, "groups: code 2 is"),
        (
            {"num_groups": 2},
            {"group": np.array([0.5])},
            TypeError,
            "groups: codes have",
        ),
    ],
)
def test_groups_that_cannot_be_meant_raise(options, data, error, message):
    with pytest.raises(error, match=message):
        run(replace(FORMS["walk"], **options), "f", np.array([0]), **data)


def test_groups_in_a_plate_of_replicates_go_on_each_on_its_own(key):
    layer = replace(FORMS["integrated walk"], num_groups=G)
    codes, groups = jnp.array([0, C + 2, 1]), jnp.array([1, 0, -3])

    def model():
        with numpyro.plate("replicates", 3, dim=-2):
            return layer("f", codes, group=groups)

    def value(k, v):
        return np.broadcast_to(v, (3, 1, *np.shape(v))) if "rho" not in k else None

    values = {k: value(k, v) for k, v in GROUPED.items() if "rho" not in k}
    found = run(predicting(model, key=key), values=values)
    assert found.shape == (3, 1, 3, 1)
    fitted = run(layer, "f", codes[:1], group=groups[:1], values=GROUPED)
    assert_allclose(found[:, 0, 0], np.broadcast_to(fitted[0], (3, 1)))
    assert len(np.unique(found[:, 0, 1])) == 3
    assert len(np.unique(found[:, 0, 2])) == 3
