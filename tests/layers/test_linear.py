import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from lamina.layers import AdaptiveLayer, FixedPriorLayer, InterceptLayer
from lamina.links import gaussian_link
from support import log_prob, run

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")

BETA = {"mu.beta": np.array([[2.0], [-1.0]])}


@pytest.mark.parametrize("layer", [AdaptiveLayer(), FixedPriorLayer()])
@pytest.mark.parametrize("n", [1, 4])
def test_a_flat_input_is_one_column(layer, n):
    x = np.arange(1.0, n + 1.0)
    found = run(layer, "mu", x, values={"mu.beta": np.array([[2.0]])})
    assert_allclose(found, 2.0 * x[:, None])


@pytest.mark.parametrize(
    "x",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]]),
        pd.DataFrame({"a": [1.0, 3.0], "b": [2, 4]}),
    ],
    ids=["list", "int", "frame"],
)
def test_data_of_any_number_type(x):
    found = run(AdaptiveLayer(), "mu", x, values=BETA)
    assert_allclose(found, [[0.0], [2.0]])


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            np.ones((2, 2, 1)),
            ValueError,
            r"AdaptiveLayer 'mu': `x` has shape \(2, 2, 1",
        ),
        (np.ones(()), ValueError, r"`x` has shape \(\)"),
        (np.ones((2, 0)), ValueError, "no columns"),
        (np.array(["a"]), TypeError, "not numbers"),
        (pd.DataFrame({"a": [1.0], "b": ["u"]}), TypeError, "not numbers"),
    ],
)
def test_data_that_are_no_columns_of_numbers_raise(x, error, message):
    with pytest.raises(error, match=message):
        run(AdaptiveLayer(), "mu", x)


@pytest.mark.parametrize("n", [1, 4])
def test_an_intercept_adds_to_any_rows(n):
    x = np.ones((n, 2))

    def model():
        return AdaptiveLayer()("mu", x) + InterceptLayer()("alpha")

    found = run(model, values={**BETA, "alpha.beta": np.array([[0.5]])})
    assert_allclose(found, np.full((n, 1), 1.5))


@pytest.mark.parametrize("y_shape", [(1,), (4,), (4, 1), (4, 3)])
def test_an_intercept_alone_is_expanded_by_its_link(y_shape):
    units = 3 if y_shape == (4, 3) else 1
    beta = np.arange(1.0, units + 1.0)[None]

    def model(y):
        gaussian_link(InterceptLayer(units=units)("alpha"), y, scale=2.0)

    y = np.zeros(y_shape)
    found = log_prob(model, "obs", y, values={"alpha.beta": beta})
    expected = stats.norm.logpdf(y, beta if units > 1 else 1.0, 2.0)
    assert_allclose(found, expected)
