"""Splines: their prior, their training rows, new rows, by-columns and categories."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpyro import handlers
from scipy import stats

from fit_helpers import refused
from lamina import InterceptLayer, fit, gaussian_link
from lamina.handlers import learn, predicting, remembering
from lamina.layers import FactorSplineLayer, SplineLayer, TensorSplineLayer
from lamina.priors import Adaptive, Fixed
from support import log_prob, run, shapes

pytestmark = pytest.mark.usefixtures("float64")

RANDOM = np.random.default_rng(1)
N = 120
X = np.sort(RANDOM.uniform(-2.0, 5.0, size=N))
Z = RANDOM.normal(size=N)
CODES = RANDOM.integers(0, 3, size=N)
Y = np.sin(1.5 * X) + 0.3 * X + 0.1 * RANDOM.normal(size=N)


def taught(layer, *data, name="s"):
    """The layer with what these training rows teach it."""
    rows = {f"x{i}": one for i, one in enumerate(data)}
    return remembering(layer, learn(lambda **d: layer(name, *d.values()), rows))


def values_of(layer, *data, seed=0):
    """Random values for the layer's sites under the name `s`."""
    rng = np.random.default_rng(seed)
    return {
        site: rng.uniform(0.5, 2.0, size=shape)
        if "lmbda" in site or "ratio" in site
        else rng.normal(size=shape)
        for site, shape in shapes(layer, "s", *data).items()
    }


@pytest.mark.parametrize(
    ("layer", "data", "expected"),
    [
        (
            SplineLayer(units=2),
            (X,),
            {"s.lmbda": (2,), "s.theta": (18, 2), "s.beta": (1, 2)},
        ),
        (
            SplineLayer(num_basis=7),
            (X, Z),
            {"s.lmbda": (1,), "s.theta": (5, 1), "s.beta": (2, 1)},
        ),
        (
            SplineLayer(num_basis=7, cyclic=3.0),
            (X,),
            {"s.lmbda": (1,), "s.theta": (6, 1)},
        ),
        (
            SplineLayer(num_basis=7, cyclic=3.0, prior=Fixed()),
            (X, Z),
            {"s.theta": (6, 1), "s.beta": (1, 1)},
        ),
        (
            SplineLayer(knots=[0.0, 1.0, 4.0], degree=2),
            (X,),
            {"s.lmbda": (1,), "s.theta": (4, 1), "s.beta": (1, 1)},
        ),
        (
            FactorSplineLayer(num_basis=7, num_categories=3),
            (X, CODES),
            {
                "s.lmbda1": (2,),
                "s.theta1": (3, 2),
                "s.lmbda2": (),
                "s.theta2": (3, 5),
            },
        ),
        (
            TensorSplineLayer(num_basis=(5, 6), cyclic=(None, 4.0), units=2),
            (np.column_stack([X, Z]),),
            {
                "s.ratio": (1,),
                "s.lmbda": (2,),
                "s.theta": (28, 2),
                "s.beta": (1, 2),
            },
        ),
        (
            TensorSplineLayer(num_basis=5),
            (np.column_stack([X, Z, Z**2]),),
            {
                "s.ratio": (2,),
                "s.lmbda": (1,),
                "s.theta": (117, 1),
                "s.beta": (7, 1),
            },
        ),
    ],
)
def test_sites(layer, data, expected):
    assert shapes(layer, "s", *data) == expected


def test_the_prior_is_a_random_walk_on_the_b_splines_coefficients():
    """Its log density falls with the squared second differences, and with no other."""
    layer = SplineLayer(num_basis=9, degree=3)
    learned = learn(lambda x: layer("s", x), {"x": X})["s.basis"]
    values = values_of(layer, X)
    lmbda = values["s.lmbda"][0]

    def walk(theta):
        beta = learned["transform"][:, 2:] @ theta
        return np.sum(np.diff(beta, n=2, axis=0) ** 2)

    def density(theta):
        site = log_prob(layer, "s.theta", "s", X, values={**values, "s.theta": theta})
        return float(site)

    one, two, three = (RANDOM.normal(size=(7, 1)) for _ in range(3))
    slope = (density(one) - density(two)) / (walk(one) - walk(two))
    assert_allclose(density(three) - density(two), slope * (walk(three) - walk(two)))
    theta = values["s.theta"]
    assert_allclose(
        density(theta), stats.norm.logpdf(theta, 0.0, lmbda).sum(), rtol=1e-10
    )


def test_the_curve_sums_to_zero_and_its_departure_has_no_line():
    layer = SplineLayer(units=2)
    values = values_of(layer, X)
    curve = run(layer, "s", X, values=values)
    assert_allclose(curve.sum(axis=0), np.zeros(2), atol=1e-10)
    slope = np.polyfit((X - X.mean()) / X.std(), curve, 1)[0]
    assert_allclose(slope, values["s.beta"][0])


def test_a_unit_scale_departs_by_a_unit_standard_deviation():
    layer = SplineLayer(prior=Fixed(), linear_prior=Fixed(dist.Normal(0.0, 1e-12)))
    each = jax.jit(jax.vmap(lambda key: run(layer, "s", X, seed=key)))
    draws = each(jax.random.split(jax.random.key(0), 4000))
    assert_allclose(np.mean(np.square(draws)), 1.0, atol=0.1)


def test_new_rows_continue_on_straight_lines():
    layer = taught(SplineLayer(), X)
    values = values_of(SplineLayer(), X)
    far = np.array([-20.0, -11.0, -2.1, 5.1, 10.0, 14.9])
    curve = run(layer, "s", far, values=values)[:, 0]
    slopes = np.diff(curve) / np.diff(far)
    assert_allclose(slopes[[1, 4]], slopes[[0, 3]], rtol=1e-9)
    near = run(layer, "s", np.array([X[0], X[0] + 1e-6]), values=values)[:, 0]
    assert_allclose(slopes[0], np.diff(near)[0] / 1e-6, rtol=1e-3)


def test_a_cyclic_curve_meets_itself():
    layer = SplineLayer(cyclic=3.5, num_basis=8)
    values = values_of(layer, X)
    kept = taught(layer, X)
    x = np.linspace(0.0, 3.5, 10)
    curve = run(kept, "s", x, values=values)
    assert_allclose(curve[0], curve[-1], atol=1e-12)
    assert_allclose(run(kept, "s", x - 70.0, values=values), curve, atol=1e-10)
    assert_allclose(run(layer, "s", X, values=values).mean(), 0.0, atol=1e-10)


def test_by_multiplies_a_curve_that_has_its_own_level():
    layer = SplineLayer(num_basis=8)
    values = values_of(layer, X, Z)
    by_one = run(layer, "s", X, np.ones(N), values=values)
    found = run(layer, "s", X, Z[:, None], values=values)
    assert_allclose(found, by_one * Z[:, None])
    centred = {**values, "s.beta": values["s.beta"][1:]}
    level = values["s.beta"][0]
    assert_allclose(by_one, run(layer, "s", X, values=centred) + level, atol=1e-12)


def test_a_tensor_of_lines_is_their_products():
    layer = TensorSplineLayer(num_basis=5)
    xx = np.column_stack([X, Z])
    values = values_of(layer, xx)
    values["s.theta"] = np.zeros_like(values["s.theta"])
    a, b = ((v - v.mean()) / v.std() for v in (X, Z))
    lines = np.column_stack([b, a, a * b - np.mean(a * b)])
    assert_allclose(run(layer, "s", xx, values=values), lines @ values["s.beta"])


def test_a_stiff_margin_of_a_tensor_is_straight():
    layer = TensorSplineLayer(num_basis=6)
    xx = np.column_stack([X, Z])
    kept = taught(layer, xx)
    grid = np.linspace(-1.5, 1.5, 21)
    for ratio, straight in [(1e-6, 1), (1e6, 0)]:
        values = {**values_of(layer, xx), "s.ratio": np.array([ratio])}
        if ratio > 1:
            # a wild second margin: weigh down the whole, so that the first is stiff
            values["s.theta"] = values["s.theta"] / ratio
        moved = np.full((21, 2), 0.3)
        moved[:, straight] = grid
        curve = run(kept, "s", moved, values=values)[:, 0]
        assert_allclose(np.diff(curve, n=2), np.zeros(19), atol=1e-4)
        moved = np.full((21, 2), 0.3)
        moved[:, 1 - straight] = grid
        curve = run(kept, "s", moved, values=values)[:, 0]
        assert np.abs(np.diff(curve, n=2)).max() > 1e-3


def test_each_category_has_its_own_curve():
    layer = FactorSplineLayer(num_basis=8, num_categories=3)
    single = SplineLayer(num_basis=8)
    values = values_of(layer, X, CODES)
    found = run(layer, "s", X, CODES, values=values)
    for code in range(3):
        own_rows = np.flatnonzero(np.equal(CODES, code))
        own = {
            "s.beta": values["s.theta1"][code][:, None],
            "s.theta": values["s.theta2"][code][:, None],
        }
        curve = run(single, "s", X, np.ones(N), values=own)
        assert_allclose(found[own_rows], curve[own_rows], atol=1e-12)


def test_unseen_categories_have_curves_from_the_prior(key):
    layer = FactorSplineLayer(num_basis=8, num_categories=3)
    kept = taught(layer, X, CODES)
    values = values_of(layer, X, CODES)
    values["s.lmbda1"] = np.array([2.0, 0.5])
    values["s.lmbda2"] = np.array(1.5)
    keys = jax.random.split(key, 3000)
    codes, x = np.array([-1, -1, -2, 0]), np.array([0.5, 3.0, 0.5, 0.5])

    def predict(codes, x, key):
        return run(predicting(kept, key=key), "s", x, codes, values=values)

    each = jax.jit(jax.vmap(partial(predict, jnp.array(codes), jnp.array(x))))
    draws = np.asarray(each(keys))[..., 0]
    unit = {**values, "s.theta1": np.eye(3, 2), "s.theta2": np.zeros((3, 6))}
    level, slope = run(kept, "s", x[:2], np.array([0, 1]), values=unit)[:, 0]
    columns = []
    for j in range(6):
        unit["s.theta1"], unit["s.theta2"] = np.zeros((3, 2)), np.eye(3, 6, j)
        columns.append(run(kept, "s", x[:1], np.array([0]), values=unit).item())
    unit = {**unit, "s.theta1": np.eye(3, 2, 1), "s.theta2": np.zeros((3, 6))}
    slope = run(kept, "s", x[:1], np.array([0]), values=unit).item()
    assert_allclose(level, 1.0)
    variance = 4.0 + 0.25 * slope**2 + 2.25 * np.sum(np.square(columns))
    assert_allclose(draws[:, 0].var(), variance, rtol=0.12)
    assert abs(np.corrcoef(draws[:, 0], draws[:, 2])[0, 1]) < 0.08
    assert_array_equal(draws[:, 3], draws[0, 3])
    one = predict(codes[1:2], x[1:2], keys[5])
    assert_allclose(one[0, 0], draws[5, 1])
    zero = FactorSplineLayer(num_basis=8, num_categories=3, unseen="zero")
    none = run(
        predicting(taught(zero, X, CODES), key=key), "s", x, codes, values=values
    )
    assert_array_equal(none[:3], np.zeros((3, 1)))


def test_a_heavy_tailed_prior_takes_the_place_of_the_normal_one():
    layer = SplineLayer(coef_dist=dist.Laplace, num_basis=6)
    values = values_of(layer, X)
    found = log_prob(layer, "s.theta", "s", X, values=values)
    expected = stats.laplace.logpdf(values["s.theta"], 0.0, values["s.lmbda"])
    assert_allclose(found, expected.sum())
    assert shapes(SplineLayer(prior=Adaptive(), num_basis=6), "s", X).keys() == {
        "s.lmbda",
        "s.theta",
        "s.beta",
    }


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: SplineLayer(num_basis=4), ValueError, "`num_basis` is 4.*at least 5"),
        (lambda: SplineLayer(degree=0), ValueError, "`degree` is 0"),
        (lambda: SplineLayer(cyclic=-1.0), ValueError, "`cyclic` is -1.0.*period"),
        (lambda: SplineLayer(cyclic=True), ValueError, "`cyclic` is True.*period"),
        (
            lambda: SplineLayer(knots=[1.0], cyclic=2.0),
            ValueError,
            "`knots` and `cyclic` are both given",
        ),
        (
            lambda: SplineLayer(linear_prior=dist.Normal(0.0, 1.0)),
            TypeError,
            r"`linear_prior` is Normal.*Give a prior: Fixed",
        ),
        (lambda: TensorSplineLayer(num_basis=(7, 4)), ValueError, "`num_basis` is 4"),
        (lambda: TensorSplineLayer(cyclic=(None, 0.0)), ValueError, "`cyclic` is 0.0"),
        (lambda: TensorSplineLayer(linear_prior=3), TypeError, "`linear_prior` is 3"),
        (lambda: FactorSplineLayer(units=2), ValueError, "`units` is 2"),
    ],
)
def test_layers_that_cannot_be_meant_raise(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("layer", "data", "message"),
    [
        (
            SplineLayer(),
            (np.ones(30),),
            "SplineLayer 's': the training column is const",
        ),
        (SplineLayer(), (np.arange(60) % 9,), "9 distinct values, fewer.*20 basis"),
        (SplineLayer(knots=[0.0, 7.0]), (X,), r"knots \[7.0\] are not inside"),
        (SplineLayer(knots=[2.0, 1.0]), (X,), "larger than the one before"),
        (SplineLayer(), (np.ones((30, 2)),), "2 columns.*TensorSplineLayer"),
        (SplineLayer(), (X, Z[:5]), r"`by` has shape \(5, 1\) and `x` has 120 rows"),
        (SplineLayer(), (X, np.ones((N, 2))), r"`by` has shape \(120, 2\)"),
        (TensorSplineLayer(), (X,), "1 column, but a tensor.*Use SplineLayer"),
        (
            TensorSplineLayer(),
            (np.column_stack([X, np.ones(N)]),),
            "TensorSplineLayer 's', column 1: the training column is constant",
        ),
        (
            TensorSplineLayer(num_basis=(7, 7, 7)),
            (np.column_stack([X, Z]),),
            "`num_basis` has 3 values, but `x` has 2 columns",
        ),
        (
            FactorSplineLayer(num_categories=3),
            (X, CODES[:7]),
            r"`x` has 120 rows and `codes` has shape \(7,\)",
        ),
        (FactorSplineLayer(num_categories=2), (X, CODES), "code 2 is past its table"),
    ],
)
def test_data_that_make_no_smooth_raise(layer, data, message):
    with refused(ValueError, message):
        taught(layer, *data)


def model(x, y=None):
    mu = InterceptLayer()("a") + SplineLayer(num_basis=12)("s", x)
    return gaussian_link(mu, y, scale=0.1)


@pytest.fixture(scope="module")
def fitted():
    return fit(model, {"x": X, "y": Y}, method="map")


def test_a_single_new_row_uses_the_training_knots(fitted):
    whole = fitted.predict({"x": X}, kind="mean").mean
    assert_allclose(whole, np.sin(1.5 * X) + 0.3 * X, atol=0.12)
    for row in (0, 50, N - 1):
        one = fitted.predict({"x": X[row : row + 1]}, kind="mean").mean
        assert_allclose(one, whole[row : row + 1], rtol=1e-5, atol=1e-6)


def test_without_the_training_knots_a_prediction_raises():
    with pytest.raises(ValueError, match=r"'s.basis' is learned from the training"):
        handlers.seed(predicting(model), 0)(x=X[:3])


@pytest.mark.slow
def test_minibatches_use_the_training_knots():
    posterior = fit(model, {"x": X, "y": Y}, method="vi", batch_size=30, num_steps=4000)
    found = posterior.predict({"x": X}, kind="mean").mean
    assert_allclose(found, np.sin(1.5 * X) + 0.3 * X, atol=0.15)


SAMPLED = {"method": "mcmc", "num_warmup": 200, "num_samples": 200, "num_chains": 1}


@pytest.mark.slow
@pytest.mark.parametrize("cyclic", [None, 2.0 * np.pi])
def test_a_sine_is_recovered(cyclic):
    rng = np.random.default_rng(5)
    x = np.sort(rng.uniform(0.0, 4.0 * np.pi, size=200))
    y = 1.0 + np.sin(x) + 0.2 * rng.normal(size=200)

    def sine(x, y=None):
        curve = SplineLayer(num_basis=15, cyclic=cyclic)("s", x)
        return gaussian_link(InterceptLayer()("a") + curve, y)

    posterior = fit(sine, {"x": x, "y": y}, **SAMPLED)
    grid = np.linspace(0.5, 12.0, 40)
    found = posterior.predict({"x": grid}, kind="mean")
    assert_allclose(found.mean, 1.0 + np.sin(grid), atol=0.2)
    inside = np.abs(1.0 + np.sin(grid) - found.mean) / found.sd < 2.5
    assert inside.mean() > 0.9
    assert_allclose(posterior.draws["sigma"].mean(), 0.2, atol=0.04)


@pytest.mark.slow
def test_curves_by_category_and_by_a_column_are_recovered():
    rng = np.random.default_rng(6)
    x = rng.uniform(-2.0, 2.0, size=300)
    codes = rng.integers(0, 4, size=300)
    w = rng.normal(size=300)
    level, bend = np.array([-1.0, 0.0, 0.5, 2.0]), np.array([0.5, -0.5, 1.0, 0.0])

    def truth(x, codes, w):
        return level[codes] + bend[codes] * x**2 + w * np.cos(x)

    y = truth(x, codes, w) + 0.2 * rng.normal(size=300)

    def varying(x, codes, w, y=None):
        mu = FactorSplineLayer(num_basis=8, num_categories=4)("f", x, codes)
        return gaussian_link(mu + SplineLayer(num_basis=8)("g", x, w), y)

    data = {"x": x, "codes": codes, "w": w, "y": y}
    posterior = fit(varying, data, **SAMPLED)
    new = {"x": np.linspace(-1.8, 1.8, 40), "codes": np.arange(40) % 4}
    new["w"] = np.cos(np.arange(40.0))
    found = posterior.predict(new, kind="mean").mean
    assert_allclose(found, truth(**new), atol=0.25)


@pytest.mark.slow
def test_a_surface_is_recovered():
    rng = np.random.default_rng(7)
    x = rng.uniform(-1.0, 1.0, size=(500, 2))

    def truth(x):
        return np.sin(3.0 * x[:, 0]) * x[:, 1]

    y = truth(x) + 0.1 * rng.normal(size=500)

    def surface(x, y=None):
        f = TensorSplineLayer(num_basis=6)("s", x)
        return gaussian_link(InterceptLayer()("a") + f, y)

    posterior = fit(surface, {"x": x, "y": y}, **SAMPLED)
    new = rng.uniform(-0.9, 0.9, size=(50, 2))
    found = posterior.predict({"x": new}, kind="mean").mean
    assert_allclose(found, truth(new), atol=0.15)
    # sin(3 x) bends, and the second margin is a line: its scale is the smaller
    assert np.median(posterior.draws["s.ratio"]) < 0.5


@pytest.mark.slow
def test_mcycle_has_a_smooth_mean_and_a_smooth_scale(data_folder):
    """Silverman (1985): still, then down to about -120 g and up to 40, noise between."""
    time, acceleration = np.loadtxt(
        data_folder / "mcycle.csv", delimiter=",", skiprows=1
    ).T
    y = acceleration / 50.0

    def crash(x, y=None):
        mean = InterceptLayer()("a") + SplineLayer()("f", x)
        log_scale = InterceptLayer()("b") + SplineLayer(num_basis=10)("g", x)
        return gaussian_link(mean, y, log_scale=log_scale)

    posterior = fit(crash, {"x": time, "y": y}, **SAMPLED)
    grid = {"x": np.array([8.0, 21.0, 32.0, 50.0])}
    mean = posterior.predict(grid, kind="mean").mean * 50.0
    away = np.abs(mean - [0.0, -113.0, 30.0, 0.0])
    assert np.all(away < [4.0, 15.0, 15.0, 15.0]), mean
    noise = posterior.predict(grid).sd * 50.0
    assert noise[0] < 5.0
    assert np.all(noise[1:3] > 12.0)
