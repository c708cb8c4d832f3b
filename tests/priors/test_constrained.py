import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from lamina import fit
from lamina.handlers import predicting
from lamina.layers import (
    AdaptiveLayer,
    EmbeddingLayer,
    FixedPriorLayer,
    InterceptLayer,
    RandomEffectsLayer,
)
from lamina.links import gaussian_link
from lamina.priors import Adaptive, Fixed, Horseshoe, Ordered, Signed, SumToZero
from support import run, shapes, trace

pytestmark = pytest.mark.usefixtures("float64")

HALF = Fixed(dist.HalfNormal(2.0))


@pytest.mark.parametrize("shape", [(3, 2), (1, 1), (3, 2, 2)])
@pytest.mark.parametrize("sign", [1, -1, (1, -1, -1)])
def test_signed_coefficients_are_sizes_times_signs(shape, sign):
    if np.ndim(sign) and shape[0] == 1:
        sign = sign[:1]
    rng = np.random.default_rng(0)
    size, lmbda = rng.uniform(0.1, 2.0, shape), rng.uniform(0.5, 2.0, shape[-1:])
    values = {"mu.theta_size1": size, "mu.lmbda1": lmbda}
    with jax.numpy_rank_promotion("raise"):
        found = trace(Signed(sign), "mu", shape, "theta", suffix="1", values=values)
    assert set(found) == {"mu.lmbda1", "mu.theta_size1", "mu.theta1"}
    density = found["mu.theta_size1"]["fn"].log_prob(size)
    expected = stats.halfnorm.logpdf(size, scale=np.broadcast_to(lmbda, shape)).sum()
    assert_allclose(density, expected, rtol=1e-9)
    signs = np.reshape(sign, (-1, *(1,) * (len(shape) - 1)))
    assert_allclose(found["mu.theta1"]["value"], size * signs)
    assert found["mu.theta1"]["type"] == "deterministic"


def test_signed_sizes_have_any_positive_prior():
    found = trace(Signed(-1, HALF), "mu", (500, 1))
    assert set(found) == {"mu.beta_size", "mu.beta"}
    beta = np.asarray(found["mu.beta"]["value"])[:, 0]
    assert stats.kstest(-beta, stats.halfnorm(scale=2.0).cdf).pvalue > 0.01


@pytest.mark.parametrize("decreasing", [False, True])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_ordered_coefficients_are_a_start_and_steps(d, decreasing):
    rng = np.random.default_rng(0)
    start, steps = rng.normal(size=(1, 2)), rng.uniform(0.1, 2.0, (d - 1, 2))
    values = {"mu.beta_start": start}
    if d > 1:
        values |= {"mu.beta_steps": steps, "mu.lmbda": np.array([0.5, 3.0])}
    with jax.numpy_rank_promotion("raise"):
        found = trace(Ordered(decreasing=decreasing), "mu", (d, 2), values=values)
    assert set(found) == {*values, "mu.beta"}
    assert_allclose(
        found["mu.beta_start"]["fn"].log_prob(start), stats.norm.logpdf(start).sum()
    )
    expected = np.empty((d, 2))
    expected[0] = start[0]
    for k in range(1, d):
        step = -steps[k - 1] if decreasing else steps[k - 1]
        expected[k] = expected[k - 1] + step
    assert_allclose(found["mu.beta"]["value"], expected, rtol=1e-12)
    if d > 1:
        density = found["mu.beta_steps"]["fn"].log_prob(steps)
        scales = stats.halfnorm(scale=np.array([0.5, 3.0]))
        assert_allclose(density, scales.logpdf(steps).sum(), rtol=1e-9)


@pytest.mark.parametrize("shape", [(2, 1), (4, 3), (3, 2, 2)])
@pytest.mark.parametrize("scale_shape", [None, ()])
def test_sum_to_zero_is_a_normal_less_its_mean(shape, scale_shape):
    """On the hyperplane the density is a Normal of one dimension less."""
    d, *rest = shape
    lmbda = np.full(shape[-1:] if scale_shape is None else (), 1.7)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(*rest, d))
    z -= z.mean(axis=-1, keepdims=True)
    values = {"mu.lmbda": lmbda, "mu.beta_decentered": z}
    with jax.numpy_rank_promotion("raise"):
        found = trace(SumToZero(), "mu", shape, scale_shape=scale_shape, values=values)
    density = found["mu.beta_decentered"]["fn"].log_prob(z)
    each = np.prod(rest) * (d - 1)
    expected = -0.5 * (z**2).sum() - 0.5 * each * np.log(2.0 * np.pi)
    assert_allclose(density, expected, rtol=1e-9)
    beta = found["mu.beta"]["value"]
    assert beta.shape == shape
    assert_allclose(beta, 1.7 * np.moveaxis(z, -1, 0), rtol=1e-9)


def test_sum_to_zero_has_the_variance_of_contrasts():
    d, units = 3, 20000
    beta = trace(
        SumToZero(), "mu", (d, units), values={"mu.lmbda": np.full(units, 2.0)}
    )
    beta = np.asarray(beta["mu.beta"]["value"])
    assert_allclose(beta.sum(axis=0), 0.0, atol=1e-9)
    expected = 4.0 * (np.eye(d) - 1.0 / d)
    assert_allclose(np.cov(beta), expected, atol=4.0 * 4.0 * np.sqrt(2.0 / units))


@pytest.mark.parametrize("dim", [-1, -2])
@pytest.mark.parametrize(
    "prior", [Signed(-1), Signed((1, 1, -1)), Ordered(), SumToZero()]
)
def test_replicates_are_computed_each_on_its_own(prior, dim):
    lead = (2,) + (1,) * (-dim - 1)

    def model():
        with numpyro.plate("replicates", 2, dim=dim):
            return prior("mu", (3, 2))

    found = trace(model)
    values = {k: v["value"] for k, v in found.items() if v["type"] == "sample"}
    assert found["mu.beta"]["value"].shape == (*lead, 3, 2)
    for i in range(2):
        one = {
            k: np.reshape(v, (2, *v.shape[len(lead) :]))[i] for k, v in values.items()
        }
        alone = run(prior, "mu", (3, 2), values=one)
        both = np.reshape(found["mu.beta"]["value"], (2, 3, 2))
        assert_allclose(both[i], alone, rtol=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Signed(0), "`sign` is 0, but a sign is 1 or -1"),
        (lambda: Signed((1, 0.5)), r"`sign` is \(1, 0.5\)"),
        (lambda: Signed([]), r"`sign` is \[\]"),
        (
            lambda: Signed(1, Adaptive()),
            r"`prior` is Adaptive\(\), which draws negative",
        ),
        (lambda: Signed(1, Horseshoe()), r"`prior` is Horseshoe\(\), which draws neg"),
        (lambda: Ordered(steps=Fixed()), r"`steps` is Fixed\(\), which draws negative"),
        (lambda: Ordered(steps=Ordered()), r"`steps` is Ordered\(\)"),
        (lambda: SumToZero(dist.Normal(0.0, 1.0)), "lmbda_dist: .* negative values"),
    ],
)
def test_wrong_arguments_raise_at_construction(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_signs_that_are_not_as_many_as_the_columns_raise():
    with pytest.raises(ValueError, match=r"`sign` has 2 entries.*\(3, 1\): 3 columns"):
        trace(AdaptiveLayer(prior=Signed((1, -1))), "mu", np.ones((4, 3)))


@pytest.mark.parametrize("layer", [FixedPriorLayer, InterceptLayer])
def test_a_single_column_cannot_sum_to_zero(layer):
    data = () if layer is InterceptLayer else (np.ones((4, 1)),)
    with pytest.raises(ValueError, match=r"shape \(1, 1\).* at least two"):
        trace(layer(prior=SumToZero()), "mu", *data)


@pytest.mark.parametrize("prior", [SumToZero(), Ordered()])
def test_unseen_levels_raise_or_add_nothing(prior):
    codes = np.array([-1, 0, 2])
    layer = RandomEffectsLayer(prior=prior, num_categories=4)
    with pytest.raises(ValueError, match=r"ties all levels together.*unseen='zero'"):
        run(predicting(layer, key=jax.random.key(0)), "g", codes)
    layer = RandomEffectsLayer(prior=prior, num_categories=4, unseen="zero")
    assert run(predicting(layer, key=jax.random.key(0)), "g", codes)[0, 0] == 0.0


def test_unseen_levels_of_a_signed_prior_have_its_sign():
    layer = EmbeddingLayer(prior=Signed(-1), num_categories=3, embedding_dim=50)
    model = predicting(layer, key=jax.random.key(0))
    found = run(model, "g", np.array([-1, 2]), values={"g.lmbda": 1e-3})
    assert np.all(found < 0.0)
    assert np.all(found[0] > -1e-2)
    signs = EmbeddingLayer(prior=Signed((1, 1, -1)), num_categories=3, embedding_dim=2)
    with pytest.raises(ValueError, match="`sign` has 3 entries"):
        run(predicting(signs, key=jax.random.key(0)), "g", np.array([-1, 2]))


def test_tables_take_constraints():
    found = shapes(
        EmbeddingLayer(prior=SumToZero()),
        "g",
        np.zeros(5, int),
        4,
        3,
        types=("sample",),
    )
    assert found == {"g.lmbda": (), "g.theta_decentered": (3, 4)}


def test_constrained_priors_are_values():
    assert Signed([1, -1]) == Signed((1, -1)) == Signed(np.array([1, -1]))
    assert hash(Signed([1, -1])) == hash(Signed((1, -1)))
    assert repr(Signed(-1)) == "Signed(sign=-1)"
    assert Ordered() != Ordered(decreasing=True)
    assert SumToZero() == SumToZero()


def quick_fit(model, data):
    with jax.enable_x64(False):
        return fit(
            model,
            data,
            method="mcmc",
            num_chains=1,
            num_warmup=400,
            num_samples=400,
            seed=1,
            progress_bar=False,
        )


@pytest.mark.slow
def test_nuts_recovers_constrained_coefficients():
    rng = np.random.default_rng(0)
    n, truth = 300, np.array([-1.0, -0.2, -0.1, 1.5])
    codes = rng.integers(0, 4, n)
    x = rng.normal(size=(n, 3))
    prices, step = np.array([-0.8, -0.0, -1.2]), np.array([0.9, -0.3, 0.2, -0.8])
    regions = rng.integers(0, 4, n)
    y = 2.0 + truth[codes] + x @ prices + step[regions] + 0.3 * rng.normal(size=n)
    y -= truth[0]

    def model(x, codes, regions, y=None):
        bins = EmbeddingLayer(prior=Ordered(start=Fixed(dist.Normal(0.0, 3.0))))
        mu = bins("bins", codes, 4, 1) + AdaptiveLayer(prior=Signed(-1))("price", x)
        mu = mu + RandomEffectsLayer(prior=SumToZero())("region", regions, 4)
        return gaussian_link(mu, y)

    found = quick_fit(model, {"x": x, "codes": codes, "regions": regions, "y": y})
    price = found.draws["price.beta"][..., 0]
    bins = found.draws["bins.theta"][..., 0]
    region = found.draws["region.theta"][..., 0]
    assert np.all(price <= 0.0)
    assert np.all(np.diff(bins) >= 0.0)
    assert_allclose(region.sum(axis=-1), 0.0, atol=1e-4)
    for draws, expected in (
        (price[..., [0, 2]], prices[[0, 2]]),
        (bins, 2.0 + truth - truth[0]),
        (region, step),
    ):
        mean, sd = draws.mean(axis=(0, 1)), draws.std(axis=(0, 1))
        assert np.all(np.abs(mean - expected) < 4.0 * sd)
        assert np.all(sd < 0.15)
