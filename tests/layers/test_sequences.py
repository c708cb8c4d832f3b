import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from lamina.handlers import predicting
from lamina.layers import RandomWalkLayer
from support import run

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")

LAYER = RandomWalkLayer(num_categories=4, embedding_dim=2)
STEPS = {"walk.theta": np.array([[1.0, 0.0], [0.5, 2.0], [-2.0, 1.0], [0.0, 1.0]])}


@pytest.mark.parametrize("codes", [[3], [0, 1, 2, 3], [[2], [2], [0]]])
def test_the_walk_stands_at_the_sum_of_its_steps(codes):
    walk = np.array([[1.0, 0.0], [1.5, 2.0], [-0.5, 3.0], [-0.5, 4.0]])
    found = run(LAYER, "walk", np.array(codes), values=STEPS)
    assert_allclose(found, walk[np.array(codes).reshape(-1)])


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        ([0, 4], ValueError, "RandomWalkLayer 'walk': code 4 is past its table of 4"),
        ([0, -1], ValueError, "code -1 is negative"),
        ([0.0, 1.0], TypeError, "dtype float64"),
        ([[0, 1]], ValueError, r"shape \(1, 2\)"),
    ],
)
def test_codes_outside_the_walk_raise(codes, error, message):
    with pytest.raises(error, match=message):
        run(LAYER, "walk", np.array(codes))


def test_a_walk_has_no_unseen_level_even_in_a_prediction(key):
    with pytest.raises(ValueError, match="code -1 is negative"):
        run(predicting(LAYER, key=key), "walk", np.array([0, -1]))


def test_traced_codes_outside_the_walk_give_nan():
    @jax.jit
    def walk(codes):
        return run(LAYER, "walk", codes, values=STEPS)

    found = walk(jnp.array([1, 4, -1]))
    assert_allclose(found[0], [1.5, 2.0])
    assert np.isnan(found[1:]).all()
