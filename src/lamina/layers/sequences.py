"""Sequence layers: coefficients ordered in time."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from lamina._checks import as_codes
from lamina._typing import Array
from lamina.effects import product, term
from lamina.layers._base import AdaptiveForm
from lamina.products import walk


@dataclass(frozen=True, repr=False, eq=False)
class RandomWalkLayer(AdaptiveForm):
    r"""A Gaussian random walk over ordered categories, of m independent coordinates.

    $$f_{nm} = \sum_{s \le c_n} \theta_{sm}, \qquad
      \theta_{sm} \sim \text{Normal}(0, \lambda), \quad
      \lambda \sim \text{HalfNormal}(1)$$

    The first step is the walk's level at category 0, with the same prior as the others.

    Shapes: integer `x` (n,) or (n, 1) gives (n, m); the sites are `{name}.lmbda` () and
    `{name}.theta` (c, m), the steps.
    Units: $\theta$ and $\lambda$ are in units of the predictor.
    Raises: TypeError for codes that are not integers, ValueError for codes outside 0 to
    c - 1. `num_categories` and `embedding_dim` are given once, in the constructor or the
    call.
    Source: Rue and Held (2005), Gaussian Markov Random Fields, section 3.3.1.
    """

    _: KW_ONLY
    num_categories: int | None = None
    embedding_dim: int | None = None

    def __call__(
        self,
        name: str,
        x: Any,
        num_categories: int | None = None,
        embedding_dim: int | None = None,
    ) -> Array:
        c = self.size(name, "num_categories", num_categories)
        m = self.size(name, "embedding_dim", embedding_dim)
        codes = as_codes(self.label(name), x, c, unseen=False)
        self.outside_rows(name, codes.shape[0])
        steps = self.coefficients(name, (c, m), "theta", scale_shape=())
        return term(name, product(walk, codes, steps))
