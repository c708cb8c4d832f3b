"""Distributions for coefficients: built from arguments, checked, sampled in a shape."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Delta, Distribution, Normal

from lamina._checks import allows_negative, concrete
from lamina._typing import Array, Family, FrozenDict, Shape, Value, show

LOC = FrozenDict(loc=0.0)
UNIT_SCALE = FrozenDict(scale=1.0)
STANDARD = FrozenDict(loc=0.0, scale=1.0)


class Sites(NamedTuple):
    """The names of a prior's sites: its coefficients' and those of what makes them."""

    name: str
    coefficient: str
    suffix: str

    def of(self, part: str) -> str:
        """The site of a part, such as a scale."""
        return f"{self.name}.{part}{self.suffix}"

    @property
    def own(self) -> str:
        """The site of the coefficients."""
        return self.of(self.coefficient)


class PriorForm(Value):
    r"""A prior as a value: subclass it for a prior of your own.

    A subclass is a frozen dataclass that says how to `draw`; this says how all are
    called. To have the scale of all coefficients learned, for one:

        @dataclass(frozen=True, repr=False, eq=False)
        class OneScale(PriorForm):
            def draw(self, sites, shape, shared):
                lmbda = sample_shaped(sites.of("lmbda"), HalfNormal(1.0), shared)
                prior = Normal(0.0, spread(lmbda, shared, shape))
                return sample_shaped(sites.own, prior, shape)

    Shapes: `(name, shape)` gives `shape`; what all coefficients share has the shape
    `shared`, the last axis of `shape` unless the layer says otherwise. `sample_shaped`
    gives sites their axes, `spread` lays what is shared over all coefficients, behind the
    axes that replicates add.
    """

    @property
    def positive(self) -> bool:
        """Whether no coefficient can be negative."""
        return False

    @property
    def joint(self) -> bool:
        """Whether the coefficients depend on one another beyond what they share."""
        return False

    def __call__(
        self,
        name: str,
        shape: Shape,
        coefficient: str = "beta",
        *,
        suffix: str = "",
        scale_shape: Shape | None = None,
    ) -> Array:
        shared = shape[-1:] if scale_shape is None else scale_shape
        return self.draw(Sites(name, coefficient, suffix), shape, shared)

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        """Coefficients of `shape`; what all share has the shape `shared`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it draws.")


def family(
    argument: str,
    fn: Family,
    kwargs: Mapping[str, Any],
    default: Mapping[str, Any],
    **learned: Any,
) -> Distribution:
    """The distribution that a class with keyword arguments, or a ready one, is."""
    if isinstance(fn, Distribution):
        if kwargs != default:
            raise ValueError(
                f"{argument}: {show(fn)} is a ready distribution, so the keyword "
                f"arguments {dict(kwargs)} would be ignored. Give the class with "
                "keyword arguments, or the distribution alone."
            )
        return one_number(argument, fn)
    require_class(argument, fn)
    allowed = list(inspect.signature(fn).parameters)
    wrong = [k for k in kwargs if k not in allowed]
    if wrong:
        raise TypeError(
            f"{argument}: {show(fn)} takes no {wrong}; it takes "
            f"{[p for p in allowed if p != 'validate_args']}. Give the matching "
            f"keyword arguments beside {show(fn)}."
        )
    try:
        built = fn(**kwargs, **learned)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{argument}: {show(fn)} cannot be built from {dict(kwargs)}"
            f"{' and a learned scale' if learned else ''}: {error} Correct the "
            "keyword arguments."
        ) from error
    return one_number(argument, built)


def scaled_family(
    argument: str,
    fn: Family,
    kwargs: Mapping[str, Any],
    default: Mapping[str, Any],
    lmbda: Any,
) -> Distribution:
    """The same, with its `scale` learned: `lmbda`, times the scale of a ready one."""
    if "scale" in kwargs:
        raise TypeError(
            f"{argument}: `scale` is given as {kwargs['scale']!r}, but an adaptive "
            "prior learns it. Leave it out, set its prior by `lmbda_dist`, or use a "
            "fixed prior."
        )
    cls = type(fn) if isinstance(fn, Distribution) else fn
    require_class(argument, cls)
    if "scale" not in cls.arg_constraints:
        raise TypeError(
            f"{argument}: {show(fn)} has no `scale` to learn. Choose a location-scale "
            "distribution (Normal, Laplace, StudentT, ...), or use a fixed prior."
        )
    if not isinstance(fn, Distribution):
        return family(argument, fn, kwargs, default, scale=lmbda)
    family(argument, fn, kwargs, default)
    parameters = {name: getattr(fn, name) for name in cls.arg_constraints}
    return cls(**{**parameters, "scale": lmbda * parameters["scale"]})


def scale_family(fn: Family, kwargs: Mapping[str, Any]) -> Distribution:
    """The prior of a learned scale."""
    return family("lmbda_dist", fn, kwargs, UNIT_SCALE)


def learned_scale(
    sites: Sites, fn: Family, kwargs: Mapping[str, Any], shape: Shape
) -> Array:
    """Sample a learned scale, under the site `lmbda`."""
    return sample_shaped(sites.of("lmbda"), scale_family(fn, kwargs), shape)


def require_scale(fn: Family, kwargs: Mapping[str, Any]) -> None:
    """Raise, at construction, for a prior that no learned scale can have."""
    with numpyro.validation_enabled():
        lmbda = scale_family(fn, kwargs)
    if isinstance(lmbda, Delta):
        raise ValueError(
            f"lmbda_dist: {show(fn)} is a point, but `lmbda` is learned. "
            "For a scale that is known, use a fixed prior: FixedPriorLayer, or "
            "prior=Fixed(coef_kwargs={'loc': 0.0, 'scale': ...})."
        )
    if allows_negative(lmbda):
        raise ValueError(
            f"lmbda_dist: {show(fn)} allows negative values, but "
            "`lmbda` is a scale. Choose a positive distribution, such as "
            "HalfNormal, Exponential or HalfCauchy."
        )


def require_class(argument: str, fn: Any) -> None:
    """Raise unless `fn` is a class of distributions."""
    if not (isinstance(fn, type) and issubclass(fn, Distribution)):
        raise TypeError(
            f"{argument}: {show(fn)} is no distribution. Give a NumPyro distribution "
            "class, such as dist.Normal, or a ready one, dist.Normal(0.0, 1.0)."
        )


def one_number(argument: str, fn: Distribution) -> Distribution:
    """`fn`, unless it draws vectors, which would add axes to the coefficients."""
    if fn.event_shape:
        raise ValueError(
            f"{argument}: one draw of {type(fn).__name__} has shape "
            f"{fn.event_shape}, but each coefficient is one number of its own. Give a "
            "distribution of single numbers, or write a prior: a function of a name "
            "and a shape."
        )
    return fn


def sample_shaped(name: str, fn: Distribution, shape: Shape) -> Array:
    """Sample one event of `shape` from `fn`, whose axes are written out or none."""
    own = fn.batch_shape
    lead = max(len(own) - len(shape), 0)
    fits = all(a in (1, b) for a, b in zip(own[lead:], shape, strict=False))
    if own and (len(own) < len(shape) or not fits):
        raise ValueError(
            f"{name}: its distribution has shape {own}, but the coefficients are "
            f"{shape}. Broadcasting would guess which axis is meant: give its "
            f"arguments all {len(shape)} axes, of length 1 where they are alike."
        )
    return numpyro.sample(name, fn.expand(own[:lead] + shape).to_event(len(shape)))


def spread(lmbda: Array, scale_shape: Shape, shape: Shape) -> Array:
    """`lmbda` over all coefficients, behind the leading axes that replicates add."""
    batch = jnp.shape(lmbda)[: jnp.ndim(lmbda) - len(scale_shape)]
    ones = (1,) * (len(shape) - len(scale_shape))
    return jnp.broadcast_to(
        jnp.reshape(lmbda, batch + ones + scale_shape), batch + shape
    )


def noncentered(site: str, scale: Array, shape: Shape) -> Array:
    r"""Coefficients $\text{scale}\cdot z$, $z \sim \text{Normal}(0, 1)$, under `site`.

    The site of $z$ is `{site}_decentered`, as NumPyro's `LocScaleReparam` names it.
    """
    z = sample_shaped(f"{site}_decentered", Normal(0.0, 1.0), shape)
    return numpyro.deterministic(site, scale * z)


def require_number(
    where: str, value: Any, *, low: float = 0.0, high: float = np.inf
) -> None:
    """Raise unless `value`, where it is known, is one number between the bounds."""
    if np.ndim(value):
        raise ValueError(
            f"{where} has shape {np.shape(value)}, but it is one number for all "
            "coefficients. Give one number."
        )
    known = concrete(value)
    good = known is None or (known.dtype.kind in "iuf" and low < known < high)
    if not good:
        raise ValueError(
            f"{where} is {value!r}, but it is a number between {low:g} and {high:g}, "
            "neither included: no other has a meaning here. Correct it."
        )
