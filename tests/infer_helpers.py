"""What tests of inference share: data, a mean-field guide, gradients of a loss."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints


def regression(n, d=3, seed=0, noise=0.5):
    """Rows of a linear regression, and the coefficients that made them."""
    rng = np.random.default_rng(seed)
    x, beta = rng.normal(size=(n, d)), rng.normal(size=d)
    return {"x": x, "y": x @ beta + noise * rng.normal(size=n)}, beta


def slope(x):
    """The mean of a linear regression, its coefficients sampled as `b`."""
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    return x @ b


def normal_guide(name, shape, loc=0.1, scale=0.3):
    """A mean-field Normal of `shape`, its parameters away from any optimum."""
    loc = numpyro.param(f"{name}.loc", jnp.full(shape, loc))
    scale = numpyro.param(
        f"{name}.scale", jnp.full(shape, scale), constraint=constraints.positive
    )
    return numpyro.sample(name, dist.Normal(loc, scale).to_event(len(shape)))


class GivenNoise(dist.Normal):
    """A Normal whose draw is made from the noise that it is given."""

    def __init__(self, loc, scale, noise):
        super().__init__(loc, scale)
        self.noise = noise

    def sample(self, key, sample_shape=()):
        return self.loc + self.scale * self.noise


def start(svi, rows, seed=0):
    """An SVI's first state, made in one compilation."""
    return jax.jit(svi.init)(jax.random.key(seed), **rows)


def start_params(svi, rows):
    """Its unconstrained parameters at the start."""
    return svi.optim.get_params(start(svi, rows).optim_state)


def in_batches(rows, size):
    """The rows as a partition into batches of one size, along a new first axis."""
    return {k: np.reshape(v, (-1, size, *np.shape(v)[1:])) for k, v in rows.items()}


def largest_error(got, wanted):
    """The largest difference of two trees of arrays, relative to each array's size."""
    errors = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max() / np.abs(b).max()), got, wanted
    )
    return max(jax.tree.leaves(errors))
