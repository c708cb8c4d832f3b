"""What a fit predicts of each kind of outcome, where some of them are missing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, softmax
from scipy.stats import norm

import lamina
from lamina import links

N = 60
GONE = [3, 7, 20]


def model(x, answer=None, probit=None, zeros=None, hurdle=None, grade=None, kind=None):
    """An outcome of each kind, each with a predictor of its own."""

    def line(name, units=1):
        return lamina.FixedPriorLayer(units=units)(f"line.{name}", x)

    links.logit_link(line("answer"), answer, name="answer")
    links.probit_link(line("probit"), probit, name="probit")
    links.zero_inflated_poisson_link(line("zeros"), zeros, name="zeros")
    links.hurdle_poisson_link(line("hurdle"), hurdle, name="hurdle")
    links.ordinal_link(line("grade"), grade, num_categories=3, name="grade")
    links.categorical_link(line("kind", 3), kind, name="kind")


def between(cuts, eta):
    """The probabilities of ordered categories, by hand."""
    below = expit(cuts[None, :] - eta)
    edges = np.hstack([np.zeros_like(eta), below, np.ones_like(eta)])
    return np.diff(edges, axis=1)


def positive(eta):
    """The mean of a Poisson count that is above zero."""
    return np.exp(eta) / (1.0 - np.exp(-np.exp(eta)))


MEANS = {
    "answer": lambda eta, site: expit(eta[:, 0]),
    "probit": lambda eta, site: norm.cdf(eta[:, 0]),
    "zeros": lambda eta, site: (1.0 - site("zeros.zero")) * np.exp(eta[:, 0]),
    "hurdle": lambda eta, site: (1.0 - site("hurdle.zero")) * positive(eta[:, 0]),
    "grade": lambda eta, site: between(site("grade.cutpoints"), eta),
    "kind": lambda eta, site: softmax(eta, axis=1),
}


@pytest.fixture(scope="module")
def data():
    """Rows of which three have no outcome: NaN makes floats of counts and codes."""
    rng = np.random.default_rng(0)
    known = {k: rng.integers(0, 2, N) for k in ("answer", "probit")}
    known |= {k: rng.poisson(1.0, N) for k in ("zeros", "hurdle")}
    known |= {k: rng.integers(0, 3, N) for k in ("grade", "kind")}
    known = {k: v.astype(float) for k, v in known.items()}
    for v in known.values():
        v[GONE] = np.nan
    return {"x": rng.normal(size=(N, 2)), **known}


@pytest.fixture(scope="module")
def posterior(data):
    """A point for everything, by one fit of all outcomes."""
    return lamina.fit(model, data, observed=tuple(MEANS), method="map", missing="skip")


@pytest.fixture(scope="module")
def means(posterior, data):
    """The mean of every outcome in all rows, those without outcomes among them."""
    return posterior.predict(data, kind="mean")


@pytest.mark.parametrize("name", MEANS)
def test_means_are_those_computed_by_hand(posterior, data, means, name):
    def site(which):
        return posterior.draws[which][0, 0]

    expected = MEANS[name](data["x"] @ site(f"line.{name}.beta"), site)
    assert means[name].mean.shape == expected.shape
    assert len(expected) == N
    assert_allclose(means[name].mean, expected, rtol=1e-4, atol=1e-6)


def test_missing_outcomes_are_left_out_and_predicted(posterior, data):
    assert posterior.notes[0].startswith("3 of 60 rows have missing values")
    assert posterior.predict(kind="mean")["kind"].mean.shape == (N - 3, 3)
    gone = posterior.predict({"x": data["x"][GONE]}, draws=True)
    for name, predicted in gone.items():
        seen = set(np.unique(predicted.draws))
        assert seen <= set(range(2 if name in ("answer", "probit") else 40))
        assert len(seen) > 1


def test_missing_outcomes_raise_by_default(data):
    with pytest.raises(ValueError, match=r"is missing \(NaN\) in 3 of 60 values"):
        lamina.fit(model, data, observed=tuple(MEANS), method="map")


def test_missing_outcomes_leave_the_fit_of_the_others():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(N, 1)), rng.poisson(2.0, N).astype(float)
    kept = np.delete(np.arange(N), GONE)

    def counts(x, y=None):
        return links.poisson_link(lamina.FixedPriorLayer()("b", x), y)

    whole = np.where(np.isin(np.arange(N), GONE), np.nan, y)
    found = lamina.fit(counts, {"x": x, "y": whole}, method="map", missing="skip")
    # the mode solves the score equation of the rows that are left, prior included
    beta = found.draws["b.beta"][0, 0]
    score = x[kept].T @ (y[kept, None] - np.exp(x[kept] @ beta)) - beta
    assert abs(score.item()) < 1e-2
