"""Monotonic layers: ordered categories whose effect goes one way."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax.numpy as jnp
import numpyro
from numpyro.distributions import Dirichlet

from lamina._checks import Remedies, as_codes, positive_number
from lamina._typing import Array
from lamina.effects import product, term
from lamina.layers._base import AdaptiveForm
from lamina.processes import rising

OUTSIDE = Remedies(
    past="raise `num_categories`, or drop such rows",
    negative="An ordered category has no unseen levels, as its effect is known from its "
    "place between the others: number categories in their order, from 0",
)


@dataclass(frozen=True, repr=False, eq=False)
class MonotonicLayer(AdaptiveForm):
    r"""An ordered category whose effect only rises, or only falls, from one to the next.

    $$f_{nu} = \beta_u \sum_{i=1}^{c_n} \zeta_{ui}, \qquad
      \beta_u \sim \text{Normal}(0, \lambda_u), \quad
      \lambda_u \sim \text{HalfNormal}(1), \quad
      \zeta_u \sim \text{Dirichlet}(\alpha, \dots, \alpha)$$

    The simplex $\zeta_u$ divides the effect among the s = c - 1 steps between neighbours;
    $\beta_u$ is the whole difference between the last category and category 0, whose effect
    is zero. $\alpha$ is `concentration`: at 1 all divisions are as likely, above 1 steps
    tend to be equal, below 1 a few of them carry the effect.

    Shapes: integer `x` (n,) or (n, 1) gives (n, u); the sites are `{name}.lmbda` (u,),
    `{name}.beta` (1, u) and `{name}.zeta` (u, s), which is no site where c = 2.
    Units: $\beta$ and $\lambda$ are in units of the predictor; $\zeta$ sums to one.
    Raises: TypeError for codes that are not integers, ValueError for codes outside 0 to
    c - 1, for a single category, or for a concentration that is not positive.
    `num_categories` is given once, in the constructor or the call.
    Source: Bürkner and Charpentier (2020), Modelling monotonic effects of ordinal
    predictors in Bayesian regression models, whose coefficient is the average
    step, $\beta / (c - 1)$.
    """

    units: int = 1
    _: KW_ONLY
    num_categories: int | None = None
    concentration: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        meaning = (
            "a Dirichlet distribution takes a positive number; 1.0 makes all divisions of "
            "the effect as likely"
        )
        positive_number("MonotonicLayer", "concentration", self.concentration, meaning)

    def __call__(self, name: str, x: Any, num_categories: int | None = None) -> Array:
        where = self.label(name)
        c = self.size(name, "num_categories", num_categories)
        if c < 2:
            raise ValueError(
                f"{where}: `num_categories` is {c}, but an effect that rises needs two "
                "categories: with one the term is always zero."
            )
        codes = as_codes(where, x, c, unseen=False, remedies=OUTSIDE)
        self.outside_rows(name, codes.shape[0])
        beta = self.coefficients(name, (1, self.units))
        return term(name, product(rising, codes, self.simplex(name, c - 1, beta), beta))

    def simplex(self, name: str, steps: int, beta: Array) -> Array:
        """The share that each step has in the effect of each unit."""
        if steps == 1:
            return jnp.ones_like(jnp.swapaxes(beta, -1, -2))
        alpha = jnp.full((self.units, steps), float(self.concentration))
        return numpyro.sample(f"{name}.zeta", Dirichlet(alpha).to_event(1))
