"""Linear layers: coefficients times columns, and the constant.

Terms are arrays, so what combines them needs no class: docs/combining.md shows how.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from lamina._checks import is_sparse
from lamina._typing import Array, Prior
from lamina.effects import product, term
from lamina.layers._base import AdaptiveForm, BLayer, FixedForm
from lamina.priors import R2D2, Adaptive, Horseshoe, SpikeAndSlab
from lamina.priors.independent import Groups, as_groups
from lamina.products import affine
from lamina.sparse import sparse_affine


class LinearTerm(BLayer):
    """Coefficients times columns, dense or sparse, whatever their prior."""

    units: int

    def __call__(self, name: str, x: Any) -> Array:
        x = self.columns(name, x, sparse=True)
        beta = self.coefficients(name, (x.shape[1], self.units))
        return term(name, product(sparse_affine if is_sparse(x) else affine, x, beta))


@dataclass(frozen=True, repr=False, eq=False)
class AdaptiveLayer(AdaptiveForm, LinearTerm):
    r"""A linear term whose coefficients share one learned scale for each unit.

    $$f_{nu} = \sum_d x_{nd}\,\beta_{du}, \qquad
      \beta_{du} \sim \text{Normal}(0, \lambda_u), \quad
      \lambda_u \sim \text{HalfNormal}(1)$$

    Shapes: `x` (n, d), or (n,) for one column, gives (n, u); the sites are
    `{name}.lmbda` (u,) and `{name}.beta` (d, u). `x` may be sparse, in
    JAX's BCOO form; `lamina.sparse.sparse_rows` builds it from rows inside of a model.
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
    `{name}.beta` (d, u). `x` may be sparse, as in AdaptiveLayer.
    Units: $\beta$ is in $f/x$; choose the prior's scale in those units.
    Raises: ValueError for `x` of three axes or inside a plate over rows.
    Source: Gelman and others (2013), Bayesian Data Analysis, chapter 14.
    """


@dataclass(frozen=True, repr=False, eq=False)
class GroupedAdaptiveLayer(AdaptiveForm, LinearTerm):
    r"""A linear term whose coefficients share one learned scale for each column group.

    $$f_{nu} = \sum_d x_{nd}\,\beta_{du}, \qquad
      \beta_{du} \sim \text{Normal}(0, \lambda_{g(d) u}), \quad
      \lambda_{gu} \sim \text{HalfNormal}(1)$$

    `groups` numbers the group of each column from 0, `groups=(0, 0, 1)`; by default each
    column is its own ("column"), so that idle ones are shrunk alone.

    Shapes: `x` (n, d), or (n,) for one column, gives (n, u); the sites are
    `{name}.lmbda` (d, u), or with g groups (g, u), and `{name}.beta` (d, u).
    Units: $\beta$ is in $f/x$; standardise the columns of a group, so that one scale
    suits them.
    Raises: ValueError for groups that do not number the columns of `x`, and as
    AdaptiveLayer.
    Source: MacKay (1994), Bayesian Nonlinear Modeling for the Prediction Competition.
    """

    units: int = 1
    _: KW_ONLY
    groups: Groups = "column"

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", as_groups(self.groups))
        super().__post_init__()

    def default_prior(self) -> Prior:
        return Adaptive(
            self.lmbda_dist,
            self.coef_dist,
            self.coef_kwargs,
            self.lmbda_kwargs,
            groups=self.groups,
        )


@dataclass(frozen=True, repr=False, eq=False)
class HorseshoeLayer(LinearTerm):
    r"""A linear term of many columns of which few matter: the regularised horseshoe.

    $$f_{nu} = \sum_d x_{nd}\,\beta_{du}$$

    with the prior of `Horseshoe`, whose global scale says how many columns are expected
    to matter:

        prior = Horseshoe.expecting(5, num_columns=100, num_rows=400)
        HorseshoeLayer(prior=prior)("mu", x)

    Shapes: `x` (n, d), or (n,) for one column, gives (n, u); the sites are `{name}.tau`
    (u,), `{name}.slab` (u,), `{name}.lmbda` (d, u) and `{name}.beta_decentered` (d, u),
    of which `{name}.beta` (d, u) is made.
    Units: $\beta$ is in $f/x$; standardise the columns, so that one scale suits all.
    Raises: as AdaptiveLayer.
    Source: Piironen and Vehtari (2017), Sparsity information and regularization in the
    horseshoe and other shrinkage priors.
    """

    units: int = 1

    def default_prior(self) -> Prior:
        return Horseshoe()


@dataclass(frozen=True, repr=False, eq=False)
class R2D2Layer(LinearTerm):
    r"""A linear term by what it explains: a prior on $R^2$, shared out over the columns.

    $$f_{nu} = \sum_d x_{nd}\,\beta_{du}$$

    with the prior of `R2D2`. Its scale is the noise's, so sample that first:

        sigma = numpyro.sample("sigma", dist.Exponential(1.0))
        mu = R2D2Layer(prior=R2D2(mean_r2=0.3, precision=5.0, noise=sigma))("mu", x)
        gaussian_link(mu, y, scale=sigma)

    Shapes: `x` (n, d), or (n,) for one column, gives (n, u); the sites are `{name}.r2`
    (u,), `{name}.phi` (u, d) and `{name}.beta_decentered` (d, u), of which `{name}.beta`
    (d, u) is made.
    Units: $\beta$ is in $f/x$; standardise the columns, as $R^2$ is stated for such.
    Raises: as AdaptiveLayer.
    Source: Zhang, Naughton, Bondell and Reich (2022), Bayesian Regression Using a Prior
    on the Model Fit: The R2-D2 Shrinkage Prior.
    """

    units: int = 1

    def default_prior(self) -> Prior:
        return R2D2()


@dataclass(frozen=True, repr=False, eq=False)
class SpikeAndSlabLayer(LinearTerm):
    r"""A linear term whose columns pass a gate each: a relaxed spike and slab.

    $$f_{nu} = \sum_d x_{nd}\, w_{du}\, b_{du}, \qquad
      b_{du} \sim \text{Normal}(0, \lambda_u), \quad
      \lambda_u \sim \text{HalfNormal}(1)$$

    with the prior of `SpikeAndSlab`, which says what the weights $w$ mean: they rank
    columns, and are no probabilities of being in the model.

    Shapes: `x` (n, d), or (n,) for one column, gives (n, u); the sites are
    `{name}.lmbda` (u,), `{name}.gate` (d, u) and `{name}.beta_decentered` (d, u), of
    which `{name}.weight` (d, u) and `{name}.beta` (d, u) are made.
    Units: $\beta$ is in $f/x$; standardise the columns, so that one scale suits all.
    Raises: as AdaptiveLayer.
    Source: Mitchell and Beauchamp (1988), Bayesian Variable Selection in Linear
    Regression, relaxed as by Maddison, Mnih and Teh (2017), The Concrete Distribution.
    """

    units: int = 1

    def default_prior(self) -> Prior:
        return SpikeAndSlab()


@dataclass(frozen=True, repr=False, eq=False)
class InterceptLayer(FixedForm):
    r"""A constant for each unit: $f_{1u} = \beta_{u}$, $\beta_u \sim \text{Normal}(0, 1)$.

    Shapes: gives (1, u), which other terms and links expand to their rows; the site is
    `{name}.beta` (1, u).
    Units: $\beta$ is in units of the predictor; choose the prior's scale in those units.
    Raises: TypeError when the name is missing.
    Source: Gelman and Hill (2007), Data Analysis Using Regression, chapter 3.
    """

    def __call__(self, name: str) -> Array:
        self.label(name)
        return term(name, self.coefficients(name, (1, self.units)))
