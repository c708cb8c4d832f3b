"""Correlated coefficients against multivariate normal densities."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

from lamina.dependence import Correlated
from support import run, shapes, trace

pytestmark = pytest.mark.usefixtures("float64")

C, K = 3, 2
LMBDA = np.array([0.5, 2.0])
CORR = np.array([[1.0, 0.0], [-0.6, 0.8]])
COVARIANCE = np.diag(LMBDA) @ CORR @ CORR.T @ np.diag(LMBDA)
Z = np.arange(6.0).reshape(C, K) - 2.5
VALUES = {"g.lmbda": LMBDA, "g.corr": CORR, "g.z": Z}


def test_the_noncentred_form_maps_z_by_the_factor():
    found = run(Correlated(), "g", (C, K), "theta", values=VALUES)
    expected = [np.diag(LMBDA) @ CORR @ z for z in Z]
    assert_allclose(found, expected, rtol=1e-12)
    sites = trace(Correlated(), "g", (C, K), "theta", values=VALUES)
    assert_allclose(sites["g.theta"]["value"], expected, rtol=1e-12)
    assert_allclose(
        sites["g.z"]["fn"].log_prob(Z), stats.norm.logpdf(Z).sum(), rtol=1e-12
    )


def test_the_centred_form_has_the_density_of_a_multivariate_normal():
    theta = np.random.default_rng(0).normal(size=(C, K))
    values = {"g.lmbda": LMBDA, "g.corr": CORR, "g.theta": theta}
    site = trace(Correlated(centered=True), "g", (C, K), "theta", values=values)
    expected = stats.multivariate_normal(np.zeros(K), COVARIANCE).logpdf(theta).sum()
    assert_allclose(site["g.theta"]["fn"].log_prob(theta), expected, rtol=1e-10)
    assert site["g.theta"]["fn"].event_shape == (C, K)
    assert list(site) == ["g.lmbda", "g.corr", "g.theta"]


@pytest.mark.parametrize("eta", [1.0, 2.5])
def test_the_factor_has_the_lkj_density(eta):
    """For two coefficients, (1 - r^2)^(eta - 1), normalised, times dr / dL."""
    values = {**VALUES}
    site = trace(Correlated(eta), "g", (C, K), values=values)["g.corr"]
    r = -0.6
    const = special.beta(eta, eta) * 2.0 ** (2.0 * eta - 1.0)
    expected = (eta - 1.0) * np.log(1.0 - r**2) - np.log(const)
    assert_allclose(site["fn"].log_prob(CORR), expected, rtol=1e-6)


def test_one_scale_for_all_or_one_for_each():
    found = shapes(Correlated(), "g", (C, K), "theta", scale_shape=())
    assert found == {"g.lmbda": (), "g.corr": (K, K), "g.z": (C, K)}
    values = {**VALUES, "g.lmbda": 3.0}
    found = run(Correlated(), "g", (C, K), scale_shape=(), values=values)
    assert_allclose(found, 3.0 * Z @ CORR.T)


@pytest.mark.parametrize("centered", [False, True])
def test_one_coefficient_has_no_correlation(centered):
    prior = Correlated(centered=centered)
    site = "g.theta" if centered else "g.z"
    assert shapes(prior, "g", (C, 1), "theta") == {"g.lmbda": (1,), site: (C, 1)}
    values = {"g.lmbda": np.array([2.0]), site: Z[:, :1]}
    found = run(prior, "g", (C, 1), "theta", values=values)
    assert_allclose(found, Z[:, :1] * (1.0 if centered else 2.0))
    if centered:
        fn = trace(prior, "g", (C, 1), "theta", values=values)[site]["fn"]
        expected = stats.norm.logpdf(Z[:, :1], 0.0, 2.0).sum()
        assert_allclose(fn.log_prob(Z[:, :1]), expected)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("shape", [(C, K), (5, C, K)])
@pytest.mark.parametrize("dim", [-1, -2])
def test_replicates_are_computed_each_on_its_own(centered, shape, dim):
    prior, lead = Correlated(centered=centered), (2,) + (1,) * (-dim - 1)

    def model():
        with numpyro.plate("replicates", 2, dim=dim):
            return prior("g", shape, "theta")

    rng = np.random.default_rng(0)
    lmbda = rng.uniform(0.5, 2.0, size=(*lead, K))
    z = rng.normal(size=(*lead, *shape))
    last = "g.theta" if centered else "g.z"
    corr = np.broadcast_to(CORR, (*lead, K, K))
    values = {"g.lmbda": lmbda, "g.corr": corr, last: z}
    found = run(model, values=values)
    assert found.shape == (*lead, *shape)
    sites = trace(model, values=values)
    for i in range(2):
        at = (i,) + (0,) * (len(lead) - 1)
        factor = np.diag(lmbda[at]) @ CORR
        if centered:
            density = stats.multivariate_normal(np.zeros(K), factor @ factor.T)
            expected = density.logpdf(z[at]).sum()
            assert_allclose(sites[last]["fn"].log_prob(z)[at], expected, rtol=1e-8)
        else:
            assert_allclose(found[at], z[at] @ factor.T, rtol=1e-10)


@pytest.mark.parametrize("concentration", [0.0, -1.0, np.inf, np.nan, np.ones(2)])
def test_concentrations_that_are_not_positive_numbers_raise(concentration):
    with pytest.raises(ValueError, match="`concentration` is"):
        Correlated(concentration)


def test_scales_are_checked_as_those_of_adaptive_priors():
    with pytest.raises(ValueError, match="lmbda_dist: Normal"):
        Correlated(lmbda_dist=dist.Normal(0.0, 1.0))
    with pytest.raises(TypeError, match=r"takes no \['rate'\]"):
        Correlated(lmbda_kwargs={"rate": 1.0})


def test_priors_are_values():
    assert Correlated() == Correlated(1.0)
    assert Correlated() != Correlated(centered=True)
    assert hash(Correlated(2.0)) == hash(Correlated(2.0))
    assert repr(Correlated(2.0)) == "Correlated(concentration=2.0)"


def test_a_concentration_may_be_traced():
    found = jax.jit(lambda eta: run(Correlated(eta), "g", (C, K)))(jnp.array(2.0))
    assert found.shape == (C, K)
