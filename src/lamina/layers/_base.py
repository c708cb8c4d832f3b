"""`BLayer`, the base of every layer, and the two forms that the constructors take."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpyro.distributions import Distribution, HalfNormal, Normal

from lamina._checks import (
    as_columns,
    as_sparse,
    is_sparse,
    one_size,
    positive_size,
)
from lamina._typing import Array, Family, Prior, Shape, Value, show
from lamina.effects import plates
from lamina.priors import LOC, STANDARD, UNIT_SCALE, Adaptive, Fixed

DISTRIBUTIONS = ("lmbda_dist", "coef_dist", "coef_kwargs", "lmbda_kwargs", "groups")
SEVERAL = (tuple, list, np.ndarray)
SIZES = ("units", "low_rank_dim", "num_categories", "embedding_dim")


@dataclass(frozen=True, repr=False, eq=False)
class BLayer(Value):
    """A prior times a product: subclass it for a layer of your own.

    A subclass is a frozen dataclass whose fields are its constructor. Its call takes a
    name and data, draws coefficients from its prior, combines them with the data by a
    product, and announces the finished term (`product` and `term` are in
    `lamina.effects`, products in `lamina.products`):

        @dataclass(frozen=True, repr=False, eq=False)
        class QuadraticLayer(BLayer):
            units: int = 1

            def __call__(self, name, x):
                x = self.columns(name, x)
                beta = self.coefficients(name, (x.shape[1], self.units))
                return term(name, product(affine, x**2, beta))

    Layers hold no data: they are immutable, hashable, and equal when their fields are.
    docs/combining.md has a layer that is no linear one.

    Shapes: a layer gives (n, u), or (n, m) for a table; its sites are
    `{name}.{coefficient}` and what its prior makes them from, such as `{name}.lmbda`.
    Units: the term is in units of the predictor.
    Raises: TypeError or ValueError at construction, for a prior, sizes and distribution
    arguments that cannot be meant; `columns` as AdaptiveLayer.
    """

    prior: Prior | None = field(default=None, kw_only=True)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if args and isinstance(args[0], str):
            raise TypeError(
                f"{cls.__name__}({args[0]!r}, ...) constructs a layer, and a layer's "
                "constructor takes distributions. The empty parentheses are missing: "
                f"{cls.__name__}()({args[0]!r}, ...)."
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in SIZES:
            size = getattr(self, name, None)
            if size is not None:
                positive_size(type(self).__name__, name, size)
        if self.prior is not None:
            self._require_prior(self.prior)
        resolved = self.default_prior() if self.prior is None else self.prior
        object.__setattr__(self, "_resolved", resolved)

    def _require_prior(self, prior: Any) -> None:
        """Raise unless `prior` is one, and the layer's only one."""
        given = sorted(self.changed().keys() & set(DISTRIBUTIONS))
        if given:
            raise ValueError(
                f"{type(self).__name__}: `prior` is given together with {given}. A "
                "prior holds its own distributions: give one or the other."
            )
        if isinstance(prior, type | Distribution) or not callable(prior):
            raise TypeError(
                f"{type(self).__name__}: `prior` is {show(prior)}, which cannot be "
                "called with a name and a shape. Give a prior such as Adaptive() or "
                "Fixed(), which take distributions."
            )
        try:
            signature = inspect.signature(prior)
            signature.bind("name", (1,), "beta", suffix="", scale_shape=None)
        except TypeError as error:
            raise TypeError(
                f"{type(self).__name__}: `prior` takes {signature}, but a prior is called "
                'as prior(name, shape, coefficient="beta", *, suffix="", '
                f"scale_shape=None): {error}. Take what it does not need in **kwargs."
            ) from error

    def default_prior(self) -> Prior:
        """The prior where `prior=` is not given."""
        return Adaptive()

    def coefficients(
        self,
        name: str,
        shape: Shape,
        coefficient: str = "beta",
        *,
        suffix: str = "",
        scale_shape: Shape | None = None,
    ) -> Array:
        """Coefficients of `shape`, sampled from the prior under `name`."""
        prior: Prior = self._resolved  # type: ignore[attr-defined]
        return prior(name, shape, coefficient, suffix=suffix, scale_shape=scale_shape)

    def columns(
        self, name: str, x: Any, argument: str = "x", *, sparse: bool = False
    ) -> Array:
        """`x` as floating (n, d), outside any plate over its rows.

        With `sparse`, JAX's sparse BCOO matrices stay as they are.
        """
        convert = as_sparse if sparse and is_sparse(x) else as_columns
        x = convert(self.label(name), x, argument)
        self.outside_rows(name, x.shape[0])
        return x

    def outside_rows(self, name: str, num_rows: int) -> None:
        """Raise inside a plate over rows: it would draw coefficients for each row."""
        for frame in plates():
            if frame.dim == -1 and frame.size == num_rows:
                raise ValueError(
                    f"{self.label(name)}: called inside plate {frame.name!r}, which "
                    f"has as many entries as the data have rows ({num_rows}). It would "
                    "draw separate coefficients for each row and set rows against "
                    "rows. Call layers outside that plate; a plate of replicates that "
                    "happens to have this size takes dim=-2."
                )

    def size(self, name: str, which: str, called: int | None) -> int:
        """A size given at construction or at the call."""
        return one_size(self.label(name), which, getattr(self, which), called)

    def label(self, name: str) -> str:
        """How error messages call this layer."""
        if not isinstance(name, str) or not name or "/" in name:
            raise TypeError(
                f"{type(self).__name__}: the name is {name!r}, but a layer is called "
                "with a name for its sites first, then data: "
                f"{type(self).__name__}()('mu', x). Names have no '/', which ArviZ "
                "keeps for groups."
            )
        return f"{type(self).__name__} {name!r}"


@dataclass(frozen=True, repr=False, eq=False)
class AdaptiveForm(BLayer):
    """A layer whose coefficients share learned scales, unless `prior=` is given."""

    lmbda_dist: Family = HalfNormal
    coef_dist: Family = Normal
    coef_kwargs: Mapping[str, Any] = LOC
    lmbda_kwargs: Mapping[str, Any] = UNIT_SCALE

    def default_prior(self) -> Prior:
        return Adaptive(
            self.lmbda_dist, self.coef_dist, self.coef_kwargs, self.lmbda_kwargs
        )


@dataclass(frozen=True, repr=False, eq=False)
class FixedForm(BLayer):
    """A layer whose coefficients have a known prior, unless `prior=` is given."""

    coef_dist: Family = Normal
    coef_kwargs: Mapping[str, Any] = STANDARD
    units: int = 1

    def default_prior(self) -> Prior:
        return Fixed(self.coef_dist, self.coef_kwargs)


def each(value: Any) -> tuple[Any, ...]:
    """The values that are given one for each margin, or the one for all."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(value) if isinstance(value, SEVERAL) else (value,)


def one_each(where: str, name: str, value: Any, d: int) -> tuple[Any, ...]:
    """A value for each of d columns."""
    values = each(value)
    if len(values) not in (1, d):
        raise ValueError(
            f"{where}: `{name}` has {len(values)} values, but `x` has {d} columns. Give "
            "one for each column, or one for all."
        )
    return values if len(values) == d else values * d
