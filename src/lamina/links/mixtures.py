"""A mixture of links: each row's outcome comes from one of several families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Unpack

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from numpyro.distributions import Distribution, constraints
from numpyro.primitives import Messenger

from lamina._typing import Array, Shape
from lamina.links.categories import learned_or_known_shares
from lamina.links.outcome import Options, Outcome
from lamina.links.parameters import like, parameter
from lamina.links.tails import Tails, is_discrete, log_tails


def mixture_link(
    components: Sequence[Callable[..., Any]],
    y: Any = None,
    *,
    name: str = "obs",
    probabilities: Any = None,
    logits: Array | None = None,
    **options: Unpack[Options],
) -> Array:
    r"""$p(y_{nu}) = \sum_i p_{ni}\, f_i(y_{nu})$, with links as the $f_i$.

    A component is a link without its outcome, `partial(gaussian_link, eta)`: a function
    of `y` and `name=`. Its parameters have the sites `component0.sigma`,
    `component1.sigma`, ...; all components have the same kind of outcome.

    `probabilities` is learned where it is a distribution over simplices (default
    Dirichlet of ones) under the site of that name, and known where it is an array;
    `logits` is the predictor of their softmax, a column for each component.

    Components that are alike are not told apart by the likelihood: give them priors, or
    predictors, that do.

    Shapes: the components' predictors (n, u), `y` as for them; `logits` (n, k).
    Units: as the components'.
    Raises: ValueError for fewer than two components, for components of different
    shapes, or for options, such as `weights`, that were given to a component.
    Source: McLachlan and Peel (2000), Finite Mixture Models, chapter 1.
    """
    if len(components) < 2:
        raise ValueError(
            f"outcome {name!r}: a mixture has at least two components, and "
            f"{len(components)} is given. Give a list of them, or use the link itself."
        )
    found = [
        _collected(component, y, parameter(name, f"component{i}"))
        for i, component in enumerate(components)
    ]
    shapes = {fn.shape() for _, fn in found}
    kinds = {(is_discrete(fn), fn.event_shape) for _, fn in found}
    if len(shapes) > 1 or len(kinds) > 1:
        raise ValueError(
            f"outcome {name!r}: its components have outcomes of shapes {sorted(shapes)} "
            f"({', '.join(type(fn).__name__ for _, fn in found)}), but they are the same "
            "outcome. Give predictors of the same shape to links for the same kind of "
            "outcome."
        )
    for option in ("offset", "exposure"):
        if options.get(option) is not None:
            raise ValueError(
                f"outcome {name!r}: a mixture has no predictor of its own for "
                f"`{option}`. Give it to the components."
            )
    fns = [fn for _, fn in found]
    shape = fns[0].batch_shape
    if logits is None:
        p = learned_or_known_shares(name, len(fns), probabilities)
        log_p = jnp.log(p)
        log_shares = [jnp.broadcast_to(log_p[i], shape) for i in range(len(fns))]
    elif probabilities is not None:
        raise ValueError(
            f"outcome {name!r}: both `probabilities` and `logits` are given. Give one."
        )
    else:
        log_shares = _predicted(name, logits, len(fns), shape)
    eta = jnp.stack([predictor for predictor, _ in found], axis=-1)
    fn = Mixture(tuple(fns), jnp.stack(log_shares, axis=0))
    return Outcome(name, eta, y, options, entries=shape).observe(fn)


def _collected(
    component: Callable[..., Any], y: Any, name: str
) -> tuple[Array, Distribution]:
    """The predictor and distribution of a link, whose outcome is not sampled."""
    with collecting(name) as found:
        component(y=y, name=name)
    if len(found.outcomes) != 1:
        raise ValueError(
            f"component {name!r} announces {len(found.outcomes)} outcomes under the name "
            "that it gets, and a component is one link: a function of `y` and `name=`, "
            "such as functools.partial(gaussian_link, eta)."
        )
    return found.outcomes[0]


class collecting(Messenger):
    """Take the outcome that a link announces, and keep its site from being sampled."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.outcomes: list[tuple[Array, Distribution]] = []

    def __enter__(self) -> collecting:
        super().__enter__()
        return self

    def process_message(self, message: Any) -> None:
        if message["type"] == "outcome" and message["outcome"] == self.name:
            self.outcomes.append((message["value"], message["family"]))
            message["stop"] = True
        elif message["type"] == "sample" and message["name"] == self.name:
            if message.get("scale") is not None:
                raise ValueError(
                    f"component {self.name!r} has `weights`, which would weigh a part "
                    "of a row's density. Give them to the mixture."
                )
            message["stop"] = True
            if message["value"] is None:
                message["value"] = jnp.zeros(message["fn"].shape())


def _predicted(name: str, logits: Any, size: int, shape: Shape) -> list[Array]:
    logits = jnp.asarray(logits)
    if logits.ndim < 2 or logits.shape[-1] != size:
        raise ValueError(
            f"outcome {name!r}: `logits` has shape {logits.shape}, but there are {size} "
            "components: it is (n, k), a column for each. Set the layers' `units`."
        )
    log_p = jax.nn.log_softmax(logits)
    entries = jax.ShapeDtypeStruct(shape, log_p.dtype)
    return [
        jnp.broadcast_to(like(f"{name}: logits", log_p[..., i : i + 1], entries), shape)
        for i in range(size)
    ]


class Mixture(Distribution):
    """A draw from one of several families, with the logs of their shares in front."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    pytree_data_fields = ("parts", "log_shares")

    def __init__(
        self,
        parts: tuple[Any, ...],
        log_shares: Array,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.parts, self.log_shares = parts, log_shares
        first = parts[0]
        super().__init__(
            first.batch_shape, first.event_shape, validate_args=validate_args
        )

    @constraints.dependent_property
    def support(self) -> Any:
        return self.parts[0].support

    def log_prob(self, value: Array) -> Array:
        each = jnp.stack([fn.log_prob(value) for fn in self.parts], axis=0)
        return logsumexp(self.log_shares + each, axis=0)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        which_key, *keys = jax.random.split(key, 1 + len(self.parts))
        shape = (*sample_shape, *self.batch_shape)
        which = jax.random.categorical(which_key, self.log_shares, 0, shape=shape)
        which = which[(...,) + (None,) * self.event_dim]
        found = self.parts[0].sample(keys[0], sample_shape)
        for i, (fn, own) in enumerate(zip(self.parts, keys, strict=True)):
            found = jnp.where(which == i, fn.sample(own, sample_shape), found)
        return found

    def _mixed(self, each: list[Array]) -> Array:
        shares = jnp.exp(self.log_shares)[(...,) + (None,) * self.event_dim]
        return (shares * jnp.stack(each, axis=0)).sum(axis=0)

    @property
    def mean(self) -> Array:
        return self._mixed([fn.mean for fn in self.parts])

    @property
    def variance(self) -> Array:
        square = self._mixed([fn.variance + fn.mean**2 for fn in self.parts])
        return square - self.mean**2


@log_tails.register
def _(fn: Mixture, x: Array) -> Tails:
    each = [log_tails(part, x) for part in fn.parts]
    lower, upper = (jnp.stack(side, axis=0) for side in zip(*each, strict=True))
    return Tails(
        logsumexp(fn.log_shares + lower, axis=0),
        logsumexp(fn.log_shares + upper, axis=0),
    )
