import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from lamina import _checks

pytestmark = pytest.mark.usefixtures("strict_shapes")


def says(*texts):
    """A pattern for messages that say all of these, in this order."""
    return "(?s)" + ".*".join(texts)


@pytest.mark.parametrize("n", [1, 4])
def test_a_flat_column_becomes_one_column(n):
    x = np.arange(float(n))
    found = _checks.as_columns("Layer 'x'", x)
    assert found.shape == (n, 1)
    assert_array_equal(found[:, 0], x)


@pytest.mark.parametrize(
    "x",
    [
        np.ones((3, 2), int),
        np.ones((3, 2), bool),
        np.ones((3, 2), np.float64),
        [[1, 2], [3, 4], [5, 6]],
        pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4, 5, 6]}),
        jnp.ones((3, 2), jnp.int32),
    ],
    ids=["int", "bool", "float", "list", "frame", "jax"],
)
def test_columns_of_any_number_type_become_floats(x):
    found = _checks.as_columns("Layer 'x'", x)
    assert isinstance(found, jax.Array)
    assert found.shape == (3, 2)
    assert found.dtype == jnp.float32
    assert_array_equal(found, np.asarray(x, np.float32))


def test_large_integers_do_not_wrap_around():
    """Times in milliseconds since 1970 take 41 bits; JAX's integers have 32."""
    x = np.array([1_600_000_000_000, -(2**40), 2**62])
    assert_array_equal(_checks.as_columns("Layer 'x'", x)[:, 0], x.astype(np.float32))
    assert_array_equal(_checks.as_jax(x), x.astype(np.float32))
    assert _checks.as_jax(np.array([2**31 - 1])).dtype == jnp.int32
    assert _checks.as_jax(np.zeros(0, int)).shape == (0,)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_floats_stay_narrow(dtype):
    assert _checks.as_columns("Layer 'x'", jnp.ones((2, 2), dtype)).dtype == dtype


@pytest.mark.parametrize("shape", [(), (2, 3, 1)])
def test_columns_of_other_ranks_raise(shape):
    with pytest.raises(ValueError, match=says("Layer 'x'", r"shape \(", "Reshape")):
        _checks.as_columns("Layer 'x'", np.ones(shape))


def test_no_columns_raise():
    with pytest.raises(
        ValueError, match=says(r"\(3, 0\), no columns", "always be zero")
    ):
        _checks.as_columns("Layer 'x'", np.ones((3, 0)))


@pytest.mark.parametrize(
    "x",
    [
        np.array(["a", "b"]),
        np.array([1.0, None]),
        np.array([1 + 2j]),
        np.array(["2020-01-01"], "M8[D]"),
        pd.Series(["a", "b"], dtype="category"),
        pd.DataFrame({"a": [1.0, 2.0], "b": ["u", "v"]}),
    ],
    ids=["text", "object", "complex", "time", "category", "mixed frame"],
)
def test_columns_that_are_no_numbers_raise(x):
    with pytest.raises(TypeError, match=says("`z` holds", "not numbers", "Encode")):
        _checks.as_columns("Layer 'x'", x, "z")


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_codes_are_flat_integers(n, dtype):
    codes = np.arange(n, dtype=dtype)
    for given in (codes, codes[:, None], jnp.asarray(codes), pd.Series(codes)):
        found = _checks.as_codes("Layer 'g'", given, n, unseen=False)
        assert found.shape == (n,)
        assert_array_equal(found, codes)


def test_codes_of_a_nullable_series():
    codes = pd.Series([0, 1, 2], dtype="Int64")
    assert_array_equal(_checks.as_codes("g", codes, 3, unseen=False), [0, 1, 2])


@pytest.mark.parametrize(
    "codes",
    [np.array([0.0, 1.0]), np.array(["a"]), np.array([True]), pd.Series([1.5])],
    ids=["float", "text", "bool", "series"],
)
def test_codes_that_are_no_integers_raise(codes):
    with pytest.raises(TypeError, match=says("Layer 'g'", "dtype", "0 to 2", "encode")):
        _checks.as_codes("Layer 'g'", codes, 3, unseen=True)


def test_codes_with_two_columns_raise():
    with pytest.raises(ValueError, match=says(r"shape \(2, 2\)", "one layer to each")):
        _checks.as_codes("Layer 'g'", np.zeros((2, 2), int), 3, unseen=True)


@pytest.mark.parametrize("unseen", [True, False])
def test_codes_past_the_table_raise_with_layer_code_and_size(unseen):
    with pytest.raises(ValueError, match=says("Layer 'g'", "code 7", "table of 3")):
        _checks.as_codes("Layer 'g'", np.array([0, 7]), 3, unseen=unseen)


def test_negative_codes_raise_unless_unseen_levels_are_allowed():
    codes = np.array([0, -2])
    with pytest.raises(ValueError, match=says("code -2 is negative", "0 to 2")):
        _checks.as_codes("Layer 'g'", codes, 3, unseen=False)
    assert_array_equal(_checks.as_codes("Layer 'g'", codes, 3, unseen=True), codes)


def test_codes_that_would_wrap_around_in_32_bits_raise():
    with pytest.raises(ValueError, match=says("code -4294967296", "wrap around")):
        _checks.as_codes("Layer 'g'", np.array([-(2**32)]), 3, unseen=True)


def test_traced_codes_pass_and_no_codes_pass():
    jax.jit(lambda c: _checks.as_codes("g", c, 3, unseen=False))(np.array([9, -9]))
    assert _checks.as_codes("g", np.zeros(0, int), 3, unseen=False).shape == (0,)


def test_rows_must_match():
    _checks.same_rows("Layer", jnp.ones((1, 2)), jnp.ones((1, 3)))
    with pytest.raises(ValueError, match=says(r"\(2, 1\)", r"\(1, 1\)", "same number")):
        _checks.same_rows("Layer", jnp.ones((2, 1)), jnp.ones((1, 1)))


@pytest.mark.parametrize(("given", "called"), [(3, None), (None, 3), (3, 3)])
def test_a_size_is_given_once_or_twice_alike(given, called):
    assert _checks.one_size("Layer", "rank", given, called) == 3


def test_a_size_given_twice_or_never_raises():
    with pytest.raises(ValueError, match=says("`rank` is 2", "3 in the call", "once")):
        _checks.one_size("Layer", "rank", 2, 3)
    with pytest.raises(TypeError, match=says("`rank` is missing", r"rank=\.\.\.")):
        _checks.one_size("Layer", "rank", None, None)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "3", None])
def test_a_size_is_a_whole_number_of_at_least_one(size):
    with pytest.raises(ValueError, match=says("`rank` is", "at least 1")):
        _checks.positive_size("Layer", "rank", size)


def test_a_size_computed_by_jax_raises_with_the_remedy():
    codes = jnp.array([0, 2])
    expected = says("`num_categories` is computed by JAX", "outside of the model")
    with pytest.raises(TypeError, match=expected):
        _checks.positive_size("Layer", "num_categories", codes.max() + 1)
    with pytest.raises(TypeError, match=expected):
        jax.jit(lambda c: _checks.positive_size("L", "num_categories", c.max()))(codes)


def test_numpy_sizes_become_python_ints():
    assert type(_checks.positive_size("Layer", "rank", np.int64(3))) is int


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (dist.Normal(0.0, 1.0), True),
        (dist.StudentT(3.0, 1.0, 1.0), True),
        (dist.Uniform(-2.0, 1.0), True),
        (dist.HalfNormal(1.0), False),
        (dist.LogNormal(0.0, 1.0), False),
        (dist.Uniform(0.0, 1.0), False),
        (dist.TruncatedNormal(0.0, 1.0, low=0.0), False),
        (dist.Uniform(jnp.array([0.0, -2.0]), 1.0), True),
    ],
)
def test_which_distributions_allow_negative_values(fn, expected):
    assert _checks.allows_negative(fn) is expected
    assert jax.jit(lambda x: x + _checks.allows_negative(fn))(0) == int(expected)


def test_where_bad_counts_and_names_the_first_rows():
    bad = np.zeros((9, 2), bool)
    bad[[1, 2, 3, 5, 7, 8], 0] = True
    bad[1, 1] = True
    assert _checks.where_bad(bad) == "7 of 18 values, in rows 1, 2, 3, 5, 7, ..."
    assert _checks.where_bad(np.array(True)) == "1 of 1 values, in rows 0"


@pytest.mark.parametrize(
    ("fn", "y", "words"),
    [
        (dist.Normal(0.0, 1.0), [0.0, np.nan], "finite numbers"),
        (dist.Normal(0.0, 1.0), [0.0, np.inf], "finite numbers"),
        (dist.Bernoulli(0.5), [0, 2], "0 and 1"),
        (dist.Poisson(1.0), [0.0, 1.5], "the counts"),
        (dist.Exponential(1.0), [1.0, -1.0], "positive"),
        (dist.Beta(1.0, 1.0), [0.5, 1.5], "from 0 to 1"),
    ],
)
def test_outcomes_outside_the_support_raise(fn, y, words):
    expected = says("outcome 'obs'", "1 of 2 values, in rows 1", words, "correct it")
    with pytest.raises(ValueError, match=expected):
        _checks.require_support("obs", fn, np.array(y))


def test_outcomes_that_are_no_numbers_raise():
    with pytest.raises(TypeError, match=says("`y` holds <U1", "0 and 1")):
        _checks.require_support("obs", dist.Bernoulli(0.5), np.array(["a"]))


def test_outcomes_inside_the_support_pass():
    _checks.require_support("obs", dist.Bernoulli(0.5), np.array([True, False]))
    _checks.require_support("obs", dist.Normal(0.0, 1.0), np.array([1, -2]))
    _checks.require_support("obs", dist.Poisson(1.0), np.array([3.0]))
    jax.jit(lambda y: _checks.require_support("o", dist.Bernoulli(0.5), y) or y)(5.0)
