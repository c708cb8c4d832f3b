from dataclasses import FrozenInstanceError

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from lamina.priors import Adaptive, Fixed
from support import log_prob, shapes, trace

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")

SHAPES = [(1, 1), (3, 2), (4, 2, 3), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_fixed_samples_one_site_of_the_shape(shape):
    found = trace(Fixed(), "mu", shape)
    assert {k: np.shape(v["value"]) for k, v in found.items()} == {"mu.beta": shape}
    assert found["mu.beta"]["fn"].event_shape == shape
    assert found["mu.beta"]["fn"].batch_shape == ()


@pytest.mark.parametrize("shape", SHAPES)
def test_adaptive_samples_a_scale_for_each_unit_and_the_coefficients(shape):
    found = trace(Adaptive(), "mu", shape, "theta", suffix="2")
    assert {k: np.shape(v["value"]) for k, v in found.items()} == {
        "mu.lmbda2": shape[-1:],
        "mu.theta2": shape,
    }
    assert found["mu.lmbda2"]["fn"].event_shape == shape[-1:]
    assert found["mu.theta2"]["fn"].event_shape == shape


@pytest.mark.parametrize("scale_shape", [(), (2,), (3, 2)])
def test_adaptive_shares_scales_along_the_leading_axes(scale_shape):
    rng = np.random.default_rng(0)
    shape, lmbda = (4, 3, 2), rng.uniform(0.5, 2.0, size=scale_shape)
    beta = rng.normal(size=shape)
    found = log_prob(
        Adaptive(),
        "mu.beta",
        "mu",
        shape,
        scale_shape=scale_shape,
        values={"mu.lmbda": lmbda, "mu.beta": beta},
    )
    expected = stats.norm.logpdf(beta, 0.0, np.broadcast_to(lmbda, shape)).sum()
    assert_allclose(found, expected, rtol=1e-10)


def test_the_defaults_are_half_normal_and_normal():
    lmbda, beta = np.array([0.5, 2.0]), np.array([[1.0, -1.0], [0.2, 3.0], [0.0, 0.4]])
    values = {"mu.lmbda": lmbda, "mu.beta": beta}
    scales = log_prob(Adaptive(), "mu.lmbda", "mu", (3, 2), values=values)
    assert_allclose(scales, stats.halfnorm.logpdf(lmbda).sum(), rtol=1e-10)
    coefficients = log_prob(Adaptive(), "mu.beta", "mu", (3, 2), values=values)
    assert_allclose(coefficients, stats.norm.logpdf(beta, 0.0, lmbda).sum(), rtol=1e-10)
    fixed = log_prob(Fixed(), "mu.beta", "mu", (3, 2), values=values)
    assert_allclose(fixed, stats.norm.logpdf(beta).sum(), rtol=1e-10)


LMBDA, BETA = np.array([0.7]), np.array([[1.5], [-0.3], [0.1]])


@pytest.mark.parametrize(
    ("prior", "lmbda", "beta"),
    [
        (
            Adaptive(dist.Exponential, dist.Laplace, {"loc": 1.0}, {"rate": 2.0}),
            stats.expon(scale=0.5),
            stats.laplace(1.0, 0.7),
        ),
        (
            Adaptive(dist.Exponential(2.0), dist.Laplace(1.0, 3.0)),
            stats.expon(scale=0.5),
            stats.laplace(1.0, 2.1),
        ),
        (
            Adaptive(lmbda_dist=dist.Uniform(0.1, 1.0), coef_dist=dist.Normal(2.0)),
            stats.uniform(0.1, 0.9),
            stats.norm(2.0, 0.7),
        ),
        (
            Adaptive(
                coef_dist=dist.StudentT,
                coef_kwargs={"df": 3.0, "loc": np.array([[0.0], [1.0], [2.0]])},
            ),
            stats.halfnorm(),
            stats.t(3.0, np.array([[0.0], [1.0], [2.0]]), 0.7),
        ),
        (
            Adaptive(lmbda_kwargs={"scale": np.array([0.2])}),
            stats.halfnorm(scale=0.2),
            stats.norm(0.0, 0.7),
        ),
        (Fixed(dist.Cauchy, {"loc": 0.0, "scale": 2.0}), None, stats.cauchy(0.0, 2.0)),
        (Fixed(dist.Gumbel(1.0, 2.0)), None, stats.gumbel_r(1.0, 2.0)),
        (
            Fixed(coef_kwargs={"loc": 0.0, "scale": np.array([[1.0], [2.0], [3.0]])}),
            None,
            stats.norm(0.0, np.array([[1.0], [2.0], [3.0]])),
        ),
    ],
)
def test_classes_with_arguments_and_ready_distributions(prior, lmbda, beta):
    values = {"mu.lmbda": LMBDA, "mu.beta": BETA}
    found = trace(prior, "mu", (3, 1), values=values)
    density = found["mu.beta"]["fn"].log_prob(BETA)
    assert_allclose(density, beta.logpdf(BETA).sum(), rtol=1e-9)
    assert list(found) == (["mu.beta"] if lmbda is None else ["mu.lmbda", "mu.beta"])
    if lmbda is not None:
        density = found["mu.lmbda"]["fn"].log_prob(LMBDA)
        assert_allclose(density, lmbda.logpdf(LMBDA).sum(), rtol=1e-9)


WRONG = {
    "unknown argument": (
        lambda: Fixed(dist.Normal, {"mean": 0.0}),
        TypeError,
        r"coef_dist: Normal takes no \['mean'\]; it takes \['loc', 'scale'\]",
    ),
    "another distribution's defaults": (
        lambda: Adaptive(lmbda_dist=dist.Exponential),
        TypeError,
        r"lmbda_dist: Exponential takes no \['scale'\]; it takes \['rate'\]",
    ),
    "missing argument": (
        lambda: Fixed(dist.StudentT, {"loc": 0.0}),
        TypeError,
        "coef_dist: StudentT cannot be built from .*df",
    ),
    "value that is not allowed": (
        lambda: Adaptive(lmbda_kwargs={"scale": -1.0}),
        ValueError,
        "lmbda_dist: HalfNormal cannot be built .*scale",
    ),
    "scale that is learned": (
        lambda: Adaptive(coef_kwargs={"loc": 0.0, "scale": 1.0}),
        TypeError,
        "`scale` is given as 1.0, but an adaptive prior learns it",
    ),
    "no scale to learn": (
        lambda: Adaptive(coef_dist=dist.Exponential, coef_kwargs={}),
        TypeError,
        "coef_dist: Exponential has no `scale` to learn",
    ),
    "negative scale": (
        lambda: Adaptive(dist.Normal(0.0, 1.0)),
        ValueError,
        r"lmbda_dist: Normal\(loc=0.0, scale=1.0\) allows negative values",
    ),
    "a point for a scale": (
        lambda: Adaptive(dist.Delta(1.0)),
        ValueError,
        r"lmbda_dist: Delta\(.*\) is a point, but `lmbda` is learned",
    ),
    "arguments beside a ready distribution": (
        lambda: Fixed(dist.Normal(0.0, 1.0), {"loc": 3.0}),
        ValueError,
        "is a ready distribution, so the keyword arguments .* would be ignored",
    ),
    "scale arguments beside a ready distribution": (
        lambda: Adaptive(dist.HalfNormal(1.0), lmbda_kwargs={"scale": 3.0}),
        ValueError,
        "lmbda_dist: .* is a ready distribution",
    ),
    "text": (lambda: Fixed("normal"), TypeError, "'normal' is no distribution"),
    "another class": (lambda: Adaptive(coef_dist=int), TypeError, "int is no distrib"),
    "a factory": (lambda: Fixed(dist.Categorical), TypeError, "is no distribution"),
    "vectors": (
        lambda: Fixed(dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3))),
        ValueError,
        r"one draw of MultivariateNormal has shape \(3,\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_raise_at_construction(name):
    build, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("loc", [np.zeros(3), np.zeros((2, 1)), np.zeros((3, 2))])
def test_arguments_of_other_shapes_raise_when_sampled(loc):
    prior = Fixed(coef_kwargs={"loc": loc, "scale": 1.0})
    with pytest.raises(ValueError, match=r"mu\.beta: .* coefficients are \(3, 1\)"):
        trace(prior, "mu", (3, 1))


def test_arguments_may_be_traced_or_sampled():
    """A hyperprior: the scale's own scale is learned."""

    def model():
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        return Adaptive(lmbda_kwargs={"scale": tau})("mu", (3, 1))

    values = {"tau": np.array(0.3), "mu.lmbda": LMBDA, "mu.beta": BETA}

    @jax.jit
    def density(values):
        fn = trace(model, values=values)["mu.lmbda"]["fn"]
        return fn.log_prob(values["mu.lmbda"])

    expected = stats.halfnorm(scale=0.3).logpdf(LMBDA).sum()
    assert_allclose(density(values), expected, rtol=1e-9)


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("dim", [-1, -2])
def test_replicate_plates_add_leading_axes(size, dim):
    lead = (size,) + (1,) * (-dim - 1)

    def model():
        with numpyro.plate("replicates", size, dim=dim):
            Adaptive()("a", (3, 2))
            Adaptive()("b", (3, 2), scale_shape=())
            Fixed()("c", (3, 2))

    assert shapes(model) == {
        "a.lmbda": (*lead, 2),
        "a.beta": (*lead, 3, 2),
        "b.lmbda": lead,
        "b.beta": (*lead, 3, 2),
        "c.beta": (*lead, 3, 2),
    }


def test_priors_are_values():
    assert Adaptive() == Adaptive()
    assert Adaptive() != Fixed()
    assert hash(Fixed(dist.Normal(0.0, 2.0))) == hash(Fixed(dist.Normal(0.0, 2.0)))
    assert Fixed(dist.Normal(0.0, 2.0)) != Fixed(dist.Normal(0.0, 3.0))
    assert repr(Fixed(dist.Normal(0.0, 2.0))) == (
        "Fixed(coef_dist=Normal(loc=0.0, scale=2.0))"
    )
    with pytest.raises(FrozenInstanceError):
        Adaptive().coef_dist = dist.Laplace


def test_mutable_arguments_are_not_shared():
    given = {"loc": 0.0, "scale": 2.0}
    prior = Fixed(coef_kwargs=given)
    given["scale"] = -1.0
    assert prior.coef_kwargs == {"loc": 0.0, "scale": 2.0}
    assert Fixed().coef_kwargs == {"loc": 0.0, "scale": 1.0}


def test_a_scale_for_each_group_of_columns():
    rng = np.random.default_rng(0)
    groups, shape = (1, 0, 1, 2), (4, 3, 2)
    lmbda, beta = rng.uniform(0.5, 2.0, (3, 2)), rng.normal(size=shape)
    values = {"mu.lmbda": lmbda, "mu.beta": beta}
    found = trace(Adaptive(groups=groups), "mu", shape, values=values)
    assert found["mu.lmbda"]["fn"].event_shape == (3, 2)
    expected = sum(
        stats.norm.logpdf(beta[d, l, u], 0.0, lmbda[groups[d], u])
        for d, l, u in np.ndindex(*shape)
    )
    assert_allclose(found["mu.beta"]["fn"].log_prob(beta), expected, rtol=1e-10)
    scales = found["mu.lmbda"]["fn"].log_prob(lmbda)
    assert_allclose(scales, stats.halfnorm.logpdf(lmbda).sum(), rtol=1e-10)


@pytest.mark.parametrize("scale_shape", [None, ()])
def test_a_scale_for_each_column(scale_shape):
    shared = (2,) if scale_shape is None else ()
    rng = np.random.default_rng(0)
    lmbda, beta = rng.uniform(0.5, 2.0, (3, *shared)), rng.normal(size=(3, 2))
    values = {"mu.lmbda": lmbda, "mu.beta": beta}
    prior = Adaptive(groups="column")
    found = trace(prior, "mu", (3, 2), scale_shape=scale_shape, values=values)
    scale = lmbda if shared else lmbda[:, None] * np.ones(2)
    expected = stats.norm.logpdf(beta, 0.0, scale).sum()
    assert_allclose(found["mu.beta"]["fn"].log_prob(beta), expected, rtol=1e-10)


@pytest.mark.parametrize("dim", [-1, -2])
@pytest.mark.parametrize("groups", ["column", (0, 1, 1)])
def test_replicates_have_groups_of_their_own(groups, dim):
    lead, many = (2,) + (1,) * (-dim - 1), 3 if groups == "column" else 2
    rng = np.random.default_rng(0)
    lmbda = rng.uniform(0.5, 2.0, (*lead, many, 2))

    def model():
        with numpyro.plate("replicates", 2, dim=dim):
            return Adaptive(groups=groups)("mu", (3, 2))

    fn = trace(model, values={"mu.lmbda": lmbda})["mu.beta"]["fn"]
    index = list(range(3)) if groups == "column" else list(groups)
    beta = rng.normal(size=(*lead, 3, 2))
    expected = stats.norm.logpdf(beta, 0.0, lmbda[..., index, :]).sum(axis=(-2, -1))
    assert_allclose(fn.log_prob(beta), expected, rtol=1e-10)


def test_one_group_is_one_scale_for_each_unit():
    values = {"mu.lmbda": np.array([[0.3, 2.0]]), "mu.beta": np.ones((3, 2))}
    found = log_prob(Adaptive(groups=(0, 0, 0)), "mu.beta", "mu", (3, 2), values=values)
    values["mu.lmbda"] = values["mu.lmbda"][0]
    expected = log_prob(Adaptive(), "mu.beta", "mu", (3, 2), values=values)
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("columns", "'columns' does not number columns"),
        ((0.0, 1.0), "does not number columns"),
        (((0, 1),), "does not number columns"),
        ((), "does not number columns"),
        ((0, 2), r"the numbers are \[0, 2\], but g groups are numbered 0 to g - 1"),
        ((-1, 0), r"the numbers are \[-1, 0\]"),
    ],
)
def test_groups_that_do_not_number_columns_raise(groups, message):
    with pytest.raises(ValueError, match=message):
        Adaptive(groups=groups)


def test_groups_and_columns_of_other_numbers_raise():
    prior = Adaptive(groups=(0, 1))
    with pytest.raises(ValueError, match=r"numbers 2 columns.* shape \(3, 1\): 3"):
        trace(prior, "mu", (3, 1))
    with pytest.raises(ValueError, match="there are no columns to group"):
        trace(prior, "mu", (2,))


def test_groups_are_values():
    assert Adaptive(groups=[0, 1]) == Adaptive(groups=np.array([0, 1]))
    assert hash(Adaptive(groups=[0, 1])) == hash(Adaptive(groups=(0, 1)))
    assert repr(Adaptive(groups=[0, 1])) == "Adaptive(groups=(0, 1))"
    assert Adaptive(groups="column") != Adaptive()
