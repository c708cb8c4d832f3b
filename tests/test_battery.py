"""What every layer and every link must survive, in one place."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer import NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density

import lamina.layers
from cases import AREAS, CASES, LONG
from lamina import links
from lamina.handlers import learn, record_terms, remembering
from lamina.layers import (
    AdaptiveLayer,
    AR1Layer,
    AttentionLayer,
    CARLayer,
    FieldFMLayer,
    FMLayer,
    HSGPLayer,
    MLPLayer,
    MultiMembershipLayer,
    RandomSlopesLayer,
    RandomWalkLayer,
    SeasonalLayer,
    SplineLayer,
    TensorSplineLayer,
)
from lamina.priors import Adaptive
from support import enable_x64, run

pytestmark = pytest.mark.usefixtures("strict_shapes")

LENIENT = {
    "BYM2Layer",
    "CARLayer",
    "MonotonicLayer",
    "R2D2Layer",
    "RandomSlopesLayer",
}
"""Layers with a Beta, LKJ or Dirichlet prior, for which NumPyro broadcasts."""


@pytest.fixture(autouse=True)
def broadcasting_of_numpyros(request):
    """Let those few layers broadcast, whose own code test_base.py checks."""
    params = getattr(request.node, "callspec", None)
    with jax.numpy_rank_promotion(
        "allow" if params and LENIENT & set(params.params.values()) else "raise"
    ):
        yield


def layer_model(case):
    """A regression on one layer alone."""

    def model(*data, y=None):
        mu = case("mu", *data)
        return links.gaussian_link(mu, y)

    def arguments(n):
        y = np.random.default_rng(2).normal(size=(n, case.shape(case.output, n)[-1]))
        return case.arguments(n), y[:, 0] if y.shape[1] == 1 else y

    return model, arguments


def link_model(link, outcomes):
    """A regression by one link."""

    def model(x, *, y=None):
        return link(AdaptiveLayer()("mu", x), y)

    def arguments(n):
        rng = np.random.default_rng(2)
        return (rng.normal(size=(n, 2)),), outcomes(rng, n)

    return model, arguments


MODELS = {name: layer_model(case) for name, case in CASES.items()} | {
    "student_t_link": link_model(
        links.student_t_link, lambda rng, n: rng.normal(size=n)
    ),
    "logit_link": link_model(
        links.logit_link, lambda rng, n: rng.integers(0, 2, size=n)
    ),
    "poisson_link": link_model(
        links.poisson_link, lambda rng, n: rng.poisson(2.0, size=n)
    ),
}


def test_every_layer_is_here():
    assert set(CASES) == set(lamina.layers.__all__) - {"BLayer"}
    assert set(CASES) < set(MODELS)


@pytest.fixture(params=MODELS)
def model_and_data(request):
    """A model with a function that makes n rows for it."""
    return MODELS[request.param]


def svi_step(model, data, y, key):
    """Parameters before and after one optimiser step, and its loss, all compiled."""
    svi = SVI(model, AutoNormal(model), optax.adam(1e-2), Trace_ELBO())

    @jax.jit
    def step(key, data, y):
        start = svi.init(key, *data, y=y)
        end, loss = svi.update(start, *data, y=y)
        return svi.get_params(start), svi.get_params(end), loss

    return step(key, data, y)


@pytest.mark.parametrize(
    ("n", "double"), [(1, False), pytest.param(4, True, marks=pytest.mark.slow)]
)
def test_one_step_of_svi(model_and_data, n, double, key):
    model, arguments = model_and_data
    data, y = arguments(n)
    with enable_x64() if double else jax.enable_x64(False):
        before, after, loss = svi_step(model, data, y, key)
    assert np.isfinite(loss)
    for name, value in after.items():
        assert value.dtype == (jnp.float64 if double else jnp.float32)
        assert np.all(np.isfinite(value))
        assert np.all(value != before[name])  # Adam moves whatever has a gradient


@pytest.mark.slow
def test_one_step_of_nuts_on_one_row(model_and_data, key):
    model, arguments = model_and_data
    data, y = arguments(1)
    kernel = NUTS(model, step_size=1e-3, max_tree_depth=2)

    @jax.jit
    def step(key, data, y):
        start = kernel.init(key, 1, None, data, {"y": y})
        return start.z, kernel.sample(start, data, {"y": y}).z

    start, end = step(key, data, y)
    for name, value in end.items():
        assert np.all(np.isfinite(value))
        assert np.all(value != start[name])


@pytest.mark.parametrize("name", CASES)
def test_predictions_follow_the_formula_for_every_draw(name, key):
    """Predictive maps the model over draws; here it is compiled as well."""
    case, n = CASES[name], 3
    model, arguments = MODELS[name]
    data, _ = arguments(n)
    draws = [case.coefficients("mu", seed) for seed in range(4)]
    stacked = {k: np.stack([d[k] for d in draws]) for k in draws[0]}
    stacked["sigma"] = np.full(4, 1e-6)
    found = jax.jit(Predictive(record_terms(model), stacked))(key, *data)
    expected = np.stack([case.expected("mu", data, d) for d in draws])
    assert_allclose(found["mu.term"], expected, rtol=1e-4, atol=1e-4)
    rows = expected[..., 0] if expected.shape[-1] == 1 else expected
    assert found["obs"].shape == rows.shape
    assert_allclose(found["obs"], rows, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("n", "double"), [(1, True), (3, False)])
def test_layers_compile_and_map_over_draws(name, n, double):
    case = CASES[name]
    data = case.arguments(n)
    draws = [case.coefficients("mu", seed) for seed in range(3)]
    expected = np.stack([case.expected("mu", data, d) for d in draws])
    with enable_x64() if double else jax.enable_x64(False):
        stacked = {k: jnp.stack([d[k] for d in draws]) for k in draws[0]}

        def one(values, *data):
            return run(case, "mu", *data, values=values)

        each = jax.vmap(one, (0, *[None] * len(data)))
        found = jax.jit(each)(stacked, *data)
        assert found.dtype == (jnp.float64 if double else jnp.float32)
    tolerance = 1e-10 if double else 1e-4
    assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_replicates_inside_a_scope_take_a_step_of_svi(name, key):
    """Two replicates, averaged, under other names than the layer's own."""
    case, n = CASES[name], 3
    data, y = MODELS[name][1](n)

    def model(*data, y=None):
        with handlers.scope(prefix="left", divider="."):
            with numpyro.plate("replicates", 2):
                f = case.untaught("mu", *data)
            return links.gaussian_link(f.mean(axis=0), y)

    with case.taught("left.mu"):
        before, after, loss = svi_step(model, data, y, key)
    assert np.isfinite(loss)
    shapes = {k: np.shape(v) for k, v in after.items() if k.endswith("_auto_loc")}
    expected = {
        f"left.{k}_auto_loc": (2, *shape)
        for k, shape in case.free_shapes("mu", n).items()
    }
    assert shapes == {**expected, "left.sigma_auto_loc": ()}
    assert all(np.all(v != before[k]) for k, v in after.items())


@pytest.mark.slow
def test_gradients_of_the_log_density_are_those_of_finite_differences(model_and_data):
    model, arguments = model_and_data
    data, y = arguments(3)
    rng = np.random.default_rng(5)
    with enable_x64():
        sites = handlers.trace(handlers.seed(model, 0)).get_trace(*data, y=y)
        latent = {
            name: site
            for name, site in sites.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        # moved where nothing is constrained: a step from a simplex would leave it
        onto = {name: biject_to(site["fn"].support) for name, site in latent.items()}
        values = {
            name: jnp.asarray(
                rng.normal(size=to.inverse_shape(np.shape(site["value"])))
            )
            for (name, site), to in zip(latent.items(), onto.values(), strict=True)
        }

        @jax.jit
        def density(values):
            constrained = {name: onto[name](value) for name, value in values.items()}
            return log_density(model, data, {"y": y}, constrained)[0]

        gradient = jax.grad(density)(values)
        for name, value in values.items():
            direction = jnp.asarray(rng.normal(size=value.shape))
            up, down = (
                density({**values, name: value + step * direction})
                for step in (1e-5, -1e-5)
            )
            slope = (gradient[name] * direction).sum()
            assert_allclose(slope, (up - down) / 2e-5, rtol=1e-5, atol=1e-6)


ROWS = {
    "x": lambda rng, n: rng.normal(size=n),
    "columns": lambda rng, n: rng.normal(size=(n, 3)),
    "codes": lambda rng, n: rng.integers(0, 4, size=n),
    "pairs": lambda rng, n: rng.integers(0, 4, size=(n, 2)),
    "times": lambda rng, n: np.sort(rng.uniform(0.0, 9.0, size=n)),
}
PERIODIC = HSGPLayer(kernel="periodic", period=2.0, num_basis=5, length_kwargs=LONG)
MATERN = HSGPLayer(
    kernel="matern52", num_basis=12, boundary=4.2, length_kwargs=LONG, units=2
)
# the forms of layers whose sites or products are others than those of their cases
FORMS = {
    "a walk of slopes": lambda d: RandomWalkLayer(order=2)("f", d.codes, 4, 2),
    "a walk at times": lambda d: RandomWalkLayer()("f", d.times, embedding_dim=1),
    "a walk for each group": lambda d: RandomWalkLayer()(
        "f", d.codes, 4, 1, group=d.pairs[:, 0], num_groups=4
    ),
    "an autoregression for each group": lambda d: AR1Layer()(
        "f", d.codes, 4, 1, group=d.pairs[:, 0], num_groups=4
    ),
    "a cyclic walk and waves": lambda d: SeasonalLayer()(
        "f", d.codes, (4, 9), ("walk", 2)
    ),
    "a varying coefficient": lambda d: SplineLayer(num_basis=5)("f", d.x, by=d.times),
    "a cyclic curve": lambda d: SplineLayer(num_basis=6, cyclic=2.0)("f", d.x),
    "a cyclic surface": lambda d: TensorSplineLayer(
        num_basis=5, cyclic=(None, 2.0), units=2
    )("f", d.columns[:, :2]),
    "a periodic process": lambda d: PERIODIC("f", d.x),
    "a rough process": lambda d: MATERN("f", d.x),
    "independent slopes": lambda d: RandomSlopesLayer(correlated=False)(
        "f", d.columns, d.codes, 4
    ),
    "equal members": lambda d: MultiMembershipLayer()("f", d.pairs, num_categories=4),
    "intrinsic neighbours": lambda d: CARLayer(AREAS, proper=False)("f", d.codes),
    "centred neighbours": lambda d: CARLayer(AREAS, centered=True)("f", d.codes),
    "main effects": lambda d: FMLayer(main_effects=True)("f", d.columns, 2),
    "described fields": lambda d: FieldFMLayer(main_effects=False)(
        "f", d.pairs, (4, 4), 2, features=(np.eye(4)[:, :2], None)
    ),
    "hidden layers that add": lambda d: MLPLayer(
        hidden=(3, 3), skip=True, prior=Adaptive()
    )("f", d.columns),
    "blocks of attention": lambda d: AttentionLayer(embedding_dim=4, num_blocks=2)(
        "f", d.columns
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_other_forms_take_steps_and_predict_a_row_at_a_time(name, key):
    """SVI in float64, NUTS in float32; predictions of one row are those among many."""
    build = FORMS[name]

    def rows_of(n):
        rng = np.random.default_rng(3)
        return {k: draw(rng, n) for k, draw in ROWS.items()}

    def model(y=None, **data):
        f = build(SimpleNamespace(**data))
        return links.gaussian_link(f, y)

    with jax.numpy_rank_promotion("allow"):
        data = rows_of(30)
        known = remembering(model, learn(model, data))
        predict = jax.jit(Predictive(record_terms(known), num_samples=2))
        drawn = predict(key, **data)
        one = predict(key, **{k: v[7:8] for k, v in data.items()})
        assert_allclose(one["f.term"], drawn["f.term"][:, 7:8], rtol=1e-4, atol=1e-5)

        y = np.asarray(drawn["obs"][0])
        with enable_x64():
            before, after, loss = svi_step(
                lambda data, y: known(y=y, **data), (data,), y, key
            )
        assert np.isfinite(loss)
        assert all(np.all(v != before[k]) for k, v in after.items())

        kernel = NUTS(known, step_size=1e-3, max_tree_depth=2)

        @jax.jit
        def step(key, data):
            start = kernel.init(key, 1, None, (), data)
            return start.z, kernel.sample(start, (), data).z

        start, end = step(key, {"y": y, **data})
        assert all(np.all(np.isfinite(v) & (v != start[k])) for k, v in end.items())
