"""The bundled tables: what was published of them."""

import numpy as np
from numpy.testing import assert_array_equal

from lamina.data import load_air_passengers, load_nile


def test_the_nile_is_a_century_of_flows():
    nile = load_nile()
    assert_array_equal(nile.year, np.arange(1871, 1971))
    assert nile.year.dtype == np.int32
    assert nile.flow.shape == (100,)
    # the drop when the first dam was begun, and the driest year
    assert_array_equal(nile.flow[[0, 27, 28, 99]], [1120.0, 1100.0, 774.0, 740.0])
    assert nile.year[nile.flow.argmin()] == 1913
    assert round(nile.flow.mean(), 2) == 919.35


def test_air_passengers_are_twelve_years_of_months():
    air = load_air_passengers()
    assert_array_equal(air.year, np.repeat(np.arange(1949, 1961), 12))
    assert_array_equal(air.month, np.tile(np.arange(1, 13), 12))
    assert air.year.dtype == air.month.dtype == np.int32
    assert_array_equal(air.passengers[[0, 1, 2, 143]], [112.0, 118.0, 132.0, 432.0])
    assert air.passengers.max() == air.passengers[138] == 622.0  # July 1960
    assert air.passengers.sum() == 40363.0
