"""Bases against SciPy and their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.interpolate import BSpline

from lamina import bases
from support import enable_x64, shape_checked

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")

RANDOM = np.random.default_rng(0)
UNEVEN = np.array([0.1, 0.15, 0.4, 0.9])


def knots_of(degree, inner=None):
    breaks = np.linspace(0, 1, 8) if inner is None else np.r_[0.0, inner, 1.0]
    return bases.extended(breaks, degree)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("inner", [None, UNEVEN])
@pytest.mark.parametrize("double", [True, False])
def test_b_splines_are_scipys(degree, inner, double):
    knots = knots_of(degree, inner)
    dtype = np.float64 if double else np.float32
    x = np.r_[0.0, np.linspace(0.0, 1.0, 301), 1.0].astype(dtype)
    expected = BSpline.design_matrix(x.astype(float), knots, degree).toarray()
    with enable_x64() if double else jax.enable_x64(False):
        found = jax.jit(lambda x: shape_checked(bases.bspline)(x, knots, degree))(x)
    assert found.dtype == dtype
    assert_allclose(found, expected, atol=1e-13 if double else 1e-6)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("inner", [None, UNEVEN])
def test_outside_of_the_knots_the_tangents_go_on(degree, inner):
    knots = knots_of(degree, inner)
    beta = RANDOM.normal(size=knots.size - degree - 1)
    x = np.array([-3.0, -0.2, 0.0, 1.0, 1.5, 4.0])
    found = bases.bspline(jnp.asarray(x), knots, degree) @ beta
    spline = BSpline(knots, beta, degree)
    just_inside = np.clip(x, 1e-12, 1.0 - 1e-12)
    ends = np.clip(x, 0.0, 1.0)
    expected = spline(ends) + (x - ends) * spline.derivative()(just_inside)
    assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_cyclic_b_splines_are_scipys_periodic_ones(degree):
    knots = knots_of(degree)
    k = knots.size - 2 * degree - 1
    beta = RANDOM.normal(size=k)
    x = np.array([-1.3, -1.0, 0.0, 0.2, 0.999, 1.0, 7.4])
    found = shape_checked(bases.cyclic_bspline)(jnp.asarray(x), knots, degree) @ beta
    around = BSpline(knots, np.r_[beta, beta[:degree]], degree)
    assert_allclose(found, around(x % 1.0), atol=1e-12)


@pytest.mark.parametrize("inner", [None, UNEVEN])
def test_differences_spare_lines_and_are_second_ones_for_even_knots(inner):
    knots = knots_of(3, inner)
    stands = bases.greville(knots, 3)
    x = np.linspace(0.0, 1.0, 50)
    assert_allclose(BSpline.design_matrix(x, knots, 3) @ stands, x, atol=1e-14)
    found = bases.differences(knots, 3, cyclic=False)
    line = np.column_stack([np.ones(stands.size), stands])
    assert_allclose(found @ line, np.zeros((stands.size - 2, 2)), atol=1e-12)
    assert np.linalg.matrix_rank(found) == stands.size - 2
    if inner is None:
        even = np.diff(np.eye(stands.size), n=2, axis=0)
        assert_allclose(found, even, atol=1e-12)


def test_cyclic_differences_go_around():
    found = bases.differences(knots_of(3), 3, cyclic=True)
    beta = RANDOM.normal(size=7)
    around = np.r_[beta, beta[:2]]
    expected = np.diff(around, n=2)
    assert_allclose(np.sort(found @ beta), np.sort(expected))


def test_rows_with_coefficients_of_their_own():
    columns, rows = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(2, 4, 3))
    found = shape_checked(bases.row_by_row)(jnp.asarray(columns), jnp.asarray(rows))
    expected = [[[c @ r] for c, r in zip(columns, one, strict=True)] for one in rows]
    assert_allclose(found, expected)


@pytest.mark.parametrize("length", [0.15, 0.5, 1.0, 3.0, 20.0])
def test_fourier_functions_carry_the_periodic_kernel(length):
    """Rasmussen and Williams (2006), eq. 4.31."""
    x = np.linspace(-3.0, 9.0, 40)
    basis = np.asarray(shape_checked(bases.fourier)(jnp.asarray(x), 2.5, 60))
    scales = np.asarray(shape_checked(bases.periodic_scales)(jnp.array([length]), 60))
    found = (basis * scales**2) @ basis.T
    apart = x[:, None] - x[None, :]
    expected = np.exp(-2.0 * np.sin(np.pi * apart / 2.5) ** 2 / length**2)
    assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("length", [0.03, 1.0, 1e3])
@pytest.mark.parametrize("m", [1, 2, 40])
def test_periodic_scales_have_finite_slopes(length, m):
    with jax.enable_x64(False):
        slopes = jax.jacobian(lambda v: bases.periodic_scales(v, m))(
            jnp.array([length], jnp.float32)
        )
    assert slopes.shape == (2 * m - 1, 1)
    assert np.isfinite(slopes).all()
