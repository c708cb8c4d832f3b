"""One mechanism for every parameter: learned, known or a layer's output."""

import inspect
from functools import partial

import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

from lamina import links
from link_cases import K
from support import run, shapes, trace

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")

ETA = np.array([[0.2], [-0.4], [1.0]])

# link, the parameter, a known value, its transform, other parameters, outcomes
MODELLED = {
    "gaussian": (links.gaussian_link, "scale", "log", 0.6, {}, [0.0, 1.0, 2.0]),
    "student": (links.student_t_link, "scale", "log", 0.6, {}, [0.0, 1.0, 2.0]),
    "laplace": (links.quantile_link, "scale", "log", 0.6, {}, [0.0, 1.0, 2.0]),
    "skew": (
        links.skew_normal_link,
        "scale",
        "log",
        0.6,
        {"alpha": 2.0},
        [0.0, 1.0, 2],
    ),
    "tables": (
        links.dirichlet_multinomial_link,
        "concentration",
        "log",
        3.0,
        {"trials": 5},
        [[0, 2, 3], [5, 0, 0], [1, 2, 2]],
    ),
    **{
        f"{which} {argument}": (
            getattr(links, f"{which}_negative_binomial_link"),
            argument,
            *given,
            [0, 2, 5],
        )
        for which in ("zero_inflated", "hurdle")
        for argument, *given in (
            ("concentration", "log", 3.0, {"zero": 0.3}),
            ("zero", "logit", 0.3, {"concentration": 3.0}),
        )
    },
    "df": (links.student_t_link, "df", "log", 5.0, {"scale": 1.0}, [0.0, 1.0, 9.0]),
    "quantile": (
        links.quantile_link,
        "quantile",
        "logit",
        0.2,
        {"scale": 1.0},
        [0.0, 1.0, 2.0],
    ),
    "scale": (links.lognormal_link, "scale", "log", 0.6, {}, [0.5, 1.0, 2.0]),
    "concentration": (
        links.gamma_link,
        "concentration",
        "log",
        3.0,
        {},
        [0.5, 1.0, 2.0],
    ),
    "shape": (
        links.inverse_gaussian_link,
        "concentration",
        "log",
        3.0,
        {},
        [0.5, 1.0, 2.0],
    ),
    "weibull": (links.weibull_link, "concentration", "log", 3.0, {}, [0.5, 1.0, 2.0]),
    "precision": (links.beta_link, "concentration", "log", 3.0, {}, [0.1, 0.5, 0.9]),
    "direction": (
        links.von_mises_link,
        "concentration",
        "log",
        3.0,
        {},
        [0.1, 0.5, -0.9],
    ),
    "beta-binomial": (
        links.beta_binomial_link,
        "concentration",
        "log",
        3.0,
        {"trials": 5},
        [0, 2, 5],
    ),
    "negative binomial": (
        links.negative_binomial_link,
        "concentration",
        "log",
        3.0,
        {},
        [0, 2, 5],
    ),
    "inflation": (
        links.zero_inflated_poisson_link,
        "zero",
        "logit",
        0.3,
        {},
        [0, 2, 5],
    ),
    "hurdle": (links.hurdle_poisson_link, "zero", "logit", 0.3, {}, [0, 2, 5]),
    "ends": (
        links.zero_one_inflated_beta_link,
        "ends",
        "logit",
        0.3,
        {"one": 0.5, "concentration": 2.0},
        [0.0, 0.5, 1.0],
    ),
    "inner": (
        links.zero_one_inflated_beta_link,
        "concentration",
        "log",
        3.0,
        {"one": 0.5, "ends": 0.3},
        [0.1, 0.5, 0.9],
    ),
    "one": (
        links.zero_one_inflated_beta_link,
        "one",
        "logit",
        0.3,
        {"ends": 0.5, "concentration": 2.0},
        [0.0, 1.0, 0.5],
    ),
    "ordinal": (
        links.ordinal_link,
        "scale",
        "log",
        0.6,
        {"cutpoints": np.array([-1.0, 1.0])},
        [0, 2, 1],
    ),
}
LINE = {"log": np.log, "logit": special.logit}


OTHERS = {
    ("skew_normal_link", "alpha"),  # a predictor as it is
    ("mixture_link", "probabilities"),  # of which `logits` are the predictor
    ("mixture_link", "logits"),
    ("multivariate_gaussian_link", "scale"),  # with a column for each output, below
    # learned or known for all rows alike
    ("multivariate_gaussian_link", "correlation"),
    ("ordinal_link", "probabilities"),
    ("ordinal_link", "cutpoints"),
}
NO_PARAMETERS = {
    *("eta", "mu", "components", "y", "name", "options", "trials"),
    *("num_categories", "ordering", "transform", "reference"),
}


def test_every_parameter_is_here():
    found = set()
    for name in links.__all__:
        if "_link" in name:
            given = set(inspect.signature(getattr(links, name)).parameters)
            predictors = {p for p in given if p.startswith(("log_", "logit_"))}
            found |= {(name, p) for p in given - predictors - NO_PARAMETERS}
    modelled = {(link.__name__, argument) for link, argument, *_ in MODELLED.values()}
    assert modelled | OTHERS == found
    assert not modelled & OTHERS


def predictors(y):
    """A column, or one for each of the outcome's."""
    return np.repeat(ETA, y.shape[1], axis=1) if y.ndim == 2 else ETA


def densities(link, y, **given):
    y = np.array(y)
    site = trace(link, predictors(y), y, **given)["obs"]
    return np.asarray(site["fn"].log_prob(site["value"]))


@pytest.mark.parametrize("name", MODELLED)
def test_a_predictor_is_the_parameter_under_its_transform(name):
    link, argument, transform, value, others, y = MODELLED[name]
    values = np.array([[value], [0.7 * value], [1.2 * value]])
    modelled = {f"{transform}_{argument}": LINE[transform](values)}
    found = densities(link, y, **others, **modelled)
    known = densities(link, y, **others, **{argument: values})
    assert_allclose(found, known, rtol=1e-9)
    alone = densities(link, y, **others, **{argument: value})
    assert_allclose(found[0], alone[0], rtol=1e-9)
    assert not np.allclose(found[1], alone[1], rtol=1e-6)


@pytest.mark.parametrize("name", MODELLED)
def test_a_parameter_has_one_source_and_its_domain(name):
    link, argument, transform, value, others, y = MODELLED[name]
    y, predictor = np.array(y), f"{transform}_{argument}"
    link = partial(link, predictors(y), y, **others)
    words = f"both `{argument}` and `{predictor}`"
    with pytest.raises(ValueError, match=words):
        run(link, **{argument: value, predictor: ETA})
    with pytest.raises(ValueError, match=r"1 of .* are not"):
        run(link, **{argument: -1.0})
    prior = dist.Normal(0.0, 1.0)
    with pytest.raises(ValueError, match="allows"):
        run(link, **{argument: prior})
    with pytest.raises(ValueError, match="rows against rows"):
        run(link, **{argument: np.full(2, value)})


def test_a_probability_is_no_positive_number():
    with pytest.raises(ValueError, match="outside of 0 to 1"):
        run(links.hurdle_poisson_link, ETA, zero=dist.HalfNormal(1.0))
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        run(links.hurdle_poisson_link, ETA, zero=1.0)


def test_alpha_is_a_predictor_as_it_is():
    link, y = partial(links.skew_normal_link, scale=0.7), [0.0, 1.0, 2.0]
    alpha = np.array([[-2.0], [0.0], [3.0]])
    found = densities(link, y, alpha=alpha)
    alone = [densities(link, y, alpha=a)[i] for i, a in enumerate(alpha[:, 0])]
    assert_allclose(found, alone, rtol=1e-9)
    assert not np.allclose(found, densities(link, y, alpha=0.0))


def test_outputs_of_a_multivariate_normal_learn_a_scale_each():
    eta = np.zeros((3, K))
    sites = shapes(links.multivariate_gaussian_link, eta)
    assert sites == {"sigma": (K,), "correlation_cholesky": (K, K), "obs": (3, K)}
    log_scale = np.linspace(-1.0, 1.0, 3 * K).reshape(3, K)
    y = np.ones((3, K))
    fn = trace(
        links.multivariate_gaussian_link,
        eta,
        y,
        log_scale=log_scale,
        correlation=np.eye(K),
    )["obs"]["fn"]
    expected = stats.norm.logpdf(y, 0.0, np.exp(log_scale)).sum(axis=1)
    assert_allclose(fn.log_prob(y), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("eta", "given", "words"),
    [
        (np.zeros((3, 1)), {}, "at least two"),
        (np.zeros((3, 2)), {"correlation": np.eye(3)}, r"symmetric \(2, 2\)"),
        (
            np.zeros((3, 2)),
            {"correlation": np.full((2, 2), 1.0)},
            "positive eigenvalue",
        ),
        (np.zeros((3, 2)), {"correlation": dist.LKJCholesky(3)}, r"LKJCholesky\(2, "),
    ],
)
def test_a_correlation_that_is_none_raises(eta, given, words):
    with pytest.raises(ValueError, match=words):
        run(links.multivariate_gaussian_link, eta, scale=1.0, **given)
