"""What can be known of a model before anything is compiled."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from fit_helpers import refused
from lamina import FixedPriorLayer, RandomEffectsLayer, gaussian_link_exp, row_factor
from lamina.handlers.preflight import densities_read, inspect_model, require_whole_rows

X = np.arange(12.0).reshape(6, 2)
Y = np.arange(6.0)
DATA = {"x": X, "y": Y}


def everything(x, y, size=None):
    """A model with one site of each kind."""
    w = numpyro.param("w", jnp.zeros(3))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.deterministic("line", x @ b)
    numpyro.factor("penalty", -(w**2).sum())
    row_factor("terms", x[:, 0] * 0.0)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("obs", dist.Normal(x @ b + z, 1.0), obs=y)


def test_sites_are_told_apart_by_kind_with_their_shapes():
    inside = inspect_model(everything, DATA)
    assert inside.latent == {"b": (2,), "z": (6,)}
    assert inside.observed == {"obs": (6,)}
    assert inside.deterministic == {"line": (6,)}
    assert inside.params == {"w": (3,)}
    assert inside.factors == ("penalty", "terms")
    assert inside.subsampled == ()


def test_nothing_is_computed_and_data_keep_their_values():
    """Codes are checked by value, also after NumPy has computed with them."""

    def model(code, y):
        assert isinstance(code, np.ndarray)
        mu = RandomEffectsLayer(num_categories=3)("g", code - 1)
        return gaussian_link_exp(mu, y)

    codes = np.array([1, 2, 3, 1, 2, 3])
    assert inspect_model(model, {"code": codes, "y": Y}).observed == {"obs": (6,)}
    with refused(ValueError, "code 3 is past its table of 3"):
        inspect_model(model, {"code": codes + 1, "y": Y})
    with refused(ValueError, "code -1 is negative"):
        inspect_model(model, {"code": codes - 1, "y": Y})


def test_a_model_that_needs_jax_arrays_is_given_them():
    def at(x, y):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        numpyro.sample("obs", dist.Normal(b * x.at[0].set(0.0)[:, 0], 1.0), obs=y)

    def picked(x, y):
        with numpyro.plate("rows", 6, subsample_size=2) as rows:
            numpyro.sample("obs", dist.Normal(x[rows, 0], 1.0), obs=y[rows])

    assert inspect_model(at, DATA).observed == {"obs": (6,)}
    inside = inspect_model(picked, DATA)
    assert inside.observed == {"obs": (2,)}
    assert inside.subsampled == ("rows",)
    with refused(ValueError, r"plates \['rows'\] .* and a sampler needs the whole"):
        require_whole_rows("a sampler", inside)
    require_whole_rows("a sampler", inspect_model(at, DATA))


def test_an_error_of_the_model_itself_is_its_own():
    def model(x, y):
        return x.banana

    with refused(AttributeError, "banana"):
        inspect_model(model, DATA)


def observed_as(shape, value, plate=None):
    """A model whose outcome has this distribution's shape, and this value."""

    def model():
        fn = dist.Normal(jnp.zeros(shape), 1.0)
        if plate is None:
            numpyro.sample("obs", fn, obs=value)
        else:
            with numpyro.plate("plate", *plate):
                numpyro.sample("obs", fn, obs=value)

    return model


@pytest.mark.parametrize(
    ("shape", "value", "plate"),
    [
        ((6,), np.zeros(6), None),
        ((), np.zeros(6), None),
        ((1,), np.zeros(6), None),
        ((6, 1), np.zeros((6, 1)), None),
        ((6, 2), np.zeros((6, 2)), None),
        ((1, 2), np.zeros((6, 2)), None),
        ((), np.zeros(6), (6,)),
        ((6,), 0.0, None),  # one number may stand for many
        ((), 0.0, (6,)),
        ((1,), np.zeros(1), None),
    ],
)
def test_observations_that_are_scored_once_pass(shape, value, plate):
    assert inspect_model(observed_as(shape, value, plate), {}).observed


@pytest.mark.parametrize(
    ("shape", "value", "plate", "message"),
    [
        (
            (6, 1),
            np.zeros(6),
            None,
            r"shape \(6,\).*\(6, 1\), which would make \(6, 6\)",
        ),
        ((6,), np.zeros((6, 1)), None, r"which would make \(6, 6\) terms"),
        ((6,), np.zeros(1), None, r"which would make \(6,\) terms"),
        ((3, 6), np.zeros(6), None, r"which would make \(3, 6\) terms"),
        ((6,), np.zeros(6), (3, None, -2), r"which would make \(3, 6\) terms"),
        ((5,), np.zeros(6), None, r"shape \(5,\), which cannot be scored"),
    ],
)
def test_observations_that_broadcast_raise(shape, value, plate, message):
    with refused(ValueError, message):
        inspect_model(observed_as(shape, value, plate), {})


def test_joint_distributions_are_compared_whole():
    def model(y):
        numpyro.sample("obs", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), obs=y)

    assert inspect_model(model, {"y": np.zeros((6, 2))}).observed == {"obs": (6, 2)}
    with refused(ValueError, "cannot be scored"):
        inspect_model(model, {"y": np.zeros((6, 3))})


@pytest.mark.parametrize("kind", [numpyro.sample, numpyro.deterministic])
def test_a_name_is_used_once(kind):
    def model():
        numpyro.sample("a", dist.Normal(0.0, 1.0))
        kind("a", dist.Normal(0.0, 1.0) if kind is numpyro.sample else 1.0)

    with refused(ValueError, "the name 'a' is used by two sites"):
        inspect_model(model, {})
    with handlers.scope(prefix="s"):
        apart = handlers.scope(model, prefix="t")
    with refused(ValueError, "the name 't/a' is used by two sites"):
        inspect_model(apart, {})


def test_an_improper_prior_cannot_be_drawn_from():
    def model(y):
        flat = dist.ImproperUniform(dist.constraints.positive, (), ())
        s = numpyro.sample("s", flat.expand([2]).to_event(1))
        numpyro.sample("obs", dist.Normal(0.0, s.sum()), obs=y)

    with refused(ValueError, "site 's' has an improper prior.*wide proper one"):
        inspect_model(model, {"y": Y})


def test_each_density_is_known_by_the_data_that_it_reads():
    def model(x, z, y, label):
        b = numpyro.sample("b", dist.Normal(z.mean(), 1.0))
        numpyro.sample("obs", dist.Normal(b * x, 1.0), obs=y)
        numpyro.sample("pilot", dist.Normal(b, 1.0), obs=3.0)
        with handlers.scale(scale=z):
            numpyro.sample("weighed", dist.Normal(0.0, 1.0), obs=y)
        numpyro.factor("factor", -(x**2).sum())

    def apart(x, z, y, label):
        with handlers.substitute(data={"b": jnp.zeros(())}):
            model(x, z, y, label)

    data = {"x": Y, "z": Y, "y": Y, "label": "any"}
    assert densities_read(apart, data) == {
        "b": {"z"},
        "obs": {"x", "y"},
        "pilot": set(),
        "weighed": {"y", "z"},
        "factor": {"x"},
    }


@pytest.mark.parametrize(
    "model",
    [
        lambda x, y: numpyro.plate("rows", int(x.max())),
        lambda x, y: numpyro.deterministic("a", 1.0 if x.max() > 3 else 0.0),
        lambda x, y: numpyro.deterministic("a", np.log1p(np.abs(np.asarray(x)))),
        lambda x, y: numpyro.deterministic("a", x[x > 3]),
    ],
    ids=["size", "branch", "NumPy", "mask"],
)
def test_what_depends_on_numbers_in_the_data_cannot_be_compiled(model):
    inspect_model(model, DATA)  # on concrete data it runs
    with refused(ValueError, "takes a size, a branch, an index or a NumPy array"):
        densities_read(model, DATA)


def test_a_layers_model_is_inspected_as_any_other():
    def model(x, y):
        return gaussian_link_exp(FixedPriorLayer()("b", x), y)

    inside = inspect_model(model, DATA)
    assert inside.latent == {"b.beta": (2, 1), "sigma": ()}
    assert densities_read(model, DATA)["obs"] == {"x", "y"}
