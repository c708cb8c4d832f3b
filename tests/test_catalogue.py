"""docs/catalogue.md beside the code: names, calls, sites, default priors, means."""

import inspect
import re
from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import special

import pages
from cases import AREAS, CASES
from lamina import dependence, layers, links, priors
from lamina.handlers import record_outcomes
from support import shapes, trace

pytestmark = pytest.mark.usefixtures("float64")

PAGES = [f"docs/{path.name}" for path in pages.DOCS.glob("*.md")]
TABLES = pages.tables("catalogue.md")
LAYERS = {pages.coded(row[0])[0]: row[1:] for row in TABLES["Layers"]}
PRIORS = {pages.coded(row[0])[0]: row[1:] for row in TABLES["Priors"]}
LINKS = {pages.coded(row[0])[0]: row[1:] for row in TABLES["Links"]}


def test_every_layer_is_there_once():
    assert len(TABLES["Layers"]) == len(LAYERS)
    assert set(LAYERS) == set(layers.__all__) - {"BLayer"}


def test_every_prior_is_there_once():
    assert len(TABLES["Priors"]) == len(PRIORS)
    values = [getattr(m, name) for m in (priors, dependence) for name in m.__all__]
    form = priors.PriorForm
    classes = {
        v.__name__ for v in values if isinstance(v, type) and issubclass(v, form)
    }
    assert set(PRIORS) == classes - {"PriorForm"}


def test_every_link_is_there_once():
    assert len(TABLES["Links"]) == len(LINKS)
    named = {name for name in links.__all__ if name.endswith(("_link", "_link_exp"))}
    assert set(LINKS) == named


def require_formulas(cell, documented):
    """Each formula of the cell stands in the docstring."""
    plain = re.sub(r"\\,|\s+", "", inspect.getdoc(documented))
    formulas = re.findall(r"\$(.+?)\$", cell)
    assert formulas
    for formula in formulas:
        assert re.sub(r"\\,|\s+", "", formula) in plain, formula


def sites_of(cell):
    """Sites -> their shapes in letters: the sampled ones, and what they give."""
    sampled, _, given = cell.partition("; gives ")
    found = []
    for part in (sampled, given):
        pairs = re.findall(r"`([\w.]+)` (\([^)]*\))", part)
        assert len(pairs) == len(pages.coded(part))
        found.append(dict(pairs))
    return found


@pytest.mark.parametrize("which", sorted(LAYERS))
def test_a_layers_formula_and_call(which):
    formula, call, _ = LAYERS[which]
    cls = getattr(layers, which)
    require_formulas(formula, cls)
    shown = []
    for p in list(inspect.signature(cls.__call__).parameters.values())[1:]:
        if p.kind is p.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        shown.append(p.name)
    assert pages.coded(call) == [f"({', '.join(shown)})"]


@pytest.mark.parametrize("which", sorted(LAYERS))
def test_a_layers_sites(which):
    case, (sampled, given) = CASES[which], sites_of(LAYERS[which][2])
    assert (sampled, given) == (case.sites, case.derived)  # in the same letters
    data = case.arguments(3)
    for kind, letters in (("sample", sampled), ("deterministic", given)):
        found = shapes(lambda: case("mu", *data), types=(kind,))
        assert found == {f"mu.{k}": case.shape(v, 3) for k, v in letters.items()}


SIZES = {"d": 5, "u": 2, "c": 4, "m": 3}


def numbers(letters):
    """A shape in letters, such as "(d - 1, u)", in numbers."""
    return tuple(eval(letters, dict(SIZES))) if letters != "()" else ()


GIVEN = {
    "KnownCovariance": (np.eye(SIZES["c"]),),
    "CAR": (AREAS,),
    "BYM2": (AREAS,),
}


@pytest.mark.parametrize("which", sorted(PRIORS))
def test_a_priors_formula_and_sites(which):
    formula, cell, new = PRIORS[which]
    cls = getattr(priors, which, None) or getattr(dependence, which)
    require_formulas(formula, cls)
    sampled, given = sites_of(cell)
    coefficient = "theta" if "theta" in {**sampled, **given} else "beta"
    shape = numbers({**sampled, **given}[coefficient])
    prior = cls(*GIVEN.get(which, ()))
    for kind, letters in (("sample", sampled), ("deterministic", given)):
        found = shapes(prior, "mu", shape, coefficient, types=(kind,))
        assert found == {f"mu.{k}": numbers(v) for k, v in letters.items()}
    assert new == ("refused" if prior.joint else "drawn")


KNOWN = {
    "scale": 0.7,
    "df": 5.0,
    "quantile": 0.8,
    "alpha": -3.0,
    "concentration": 2.5,
    "zero": 0.3,
    "ends": 0.4,
    "one": 0.6,
    "trials": 7,
}
WIDE = {"categorical_link", "multivariate_gaussian_link", "dirichlet_multinomial_link"}
FUNCTIONS = {
    "exp": np.exp,
    "arctan": np.arctan,
    "gamma": special.gamma,
    "expit": special.expit,
    "ndtr": special.ndtr,
    "softmax": lambda eta: special.softmax(eta, axis=-1),
}


def called(which, **given):
    """The link at n = 4 rows, with data where it needs some."""
    link = getattr(links, which)
    eta = np.random.default_rng(0).normal(size=(4, 3 if which in WIDE else 1))
    if which == "mixture_link":
        parts = [partial(links.poisson_link, eta), partial(links.poisson_link, eta + 1)]
        return partial(link, parts, **given)
    if which == "ordinal_link":
        given["num_categories"] = 3
    if "trials" in inspect.signature(link).parameters:
        given["trials"] = KNOWN["trials"]
    return partial(link, eta, **given)


def parameters(cell):
    """Arguments, and site -> its default prior in code, of the cell."""
    arguments, defaults = set(), {}
    for item in cell.split("; "):
        names, _, rest = item.rpartition(":")
        arguments |= set(pages.coded(names))
        if "~" in rest:
            site, prior = pages.coded(rest)
            defaults[site] = prior
    return arguments, defaults


@pytest.mark.parametrize("which", sorted(LINKS))
def test_a_links_parameters(which):
    arguments, defaults = parameters(LINKS[which][2])
    taken = inspect.signature(getattr(links, which)).parameters.values()
    own = {p.name for p in taken if p.kind is p.KEYWORD_ONLY} - {"name"}
    assert arguments == own
    sites = trace(called(which))
    found = {k: s["fn"] for k, s in sites.items() if s["type"] == "sample"}
    del found["obs"]
    assert set(found) == set(defaults)
    for site, fn in found.items():
        while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
            fn = fn.base_dist
        shown = eval(defaults[site], {**vars(dist), "Dirichlet": dirichlet})
        assert type(fn) is type(shown)
        for name in type(fn).arg_constraints:
            assert_allclose(getattr(fn, name), getattr(shown, name))


def dirichlet(concentration):
    return dist.Dirichlet(jnp.array(concentration, float))


@pytest.mark.parametrize("which", sorted(LINKS))
def test_a_links_known_defaults(which):
    """Numbers after a colon are what the parameter is where it is left out."""
    for item in LINKS[which][2].split("; "):
        names, _, rest = item.rpartition(": ")
        if not re.fullmatch(r"[\d.]+|False", rest):
            continue
        name = pages.coded(names)[0]
        shown = {"False": False}.get(rest, rest)
        shown = shown if isinstance(shown, bool) else float(shown)
        y = trace(called(which))["obs"]["value"]
        both = [called(which), called(which, **{name: shown})]
        densities = [
            np.asarray(trace(link, y)["obs"]["fn"].log_prob(y)) for link in both
        ]
        assert_allclose(*densities, rtol=1e-10)


@pytest.mark.parametrize("which", sorted(LINKS))
def test_a_links_mean(which):
    inverse, mean = LINKS[which][1], LINKS[which][3]
    if which in ("ordinal_link", "mixture_link"):
        assert not pages.coded(mean)
        return
    taken = inspect.signature(getattr(links, which)).parameters
    given = {k: v for k, v in KNOWN.items() if k in taken}
    link = called(which, **given)
    found = np.asarray(trace(record_outcomes(link))["obs.mean"]["value"])
    (eta,) = link.args
    known = {**FUNCTIONS, **given, "eta": eta}
    known["m"] = eval(pages.coded(inverse)[0], known)
    expected = eval(pages.coded(mean)[0], known)
    expected = expected if which in WIDE else expected[:, 0]
    assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("which", sorted(LINKS))
def test_a_links_options(which):
    _, _, _, _, exposure, censored = LINKS[which]
    if which == "mixture_link":  # whose components, here of counts, decide
        assert (exposure, censored) == ("no", "where all can")
        censored = "yes"
    for option, shown, why in (
        ({"weights": 2.0}, "yes", ""),
        ({"offset": 2.0}, "no" if which == "mixture_link" else "yes", "`offset`"),
        ({"exposure": 2.0}, exposure, "`exposure`"),
        ({"censored": 0}, censored, "cumulative distribution function"),
    ):
        link = called(which, **option)
        if shown == "no":
            with pytest.raises(ValueError, match=why):
                shapes(link)
        else:
            assert shown == "yes"
            assert "obs" in shapes(link)


def anchors(text):
    """The headings of a page, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", ["README.md", *sorted(PAGES)])
def test_links_between_pages_lead_somewhere(page):
    here = pages.DOCS.parent / page
    for target in re.findall(r"\]\(([^)\s]+)\)", here.read_text("utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        there = (here.parent / name) if name else here
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text("utf-8")), target
