"""Optimizer steps per second of minibatch variational inference, against a floor.

The problem: 1,024,000 rows (whole batches of every size below), 50 float32 columns, a
random effect of 1,000 levels, a normal outcome; a mean-field normal guide, Adam. Every
contender takes one reparametrised draw a step, on batches of 256, 1,024 and 8,192 rows.

- floor: the same ELBO written by hand in JAX, in `lax.scan` over neighbouring rows that
  are never shuffled: one random draw for all the latents, no probabilistic language.
- NumPyro scan: `SVI.update` in `lax.scan` over the same unshuffled rows.
- NumPyro loop: `SVI.update` under `jit`, called from Python with rows drawn by a shuffled
  index on the host, which is what users write.
- blayers and lamina: `svi_run_batched` of each with its own layers, shuffling as it does
  by default.

How it is timed. The two `svi_run_batched` trace, compile and prepare the data inside the
call, and again in the next call. So every contender runs twice, for `s` and for `s + d`
steps, and the difference counts: (T(s + d) - T(s)) / d seconds a step. `s` is an epoch
and `d` whole epochs; for a loop that compiles chunks of steps, `d` is sixteen epochs or a
multiple, 2,000 steps times a power of two, which leaves the same last, shorter chunk. So
both runs compile the same programs, and what happens once a call cancels; what happens
in every epoch, such as shuffling, stays in. A trial run chooses `d` so that the
difference lasts some seconds, far above the noise of compilation. Contenders take turns,
in a new order in every round; ratios to the floor are taken within a round. Tables show
medians and, in brackets, the extremes.

Run from the root of the repository, about ten minutes on two cores:

    python benchmarks/vi_throughput.py

`--quick` takes about a minute, on fewer rows and one batch size, and checks that
everything runs; it writes no file unless told where. The table is printed and written to
benchmarks/results/vi_throughput.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import random as shuffler
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import lax, random
from numpyro.handlers import scale
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

COLUMNS = 50
LEVELS = 1000
RESULTS = Path(__file__).parent / "results" / "vi_throughput.md"

Data = dict[str, jax.Array]
Run = Callable[[int], None]  # takes a number of steps, returns when they are done


@dataclass(frozen=True)
class Setting:
    """How long to measure."""

    rows: int
    batch_sizes: tuple[int, ...]
    rounds: int
    seconds: float  # that the longer run should add


@dataclass(frozen=True)
class Timing:
    """Seconds a step, one entry for each round."""

    seconds: list[float]
    floor: list[float]

    @property
    def ratios(self) -> list[float]:
        return [s / f for s, f in zip(self.seconds, self.floor, strict=True)]


def simulate(rows: int) -> Data:
    """Rows with a linear signal and a level's effect, in random order."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, COLUMNS), np.float32)
    g = rng.integers(0, LEVELS, rows, np.int32)
    beta = 0.3 * rng.standard_normal(COLUMNS, np.float32)
    theta = rng.standard_normal(LEVELS, np.float32)
    y = x @ beta + theta[g] + rng.standard_normal(rows, np.float32)
    return {"x": jnp.asarray(x), "g": jnp.asarray(g), "y": jnp.asarray(y)}


# The floor.


def floor_loss(params: Any, key: jax.Array, batch: Data, weight: float) -> jax.Array:
    """The negative ELBO of `numpyro_model` under a mean-field normal guide, by hand."""
    loc, raw_scale = params
    noise = random.normal(key, (COLUMNS + LEVELS + 3,))
    noise = lax.optimization_barrier(noise)  # else XLA draws it again for every use
    noise = {
        "log_lambda": noise[0],
        "log_tau": noise[1],
        "log_sigma": noise[2],
        "beta": noise[3 : 3 + COLUMNS],
        "theta": noise[3 + COLUMNS :],
    }
    sd = jax.tree.map(jax.nn.softplus, raw_scale)
    z = {name: loc[name] + sd[name] * noise[name] for name in loc}
    lambda_, tau, sigma = (
        jnp.exp(z[name]) for name in ("log_lambda", "log_tau", "log_sigma")
    )
    residual = (batch["y"] - batch["x"] @ z["beta"] - z["theta"][batch["g"]]) / sigma
    likelihood = -0.5 * residual @ residual - residual.size * z["log_sigma"]
    prior = (
        -0.5 * (lambda_**2 + tau**2)
        - sigma
        - 0.5 * jnp.sum((z["beta"] / lambda_) ** 2)
        - COLUMNS * z["log_lambda"]
        - 0.5 * jnp.sum((z["theta"] / tau) ** 2)
        - LEVELS * z["log_tau"]
    )
    volume = z["log_lambda"] + z["log_tau"] + z["log_sigma"]
    entropy = sum(jnp.sum(jnp.log(s)) for s in sd.values())
    return -(weight * likelihood + prior + volume + entropy)


def floor(data: Data, batch_size: int) -> Run:
    """The hand-written loop."""
    rows = len(data["y"])
    adam = optax.adam(1e-2)
    shapes = {"log_lambda": (), "log_tau": (), "log_sigma": ()}
    shapes |= {"beta": (COLUMNS,), "theta": (LEVELS,)}
    loc = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    raw_scale = {name: jnp.full(shape, -2.25) for name, shape in shapes.items()}
    params = (loc, raw_scale)

    def step(data: Data, carry: Any, start: jax.Array) -> tuple[Any, jax.Array]:
        params, state, key = carry
        key, key_step = random.split(key)
        batch = neighbours(data, start, batch_size)
        loss, grads = jax.value_and_grad(floor_loss)(
            params, key_step, batch, rows / batch_size
        )
        updates, state = adam.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, key), loss

    return scanned(step, (params, adam.init(params), random.key(0)), data, batch_size)


# NumPyro.


def numpyro_model(weight: float, x: Any, g: Any, y: Any = None) -> None:
    """The model of the problem, its rows weighted by hand."""
    lambda_ = numpyro.sample("x.lmbda", dist.HalfNormal(1.0).expand([1]).to_event(1))
    beta = numpyro.sample(
        "x.beta", dist.Normal(0.0, lambda_).expand([COLUMNS, 1]).to_event(2)
    )
    tau = numpyro.sample("g.lmbda", dist.HalfNormal(1.0))
    theta = numpyro.sample(
        "g.theta", dist.Normal(0.0, tau).expand([LEVELS, 1]).to_event(2)
    )
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    with scale(scale=weight):
        numpyro.sample("obs", dist.Normal((x @ beta + theta[g])[:, 0], sigma), obs=y)


def numpyro_svi(data: Data, batch_size: int) -> tuple[SVI, Any]:
    """NumPyro's SVI of the problem and its first state."""
    model = partial(numpyro_model, len(data["y"]) / batch_size)
    svi = SVI(model, AutoNormal(model), optax.adam(1e-2), Trace_ELBO())
    state = svi.init(random.key(0), **{k: v[:batch_size] for k, v in data.items()})
    return svi, state


def numpyro_scan(data: Data, batch_size: int) -> Run:
    """`SVI.update` in a compiled loop over neighbouring rows, in the order they have."""
    svi, state = numpyro_svi(data, batch_size)

    def step(data: Data, state: Any, start: jax.Array) -> tuple[Any, jax.Array]:
        return svi.update(state, **neighbours(data, start, batch_size))

    return scanned(step, state, data, batch_size)


def numpyro_loop(data: Data, batch_size: int) -> Run:
    """`SVI.update` in a loop in Python over rows in a new order in every epoch."""
    svi, start = numpyro_svi(data, batch_size)
    host = {name: np.asarray(values) for name, values in data.items()}
    update = jax.jit(lambda state, batch: svi.update(state, **batch))

    def batches() -> Iterator[dict[str, np.ndarray]]:
        rng = np.random.default_rng(0)
        while True:
            order = rng.permutation(len(host["y"]))
            for first in range(0, len(order) - batch_size + 1, batch_size):
                chosen = order[first : first + batch_size]
                yield {name: values[chosen] for name, values in host.items()}

    def run(steps: int) -> None:
        state, loss = start, None
        for _, batch in zip(range(steps), batches(), strict=False):
            state, loss = update(state, batch)
        jax.block_until_ready((state, loss))

    return run


# The loops that libraries offer.


def blayers(data: Data, batch_size: int) -> Run:
    """The loop of blayers."""
    from blayers.layers import AdaptiveLayer, RandomEffectsLayer
    from blayers.links import gaussian_link
    from blayers.vi_infer import Batched_Trace_ELBO, svi_run_batched

    def model(x: Any, g: Any, y: Any = None) -> Any:
        mu = AdaptiveLayer()("x", x) + RandomEffectsLayer()("g", g, LEVELS)
        return gaussian_link(mu, y)

    def run(steps: int) -> None:
        loss = Batched_Trace_ELBO(num_obs=len(data["y"]), batch_size=batch_size)
        svi = SVI(model, AutoNormal(model), optax.adam(1e-2), loss)
        result = svi_run_batched(
            svi, random.key(0), batch_size, num_steps=steps, **data
        )
        jax.block_until_ready(result)

    return run


def lamina(data: Data, batch_size: int) -> Run:
    """The loop of lamina."""
    from lamina import AdaptiveLayer, RandomEffectsLayer, gaussian_link_exp
    from lamina.infer import svi_run_batched

    def model(x: Any, g: Any, y: Any = None) -> Any:
        mu = AdaptiveLayer()("x", x) + RandomEffectsLayer()("g", g, LEVELS)
        return gaussian_link_exp(mu, y)

    def run(steps: int) -> None:
        svi = SVI(model, AutoNormal(model), optax.adam(1e-2), Trace_ELBO())
        result = svi_run_batched(
            svi,
            random.key(0),
            steps,
            batch_size=batch_size,
            progress_bar=False,
            **data,
        )
        jax.block_until_ready(result)

    return run


@dataclass(frozen=True)
class Contender:
    """A way to run the problem, and the epochs that its longer run adds, or a multiple."""

    build: Callable[[Data, int], Run]
    epochs: int = 1


CONTENDERS = {
    "floor": Contender(floor),
    "NumPyro scan, unshuffled": Contender(numpyro_scan),
    "NumPyro loop in Python": Contender(numpyro_loop),
    "blayers": Contender(blayers),
    "lamina": Contender(lamina, epochs=16),
}


# Shared pieces.


def neighbours(data: Data, start: jax.Array, batch_size: int) -> Data:
    """The rows from `start` on."""
    return {k: lax.dynamic_slice_in_dim(v, start, batch_size) for k, v in data.items()}


def scanned(step: Callable, carry: Any, data: Data, batch_size: int) -> Run:
    """`step` in `lax.scan`, a compiled call for each epoch, rows in the order they have."""
    starts = jnp.arange(0, len(data["y"]), batch_size, dtype=jnp.int32)
    epoch = jax.jit(lambda data, carry: lax.scan(partial(step, data), carry, starts))

    def run(steps: int) -> None:
        now, losses = carry, []
        for _ in range(steps // len(starts)):
            now, loss = epoch(data, now)
            losses.append(loss)
        jax.block_until_ready((now, losses))

    return run


def seconds(run: Run, steps: int) -> float:
    """What `steps` steps take, whatever else the call does included."""
    begin = time.perf_counter()
    run(steps)
    return time.perf_counter() - begin


def measure(setting: Setting, data: Data, batch_size: int) -> dict[str, Timing | str]:
    """Every contender's seconds a step, or why it is missing."""
    found: dict[str, Timing | str] = {}
    runs: dict[str, Run] = {}
    for name, contender in CONTENDERS.items():
        try:
            runs[name] = contender.build(data, batch_size)
        except ImportError as error:
            found[name] = f"not measured: {error}"
    epoch = setting.rows // batch_size
    added = {
        name: more_steps(run, epoch, CONTENDERS[name].epochs * epoch, setting.seconds)
        for name, run in runs.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(setting.rounds):
        for name in shuffler.Random(number).sample(list(runs), len(runs)):
            short = seconds(runs[name], epoch)
            long = seconds(runs[name], epoch + added[name])
            taken[name].append((long - short) / added[name])
    for name, times in taken.items():
        found[name] = Timing(times, taken["floor"])
    return {name: found[name] for name in CONTENDERS}


def more_steps(run: Run, epoch: int, unit: int, wanted: float) -> int:
    """How many steps, in whole units, last about as long as wanted."""
    run(epoch + unit)  # what a process compiles once
    short = seconds(run, epoch)
    steps = unit
    while (lasts := seconds(run, epoch + steps) - short) < wanted / 2:
        steps *= 4
    return unit * max(1, round(steps / unit * wanted / lasts))


# The report.


def spread(values: list[float], digits: int) -> str:
    """The median and, in brackets, the extremes."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} [{low:,.{digits}f}-{high:,.{digits}f}]"


def installed(package: str) -> str:
    """The version of a package, in words where it has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def cores() -> int:
    """The processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment() -> str:
    """Where the numbers come from, in a line."""
    packages = ("jax", "numpyro", "optax", "blayers", "lamina")
    versions = ", ".join(f"{name} {installed(name)}" for name in packages)
    return f"Python {platform.python_version()}, {versions}; {cores()} cores"


def table(batch_size: int, found: dict[str, Timing | str]) -> list[str]:
    """The rows of one batch size in Markdown."""
    lines = []
    for name, timing in found.items():
        if isinstance(timing, str):
            lines.append(f"| {batch_size:,} | {name} | {timing} | | |")
            continue
        micros = spread([1e6 * s for s in timing.seconds], 1)
        rate = f"{1 / statistics.median(timing.seconds):,.0f}"
        ratio = spread(timing.ratios, 2)
        lines.append(f"| {batch_size:,} | {name} | {rate} | {micros} | {ratio} |")
    return lines


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument(
        "--output", type=Path, help="default: results/ beside this file"
    )
    options = parser.parse_args()
    if options.quick:
        setting = Setting(16 * 8192, batch_sizes=(1024,), rounds=1, seconds=1.0)
    else:
        setting = Setting(125 * 8192, (256, 1024, 8192), rounds=5, seconds=1.5)
    data = simulate(setting.rows)
    lines = [
        "# Throughput of minibatch variational inference",
        "",
        f"{setting.rows:,} rows, {COLUMNS} columns, {LEVELS:,} levels. {environment()}.",
        "",
        f"Medians of {setting.rounds} interleaved rounds, [least-most]; the ratio is of "
        "step times, to the floor of the same round. The floor and the scan do not "
        "shuffle.",
        "",
        "| batch | contender | steps / s | µs / step | ratio to the floor |",
        "| ---: | --- | ---: | ---: | ---: |",
    ]
    print("\n".join(lines), flush=True)
    for batch_size in setting.batch_sizes:
        rows = table(batch_size, measure(setting, data, batch_size))
        print("\n".join(rows), flush=True)
        lines += rows
    output = options.output or (None if options.quick else RESULTS)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
