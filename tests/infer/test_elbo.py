"""Minibatch gradients are unbiased, exactly: with one guide noise, in double precision."""

import functools
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer import (
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceMeanField_ELBO,
    autoguide,
    init_to_value,
)
from numpyro.infer.elbo import ELBO
from numpyro.primitives import mutable

from infer_helpers import (
    GivenNoise,
    in_batches,
    largest_error,
    normal_guide,
    regression,
    slope,
)
from lamina import row_factor
from lamina.handlers import row_sites, row_weights
from lamina.infer import Batched_Trace_ELBO, OrderedTrace_ELBO, svi_run_batched
from lamina.infer.arguments import split_arguments

pytestmark = pytest.mark.usefixtures("float64")

N, B = 24, 6


@pytest.fixture(scope="module")
def rows(float64):
    """Rows, their own scale, mask and noise."""
    made, _ = regression(N)
    rng = np.random.default_rng(1)
    made["weight"] = rng.uniform(0.5, 2.0, N)
    made["keep"] = rng.random(N) < 0.7
    made["noise"] = rng.normal(size=N)
    return {k: jnp.asarray(v) for k, v in made.items()}


# --- models ------------------------------------------------------------------------


def coefficients():
    """Coefficients under a learned scale, so that latent sites depend on each other."""
    tau = numpyro.sample("tau", dist.LogNormal(0.0, 0.5))
    return numpyro.sample("b", dist.Normal(0.0, tau).expand([3]).to_event(1))


def outcome(mu, y, name="y"):
    numpyro.sample(name, dist.Normal(mu, 0.5), obs=y)


def plain(x, y, **_):
    outcome(x @ coefficients(), y)


def event(x, y, **_):
    mu = x @ coefficients()
    numpyro.sample("y", dist.Normal(mu[:, None], 0.5).to_event(1), obs=y[:, None])


def plate(x, y, **_):
    mu = x @ coefficients()
    with numpyro.plate("rows", len(x)):
        outcome(mu, y)


def plates(x, y, **_):
    mu = x @ coefficients()
    with numpyro.plate("units", 2, dim=-2), numpyro.plate("rows", len(x), dim=-1):
        outcome(jnp.stack([mu, -mu]), jnp.stack([y, -y]))


def subsampled_plate(x, y, **_):
    mu = x @ coefficients()
    with numpyro.plate("rows", N, subsample_size=len(x)):
        outcome(mu, y)


def scale(x, y, weight, **_):
    mu = x @ coefficients()
    with handlers.scale(scale=weight):
        outcome(mu, y)


def mask(x, y, keep, **_):
    mu = x @ coefficients()
    with handlers.mask(mask=keep):
        outcome(mu, y)


def everything_around(x, y, weight, keep, **_):
    mu = x @ coefficients()
    with handlers.scope(prefix="out", divider="."), handlers.scale(scale=weight):
        with handlers.mask(mask=keep), numpyro.plate("rows", len(x)):
            outcome(mu, y)


def factor(x, y, **_):
    b = coefficients()
    numpyro.factor("sum_to_zero", -0.5 * (b.sum() / 0.1) ** 2)
    outcome(x @ b, y)


def factor_of_rows(x, y, **_):
    row_factor("y", dist.Normal(x @ coefficients(), 0.5).log_prob(y).sum(keepdims=True))


def global_observation(x, y, **_):
    b = coefficients()
    numpyro.sample("pilot", dist.Normal(b, 0.2).to_event(1), obs=jnp.full(3, 0.7))
    outcome(x @ b, y)


def parameter(x, y, **_):
    sigma = numpyro.param("sigma", 0.7, constraint=constraints.positive)
    numpyro.sample("y", dist.Normal(x @ coefficients(), sigma), obs=y)


def two_outcomes(x, y, **_):
    b = coefficients()
    outcome(x @ b, y, "a")
    numpyro.sample("b2", dist.Poisson(jnp.exp(x @ b)), obs=jnp.round(jnp.abs(y)))


def amortised_rows(x, y, noise):
    z = numpyro.sample("z", dist.Normal(x @ coefficients(), 1.0))
    outcome(z, y)


def amortised_plate(x, y, noise):
    mu = x @ coefficients()
    with numpyro.plate("rows", len(x)):
        outcome(numpyro.sample("z", dist.Normal(mu, 1.0)), y)


def amortised_subsampled_plate(x, y, noise):
    mu = x @ coefficients()
    with numpyro.plate("rows", N, subsample_size=len(x)):
        outcome(numpyro.sample("z", dist.Normal(mu, 1.0)), y)


AMORTISED = [amortised_rows, amortised_plate, amortised_subsampled_plate]
MODELS = [
    plain,
    event,
    plate,
    plates,
    subsampled_plate,
    scale,
    mask,
    everything_around,
    factor,
    factor_of_rows,
    global_observation,
    parameter,
    two_outcomes,
    *AMORTISED,
]


def guide_for(model):
    """A hand-written guide; row latents are drawn from the noise among the data."""

    def guide(x, y, noise=None, **_):
        loc = numpyro.param("tau.loc", jnp.array(-0.3))
        spread = numpyro.param(
            "tau.scale", jnp.array(0.2), constraint=constraints.positive
        )
        numpyro.sample("tau", dist.LogNormal(loc, spread))
        normal_guide("b", (3,))
        if model not in AMORTISED:
            return
        loc = 0.3 * y + x @ numpyro.param("z.slope", jnp.full(3, 0.2))
        spread = jnp.exp(numpyro.param("z.log_scale", jnp.array(-0.5)) + 0.1 * x[:, 0])
        if model is amortised_subsampled_plate:
            with numpyro.plate("rows", N, subsample_size=len(x)):
                numpyro.sample("z", GivenNoise(loc, spread, noise))
        else:
            numpyro.sample("z", GivenNoise(loc, spread, noise))

    return guide


def arguments(model, rows):
    """The rows that a model takes."""
    return {k: rows[k] for k in ("x", "y", "noise")} if model in AMORTISED else rows


# --- objectives --------------------------------------------------------------------


class Weighed(ELBO):
    """Any ELBO of NumPyro's, its model and guide under `row_weights`."""

    def __init__(self, loss):
        super().__init__()
        self.inner = loss

    def loss(self, key, params, model, guide, **rows):
        sites = frozenset(row_sites(model, rows)) | frozenset(row_sites(guide, rows))
        weigh = functools.partial(row_weights, weight=N / len(rows["x"]), sites=sites)
        return self.inner.loss(key, params, weigh(model), weigh(guide), **rows)


def gradient_of(svi, loss, key):
    """The gradient of a loss in the unconstrained parameters, given some rows."""

    def value(params, rows):
        constrained = svi.constrain_fn(params)
        return loss.loss(key, constrained, svi.model, svi.guide, **rows)

    return jax.grad(value)


def unbiasedness(model, guide, rows, loss, reference, *, size=B):
    """How far the mean gradient of a partition is from the gradient of all rows."""
    svi = SVI(model, guide, optax.sgd(0.1), reference)
    params = svi.optim.get_params(svi.init(jax.random.key(0), **rows).optim_state)
    key = jax.random.key(1)

    @jax.jit
    def both(params, rows, batches):
        full = gradient_of(svi, reference, key)(params, rows)
        part = gradient_of(svi, loss, key)
        parts = jax.vmap(lambda batch: part(params, batch))(batches)
        return full, jax.tree.map(lambda g: g.mean(0), parts)

    full, mean = both(params, rows, in_batches(rows, size))
    return largest_error(mean, full)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@pytest.mark.parametrize(
    ("loss", "reference"),
    [
        (Batched_Trace_ELBO(N), Trace_ELBO()),
        pytest.param(
            Weighed(TraceMeanField_ELBO()),
            TraceMeanField_ELBO(),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["trace", "mean_field"],
)
def test_the_mean_over_a_partition_is_the_full_gradient(model, loss, reference, rows):
    rows = arguments(model, rows)
    error = unbiasedness(model, guide_for(model), rows, loss, reference)
    assert error < 1e-10


@pytest.mark.parametrize(
    "model", [everything_around, subsampled_plate, factor, amortised_plate]
)
def test_row_weights_do_the_same_for_numpyros_own_elbo(model, rows):
    rows, loss = arguments(model, rows), Weighed(Trace_ELBO())
    error = unbiasedness(model, guide_for(model), rows, loss, Trace_ELBO())
    assert error < 1e-10


@pytest.mark.parametrize("model", [plate, amortised_rows])
def test_without_weights_it_is_not(model, rows):
    """The test above can fail."""
    rows, loss = arguments(model, rows), Trace_ELBO()
    assert unbiasedness(model, guide_for(model), rows, loss, loss) > 0.1


@pytest.mark.parametrize("model", [factor, global_observation, plain])
def test_nor_with_everything_but_latent_sites_weighed(model, rows):
    """What a library does that scales all observed sites: right for `plain` alone."""

    class ScalesObserved(Trace_ELBO):
        def loss_with_mutable_state(self, key, params, model, guide, **rows):
            def observed(message):
                return None if not message.get("is_observed") else N / len(rows["x"])

            class scale_observed(handlers.scale):
                def process_message(self, message):
                    self.scale = observed(message)
                    if self.scale is not None:
                        super().process_message(message)

            wrapped = scale_observed(model, scale=1.0)
            return super().loss_with_mutable_state(key, params, wrapped, guide, **rows)

    error = unbiasedness(model, guide_for(model), rows, ScalesObserved(), Trace_ELBO())
    assert error < 1e-10 if model is plain else error > 0.05


@pytest.mark.parametrize(
    ("guide", "particles"),
    [
        (autoguide.AutoNormal, 4),
        (autoguide.AutoMultivariateNormal, 1),
        (functools.partial(autoguide.AutoLowRankMultivariateNormal, rank=2), 4),
        (functools.partial(autoguide.AutoIAFNormal, hidden_dims=[4]), 1),
    ],
    ids=["normal", "multivariate", "low_rank", "flow"],
)
def test_any_guide_and_number_of_particles(guide, particles, rows):
    guide = guide(parameter, init_loc_fn=init_to_value(values={"b": jnp.zeros(3)}))
    loss = Batched_Trace_ELBO(N, num_particles=particles)
    error = unbiasedness(parameter, guide, rows, loss, Trace_ELBO(particles))
    assert error < 1e-10


@pytest.mark.parametrize("size", [1, N])
def test_a_batch_of_any_size_is_weighed_by_its_own(size, rows):
    loss = Batched_Trace_ELBO(N)
    error = unbiasedness(plate, guide_for(plate), rows, loss, Trace_ELBO(), size=size)
    assert error < 1e-10


@pytest.mark.parametrize(
    ("loss", "reference"),
    [
        (Batched_Trace_ELBO(N, num_particles=2), Trace_ELBO(2)),
        (Weighed(TraceMeanField_ELBO(2)), TraceMeanField_ELBO(2)),
    ],
    ids=["batched", "mean_field"],
)
def test_a_ragged_partition_by_its_mean_over_rows(loss, reference, rows):
    """10, 10 and 4 of 24 rows; the plain mean over batches is off."""
    svi = SVI(plate, guide_for(plate), optax.sgd(0.1), reference)
    params = svi.optim.get_params(svi.init(jax.random.key(0), **rows).optim_state)
    key = jax.random.key(1)
    full = jax.jit(gradient_of(svi, reference, key))(params, rows)
    part = jax.jit(gradient_of(svi, loss, key))
    cuts = [(0, 10), (10, 20), (20, 24)]
    parts = [part(params, {k: v[i:j] for k, v in rows.items()}) for i, j in cuts]

    def mean(weights):
        return jax.tree.map(
            lambda *g: sum(w * v for w, v in zip(weights, g, strict=True)), *parts
        )

    assert largest_error(mean([(j - i) / N for i, j in cuts]), full) < 1e-10
    assert largest_error(mean([1 / 3] * 3), full) > 0.01


# --- the ordered ELBO --------------------------------------------------------------


def evaluate(loss, model, guide, *args, **kwargs):
    """A loss at the parameters' first values."""
    return loss.loss(jax.random.key(0), {}, model, guide, *args, **kwargs)


def losses_and_gradients(model, guide, rows, *objectives):
    svi = SVI(model, guide, optax.sgd(0.1), Trace_ELBO())
    params = svi.optim.get_params(svi.init(jax.random.key(0), **rows).optim_state)

    def value(objective, params):
        constrained = svi.constrain_fn(params)
        return objective.loss(jax.random.key(2), constrained, model, guide, **rows)

    return [
        jax.jit(jax.value_and_grad(functools.partial(value, objective)))(params)
        for objective in objectives
    ]


@pytest.mark.parametrize(
    ("model", "particles", "vectorize"),
    [
        (everything_around, 1, True),
        (everything_around, 3, True),
        (amortised_rows, 3, False),
    ],
)
def test_the_ordered_elbo_is_numpyros(model, particles, vectorize, rows):
    rows = arguments(model, rows)
    (loss, gradient), (other, wanted) = losses_and_gradients(
        model,
        guide_for(model),
        rows,
        OrderedTrace_ELBO(particles, vectorize),
        Trace_ELBO(particles, vectorize),
    )
    assert_allclose(loss, other, rtol=1e-13)
    assert largest_error(gradient, wanted) < 1e-12


def test_the_ordered_elbo_has_numpyros_other_forms(rows):
    guide = guide_for(plain)
    by_site, wanted = (
        evaluate(kind(sum_sites=False), plain, guide, **rows)
        for kind in (OrderedTrace_ELBO, Trace_ELBO)
    )
    assert set(by_site) == {"tau", "b", "y"}
    assert by_site == wanted


def test_model_and_guide_that_do_not_match_are_told(rows):
    def guide(x, y, **_):
        guide_for(plain)(x, y)
        normal_guide("stray", ())

    with pytest.warns(UserWarning, match="stray"):
        evaluate(OrderedTrace_ELBO(), plain, guide, **rows)


PROGRAM = """
    import hashlib
    import jax, numpyro, numpyro.distributions as dist, optax
    import jax.numpy as jnp
    from numpyro.infer import SVI
    from numpyro.infer.autoguide import AutoNormal
    from lamina.infer import OrderedTrace_ELBO

    def model(x, y):
        mu = sum(numpyro.sample(f"b{i}", dist.Normal(0.0, 1.0)) * x for i in range(8))
        numpyro.sample("obs", dist.Normal(mu, numpyro.sample("s", dist.LogNormal())), obs=y)

    x = jnp.arange(5.0)
    svi = SVI(model, AutoNormal(model), optax.adam(0.1), OrderedTrace_ELBO())
    state = svi.init(jax.random.key(0), x, 2 * x)
    program = jax.jit(svi.update).lower(state, x, 2 * x).as_text()
    state, loss = svi.update(state, x, 2 * x)
    print(hashlib.sha256(program.encode()).hexdigest(), float(loss).hex())
    print([*{f"b{i}" for i in range(8)}])
"""


@pytest.mark.slow
def test_the_program_does_not_depend_on_the_hash_seed():
    """Its text, by which a compilation cache finds it, and its loss to the last digit."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    (first, order), (second, other) = (
        run.communicate()[0].splitlines() for run in runs
    )
    assert order != other, "sets iterate in different orders, so the test can fail"
    assert first == second


# --- the batched ELBO's arguments --------------------------------------------------


def test_all_rows_need_no_weight(rows):
    (batched, _), (plain_loss, _) = losses_and_gradients(
        plate, guide_for(plate), rows, Batched_Trace_ELBO(N), Trace_ELBO()
    )
    assert_allclose(batched, plain_loss, rtol=1e-13)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, None, "10"])
@pytest.mark.parametrize("size", ["num_obs", "num_particles", "batch_size"])
def test_sizes_are_whole_numbers(size, wrong):
    if size == "batch_size" and wrong is None:
        return
    with pytest.raises(
        ValueError, match=f"`{size}` is {wrong!r}, but a size is a whole"
    ):
        Batched_Trace_ELBO(**{"num_obs": 10, size: wrong})


def test_a_batch_larger_than_the_data_is_refused(rows):
    with pytest.raises(ValueError, match="batch has 24 rows, more than the num_obs=20"):
        evaluate(Batched_Trace_ELBO(20), plain, guide_for(plain), **rows)


def test_rows_may_be_positional_or_nested():
    rows, _ = regression(N)

    def nested(data, power):
        outcome(data["x"] ** power @ coefficients(), data["y"])

    def guide(*args, **kwargs):
        normal = guide_for(plain)
        normal(None, None)

    batch = {k: jnp.asarray(v[:B]) for k, v in rows.items()}
    loss, flat = Batched_Trace_ELBO(N), Trace_ELBO()
    got = evaluate(loss, nested, guide, batch, 1)
    wanted = evaluate(loss, plain, guide_for(plain), batch["x"], batch["y"])
    assert_allclose(got, wanted, rtol=1e-6)
    assert abs(got - evaluate(flat, nested, guide, batch, 1)) > 1.0


def test_split_arguments_reads_lengths():
    x, w, name = np.ones((4, 2)), np.ones(7), "form"
    (found,) = split_arguments((x,), {"name": name, "flag": True}).rows.values()
    assert found is x
    (found,) = split_arguments((x, w), {}, batch_size=4).rows.values()
    assert found is x
    (found,) = split_arguments((x, w), {}, batch_size=100, num_obs=7).rows.values()
    assert found is w


@pytest.mark.parametrize(
    ("args", "options", "seen"),
    [
        ((3, "form"), {}, "no argument has rows"),
        ((np.ones(4), np.ones(7)), {}, r"leading lengths are \[4, 7\].*batch_size="),
        ((np.ones(4), np.ones(7)), {"batch_size": 5}, r"lengths are \[4, 7\]"),
        # a constant of as many entries as the data have rows is no batch of all rows
        ((np.ones(4), np.ones(7)), {"num_obs": 7}, r"lengths are \[4, 7\]"),
    ],
)
def test_it_refuses_to_guess(args, options, seen):
    with pytest.raises(ValueError, match=seen):
        split_arguments(args, {}, **options)


# --- what no weight makes right ----------------------------------------------------


def row_latents(x, y):
    outcome(numpyro.sample("z", dist.Normal(slope(x), 1.0)), y)


def plated_latents(x, y):
    mu = slope(x)
    with numpyro.plate("rows", N, subsample_size=len(x)):
        outcome(numpyro.sample("z", dist.Normal(mu, 1.0)), y)


@pytest.mark.parametrize("model", [row_latents, plated_latents])
@pytest.mark.parametrize("loss", [Trace_ELBO(), Batched_Trace_ELBO(N)])
def test_row_latents_need_an_amortised_guide(model, loss):
    """In a plate as well: its indices are not those of the rows in the batch."""
    rows, _ = regression(N)
    svi = SVI(model, autoguide.AutoNormal(model), optax.adam(0.1), loss)
    with pytest.raises(
        ValueError, match=r"\['z'\]: latent values for each row.*amortise"
    ):
        svi_run_batched(svi, 0, 10, B, **rows)
    fewer = {k: jnp.asarray(v[:B]) for k, v in rows.items()}
    state = svi.init(jax.random.key(0), **fewer)
    if loss.__class__ is Batched_Trace_ELBO:
        with pytest.raises(ValueError, match=r"\['z'\]: latent values for each row"):
            jax.jit(svi.update)(state, **fewer)


def test_a_guide_with_a_parameter_for_each_row_is_no_amortised_one():
    def guide(x, y):
        normal_guide("b", (3,))
        loc = numpyro.param("z.loc", jnp.zeros(len(x)))
        numpyro.sample("z", dist.Normal(loc, 1.0))

    def by_index(x, y):
        normal_guide("b", (3,))
        with numpyro.plate("rows", N, subsample_size=len(x)) as index:
            loc = numpyro.param("z.loc", jnp.zeros(N))[index]
            numpyro.sample("z", dist.Normal(loc, 1.0))

    rows, _ = regression(N)
    for model, wrong, seen in (
        (row_latents, guide, "'z.loc' has shape .* a value for each row"),
        (plated_latents, by_index, "'z' picks rows by the indices"),
    ):
        svi = SVI(model, wrong, optax.adam(0.1), Trace_ELBO())
        with pytest.raises(ValueError, match=seen):
            svi_run_batched(svi, 0, 10, B, **rows)


def test_all_rows_may_have_latent_values():
    rows, _ = regression(N)
    svi = SVI(
        row_latents, autoguide.AutoNormal(row_latents), optax.adam(0.1), Trace_ELBO()
    )
    assert np.isfinite(svi_run_batched(svi, 0, 5, N, **rows).losses).all()


def small_guide(x, y):
    normal_guide("b", (3,))


def linear(x, y):
    outcome(slope(x), y)


def test_a_renyi_bound_is_refused_in_minibatches_and_taken_with_all_rows():
    rows, _ = regression(N)
    svi = SVI(linear, small_guide, optax.adam(0.1), RenyiELBO(0.0, 4))
    with pytest.raises(ValueError, match="RenyiELBO is biased in minibatches"):
        svi_run_batched(svi, 0, 5, N - 1, **rows)
    for size in (N, N + 1):
        assert np.isfinite(svi_run_batched(svi, 0, 5, size, **rows).losses).all()


def test_weights_of_your_own_do_not_make_it_right():
    rows, _ = regression(N)
    weighed = row_weights(linear, weight=4.0, sites=frozenset({"y"}))
    svi = SVI(weighed, small_guide, optax.adam(0.1), RenyiELBO(0.0, 4))
    with pytest.raises(ValueError, match="RenyiELBO is biased"):
        svi_run_batched(svi, 0, 5, B, **rows)


# --- weighted once, whoever does it ------------------------------------------------

SAME = {"x": np.ones((N, 1)), "y": np.full(N, 0.4)}


def one_slope(x, y):
    outcome(slope(x), y)


def point_guide(x, y):
    numpyro.sample(
        "b", dist.Delta(numpyro.param("b.loc", jnp.array([0.9])), event_dim=1)
    )


def known_loss():
    """Rows all alike: any batch of any size stands for all N, in closed form."""
    from scipy import stats

    likelihood = N * stats.norm.logpdf(0.4, 0.9, 0.5)
    return -(likelihood + stats.norm.logpdf(0.9))


@pytest.mark.parametrize(
    "loss",
    [
        Trace_ELBO(),
        OrderedTrace_ELBO(),
        TraceMeanField_ELBO(),
        Batched_Trace_ELBO(N),
        Batched_Trace_ELBO(N, batch_size=5),
        Batched_Trace_ELBO(N, num_particles=3),
    ],
    ids=["trace", "ordered", "mean_field", "batched", "with_batch_size", "particles"],
)
@pytest.mark.parametrize("size", [1, 5, N + 1])
def test_the_loop_weighs_rows_exactly_once(loss, size):
    svi = SVI(one_slope, point_guide, optax.sgd(0.0), loss)
    result = svi_run_batched(svi, 0, 3, size, **SAME)
    assert_allclose(result.losses, known_loss(), rtol=1e-5)


@pytest.mark.parametrize(
    "around", [lambda fn: fn, lambda fn: handlers.scope(fn, prefix="s")]
)
def test_the_loop_leaves_weights_of_your_own(around):
    site = "s/y" if isinstance(around(one_slope), handlers.scope) else "y"
    weighed = around(row_weights(one_slope, weight=N / 5, sites=frozenset({"y", site})))
    svi = SVI(weighed, around(point_guide), optax.sgd(0.0), Trace_ELBO())
    result = svi_run_batched(svi, 0, 3, 5, **SAME)
    assert_allclose(result.losses, known_loss(), rtol=1e-5)


def test_constants_as_long_as_a_batch_or_as_the_data_are_no_rows():
    def model(x, y, a, b):
        outcome(slope(x) + 0.0 * (a.sum() + b.sum()), y)

    def guide(a, b, **rows):
        point_guide(**rows)

    for loss in (Trace_ELBO(), Batched_Trace_ELBO(N)):
        svi = SVI(model, guide, optax.sgd(0.0), loss)
        constants = {"a": np.ones(5), "b": np.ones(N)}
        result = svi_run_batched(svi, 0, 3, 5, constants=constants, **SAME)
        assert_allclose(result.losses, known_loss(), rtol=1e-5)


def test_a_loss_made_for_other_data_is_refused():
    svi = SVI(one_slope, point_guide, optax.sgd(0.0), Batched_Trace_ELBO(100))
    with pytest.raises(
        ValueError, match=r"num_obs=100, but the data have 24 rows.*4\.17"
    ):
        svi_run_batched(svi, 0, 3, 5, **SAME)


def test_a_model_with_parameters_trains_in_minibatches():
    """Maximum likelihood by `numpyro.param`: least squares, in closed form."""
    rows, _ = regression(200, seed=4)

    def model(x, y):
        b = numpyro.param("b", jnp.zeros(3))
        sigma = numpyro.param("sigma", 1.0, constraint=constraints.positive)
        numpyro.sample("y", dist.Normal(x @ b, sigma), obs=y)

    rate = optax.exponential_decay(0.05, 500, 0.3)
    svi = SVI(model, lambda x, y: None, optax.adam(rate), Trace_ELBO())
    params = svi_run_batched(svi, 0, 3000, 50, **rows).params
    b, squares, *_ = np.linalg.lstsq(rows["x"], rows["y"])
    assert_allclose(params["b"], b, atol=0.003)
    assert_allclose(params["sigma"], np.sqrt(squares[0] / 200), rtol=0.01)


def test_mutable_state_comes_back(rows):
    def counting(x, y, **_):
        counter = mutable("counter", {"steps": jnp.array(0)})
        counter["steps"] = counter["steps"] + 1
        plain(x, y)

    guide = guide_for(plain)
    svi = SVI(counting, guide, optax.sgd(0.1), OrderedTrace_ELBO())
    state = svi.init(jax.random.key(0), **rows)
    wanted = SVI(counting, guide, optax.sgd(0.1), Trace_ELBO())
    wanted.init(jax.random.key(0), **rows)
    start = state
    for _ in range(3):
        state, loss = svi.update(state, **rows)
    for _ in range(3):
        start, other = wanted.update(start, **rows)
    assert state.mutable_state["counter"]["steps"] == 4
    assert_allclose(loss, other, rtol=1e-12)
