import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.infer.util import log_density

from lamina.handlers import noncentered
from lamina.layers import AdaptiveLayer, FixedPriorLayer, FMLayer, RandomEffectsLayer
from lamina.links import gaussian_link
from support import trace

pytestmark = pytest.mark.usefixtures("float64")


def schools(y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 4):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 10.0), obs=y)


def regression(x, codes, y=None):
    mu = (
        AdaptiveLayer()("x", x)
        + FixedPriorLayer()("z", x)
        + FMLayer(low_rank_dim=2)("xx", x)
        + RandomEffectsLayer()("g", codes, 3)
    )
    return gaussian_link(mu, y)


def data(n=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2)), rng.integers(0, 3, size=n), rng.normal(size=n)


def latent(model, *args, **kwargs):
    sites = trace(model, *args, **kwargs)
    return [
        name
        for name, site in sites.items()
        if site["type"] == "sample" and not site["is_observed"]
    ]


def test_true_takes_the_sites_whose_scale_is_sampled():
    y = np.zeros(4)
    moved = latent(noncentered(schools, True, y), y)
    assert moved == ["mu", "tau", "theta_decentered"]
    args = data()
    assert latent(noncentered(regression, True, *args), *args) == [
        "x.lmbda",
        "x.beta_decentered",
        "z.beta",
        "xx.lmbda",
        "xx.theta_decentered",
        "g.lmbda",
        "g.theta_decentered",
        "sigma",
    ]


@pytest.mark.parametrize("sites", ["g.theta", ["g.theta"], ("g.theta",), {"g.theta"}])
def test_only_the_chosen_sites_move(sites):
    args = data()
    moved = latent(noncentered(regression, sites, *args), *args)
    assert [k for k in moved if k.endswith("_decentered")] == ["g.theta_decentered"]


@pytest.mark.parametrize("sites", [False, [], ()])
def test_no_site_leaves_the_model_as_it_is(sites):
    assert noncentered(regression, sites, *data()) is regression


@pytest.mark.parametrize(
    ("sites", "named"),
    [
        ("g.gamma", r"\['g.gamma'\]"),
        (["x.beta", "z.beta"], r"\['z.beta'\]"),
        ("g.lmbda", r"\['g.lmbda'\]"),
        ("obs", r"\['obs'\]"),
    ],
)
def test_sites_that_do_not_qualify_raise_with_those_that_do(sites, named):
    qualify = r"\['g.theta', 'x.beta', 'xx.theta'\]"
    with pytest.raises(ValueError, match=f"{named} cannot be.*has {qualify}"):
        noncentered(regression, sites, *data())


def families(scale):
    return {
        "Normal": dist.Normal(0.3, scale),
        "Laplace": dist.Laplace(-1.0, scale),
        "StudentT": dist.StudentT(3.0, 0.3, scale),
        "Cauchy": dist.Cauchy(0.3, scale),
        "Logistic": dist.Logistic(0.3, scale),
        "AsymmetricLaplace": dist.AsymmetricLaplace(0.3, scale, 2.0),
    }


@pytest.mark.parametrize("name", families(1.0))
@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
def test_the_density_is_the_same_after_the_change_of_variables(name, shape):
    """log p(beta) = log p(z) - log scale, entry by entry."""

    def model():
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
        fn = families(scale)[name].expand(shape).to_event(len(shape))
        numpyro.deterministic("twice", 2.0 * numpyro.sample("beta", fn))

    rng = np.random.default_rng(1)
    loc = -1.0 if name == "Laplace" else 0.3
    scale, beta = 0.7, rng.normal(size=shape)
    # LocScaleReparam(0) draws z around 0 in units of the scale
    z = (beta - loc) / scale
    plain, _ = log_density(model, (), {}, {"scale": scale, "beta": beta})
    moved = noncentered(model, "beta")
    found, sites = log_density(
        moved, (), {}, {"scale": scale, "beta_decentered": jnp.asarray(z)}
    )
    assert_allclose(found, plain + beta.size * np.log(scale), rtol=1e-10)
    assert_allclose(sites["beta"]["value"], beta, rtol=1e-10)
    assert_allclose(sites["twice"]["value"], 2.0 * beta, rtol=1e-10)


def test_a_layers_density_is_the_same_after_the_change_of_variables():
    args = data()
    values = {
        name: np.asarray(site["value"])
        for name, site in trace(regression, *args, seed=3).items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    plain, _ = log_density(regression, args, {}, values)
    moved, jacobian = {}, 0.0
    for name, value in values.items():
        lmbda = values.get(f"{name.split('.')[0]}.lmbda")
        if lmbda is None or name.endswith("lmbda"):
            moved[name] = value
        else:
            moved[f"{name}_decentered"] = value / lmbda
            jacobian += np.log(np.broadcast_to(lmbda, value.shape)).sum()
    found, _ = log_density(noncentered(regression, True, *args), args, {}, moved)
    assert_allclose(found, plain + jacobian, rtol=1e-10)


def test_a_fixed_scale_computed_from_data_does_not_qualify():
    def model(x):
        numpyro.sample("beta", dist.Normal(0.0, jnp.std(x)))

    assert noncentered(model, True, data()[0]) is model
    with pytest.raises(ValueError, match=r"this model has \[\]"):
        noncentered(model, "beta", data()[0])


def test_positive_and_discrete_sites_do_not_qualify():
    def model():
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
        numpyro.sample("a", dist.LogNormal(0.0, scale))
        numpyro.sample("b", dist.HalfNormal(scale))
        numpyro.sample("c", dist.TruncatedNormal(0.0, scale, low=0.0))

    assert noncentered(model, True) is model


def test_a_models_arguments_may_have_the_names_of_ours():
    def model(model, sites):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("beta", dist.Normal(model + sites, scale))

    moved = noncentered(model, True, model=1.0, sites=2.0)
    sites = handlers.trace(handlers.seed(moved, 0)).get_trace(model=1.0, sites=2.0)
    assert sites["beta_decentered"]["type"] == "sample"


def test_it_traces_under_validation_and_takes_keyword_data():
    x, codes, y = data()
    with numpyro.validation_enabled():
        moved = noncentered(regression, True, x=x, codes=codes, y=y)
    assert "g.theta_decentered" in latent(moved, x, codes, y)


def test_a_gradient_flows_to_the_scale_through_the_moved_site():
    y = np.array([1.0, 2.0, -1.0, 0.5])
    moved = noncentered(schools, True, y)

    def density(tau):
        values = {"mu": 0.0, "tau": tau, "theta_decentered": jnp.ones(4)}
        return log_density(moved, (y,), {}, values)[0]

    tau = 2.0
    # y ~ Normal(tau z, 10) with z = 1, and a HalfCauchy(5) prior of tau
    expected = ((y - tau) / 100.0).sum() - 2.0 * tau / (25.0 + tau**2)
    assert_allclose(jax.grad(density)(tau), expected, rtol=1e-9)
