"""Where local reparameterization is sound: shown by a program's flow, and by trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # JAX up to 0.9 keeps it elsewhere
    from jax.core import get_opaque_trace_state

from lamina._typing import Array, Guide, Model
from lamina.handlers.local import VARIANCE, innermost
from lamina.handlers.rows import num_rows_of, site_shapes

Call = Callable[[Any, Mapping[str, Any]], Any]

LOCAL = "local reparameterization"
PLAIN = "reparameterization"
TEST_ROWS = 16


def local_sites(
    model: Model,
    guide: Guide,
    call: Callable[[Any, Mapping[str, Any]], Any],
    rows: Mapping[str, Any],
    others: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """site -> its estimator: local reparameterization where sound, or why it is not.

    A site qualifies when its guide is a Normal that no other guide site reads; when its
    value, itself and not something derived, is the coefficients of exactly one product
    linear in them, and enters nothing else; and when the log density is a sum over the
    rows of all such products. The first two are read off the traced program; the last
    is tested on a few made-up rows, see `row_interaction`.

    `call(fn, rows)` runs the model or guide on row arrays; `others` are further arrays
    that it takes, of any length, whose numbers are not known yet. `params` are the
    guide's parameters, of which only the shapes count.
    """
    data = {**rows, **(others or {})}
    n = num_rows_of(rows)
    traced = site_shapes(lambda given: call(model, given), rows, n)
    names = [
        name
        for name, site in traced.items()
        if site["type"] == "sample" and not site["is_observed"]
    ]
    tracing = isinstance(jnp.zeros(()), jax.core.Tracer)
    escape = jax.ensure_compile_time_eval() if tracing else nullcontext()
    try:
        with escape, numpyro.validation_enabled(False):
            known = {k: np.ones(jnp.shape(v)) for k, v in (params or {}).items()}
            guide = handlers.substitute(guide, data=known)
            report = examine(model, guide, call, data, frozenset(rows))
            return {name: report[name] for name in names}
    except Exception as error:
        # made-up rows may not suit a model; then nothing is shown to be sound
        why = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        unknown = f"{PLAIN}: the model could not be examined on made-up rows ({why})"
        return dict.fromkeys(names, unknown)


def examine(
    model: Model,
    guide: Guide,
    call: Call,
    data: Mapping[str, Any],
    rows: frozenset[str],
) -> dict[str, str]:
    """`local_sites` by running model and guide on a few made-up rows."""
    report: dict[str, str] = {}
    few = made_up(data, rows, TEST_ROWS, "reals", "zeros")
    latent = jax.jit(partial(latent_values, model, call))(few)
    posteriors: dict[str, Any] = {}
    jax.eval_shape(partial(latent_values, guide, call, kinds=posteriors), few)
    for name in latent:
        if name not in posteriors:
            report[name] = f"{PLAIN}: the guide draws it through another site"
        elif type(innermost(posteriors[name])) is not dist.Normal:
            report[name] = f"{PLAIN}: its guide is no mean-field Normal"
    candidates = {k: v for k, v in latent.items() if k not in report}
    read_in_guide = sites_read(guide, call, few, candidates, Products({}))
    watch = Products(candidates)
    direct = sites_read(model, call, few, candidates, watch)
    for name in candidates:
        uses = watch.uses.get(name, 0)
        if name in read_in_guide:
            report[name] = f"{PLAIN}: another guide site reads it"
        elif uses == 0:
            report[name] = f"{PLAIN}: it enters no product linear in it"
        elif uses > 1:
            report[name] = f"{PLAIN}: it enters {uses} products"
        elif name in watch.transformed:
            report[name] = f"{PLAIN}: its product runs inside a scan, map or jit"
        elif name in direct:
            report[name] = f"{PLAIN}: it enters the density outside its product"
    kept = frozenset(candidates) - set(report)
    reason = row_interaction(model, call, data, rows, latent, kept) if kept else None
    for name in kept:
        report[name] = LOCAL if reason is None else f"{PLAIN}: {reason}"
    return report


def made_up(
    data: Mapping[str, Any], rows: frozenset[str], n: int, floats: str, integers: str
) -> dict[str, np.ndarray]:
    """Arbitrary numbers in the shapes and types of `data`, with `n` entries where rows.

    `floats` are "reals", "positive" or between 0 and 1 ("unit"); `integers` are "zeros",
    which every table has, or "mixed", zeros and ones in an order of each array's own;
    flags are all true, so that no mask hides a row, or mixed.
    """
    random, found = np.random.default_rng(0), {}
    numbers: Any
    for name, value in data.items():
        shape, dtype = jnp.shape(value), jnp.result_type(value)
        shape = (n, *shape[1:]) if name in rows else shape
        if jnp.issubdtype(dtype, jnp.floating):
            numbers = random.normal(size=shape)
            if floats != "reals":
                numbers = np.exp(numbers)
            if floats == "unit":
                numbers = numbers / (1.0 + numbers)
        elif integers == "mixed":
            numbers = random.integers(2, size=shape)
        else:
            numbers = np.full(shape, jnp.issubdtype(dtype, np.bool_))
        found[name] = np.asarray(numbers, dtype)
    return found


def latent_values(
    fn: Model, call: Call, data: Mapping[str, Any], kinds: dict[str, Any] | None = None
) -> dict[str, Array]:
    """A draw of every latent site; `kinds` is filled with their distributions."""
    with handlers.trace() as sites, handlers.seed(rng_seed=0):
        call(fn, data)
    latent = {
        name: site
        for name, site in sites.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    if kinds is not None:
        kinds.update((name, site["fn"]) for name, site in latent.items())
    return {name: site["value"] for name, site in latent.items()}


class Products(Messenger):
    """Watches products whose coefficients are sampled sites: counts, and hides or moves.

    Without `moves` a product is computed from `sites`' known values, so that what it
    gives depends on its data alone; with them, each row of what it gives is moved.
    """

    def __init__(
        self, sites: Mapping[str, Array], moves: Mapping[str, Array] | None = None
    ) -> None:
        super().__init__()
        self.sites, self.moves = sites, moves
        self.owners: dict[int, tuple[str, Array, Any]] = {}
        self.uses: dict[str, int] = {}
        self.transformed: set[str] = set()
        self.shapes: dict[str, tuple[int, ...]] = {}

    def postprocess_message(self, message: Any) -> None:
        if message["type"] == "sample" and message["name"] in self.sites:
            value = message["value"]
            here = get_opaque_trace_state()
            self.owners[id(value)] = message["name"], value, here

    def process_message(self, message: Any) -> None:
        if message["type"] != "product" or message["fn"] not in VARIANCE:
            return
        *data, coefficients = message["args"]
        if id(coefficients) not in self.owners:
            return
        name, _, sampled = self.owners[id(coefficients)]
        if sampled != get_opaque_trace_state():
            self.transformed.add(name)
        output = message["fn"](*data, self.sites[name])
        self.uses[name] = self.uses.get(name, 0) + 1
        self.shapes[name] = jnp.shape(output)
        if self.moves is not None:
            output = output + self.moves[name]
        message["value"] = output


def sites_read(
    fn: Model,
    call: Call,
    data: Mapping[str, Any],
    candidates: Mapping[str, Array],
    watch: Products,
) -> set[str]:
    """The candidates that densities depend on, their own and hidden products apart."""

    def flow(data: Mapping[str, Any], **values: Array) -> list[Any]:
        values = {name[1:]: value for name, value in values.items()}
        with handlers.trace() as sites, handlers.seed(rng_seed=0), watch:
            with handlers.substitute(data=values):
                call(fn, data)
        return [
            (
                site["fn"].log_prob(own(site)),
                0.0 if site["scale"] is None else site["scale"],
            )
            for site in sites.values()
            if site["type"] == "sample"
        ]

    def own(site: Any) -> Any:
        value = site["value"]
        return value if site["is_observed"] else jnp.zeros_like(value)

    # a mark before each name, as sites may be called `fn` or `data`
    marked = {f"={name}": value for name, value in candidates.items()}
    found = eval_provenance(flow, data=dict(data), **marked)
    inputs = set().union(*(density | scale for density, scale in found))
    return {name[1:] for name in inputs if name != "data"}


def row_interaction(
    model: Model,
    call: Call,
    data: Mapping[str, Any],
    rows: frozenset[str],
    latent: Mapping[str, Array],
    sites: frozenset[str],
) -> str | None:
    """None where the log density is a sum over product rows, else why that is unclear.

    Rows of the products are moved by noise. A sum over rows has no mixed difference,
    L(a + b) - L(a) - L(b) + L(0) = 0 for moves a and b of two rows, which is tested site
    by site; and moving one row leaves the slope along another exactly as it was, which
    shows an interaction however small. Several kinds of made-up data are tried, as an
    outcome may have to be positive, and row numbers among the data must differ to matter.
    """
    values = {name: latent[name] for name in sites}
    shapes = [
        product_shapes(model, call, data, rows, latent, values, n)
        for n in (TEST_ROWS, 2 * TEST_ROWS)
    ]
    if any(
        (shapes[0][name][-2], shapes[1][name][-2]) != (TEST_ROWS, 2 * TEST_ROWS)
        for name in sites
    ):
        return "its product has not one row for each row of the data"

    def densities(data: Mapping[str, Any], moves: Mapping[str, Array]) -> Array:
        watch = Products(values, moves)
        with handlers.trace() as traced, handlers.seed(rng_seed=0), watch:
            with handlers.substitute(data=dict(latent)):
                call(model, data)
        return jnp.stack(
            [
                jnp.sum(site["fn"].log_prob(site["value"]))
                for site in traced.values()
                if site["type"] == "sample"
            ]
        )

    @jax.jit
    def test(
        data: Mapping[str, Any], noise: Mapping[str, Array]
    ) -> tuple[Array, Array, Array, Array]:
        """Whether all is finite, which rows are read, the largest mixed difference and
        the largest cross slope.
        """

        def move(chosen: Array) -> dict[str, Array]:
            return {k: v * chosen[:, None] for k, v in noise.items()}

        one = jnp.eye(TEST_ROWS)
        a, b = jnp.triu_indices(TEST_ROWS, 1)
        level = jax.vmap(lambda chosen: densities(data, move(chosen)))
        start, alone, both = level(0 * one[:1]), level(one), level(one[a] + one[b])
        mixed = both - alone[a] - alone[b] + start
        size = 1.0 + abs(both) + abs(alone[a]) + abs(alone[b]) + abs(start)

        def change(row: Array) -> Array:
            """How the slopes along the other rows change with a move of this row."""
            towards = move(row)

            def along(moves: Mapping[str, Array]) -> Array:
                slopes = jax.grad(lambda m: densities(data, m).sum())(moves)
                return sum(
                    (jnp.sum(slopes[k] * towards[k]) for k in slopes), jnp.zeros(())
                )

            found = jax.grad(along)(dict(noise))
            return jnp.stack(
                [jnp.max(abs(v) * (1.0 - row)[:, None]) for v in found.values()]
            ).max()

        cross = jax.vmap(change)(one)
        finite = jnp.isfinite(mixed).all() & jnp.isfinite(cross).all()
        read = (alone != start).any(axis=1)
        return finite, read, jnp.max(abs(mixed) / size), jnp.max(cross)

    read, float_type = np.zeros(TEST_ROWS, bool), jnp.result_type(float)
    tested = False
    for trial, (floats, integers) in enumerate(
        product(("reals", "positive", "unit"), ("zeros", "mixed"))
    ):
        few = made_up(data, rows, TEST_ROWS, floats, integers)
        random = np.random.default_rng(trial)
        noise = {
            name: np.asarray(random.normal(size=shapes[0][name]), float_type)
            for name in sorted(sites)
        }
        finite, moving, mixed, cross = test(few, noise)
        if finite and (mixed > 1e-4 or cross > 0.0):
            return "rows interact after its product"
        if finite:
            tested, read = True, read | np.asarray(moving)
    if not tested:
        return "no made-up rows give a finite density, so rows may interact"
    if not read.all():
        return "not every row of its product enters the density, so rows may interact"
    return None


def product_shapes(
    model: Model,
    call: Call,
    data: Mapping[str, Any],
    rows: frozenset[str],
    latent: Mapping[str, Array],
    values: Mapping[str, Array],
    n: int,
) -> dict[str, tuple[int, ...]]:
    """The shape of what each product gives at `n` rows."""
    watch = Products(values)

    def run(data: Mapping[str, Any]) -> None:
        with handlers.seed(rng_seed=0), watch:
            with handlers.substitute(data={k: latent[k] for k in values}):
                call(model, data)

    jax.eval_shape(run, made_up(data, rows, n, "reals", "zeros"))
    return watch.shapes
