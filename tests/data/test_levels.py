"""Crossed and nested groups: combinations that occur, and new ones."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lamina.data import crossed
from lamina.layers import RandomEffectsLayer
from support import run

A = np.array([0, 2, 0, 1, 2, 0])
B = np.array([1, 0, 1, 5, 3, 0])


def test_each_combination_that_occurs_is_a_level():
    found = crossed(A, B)
    pairs = sorted(set(zip(A.tolist(), B.tolist(), strict=True)))
    expected = [pairs.index(pair) for pair in zip(A.tolist(), B.tolist(), strict=True)]
    assert_array_equal(found.codes, expected)
    assert_array_equal(found.levels, pairs)
    assert found.num_levels == 5
    assert repr(found) == "Crossed(5 combinations of 2 factors, 6 rows)"


def test_nested_levels_know_their_parents():
    school, room = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 0])
    rooms = crossed(school, room)
    assert rooms.num_levels == 4
    assert_array_equal(rooms.levels[rooms.codes, 0], school)
    table = np.arange(4.0)[:, None]
    layer = RandomEffectsLayer()
    values = {"room.lmbda": 1.0, "room.theta": table}
    found = run(layer, "room", rooms.codes, rooms.num_levels, values=values)
    assert_array_equal(found[:, 0], [0.0, 1.0, 2.0, 3.0, 2.0])


def test_fitted_rows_are_encoded_as_they_were():
    found = crossed(A, B, A % 2)
    assert_array_equal(found.encode(A, B, A % 2), found.codes)
    assert_array_equal(found.encode(A[:1], B[:1], A[:1] % 2), found.codes[:1])


def test_new_combinations_are_negative_and_alike_where_they_are_the_same():
    found = crossed(A, B)
    a = np.array([0, 1, -1, 0, -1, -1, 1, 0])
    b = np.array([1, 0, 0, -3, 0, -3, 0, 9])
    codes = found.encode(a, b)
    assert codes[0] == found.codes[0]
    assert np.all(codes[1:] < 0)
    assert codes[1] == codes[6]
    assert codes[2] == codes[4]
    assert len(set(codes[1:].tolist())) == 5
    assert sorted(set(codes[1:].tolist())) == [-5, -4, -3, -2, -1]


def test_the_order_of_new_rows_changes_nothing():
    found = crossed(A, B)
    a, b = np.array([5, -1, 0, 5]), np.array([5, 2, 1, 6])
    order = np.array([2, 0, 3, 1])
    assert_array_equal(found.encode(a[order], b[order]), found.encode(a, b)[order])


@pytest.mark.parametrize(
    ("factors", "error", "message"),
    [
        ((A,), ValueError, "1 factors are given"),
        ((A, B[:3]), ValueError, r"the factors have \[6, 3\] rows"),
        ((A, B[:, None]), ValueError, r"factor 1 has shape \(6, 1\)"),
        ((A, B.astype(float)), TypeError, "factor 1 has dtype float64"),
        ((A, np.array(list("abcdef"))), TypeError, "factor 1 has dtype <U1"),
        ((A, B - 1), ValueError, "factor 1 has code -1 in row 1"),
    ],
)
def test_what_cannot_be_combined_raises(factors, error, message):
    with pytest.raises(error, match=message):
        crossed(*factors)


def test_other_factors_than_those_that_were_crossed_raise():
    found = crossed(A, B)
    with pytest.raises(ValueError, match="3 factors are given, but 2 were crossed"):
        found.encode(A, B, B)
    with pytest.raises(TypeError, match="factor 0 has dtype float64"):
        found.encode(A * 1.0, B)
