"""Mixtures of links: components, shares, and what a component may not have."""

from functools import partial

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

from lamina import links
from lamina.handlers import record_outcomes
from support import run, shapes, trace

pytestmark = pytest.mark.usefixtures("float64")

ETA = np.array([[0.3], [-0.2], [1.0]])


def test_components_have_sites_of_their_own():
    parts = [
        partial(links.gaussian_link, ETA),
        partial(links.student_t_link, ETA, df=dist.Gamma(2.0, 0.1)),
    ]
    assert shapes(links.mixture_link, parts, name="y") == {
        "y.component0.sigma": (),
        "y.component1.df": (),
        "y.component1.sigma": (),
        "y.probabilities": (2,),
        "y": (3,),
    }


def test_shares_may_be_modelled():
    logits = np.array([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]])
    y = np.array([0, 3, 1])
    parts = [partial(links.poisson_link, ETA), partial(links.poisson_link, ETA + 1.0)]
    fn = trace(links.mixture_link, parts, y, logits=logits)["obs"]["fn"]
    p = special.softmax(logits, axis=1)
    each = [stats.poisson.pmf(y, np.exp(eta[:, 0])) for eta in (ETA, ETA + 1.0)]
    expected = np.log(p[:, 0] * each[0] + p[:, 1] * each[1])
    assert_allclose(fn.log_prob(y), expected, rtol=1e-9)


def test_vectors_are_mixed_whole():
    eta = np.zeros((3, 2))
    y = np.array([[0.0, 1.0], [4.0, 4.0], [-1.0, 2.0]])
    parts = [
        partial(
            links.multivariate_gaussian_link, eta + m, scale=1.0, correlation=np.eye(2)
        )
        for m in (0.0, 4.0)
    ]
    site = trace(links.mixture_link, parts, y, probabilities=[0.25, 0.75])["obs"]
    each = [stats.norm.pdf(y, m).prod(axis=1) for m in (0.0, 4.0)]
    expected = np.log(0.25 * each[0] + 0.75 * each[1])
    assert_allclose(site["fn"].log_prob(y), expected, rtol=1e-9)
    assert run(links.mixture_link, parts, probabilities=[0.25, 0.75]).shape == (3, 2)


def test_linear_is_every_component_and_mean_is_mixed():
    parts = [partial(links.poisson_link, ETA), partial(links.poisson_link, ETA + 1.0)]
    recorded = record_outcomes(links.mixture_link)
    sites = trace(recorded, parts, probabilities=[0.25, 0.75])
    assert [k for k in sites if "component" in k] == []
    linear = np.concatenate([ETA, ETA + 1.0], axis=1)
    assert_allclose(sites["obs.linear"]["value"], linear)
    mean = np.exp(linear) @ [0.25, 0.75]
    assert_allclose(sites["obs.mean"]["value"], mean, rtol=1e-9)


def one():
    return partial(links.gaussian_link, ETA, scale=1.0)


REFUSED = {
    "one": ([one()], {}, "at least two components"),
    "kinds": ([one(), partial(links.poisson_link, ETA)], {}, "same kind of outcome"),
    "rows": (
        [one(), partial(links.gaussian_link, ETA[:2], scale=1.0)],
        {},
        "predictors of the same shape",
    ),
    "weights": (
        [one(), partial(links.gaussian_link, ETA, scale=1.0, weights=2.0)],
        {},
        "Give them to the mixture",
    ),
    "offset": ([one(), one()], {"offset": 1.0}, "Give it to the components"),
    "no link": ([one(), lambda y, name: None], {}, "announces 0 outcomes"),
    "shares": (
        [one(), one()],
        {"probabilities": [0.2, 0.3, 0.5]},
        "3 categories.*are 2",
    ),
    "logits": ([one(), one()], {"logits": np.zeros((3, 3))}, "a column for each"),
    "two sources": (
        [one(), one()],
        {"logits": np.zeros((3, 2)), "probabilities": [0.5, 0.5]},
        "both `probabilities` and `logits`",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mixtures_that_cannot_be_meant_raise(name):
    parts, given, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        run(links.mixture_link, parts, **given)


def test_a_plate_over_rows_holds_a_mixture():
    y = np.array([0.0, 1.0, 2.0])

    def model():
        with numpyro.plate("rows", 3):
            links.mixture_link([one(), one()], y, probabilities=[0.5, 0.5])

    site = trace(model)["obs"]
    expected = stats.norm.logpdf(y, ETA[:, 0], 1.0)
    assert_allclose(site["fn"].log_prob(y), expected, rtol=1e-9)
