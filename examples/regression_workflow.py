"""The workflow of an ordinary NumPyro regression, without a single layer.

Prior prediction, NUTS, the interval of the regression line, posterior prediction, maximum
likelihood, the posterior mode, and variational inference with a hand-written and with an
automatic guide: all on plain NumPyro models, each beside NumPyro's own answer or the
closed form. Run it with `python examples/regression_workflow.py`; LAMINA_QUICK=1 takes
fewer draws.
"""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import hpdi
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.autoguide import AutoMultivariateNormal

import lamina
from lamina.data import load_radon

QUICK = bool(os.environ.get("LAMINA_QUICK"))
DRAWS = 500 if QUICK else 4000
NOISE = 0.8


def regression(x, y=None):
    """Log radon on the county's uranium and the floor, with known noise."""
    a = numpyro.sample("a", dist.Normal(0.0, 10.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("obs", dist.Normal(a + x @ b, NOISE), obs=y)


def closed_form(x, y):
    """The exact posterior: Bishop (2006), eqs 3.50 and 3.51."""
    design = np.column_stack([np.ones(len(x)), x])
    prior = np.diag([10.0**-2, 1.0, 1.0])
    precision = prior + design.T @ design / NOISE**2
    covariance = np.linalg.inv(precision)
    return covariance @ design.T @ y / NOISE**2, covariance, design


def coin(flips):
    """A coin of unknown bias: the outcome is the argument itself."""
    bias = numpyro.sample("bias", dist.Beta(10.0, 10.0))
    with numpyro.plate("flip", len(flips)):
        numpyro.sample("obs", dist.Bernoulli(bias), obs=flips)


def coin_guide(flips):
    """A Beta guide with two parameters: the exact family."""
    positive = dist.constraints.positive
    a = numpyro.param("a", 15.0, constraint=positive)
    b = numpyro.param("b", 15.0, constraint=positive)
    numpyro.sample("bias", dist.Beta(a, b))


def show(title, rows):
    """Print name: numbers, aligned."""
    print(f"\n{title}")
    for name, values in rows.items():
        numbers = "  ".join(f"{v: .4f}" for v in np.ravel(values))
        print(f"  {name:28s}{numbers}")


def coefficients(posterior):
    """Draws of (a, b) side by side."""
    a = posterior.draws["a"].reshape(-1, 1)
    return np.hstack([a, posterior.draws["b"].reshape(len(a), -1)])


def main():
    radon = load_radon()
    x = np.column_stack([radon.log_uranium, radon.floor])
    data = {"x": x, "y": radon.log_radon}
    mean, covariance, design = closed_form(**data)
    exact_sd = np.sqrt(np.diag(covariance))

    prior = lamina.prior_predictive(regression, data, num_draws=DRAWS)
    own = Predictive(regression, num_samples=DRAWS)(jax.random.key(1), x)["obs"]
    exact = np.sqrt(np.diag(design @ np.diag([100.0, 1.0, 1.0]) @ design.T) + NOISE**2)
    show(
        "Prior prediction: sd of the first three outcomes",
        {
            "lamina": prior["obs"][:, :3].std(0),
            "NumPyro": np.asarray(own)[:, :3].std(0),
            "closed form": exact[:3],
        },
    )

    nuts = lamina.fit(regression, data, method="mcmc", num_samples=DRAWS // 4)
    kernel = MCMC(
        NUTS(regression),
        num_warmup=1000,
        num_samples=DRAWS // 4,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    kernel.run(jax.random.key(2), jnp.asarray(x), jnp.asarray(radon.log_radon))
    samples = kernel.get_samples()
    theirs = np.hstack([np.asarray(samples["a"])[:, None], np.asarray(samples["b"])])
    ours = coefficients(nuts)
    show(
        "NUTS: means and sds of a, b",
        {
            "lamina": [ours.mean(0), ours.std(0)],
            "NumPyro": [theirs.mean(0), theirs.std(0)],
            "closed form": [mean, exact_sd],
        },
    )
    print(nuts.summary())

    new = {"x": np.array([[-1.0, 0.0], [0.0, 0.0], [0.5, 1.0]])}
    line = nuts.predict(new, kind="mean", interval=0.89)
    theirs_line = theirs[:, :1] + theirs[:, 1:] @ new["x"].T
    show(
        "Interval (89 %, highest density) of the regression line at three points",
        {
            "lamina": [line.lower, line.upper],
            "NumPyro": np.stack(hpdi(theirs_line, 0.89)),
        },
    )
    response = nuts.predict(new)
    new_design = np.column_stack([np.ones(3), new["x"]])
    spread = np.sqrt(np.diag(new_design @ covariance @ new_design.T) + NOISE**2)
    show(
        "Posterior prediction: means and sds",
        {
            "lamina": [response.mean, response.sd],
            "closed form": [new_design @ mean, spread],
        },
    )

    mle = lamina.fit(regression, data, method="mle")
    mode = lamina.fit(regression, data, method="map")
    least_squares = np.linalg.lstsq(design, radon.log_radon, rcond=None)[0]
    show(
        "Point estimates of a, b",
        {
            "maximum likelihood, lamina": coefficients(mle),
            "least squares": least_squares,
            "posterior mode, lamina": coefficients(mode),
            "closed form": mean,
        },
    )

    automatic = lamina.fit(
        regression, data, guide=AutoMultivariateNormal, num_draws=DRAWS
    )
    drawn = coefficients(automatic)
    show(
        "VI with an automatic guide: means and sds of a, b",
        {"lamina": [drawn.mean(0), drawn.std(0)], "closed form": [mean, exact_sd]},
    )
    print(automatic.predict(new))

    flips = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    by_hand = lamina.fit(
        coin, {"flips": flips}, observed="flips", guide=coin_guide, num_draws=DRAWS
    )
    bias = by_hand.draws["bias"].ravel()
    show(
        "VI with a hand-written guide: a coin, mean and sd of its bias",
        {
            "lamina": [bias.mean(), bias.std()],
            "closed form, Beta(16, 14)": [16 / 30, np.sqrt(16 * 14 / 30**2 / 31)],
        },
    )


if __name__ == "__main__":
    main()
