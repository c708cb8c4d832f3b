"""Priors of areas: their covariances against plain inverses, their densities."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from lamina.dependence import BYM2, CAR, Adjacency
from support import run, shapes, trace

pytestmark = pytest.mark.usefixtures("float64")

# a ring of five areas with a chord, and a pair; the island comes for BYM2
EDGES = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2), (5, 6)]
W = Adjacency.from_edges(EDGES, 7).matrix().toarray()
D = np.diag(W.sum(axis=1))
PARTS = [[0, 1, 2, 3, 4], [5, 6]]
LMBDA, ALPHA, PHI = 1.7, 0.8, 0.3


def covariance(prior, **values):
    """The effects' covariance, from their linear map of standard normal z."""
    known = {f"g.{k}": np.asarray(v) for k, v in values.items()}
    size = shapes(prior, "g", (prior.num_levels, 1), "theta", scale_shape=())["g.z"]

    def effects(z):
        sites = {**known, "g.z": z}
        shape = (prior.num_levels, 1)
        return run(prior, "g", shape, "theta", scale_shape=(), values=sites)[:, 0]

    linear = np.asarray(jax.jacobian(effects)(jnp.zeros(size)))[..., 0]
    return linear @ linear.T


def test_the_proper_autoregression_has_the_inverse_precision():
    found = covariance(CAR(W), lmbda=LMBDA, alpha=ALPHA)
    assert_allclose(found, LMBDA**2 * np.linalg.inv(D - ALPHA * W), rtol=1e-9)


def test_each_area_given_the_others_is_as_the_docstring_says():
    precision = np.linalg.inv(covariance(CAR(W), lmbda=LMBDA, alpha=ALPHA))
    theta = np.random.default_rng(0).normal(size=7)
    neighbours = W.sum(axis=1)
    for i in range(7):
        others = np.delete(np.arange(7), i)
        mean = -precision[i, others] @ theta[others] / precision[i, i]
        assert_allclose(mean, ALPHA / neighbours[i] * W[i] @ theta, rtol=1e-8)
        assert_allclose(precision[i, i] ** -0.5, LMBDA / np.sqrt(neighbours[i]))


@pytest.mark.parametrize("form", [np.asarray, Adjacency.from_matrix])
def test_the_centred_autoregression_has_a_normal_density(form):
    prior = CAR(form(W), centered=True)
    theta = np.random.default_rng(0).normal(size=(7, 1))
    values = {"g.lmbda": LMBDA, "g.alpha": ALPHA, "g.theta": theta}
    sites = trace(prior, "g", (7, 1), "theta", scale_shape=(), values=values)
    assert {k: np.shape(v["value"]) for k, v in sites.items()} == {
        "g.lmbda": (),
        "g.alpha": (),
        "g.theta": (7, 1),
    }
    matrix = LMBDA**2 * np.linalg.inv(D - ALPHA * W)
    expected = stats.multivariate_normal(np.zeros(7), matrix).logpdf(theta[:, 0])
    assert_allclose(sites["g.theta"]["fn"].log_prob(theta), expected, rtol=1e-8)


def test_centred_replicates_are_scored_each_on_their_own():
    theta = np.random.default_rng(0).normal(size=(2, 7, 1))
    lmbda, alpha = np.array([0.5, 2.0]), np.array([0.2, 0.9])

    def model():
        with numpyro.plate("replicates", 2):
            return CAR(W, centered=True)("g", (7, 1), "theta", scale_shape=())

    values = {"g.lmbda": lmbda, "g.alpha": alpha, "g.theta": theta}
    found = trace(model, values=values)["g.theta"]["fn"].log_prob(theta)
    expected = [
        stats.multivariate_normal(np.zeros(7), s**2 * np.linalg.inv(D - a * W)).logpdf(
            t[:, 0]
        )
        for s, a, t in zip(lmbda, alpha, theta, strict=True)
    ]
    assert_allclose(found, expected, rtol=1e-8)


def test_the_intrinsic_autoregression_has_the_generalised_inverse():
    prior = CAR(W, proper=False)
    found = covariance(prior, lmbda=LMBDA)
    assert_allclose(found, LMBDA**2 * np.linalg.pinv(D - W), rtol=1e-8, atol=1e-12)
    for part in PARTS:
        assert_allclose(found[part].sum(axis=0), 0.0, atol=1e-12)
    size = shapes(prior, "g", (7, 1), "theta", scale_shape=())
    assert size == {"g.lmbda": (), "g.z": (5, 1)}


def test_the_proper_autoregression_tends_to_the_intrinsic_one():
    """Differences within a part, which is all that the intrinsic one has a say in."""
    contrast = np.eye(7)[0] - np.eye(7)[3]
    proper = covariance(CAR(W), lmbda=1.0, alpha=1.0 - 1e-7)
    intrinsic = covariance(CAR(W, proper=False), lmbda=1.0)
    assert_allclose(
        contrast @ proper @ contrast, contrast @ intrinsic @ contrast, rtol=1e-5
    )


WITH_ISLAND = np.pad(W, ((0, 1), (0, 1)))


def structured():
    """The scaled covariance: by parts, and 1 for the island."""
    matrix = np.zeros((8, 8))
    for part in PARTS:
        inside = np.ix_(part, part)
        block = np.linalg.pinv(np.diag(W[inside].sum(axis=1)) - W[inside])
        matrix[inside] = block / np.exp(np.log(np.diag(block)).mean())
    matrix[7, 7] = 1.0
    return matrix


@pytest.mark.parametrize("phi", [0.01, PHI, 0.99])
def test_bym2_mixes_a_scaled_and_an_independent_covariance(phi):
    found = covariance(BYM2(WITH_ISLAND), lmbda=LMBDA, phi=phi)
    expected = LMBDA**2 * ((1.0 - phi) * np.eye(8) + phi * structured())
    assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


def test_an_island_has_the_scale_whatever_the_share():
    for phi in (0.1, 0.9):
        found = covariance(BYM2(WITH_ISLAND), lmbda=LMBDA, phi=phi)
        assert_allclose(found[7], LMBDA**2 * np.eye(8)[7], atol=1e-12)


@pytest.mark.parametrize("prior", [CAR(W), CAR(W, proper=False), BYM2(W)])
@pytest.mark.parametrize("m", [1, 3])
def test_columns_are_independent_with_their_own_scales(prior, m):
    """As random slopes by area have them."""
    lmbda = np.arange(1.0, m + 1.0)
    sites = trace(prior, "g", (7, m), "theta", values={"g.lmbda": lmbda})
    z = np.asarray(sites["g.z"]["value"])
    values = {k: v["value"] for k, v in sites.items() if k in ("g.alpha", "g.phi")}
    for j in range(m):
        one = {**values, "g.lmbda": lmbda[j], "g.z": z[:, j : j + 1]}
        alone = run(prior, "g", (7, 1), "theta", scale_shape=(), values=one)
        assert_allclose(sites["g.theta"]["value"][:, j], alone[:, 0], rtol=1e-9)


@pytest.mark.parametrize("options", [{}, {"proper": False}, {"centered": True}])
def test_islands_have_no_autoregression(options):
    with pytest.raises(ValueError, match=r"areas \[7\] have no neighbours.*BYM2Layer"):
        CAR(WITH_ISLAND, **options)


def test_an_intrinsic_density_cannot_be_centred():
    with pytest.raises(ValueError, match="has none: its effects sum to zero"):
        CAR(W, proper=False, centered=True)


@pytest.mark.parametrize("shape", [(6, 1), (7,), (7, 1, 1)])
@pytest.mark.parametrize("prior", [CAR(W), CAR(W, centered=True), BYM2(W)])
def test_other_shapes_raise(prior, shape):
    with pytest.raises(ValueError, match="relates 7 levels to one another"):
        run(prior, "g", shape)


def test_centred_areas_have_one_effect_each():
    with pytest.raises(ValueError, match=r"one effect for each area.*\(7, 2\)"):
        run(CAR(W, centered=True), "g", (7, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CAR(W, alpha_dist=dist.Normal(0.0, 1.0)),
            r"alpha_dist: .* allows -0.5",
        ),
        (
            lambda: CAR(W, alpha_dist=dist.Uniform(0.0, 2.0)),
            r"alpha_dist: .* allows 1.5",
        ),
        (lambda: BYM2(W, phi_dist=dist.Gamma(1.0, 1.0)), r"phi_dist: .* allows 1.5"),
        (lambda: BYM2(W, phi_dist=dist.Beta(np.ones(2), 1.0)), r"shape \(2,\)"),
    ],
)
def test_shares_outside_of_zero_and_one_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_shares_have_the_priors_that_are_given():
    site = trace(CAR(W), "g", (7, 1))["g.alpha"]
    assert_allclose(site["fn"].log_prob(0.3), 0.0, atol=1e-12)
    site = trace(BYM2(W), "g", (7, 1))["g.phi"]
    assert_allclose(site["fn"].log_prob(0.3), stats.beta(0.5, 0.5).logpdf(0.3))
    prior = CAR(
        W,
        alpha_dist=dist.Beta,
        alpha_kwargs={"concentration1": 8.0, "concentration0": 2.0},
    )
    site = trace(prior, "g", (7, 1))["g.alpha"]
    assert_allclose(site["fn"].log_prob(0.3), stats.beta(8.0, 2.0).logpdf(0.3))


def test_priors_are_values():
    assert CAR(W) == CAR(Adjacency.from_edges(EDGES, 7))
    assert hash(BYM2(W)) == hash(BYM2(W.copy()))
    assert CAR(W) != CAR(W, proper=False)
