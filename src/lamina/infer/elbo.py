"""Objectives: an ordered ELBO, its weighted form, and local reparameterization."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import random
from numpyro import handlers
from numpyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from numpyro.infer.autoguide import AutoGuide
from numpyro.infer.elbo import ELBO
from numpyro.infer.util import compute_log_probs
from numpyro.primitives import Messenger
from numpyro.util import _validate_model, check_model_guide_match

from lamina._checks import positive_size
from lamina._typing import Array, Guide, Model
from lamina.handlers.local import local_reparameterization
from lamina.handlers.rows import RowSites, find_row_sites, row_weights
from lamina.handlers.soundness import LOCAL, local_sites
from lamina.infer.arguments import Arguments, split_arguments


class OrderedTrace_ELBO(Trace_ELBO):
    """NumPyro's `Trace_ELBO`, with its sites summed in the order of the program.

    NumPyro sums them over a Python set, so that the last digits of a loss, and with them
    the key of a compilation cache, depend on PYTHONHASHSEED. The value is the same.

    Source: Ranganath, Gerrish and Blei (2014), Black Box Variational Inference, eq. 1,
    with reparameterized gradients.
    """

    def loss_with_mutable_state(
        self,
        rng_key: Array,
        param_map: dict[str, Array],
        model: Model,
        guide: Guide,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if self.multi_sample_guide or not self.sum_sites:
            return super().loss_with_mutable_state(
                rng_key, param_map, model, guide, *args, **kwargs
            )

        def particle(key: Array) -> tuple[Array, dict[str, Any] | None]:
            model_key, guide_key = random.split(key)
            guide_terms, q = compute_log_probs(
                handlers.seed(guide, guide_key), args, kwargs, param_map
            )
            mutable = mutable_values(q)
            model_terms, p = compute_log_probs(
                handlers.replay(handlers.seed(model, model_key), q),
                args,
                kwargs,
                {**param_map, **mutable},
            )
            check_model_guide_match(p, q)
            _validate_model(p, plate_warning="loose")
            mutable |= mutable_values(p)
            elbo = sum(model_terms.values(), start=jnp.array(0.0))
            elbo = elbo - sum(guide_terms.values(), start=jnp.array(0.0))
            return elbo, mutable or None

        if self.num_particles == 1:
            elbo, mutable = particle(rng_key)
            return {"loss": -elbo, "mutable_state": mutable}
        elbos, mutable = self.vectorize_particles_fn(
            particle, random.split(rng_key, self.num_particles)
        )
        if mutable:
            warnings.warn("several particles keep no mutable state.", stacklevel=2)
        return {"loss": -jnp.mean(elbos), "mutable_state": None}


class Batched_Trace_ELBO(OrderedTrace_ELBO):
    r"""The ELBO of `num_obs` rows, estimated from a minibatch of them.

    $$\hat{\mathcal L} = \frac{N}{B} \sum_{n \in \text{batch}}
      \log p(y_n \mid z) + \log p(z) - \log q(z)$$

    Only sites that hold rows are weighted by N / B, observed ones and amortised latent
    ones, on top of their plates' scales, masks and `handlers.scale`. Everything else
    counts once: global latents and observations, sites of subsampled plates (NumPyro
    scales those), and `numpyro.factor` (see `lamina.row_factor`).

    Arguments of one leading length hold rows. `batch_size` says which do where lengths
    differ, and `constants` (names, or positions) which do not: one that is as long as the
    batch by chance cannot be told from it. B is read off the batch, so a batch of any size
    is weighted right.

    Raises: ValueError where no weight would be right: see `lamina.handlers.row_sites`.
    Source: Hoffman, Blei, Wang and Paisley (2013), Stochastic Variational Inference,
    section 2.3.
    """

    weighs_rows = True

    def __init__(
        self,
        num_obs: int,
        num_particles: int = 1,
        batch_size: int | None = None,
        *,
        constants: Iterable[str | int] = (),
    ) -> None:
        super().__init__(
            positive_size("Batched_Trace_ELBO", "num_particles", num_particles)
        )
        self.num_obs = positive_size("Batched_Trace_ELBO", "num_obs", num_obs)
        self.batch_size, self.constants = batch_size, tuple(constants)
        if batch_size is not None:
            positive_size("Batched_Trace_ELBO", "batch_size", batch_size)

    def loss_with_mutable_state(
        self,
        rng_key: Array,
        param_map: dict[str, Array],
        model: Model,
        guide: Guide,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        data = split_arguments(
            args,
            kwargs,
            batch_size=self.batch_size,
            num_obs=self.num_obs,
            constants=self.constants,
        )
        model, guide = weigh_rows(
            model, guide, data.call, data.rows, self.num_obs, param_map
        )
        return super().loss_with_mutable_state(
            rng_key, param_map, model, guide, *args, **kwargs
        )


class LocalReparameterization_ELBO(TraceMeanField_ELBO):
    """The mean-field ELBO, sampling products instead of coefficients where that is sound.

    Divergences are analytic where NumPyro knows them. Sites where local
    reparameterization would be unsound (see `lamina.handlers.soundness`) keep the plain
    estimator; `estimators` tells which site has which, after the first loss.

    Source: Kingma, Salimans and Welling (2015), Variational Dropout and the Local
    Reparameterization Trick, section 2.
    """

    def __init__(self, num_particles: int = 1, batch_size: int | None = None) -> None:
        super().__init__(num_particles)
        self.batch_size = batch_size
        self._reports: dict[Any, dict[str, str]] = {}
        self.estimators: dict[str, str] = {}

    def loss_with_mutable_state(
        self,
        rng_key: Array,
        param_map: dict[str, Array],
        model: Model,
        guide: Guide,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        data = split_arguments(args, kwargs, batch_size=self.batch_size)
        self.report(param_map, model, guide, data)
        posteriors: dict[str, Any] = {}

        def watched(*args: Any, **kwargs: Any) -> None:
            posteriors.update(handlers.trace(guide).get_trace(*args, **kwargs))

        local = local_reparameterization(
            model,
            posteriors=posteriors,
            sites=frozenset(k for k, v in self.estimators.items() if v == LOCAL),
        )
        return super().loss_with_mutable_state(
            rng_key, param_map, local, watched, *args, **kwargs
        )

    def prepare(
        self,
        param_map: Mapping[str, Array],
        model: Model,
        guide: Guide,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Find the estimators on data at hand: much faster than while JAX traces."""
        data = split_arguments(args, kwargs, batch_size=self.batch_size)
        self.report(param_map, model, guide, data)

    def report(
        self, params: Mapping[str, Array], model: Model, guide: Guide, data: Arguments
    ) -> None:
        """Fill `estimators`, found once for each model, guide and kind of data."""
        kinds = tuple(
            (str(i) in data.rows, v.shape[str(i) in data.rows :], str(v.dtype))
            if hasattr(v, "dtype")
            else v
            for i, v in enumerate(data.leaves)
        )
        key = (unwrapped(model), unwrapped(guide), data.tree, kinds)
        if key not in self._reports:
            self._reports[key] = local_sites(
                model, guide, data.call, data.rows, data.unknown, params
            )
        self.estimators.clear()
        self.estimators.update(self._reports[key])


def mutable_values(trace: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trace's mutable sites."""
    return {k: site["value"] for k, site in trace.items() if site["type"] == "mutable"}


def unwrapped(fn: Any) -> Any:
    """What a handler wraps, as far as row weights go: the same in every trace."""
    while isinstance(fn, row_weights):
        fn = fn.fn
    return fn


def has_row_weights(fn: Any) -> bool:
    """Whether one of the handlers around a model or guide weights rows already."""
    while isinstance(fn, Messenger):
        if isinstance(fn, row_weights):
            return True
        fn = fn.fn
    return False


def weigh_rows(
    model: Model,
    guide: Guide,
    call: Callable[[Any, Mapping[str, Any]], Any],
    rows: Mapping[str, Any],
    num_obs: int,
    params: Mapping[str, Any] | None = None,
) -> tuple[Model, Guide]:
    """Model and guide with their row sites scaled by `num_obs` / (rows in the batch).

    Raises: ValueError where no weight would be right.
    """
    batch = jnp.shape(next(iter(rows.values())))[0]
    if batch > num_obs:
        raise ValueError(
            f"the batch has {batch} rows, more than the num_obs={num_obs} of all data, so "
            "a row would weigh less than one. Give num_obs the number of all rows."
        )
    if batch == num_obs or has_row_weights(model) or has_row_weights(guide):
        return model, guide
    sites = weighted_sites(model, guide, call, rows, num_obs, params)
    weight = num_obs / batch
    return (
        row_weights(model, weight=weight, sites=sites),
        row_weights(guide, weight=weight, sites=sites),
    )


def weighted_sites(
    model: Model,
    guide: Guide,
    call: Callable[[Any, Mapping[str, Any]], Any],
    rows: Mapping[str, Any],
    num_obs: int | None = None,
    params: Mapping[str, Any] | None = None,
) -> frozenset[str]:
    """The row sites of a model and its guide; latent ones need an amortised guide."""

    def with_params(fn: Any) -> Any:
        return handlers.substitute(fn, data=dict(params or {}))

    def found(fn: Any) -> RowSites:
        return find_row_sites(
            lambda data: call(with_params(fn), data), rows, num_obs=num_obs
        )

    in_model = found(model)
    # an automatic guide reads no data: a latent value for each row is a parameter there
    automatic = isinstance(guide, AutoGuide)
    in_guide = RowSites({}, frozenset()) if automatic else found(guide)
    orphans = sorted(in_model.latent - in_guide.latent)
    if orphans:
        raise ValueError(
            f"{orphans}: latent values for each row of the batch, but the guide has none "
            "that follow the rows. A minibatch would reuse one batch's values for the "
            "next batch's rows. Compute their posterior from the rows in a hand-written "
            "guide (amortise it), or use all rows."
        )
    return frozenset(in_model.weighted) | frozenset(in_guide.weighted)


def require_weightable(loss: ELBO) -> None:
    """Raise for objectives that no weight can make right in a minibatch."""
    if isinstance(loss, RenyiELBO):
        raise ValueError(
            "RenyiELBO is biased in minibatches, whatever the weights: its bound is no "
            "sum over rows. Use all rows (a batch as large as the data) or Trace_ELBO."
        )


def for_batches(loss: ELBO, num_obs: int, batch_size: int) -> ELBO:
    """`loss` for a loop that knows its rows and weights them itself.

    `Trace_ELBO` and `Batched_Trace_ELBO` become the ordered ELBO; local
    reparameterization is told which arguments hold rows; any other stays as it is.

    Raises: ValueError where the loss was made for another number of rows.
    """
    said = getattr(loss, "num_obs", num_obs)
    if said != num_obs:
        raise ValueError(
            f"{type(loss).__name__} has num_obs={said}, but the data have {num_obs} rows, "
            f"so every row would weigh {said / num_obs:.3g} times what it should. Give "
            f"num_obs={num_obs}, or Trace_ELBO(), which the loop weights by itself."
        )
    plain = type(loss) in (Trace_ELBO, Batched_Trace_ELBO)
    if plain and loss.sum_sites and not loss.multi_sample_guide:
        return OrderedTrace_ELBO(loss.num_particles, loss.vectorize_particles)
    if isinstance(loss, LocalReparameterization_ELBO):
        loss = copy.copy(loss)  # its reports stay shared
        loss.batch_size = batch_size
    return loss


def estimators_of(loss: ELBO, names: Iterable[str]) -> dict[str, str]:
    """site -> the gradient estimator that a loss used for it."""
    known = getattr(loss, "estimators", {})
    return {name: known.get(name, "reparameterization") for name in names}
