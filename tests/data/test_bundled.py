"""The tables that come with the package, against what is known of them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lamina.data import (
    load_air_passengers,
    load_epilepsy,
    load_nile,
    load_radon,
    load_sleepstudy,
)


@pytest.mark.parametrize(
    ("load", "group", "num_rows", "num_groups"),
    [
        (load_radon, "county", 919, 85),
        (load_sleepstudy, "subject", 180, 18),
        (load_epilepsy, "patient", 236, 59),
    ],
)
def test_columns_have_one_entry_for_each_row(load, group, num_rows, num_groups):
    table = load()
    for name, column in table._asdict().items():
        if isinstance(column, tuple):
            assert len(set(column)) == num_groups
        else:
            assert column.shape == (num_rows,), name
            assert np.isfinite(column).all()
            assert column.dtype in (np.float64, np.int32)
    assert_array_equal(np.unique(getattr(table, group)), np.arange(num_groups))


def least_squares(y, *columns):
    return np.linalg.lstsq(np.column_stack(columns), y, rcond=None)[0]


def test_radon_is_that_of_gelman_and_hill():
    """Section 12.2: the complete pooling of all counties."""
    radon = load_radon()
    found = least_squares(radon.log_radon, np.ones(919), radon.floor)
    assert_allclose(found, [1.33, -0.61], atol=0.005)
    for county in range(85):
        assert len(set(radon.log_uranium[radon.county == county])) == 1
    assert radon.counties[35] == "Lac Qui Parle"


def test_sleepstudy_has_the_published_line():
    """Balanced, so least squares gives the fixed effects of Bates and others (2015)."""
    sleep = load_sleepstudy()
    found = least_squares(sleep.reaction, np.ones(180), sleep.days)
    assert_allclose(found, [251.405, 10.467], atol=0.0005)
    for subject in range(18):
        assert_array_equal(sleep.days[sleep.subject == subject], np.arange(10))
    assert sleep.subjects[0] == "308"
    assert sleep.subjects[-1] == "372"


def test_epilepsy_is_that_of_thall_and_vail():
    epilepsy = load_epilepsy()
    first = epilepsy.period == 1
    assert_array_equal(np.bincount(epilepsy.treatment[first].astype(int)), [28, 31])
    assert_array_equal(epilepsy.period.reshape(59, 4), np.tile([1, 2, 3, 4], (59, 1)))
    for column in (epilepsy.treatment, epilepsy.base, epilepsy.age):
        table = column.reshape(59, 4)
        assert_array_equal(table, np.repeat(table[:, :1], 4, axis=1))
    # patient 49 had 151 seizures before the trial, and the most in each of its periods
    assert_array_equal(epilepsy.seizures[epilepsy.patient == 48], [102, 65, 72, 63])
    assert_array_equal(epilepsy.base[epilepsy.patient == 48], [151, 151, 151, 151])


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
