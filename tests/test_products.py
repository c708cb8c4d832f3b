import functools
from itertools import combinations, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from numpy.testing import assert_allclose, assert_array_equal

from lamina import products
from support import enable_x64, shape_checked

pytestmark = pytest.mark.usefixtures("strict_shapes")

sizes = st.integers(1, 3)
seeds = st.integers(0, 2**32 - 1)
replicates = st.sampled_from([(), (2,), (2, 1)])


def in_float64(test):
    """Run under double precision: hypothesis reuses one fixture for all examples."""

    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        with enable_x64():
            return test(*args, **kwargs)

    return wrapped


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape))


def by_replicate(reference, *coefficients):
    """`reference` of each replicate's coefficients, stacked along the leading axes."""
    lead = coefficients[0].shape[: coefficients[0].ndim - reference.axes]
    results = np.array(
        [
            reference(*(np.asarray(c)[index] for c in coefficients))
            for index in np.ndindex(*lead)
        ]
    )
    return results.reshape(*lead, *results.shape[1:])


def axes(count):
    """Say how many axes one replicate's coefficients have."""

    def mark(reference):
        reference.axes = count
        return reference

    return mark


@given(n=sizes, d=sizes, u=sizes, r=replicates, seed=seeds)
@in_float64
def test_affine_sums_columns_times_coefficients(n, d, u, r, seed):
    rng = np.random.default_rng(seed)
    x, beta = normal(rng, n, d), normal(rng, *r, d, u)

    @axes(2)
    def reference(beta):
        f = np.zeros((n, u))
        for row, column, unit in product(range(n), range(d), range(u)):
            f[row, unit] += x[row, column] * beta[column, unit]
        return f

    found = jax.jit(shape_checked(products.affine))(x, beta)
    assert_allclose(found, by_replicate(reference, beta), atol=1e-12)


@given(n=sizes, d=sizes, l=sizes, u=sizes, r=replicates, seed=seeds)
@in_float64
def test_pairs_sums_every_pair_of_columns_once(n, d, l, u, r, seed):
    rng = np.random.default_rng(seed)
    x, theta = normal(rng, n, d), normal(rng, *r, d, l, u)

    @axes(3)
    def reference(theta):
        f = np.zeros((n, u))
        for i, j in combinations(range(d), 2):
            for row, unit in product(range(n), range(u)):
                weight = theta[i, :, unit] @ theta[j, :, unit]
                f[row, unit] += x[row, i] * x[row, j] * weight
        return f

    found = jax.jit(shape_checked(products.pairs))(x, theta)
    assert_allclose(found, by_replicate(reference, theta), atol=1e-12)


@given(n=sizes, d=st.integers(1, 4), l=sizes, u=sizes, r=replicates, seed=seeds)
@in_float64
def test_triples_sums_every_three_columns_once(n, d, l, u, r, seed):
    rng = np.random.default_rng(seed)
    x, theta = normal(rng, n, d), normal(rng, *r, d, l, u)

    @axes(3)
    def reference(theta):
        f = np.zeros((n, u))
        for chosen in combinations(range(d), 3):
            for row, unit in product(range(n), range(u)):
                weight = np.prod([theta[i, :, unit] for i in chosen], axis=0).sum()
                f[row, unit] += np.prod([x[row, i] for i in chosen]) * weight
        return f

    found = jax.jit(shape_checked(products.triples))(x, theta)
    assert_allclose(found, by_replicate(reference, theta), atol=1e-12)


@given(n=sizes, d=sizes, u=sizes, r=replicates, seed=seeds)
@in_float64
def test_affine_takes_columns_that_replicates_made(n, d, u, r, seed):
    rng = np.random.default_rng(seed)
    x, beta = normal(rng, *r, n, d), normal(rng, *r, d, u)
    found = shape_checked(products.affine)(x, beta)
    assert_allclose(found, np.asarray(x) @ np.asarray(beta), atol=1e-12)


@given(n=sizes, d=sizes, e=sizes, l=sizes, u=sizes, r=replicates, seed=seeds)
@in_float64
def test_low_rank_multiplies_two_projections(n, d, e, l, u, r, seed):
    rng = np.random.default_rng(seed)
    x, z = normal(rng, n, d), normal(rng, n, e)
    theta1, theta2 = normal(rng, *r, d, l, u), normal(rng, *r, e, l, u)

    @axes(3)
    def reference(theta1, theta2):
        f = np.zeros((n, u))
        for row, i, j, unit in product(range(n), range(d), range(e), range(u)):
            weight = theta1[i, :, unit] @ theta2[j, :, unit]
            f[row, unit] += x[row, i] * z[row, j] * weight
        return f

    found = jax.jit(shape_checked(products.low_rank))(x, z, theta1, theta2)
    assert_allclose(found, by_replicate(reference, theta1, theta2), atol=1e-12)


@given(n=sizes, d=sizes, e=sizes, u=sizes, r=replicates, seed=seeds)
@in_float64
def test_bilinear_weighs_every_pair_across_the_two_sets(n, d, e, u, r, seed):
    rng = np.random.default_rng(seed)
    x, z, beta = normal(rng, n, d), normal(rng, n, e), normal(rng, *r, d, e, u)

    @axes(3)
    def reference(beta):
        f = np.zeros((n, u))
        for row, i, j, unit in product(range(n), range(d), range(e), range(u)):
            f[row, unit] += x[row, i] * z[row, j] * beta[i, j, unit]
        return f

    found = jax.jit(shape_checked(products.bilinear))(x, z, beta)
    assert_allclose(found, by_replicate(reference, beta), atol=1e-12)


@given(n=sizes, c=sizes, m=sizes, r=replicates, seed=seeds)
@in_float64
def test_lookup_reads_a_row_for_each_code_and_nan_outside_the_table(n, c, m, r, seed):
    rng = np.random.default_rng(seed)
    codes, table = rng.integers(-c - 2, c + 3, size=n), normal(rng, *r, c, m)

    @axes(2)
    def reference(table):
        outside = np.full(m, np.nan)
        return np.array([table[k] if 0 <= k < c else outside for k in codes])

    found = jax.jit(shape_checked(products.lookup))(jnp.asarray(codes), table)
    assert_array_equal(found, by_replicate(reference, table))


N, D, E, L, U, C, M = 5, 3, 2, 2, 4, 6, 3
CASES = {
    "affine": (products.affine, [(N, D)], [(D, U)]),
    "pairs": (products.pairs, [(N, D)], [(D, L, U)]),
    "triples": (products.triples, [(N, D)], [(D, L, U)]),
    "low_rank": (products.low_rank, [(N, D), (N, E)], [(D, L, U), (E, L, U)]),
    "bilinear": (products.bilinear, [(N, D), (N, E)], [(D, E, U)]),
    "lookup": (products.lookup, [(N,)], [(C, M)]),
}


@pytest.fixture(params=CASES)
def case(request):
    """A product, its data and its coefficients."""
    fn, data, coefficients = CASES[request.param]
    rng = np.random.default_rng(7)
    if fn is products.lookup:
        arrays = [jnp.asarray(rng.integers(0, C, size=data[0]))]
    else:
        arrays = [normal(rng, *shape) for shape in data]
    return fn, arrays, [normal(rng, *shape) for shape in coefficients]


def test_every_product_has_a_case():
    public = {k for k, v in vars(products).items() if callable(v) and k.islower()}
    assert public == set(CASES)


def test_compiled_and_mapped_products_agree_with_the_plain_one(case):
    fn, data, coefficients = case
    plain = fn(*data, *coefficients)
    assert_allclose(jax.jit(fn)(*data, *coefficients), plain, rtol=1e-5, atol=1e-6)
    draws = [jnp.stack([c, 2.0 * c, -c]) for c in coefficients]
    mapped = jax.vmap(lambda *c: fn(*data, *c))(*draws)
    assert_allclose(mapped, fn(*data, *draws), rtol=1e-5, atol=1e-5)
    assert mapped.shape == (3, *plain.shape)


def test_each_row_is_mapped_on_its_own(case):
    fn, data, coefficients = case
    together = fn(*data, *coefficients)
    for row in range(N):
        alone = fn(*(x[row : row + 1] for x in data), *coefficients)
        assert alone.shape == (1, together.shape[1])
        assert_allclose(alone[0], together[row], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_result_has_the_precision_of_the_coefficients(case, dtype):
    fn, data, coefficients = case
    with enable_x64():
        arrays = [
            x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(dtype) for x in data
        ]
        found = fn(*arrays, *(c.astype(dtype) for c in coefficients))
    assert found.dtype == dtype


def test_gradients_agree_with_finite_differences(case):
    fn, data, coefficients = case
    with enable_x64():
        wide = [c.astype(jnp.float64) for c in coefficients]
        check_grads(lambda *c: fn(*data, *c), wide, order=1, modes=["rev"])
