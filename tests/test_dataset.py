"""Rows, constants, and what is no data at all."""

import re
from datetime import date

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from lamina.data import new_rows, read_data
from support import enable_x64

X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
Y = np.array([0.5, -0.5, 1.5])


def fitted(**changes):
    """A dataset as a fit reads it."""
    data = {
        "x": X,
        "code": np.array([0, 2, 1]),
        "y": Y,
        "size": 3,
        "knots": np.arange(4.0),
    }
    return read_data({**data, **changes})


# --- rows and constants


def test_arrays_of_the_outcomes_length_are_rows_and_the_rest_are_constants():
    data = fitted(label="sleep", unused=None)
    assert set(data.rows) == {"x", "code", "y"}
    assert set(data.constants) == {"size", "knots", "label", "unused"}
    assert data.num_rows == 3
    assert set(data.arguments) == set(data.rows) | set(data.constants)
    assert data.unobserved["y"] is None
    assert data.unobserved["x"] is data.rows["x"]


def test_constants_by_name_stay_whole_though_they_have_a_rows_length():
    data = {"x": X, "y": Y, "prior": np.array([1.0, 2.0, 3.0])}
    assert "prior" in read_data(data).rows
    for names in (["prior"], "prior", {"prior"}, ("prior",)):
        assert "prior" in read_data(data, constants=names).constants


def test_constants_as_a_mapping_add_arguments():
    data = read_data({"x": X, "y": Y}, constants={"prior": np.ones(3), "size": 4})
    assert set(data.rows) == {"x", "y"}
    assert set(data.constants) == {"prior", "size"}


@pytest.mark.parametrize(
    "column",
    [
        [1.0, 2.0, 3.0],
        (1.0, 2.0, 3.0),
        pd.Series([1.0, 2.0, 3.0], index=[7, 8, 9]),
        jnp.array([1.0, 2.0, 3.0]),
        np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 0, 0]),
        pd.Series([1, 2, 3], dtype="Int64"),
        jnp.array([1.0, 2.0, 3.0], jnp.bfloat16),
    ],
    ids=lambda v: type(v).__name__,
)
def test_columns_of_any_container_are_the_same_rows(column):
    data = read_data({"x": column, "y": Y})
    assert isinstance(data.rows["x"], np.ndarray)
    assert_array_equal(data.rows["x"], [1.0, 2.0, 3.0])


def test_frames_and_nested_lists_are_columns():
    for table in (pd.DataFrame({"a": X[:, 0], "b": X[:, 1]}), X.tolist(), jnp.array(X)):
        assert_array_equal(read_data({"x": table, "y": Y}).rows["x"], X)


def test_several_outcomes_share_their_rows():
    data = read_data({"a": Y, "b": np.array([1, 0, 1]), "x": X}, observed=("a", "b"))
    assert data.observed == ("a", "b")
    assert data.unobserved["a"] is None
    assert data.unobserved["b"] is None


def test_outcomes_of_different_lengths_raise():
    with pytest.raises(ValueError, match=r"lengths \{'a': 3, 'b': 2\}, but each needs"):
        read_data({"a": Y, "b": Y[:2]}, observed=("a", "b"))


@pytest.mark.parametrize("value", [3.0, "abc", None, np.float64(1.0)])
def test_an_outcome_that_is_one_value_raises(value):
    with pytest.raises(ValueError, match=r"single values.*array of length 1"):
        read_data({"x": X, "y": value})


def test_one_row_is_data_and_none_is_not():
    one = read_data({"x": X[:1], "y": Y[:1], "size": 1})
    assert one.num_rows == 1
    assert set(one.rows) == {"x", "y"}
    with pytest.raises(ValueError, match="no rows, so there is nothing to fit"):
        read_data({"x": X[:0], "y": Y[:0]})


def test_the_data_are_copies_that_cannot_be_changed():
    x, y = X.copy(), Y.copy()
    data = read_data({"x": x, "y": y})
    x[0, 0], y[0] = 99.0, 99.0
    assert_array_equal(data.rows["x"], X)
    assert_array_equal(data.rows["y"], Y)
    with pytest.raises(ValueError, match="read-only"):
        data.rows["x"][0, 0] = 99.0
    with pytest.raises(TypeError, match="does not support item assignment"):
        data.rows["x"] = X


# --- what cannot be meant


def test_data_that_are_no_mapping_raise():
    with pytest.raises(TypeError, match=r"`data` is a list, but it maps"):
        read_data([X, Y])
    with pytest.raises(TypeError, match=r"`new_data` is a ndarray"):
        new_rows(read_data({"x": X, "y": Y}), X)


def test_a_data_frame_is_the_mapping_of_its_columns():
    frame = pd.DataFrame({"age": X[:, 0], "y": Y})
    data = read_data(frame)
    assert set(data.rows) == {"age", "y"}
    assert_array_equal(data.rows["age"], X[:, 0])
    assert_array_equal(new_rows(data, frame[["age"]]).rows["age"], X[:, 0])


def test_an_absent_outcome_raises_with_what_there_is():
    with pytest.raises(ValueError, match=r"\['y'\] is not in `data`.*\['x'\]"):
        read_data({"x": X})
    with pytest.raises(ValueError, match="Name the outcome"):
        read_data({"x": X, "y": Y}, observed=())


def test_constants_that_data_lack_or_have_too_raise():
    with pytest.raises(ValueError, match=r"names \['knots'\], which `data` has not"):
        read_data({"x": X, "y": Y}, constants="knots")
    with pytest.raises(ValueError, match=r"\['x'\] are given in `data` and"):
        read_data({"x": X, "y": Y}, constants={"x": X})
    with pytest.raises(ValueError, match=r"\['y'\] are observed and named in"):
        read_data({"x": X, "y": Y}, constants=["y"])


@pytest.mark.parametrize(
    "column",
    [
        np.array(["a", "b", "c"]),
        ["a", "b", "c"],
        np.array(["2020-01-01"] * 3, "datetime64[D]"),
        [date(2020, 1, 1)] * 3,
        pd.Series(pd.date_range("2020-01-01", periods=3)),
        pd.Series(["a", "b", "a"], dtype="category"),
        np.array([1, "a", None], dtype=object),
        [1.0, None, 2.0],
        np.array([1j, 2j, 3j]),
        np.zeros(3, [("a", float)]),
    ],
)
def test_what_is_no_number_raises_with_the_way_to_encode_it(column):
    with pytest.raises(TypeError, match=r"`x` has dtype .*not real numbers.*np.unique"):
        read_data({"x": column, "y": Y})


def test_ragged_rows_raise():
    with pytest.raises(
        TypeError, match=r"`x` is a ragged list.*same number of columns"
    ):
        read_data({"x": [[1.0], [1.0, 2.0], [3.0]], "y": Y})


def test_a_random_key_is_no_data():
    with pytest.raises(TypeError, match=r"`x` is a .*not an array of numbers"):
        read_data({"x": jax.random.key(0), "y": Y})


# --- missing and infinite values


@pytest.mark.parametrize("name", ["x", "y"])
def test_nan_in_rows_raises_and_says_where(name):
    values = {"x": X.copy(), "y": Y.copy()}
    values[name][1] = np.nan
    with pytest.raises(ValueError, match=rf"`{name}` is missing \(NaN\).*in rows 1"):
        read_data(values)


@pytest.mark.parametrize("missing", ["error", "skip"])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_rows_always_raise(missing, value):
    x = X.copy()
    x[2, 0] = value
    with pytest.raises(
        ValueError, match=r"`x` is infinite in 1 of 6 values, in rows 2"
    ):
        read_data({"x": x, "y": Y}, missing=missing)


@pytest.mark.parametrize("value", [np.nan, np.inf, np.array([1.0, np.nan])])
def test_constants_must_be_finite(value):
    with pytest.raises(ValueError, match="`k`, a constant, is NaN or infinite"):
        read_data({"x": X, "y": Y, "k": value})


def test_skip_leaves_out_whole_rows_and_says_how_many():
    x, y = X.copy(), Y.copy()
    x[0, 1] = np.nan
    data = read_data({"x": x, "code": np.array([4, 5, 6]), "y": y}, missing="skip")
    assert_array_equal(data.rows["x"], X[1:])
    assert_array_equal(data.rows["y"], Y[1:])
    assert_array_equal(data.rows["code"], [5, 6])
    assert data.rows["code"].dtype == np.array([4]).dtype
    assert data.notes == ("1 of 3 rows have missing values and were left out.",)
    assert read_data({"x": X, "y": Y}, missing="skip").notes == ()


def test_skip_reads_masks_as_missing():
    """`np.asarray` of a masked array shows the numbers under the mask."""
    x = np.ma.masked_array([1, 2, 3], mask=[0, 1, 0])
    with pytest.raises(ValueError, match="missing"):
        read_data({"x": x, "y": Y})
    assert_array_equal(
        read_data({"x": x, "y": Y}, missing="skip").rows["x"], [1.0, 3.0]
    )


def test_skip_with_no_row_left_raises():
    with pytest.raises(ValueError, match="every row has a missing value"):
        read_data({"x": X, "y": np.full(3, np.nan)}, missing="skip")


def test_skip_refuses_to_lose_an_outcome_that_was_seen():
    a, b = Y.copy(), Y.copy()
    a[1] = np.nan
    with pytest.raises(ValueError, match=r"1 rows miss some outcomes of \('a', 'b'\)"):
        read_data({"a": a, "b": b}, observed=("a", "b"), missing="skip")
    b[1] = np.nan
    both = read_data({"a": a, "b": b}, observed=("a", "b"), missing="skip")
    assert both.num_rows == 2
    columns = np.column_stack([a, Y])
    with pytest.raises(ValueError, match="miss some outcomes"):
        read_data({"y": columns}, missing="skip")


def test_an_unknown_way_with_missing_values_raises():
    with pytest.raises(ValueError, match="missing is 'drop'; it is 'error' or 'skip'"):
        read_data({"y": Y}, missing="drop")


# --- numbers that 32 bits would change


@pytest.mark.parametrize(
    "column",
    [
        np.array([0.0, 1.0, 1e39]),
        np.array([1, 2, 2**31]),
        np.array([1, 2, -(2**31) - 1]),
        np.array([1, 2, 2**32], np.uint64),
    ],
)
def test_numbers_past_32_bits_raise_where_jax_has_no_more(column):
    with pytest.raises(ValueError, match=r"`x` is past the range of .*in rows 2"):
        read_data({"x": column, "y": Y})
    with enable_x64():
        assert_array_equal(read_data({"x": column, "y": Y}).rows["x"], column)


def test_rows_that_32_bits_cannot_tell_apart_raise():
    seconds = 1.7e9 + np.arange(3.0)
    with pytest.raises(ValueError, match=r"`x` has values from .*steps of 2e\+02"):
        read_data({"x": np.column_stack([Y, seconds]), "y": Y})
    with enable_x64():
        read_data({"x": seconds, "y": Y})
    for fine in (seconds - seconds[0], np.full(3, 0.1), [2019.5, 2020.5, 2021.5]):
        read_data({"x": fine, "y": Y})
    read_data({"x": np.array([0.3, 0.1 + 0.2, 0.3]), "y": Y})  # rounding, not data


# --- new rows


def test_new_rows_have_the_fitted_arguments_and_remember_constants():
    new = new_rows(fitted(), {"x": X[:1], "code": np.array([5])})
    assert set(new.rows) == {"x", "code"}
    assert new.constants["size"] == 3
    assert_array_equal(new.constants["knots"], np.arange(4.0))


def test_new_constants_take_the_place_of_the_old():
    given = {"x": X[:1], "code": [0], "size": 9, "knots": np.arange(2.0)}
    new = new_rows(fitted(), given)
    assert new.constants["size"] == 9
    assert_array_equal(new.constants["knots"], [0.0, 1.0])
    with pytest.raises(ValueError, match="`knots`, a constant, is NaN"):
        new_rows(fitted(), {**given, "knots": [np.nan]})


def test_an_outcome_among_new_data_is_passed_over():
    new = new_rows(fitted(), {"x": X, "code": [0, 1, 2], "y": Y})
    assert "y" not in new.rows


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": None}, ValueError, r"`x` has shape \(\), but it was fitted with 2 axes"),
        ({"x": X[0]}, ValueError, r"shape \(2,\).*one row is an array of length 1"),
        ({"x": X[:, :1]}, ValueError, r"was fitted with columns \(2,\)"),
        ({"x": np.zeros((3, 3))}, ValueError, "same columns in the same order"),
        ({"x": X[:2]}, ValueError, r"lengths \{'x': 2, 'code': 3\}"),
        ({"x": np.full((3, 2), np.nan)}, ValueError, "`x`, new data, is NaN"),
        ({"code": np.array([0.0, 1.0, 2.0])}, TypeError, "fitted with integers"),
        ({"code": np.array([True, False, True])}, TypeError, "has dtype bool"),
        ({"code": ["a", "b", "c"]}, TypeError, "not real numbers"),
        ({"w": Y}, ValueError, r"new data have \['w'\].*It takes"),
    ],
)
def test_new_rows_that_were_not_fitted_raise(changes, error, message):
    data = {"x": X, "code": np.array([0, 1, 2]), **changes}
    with pytest.raises(error, match=message):
        new_rows(fitted(), data)


def test_missing_and_empty_new_data_raise():
    with pytest.raises(ValueError, match=r"new data lack \['code'\].*give"):
        new_rows(fitted(), {"x": X})
    with pytest.raises(ValueError, match="no rows, so there is nothing to predict"):
        new_rows(fitted(), {"x": X[:0], "code": np.zeros(0, int)})
    with pytest.raises(TypeError, match="`new_data` is a list"):
        new_rows(fitted(), [X])


def test_a_measurement_that_was_fitted_as_integers_is_told_what_to_do():
    trained = read_data({"age": np.array([20, 30, 40]), "y": Y})
    with pytest.raises(TypeError, match="fit the model with floating numbers"):
        new_rows(trained, {"age": np.array([25.5])})
    floating = read_data({"age": np.array([20.0, 30.0, 40.0]), "y": Y})
    assert_array_equal(new_rows(floating, {"age": [25]}).rows["age"], [25])


def test_the_description_names_every_argument():
    text = fitted().describe()
    for part in ("x (3, 2)", "code (3,)", "y (3,)", "size=3", "knots (4,)"):
        assert re.search(re.escape(part), text)
