import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from lamina.handlers import predicting
from lamina.layers import (
    AdaptiveLayer,
    FixedPriorLayer,
    GroupedAdaptiveLayer,
    HorseshoeLayer,
    InterceptLayer,
    R2D2Layer,
    RandomEffectsLayer,
    SpikeAndSlabLayer,
)
from lamina.links import gaussian_link
from lamina.priors import R2D2, Adaptive, Fixed, Horseshoe, SpikeAndSlab
from support import log_prob, run, shapes

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


@pytest.mark.parametrize(
    ("layer", "prior"),
    [
        (HorseshoeLayer(units=2), Horseshoe()),
        (R2D2Layer(units=2), R2D2()),
        (SpikeAndSlabLayer(units=2), SpikeAndSlab()),
        (GroupedAdaptiveLayer(units=2), Adaptive(groups="column")),
        (GroupedAdaptiveLayer(units=2, groups=[0, 0, 1]), Adaptive(groups=(0, 0, 1))),
    ],
)
def test_a_layer_named_for_its_prior_is_the_adaptive_layer_with_that_prior(
    layer, prior
):
    x, plain = np.ones((4, 3)), AdaptiveLayer(units=2, prior=prior)
    assert shapes(layer, "mu", x) == shapes(plain, "mu", x)
    with jax.numpy_rank_promotion("allow"):
        assert_allclose(run(layer, "mu", x), run(plain, "mu", x))


def test_declared_groups_share_a_scale_of_any_distribution():
    layer = GroupedAdaptiveLayer(
        coef_dist=dist.Laplace, lmbda_kwargs={"scale": 2.0}, groups=(0, 1, 0)
    )
    beta, lmbda = np.array([[1.0], [-2.0], [0.5]]), np.array([[0.3], [4.0]])
    values = {"mu.beta": beta, "mu.lmbda": lmbda}
    found = log_prob(layer, "mu.beta", "mu", np.ones((2, 3)), values=values)
    expected = stats.laplace.logpdf(beta, 0.0, lmbda[[0, 1, 0]]).sum()
    assert_allclose(found, expected)
    found = log_prob(layer, "mu.lmbda", "mu", np.ones((2, 3)), values=values)
    assert_allclose(found, stats.halfnorm.logpdf(lmbda, scale=2.0).sum())


def test_groups_are_checked_where_they_are_given():
    with pytest.raises(ValueError, match="does not number columns"):
        GroupedAdaptiveLayer(groups=(0.5, 1.0))
    with pytest.raises(
        ValueError, match=r"`prior` is given together with \['groups'\]"
    ):
        GroupedAdaptiveLayer(prior=Fixed(), groups=(0, 1))
    with pytest.raises(ValueError, match=r"mu\.lmbda: `groups` numbers 2 columns"):
        run(GroupedAdaptiveLayer(groups=(0, 1)), "mu", np.ones((4, 3)))
    assert GroupedAdaptiveLayer(groups=[0, 1]) == GroupedAdaptiveLayer(groups=(0, 1))
    assert repr(GroupedAdaptiveLayer(groups=[0, 1])) == (
        "GroupedAdaptiveLayer(groups=(0, 1))"
    )


def test_unseen_levels_have_no_declared_group():
    prior, codes = Adaptive(groups=(0, 0, 1, 1)), np.array([-1, 0])
    layer = RandomEffectsLayer(prior=prior, num_categories=4)
    model = predicting(layer, key=jax.random.key(0))
    with pytest.raises(ValueError, match="no group: there, use unseen='zero'"):
        run(model, "g", codes)
    layer = RandomEffectsLayer(prior=Adaptive(groups="column"), num_categories=4)
    model = predicting(layer, key=jax.random.key(0))
    assert np.all(np.isfinite(run(model, "g", codes)))
