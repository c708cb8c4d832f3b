"""What training rows teach a spline, against SciPy and the papers' definitions."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.interpolate import BSpline

from lamina import margins
from lamina.bases import tensor
from lamina.margins import Margin

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")

RANDOM = np.random.default_rng(0)
X = RANDOM.gamma(3.0, size=200)


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
    found = np.asarray(tensor([jnp.asarray(v) for v in (a, b, c)]))
    index = margins.tensor_index([Margin(5, 3)] * 3, [2, 3, 2])
    for p, (i, j, k) in enumerate(index):
        assert_allclose(found[:, p], a[:, i] * b[:, j] * c[:, k])
    assert found.shape == (4, 12)


def test_the_tensors_penalty_is_that_of_its_margins():
    """S1 x M2 + M1 x S2 in the B-splines' coefficients, M the mean squares over rows."""
    both = [Margin(6, 3), Margin(5, 3)]
    learned = margins.learn_tensor("x", both, XX)
    designs, penalties = zip(
        *(dense(m, XX[:, j]) for j, m in enumerate(both)), strict=True
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
    both = [Margin(6, 3), Margin(5, 3, None, 3.0)]
    learned = margins.learn_tensor("x", both, XX)
    parts = [
        m.columns(jnp.asarray(XX[:, j]), one)
        for j, (m, one) in enumerate(zip(both, learned["margins"], strict=True))
    ]
    columns = np.asarray(tensor(parts)) - learned["centre"]
    assert_allclose(columns.mean(axis=0), np.zeros(columns.shape[1]), atol=1e-10)
    total = learned["rough"].sum(axis=0)
    bent = total > 0
    assert bent.sum() == 30 - 2
    variance = (columns[:, bent] ** 2 / total[bent]).sum(axis=1).mean()
    assert_allclose(variance / learned["size"] ** 2, 1.0)


def test_a_long_tensor_is_learned_in_blocks(monkeypatch):
    both = [Margin(6, 3), Margin(5, 3)]
    whole = margins.learn_tensor("x", both, XX)
    monkeypatch.setattr(margins, "ROWS_AT_ONCE", 7)
    parts = margins.learn_tensor("x", both, XX)
    assert_allclose(parts["centre"], whole["centre"], atol=1e-12)
    assert_allclose(parts["size"], whole["size"])
