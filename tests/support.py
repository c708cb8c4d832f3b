"""What several test files need: running models with known values, and shape checks."""

import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jaxtyping import Float, Int, jaxtyped
from numpyro import handlers


def enable_x64():
    """A context in which JAX computes in double precision."""
    return jax.enable_x64(True)


def trace(model, *args, values=None, seed=0, **kwargs):
    """Every site of `model`, with the sites in `values` fixed."""
    fixed = handlers.substitute(model, data=values or {})
    return handlers.trace(handlers.seed(fixed, seed)).get_trace(*args, **kwargs)


def run(model, *args, values=None, seed=0, **kwargs):
    """What `model` returns, with the sites in `values` fixed."""
    fixed = handlers.substitute(model, data=values or {})
    return handlers.seed(fixed, seed)(*args, **kwargs)


def shapes(model, *args, types=("sample",), **kwargs):
    """site -> shape of its value, in the order of the program, computing nothing."""
    found = {}

    def abstract():
        for name, site in trace(model, *args, **kwargs).items():
            if site["type"] in types:
                found[name] = jnp.shape(site["value"])

    jax.eval_shape(abstract)
    return found


def shape_of(fn, *args, **kwargs):
    """The shape of what `fn` returns, computing nothing."""
    return jax.eval_shape(lambda: fn(*args, **kwargs)).shape


def log_prob(model, name, *args, values=None, **kwargs):
    """The log density of one site, entry by entry."""
    site = trace(model, *args, values=values, **kwargs)[name]
    return np.asarray(site["fn"].log_prob(site["value"]))


def shape_checked(fn):
    """`fn` with its jaxtyping annotations checked at every call."""
    names = {"Float": Float, "Int": Int}
    copy = types.FunctionType(fn.__code__, fn.__globals__, fn.__name__)
    copy.__annotations__ = typing.get_type_hints(fn, {**fn.__globals__, **names})
    return jaxtyped(typechecker=beartype)(copy)
