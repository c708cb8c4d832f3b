r"""A motorcycle's crash: a smooth mean and a smooth scale of a helmet's acceleration.

    acceleration ~ Normal(mean of the time, exp(log scale of the time))

Both are penalised splines, by NUTS on two rows of three. Beside it stands the model with
one scale for all times, by the density of the rows held out. Run it with
`python examples/mcycle.py`.

Source of the data: Silverman (1985), Some Aspects of the Spline Smoothing Approach to
Non-Parametric Regression Curve Fitting.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpyro.distributions import HalfNormal
from numpyro.infer import init_to_median, log_likelihood
from published import NUTS, pooled, read, report

import lamina
from lamina.summary import Table

EVERY, UNIT = 3, 50.0


def model(time: Any, y: Any = None, *, smooth_scale: bool = True) -> Any:
    """Accelerations at times, in units of 50 g."""
    mean = lamina.SplineLayer(HalfNormal(5.0))
    mu = lamina.InterceptLayer()("average")
    log_scale = lamina.InterceptLayer(coef_kwargs={"loc": -1.0, "scale": 2.0})("level")
    if smooth_scale:
        log_scale = log_scale + lamina.SplineLayer(num_basis=10)("spread", time)
    return lamina.gaussian_link(mu + mean("mean", time), y, log_scale=log_scale)


def data() -> dict[str, np.ndarray]:
    """Times in milliseconds, and accelerations."""
    time, y = (column.astype(float) for column in read("mcycle").values())
    return {"time": time, "y": y / UNIT}


def held_out() -> np.ndarray:
    """Which rows are held out: every third."""
    return np.arange(len(data()["y"])) % EVERY == EVERY - 1


def fit(*, smooth_scale: bool = True) -> lamina.Posterior:
    """The posterior of the other rows.

    Chains begin at the prior's medians: from random places one may stay where the mean is
    flat and the scale takes up all that it leaves.
    """
    return lamina.fit(
        partial(model, smooth_scale=smooth_scale),
        {k: v[~held_out()] for k, v in data().items()},
        method="mcmc",
        noncentered=["spread.theta"] if smooth_scale else False,
        target_accept_prob=0.95,
        dense_mass=True,
        init_strategy=init_to_median,
        **NUTS,
    )


def densities(posterior: lamina.Posterior) -> np.ndarray:
    """The log predictive density of each row held out."""
    draws = {site: pooled(posterior, site) for site in posterior.sampled}
    rows = {k: v[held_out()] for k, v in data().items()}
    each = np.asarray(log_likelihood(posterior.model, draws, **rows)["obs"])
    each = each.reshape(len(each), -1)
    return np.logaddexp.reduce(each, axis=0) - np.log(len(each))


def contest(posterior: lamina.Posterior) -> Table:
    """The rows held out by either scale, and how sure the gain is."""
    smooth, constant = densities(posterior), densities(fit(smooth_scale=False))
    gain = smooth - constant
    columns = {
        "log density": np.array([constant.sum(), smooth.sum()]),
        "gain": np.array([0.0, gain.sum()]),
        "its standard error": np.array([0.0, gain.std() * np.sqrt(len(gain))]),
    }
    return Table(("one scale", "smooth scale"), columns)


def draw(posterior: lamina.Posterior) -> Any:
    """The mean, where accelerations are expected, and their standard deviation."""
    rows = data()
    time = np.linspace(rows["time"].min(), rows["time"].max(), 200)
    mean = posterior.predict({"time": time}, kind="mean")
    seen = posterior.predict({"time": time})
    figure, (top, below) = plt.subplots(
        2, 1, figsize=(7, 6), height_ratios=[3, 1], sharex=True
    )
    low, high = UNIT * seen.lower, UNIT * seen.upper
    label = "accelerations (90 %)"
    top.fill_between(time, low, high, color="0.9", lw=0, label=label)
    low, high = UNIT * mean.lower, UNIT * mean.upper
    top.fill_between(time, low, high, color="tab:blue", alpha=0.4, lw=0)
    top.plot(time, UNIT * mean.mean, color="tab:blue", label="mean (90 %)")
    for which, colour, label in (
        (~held_out(), "0.3", "seen"),
        (held_out(), "tab:red", "held out"),
    ):
        points = {"color": colour, "ms": 3, "label": label}
        top.plot(rows["time"][which], UNIT * rows["y"][which], "o", **points)
    top.set_ylabel("acceleration (g)")
    top.legend(frameon=False)
    below.plot(time, UNIT * np.sqrt(seen.sd**2 - mean.sd**2), color="tab:blue")
    below.set_ylim(0.0)
    below.set_ylabel("scale (g)")
    below.set_xlabel("time after the impact (ms)")
    return figure


def main() -> None:
    """Fit, compare, draw."""
    posterior = fit()
    words = "of the rows that were held out"
    report("mcycle", posterior, contest(posterior), words, draw, "mcycle.png")


if __name__ == "__main__":
    main()
