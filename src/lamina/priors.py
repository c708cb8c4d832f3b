"""Priors: values that turn a name and a shape into named coefficients."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpyro
from numpyro.distributions import Delta, Distribution, HalfNormal, Normal

from lamina._checks import allows_negative
from lamina._typing import Array, Family, FrozenDict, Shape, Value, show

LOC = FrozenDict(loc=0.0)
UNIT_SCALE = FrozenDict(scale=1.0)
STANDARD = FrozenDict(loc=0.0, scale=1.0)


@dataclass(frozen=True, repr=False, eq=False)
class Fixed(Value):
    r"""Independent coefficients from one known distribution: $\beta \sim F$.

    `coef_dist` is a distribution class with `coef_kwargs`, or a ready distribution.

    Shapes: `(name, shape)` gives `shape`, from the site `{name}.beta`.
    Units: $\beta$ is in units of the predictor over units of the column.
    Raises: TypeError for arguments that the distribution does not take, ValueError for
    values that it does not allow, both at construction.
    """

    coef_dist: Family = Normal
    coef_kwargs: Mapping[str, Any] = STANDARD

    def __post_init__(self) -> None:
        super().__post_init__()
        with numpyro.validation_enabled():
            self._coefficients()

    def _coefficients(self) -> Distribution:
        return family("coef_dist", self.coef_dist, self.coef_kwargs, STANDARD)

    def __call__(
        self,
        name: str,
        shape: Shape,
        coefficient: str = "beta",
        *,
        suffix: str = "",
        scale_shape: Shape | None = None,
    ) -> Array:
        return sample_shaped(
            f"{name}.{coefficient}{suffix}", self._coefficients(), shape
        )


@dataclass(frozen=True, repr=False, eq=False)
class Adaptive(Value):
    r"""Coefficients around a centre that share one learned scale for each unit.

    $$\lambda_u \sim \text{HalfNormal}(1), \qquad
      \beta_{du} \sim \text{Normal}(0, \lambda_u)$$

    `lmbda_dist` and `coef_dist` are classes with keyword arguments, or ready
    distributions; the scale of a ready `coef_dist` multiplies $\lambda$.

    Shapes: `(name, shape)` gives `shape`, from the sites `{name}.lmbda` (the last axis
    of `shape`, or `scale_shape`) and `{name}.beta`.
    Units: $\lambda$ and $\beta$ are in units of the predictor over units of the column.
    Raises: TypeError for arguments that a distribution does not take, ValueError for
    values that it does not allow or a scale that can be negative, all at construction.
    Source: Gelman (2006), Prior distributions for variance parameters, section 3.
    """

    lmbda_dist: Family = HalfNormal
    coef_dist: Family = Normal
    coef_kwargs: Mapping[str, Any] = LOC
    lmbda_kwargs: Mapping[str, Any] = UNIT_SCALE

    def __post_init__(self) -> None:
        super().__post_init__()
        with numpyro.validation_enabled():
            lmbda = self._scales()
            self._coefficients(1.0)
        if isinstance(lmbda, Delta):
            raise ValueError(
                f"lmbda_dist: {show(self.lmbda_dist)} is a point, but `lmbda` is learned. "
                "For a scale that is known, use a fixed prior: FixedPriorLayer, or "
                "prior=Fixed(coef_kwargs={'loc': 0.0, 'scale': ...})."
            )
        if allows_negative(lmbda):
            raise ValueError(
                f"lmbda_dist: {show(self.lmbda_dist)} allows negative values, but "
                "`lmbda` is a scale. Choose a positive distribution, such as "
                "HalfNormal, Exponential or HalfCauchy."
            )

    def _scales(self) -> Distribution:
        return family("lmbda_dist", self.lmbda_dist, self.lmbda_kwargs, UNIT_SCALE)

    def _coefficients(self, lmbda: Any) -> Distribution:
        return scaled_family("coef_dist", self.coef_dist, self.coef_kwargs, LOC, lmbda)

    def __call__(
        self,
        name: str,
        shape: Shape,
        coefficient: str = "beta",
        *,
        suffix: str = "",
        scale_shape: Shape | None = None,
    ) -> Array:
        scale_shape = shape[-1:] if scale_shape is None else scale_shape
        lmbda = sample_shaped(f"{name}.lmbda{suffix}", self._scales(), scale_shape)
        fn = self._coefficients(spread(lmbda, scale_shape, shape))
        return sample_shaped(f"{name}.{coefficient}{suffix}", fn, shape)


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
