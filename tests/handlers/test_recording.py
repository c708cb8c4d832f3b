import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.infer import Predictive

from lamina.handlers import predicting, record_outcomes, record_terms
from lamina.handlers.recording import with_rows
from lamina.layers import (
    AdaptiveLayer,
    EmbeddingLayer,
    FMLayer,
    InterceptLayer,
    RandomEffectsLayer,
)
from lamina.links import gaussian_link, poisson_link
from support import run, shape_of, trace

pytestmark = pytest.mark.usefixtures("strict_shapes")


def model(x, codes, y=None):
    mu = (
        InterceptLayer()("a")
        + AdaptiveLayer()("x", x)
        + FMLayer(low_rank_dim=2)("xx", x)
        + RandomEffectsLayer()("g", codes, 3)
    )
    return gaussian_link(mu, y)


def data(n):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2)), rng.integers(0, 3, size=n)


TERMS = ["a.term", "x.term", "xx.term", "g.term"]


@pytest.mark.parametrize("n", [1, 5])
def test_terms_add_up_to_the_predictor(n):
    sites = trace(record_terms(record_outcomes(model)), *data(n))
    values = {k: np.asarray(site["value"]) for k, site in sites.items()}
    assert [k for k in values if k.endswith(".term")] == TERMS
    assert values["a.term"].shape == (1, 1)
    assert all(values[k].shape == (n, 1) for k in TERMS[1:])
    total = sum(values[k] for k in TERMS)
    assert_allclose(total[:, 0], values["obs.linear"], rtol=1e-6, atol=1e-6)
    assert_allclose(values["obs.mean"], values["obs.linear"])


def test_recording_changes_nothing_else():
    plain = trace(model, *data(4))
    recorded = trace(record_terms(record_outcomes(model)), *data(4))
    kept = {k: v for k, v in recorded.items() if v["type"] != "deterministic"}
    assert list(kept) == list(plain)
    for name, site in plain.items():
        assert_allclose(kept[name]["value"], site["value"])


@pytest.mark.parametrize("compiled", [False, True])
def test_predictive_returns_every_term_with_an_axis_of_draws(compiled, key):
    n, draws = 5, 3
    predict = Predictive(record_terms(record_outcomes(model)), num_samples=draws)
    predict = jax.jit(predict) if compiled else predict
    with jax.numpy_rank_promotion("allow"):
        found = predict(key, *data(n))
    assert found["a.term"].shape == (draws, 1, 1)
    assert all(found[k].shape == (draws, n, 1) for k in TERMS[1:])
    total = sum(np.asarray(found[k]) for k in TERMS)
    assert_allclose(total[..., 0], found["obs.linear"], rtol=1e-5, atol=1e-5)


def test_scopes_rename_terms_as_they_rename_sites():
    def scoped(*args):
        with handlers.scope(prefix="left", divider="."):
            return model(*args)

    sites = trace(record_terms(record_outcomes(scoped)), *data(4))
    left = [k for k in sites if k.endswith(".term")]
    assert left == [f"left.{term}" for term in TERMS]
    assert "left.obs.mean" in sites


def test_each_of_two_outcomes_is_recorded():
    def both(x, y=None, z=None):
        gaussian_link(AdaptiveLayer()("mu", x), y)
        poisson_link(AdaptiveLayer()("rate", x), z, name="visits")

    sites = trace(record_outcomes(both), data(3)[0])
    rate = sites["visits.linear"]["value"]
    assert_allclose(sites["visits.mean"]["value"], np.exp(rate), rtol=1e-6)
    assert {"obs.linear", "obs.mean"} <= set(sites)


def test_recorders_work_around_a_block_of_statements():
    with handlers.trace() as sites, handlers.seed(rng_seed=0), record_terms():
        model(*data(3))
    assert [k for k in sites if k.endswith(".term")] == TERMS


def test_predicting_reaches_a_model_and_a_block_alike(key):
    layer = EmbeddingLayer(num_categories=3, embedding_dim=2)
    codes = np.array([-1, 0])
    values = {"g.lmbda": np.array(1.0), "g.theta": np.zeros((3, 2))}
    outside = run(predicting(layer, key=key), "g", codes, values=values)
    with predicting(key=key):
        inside = run(layer, "g", codes, values=values)
    assert_allclose(outside, inside)


@pytest.mark.parametrize(
    ("own", "wanted", "found"),
    [
        ((), (4,), (4,)),
        ((1,), (4,), (4,)),
        ((), (1,), (1,)),
        ((3,), (4, 3), (4, 3)),
        ((4,), (4,), (4,)),
        # a shape that would have to change, not grow, is left for its own error
        ((5,), (4,), (5,)),
        ((4, 2), (4,), (4, 2)),
    ],
)
def test_an_outcome_without_rows_is_drawn_for_every_row(own, wanted, found):
    def flat(y=None):
        return numpyro.sample("y", dist.Normal(np.zeros(own), 1.0), obs=y)

    with jax.numpy_rank_promotion("allow"):  # NumPyro's own expansion broadcasts
        assert shape_of(run, with_rows(flat, shapes={"y": wanted})) == found
        assert shape_of(run, with_rows(flat, shapes={"z": wanted})) == own


def test_an_outcome_of_vectors_keeps_its_event():
    def flat():
        return numpyro.sample("y", dist.Normal(np.zeros(3), 1.0).to_event(1))

    with jax.numpy_rank_promotion("allow"):
        assert shape_of(run, with_rows(flat, shapes={"y": (4, 3)})) == (4, 3)
        assert shape_of(run, with_rows(flat, shapes={"y": (4, 2)})) == (3,)


def test_an_observed_outcome_is_left_alone():
    def flat(y):
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    sites = trace(with_rows(flat, shapes={"y": (4,)}), np.zeros(2))
    assert sites["y"]["fn"].batch_shape == ()
