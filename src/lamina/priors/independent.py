"""Independent coefficients: known scales, or scales that some of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Distribution, HalfNormal, Normal

from lamina._checks import allows_negative
from lamina._typing import Array, Family, Shape
from lamina.priors.families import (
    LOC,
    STANDARD,
    UNIT_SCALE,
    PriorForm,
    Sites,
    family,
    learned_scale,
    require_scale,
    sample_shaped,
    scaled_family,
    spread,
)

Groups: TypeAlias = Sequence[int] | np.ndarray | Literal["column"] | None


@dataclass(frozen=True, repr=False, eq=False)
class Fixed(PriorForm):
    r"""Independent coefficients from one known distribution: $\beta \sim F$.

    `coef_dist` is a distribution class with `coef_kwargs`, or a ready distribution.

    Shapes: `(name, shape)` gives `shape`, from the site `{name}.beta`.
    Units: $\beta$ is in units of the predictor over units of the column.
    Raises: TypeError for arguments that the distribution does not take, ValueError for
    values that it does not allow, both at construction.
    Source: Gelman and others (2013), Bayesian Data Analysis, chapter 14.
    """

    coef_dist: Family = Normal
    coef_kwargs: Mapping[str, Any] = STANDARD

    def __post_init__(self) -> None:
        super().__post_init__()
        with numpyro.validation_enabled():
            self._coefficients()

    @property
    def positive(self) -> bool:
        return not allows_negative(self._coefficients())

    def _coefficients(self) -> Distribution:
        return family("coef_dist", self.coef_dist, self.coef_kwargs, STANDARD)

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        return sample_shaped(sites.own, self._coefficients(), shape)


@dataclass(frozen=True, repr=False, eq=False)
class Adaptive(PriorForm):
    r"""Coefficients around a centre, with learned scales that some of them share.

    $$\lambda_u \sim \text{HalfNormal}(1), \qquad
      \beta_{du} \sim \text{Normal}(0, \lambda_u)$$

    `lmbda_dist` and `coef_dist` are classes with keyword arguments, or ready
    distributions; the scale of a ready `coef_dist` multiplies $\lambda$. A half
    distribution, `Adaptive(coef_dist=HalfNormal, coef_kwargs={})`, makes all coefficients
    positive.

    `groups` says which columns, the entries of the first axis, share a scale: all of a
    unit (None), each its own ("column"), or those of one number, `groups=(0, 0, 1)`. A
    scale per column shrinks an idle column and leaves the others alone (automatic
    relevance determination).

    Shapes: `(name, shape)` gives `shape`, from the sites `{name}.lmbda` (the last axis
    of `shape`, or `scale_shape`; with g groups in front of it) and `{name}.beta`.
    Units: $\lambda$ and $\beta$ are in units of the predictor over units of the column.
    Raises: TypeError for arguments that a distribution does not take, ValueError for
    values that it does not allow, a scale that can be negative, or groups that are not
    numbered 0 to g - 1, all at construction; ValueError where `groups` and the columns
    differ in number.
    Source: Gelman (2006), Prior distributions for variance parameters in
    hierarchical models;
    MacKay (1994), Bayesian Nonlinear Modeling for the Prediction Competition, for a
    scale per column.
    """

    lmbda_dist: Family = HalfNormal
    coef_dist: Family = Normal
    coef_kwargs: Mapping[str, Any] = LOC
    lmbda_kwargs: Mapping[str, Any] = UNIT_SCALE
    _: KW_ONLY
    groups: Groups = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "groups", as_groups(self.groups))
        with numpyro.validation_enabled():
            self._coefficients(1.0)
        require_scale(self.lmbda_dist, self.lmbda_kwargs)

    @property
    def positive(self) -> bool:
        return not allows_negative(self._coefficients(1.0))

    def _coefficients(self, lmbda: Any) -> Distribution:
        return scaled_family("coef_dist", self.coef_dist, self.coef_kwargs, LOC, lmbda)

    def draw(self, sites: Sites, shape: Shape, shared: Shape) -> Array:
        dist, kwargs = self.lmbda_dist, self.lmbda_kwargs
        if self.groups is None:
            lmbda = spread(learned_scale(sites, dist, kwargs, shared), shared, shape)
        else:
            site = sites.of("lmbda")
            groups = groups_of_columns(site, self.groups, shape, shared)
            lmbda = learned_scale(sites, dist, kwargs, (max(groups) + 1, *shared))
            lmbda = jnp.take(lmbda, np.array(groups), axis=-1 - len(shared))
            between = (1,) * (len(shape) - 1 - len(shared))
            lead = jnp.shape(lmbda)[: jnp.ndim(lmbda) - 1 - len(shared)]
            columns = (*lead, shape[0], *between, *shared)
            lmbda = jnp.broadcast_to(jnp.reshape(lmbda, columns), (*lead, *shape))
        return sample_shaped(sites.own, self._coefficients(lmbda), shape)


def as_groups(groups: Any) -> tuple[int, ...] | str | None:
    """Groups of columns as a value, numbered from 0 without a gap."""
    if groups is None or (isinstance(groups, str) and groups == "column"):
        return groups
    numbers = np.asarray(groups)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"groups: {groups!r} does not number columns. Give one whole number to each "
            "column, groups=(0, 0, 1); 'column' for a scale each; None for one for all."
        )
    seen = np.unique(numbers)
    if seen.tolist() != list(range(len(seen))):
        raise ValueError(
            f"groups: the numbers are {seen.tolist()}, but g groups are numbered 0 to "
            "g - 1: a number that is left out would be a scale without coefficients. "
            "Number them by np.unique(labels, return_inverse=True)[1]."
        )
    return tuple(numbers.tolist())


def groups_of_columns(
    site: str, groups: Any, shape: Shape, shared: Shape
) -> tuple[int, ...]:
    """The group of each entry of the first axis of `shape`."""
    if len(shape) <= len(shared):
        raise ValueError(
            f"{site}: the coefficients have shape {shape}, of which {shared} have scales "
            "of their own already, so there are no columns to group. Leave out `groups`."
        )
    if groups == "column":
        return tuple(range(shape[0]))
    if len(groups) != shape[0]:
        raise ValueError(
            f"{site}: `groups` numbers {len(groups)} columns, but the coefficients have "
            f"shape {shape}: {shape[0]}. Give each column its group. (The level of a "
            "table that was not fitted has no group: there, use unseen='zero'.)"
        )
    return tuple(groups)
