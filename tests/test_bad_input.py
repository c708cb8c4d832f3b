"""Wrong input, through `fit`: what was seen, why, and the remedy, before any compiling."""

from contextlib import contextmanager
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from fit_helpers import compilations
from lamina import fit, layers, links
from lamina.layers import (
    AR1Layer,
    AttentionLayer,
    BYM2Layer,
    CARLayer,
    EmbeddingLayer,
    FactorSplineLayer,
    FieldFMLayer,
    FM3Layer,
    FMLayer,
    HSGPLayer,
    InteractionLayer,
    MLPLayer,
    MonotonicLayer,
    MultiMembershipLayer,
    RandomEffectsLayer,
    RandomSlopesLayer,
    RandomWalkLayer,
    SeasonalLayer,
    SplineLayer,
    TensorSplineLayer,
)

N = 40
RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.normal(size=N),
    "columns": RNG.normal(size=(N, 3)),
    "codes": np.arange(N) % 4,
    "pairs": RNG.integers(0, 4, (N, 2)),
    "shares": RNG.uniform(size=(N, 2)),
    "t": np.arange(N),
    "y": RNG.normal(size=N),
}
PATH = np.array([[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]])
GAP = np.where(DATA["t"] == 3, np.nan, DATA["x"])


def fitted(build, *, link=links.gaussian_link_exp, **changes):
    """The posterior of one term, after one step."""

    def model(x, columns, codes, pairs, shares, t, y=None):
        row = SimpleNamespace(
            x=x, columns=columns, codes=codes, pairs=pairs, shares=shares, t=t
        )
        return link(build(row), y)

    return fit(model, {**DATA, **changes}, method="map", num_steps=1)


def compiled_since(before):
    """The programs of fits and predictions among what was compiled."""
    return [k for k in compilations[before:] if "solve" in k or "run" in k]


@contextmanager
def refused(words):
    """Expect an error before the fit or the prediction is compiled."""
    before = len(compilations)
    with pytest.raises((ValueError, TypeError), match=words):
        yield
    assert not compiled_since(before)


# what -> the term, words of its message, and the data that are changed for it
TERMS = {
    "codes past the table": (
        lambda d: RandomEffectsLayer(num_categories=3)("g", d.codes),
        r"'g': code 3 is past its table of 3.*another level's.*raise `num_categories`",
    ),
    "negative codes": (
        lambda d: EmbeddingLayer(num_categories=4, embedding_dim=1)("g", d.codes),
        "code -1 is negative.*unseen levels.*from 0 to 3",
        {"codes": DATA["codes"] - 1},
    ),
    "one column of products": (
        lambda d: FMLayer(low_rank_dim=2)("f", d.x),
        r"'f': `x` has shape \(40, 1\).*at least two columns.*always zero",
    ),
    "two columns of triples": (
        lambda d: FM3Layer(low_rank_dim=2)("f", d.shares),
        "at least three columns",
    ),
    "rows of another table": (
        lambda d: InteractionLayer()("f", d.x, d.columns[:5]),
        r"`z` has shape \(5, 3\).*same number of rows",
    ),
    "missing in x": (
        lambda d: SplineLayer()("s", d.x),
        r"`x` is missing \(NaN\) in 1 of 40 values, in rows 3.*missing='skip'",
        {"x": GAP},
    ),
    "missing in x, not among the data": (
        lambda d: layers.AdaptiveLayer()("b", GAP),
        "'b': `x` has 1 of 40 values, in rows 3, that are NaN.*Leave such rows out",
    ),
    "text": (
        lambda d: SplineLayer()("s", np.full(N, "a")),
        "`x` holds <U1, not numbers.*integer codes",
    ),
    "spline: constant": (
        lambda d: SplineLayer()("s", d.x),
        r"'s': the training column is constant \(\[1\.\]\).*Leave the smooth out",
        {"x": np.ones(N)},
    ),
    "spline: knots outside": (
        lambda d: SplineLayer(knots=(-9.0, 0.0))("s", d.x),
        r"knots \[-9\.0\] are not inside.*range, -2\.3\d+ to 1\.4\d+.*Give knots between",
    ),
    "spline: knots as a number": (
        lambda d: SplineLayer(knots=5)("s", d.x),
        "`knots` is 5, but it lists the places.*set `num_basis`",
    ),
    "spline: knots in words": (
        lambda d: SplineLayer(knots="auto")("s", d.x),
        "`knots` is 'auto', but it lists the places",
    ),
    "spline: knots in disorder": (
        lambda d: SplineLayer(knots=(0.5, -0.5))("s", d.x),
        r"`knots` are \[0\.5, -0\.5\].*Sort them",
    ),
    "spline: few basis functions": (
        lambda d: SplineLayer(num_basis=4)("s", d.x),
        "`num_basis` is 4.*at least 5 basis functions.*Raise it",
    ),
    "spline: few distinct values": (
        lambda d: SplineLayer()("s", d.codes),
        "4 distinct values, fewer than the smooth's 20.*linear layer",
    ),
    "spline: two columns": (
        lambda d: SplineLayer()("s", d.columns),
        "`x` has 3 columns.*smooth of one.*TensorSplineLayer",
    ),
    "spline: units for by": (
        lambda d: SplineLayer()("s", d.x, 3),
        r"`by` has shape \(\).*Reshape it",
    ),
    "spline: period of zero": (
        lambda d: SplineLayer(cyclic=0)("s", d.x),
        "`cyclic` is 0.*a positive number",
    ),
    "spline of a latent value": (
        lambda d: SplineLayer(num_basis=3, degree=1)(
            "s", layers.FixedPriorLayer()("b", d.x)
        ),
        r"\['s\.basis'\] are learned from what the model draws.*data that are known",
    ),
    "curves: swapped": (
        lambda d: FactorSplineLayer(num_categories=4, num_basis=5)("s", d.t, d.x),
        "codes have dtype float.*an integer from 0 to 3",
    ),
    "surface: one column": (
        lambda d: TensorSplineLayer()("s", d.x),
        "`x` has 1 column.*Use SplineLayer",
    ),
    "surface: a constant column": (
        lambda d: TensorSplineLayer()("s", d.columns),
        "'s', column 1: the training column is constant",
        {"columns": DATA["columns"] * [1.0, 0.0, 1.0]},
    ),
    "surface: sizes of other columns": (
        lambda d: TensorSplineLayer(num_basis=np.array([5, 5]))("s", d.columns),
        "`num_basis` has 2 values, but `x` has 3 columns",
    ),
    "process: constant": (
        lambda d: HSGPLayer()("s", d.x),
        r"training columns \[0\] are constant.*Leave them out",
        {"x": np.ones(N)},
    ),
    "process: period in words": (
        lambda d: HSGPLayer(kernel="periodic", period="7")("s", d.x),
        "`period` is '7', but it is a positive number",
    ),
    "process: boundary in words": (
        lambda d: HSGPLayer(boundary="2")("s", d.x),
        "`boundary` is '2', but it is the box's half width",
    ),
    "process: four columns": (
        lambda d: HSGPLayer()("s", np.hstack([d.columns, d.shares])),
        "functions, too many to fit.*set `num_basis`",
    ),
    "slopes: swapped": (
        lambda d: RandomSlopesLayer(num_categories=4)("g", d.codes, d.x),
        "'g': codes have dtype float.*Rounding floats would merge categories",
    ),
    "slopes: codes of other rows": (
        lambda d: RandomSlopesLayer(num_categories=4)("g", d.x, d.codes[:5]),
        r"the codes have shape \(5,\).*same number of rows",
    ),
    "members: swapped": (
        lambda d: MultiMembershipLayer(num_categories=4)("g", d.shares, d.pairs),
        "codes have dtype float",
    ),
    "members: negative weights": (
        lambda d: MultiMembershipLayer(num_categories=4)("g", d.pairs, -d.shares),
        "`weights` have 80 of 80 values.*negative or not finite.*correct it",
    ),
    "members: missing weights": (
        lambda d: MultiMembershipLayer(num_categories=4)(
            "g", d.pairs, np.where(d.shares > 0.5, np.nan, d.shares)
        ),
        "`weights` has .* that are NaN",
    ),
    "members: none": (
        lambda d: MultiMembershipLayer(num_categories=4)("g", d.pairs[:, :0]),
        r"codes have shape \(40, 0\).*each row has k members",
    ),
    "areas: one-way neighbours": (
        lambda d: CARLayer(np.triu(PATH))("g", d.codes),
        "not symmetric: area 0 has area 1.*set both or neither",
    ),
    "areas: weights": (
        lambda d: BYM2Layer(0.5 * PATH)("g", d.codes),
        "areas 0 and 1 is 0.5.*set those that count as neighbours to 1",
    ),
    "areas: a list of pairs": (
        lambda d: CARLayer([[0, 1], [1, 2], [2, 3]])("g", d.codes),
        "a square matrix, or a list of pairs to Adjacency.from_edges",
    ),
    "areas: an island": (
        lambda d: CARLayer(np.diag([0, 0, 0, 0]))("g", d.codes),
        "no neighbours.*or use BYM2Layer",
    ),
    "areas: numbered from one": (
        lambda d: CARLayer(PATH)("g", d.codes + 1),
        "code 4 is past its table of 4.*include the area in the adjacency",
    ),
    "fields: one": (
        lambda d: FieldFMLayer(field_sizes=(4,), low_rank_dim=1)("g", d.codes),
        r"`field_sizes` is \(4,\).*two fields.*RandomEffectsLayer",
    ),
    "fields: indicators": (
        lambda d: FieldFMLayer(field_sizes=(4, 4), low_rank_dim=1)("g", d.columns),
        r"codes have shape \(40, 3\).*2 fields.*one column of codes for each",
    ),
    "fields: past one table": (
        lambda d: FieldFMLayer(field_sizes=(4, 3), low_rank_dim=1)("g", d.pairs),
        "field 2: code 3 is past its table of 3.*raise `field_sizes`",
    ),
    "fields: features of the rows": (
        lambda d: FieldFMLayer(field_sizes=(4, 4), low_rank_dim=1)(
            "g", d.pairs, features=(d.columns, None)
        ),
        "field 1: its features have 40 rows for 4 levels",
    ),
    "fields: features without a number": (
        lambda d: FieldFMLayer(field_sizes=(4, 4), low_rank_dim=1)(
            "g", d.pairs, features=(np.full((4, 1), np.nan), None)
        ),
        r"`features\[0\]` has 4 of 4 values.*NaN",
    ),
    "fields: features as a number": (
        lambda d: FieldFMLayer(field_sizes=(4, 4), low_rank_dim=1)(
            "g", d.pairs, features=3
        ),
        "`features` has no entries for 2 fields",
    ),
    "season: period of zero": (
        lambda d: SeasonalLayer(periods=0, harmonics=1)("s", d.t),
        "`periods` is 0, but a period is a positive number",
    ),
    "season: swapped": (
        lambda d: SeasonalLayer(periods=2, harmonics=7)("s", d.t),
        "7 harmonics of period 2 at whole times.*Give at most 1",
    ),
    "season: a walk over floats": (
        lambda d: SeasonalLayer(periods=7, harmonics="walk")("s", 1.0 * d.t),
        "times have dtype float.*whole times of an integer dtype",
    ),
    "season: dates": (
        lambda d: SeasonalLayer(periods=7, harmonics=1)(
            "s", np.datetime64("2020-01-01") + d.t
        ),
        "times have dtype datetime64.*days since the first row",
    ),
    "autoregression: years": (
        lambda d: AR1Layer(num_categories=N, embedding_dim=1)("w", 1990 + d.t),
        "code 2029 is past its table of 40.*raise `num_categories`, or keep the row",
    ),
    "autoregression: floats": (
        lambda d: AR1Layer(num_categories=N, embedding_dim=1)("w", 1.0 * d.t),
        "codes have dtype float",
    ),
    "autoregression: beyond one": (
        lambda d: AR1Layer(rho_dist=dist.Normal(0.0, 1.0))("w", d.t, N, 1),
        "rho_dist: Normal.* allows values beyond -1 and 1.*Uniform",
    ),
    "autoregression: groups of other rows": (
        lambda d: AR1Layer()("w", d.t, N, 1, group=d.codes[:3], num_groups=4),
        r"groups: they have shape \(3,\).*same number of rows",
    ),
    "walk: two orders of times": (
        lambda d: RandomWalkLayer(embedding_dim=1, order=2)("w", 1.0 * d.t),
        "floating times and `order` is 2.*use order=1",
    ),
    "monotonic: from one": (
        lambda d: MonotonicLayer(num_categories=4)("m", d.codes + 1),
        "code 4 is past its table of 4.*raise `num_categories`, or drop such rows",
    ),
    "monotonic: one category": (
        lambda d: MonotonicLayer(num_categories=1)("m", d.codes),
        "`num_categories` is 1.*needs two categories",
    ),
    "monotonic: concentration in words": (
        lambda d: MonotonicLayer(num_categories=4, concentration="a")("m", d.codes),
        "`concentration` is 'a'.*a positive number",
    ),
    "attention: heads": (
        lambda d: AttentionLayer(embedding_dim=5, num_heads=2)("f", d.columns),
        "`embedding_dim` is 5, which 2 heads do not share.*a multiple",
    ),
    "attention: tokens of a sign": (
        lambda d: AttentionLayer(embedding_dim=2)("f", d.columns),
        "`embedding_dim` is 2.*no more than a sign.*at least 3",
    ),
    "network: hidden as a number": (
        lambda d: MLPLayer(hidden=8)("f", d.columns),
        r"`hidden` is 8, but it holds the width of each.*\(32,\)",
    ),
    "network: NumPy's function": (
        lambda d: MLPLayer(activation=np.tanh)("f", d.columns),
        "`activation` is a function of NumPy's.*jnp.tanh",
    ),
    "network: a constant": (
        lambda d: MLPLayer(activation=jnp.zeros_like)("f", d.columns),
        "`activation` has variance 0.0.*Give one that varies",
    ),
}


@pytest.mark.parametrize("what", TERMS)
def test_terms_that_cannot_be_meant_raise(what):
    build, words, *changes = TERMS[what]
    with refused(words):
        fitted(build, **(changes[0] if changes else {}))


COUNTS = DATA["codes"]
# what -> the link of a linear predictor, the outcome, and words of its message
OUTCOMES = {
    "counts that are not whole": (
        links.poisson_link,
        COUNTS + 0.5,
        "40 of 40 values.*the counts 0, 1, 2.*seen: 0.5.*correct it",
    ),
    "negative counts": (links.negative_binomial_link, -COUNTS, "30 of 40.*seen: -1"),
    "shares past one": (
        links.beta_link,
        COUNTS / 2.5,
        "20 of 40 values.*strictly between 0 and 1",
    ),
    "a third answer": (links.logit_link, COUNTS, "20 of 40 values.*0 and 1"),
    "more than the trials": (
        lambda eta, y: links.binomial_link(eta, y, trials=2),
        COUNTS,
        "10 of 40 values.*whole numbers from 0 to 2",
    ),
    "trials that are no count": (
        lambda eta, y: links.binomial_link(eta, y, trials=3.5),
        COUNTS,
        "`trials` has 1 of 1 values.*no counts.*seen: 3.5",
    ),
    "labels from one": (
        lambda eta, y: links.ordinal_link(eta, y, num_categories=4),
        COUNTS + 1,
        "10 of 40 values.*whole numbers from 0 to 3.*seen: 4",
    ),
    "a probability of zeros past one": (
        lambda eta, y: links.hurdle_poisson_link(eta, y, zero=1.2),
        COUNTS,
        "`zero`.*not probabilities strictly between 0 and 1",
    ),
    "probabilities of categories below zero": (
        lambda eta, y: links.ordinal_link(eta, y, probabilities=[0.5, 0.8, -0.3]),
        COUNTS % 3,
        "`probabilities` are.*sum to 1",
    ),
    "negative weights": (
        lambda eta, y: links.gaussian_link(eta, y, weights=-np.ones(N)),
        DATA["y"],
        "`weights` has 40 of 40 values.*at least 0.*Correct them",
    ),
    "missing weights": (
        lambda eta, y: links.gaussian_link(eta, y, weights=GAP**2),
        DATA["y"],
        r"`weights` has 1 of 40 values, in rows 3.*\(seen: nan\)",
    ),
    "missing outcomes": (
        links.gaussian_link,
        GAP,
        r"`y` is missing \(NaN\) in 1 of 40 values, in rows 3.*missing='skip'",
    ),
    "infinite outcomes": (
        links.gaussian_link,
        np.where(np.isnan(GAP), np.inf, GAP),
        "`y` is infinite in 1 of 40 values, in rows 3.*correct or leave out",
    ),
}


@pytest.mark.parametrize("what", OUTCOMES)
def test_outcomes_that_cannot_be_meant_raise(what):
    link, y, words = OUTCOMES[what]
    with refused(words):
        fitted(lambda d: layers.AdaptiveLayer()("b", d.x), link=link, y=y)


def many(d):
    """Terms that know where their training rows were."""
    return (
        HSGPLayer(num_basis=7, boundary=3.5, length_kwargs={"loc": 0.0, "scale": 0.01})(
            "process", d.x
        )
        + CARLayer(PATH)("area", d.codes)
        + AR1Layer()("steps", d.t, N, 1)
    )


@pytest.fixture(scope="module")
def posterior():
    """All of them, fitted together, which is heard."""
    before = len(compilations)
    found = fitted(many)
    assert compiled_since(before)
    return found


NEW = {k: v[:2] for k, v in DATA.items() if k != "y"}
ELSEWHERE = {
    "far from the rows": (
        {"x": [0.0, 50.0]},
        r"'process': .*rows 1, outside of the box",
    ),
    "missing": ({"x": [0.0, np.nan]}, "`x`, new data, is NaN.*leave these rows out"),
    "an area with no neighbours": (
        {"codes": [0, -1]},
        "'area': code -1 is negative.*neighbours",
    ),
    "an area of no map": (
        {"codes": [0, 4]},
        "'area': code 4 is past its table of 4",
    ),
    "codes as floats": ({"codes": [0.0, 1.0]}, "fitted with integers.*Give integers"),
    "before the first step": ({"t": [0, -1]}, "'steps': code -1 is negative"),
    "after too many steps": ({"t": [0, 10**7]}, "'steps': .*forecast less far"),
    "other columns": ({"columns": np.zeros((2, 2))}, r"fitted with columns \(3,\)"),
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_predictions_of_what_cannot_be_known_raise(posterior, what):
    changes, words = ELSEWHERE[what]
    with refused(words):
        posterior.predict({**NEW, **changes})


def test_predictions_of_what_can_be_known_are_finite(posterior):
    before = len(compilations)
    ahead = {**NEW, "t": [0, N + 5], "x": [0.0, 3.0]}
    assert np.isfinite(posterior.predict(ahead).sd).all()
    assert compiled_since(before)
