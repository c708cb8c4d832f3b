import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO, BCSR, empty
from numpy.testing import assert_allclose
from numpyro.infer.util import log_density

from cases import CASES
from lamina import fit, products
from lamina.layers import (
    AdaptiveLayer,
    FixedPriorLayer,
    FMLayer,
    HorseshoeLayer,
    InterceptLayer,
)
from lamina.links import gaussian_link
from lamina.sparse import sparse_affine, sparse_pairs, sparse_rows
from support import run, shapes

pytestmark = pytest.mark.usefixtures("strict_shapes")


def mostly_zeros(n, d, seed=0):
    """Rows of which two entries in three are zero, the last row's all."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * (rng.uniform(size=(n, d)) < 1 / 3)
    x[-1] = 0.0
    return x


def forms(x):
    """The same matrix in every form that layers take."""
    k = max(int((x != 0).sum(axis=1).max()), 1)
    columns = np.argsort(x == 0, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(x, columns, axis=1)
    plain = BCOO.fromdense(jnp.asarray(x))
    halved = jnp.concatenate([0.5 * plain.data, 0.5 * plain.data])
    indices = jnp.concatenate([plain.indices, plain.indices])
    return {
        "plain": plain,
        "padded": BCOO.fromdense(jnp.asarray(x), nse=plain.nse + 3),
        "duplicates": BCOO((halved, indices), shape=x.shape),
        "by row": BCOO.fromdense(jnp.asarray(x), n_batch=1),
        "sparse_rows": sparse_rows(columns, values, x.shape[1]),
    }


FORMS = ["plain", "padded", "duplicates", "by row", "sparse_rows"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "lead", [(), *(pytest.param(k, marks=pytest.mark.slow) for k in [(2,), (2, 1)])]
)
@pytest.mark.parametrize("n", [1, 7])
def test_sparse_products_are_those_of_dense_data(form, lead, n):
    with jax.enable_x64(True):
        dense = mostly_zeros(n, 5) if n > 1 else np.array([[0.0, 2.0, 0.0, -1.0, 0.5]])
        x = forms(dense)[form]
        rng = np.random.default_rng(1)
        beta = jnp.asarray(rng.normal(size=(*lead, 5, 2)))
        theta = jnp.asarray(rng.normal(size=(*lead, 5, 3, 2)))
        for fn, plain, coefficients in (
            (sparse_affine, products.affine, beta),
            (sparse_pairs, products.pairs, theta),
        ):

            @functools.partial(jax.jit, static_argnums=0)
            def whole(fn, x, coefficients):
                """What it is, its slopes, and itself over many coefficients."""
                many = jnp.stack([coefficients, -2.0 * coefficients])
                slopes = jax.grad(lambda c: jnp.sum(jnp.sin(fn(x, c))))(coefficients)
                return (
                    fn(x, coefficients),
                    slopes,
                    jax.vmap(functools.partial(fn, x))(many),
                )

            pairs = zip(
                whole(fn, x, coefficients),
                whole(plain, dense, coefficients),
                strict=True,
            )
            for found, expected in pairs:
                assert found.shape == expected.shape
                assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


LAYERS = ["AdaptiveLayer", "FixedPriorLayer", "HorseshoeLayer", "FMLayer"]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("form", FORMS)
def test_layers_give_the_same_on_sparse_data(name, form):
    case = CASES[name]
    with jax.enable_x64(True):
        dense, values = mostly_zeros(6, 3), case.coefficients("mu")
        x = forms(dense)[form]
        found = jax.jit(lambda x: run(case, "mu", x, values=values))(x)
        assert shapes(case, "mu", x) == case.site_shapes("mu")
        assert_allclose(found, case.expected("mu", (dense,), values), atol=1e-12)


@pytest.mark.parametrize("name", ["InteractionLayer", "LowRankInteractionLayer"])
def test_layers_that_take_no_sparse_data_say_so(name):
    x, z = CASES[name].arguments(4)
    with pytest.raises(TypeError, match=rf"{name} 'mu': `z` is a sparse BCOO.*todense"):
        run(CASES[name], "mu", x, forms(z)["plain"])


def test_whole_numbers_become_floating():
    x = BCOO.fromdense(jnp.array([[0, 2], [3, 0]]))
    values = {"mu.beta": np.array([[0.5], [-1.0]])}
    found = run(FixedPriorLayer(), "mu", x, values=values)
    assert_allclose(found, [[-2.0], [1.5]])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: BCSR.fromdense(jnp.eye(2)), TypeError, "BCSR of shape .* form BCOO"),
        (lambda: empty((2, 3, 1)), ValueError, r"BCOO of shape \(2, 3, 1\)"),
        (lambda: empty((4,)), ValueError, r"BCOO of shape \(4,\)"),
        (lambda: empty((4, 0)), ValueError, r"BCOO of shape \(4, 0\)"),
        (lambda: BCOO.fromdense(jnp.eye(2), n_dense=1), ValueError, ".* 1 dense axes"),
        (
            lambda: BCOO.fromdense(1j * jnp.eye(2)),
            TypeError,
            ".*complex64, not numbers",
        ),
    ],
)
def test_other_sparse_data_raise(make, error, message):
    with pytest.raises(error, match=rf"AdaptiveLayer 'mu': `x` is a sparse {message}"):
        run(AdaptiveLayer(), "mu", make())


def test_a_sparse_pair_needs_two_columns():
    with pytest.raises(ValueError, match=r"\(3, 1\), but interactions of order 2 need"):
        run(FMLayer(low_rank_dim=2), "mu", empty((3, 1)))


@pytest.mark.parametrize(
    ("columns", "values", "message"),
    [
        (np.zeros((3, 2), int), np.ones((3, 1)), r"\(3, 2\) and `values` has shape"),
        (np.zeros(3, int), np.ones(3), r"\(3,\)"),
        (np.array([[0, 4]]), np.ones((1, 2)), "int64 from 0 to 4, .* from 0 to 3"),
        (np.array([[0, -1]]), np.ones((1, 2)), "from -1 to 0"),
        (np.array([[0.0, 1.0]]), np.ones((1, 2)), "holds float64"),
    ],
)
def test_rows_that_are_no_sparse_matrix_raise(columns, values, message):
    with pytest.raises(ValueError, match=f"sparse_rows: .*{message}"):
        sparse_rows(columns, values, 4)


def dense_model(x, y=None):
    return gaussian_link(AdaptiveLayer()("mu", x) + InterceptLayer()("alpha"), y)


def rows_model(columns, values, num_columns, y=None):
    return dense_model(sparse_rows(columns, values, num_columns), y)


def sparse_regression(n=60):
    rng = np.random.default_rng(0)
    columns = np.stack([rng.permutation(6)[:2] for _ in range(n)])
    values = rng.normal(size=(n, 2))
    dense = np.zeros((n, 6))
    np.put_along_axis(dense, columns, values, axis=1)
    y = dense @ np.linspace(-1.0, 1.0, 6) + 0.1 * rng.normal(size=n)
    data = {"columns": columns, "values": values, "num_columns": 6, "y": y}
    return data, dense.astype(np.float32)


def test_a_sparse_matrix_in_a_model_has_the_density_of_a_dense_one():
    data, dense = sparse_regression()
    values = CASES["AdaptiveLayer"].coefficients("mu")
    values |= {
        "mu.lmbda": np.array([0.7]),
        "mu.beta": np.linspace(-1.0, 2.0, 6)[:, None],
        "alpha.beta": np.array([[0.3]]),
        "sigma": np.array(0.5),
    }
    x, y = BCOO.fromdense(jnp.asarray(dense)), data["y"]
    sparse = log_density(dense_model, (x, y), {}, values)[0]
    assert_allclose(
        sparse, log_density(dense_model, (dense, y), {}, values)[0], rtol=1e-5
    )
    by_rows = log_density(rows_model, (), data, values)[0]
    assert_allclose(by_rows, sparse, rtol=1e-5)


def test_sparse_rows_are_fitted_in_minibatches_and_predicted():
    """The same steps as on dense data, from the plain estimator."""
    data, dense = sparse_regression()
    options = {
        "batch_size": 20,
        "num_steps": 40,
        "estimator": "reparameterization",
        "num_draws": 20,
    }
    with jax.numpy_rank_promotion("allow"):
        found = fit(rows_model, data, **options)
        expected = fit(dense_model, {"x": dense, "y": data["y"]}, **options)
        for name, draws in expected.draws.items():
            assert_allclose(found.draws[name], draws, rtol=1e-3, atol=1e-3)
        new = {"columns": np.array([[1, 3]]), "values": np.array([[1.0, -2.0]])}
        predicted = found.predict(new, kind="mean")
        row = np.zeros((1, 6), np.float32)
        row[0, [1, 3]] = 1.0, -2.0
        wanted = expected.predict({"x": row}, kind="mean")
    assert_allclose(predicted.mean, wanted.mean, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_a_bound_sparse_matrix_is_fitted_on_all_rows():
    data, dense = sparse_regression()
    x = BCOO.fromdense(jnp.asarray(dense))
    bound = functools.partial(dense_model, x)
    with jax.numpy_rank_promotion("allow"):
        options = {"method": "map", "num_steps": 200}
        found = fit(bound, {"y": data["y"]}, **options)
        expected = fit(dense_model, {"x": dense, "y": data["y"]}, **options)
    beta = found.draws["mu.beta"]
    assert_allclose(beta, expected.draws["mu.beta"], rtol=1e-2, atol=1e-3)


def test_local_reparameterization_leaves_sparse_products_alone():
    data, _ = sparse_regression()
    with jax.numpy_rank_promotion("allow"):
        found = fit(rows_model, data, batch_size=20, num_steps=10, num_draws=2)
    assert found.estimators["mu.beta"].startswith("reparameterization")


def test_a_horseshoe_takes_sparse_data():
    x = forms(mostly_zeros(6, 3))["plain"]
    assert run(HorseshoeLayer(units=2), "mu", x).shape == (6, 2)
