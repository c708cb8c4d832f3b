"""Gaussian processes: their covariance, their box, their sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from fit_helpers import refused
from lamina import InterceptLayer, fit, gaussian_link
from lamina.handlers import learn, remembering
from lamina.layers import HSGPLayer
from support import run, shapes

pytestmark = pytest.mark.usefixtures("float64")

RANDOM = np.random.default_rng(2)
X = np.sort(RANDOM.uniform(10.0, 30.0, size=80))
XX = np.column_stack([X, RANDOM.normal(size=80)])


def apart(z, length):
    """Distances over length scales, of all pairs of rows."""
    scaled = z / length
    return np.linalg.norm(scaled[:, None] - scaled[None, :], axis=-1)


KERNELS = {
    "rbf": lambda r: np.exp(-0.5 * r**2),
    "matern32": lambda r: (1.0 + np.sqrt(3.0) * r) * np.exp(-np.sqrt(3.0) * r),
    "matern52": lambda r: (
        (1.0 + np.sqrt(5.0) * r + 5.0 * r**2 / 3.0) * np.exp(-np.sqrt(5.0) * r)
    ),
}


def covariance(layer, x, length):
    """The covariance of the layer's rows, from its output for each basis function."""
    m = shapes(layer, "g", x)["g.theta"][0]

    def one(theta):
        values = {"g.length": jnp.asarray(length), "g.theta": theta[:, None]}
        return run(layer, "g", x, values=values)[:, 0]

    columns = np.asarray(jax.vmap(one)(jnp.eye(m)))
    return columns.T @ columns


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("length", [0.22, 0.5, 1.1])
def test_the_covariance_is_the_kernels(kernel, length):
    """Rasmussen and Williams (2006), eqs 4.9 and 4.17, at the prior's 5% to 95%."""
    z = (X - (X.min() + X.max()) / 2) / (np.ptp(X) / 2)
    found = covariance(HSGPLayer(kernel=kernel), X, np.array([length]))
    expected = KERNELS[kernel](apart(z[:, None], length))
    assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_columns_have_length_scales_of_their_own(kernel):
    layer = HSGPLayer(kernel=kernel, num_basis=60, boundary=3.5)
    middle = (XX.min(axis=0) + XX.max(axis=0)) / 2
    z = (XX - middle) / (np.ptp(XX, axis=0) / 2)
    length = np.array([0.8, 0.5])
    with pytest.warns(UserWarning, match="not carried well"):
        found = covariance(layer, XX, length)
    assert_allclose(found, KERNELS[kernel](apart(z, length)), atol=0.03)


@pytest.mark.parametrize("length", [0.4, 1.0, 2.0])
def test_the_periodic_covariance_is_the_kernels(length):
    layer = HSGPLayer(kernel="periodic", period=7.0)
    found = covariance(layer, X, np.array([length]))
    sines = np.sin(np.pi * (X[:, None] - X[None, :]) / 7.0)
    assert_allclose(found, np.exp(-2.0 * sines**2 / length**2), atol=0.01)


def test_the_sizes_follow_the_priors_length_scales():
    """Riutort-Mayol and others (2023), eqs for the squared exponential kernel."""
    shortest, longest = np.exp(-0.7 + np.array([-1, 1]) * 1.645 * 0.5)
    (c,), (m,) = HSGPLayer().size_of_box("g", 1)
    assert_allclose(c, 3.2 * longest, rtol=1e-3)
    assert m == np.ceil(1.75 * c / shortest)
    tight = HSGPLayer(length_kwargs={"loc": -2.0, "scale": 0.01})
    assert tight.size_of_box("g", 1)[0] == [1.2]
    two = HSGPLayer(num_basis=(9, 8), boundary=4.0).size_of_box
    with pytest.warns(UserWarning, match="functions carry length scales down to"):
        assert two("g", 2) == ([4.0, 4.0], [9, 8])
    with pytest.warns(UserWarning, match="above 0.62 half ranges"):
        assert HSGPLayer(boundary=2.0).size_of_box("g", 1)[0] == [2.0]
    with pytest.raises(ValueError, match=r"asks for \d+ x \d+ x \d+ functions"):
        HSGPLayer().size_of_box("g", 3)


def test_a_warning_for_too_few_fourier_functions():
    layer = HSGPLayer(kernel="periodic", period=7.0, num_basis=4)
    with pytest.warns(UserWarning, match="num_basis=4 functions carry"):
        assert shapes(layer, "g", X)["g.theta"] == (7, 1)


def test_lengths_that_depend_on_traced_numbers_need_sizes():
    @jax.jit
    def sampled(loc, given):
        layer = HSGPLayer(length_kwargs={"loc": loc, "scale": 0.5}, **given)
        with remembering(values={"g.box": box}):
            return run(layer, "g", X)

    box = learn(lambda x: HSGPLayer()("g", x), {"x": X})["g.box"]
    sizes = {"num_basis": 30, "boundary": 4.0}
    found = jax.jit(lambda loc: sampled.__wrapped__(loc, sizes))(0.0)
    assert found.shape == (80, 1)
    with pytest.raises(ValueError, match=r"depends on what is sampled.*`num_basis`"):
        jax.jit(lambda loc: sampled.__wrapped__(loc, {}))(0.0)


def test_slopes_are_finite_for_very_long_length_scales():
    with jax.enable_x64(False):
        x = X.astype(np.float32)
        box = learn(lambda x: HSGPLayer()("g", x), {"x": x})

        def total(length):
            layer = remembering(HSGPLayer(), box)
            return run(layer, "g", x, values={"g.length": length}).sum()

        slope = jax.grad(total)(jnp.array([30.0], jnp.float32))
    assert np.isfinite(slope).all()


def test_new_rows_are_placed_in_the_training_box():
    kept = remembering(HSGPLayer(), learn(lambda x: HSGPLayer()("g", x), {"x": X}))
    values = {"g.length": np.array([0.4]), "g.theta": RANDOM.normal(size=(29, 1))}
    m = shapes(HSGPLayer(), "g", X)["g.theta"][0]
    values["g.theta"] = RANDOM.normal(size=(m, 1))
    whole = run(HSGPLayer(), "g", X, values=values)
    one = run(kept, "g", X[7:8], values=values)
    assert_allclose(one, whole[7:8], atol=1e-12)
    with pytest.raises(ValueError, match=r"1 of 2 values, in rows 1, outside of the b"):
        run(kept, "g", np.array([20.0, 1e3]), values=values)
    traced = jax.jit(lambda x: run(kept, "g", x, values=values))
    found = traced(np.array([20.0, 1e3]))
    assert np.isfinite(found[0, 0])
    assert np.isnan(found[1, 0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HSGPLayer(kernel="cosine"), "`kernel` is 'cosine'; it is one of"),
        (lambda: HSGPLayer(kernel="periodic"), "`period` is None"),
        (lambda: HSGPLayer(period=3.0), "`kernel` is 'rbf' and `period` is 3.0"),
        (
            lambda: HSGPLayer(kernel="periodic", period=-1.0),
            "`period` is -1.0, but it is a positive number",
        ),
        (
            lambda: HSGPLayer(kernel="periodic", period=1.0, boundary=2.0),
            "a periodic process has no box",
        ),
        (lambda: HSGPLayer(boundary=1.0), "`boundary` is 1.0, but a box of less"),
        (lambda: HSGPLayer(num_basis=0), "`num_basis` is 0"),
        (
            lambda: HSGPLayer(length_dist=dist.Normal(0.0, 1.0)),
            "allows negative values, but a length scale is positive",
        ),
    ],
)
def test_processes_that_cannot_be_meant_raise(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (HSGPLayer(), np.ones(5), r"training columns \[0\] are constant"),
        (HSGPLayer(), jnp.array([0.0, jnp.nan]), "training values are not finite"),
        (
            HSGPLayer(kernel="periodic", period=1.0),
            XX,
            "`x` has 2 columns, but a periodic process has one",
        ),
        (HSGPLayer(boundary=(2.0, 3.0, 4.0)), XX, "`boundary` has 3 values"),
    ],
)
def test_data_that_make_no_process_raise(layer, x, message):
    with refused(ValueError, message):
        learn(lambda x: layer("g", x), {"x": x})


def model(x, y=None):
    return gaussian_link(InterceptLayer()("a") + HSGPLayer()("g", x), y, scale=0.1)


def test_fits_keep_the_box_for_their_predictions():
    data = {"x": X, "y": np.sin(X / 3.0)}
    posterior = fit(model, data, method="map")
    whole = posterior.predict({"x": X}, kind="mean").mean
    assert_allclose(whole, data["y"], atol=0.1)
    one = posterior.predict({"x": X[5:6]}, kind="mean").mean
    assert_allclose(one, whole[5:6], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="outside of the box"):
        posterior.predict({"x": np.array([1e3])})


@pytest.mark.slow
def test_minibatches_use_the_training_box():
    data = {"x": X, "y": np.sin(X / 3.0)}
    posterior = fit(model, data, method="vi", batch_size=20, num_steps=4000)
    found = posterior.predict({"x": X}, kind="mean").mean
    assert_allclose(found, data["y"], atol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        HSGPLayer(),
        HSGPLayer(kernel="matern52"),
        HSGPLayer(kernel="periodic", period=2.0 * np.pi),
    ],
    ids=["rbf", "matern52", "periodic"],
)
def test_a_sine_is_recovered(layer):
    rng = np.random.default_rng(5)
    x = np.sort(rng.uniform(0.0, 4.0 * np.pi, size=100))
    y = 1.0 + np.sin(x) + 0.2 * rng.normal(size=100)

    def model(x, y=None):
        return gaussian_link(InterceptLayer()("a") + layer("g", x), y)

    posterior = fit(
        model,
        {"x": x, "y": y},
        method="mcmc",
        num_warmup=200,
        num_samples=200,
        num_chains=1,
    )
    grid = np.linspace(0.5, 12.0, 40)
    found = posterior.predict({"x": grid}, kind="mean")
    assert_allclose(found.mean, 1.0 + np.sin(grid), atol=0.25)
    assert_allclose(posterior.draws["sigma"].mean(), 0.2, atol=0.04)
