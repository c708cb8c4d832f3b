"""What all layers share: constructors, values, sites, shapes, errors."""

import inspect
import pickle
import re
from dataclasses import FrozenInstanceError, dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.distributions import HalfNormal, Normal
from scipy import stats

import lamina.layers
from cases import CASES, SIZES
from lamina.effects import product, term
from lamina.handlers import record_terms
from lamina.layers import (
    AdaptiveLayer,
    BLayer,
    EmbeddingLayer,
    FixedPriorLayer,
    InterceptLayer,
    RandomEffectsLayer,
)
from lamina.links import gaussian_link
from lamina.priors import Adaptive, Fixed
from lamina.products import affine
from support import log_prob, run, shape_of, shapes, trace

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")


@pytest.fixture(params=CASES)
def case(request):
    """A layer with its data and formula."""
    return CASES[request.param]


def test_every_layer_has_a_case():
    assert set(lamina.layers.__all__) - {"BLayer"} == set(CASES)
    assert all(issubclass(case.cls, BLayer) for case in CASES.values())


ADAPTIVE = {
    "lmbda_dist": HalfNormal,
    "coef_dist": Normal,
    "coef_kwargs": {"loc": 0.0},
    "lmbda_kwargs": {"scale": 1.0},
    "units": 1,
}
WITHOUT_UNITS = {k: v for k, v in ADAPTIVE.items() if k != "units"}
FIXED = {
    "coef_dist": Normal,
    "coef_kwargs": {"loc": 0.0, "scale": 1.0},
    "units": 1,
}
UNITS = {"units": 1}
PUBLISHED = {
    "AdaptiveLayer": (ADAPTIVE, ["name", "x"]),
    "GroupedAdaptiveLayer": (ADAPTIVE, ["name", "x"]),
    "HorseshoeLayer": (UNITS, ["name", "x"]),
    "R2D2Layer": (UNITS, ["name", "x"]),
    "SpikeAndSlabLayer": (UNITS, ["name", "x"]),
    "FixedPriorLayer": (FIXED, ["name", "x"]),
    "InterceptLayer": (FIXED, ["name"]),
    "EmbeddingLayer": (ADAPTIVE, ["name", "x", "num_categories", "embedding_dim"]),
    "RandomEffectsLayer": (ADAPTIVE, ["name", "x", "num_categories"]),
    "RandomSlopesLayer": (ADAPTIVE, ["name", "x", "codes", "num_categories"]),
    "MultiMembershipLayer": (ADAPTIVE, ["name", "x", "weights", "num_categories"]),
    "FMLayer": (ADAPTIVE, ["name", "x", "low_rank_dim"]),
    "LowRankInteractionLayer": (ADAPTIVE, ["name", "x", "z", "low_rank_dim"]),
    "InteractionLayer": (ADAPTIVE, ["name", "x", "z"]),
    "RandomWalkLayer": (
        WITHOUT_UNITS,
        ["name", "x", "num_categories", "embedding_dim"],
    ),
    "AR1Layer": (WITHOUT_UNITS, ["name", "x", "num_categories", "embedding_dim"]),
    "SeasonalLayer": (ADAPTIVE, ["name", "x", "periods", "harmonics"]),
    "MonotonicLayer": (ADAPTIVE, ["name", "x", "num_categories"]),
    "SplineLayer": (ADAPTIVE, ["name", "x", "by"]),
    "FactorSplineLayer": (ADAPTIVE, ["name", "x", "codes", "num_categories"]),
    "TensorSplineLayer": (ADAPTIVE, ["name", "x"]),
    "HSGPLayer": (ADAPTIVE, ["name", "x"]),
}
COUNTS = {"low_rank_dim", "num_categories", "embedding_dim", "harmonics"}
SIZE_ARGUMENTS = COUNTS | {"periods"}
CURVE = {"num_basis", "degree", "cyclic"}
BOX = {"kernel", "num_basis", "boundary", "period", "length_dist", "length_kwargs"}
FURTHER = {
    "GroupedAdaptiveLayer": {"groups"},
    "RandomWalkLayer": {"order", "num_groups"},
    "AR1Layer": {"rho_dist", "rho_kwargs", "num_groups"},
    "MonotonicLayer": {"concentration"},
    "FMLayer": {"main_effects"},
    "RandomSlopesLayer": {"intercept", "correlated"},
    "SplineLayer": CURVE | {"knots", "linear_prior"},
    "FactorSplineLayer": CURVE | {"knots"},
    "TensorSplineLayer": CURVE | {"linear_prior"},
    "HSGPLayer": BOX,
}
OPTIONAL = {"by", "weights"}


def takes(case, argument):
    """Whether a case's layer has this argument, and uses it in its default form."""
    known = inspect.signature(case.cls).parameters
    return argument in known and not case.own_prior


def own(case, site):
    """Whether a site has a prior of its own, whatever that of the coefficients."""
    return site.removeprefix("mu.") in case.own_priors


@pytest.fixture(params=PUBLISHED)
def published(request):
    """A layer whose constructor and call are published."""
    return CASES[request.param]


def test_constructors_have_the_published_names_order_and_defaults(published):
    case = published
    expected, _ = PUBLISHED[case.cls.__name__]
    parameters = inspect.signature(case.cls).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional] == list(expected)
    assert {p.name: p.default for p in positional} == expected
    extra = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    further = FURTHER.get(case.cls.__name__, set())
    assert extra <= {"prior", "unseen"} | SIZE_ARGUMENTS | further
    assert extra & SIZE_ARGUMENTS == set(case.sizes)
    assert len(positional) + len(extra) == len(parameters)


def test_calls_have_the_published_names_and_order(published):
    case = published
    _, expected = PUBLISHED[case.cls.__name__]
    parameters = inspect.signature(case.cls.__call__).parameters.values()
    ordered = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in ordered] == ["self", *expected]
    optional = {p.name for p in ordered if p.default is None}
    assert optional - OPTIONAL == set(case.sizes)
    further = [p for p in parameters if p not in ordered]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is None for p in further)


@pytest.mark.parametrize("n", [1, 5])
def test_the_output_is_the_formula_of_the_coefficients(case, n):
    data, values = case.arguments(n), case.coefficients("mu")
    found = run(case, "mu", *data, values=values)
    assert found.shape == case.shape(case.output, n)
    assert_allclose(found, case.expected("mu", data, values), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [1, 5])
def test_sites_are_those_of_the_docstring(case, n):
    data = case.arguments(n)
    sampled = case.site_shapes("mu", n)
    assert list(shapes(case, "mu", *data).items()) == list(sampled.items())
    found = shapes(case, "mu", *data, types=("sample", "deterministic"))
    assert found == {**sampled, **case.derived_shapes("mu")}
    words = " ".join(inspect.getdoc(case.cls).split())
    for site, letters in {**case.sites, **case.derived}.items():
        numbered = re.sub(r"\d+$", "{k}", site)  # the k-th of several alike
        assert any(f"`{{name}}.{s}` {letters}" in words for s in (site, numbered))
    assert case.output in words


def test_docstrings_say_what_the_house_asks(case):
    sections = re.findall(r"^(\w+):", inspect.getdoc(case.cls), flags=re.M)
    assert sections == ["Shapes", "Units", "Raises", "Source"]


def test_all_sites_are_events(case):
    def abstract():
        for site in trace(case, "mu", *case.arguments(3)).values():
            if site["type"] == "deterministic":
                continue
            assert site["fn"].batch_shape == ()
            assert site["fn"].event_shape == np.shape(site["value"])

    jax.eval_shape(abstract)


@pytest.mark.parametrize("name", [k for k in CASES if not CASES[k].derived])
def test_scales_are_half_normal_and_coefficients_normal_around_zero(name):
    case = CASES[name]
    data, values = case.arguments(2), case.coefficients("mu")
    for site, value in values.items():
        own = case.own_priors.get(site.removeprefix("mu."))
        if own is not None:
            expected = own(value)
        elif "lmbda" in site:
            expected = stats.halfnorm.logpdf(value)
        else:
            suffix = site[-1] if site[-1].isdigit() else ""
            lmbda = values.get(f"{site.rpartition('.')[0]}.lmbda{suffix}", 1.0)
            expected = stats.norm.logpdf(value, 0.0, lmbda)
        found = log_prob(case, site, "mu", *data, values=values)
        assert_allclose(found, expected.sum(), rtol=1e-10)


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("dim", [-1, -2])
def test_replicate_plates_give_leading_axes(case, size, dim):
    n, lead = 3, (size,) + (1,) * (-dim - 1)

    def model(*data):
        with numpyro.plate("replicates", size, dim=dim):
            return case("mu", *data)

    found = shapes(model, *case.arguments(n))
    expected = {k: (*lead, *v) for k, v in case.site_shapes("mu").items()}
    assert found == expected
    assert shape_of(run, model, *case.arguments(n)) == (
        *lead,
        *case.shape(case.output, n),
    )


def test_replicates_are_computed_each_on_its_own(case):
    data = case.arguments(4)
    single = [case.coefficients("mu", seed) for seed in range(3)]
    stacked = {k: np.stack([values[k] for values in single]) for k in single[0]}

    def model(*data):
        with numpyro.plate("replicates", 3):
            return case("mu", *data)

    found = run(model, *data, values=stacked)
    expected = [case.expected("mu", data, values) for values in single]
    assert_allclose(found, np.stack(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("name", sorted(set(CASES) - {"InterceptLayer"}))
def test_a_plate_over_the_rows_raises(name, n):
    case = CASES[name]

    def model(*data):
        with numpyro.plate("rows", n):
            return case("mu", *data)

    with pytest.raises(ValueError, match=r"plate 'rows'.*outside that plate.*dim=-2"):
        run(model, *case.arguments(n))


@pytest.mark.parametrize("column", [False, True])
def test_an_intercept_for_each_row_raises_at_its_link(column):
    """An intercept sees no rows, so the plate shows only where they are scored."""
    y = np.zeros((4, 1)) if column else np.zeros(4)

    def model():
        with numpyro.plate("rows", 4):
            gaussian_link(InterceptLayer()("alpha"), y, scale=1.0)

    with pytest.raises(ValueError, match="outcome 'obs'"):
        run(model)


def test_the_term_is_announced_under_the_layers_name(case):
    data = case.arguments(3)
    sites = trace(record_terms(case), "mu", *data)
    output = run(case, "mu", *data)
    assert_allclose(sites["mu.term"]["value"], output)
    assert sites["mu.term"]["type"] == "deterministic"


def test_scopes_prefix_the_sites(case):
    scoped = handlers.scope(case.untaught, prefix="left", divider=".")
    expected = {f"left.{k}": v for k, v in case.site_shapes("mu").items()}
    with case.taught("left.mu"):
        assert shapes(scoped, "mu", *case.arguments(3)) == expected


def test_names_keep_two_layers_apart(case):
    data = case.arguments(3)

    def model():
        return case("a", *data) + case("b", *data)

    assert shapes(model) == {**case.site_shapes("a"), **case.site_shapes("b")}


@pytest.mark.parametrize("name", ["", "a/b", None, 3, np.ones(3)])
def test_a_layer_needs_a_name_without_slashes(case, name):
    with pytest.raises(TypeError, match=r"name is .*\(\)\('mu', x\)"):
        run(case, name, *case.arguments(3))


def test_the_missing_parentheses_are_named(case):
    cls = case.cls.__name__
    with pytest.raises(TypeError, match=rf"empty parentheses are missing: {cls}\(\)\("):
        case.cls("x", *case.arguments(3))


def test_sizes_may_be_given_at_either_level(case):
    if not case.sizes:
        return
    data, values = case.arguments(3), case.coefficients("mu")
    expected = case.expected("mu", data, values)
    given = replace(case.layer, **case.sizes)
    with case.taught("mu"):
        by_name = {k: run(given, "mu", *data, values=values) for k in ("constructor",)}
        by_name["positions"] = run(
            case.layer, "mu", *data, *case.sizes.values(), values=values
        )
        by_name["both"] = run(given, "mu", *data, **case.sizes, values=values)
    for found in by_name.values():
        assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_sizes_given_twice_differently_raise(case):
    for size, value in case.sizes.items():
        other = value + (value[:1] if isinstance(value, tuple) else 1)
        given = replace(case.layer, **{size: other})
        message = re.escape(f"`{size}` is {other} in the constructor")
        with pytest.raises(ValueError, match=message):
            run(given, "mu", *case.arguments(3), **case.sizes)


def test_missing_sizes_raise(case):
    for size in case.sizes:
        others = {k: v for k, v in case.sizes.items() if k != size}
        with pytest.raises(TypeError, match=f"'mu': `{size}` is missing"):
            run(case.layer, "mu", *case.arguments(3), **others)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_sizes_that_are_no_whole_numbers_raise(case, size):
    units = ["units"] if hasattr(case.layer, "units") else []
    for which in [*(COUNTS & set(case.sizes)), *units]:
        with pytest.raises(ValueError, match=f"`{which}` is {size}"):
            case.cls(**{which: size})


@pytest.mark.parametrize("layer", [EmbeddingLayer, RandomEffectsLayer])
def test_tables_have_no_units(layer):
    with pytest.raises(ValueError, match=r"`units` is 2.*embedding_dim=2"):
        layer(units=2)


def build(case, **changes):
    return case.cls(**{**case.sizes, **changes})


def test_layers_are_values(case):
    if not hasattr(case.cls, "coef_dist"):  # its prior is what it is
        return
    one, same = build(case), build(case)
    other = build(case, prior=Fixed(Normal(0.0, 3.0)))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert len({one, same, other}) == 2
    assert other == build(case, prior=Fixed(Normal(0.0, 3.0)))
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(FrozenInstanceError):
        one.coef_dist = dist.Laplace


def test_layers_of_two_classes_differ():
    assert len({CASES[name].cls() for name in CASES}) == len(CASES)


def test_a_layer_shows_what_differs_from_its_defaults(case):
    name = case.cls.__name__
    assert repr(case.cls()) == f"{name}()"
    if not takes(case, "coef_dist"):
        return
    sizes = ", ".join(f"{k}={v}" for k, v in case.sizes.items())
    changed = build(case, coef_dist=dist.Laplace(0.0, 2.0))
    assert repr(changed) in (
        f"{name}(coef_dist=Laplace(loc=0.0, scale=2.0){', ' + sizes if sizes else ''})"
    )
    assert "Fixed(coef_dist=Cauchy" in repr(build(case, prior=Fixed(dist.Cauchy)))


@pytest.mark.parametrize("name", [k for k in CASES if takes(CASES[k], "coef_dist")])
def test_keyword_arguments_are_copied_and_never_shared(name):
    case, given = CASES[name], {"loc": 1.0}
    if not takes(case, "lmbda_dist"):
        given["scale"] = 1.0
    layer = build(case, coef_kwargs=given)
    before = hash(layer)
    given["loc"] = 5.0
    assert layer.coef_kwargs["loc"] == 1.0
    assert hash(layer) == before
    assert case.cls().coef_kwargs["loc"] == 0.0
    with pytest.raises(TypeError):
        layer.coef_kwargs["loc"] = 2.0


def test_a_layer_is_a_factory(case):
    """One instance under two names draws two sets of coefficients."""
    data = case.arguments(3)
    first, second = case.coefficients("a", 1), case.coefficients("b", 2)

    def model():
        return case("a", *data) + 2.0 * case("b", *data)

    expected = case.expected("a", data, first) + 2.0 * case.expected("b", data, second)
    assert_allclose(run(model, values={**first, **second}), expected, rtol=1e-9)


def half_cauchy(name, shape, coefficient="beta", *, suffix="", scale_shape=None):
    """A prior written by a user: any function of a name and a shape."""
    fn = dist.HalfCauchy(1.0).expand(shape).to_event(len(shape))
    return numpyro.sample(f"{name}.{coefficient}{suffix}", fn)


@pytest.mark.parametrize(
    ("prior", "density"),
    [
        (Fixed(dist.Laplace(0.5, 2.0)), stats.laplace(0.5, 2.0)),
        (half_cauchy, stats.halfcauchy()),
    ],
)
def test_any_prior_goes_on_any_form(case, prior, density):
    if case.own_prior:
        return
    layer = replace(case, layer=replace(case.layer, prior=prior))
    rng = np.random.default_rng(1)
    given = {k: v for k, v in case.coefficients("mu").items() if own(case, k)}
    tensors = case.tensor_shapes("mu").items()
    values = {k: abs(rng.normal(size=v)) for k, v in tensors} | given
    data = case.arguments(3)
    sites = trace(layer, "mu", *data, values=values)
    assert {k: np.shape(v["value"]) for k, v in sites.items()} == {
        k: np.shape(v) for k, v in values.items()
    }
    for name, value in values.items():
        found = sites[name]["fn"].log_prob(value)
        if name.removeprefix("mu.") in case.own_priors:
            continue
        assert_allclose(found, density.logpdf(value).sum(), rtol=1e-9)


def test_an_adaptive_prior_goes_on_a_fixed_form():
    found = shapes(FixedPriorLayer(prior=Adaptive(), units=2), "mu", np.ones((3, 4)))
    assert found == {"mu.lmbda": (2,), "mu.beta": (4, 2)}


@pytest.mark.parametrize(
    "given",
    [
        {"coef_dist": dist.Laplace},
        {"coef_kwargs": {"loc": 1.0}},
        {"lmbda_dist": dist.HalfCauchy},
        {"lmbda_kwargs": {"scale": 2.0}},
    ],
)
def test_a_prior_together_with_distributions_raises(case, given):
    if not hasattr(case.cls, next(iter(given))):
        return
    with pytest.raises(
        ValueError, match=rf"`prior` is given together with .*{[*given]}"
    ):
        build(case, prior=Fixed(), **given)


@pytest.mark.parametrize("prior", [3, Adaptive, dist.Normal(0.0, 1.0), dist.Normal])
def test_what_is_no_prior_raises(case, prior):
    with pytest.raises(TypeError, match=r"`prior` is .*Adaptive\(\) or Fixed\(\)"):
        build(case, prior=prior)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"coef_kwargs": {"mean": 0.0}}, TypeError),
        ({"coef_dist": dist.StudentT}, TypeError),
        ({"coef_dist": "normal"}, TypeError),
        ({"lmbda_dist": dist.Exponential}, TypeError),
        ({"lmbda_kwargs": {"scale": -1.0}}, ValueError),
        ({"lmbda_dist": dist.Normal(0.0, 1.0)}, ValueError),
    ],
)
def test_wrong_distributions_raise_at_construction(case, given, error):
    which = next(iter(given))
    if not hasattr(case.cls, which):
        return
    with pytest.raises(error, match=which.replace("kwargs", "dist")):
        build(case, **given)


def test_classes_with_arguments_and_ready_distributions_are_alike():
    x, values = np.ones((2, 3)), {"mu.lmbda": np.array([0.7])}
    by_class = AdaptiveLayer(
        dist.Exponential, dist.Laplace, {"loc": 1.0}, {"rate": 2.0}
    )
    ready = AdaptiveLayer(dist.Exponential(2.0), dist.Laplace(1.0, 1.0))
    beta = np.array([[1.0], [2.0], [-0.3]])
    values["mu.beta"] = beta
    for layer in (by_class, ready):
        found = log_prob(layer, "mu.lmbda", "mu", x, values=values)
        assert_allclose(found, stats.expon.logpdf(0.7, scale=0.5))
        found = log_prob(layer, "mu.beta", "mu", x, values=values)
        assert_allclose(found, stats.laplace.logpdf(beta, 1.0, 0.7).sum())


@dataclass(frozen=True, repr=False, eq=False)
class QuadraticLayer(BLayer):
    """The example of BLayer's docstring."""

    units: int = 1

    def __call__(self, name, x):
        x = self.columns(name, x)
        beta = self.coefficients(name, (x.shape[1], self.units))
        return term(name, product(affine, x**2, beta))


def test_users_build_layers_on_the_base():
    x, values = (
        np.array([[1.0, 2.0], [3.0, 4.0]]),
        {"q.beta": np.array([[1.0], [-1.0]])},
    )
    assert_allclose(run(QuadraticLayer(), "q", x, values=values)[:, 0], [-3.0, -7.0])
    assert shapes(QuadraticLayer(units=3), "q", x) == {
        "q.lmbda": (3,),
        "q.beta": (2, 3),
    }
    assert QuadraticLayer(units=2) == QuadraticLayer(2)
    assert QuadraticLayer() != AdaptiveLayer()
    assert repr(QuadraticLayer(prior=Fixed())) == "QuadraticLayer(prior=Fixed())"
    with pytest.raises(TypeError, match=r"QuadraticLayer\(\)\('q'"):
        QuadraticLayer("q", x)
    with pytest.raises(ValueError, match="`units` is 0"):
        QuadraticLayer(units=0)


def test_layers_may_be_built_and_called_while_jax_traces():
    """The usual place of a layer is inside a model, which inference compiles."""

    @jax.jit
    def inside(x, scale):
        layer = AdaptiveLayer(
            lmbda_dist=dist.Uniform,
            lmbda_kwargs={"low": jnp.array([0.1]), "high": 1.0 + scale},
        )
        return run(layer, "mu", x)

    assert inside(np.ones((3, 2)), 2.0).shape == (3, 1)


def test_sizes_table_covers_every_letter():
    shapes = " ".join(" ".join(c.sites.values()) for c in CASES.values())
    assert set(re.findall(r"\d*[a-z]+", shapes)) - {"n"} == set(SIZES)


TABLES = sorted(
    name
    for name, case in CASES.items()
    if any(data(np.random.default_rng(0), 1).dtype == int for data in case.data)
)


@pytest.mark.parametrize("offset", [SIZES["c"], -SIZES["c"]], ids=["past", "negative"])
@pytest.mark.parametrize("which", TABLES)
def test_a_code_outside_of_the_table_gets_a_remedy_that_the_layer_has(which, offset):
    case = CASES[which]
    data = tuple(a + offset if a.dtype == int else a for a in case.arguments(3))
    word = "negative" if offset < 0 else "past its table"
    with pytest.raises(ValueError, match=rf"code -?\d+ is {word}") as caught:
        run(case, "mu", *data)
    known = {*inspect.signature(case.cls).parameters}
    known |= {*inspect.signature(case.cls.__call__).parameters}
    assert set(re.findall(r"`(\w+)`", str(caught.value))) <= known
    for policy in re.findall(r"'(draw|zero)'", str(caught.value)):
        replace(case.layer, unseen=policy)
    if "mark levels" in str(caught.value):
        replace(case.layer, unseen="draw")
