"""Coefficients that vary by group."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from numpyro.distributions import Normal

from lamina._checks import as_array
from lamina._typing import Array, Prior, show
from lamina.dependence import Correlated
from lamina.effects import term
from lamina.layers.groups import GroupForm
from lamina.priors import LOC

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, repr=False, eq=False)
class RandomSlopesLayer(GroupForm):
    r"""An intercept and slopes for each category, partially pooled and correlated.

    $$f_{n1} = \theta_{c_n 1} + \sum_d x_{nd}\,\theta_{c_n, d+1}, \qquad
      \theta_c \sim \text{Normal}(0, \text{diag}(\lambda)\,LL^T\,\text{diag}(\lambda)),
      \quad \lambda_k \sim \text{HalfNormal}(1), \quad L \sim \text{LKJCholesky}(1)$$

    The k coefficients of a category are its intercept, unless `intercept=False`, and a
    slope for each column of `x`. They are deviations from the coefficients that all
    categories share: add an InterceptLayer and a FixedPriorLayer of the same columns.
    They are drawn non-centred, $\theta_c = \text{diag}(\lambda)\,L\,z_c$;
    `prior=Correlated(...)` sets the LKJ concentration or centres them. A single
    coefficient has nothing to be correlated with, and no site `corr`.
    `correlated=False` leaves out $L$: then the sites are `lmbda` and `theta`, which
    `lamina.handlers.noncentered` can non-centre.

    Negative codes are unseen levels, as in EmbeddingLayer: "draw" takes one correlated
    vector for each.

    Shapes: `x` (n, d), or (n,) for one column, and integer `codes` (n,) or (n, 1) give
    (n, 1); the sites are `{name}.lmbda` (k,), `{name}.corr` (k, k), the Cholesky factor
    of the correlations, and `{name}.z` (c, k); `{name}.theta` (c, k) is a deterministic
    value.
    Units: $\theta$ and $\lambda$ are in $f$ for the intercept and in $f/x$ for a slope;
    `lmbda_kwargs={"scale": [...]}` takes an array with a scale for each.
    Raises: ValueError where the rows of `x` and `codes` differ, or for `coef_dist` and
    `coef_kwargs` beside correlated coefficients, which are Normal around zero; for codes
    as EmbeddingLayer.
    Source: Gelman and Hill (2007), Data Analysis Using Regression, chapter 13; Laird
    and Ware (1982), Random-Effects Models for Longitudinal Data.
    """

    _: KW_ONLY
    intercept: bool = True
    correlated: bool = True

    def default_prior(self) -> Prior:
        independent = super().default_prior()
        if not self.correlated:
            return independent
        if self.coef_dist is not Normal or self.coef_kwargs != LOC:
            raise ValueError(
                f"{type(self).__name__}: `coef_dist` is {show(self.coef_dist)} with "
                f"{dict(self.coef_kwargs)}, but correlated coefficients are Normal around "
                "zero. Leave both out and add the mean as a FixedPriorLayer of its own, "
                "or set correlated=False."
            )
        return Correlated(lmbda_dist=self.lmbda_dist, lmbda_kwargs=self.lmbda_kwargs)

    def __call__(
        self, name: str, x: Any, codes: Any, num_categories: int | None = None
    ) -> Array:
        c = self.size(name, "num_categories", num_categories)
        x, codes = self.columns(name, x), as_array(codes)
        if codes.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"{self.label(name)}: `x` has shape {x.shape} and the codes have shape "
                f"{tuple(codes.shape)}. Each row of `x` meets its own category's "
                "coefficients, so both need the same number of rows."
            )
        if self.intercept:
            x = jnp.concatenate([jnp.ones_like(x[:, :1]), x], axis=1)
        rows = self.table_rows(name, codes, (c, x.shape[1]), scale_shape=None)
        return term(name, by_row(x, rows))


def by_row(
    x: Float[Array, "n k"], rows: Float[Array, "*r n k"]
) -> Float[Array, "*r n 1"]:
    r"""$f_{n1} = \sum_k x_{nk}\,\theta_{nk}$: each row of data by its own coefficients."""
    return jnp.einsum("nk,...nk->...n", x, rows)[..., None]
