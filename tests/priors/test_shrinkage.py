from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from scipy import stats

from cases import CASES, value_of
from lamina import fit
from lamina.handlers import predicting
from lamina.layers import (
    AdaptiveLayer,
    GroupedAdaptiveLayer,
    HorseshoeLayer,
    InterceptLayer,
    R2D2Layer,
    RandomEffectsLayer,
    SpikeAndSlabLayer,
)
from lamina.links import gaussian_link
from lamina.priors import R2D2, Horseshoe, SpikeAndSlab, SumToZero
from support import run, shapes, trace

pytestmark = pytest.mark.usefixtures("float64")

SHAPES = [((3, 2), None), ((1, 1), None), ((4, 2, 3), None), ((4, 3), ())]


def values_for(prior, shape, scale_shape):
    """Values for all sampled sites of a prior."""
    rng = np.random.default_rng(0)
    sites = shapes(prior, "mu", shape, "theta", suffix="2", scale_shape=scale_shape)
    return {k: value_of(f"mu.{plain(k)}", v, rng) for k, v in sites.items()}


def traced(prior, shape, scale_shape):
    """Values for all sampled sites, the densities there, and the coefficients."""
    values = values_for(prior, shape, scale_shape)
    with jax.numpy_rank_promotion("raise"):
        found = trace(
            prior,
            "mu",
            shape,
            "theta",
            suffix="2",
            scale_shape=scale_shape,
            values=values,
        )
    densities = {k: found[k]["fn"].log_prob(v) for k, v in values.items()}
    for name in values:
        assert found[name]["fn"].batch_shape == ()
    short = {name: plain(name) for name in values}
    return (
        {short[k]: v for k, v in values.items()},
        {short[k]: v for k, v in densities.items()},
        found,
    )


def plain(site):
    """A site's name without the layer's, and without the suffix of a scale."""
    return site.removeprefix("mu.").removesuffix("2")


def over(shared, shape):
    """A shared value over all coefficients, by NumPy."""
    return np.broadcast_to(shared, shape)


@pytest.mark.parametrize(("shape", "scale_shape"), SHAPES)
def test_the_horseshoe_is_that_of_the_paper(shape, scale_shape):
    prior = Horseshoe(global_scale=0.3, slab_scale=1.5, slab_df=5.0)
    v, density, found = traced(prior, shape, scale_shape)
    z = v["theta2_decentered"]
    expected = {
        "tau": stats.halfcauchy.logpdf(v["tau"], scale=0.3),
        "slab": stats.invgamma.logpdf(v["slab"], 2.5, scale=2.5 * 1.5**2),
        "lmbda": stats.halfcauchy.logpdf(v["lmbda"]),
        "theta2_decentered": stats.norm.logpdf(z),
    }
    assert set(expected) == set(density)
    for name in expected:
        assert_allclose(density[name], expected[name].sum(), rtol=1e-9)
    tau, slab = over(v["tau"], shape), over(v["slab"], shape)
    squares = slab * v["lmbda"] ** 2 / (slab + tau**2 * v["lmbda"] ** 2)
    assert_allclose(found["mu.theta2"]["value"], z * tau * np.sqrt(squares), rtol=1e-9)
    assert found["mu.theta2"]["type"] == "deterministic"


@pytest.mark.parametrize(("shape", "scale_shape"), SHAPES)
def test_r2d2_shares_out_the_variance_that_r2_stands_for(shape, scale_shape):
    prior = R2D2(mean_r2=0.3, precision=5.0, concentration=0.7, noise=2.0)
    v, density, found = traced(prior, shape, scale_shape)
    z, r2 = v["theta2_decentered"], v["r2"]
    expected = {
        "r2": stats.beta.logpdf(r2, 1.5, 3.5).sum(),
        "theta2_decentered": stats.norm.logpdf(z).sum(),
    }
    many = z.size // r2.size
    shares = np.ones((*r2.shape, 1))
    if many > 1:
        shares = v["phi"]
        rows = shares.reshape(-1, many)
        dirichlet = stats.dirichlet(np.full(many, 0.7))
        expected["phi"] = sum(dirichlet.logpdf(row / row.sum()) for row in rows)
    assert set(expected) == set(density)
    for name in expected:
        assert_allclose(density[name], expected[name], rtol=1e-9)
    theta = np.asarray(found["mu.theta2"]["value"])
    # each unit's coefficients in the order of their axes, as the shares are
    flat = theta.reshape(many, *r2.shape)
    for unit in np.ndindex(*r2.shape):
        sd = 2.0 * np.sqrt(shares[unit] * r2[unit] / (1.0 - r2[unit]))
        column = (slice(None), *unit)
        assert_allclose(flat[column], sd * z.reshape(flat.shape)[column], rtol=1e-9)


@pytest.mark.parametrize(("shape", "scale_shape"), SHAPES)
def test_spike_and_slab_multiplies_a_gate_and_a_slab(shape, scale_shape):
    prior = SpikeAndSlab(inclusion=0.2, temperature=0.4)
    v, density, found = traced(prior, shape, scale_shape)
    z, gate = v["theta2_decentered"], v["gate"]
    expected = {
        "lmbda": stats.halfnorm.logpdf(v["lmbda"]),
        "gate": stats.logistic.logpdf(gate, np.log(0.2 / 0.8) / 0.4, 1.0 / 0.4),
        "theta2_decentered": stats.norm.logpdf(z),
    }
    assert set(expected) == set(density)
    for name in expected:
        assert_allclose(density[name], expected[name].sum(), rtol=1e-9)
    weight = 1.0 / (1.0 + np.exp(-gate))
    assert_allclose(found["mu.weight2"]["value"], weight, rtol=1e-9)
    theta = weight * over(v["lmbda"], shape) * z
    assert_allclose(found["mu.theta2"]["value"], theta, rtol=1e-9)


def test_the_weights_have_the_concrete_density():
    """Maddison, Mnih and Teh (2017), the density of a binary concrete variable."""
    t, odds = 0.4, 0.2 / 0.8
    weight = np.linspace(0.05, 0.95, 7)[:, None]
    gate = np.log(weight / (1.0 - weight))
    site = trace(SpikeAndSlab(0.2, t), "mu", (7, 1), values={"mu.gate": gate})[
        "mu.gate"
    ]
    found = site["fn"].log_prob(gate) - np.log(weight * (1.0 - weight)).sum()
    top = t * odds * weight ** (-t - 1.0) * (1.0 - weight) ** (-t - 1.0)
    bottom = (odds * weight**-t + (1.0 - weight) ** -t) ** 2
    assert_allclose(found, np.log(top / bottom).sum(), rtol=1e-9)


def test_half_of_the_weights_are_past_a_half_as_often_as_inclusion_says():
    for t in (0.1, 2.0):
        weight = trace(SpikeAndSlab(0.2, t), "mu", (20000, 1))["mu.weight"]["value"]
        assert abs(np.mean(weight > 0.5) - 0.2) < 4.0 * np.sqrt(0.16 / 20000)


@pytest.mark.parametrize(
    ("p0", "d", "n", "sigma"), [(5, 50, 200, 2.0), (2, 10, 30, 0.5)]
)
def test_the_horseshoe_expects_the_number_of_columns_that_it_was_told(p0, d, n, sigma):
    """What is left of each coefficient after shrinkage, summed, is p0 on average."""
    units = 4000
    prior = Horseshoe.expecting(
        p0, num_columns=d, num_rows=n, noise=sigma, slab_scale=1e6
    )
    tau = np.full(units, prior.global_scale)
    found = trace(prior, "mu", (d, units), values={"mu.tau": tau})
    sd = found["mu.beta"]["value"] / found["mu.beta_decentered"]["value"]
    kept = np.asarray(1.0 / (1.0 + sigma**2 / (n * sd**2))).sum(axis=0)
    assert abs(kept.mean() - p0) < 4.0 * kept.std() / np.sqrt(units)
    assert 0.05 * p0 > 4.0 * kept.std() / np.sqrt(units)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("lmbda", [1e-30, 1e-3, 1.0, 1e20])
def test_the_slab_bounds_what_escapes(lmbda, double):
    """Far past the slab a coefficient is Normal with the slab's variance."""
    given = {"mu.tau": 1e8, "mu.slab": 4.0, "mu.beta_decentered": 1.5}

    def beta(lmbda):
        values = {k: jnp.full((1, 1)[: 2 - (k in ONCE)], v) for k, v in given.items()}
        values["mu.lmbda"] = jnp.reshape(lmbda, (1, 1))
        return run(Horseshoe(), "mu", (1, 1), values=values)[0, 0]

    with jax.enable_x64(double):
        found, slope = jax.value_and_grad(beta)(lmbda)
    wide = 1e8 * lmbda
    expected = 1.5 * wide / np.sqrt(1.0 + (wide / 2.0) ** 2)
    assert_allclose(found, expected, rtol=1e-5)
    assert_allclose(
        slope, 1.5e8 / (1.0 + (wide / 2.0) ** 2) ** 1.5, rtol=1e-4, atol=1e-3
    )


ONCE = ("mu.tau", "mu.slab")


@pytest.mark.parametrize(("mean", "precision"), [(0.5, 2.0), (0.2, 8.0)])
def test_the_implied_r2_has_its_beta_distribution(mean, precision):
    """The variance of the term over that of term and noise, by simulation."""
    d, units, sigma = 6, 4000, 3.0
    prior = R2D2(mean, precision, 0.5, sigma)
    found = trace(prior, "mu", (d, units))
    sd = found["mu.beta"]["value"] / found["mu.beta_decentered"]["value"]
    explained = np.asarray(sd**2).sum(axis=0)
    implied = explained / (explained + sigma**2)
    beta = stats.beta(mean * precision, (1.0 - mean) * precision)
    assert stats.kstest(implied, beta.cdf).pvalue > 0.01
    # the coefficients themselves explain that much on average over their signs and sizes
    x = np.linalg.qr(np.random.default_rng(0).normal(size=(500, d)))[0] * np.sqrt(500.0)
    f = x @ np.asarray(found["mu.beta"]["value"])
    ratio = (f**2).mean(axis=0) / explained
    assert abs(ratio.mean() - 1.0) < 4.0 * ratio.std() / np.sqrt(units)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Horseshoe(global_scale=0.0), "`global_scale` is 0.0"),
        (lambda: Horseshoe(slab_scale=-1.0), "`slab_scale` is -1.0"),
        (lambda: Horseshoe(slab_df=np.nan), "`slab_df` is nan"),
        (lambda: Horseshoe(np.ones(3)), r"`global_scale` has shape \(3,\)"),
        (lambda: Horseshoe("small"), "`global_scale` is 'small'"),
        (
            lambda: Horseshoe.expecting(5, num_columns=5, num_rows=9),
            "`num_nonzero` is 5.* between 0 and 5",
        ),
        (
            lambda: Horseshoe.expecting(1, num_columns=5, num_rows=0),
            "`num_rows` is 0",
        ),
        (lambda: R2D2(mean_r2=1.0), "`mean_r2` is 1.0.* between 0 and 1"),
        (lambda: R2D2(precision=0), "`precision` is 0"),
        (lambda: R2D2(concentration=True), "`concentration` is True"),
        (lambda: R2D2(noise=-1.0), "`noise` is -1.0"),
        (lambda: SpikeAndSlab(inclusion=0.0), "`inclusion` is 0.0"),
        (lambda: SpikeAndSlab(temperature=0.0), "`temperature` is 0.0"),
        (
            lambda: SpikeAndSlab(lmbda_dist=numpyro.distributions.Normal(0.0, 1.0)),
            "lmbda_dist: .* allows negative values",
        ),
    ],
)
def test_wrong_numbers_raise_at_construction(build, message):
    with pytest.raises(ValueError, match=message):
        build()


PRIORS = [
    Horseshoe.expecting(2, num_columns=9, num_rows=50),
    R2D2(mean_r2=0.3),
    SpikeAndSlab(inclusion=0.3),
]


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if not case.own_prior]
)
def test_they_go_on_every_layer(name, prior):
    case = CASES[name]
    layer = replace(case.layer, prior=prior)
    both = ("sample", "deterministic")
    with jax.numpy_rank_promotion("raise"), case.taught("mu"):
        found = shapes(layer, "mu", *case.arguments(3), types=both, **case.sizes)
    wanted = case.tensor_shapes("mu")
    assert {k: found[k] for k in wanted} == wanted


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("dim", [-1, -2])
def test_replicates_are_computed_each_on_its_own(prior, dim):
    lead = (3,) + (1,) * (-dim - 1)
    single = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sites = shapes(prior, "mu", (4, 2))
        single.append({k: value_of(k, v, rng) for k, v in sites.items()})
    stacked = {
        k: np.stack([v[k] for v in single]).reshape(*lead, *single[0][k].shape)
        for k in single[0]
    }

    def model():
        with numpyro.plate("replicates", 3, dim=dim):
            return prior("mu", (4, 2))

    found = run(model, values=stacked)
    assert found.shape == (*lead, 4, 2)
    expected = [run(prior, "mu", (4, 2), values=v) for v in single]
    assert_allclose(np.reshape(found, (3, 4, 2)), np.stack(expected), rtol=1e-9)


@pytest.mark.parametrize("prior", [PRIORS[0], PRIORS[2]])
@pytest.mark.parametrize("c", [1, 4])
def test_unseen_levels_are_drawn_at_the_scale_that_all_share(prior, c):
    """Local scales are drawn anew; the shared ones, far from their prior, stay."""
    layer = RandomEffectsLayer(prior=prior, num_categories=c)
    shared = {"g.tau": 1e-9, "g.slab": 1.0, "g.lmbda": 1e-9}
    sites = shapes(layer, "g", np.zeros(2, int))
    values = {k: v for k, v in shared.items() if k in sites and sites[k] == ()}
    assert values
    model = predicting(layer, key=jax.random.key(0))
    found = run(model, "g", np.array([-1, 0, -2, -1]), values=values)
    assert found[0] == found[3]
    assert found[0] != found[2]
    assert np.all(np.abs(found) < 1e-3)


def test_unseen_levels_of_a_joint_prior_raise():
    layer = RandomEffectsLayer(prior=R2D2(), num_categories=4)
    model = predicting(layer, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"R2D2\(\), ties all levels.*unseen='zero'"):
        run(model, "g", np.array([-1, 0]))
    layer = RandomEffectsLayer(prior=R2D2(), num_categories=4, unseen="zero")
    model = predicting(layer, key=jax.random.key(0))
    assert run(model, "g", np.array([-1, 0]))[0] == 0.0


def test_fitted_levels_of_a_joint_prior_are_predicted():
    codes = np.repeat(np.arange(4), 6)
    y = np.array([-1.0, 0.0, 0.5, 2.0])[codes]

    def model(codes, y=None):
        mu = RandomEffectsLayer(prior=SumToZero(), num_categories=4)("g", codes)
        return gaussian_link(mu, y, scale=0.5)

    posterior = fit(model, {"codes": codes, "y": y}, method="map")
    theta = posterior.draws["g.theta"][0, 0, :, 0]
    found = posterior.predict({"codes": np.array([2, 0])}, kind="mean").mean
    assert_allclose(found, theta[[2, 0]], rtol=1e-5)
    with pytest.raises(ValueError, match="ties all levels together"):
        posterior.predict({"codes": np.array([2, -1])})


def test_the_noise_may_be_sampled():
    def model(x):
        sigma = numpyro.sample("sigma", numpyro.distributions.Exponential(1.0))
        many = x.shape[1]
        prior = Horseshoe.expecting(1, num_columns=many, num_rows=9, noise=sigma)
        f = HorseshoeLayer(prior=prior)("a", x)
        return f + R2D2Layer(prior=R2D2(noise=sigma))("b", x)

    @jax.jit
    def density(sigma):
        sites = trace(model, np.ones((2, 3)), values={"sigma": sigma, "a.tau": tau})
        return sites["a.tau"]["fn"].log_prob(tau)

    tau = jnp.array([0.2])
    expected = stats.halfcauchy.logpdf(0.2, scale=0.5 * 4.0 / 3.0)
    assert_allclose(density(4.0), expected, rtol=1e-9)


def test_priors_are_values():
    assert Horseshoe(0.1) == Horseshoe(global_scale=0.1) != Horseshoe(0.2)
    assert len({R2D2(), R2D2(), R2D2(noise=2.0)}) == 2
    assert repr(R2D2(noise=2.0)) == "R2D2(noise=2.0)"
    assert repr(SpikeAndSlab()) == "SpikeAndSlab()"


D, STRONG = 20, {2: 1.5, 7: -1.0, 11: 2.0}


def sparse_data(n=100):
    """A regression of twenty columns of which three matter."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, D))
    truth = np.zeros(D)
    truth[list(STRONG)] = list(STRONG.values())
    return x, x @ truth + 0.5 * rng.normal(size=n), truth


def sampled(layer, **options):
    """The posterior of a regression on `sparse_data` by one layer and a constant."""
    x, y, _ = sparse_data()

    def model(x, y=None):
        return gaussian_link(layer("mu", x) + InterceptLayer()("alpha"), y)

    with jax.enable_x64(False):
        return fit(
            model,
            {"x": x, "y": y},
            method="mcmc",
            num_chains=1,
            num_warmup=300,
            num_samples=300,
            target_accept_prob=0.95,
            seed=1,
            progress_bar=False,
            **options,
        )


@pytest.fixture(scope="module")
def adaptive_means():
    """Posterior means under one learned scale, for comparison."""
    return sampled(AdaptiveLayer()).draws["mu.beta"].reshape(-1, D).mean(axis=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        HorseshoeLayer(
            prior=Horseshoe.expecting(3, num_columns=D, num_rows=100, noise=0.5)
        ),
        R2D2Layer(prior=R2D2(concentration=0.1)),
        SpikeAndSlabLayer(prior=SpikeAndSlab(inclusion=0.2)),
    ],
)
def test_nuts_recovers_a_sparse_truth(layer, adaptive_means):
    """What matters is found, and the rest is shrunk more than by one learned scale."""
    found, truth = sampled(layer), sparse_data()[2]
    beta = found.draws["mu.beta"].reshape(-1, D)
    mean, sd = beta.mean(axis=0), beta.std(axis=0)
    strong = list(STRONG)
    idle = np.setdiff1d(np.arange(D), strong)
    assert np.all(np.abs(mean - truth)[strong] < 4.0 * sd[strong])
    assert np.abs(mean[idle]).mean() < 0.6 * np.abs(adaptive_means[idle]).mean()
    assert found.statistics["diverging"].mean() < 0.02
    if "mu.weight" in found.draws:
        weight = found.draws["mu.weight"].reshape(-1, D).mean(axis=0)
        assert weight[strong].min() > 2.0 * weight[idle].max()
    new = np.random.default_rng(9).normal(size=(1, D))
    with jax.enable_x64(False):
        predicted = found.predict({"x": new}, kind="mean")
    alpha = found.draws["alpha.beta"].reshape(-1)
    assert_allclose(predicted.mean, [(beta @ new[0] + alpha).mean()], rtol=1e-4)


@pytest.mark.slow
def test_nuts_recovers_the_scales_of_column_groups():
    groups = tuple(0 if d in STRONG else 1 for d in range(D))
    found = sampled(GroupedAdaptiveLayer(groups=groups), noncentered=True)
    strong, idle = found.draws["mu.lmbda"].reshape(-1, 2).mean(axis=0)
    assert strong > 1.0
    assert idle < 0.1
    beta, truth = found.draws["mu.beta"].reshape(-1, D), sparse_data()[2]
    z = (beta.mean(axis=0) - truth) / beta.std(axis=0)
    assert np.abs(z).max() < 4.0


def test_what_escapes_has_the_student_t_of_the_slab():
    prior = Horseshoe(global_scale=1e6, slab_scale=2.0, slab_df=4.0)
    beta = trace(prior, "mu", (1, 4000))["mu.beta"]["value"]
    assert stats.kstest(np.asarray(beta)[0], stats.t(4.0, 0.0, 2.0).cdf).pvalue > 0.01


def test_scopes_and_blocks_see_ordinary_sites():
    scoped = handlers.scope(HorseshoeLayer(), prefix="left", divider=".")
    assert set(shapes(scoped, "mu", np.ones((2, 3)))) == {
        "left.mu.tau",
        "left.mu.slab",
        "left.mu.lmbda",
        "left.mu.beta_decentered",
    }
