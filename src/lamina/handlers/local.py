"""Local reparameterization: sample a product instead of its coefficients."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

from lamina._typing import Array, Guide, Model
from lamina.products import affine, lookup

Call = Callable[[Mapping[str, Any]], Any]

LOCAL = "local reparameterization"

VARIANCE: dict[Callable[..., Array], Callable[..., Array]] = {
    affine: lambda x, variance: affine(jnp.square(x), variance),
    lookup: lookup,
}
"""Products linear in their coefficients, with the variance of what they give."""


class local_reparameterization(Messenger):
    r"""Sample $x\beta$ instead of $\beta$ where $\beta$ has a mean-field Normal guide.

    For $\beta_{du} \sim \text{Normal}(m_{du}, s_{du})$ each row of the product is drawn as
    $f_{nu} \sim \text{Normal}(\sum_d x_{nd} m_{du}, \sqrt{\sum_d x_{nd}^2 s_{du}^2})$,
    with noise of its own. The expected log density of a model that uses each row on its
    own is the same; the variance of its gradient is far smaller.

    `posteriors` maps a site to its guide distribution; only `sites` are touched, which
    `local_sites` finds to be sound.

    Source: Kingma, Salimans and Welling (2015), Variational Dropout and the Local
    Reparameterization Trick, eqs 5 and 6.
    """

    def __init__(
        self,
        fn: Model | None = None,
        *,
        posteriors: Mapping[str, Any],
        sites: frozenset[str],
    ) -> None:
        super().__init__(fn)
        self.posteriors, self.sites = posteriors, sites

    def __enter__(self) -> None:
        super().__enter__()
        self.key = numpyro.prng_key() if self.sites else None
        self.owners: dict[int, tuple[str, Array]] = {}

    def postprocess_message(self, message: Any) -> None:
        if message["type"] == "sample" and message["name"] in self.sites:
            # holding the value keeps its id from being reused
            self.owners[id(message["value"])] = message["name"], message["value"]

    def process_message(self, message: Any) -> None:
        if message["type"] != "product" or message["fn"] not in VARIANCE:
            return
        *data, coefficients = message["args"]
        name, _ = self.owners.get(id(coefficients), (None, None))
        if name is None:
            return
        fn, q = message["fn"], normal_of(self.posteriors[name]["fn"])
        mean = fn(*data, q.loc)
        variance = VARIANCE[fn](*data, jnp.square(q.scale))
        key = jax.random.fold_in(self.key, zlib.crc32(name.encode()) & 0x7FFFFFFF)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        # the inner choice keeps a row of zeros, whose root has no slope, differentiable
        positive = variance > 0
        deviation = jnp.where(
            positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0
        )
        message["value"] = mean + deviation * noise


def local_sites(
    model: Model,
    guide: Guide,
    call: Callable[[Any, Mapping[str, Any]], Any],
    rows: Mapping[str, Any],
) -> dict[str, str]:
    """site -> its estimator: local reparameterization where sound, or why it is not.

    A site qualifies when its guide is a Normal that no other guide site reads; when its
    value, itself and not something derived, is the coefficients of exactly one product
    linear in them, and enters nothing else; and when the log density is a sum over the
    rows of all such products. The first two are read off the traced program, the last
    is tested by moving rows of the products, one and two at a time, on made-up data.

    `call(fn, rows)` runs the model or guide on row arrays.
    """
    report: dict[str, str] = {}
    shapes = {k: (jnp.shape(v), jnp.result_type(v)) for k, v in rows.items()}
    with jax.ensure_compile_time_eval():
        small = {
            k: made_up(shape, dtype, i)
            for i, (k, (shape, dtype)) in enumerate(shapes.items())
        }
        q, _ = latent_values(guide, call, small)
        _, latent = latent_values(model, call, small)
        plain = "reparameterization"
        for name in latent:
            if name not in q:
                report[name] = f"{plain}: the guide draws it through another site"
            elif not is_normal(q[name]):
                report[name] = f"{plain}: its guide is no mean-field Normal"
        candidates = {k: v for k, v in latent.items() if k not in report}
        read = guide_reads(guide, call, small, candidates)
        uses, direct = model_uses(model, call, small, latent, candidates)
        for name in candidates:
            if name in read:
                report[name] = f"{plain}: another guide site reads it"
            elif uses.get(name, 0) == 0:
                report[name] = f"{plain}: it enters no product linear in it"
            elif uses[name] > 1:
                report[name] = f"{plain}: it enters {uses[name]} products"
            elif name in direct:
                report[name] = f"{plain}: it enters the density outside its product"
        kept = frozenset(k for k in candidates if k not in report)
        reason = row_interaction(model, call, small, latent, kept) if kept else None
        for name in kept:
            report[name] = LOCAL if reason is None else f"{plain}: {reason}"
    return {name: report[name] for name in latent}


TEST_ROWS = 3


def made_up(shape: tuple[int, ...], dtype: Any, index: int) -> Array:
    """A few rows of arbitrary numbers in the shape and type of an argument's."""
    shape = (TEST_ROWS, *shape[1:])
    if not jnp.issubdtype(dtype, jnp.floating):
        return jnp.zeros(shape, dtype)
    return jax.random.normal(jax.random.PRNGKey(index), shape, dtype)


def latent_values(
    fn: Model, call: Any, rows: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The distribution of every latent site, and a value drawn from it."""
    kinds: dict[str, Any] = {}

    def run() -> dict[str, Array]:
        with handlers.trace() as sites, handlers.seed(rng_seed=0):
            call(fn, rows)
        found = {
            k: site
            for k, site in sites.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        kinds.update((k, site["fn"]) for k, site in found.items())
        return {k: site["value"] for k, site in found.items()}

    return kinds, jax.jit(run)()


def is_normal(fn: Any) -> bool:
    """Whether a distribution is a Normal of independent entries."""
    return type(innermost(fn)) is dist.Normal


def innermost(fn: Any) -> Any:
    """A distribution without its batch and event wrappers."""
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn


def normal_of(fn: Any) -> dist.Normal:
    """The Normal inside, with parameters written out over all entries."""
    shape, fn = fn.shape(), innermost(fn)
    return dist.Normal(
        jnp.broadcast_to(fn.loc, shape), jnp.broadcast_to(fn.scale, shape)
    )


def guide_reads(
    guide: Guide, call: Any, rows: Mapping[str, Any], candidates: Mapping[str, Array]
) -> set[str]:
    """The candidates on whose value another guide site depends."""

    def flow(**values: Array) -> dict[str, Any]:
        with handlers.trace() as sites, handlers.seed(rng_seed=0):
            with handlers.substitute(data=values):
                call(guide, rows)
        return {
            name: jax.tree.leaves(site["fn"])
            for name, site in sites.items()
            if site["type"] == "sample"
        }

    found = eval_provenance(flow, **candidates) if candidates else {}
    leaves = {name: set().union(*inputs) for name, inputs in found.items() if inputs}
    return set().union(*(inputs - {name} for name, inputs in leaves.items()))


class Products(Messenger):
    """Watches products whose coefficients are sampled sites: counts, hides or moves them."""

    def __init__(
        self, sites: Mapping[str, Any], moves: Mapping[str, Array] | None = None
    ):
        super().__init__()
        self.sites, self.moves = sites, moves
        self.owners: dict[int, tuple[str, Array]] = {}
        self.uses: dict[str, int] = {}
        self.operands: list[Array] = []
        self.shapes: dict[str, tuple[int, ...]] = {}

    def postprocess_message(self, message: Any) -> None:
        if message["type"] == "sample" and message["name"] in self.sites:
            self.owners[id(message["value"])] = message["name"], message["value"]

    def process_message(self, message: Any) -> None:
        if message["type"] != "product" or message["fn"] not in VARIANCE:
            return
        *data, coefficients = message["args"]
        name, _ = self.owners.get(id(coefficients), (None, None))
        if name is None:
            return
        output = message["fn"](*data, jax.lax.stop_gradient(coefficients))
        self.uses[name] = self.uses.get(name, 0) + 1
        self.shapes[name] = jnp.shape(output)
        if self.moves is None:
            self.operands += data
            message["value"] = jnp.zeros_like(output)
        else:
            message["value"] = output + self.moves[name]


def model_uses(
    model: Model,
    call: Any,
    rows: Mapping[str, Any],
    latent: Mapping[str, Array],
    candidates: Mapping[str, Array],
) -> tuple[dict[str, int], set[str]]:
    """How many products each candidate enters, and which enter the density otherwise."""
    watch: Products

    def flow(**values: Array) -> Any:
        nonlocal watch
        watch = Products(candidates)
        with handlers.trace() as sites, handlers.seed(rng_seed=0), watch:
            with handlers.substitute(data=values):
                call(model, rows)
        densities = {
            name: (
                jax.tree.leaves(site["fn"]),
                site["value"] if site["is_observed"] else 0,
            )
            for name, site in sites.items()
            if site["type"] == "sample"
        }
        return densities, watch.operands

    if not candidates:
        return {}, set()
    found = eval_provenance(flow, **latent)
    is_leaf = lambda x: isinstance(x, frozenset)  # noqa: E731
    reads = set().union(*jax.tree.leaves(found, is_leaf=is_leaf))
    return watch.uses, reads


def row_interaction(
    model: Model,
    call: Any,
    rows: Mapping[str, Any],
    latent: Mapping[str, Array],
    sites: frozenset[str],
) -> str | None:
    """None where the log density is a sum over product rows, else why that is unclear.

    A sum over rows has no mixed difference: L(a + b) - L(a) - L(b) + L(0) = 0 for moves a
    and b of two different rows.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def density(moves: Mapping[str, Any]) -> Array:
        watch = Products(sites, moves)
        with handlers.trace() as traced, handlers.seed(rng_seed=0), watch:
            with handlers.substitute(data=dict(latent)):
                call(model, rows)
        shapes.update(watch.shapes)
        terms = [
            jnp.sum(site["fn"].log_prob(site["value"]))
            for site in traced.values()
            if site["type"] == "sample"
        ]
        return sum(terms, start=jnp.zeros(()))

    jax.eval_shape(density, dict.fromkeys(sites, 0.0))
    if any(shape[-2] != TEST_ROWS for shape in shapes.values()):
        return "its product has not one row for each row of the data"
    keys = jax.random.split(jax.random.PRNGKey(0), len(shapes))
    noise = {
        name: jax.random.normal(key, shapes[name])
        for key, name in zip(keys, sorted(shapes), strict=True)
    }
    compiled = jax.jit(density)

    def move(*which: int) -> float:
        chosen = jnp.isin(jnp.arange(TEST_ROWS), jnp.array(which, int))[:, None]
        return float(compiled({k: jnp.where(chosen, v, 0.0) for k, v in noise.items()}))

    start, alone = move(), [move(row) for row in range(TEST_ROWS)]
    for a in range(TEST_ROWS):
        for b in range(a):
            mixed = move(a, b) - alone[a] - alone[b] + start
            size = 1.0 + abs(start) + abs(alone[a]) + abs(alone[b])
            if not abs(mixed) <= 1e-4 * size:  # NaN is no proof either
                return "rows may interact after its product"
    return None
