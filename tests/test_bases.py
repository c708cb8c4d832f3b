"""Bases against SciPy and the definitions of the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.interpolate import BSpline

from lamina import bases
from lamina.bases import Margin
from support import enable_x64, shape_checked

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")

RANDOM = np.random.default_rng(0)
X = RANDOM.gamma(3.0, size=200)
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


def dense(margin, x):
    """B-splines and squared differences by SciPy and NumPy, for even knots."""
    if margin.period is None:
        z = (x - x.min()) / np.ptp(x)
        breaks = np.linspace(0, 1, margin.num_basis - margin.degree + 1)
    else:
        z = (x / margin.period) % 1.0
        breaks = np.linspace(0, 1, margin.num_basis + 1)
    h, p = breaks[1], margin.degree
    t = np.arange(-p, breaks.size + p) * h
    design = BSpline.design_matrix(np.minimum(z, 1.0), t, p).toarray()
    k = margin.num_basis
    if margin.period is None:
        step = np.diff(np.eye(k), n=2, axis=0)
    else:
        design = design[:, :k] + np.pad(design[:, k:], ((0, 0), (0, k - p)))
        step = np.roll(np.eye(k), 1, 1) + np.roll(np.eye(k), -1, 1) - 2 * np.eye(k)
    return design, step.T @ step


def residual(design, null):
    """`design` less what the null functions explain over the rows."""
    return design - null @ np.linalg.lstsq(null, design, rcond=None)[0]


MARGINS = [
    Margin(12, 3),
    Margin(8, 2),
    Margin(9, 3, None, 4.0),
    Margin(9, 1, None, 4.0),
]


@pytest.mark.parametrize("margin", MARGINS)
def test_a_unit_scale_gives_the_random_walk_of_unit_variance(margin):
    """The covariance of the curve over the rows, from the penalty's own inverse."""
    learned = margin.learn("x", X)
    found = np.asarray(margin.columns(jnp.asarray(X), learned))
    q = margin.num_null
    design, penalty = dense(margin, X)
    null = np.column_stack([np.ones_like(X), X][:q])
    departure = residual(design, null)
    covariance = departure @ np.linalg.pinv(penalty, rcond=1e-10) @ departure.T
    covariance /= np.trace(covariance) / len(X)
    assert_allclose(found[:, q:] @ found[:, q:].T, covariance, atol=1e-9)
    gram = found.T @ found / len(X)
    assert_allclose(gram, np.diag(np.r_[np.ones(q), learned["variance"]]), atol=1e-10)
    assert np.all(np.diff(learned["variance"]) <= 1e-12)
    expected = (null - null.mean(axis=0)) / np.where(null.std(0) > 0, null.std(0), 1.0)
    assert_allclose(found[:, 1:q], expected[:, 1:], atol=1e-10)
    assert_allclose(found[:, 0], np.ones(len(X)))


@pytest.mark.parametrize("margin", MARGINS)
def test_the_penalty_is_the_sum_of_squares(margin):
    transform = margin.learn("x", X)["transform"]
    design, penalty = dense(margin, X)
    q = margin.num_null
    null = np.column_stack([np.ones_like(X), X][:q])
    departure = residual(design, null)
    scale = np.trace(departure @ np.linalg.pinv(penalty, rcond=1e-10) @ departure.T)
    scale /= len(X)
    form = transform.T @ penalty @ transform * scale
    expected = np.diag(np.r_[np.zeros(q), np.ones(form.shape[0] - q)])
    assert_allclose(form, expected, atol=1e-8)


def test_inner_knots_are_where_they_are_given():
    margin = Margin(20, 3, knots=[1.0, 2.0, 4.0, 5.0])
    learned = margin.learn("x", X)
    start, width = learned["range"]
    inner = start + width * learned["knots"][4:-4]
    assert_allclose(inner, [1.0, 2.0, 4.0, 5.0])
    columns = np.asarray(margin.columns(jnp.asarray(X), learned))
    assert columns.shape == (200, 8)
    gram = columns.T @ columns / len(X)
    expected = np.diag(np.r_[1.0, 1.0, learned["variance"]])
    assert_allclose(gram, expected, atol=1e-10)


@pytest.mark.parametrize(
    ("margin", "x", "message"),
    [
        (Margin(8, 3), np.full(30, 2.0), r"x: the training column is constant"),
        (Margin(8, 3, None, 2.0), np.arange(9) * 2.0, "is constant"),
        (Margin(8, 3), np.arange(30) % 7, r"7 distinct values.*8 basis.*num_basis=7"),
        (Margin(8, 3), np.arange(30) % 3, r"3 distinct values.*linear layer"),
        (Margin(9, 3, [5.0, 4.0]), X, r"\[5.0, 4.0\], but knots are.*larger"),
        (Margin(9, 3, [5.0, 5.0]), X, "larger than the one before"),
        (Margin(9, 3, [[5.0]]), X, "larger than the one before"),
        (Margin(9, 3, [1.0, 99.0]), X, r"knots \[99.0\] are not inside"),
        (Margin(9, 3, [X.min(), 1.0]), X, "are not inside the training column's range"),
        (Margin(8, 3), np.r_[X, np.nan], "1 of 201 training values are not finite"),
    ],
)
def test_columns_that_teach_no_curve_raise(margin, x, message):
    with pytest.raises(ValueError, match=message):
        margin.learn("x", x)


XX = np.column_stack([X, RANDOM.normal(size=200) + 0.3 * X])


def test_tensor_columns_are_all_products_last_fastest():
    a, b, c = (RANDOM.normal(size=(4, k)) for k in (2, 3, 2))
    found = np.asarray(bases.tensor([jnp.asarray(v) for v in (a, b, c)]))
    index = bases.tensor_index([Margin(5, 3)] * 3, [2, 3, 2])
    for p, (i, j, k) in enumerate(index):
        assert_allclose(found[:, p], a[:, i] * b[:, j] * c[:, k])
    assert found.shape == (4, 12)


def test_the_tensors_penalty_is_that_of_its_margins():
    """S1 x M2 + M1 x S2 in the B-splines' coefficients, M the mean squares over rows."""
    margins = [Margin(6, 3), Margin(5, 3)]
    learned = bases.learn_tensor("x", margins, XX)
    designs, penalties = zip(
        *(dense(m, XX[:, j]) for j, m in enumerate(margins)), strict=True
    )
    masses = [b.T @ b / len(XX) for b in designs]
    scaled = []
    for j in range(2):
        null = np.column_stack([np.ones(len(XX)), XX[:, j]])
        departure = residual(designs[j], null)
        inverse = np.linalg.pinv(penalties[j], rcond=1e-10)
        size = np.trace(departure @ inverse @ departure.T) / len(XX)
        scaled.append(penalties[j] * size)
    transform = np.kron(*(one["transform"] for one in learned["margins"]))
    for row, penalty in zip(
        learned["rough"],
        [np.kron(scaled[0], masses[1]), np.kron(masses[0], scaled[1])],
        strict=True,
    ):
        form = transform.T @ penalty @ transform
        assert_allclose(form, np.diag(row), rtol=1e-6, atol=1e-6 * row.max())


def test_a_tensor_is_centred_and_of_unit_variance():
    margins = [Margin(6, 3), Margin(5, 3, None, 3.0)]
    learned = bases.learn_tensor("x", margins, XX)
    parts = [
        m.columns(jnp.asarray(XX[:, j]), one)
        for j, (m, one) in enumerate(zip(margins, learned["margins"], strict=True))
    ]
    columns = np.asarray(bases.tensor(parts)) - learned["centre"]
    assert_allclose(columns.mean(axis=0), np.zeros(columns.shape[1]), atol=1e-10)
    total = learned["rough"].sum(axis=0)
    bent = total > 0
    assert bent.sum() == 30 - 2
    variance = (columns[:, bent] ** 2 / total[bent]).sum(axis=1).mean()
    assert_allclose(variance / learned["size"] ** 2, 1.0)


def test_a_long_tensor_is_learned_in_blocks(monkeypatch):
    margins = [Margin(6, 3), Margin(5, 3)]
    whole = bases.learn_tensor("x", margins, XX)
    monkeypatch.setattr(bases, "ROWS_AT_ONCE", 7)
    parts = bases.learn_tensor("x", margins, XX)
    assert_allclose(parts["centre"], whole["centre"], atol=1e-12)
    assert_allclose(parts["size"], whole["size"])


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
