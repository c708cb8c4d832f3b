import numpy as np
import pytest
from numpy.testing import assert_allclose

import lamina
from cases import CASES
from lamina.layers import (
    FM3Layer,
    FMLayer,
    InteractionLayer,
    InterceptLayer,
    LowRankInteractionLayer,
)
from lamina.links import gaussian_link
from support import run, shape_of, shapes

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


@pytest.mark.parametrize("d", [1, 2])
def test_triples_need_three_columns(d):
    with pytest.raises(ValueError, match=r"FM3Layer 'mu'.*order 3.*three columns"):
        run(FM3Layer(low_rank_dim=2), "mu", np.ones((4, d)))


@pytest.mark.parametrize("name", ["FMLayer", "FM3Layer"])
@pytest.mark.parametrize("n", [1, 4])
def test_main_effects_are_added_with_a_scale_of_their_own(name, n):
    case = CASES[name]
    (x,) = case.arguments(n)
    layer = case.cls(units=2, low_rank_dim=2, main_effects=True)
    assert shapes(layer, "mu", x) == {
        **case.site_shapes("mu"),
        "mu.main.lmbda": (2,),
        "mu.main.beta": (3, 2),
    }
    values = case.coefficients("mu")
    beta = np.random.default_rng(3).normal(size=(3, 2))
    found = run(layer, "mu", x, values={**values, "mu.main.beta": beta})
    assert_allclose(found, case.expected("mu", (x,), values) + x @ beta, rtol=1e-10)


def test_indicators_pick_one_triple():
    theta = np.arange(1.0, 5.0)[:, None, None]
    x = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    found = run(FM3Layer(low_rank_dim=1), "mu", x, values={"mu.theta": theta})
    assert_allclose(found, [[1.0 * 2.0 * 4.0], [0.0]], atol=1e-12)


@pytest.mark.slow
def test_third_order_interactions_are_recovered():
    """NUTS finds the one interaction of three columns among those of five."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5))
    y = 1.0 + 0.8 * x[:, 0] * x[:, 2] * x[:, 3] + 0.3 * rng.normal(size=300)

    def model(x, y=None):
        mu = InterceptLayer()("alpha") + FM3Layer(low_rank_dim=1)("xxx", x)
        gaussian_link(mu, y)

    with np.errstate(all="ignore"):
        posterior = lamina.fit(
            model,
            {"x": x, "y": y},
            method="mcmc",
            num_warmup=300,
            num_samples=300,
            num_chains=1,
            seed=1,
        )
    corners = np.array([[1.0, 0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0, 0.0]])
    found = posterior.predict({"x": corners}, kind="mean")
    assert_allclose(found.mean, [1.8, 1.0], atol=4 * found.sd.max())
    assert found.sd.max() < 0.1


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
