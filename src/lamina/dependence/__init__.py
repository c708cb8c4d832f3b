r"""Priors whose coefficients depend on one another: within a level, or between levels.

All are one form, $\theta = \lambda\,(A\,z\,L^T)$ with $z$ standard normal: `Correlated`
learns $L$, which correlates the coefficients of a level; the others know $A$, up to one
number at most, which correlates the levels. Drawn that way they are non-centred, so that
NUTS meets no funnel and a mean-field guide keeps the prior's correlations. `theta` is no
location-scale site, so `lamina.handlers.noncentered` could not do it afterwards.
"""

from lamina.dependence.areas import BYM2, CAR
from lamina.dependence.correlated import Correlated
from lamina.dependence.graphs import Adjacency
from lamina.dependence.levels import KnownCovariance

__all__ = ["BYM2", "CAR", "Adjacency", "Correlated", "KnownCovariance"]
