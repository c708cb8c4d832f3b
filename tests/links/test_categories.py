"""Ordered and unordered categories: cutpoints, their prior, and codes."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import lamina
from lamina import links
from support import run, shapes, trace

pytestmark = pytest.mark.usefixtures("float64")

SLOW = pytest.mark.slow
P = np.array([0.1, 0.4, 0.2, 0.3])
MODELS = [
    ("cumulative", "logit"),
    ("cumulative", "probit"),
    ("sequential", "logit"),
    ("sequential", "probit"),
    ("adjacent", "logit"),
]


@pytest.mark.parametrize(("ordering", "transform"), MODELS)
def test_probabilities_are_those_of_a_predictor_of_zero(ordering, transform):
    sites = trace(
        links.ordinal_link,
        np.zeros((2, 1)),
        ordering=ordering,
        transform=transform,
        probabilities=P,
    )
    assert sites["cutpoints"]["value"].shape == (3,)
    found = sites["obs"]["fn"].log_prob(np.arange(4)[:, None])
    assert_allclose(np.exp(found), np.stack([P, P], axis=1), rtol=1e-9)


def test_cutpoints_are_learned_through_the_probabilities():
    known = shapes(links.ordinal_link, np.zeros((2, 1)), num_categories=4, name="grade")
    assert known == {"grade.probabilities": (4,), "grade": (2,)}
    sites = trace(links.ordinal_link, np.zeros((2, 1)), num_categories=4)
    prior = sites["probabilities"]["fn"]
    assert_allclose(prior.log_prob(P), stats.dirichlet.logpdf(P, np.ones(4)))
    cuts = np.asarray(sites["cutpoints"]["value"])
    assert np.all(np.diff(cuts) > 0)


def test_units_share_the_cutpoints():
    y = np.array([[0, 3], [1, 2], [2, 2]])
    eta = np.linspace(-1.0, 1.0, 6).reshape(3, 2)
    fn = trace(links.ordinal_link, eta, y, probabilities=P)["obs"]["fn"]
    assert fn.log_prob(y).shape == (3, 2)
    one = trace(links.ordinal_link, eta[:, 1:], y[:, 1], probabilities=P)["obs"]["fn"]
    assert_allclose(fn.log_prob(y)[:, 1], one.log_prob(y[:, 1]), rtol=1e-12)


@pytest.mark.parametrize("eta", [-80.0, 80.0])
@pytest.mark.parametrize(("ordering", "transform"), MODELS)
def test_far_predictors_have_finite_slopes_in_float32(ordering, transform, eta):
    def total(eta):
        fn = trace(
            links.ordinal_link,
            eta,
            np.arange(4),
            ordering=ordering,
            transform=transform,
            cutpoints=np.array([-1.0, 0.0, 1.0], np.float32),
        )["obs"]["fn"]
        return fn.log_prob(np.arange(4)).sum()

    with jax.enable_x64(False):
        at = np.full((4, 1), eta, np.float32)
        value, slope = jax.value_and_grad(total)(at)
    assert np.isfinite(value)
    assert np.all(np.isfinite(slope))


REFUSED = {
    "ordering": ({"ordering": "stopping"}, "`ordering` is 'stopping'"),
    "pair": ({"ordering": "adjacent", "transform": "probit"}, "one of"),
    "order": ({"cutpoints": [1.0, 0.0]}, "increase in the cumulative model"),
    "nan": ({"cutpoints": [1.0, np.nan], "ordering": "adjacent"}, "finite numbers"),
    "matrix": ({"cutpoints": [[1.0, 2.0]]}, "finite numbers"),
    "both": ({"cutpoints": [0.0], "probabilities": P}, "both"),
    "sum": ({"probabilities": [0.5, 0.6]}, "sum to 1"),
    "size": ({"num_categories": 3, "probabilities": P}, "for 4 categories.*are 3"),
    "one": ({"num_categories": 1}, "two at least"),
    "prior": ({"probabilities": dist.HalfNormal(1.0)}, "a Dirichlet"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_categories_that_cannot_be_meant_raise(name):
    given, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        run(links.ordinal_link, np.zeros((2, 1)), **given)


def test_the_number_of_categories_is_said():
    with pytest.raises(TypeError, match="`num_categories` is missing"):
        run(links.ordinal_link, np.zeros((2, 1)), np.array([0, 1]))


def test_one_column_is_no_set_of_categories():
    with pytest.raises(ValueError, match="one column"):
        run(links.categorical_link, np.zeros((2, 1)))
    # with a reference, it is the second of two
    fn = trace(links.categorical_link, np.ones((2, 1)), reference=True)["obs"]["fn"]
    assert_allclose(np.exp(fn.log_prob(np.array([0, 1]))), [0.26894142, 0.73105858])


@pytest.mark.parametrize("shape", [pytest.param((60,), marks=SLOW), (60, 1)])
def test_a_fit_predicts_the_probabilities_of_categories(shape):
    """Means are (n, k), whole or in chunks; responses keep the shape of y."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 1))
    y = (x[:, 0] + rng.logistic(size=60) > 0).astype(int)
    y = y + (x[:, 0] > 1.0)

    def model(x, y=None):
        eta = lamina.AdaptiveLayer()("x", x)
        return links.ordinal_link(eta, y, num_categories=3)

    posterior = lamina.fit(
        model, {"x": x, "y": y.reshape(shape)}, method="vi", num_steps=200
    )
    mean = posterior.predict(kind="mean", draws=True, chunk_rows=25)
    assert mean.mean.shape == (60, 3)
    assert_allclose(mean.draws.sum(axis=-1), 1.0, rtol=1e-5)
    assert np.corrcoef(mean.mean[:, 0], x[:, 0])[0, 1] < -0.8
    assert posterior.predict({"x": x[:4]}).mean.shape == (4, *shape[1:])
    assert posterior.predict({"x": x[:1]}, kind="mean").mean.shape == (1, 3)
