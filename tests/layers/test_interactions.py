import numpy as np
import pytest
from numpy.testing import assert_allclose

from cases import CASES
from lamina.layers import FMLayer, InteractionLayer, LowRankInteractionLayer
from support import run, shape_of

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")


@pytest.mark.parametrize("name", ["InteractionLayer", "LowRankInteractionLayer"])
@pytest.mark.parametrize("rows", [(3, 1), (1, 3), (3, 4)])
def test_rows_of_the_two_inputs_must_match(name, rows):
    x, z = (np.ones((n, 2)) for n in rows)
    with pytest.raises(ValueError, match=f"{name} 'mu'.*same number of rows"):
        run(CASES[name], "mu", x, z)


@pytest.mark.parametrize("x", [np.ones((3, 1)), np.ones(3)])
def test_pairs_need_two_columns(x):
    with pytest.raises(ValueError, match=r"FMLayer 'mu'.*\(3, 1\).*two columns"):
        run(FMLayer(low_rank_dim=2), "mu", x)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize(
    "layer", [InteractionLayer(), LowRankInteractionLayer(low_rank_dim=2)]
)
def test_flat_inputs_are_one_column_each(layer, n):
    x = np.arange(1.0, n + 1.0)
    assert shape_of(run, layer, "mu", x, x) == (n, 1)


def test_interactions_of_indicators_pick_single_coefficients():
    beta = np.arange(6.0).reshape(2, 3, 1)
    found = run(
        InteractionLayer(), "mu", np.eye(2), np.eye(3)[:2], values={"mu.beta": beta}
    )
    assert_allclose(found, [[0.0], [4.0]])


def test_the_two_sides_of_a_low_rank_interaction_have_their_own_scales():
    """Swapping the inputs with their coefficients changes nothing."""
    case = CASES["LowRankInteractionLayer"]
    x, z = case.arguments(4)
    values = case.coefficients("mu")
    swapped = {
        "mu.lmbda1": values["mu.lmbda2"],
        "mu.theta1": values["mu.theta2"],
        "mu.lmbda2": values["mu.lmbda1"],
        "mu.theta2": values["mu.theta1"],
    }
    found = run(case, "mu", z, x, values=swapped)
    assert_allclose(found, run(case, "mu", x, z, values=values), rtol=1e-12)
