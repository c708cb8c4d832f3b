"""Which sites hold rows: found without computing, refused where no weight is right."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.primitives import mutable

from infer_helpers import normal_guide, regression, slope
from lamina import row_factor
from lamina.handlers import row_sites, row_weights
from support import trace

N, B = 12, 4  # all rows, and those of a batch


@pytest.fixture(scope="module")
def batch():
    rows, _ = regression(B, d=2)
    return {k: jnp.asarray(v, jnp.float32) for k, v in rows.items()}


def observe(mu, y, name="y"):
    return numpyro.sample(name, dist.Normal(mu, 1.0), obs=y)


def plain(x, y):
    observe(slope(x), y)


def to_event(x, y):
    numpyro.sample("y", dist.Normal(slope(x)[:, None], 1.0).to_event(1), obs=y[:, None])


def event_of_rows(x, y):
    numpyro.sample("y", dist.Normal(slope(x), 1.0).to_event(1), obs=y)


def full_plate(x, y):
    mu = slope(x)
    with numpyro.plate("rows", len(x)):
        observe(mu, y)


def two_plates(x, y):
    mu = slope(x)
    with numpyro.plate("units", 2, dim=-2), numpyro.plate("rows", len(x), dim=-1):
        observe(jnp.stack([mu, -mu]), jnp.stack([y, -y]))


def subsampled_plate(x, y):
    mu = slope(x)
    with numpyro.plate("rows", N, subsample_size=len(x)):
        observe(mu, y)


def subsampled_units(x, y):
    """The plate scales its units, which are not rows."""
    mu = slope(x)
    with numpyro.plate("units", 10, subsample_size=2, dim=-2):
        with numpyro.plate("rows", len(x), dim=-1):
            observe(jnp.stack([mu, -mu]), jnp.stack([y, -y]))


def scaled(x, y):
    mu = slope(x)
    with handlers.scale(scale=2.0):
        observe(mu, y)


def masked(x, y):
    mu = slope(x)
    with handlers.mask(mask=y > 0):
        observe(mu, y)


def scoped(x, y):
    with handlers.scope(prefix="out", divider="."):
        observe(slope(x), y)


def parameter(x, y):
    scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
    numpyro.sample("y", dist.Normal(slope(x), scale), obs=y)


def parameter_from_rows(x, y):
    """A starting value is no part of the density."""
    observe(slope(x) + numpyro.param("c", y.mean()), y)


def prior_factor(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.factor("near_zero", -(b.sum() ** 2))
    observe(x @ b, y)


def factor_of_rows(x, y):
    row_factor("y", dist.Normal(slope(x), 1.0).log_prob(y))


def pilot_datum(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("pilot", dist.Normal(b, 0.5).to_event(1), obs=jnp.ones(2))
    observe(x @ b, y)


def one_mean(x, y):
    observe(numpyro.sample("mean", dist.Normal(0.0, 1.0)), y)


def no_latent(x, y):
    observe(0.0, y)


def flattened(x, y):
    mu = slope(x)
    observe(jnp.stack([mu, mu], 1).reshape(-1), jnp.stack([y, y], 1).reshape(-1))


def vector_outcome(x, y):
    mu = jnp.stack([slope(x), jnp.zeros(len(x))], 1)
    numpyro.sample("y", dist.MultivariateNormal(mu, jnp.eye(2)), obs=mu)


def deterministic(x, y):
    observe(numpyro.deterministic("mu", slope(x)), y)


def row_latents(x, y):
    z = numpyro.sample("z", dist.Normal(slope(x), 1.0))
    observe(z, y)


@pytest.mark.parametrize(
    "model",
    [
        plain,
        to_event,
        event_of_rows,
        full_plate,
        two_plates,
        subsampled_units,
        scaled,
        masked,
        parameter,
        parameter_from_rows,
        prior_factor,
        factor_of_rows,
        pilot_datum,
        one_mean,
        no_latent,
        flattened,
        vector_outcome,
        deterministic,
    ],
)
def test_only_the_outcome_holds_rows(model, batch):
    assert row_sites(model, batch) == {"y": "observed"}


def test_a_scope_renames_the_row_site(batch):
    assert row_sites(scoped, batch) == {"out.y": "observed"}


def test_sites_of_a_plate_over_the_batch_are_scaled_by_it(batch):
    assert row_sites(subsampled_plate, batch) == {}


def test_a_row_factor_in_such_a_plate_is_not_weighted_twice(batch):
    def model(x, y):
        mu = slope(x)
        with numpyro.plate("rows", N, subsample_size=len(x)):
            row_factor("y", dist.Normal(mu, 1.0).log_prob(y))

    assert row_sites(model, batch) == {}


def test_latent_rows_of_model_and_guide(batch):
    def guide(x, y):
        normal_guide("b", (2,))
        loc = x @ numpyro.param("a", jnp.ones(2))
        numpyro.sample("z", dist.Normal(loc, 0.1))

    assert row_sites(row_latents, batch) == {"z": "latent", "y": "observed"}
    assert row_sites(guide, batch) == {"z": "latent"}


def test_one_row_is_an_ordinary_batch(batch):
    one = {k: v[:1] for k, v in batch.items()}
    assert row_sites(full_plate, one) == {"y": "observed"}
    assert row_sites(subsampled_plate, one) == {}


def test_constants_are_no_rows(batch):
    def model(x, y, table, form):
        assert form == "table"
        observe(slope(x) + table.sum(), y)

    constants = {"table": np.ones(B), "form": "table"}
    assert row_sites(model, batch, constants) == {"y": "observed"}


def test_shapes_are_enough_and_nothing_is_computed():
    rows = {
        "x": jax.ShapeDtypeStruct((10**12, 2), np.float32),
        "y": jax.ShapeDtypeStruct((10**12,), np.float32),
    }
    assert row_sites(full_plate, rows) == {"y": "observed"}
    assert row_sites(row_latents, rows) == {"z": "latent", "y": "observed"}


def test_no_size_past_the_data_is_tried(batch):
    """A plate of 6 rows cannot hold 8: the trial goes down to 2."""

    def model(x, y):
        mu = slope(x)
        with numpyro.plate("rows", 6, subsample_size=len(x)):
            observe(mu, y)

    assert row_sites(model, batch, num_obs=6) == {}


# --- warnings: left alone, and said so ---------------------------------------------


def warned(model, batch):
    with pytest.warns(UserWarning, match="rows of the batch") as caught:
        sites = row_sites(model, batch)
    return sites, [str(w.message) for w in caught]


def test_a_factor_that_reads_rows_is_left_alone_with_a_warning(batch):
    def model(x, y):
        numpyro.factor("likelihood", dist.Normal(slope(x), 1.0).log_prob(y).sum())

    sites, messages = warned(model, batch)
    assert sites == {}
    assert len(messages) == 1
    assert "'likelihood' reads the rows" in messages[0]
    assert "row_factor" in messages[0]


def test_a_factor_that_reads_row_latents_is_warned_about(batch):
    def model(x, y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]))
        numpyro.factor("penalty", -jnp.sum(z**4))
        observe(z, y)

    sites, messages = warned(model, batch)
    assert sites == {"z": "latent", "y": "observed"}
    assert len(messages) == 1
    assert "'penalty' reads the rows" in messages[0]


def prior_from_rows(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, x.std()).expand([2]).to_event(1))
    observe(x @ b, y)


def observed_total(x, y):
    mu = slope(x)
    numpyro.sample("total", dist.Normal(mu.sum(), 1.0), obs=y.sum())
    observe(mu, y)


@pytest.mark.parametrize(
    ("model", "name"), [(prior_from_rows, "b"), (observed_total, "total")]
)
def test_a_site_that_sums_up_the_batch_is_warned_about(model, name, batch):
    """Its density would be the batch's in place of the data's."""
    sites, messages = warned(model, batch)
    assert sites == {"y": "observed"}
    assert len(messages) == 1
    assert f"{name!r} has no entry for each row" in messages[0]
    assert "pass that as a constant" in messages[0]


# --- refusals ----------------------------------------------------------------------


def row_parameter(x, y):
    observe(slope(x) + numpyro.param("offset", jnp.zeros(len(x))), y)


def joint(x, y):
    cov = jnp.eye(len(x)) + 0.1
    numpyro.sample("y", dist.MultivariateNormal(slope(x), cov), obs=y)


def pairwise(x, y):
    mu = slope(x)
    observe(mu[:, None] - mu[None, :], y[:, None] - y[None, :], "pairs")


def differences(x, y):
    observe(jnp.diff(slope(x)), jnp.diff(y), "steps")


def indexed(x, y):
    mu = slope(x)
    with numpyro.plate("rows", N, subsample_size=len(x)) as index:
        observe(mu[index], y[index])


def indexed_at_fixed_size(x, y):
    mu = slope(x)
    with numpyro.plate("rows", N, subsample_size=2) as index:
        observe(mu[index], y[index])


def indexed_table(x, y):
    """A table of all rows' prior means, read at the plate's own indices."""
    with numpyro.plate("rows", N, subsample_size=len(x)) as index:
        z = numpyro.sample("z", dist.Normal(jnp.arange(float(N))[index], 1.0))
        observe(z, y)


def one_size(x, y):
    observe(slope(x) + jnp.zeros(B), y)


def fixed_plate(x, y):
    mu = slope(x)
    with numpyro.plate("rows", B):
        observe(mu, y)


@pytest.mark.parametrize(
    ("model", "seen"),
    [
        (row_parameter, r"parameter 'offset' has shape \(4,\), a value for each row"),
        (joint, r"site 'y' is one joint MultivariateNormal over all 4 rows"),
        (pairwise, r"site 'pairs' has shape \(4, 4\) at 4 rows: it sets rows against"),
        (differences, r"'steps' has 3 entries at 4 rows and 7 at 8: not the same"),
        (indexed, r"site 'y' picks rows by the indices of its subsampled plate"),
        (indexed_at_fixed_size, r"site 'y' picks rows by the indices"),
        (indexed_table, r"site 'z' picks rows by the indices"),
        (one_size, r"runs with 4 rows but not with \[8, 2\].*The model said"),
        (fixed_plate, r"runs with 4 rows but not with \[8, 2\].*x\.shape\[0\]"),
    ],
)
def test_what_no_weight_can_make_right_is_refused(model, seen, batch):
    with pytest.raises(ValueError, match=seen):
        row_sites(model, batch)


def test_a_plate_of_another_size_than_the_data_is_refused(batch):
    with pytest.raises(
        ValueError, match=r"'rows' holds 4 of 12 entries.*weigh 3 instead"
    ):
        row_sites(subsampled_plate, batch, num_obs=20)

    def two_to_a_row(x, y):
        mu = slope(x)
        with numpyro.plate("entries", 2 * N, subsample_size=2 * len(x)):
            observe(jnp.concatenate([mu, mu]), jnp.concatenate([y, y]))

    assert row_sites(two_to_a_row, batch, num_obs=N) == {}


@pytest.mark.parametrize(
    ("rows", "seen"),
    [
        ({}, "no argument holds rows"),
        (
            {"x": np.ones((4, 2)), "y": np.ones(5)},
            "different lengths: {'x': 4, 'y': 5}",
        ),
    ],
)
def test_rows_are_of_one_length(rows, seen):
    with pytest.raises(ValueError, match=seen):
        row_sites(plain, rows)


# --- the handler -------------------------------------------------------------------


def test_weights_come_on_top_of_scales_masks_and_plates(batch):
    def model(x, y):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with handlers.scale(scale=3.0), handlers.mask(mask=y > 0):
            with numpyro.plate("units", 10, subsample_size=5, dim=-2):
                observe(jnp.broadcast_to(x @ b, (5, len(x))), y)

    sites = trace(row_weights(model, weight=4.0, sites=frozenset({"y"})), **batch)
    assert sites["y"]["scale"] == 3.0 * (10 / 5) * 4.0
    assert sites["b"]["scale"] is None
    wanted = dist.Normal(batch["x"] @ sites["b"]["value"], 1.0).log_prob(batch["y"])
    wanted = jnp.where(batch["y"] > 0, wanted, 0.0)
    got = sites["y"]["fn"].log_prob(sites["y"]["value"])
    assert_allclose(got, jnp.broadcast_to(wanted, (5, B)), rtol=1e-6)


def test_tracing_leaves_no_trace(batch):
    """Sites, keys and mutable state of a run are as if nothing had looked."""

    def model(x, y):
        count = mutable("count", {"value": 0})
        count["value"] = count["value"] + 1
        observe(slope(x), y)

    with handlers.trace() as sites, handlers.seed(rng_seed=0):
        first = numpyro.prng_key()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            row_sites(model, batch)
        second = numpyro.prng_key()
    with handlers.seed(rng_seed=0):
        alone = [numpyro.prng_key(), numpyro.prng_key()]
    assert dict(sites) == {}
    assert (jnp.stack([first, second]) == jnp.stack(alone)).all()
