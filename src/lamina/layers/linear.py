"""Linear layers: coefficients times columns, and the constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lamina._typing import Array
from lamina.effects import product, term
from lamina.layers._base import AdaptiveForm, BLayer, FixedForm
from lamina.products import affine


class LinearTerm(BLayer):
    """Coefficients times columns, whatever their prior."""

    units: int

    def __call__(self, name: str, x: Any) -> Array:
        x = self.columns(name, x)
        beta = self.coefficients(name, (x.shape[1], self.units))
        return term(name, product(affine, x, beta))


@dataclass(frozen=True, repr=False, eq=False)
class AdaptiveLayer(AdaptiveForm, LinearTerm):
    r"""A linear term whose coefficients share one learned scale for each unit.

    $$f_{nu} = \sum_d x_{nd}\,\beta_{du}, \qquad
      \beta_{du} \sim \text{Normal}(0, \lambda_u), \quad
      \lambda_u \sim \text{HalfNormal}(1)$$

    Shapes: `x` (n, d), or (n,) for one column, gives (n, u); the sites are
    `{name}.lmbda` (u,) and `{name}.beta` (d, u).
    Units: $\beta$ is in $f/x$; standardise the columns, so that one scale suits all.
    Raises: ValueError for `x` of three axes or inside a plate over rows.
    Source: Gelman and Hill (2007), Data Analysis Using Regression, chapter 12.
    """

    units: int = 1


@dataclass(frozen=True, repr=False, eq=False)
class FixedPriorLayer(FixedForm, LinearTerm):
    r"""A linear term whose coefficients have a known prior.

    $$f_{nu} = \sum_d x_{nd}\,\beta_{du}, \qquad \beta_{du} \sim \text{Normal}(0, 1)$$

    Shapes: `x` (n, d), or (n,) for one column, gives (n, u); the site is
    `{name}.beta` (d, u).
    Units: $\beta$ is in $f/x$; choose the prior's scale in those units.
    Raises: ValueError for `x` of three axes or inside a plate over rows.
    Source: Gelman and others (2013), Bayesian Data Analysis, chapter 14.
    """


@dataclass(frozen=True, repr=False, eq=False)
class InterceptLayer(FixedForm):
    r"""A constant for each unit: $f_{1u} = \beta_{u}$, $\beta_u \sim \text{Normal}(0, 1)$.

    Shapes: gives (1, u), which other terms and links expand to their rows; the site is
    `{name}.beta` (1, u).
    Units: $\beta$ is in units of the predictor; choose the prior's scale in those units.
    Raises: TypeError when the name is missing.
    Source: Gelman and Hill (2007), Data Analysis Using Regression, section 3.1.
    """

    def __call__(self, name: str) -> Array:
        self.label(name)
        return term(name, self.coefficients(name, (1, self.units)))
