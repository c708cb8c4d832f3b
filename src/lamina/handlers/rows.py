"""Row weights: scale the sites that hold rows by N / B, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions.distribution import Unit
from numpyro.ops.provenance import eval_provenance

from lamina._typing import Model
from lamina.effects import ROW_FACTOR

Call = Callable[[Mapping[str, Any]], Any]


class row_weights(handlers.scale):
    """Scale the named sites by `weight`, on top of every other scale, mask and plate.

    With `weight` = N / B and `sites` from `row_sites`, the expected log density of a
    random minibatch of B rows is that of all N. It wraps model and guide alike, whatever
    the ELBO: a site named nowhere is left alone.
    """

    def __init__(
        self, fn: Model | None = None, *, weight: float, sites: frozenset[str]
    ) -> None:
        super().__init__(fn, scale=weight)
        self.sites = frozenset(sites)

    def process_message(self, message: Any) -> None:
        if message["type"] == "sample" and message["name"] in self.sites:
            super().process_message(message)


def row_sites(
    model: Model,
    rows: Mapping[str, Any],
    constants: Mapping[str, Any] | None = None,
    *,
    num_obs: int | None = None,
) -> dict[str, str]:
    """The sites of a model or guide whose log density is a sum over rows.

    The shapes of all sites are traced, without computing, at two numbers of rows: a site
    whose number of entries follows is a row site, "observed" or "latent". Sites inside a
    subsampled plate are not: NumPyro scales them itself. Nor are `numpyro.factor`s; one
    that reads rows gets a warning.

    `rows` are arrays with one entry for each row (or their shapes); `constants` are the
    other arguments.

    Raises: ValueError where a minibatch would give a wrong ELBO: a parameter with a value
    for each row, one joint density over rows, a site that grows otherwise than by rows,
    a subsampled plate of another size than `num_obs`, or rows that it would pick a second
    time.
    """
    return find_row_sites(
        lambda data: model(**data, **(constants or {})), rows, num_obs=num_obs
    ).weighted


@dataclass(frozen=True)
class RowSites:
    """Sites that hold rows.

    `weighted` are those to weight, "observed" or "latent"; `plated` are latent sites that
    a subsampled plate over the batch scales already.
    """

    weighted: dict[str, str]
    plated: frozenset[str]

    @property
    def latent(self) -> frozenset[str]:
        """Every latent site with a value for each row."""
        return self.plated | {
            k for k, kind in self.weighted.items() if kind == "latent"
        }


def find_row_sites(
    call: Call, rows: Mapping[str, Any], *, num_obs: int | None = None
) -> RowSites:
    """`row_sites` for a model or guide given as a function of its rows."""
    n = num_rows_of(rows)
    now = site_shapes(call, rows, n)
    other, m = _another_count(call, rows, n, num_obs)

    def grows(name: str) -> bool:
        return name in other and _shape(now[name]) != _shape(other[name])

    plates = {k: site for k, site in now.items() if site["type"] == "plate"}
    subsampled = {k for k, plate in plates.items() if _size(plate) != plate["args"][0]}
    over_rows = {k for k in subsampled if grows(k)}
    for name in over_rows:
        size, taken = plates[name]["args"][0], _size(plates[name])
        if num_obs is not None and size * n != num_obs * taken:
            raise ValueError(
                f"plate {name!r} holds {taken} of {size} entries, but the batch holds {n} "
                f"of {num_obs} rows, so its sites would weigh {size / taken:.4g} instead "
                f"of {num_obs / n:.4g}. Give the plate the size of all the data."
            )
    depends = _dependence(call, rows, n, subsampled, now, filter(grows, now))
    found: dict[str, str] = {}
    plated: set[str] = set()
    for name, site in now.items():
        if site["type"] == "param" and grows(name):
            raise ValueError(
                f"parameter {name!r} has shape {jnp.shape(site['value'])}, a value for "
                "each row of the batch, which the next batch would reuse for other "
                "rows. Amortise it: compute it from the rows by a function whose "
                "parameters all rows share."
            )
        if site["type"] != "sample":
            continue
        frames = {frame.name for frame in site["cond_indep_stack"]}
        reads = depends[name]
        inside = bool(frames & over_rows)
        if "plates" in reads and (inside or "rows" in reads):
            raise ValueError(
                f"site {name!r} picks rows by the indices of its subsampled plate, but "
                "the batches that it gets are picked already: the indices stand for "
                "other rows, or run past the batch. Take the batch as it comes and use "
                "the plate for its scale only, or drop the plate."
            )
        if site["infer"].get(ROW_FACTOR) and not inside:
            found[name] = "observed"
        elif inside:
            if not site["is_observed"]:
                plated.add(name)
        elif is_factor(site) and "rows" in reads:
            warnings.warn(
                f"numpyro.factor {name!r} reads the rows of the batch and is not "
                "weighted, so in a minibatch it counts for less than in the full "
                "data. Use lamina.row_factor if it is a sum over rows; if it is "
                "not, ignore this warning.",
                stacklevel=2,
            )
        elif grows(name) and not is_factor(site):
            _require_sum_over_rows(name, site, other[name], n, m)
            found[name] = "observed" if site["is_observed"] else "latent"
        elif "rows" in reads:
            warnings.warn(
                f"site {name!r} has no entry for each row, yet its density reads the "
                "rows of the batch, so in a minibatch it stands for those rows only, "
                "and no weight can mend that. Compute what it needs from all rows "
                "beforehand and pass that as a constant, or use all rows.",
                stacklevel=2,
            )
    return RowSites(found, frozenset(plated))


def num_rows_of(rows: Mapping[str, Any]) -> int:
    """The common number of rows; ValueError where it differs."""
    lengths = {name: jnp.shape(value)[0] for name, value in rows.items()}
    if not lengths:
        raise ValueError(
            "no argument holds rows, so there is nothing to take batches of. Pass data "
            "arrays with one entry for each row."
        )
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"the row arrays have different lengths: {lengths}. A batch takes the same "
            "rows of each: give all the same length, and pass other arrays as constants."
        )
    return next(iter(lengths.values()))


def site_shapes(call: Call, rows: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Every site at `n` rows, by name, traced without computing."""
    found: dict[str, Any] = {}

    def run(data: Mapping[str, Any]) -> None:
        with handlers.block(), handlers.trace() as sites, handlers.seed(rng_seed=0):
            with handlers.block(hide_fn=lambda m: m["type"] == "mutable"):
                call(data)
        found.update(sites)

    jax.eval_shape(run, {k: abstract_rows(v, n) for k, v in rows.items()})
    return found


def abstract_rows(value: Any, n: int) -> jax.ShapeDtypeStruct:
    """The shape that `value` has at `n` rows."""
    dtype = jax.dtypes.canonicalize_dtype(
        getattr(value, "dtype", None) or jnp.result_type(value)
    )
    return jax.ShapeDtypeStruct((n, *jnp.shape(value)[1:]), dtype)


def _another_count(
    call: Call, rows: Mapping[str, Any], n: int, num_obs: int | None
) -> tuple[dict[str, Any], int]:
    """Sites at another number of rows: twice as many, or else half."""
    fits = [m for m in (2 * n, n // 2) if m >= 1 and (num_obs is None or m <= num_obs)]
    error: Exception | None = None
    for m in fits or [n + 1]:
        try:
            return site_shapes(call, rows, m), m
        except Exception as failed:
            error = failed
    raise ValueError(
        f"the model runs with {n} rows but not with {fits or [n + 1]}, so its sites "
        "cannot be told apart by whether they hold rows, and a minibatch would be "
        "guesswork. Take the number of rows from the data (x.shape[0]), and pass arrays "
        f"that have rows as data. The model said: {error}"
    ) from error


def is_factor(site: Any) -> bool:
    """Whether a sample site is a `numpyro.factor`, plates and masks around it or not."""
    return isinstance(_base(site["fn"]), Unit)


def _base(fn: Any) -> Any:
    wrappers = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)
    while isinstance(fn, wrappers):
        fn = fn.base_dist
    return fn


def entries_by_row(sites: Mapping[str, Any], n: int) -> dict[str, Any]:
    """site -> its log density with the rows in front, where it has one axis of `n`."""
    found = {}
    for name, site in sites.items():
        if site["type"] != "sample" or not site["is_observed"] or is_factor(site):
            continue
        terms = _base(site["fn"]).log_prob(site["value"])
        axes = [axis for axis, size in enumerate(jnp.shape(terms)) if size == n]
        if len(axes) == 1:
            found[name] = jnp.moveaxis(terms, axes[0], 0)
    return found


def _size(plate: Any) -> int:
    return jnp.shape(plate["value"])[0]


def _shape(site: Any) -> tuple[int, ...]:
    if site["type"] != "sample":
        return jnp.shape(site["value"])
    return jnp.broadcast_shapes(jnp.shape(site["value"]), site["fn"].shape())


def _require_sum_over_rows(name: str, site: Any, other: Any, n: int, m: int) -> None:
    """Raise unless the site is a sum over rows with the same number of entries for each."""
    a, b = _shape(site), _shape(other)
    grown = [axis for axis, (i, j) in enumerate(zip(a, b, strict=True)) if i != j]
    if len(grown) > 1:
        raise ValueError(
            f"site {name!r} has shape {a} at {n} rows: it sets rows against rows, so it "
            "is no sum over rows and cannot be weighted in a minibatch. Use all rows "
            "(a batch as large as the data)."
        )
    axis = grown[0]
    if a[axis] * m != b[axis] * n:
        raise ValueError(
            f"site {name!r} has {a[axis]} entries at {n} rows and {b[axis]} at {m}: not "
            "the same number for each row, so a minibatch would not stand for all rows. "
            "Use all rows (a batch as large as the data), or give each row its own term."
        )
    if axis >= len(a) - _base(site["fn"]).event_dim:
        raise ValueError(
            f"site {name!r} is one joint {type(_base(site['fn'])).__name__} over all "
            f"{a[axis]} rows: it is no sum over rows and cannot be weighted in a "
            "minibatch. Use all rows (a batch as large as the data)."
        )


def _dependence(
    call: Call,
    rows: Mapping[str, Any],
    n: int,
    subsampled: set[str],
    now: Mapping[str, Any],
    growing: Iterable[str],
) -> dict[str, frozenset[str]]:
    """name -> which of "rows" and "plates" the density of a site depends on.

    Latent values and parameters are inputs here, so that nothing is passed on through
    them; those with rows count as rows.
    """

    def free(site: Any) -> bool:
        latent = site["type"] == "sample" and not site["is_observed"]
        return latent or site["type"] == "param"

    def shapes(names: Iterable[str]) -> dict[str, jax.ShapeDtypeStruct]:
        values = {name: now[name]["value"] for name in names if free(now[name])}
        return {k: jax.typeof(v) for k, v in values.items()}

    def flow(rows: Any, plates: Mapping[str, Any]) -> dict[str, Any]:
        data, latent = rows
        fixed = {k: jnp.zeros(v.shape, v.dtype) for k, v in shapes(now).items()}
        given = {**fixed, **latent, **plates}
        with handlers.block(), handlers.trace() as sites, handlers.seed(rng_seed=0):
            with handlers.substitute(data=given):
                call(data)
        return {
            name: (
                site["fn"].log_prob(site["value"]),
                1.0 if site["scale"] is None else site["scale"],
            )
            for name, site in sites.items()
            if site["type"] == "sample"
        }

    index = jnp.result_type(int)
    found = eval_provenance(
        flow,
        rows=({k: abstract_rows(v, n) for k, v in rows.items()}, shapes(growing)),
        plates={k: jax.ShapeDtypeStruct((_size(now[k]),), index) for k in subsampled},
    )
    return {name: density | scale for name, (density, scale) in found.items()}
