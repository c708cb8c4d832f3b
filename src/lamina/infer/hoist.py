"""Noise ahead of time: what a step draws from its key alone, for many steps at once.

Most of a small step's time goes into many small draws. They depend on the step's key
and on nothing else, so a loop may make them for some steps together, in one vectorised
call, without changing a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from lamina._typing import Array

BYTES_AHEAD = 2**20
"""More noise than this at a time would leave the processor's cache."""

STEPS_AHEAD = 32


class Hoisted(NamedTuple):
    """`fn(key, *args)` in two parts: `rest(noise(key), *args)` is the same."""

    noise: Callable[[Array], list[Array]]
    rest: Callable[..., Any]
    num_bytes: int
    """the size of one step's noise"""

    def steps_ahead(self, grid: int) -> int:
        """For how many steps to draw at a time: a divisor of `grid`."""
        most = min(STEPS_AHEAD, BYTES_AHEAD // max(self.num_bytes, 1))
        return max((k for k in range(1, most + 1) if grid % k == 0), default=1)


def hoist(fn: Callable[..., Array], key: Array, *args: Any) -> Hoisted:
    """Split a scalar function of a key and other arguments by what the key alone decides.

    `key` and `args` are examples: only their shapes count.
    """
    closed = jax.make_jaxpr(fn)(key, *args)
    program = closed.jaxpr
    known = {program.invars[0]}
    ahead, later = [], []
    for equation in program.eqns:
        read = _variables(equation.invars)
        if read and read <= known and not equation.effects:
            ahead.append(equation)
            known.update(equation.outvars)
        else:
            later.append(equation)
    needed = _variables(program.outvars).union(*(_variables(e.invars) for e in later))
    made = [v for e in ahead for v in e.outvars if v in needed]
    made += [v for v in program.invars[:1] if v in needed]
    first = _program([], program.invars[:1], made, ahead, program)
    inputs = [*made, *program.invars[1:]]
    second = _program(program.constvars, inputs, program.outvars, later, program)
    run_first = core.jaxpr_as_fun(core.ClosedJaxpr(first, []))
    run_second = core.jaxpr_as_fun(core.ClosedJaxpr(second, closed.consts))

    def rest(noise: list[Array], *args: Any) -> Array:
        (value,) = run_second(*noise, *jax.tree.leaves(args))
        return value

    return Hoisted(lambda key: run_first(key), rest, sum(map(_bytes, made)))


def _program(
    constants: Any, inputs: Any, outputs: Any, equations: Any, source: Any
) -> Any:
    """A part of the program `source`, which error messages go on naming."""
    names = source.debug_info._replace(
        arg_names=("",) * len(inputs), result_paths=("",) * len(outputs)
    )
    return core.Jaxpr(constants, inputs, outputs, equations, debug_info=names)


def _variables(atoms: Any) -> set[Any]:
    return {v for v in atoms if not isinstance(v, core.Literal)}


def _bytes(variable: Any) -> int:
    aval = variable.aval
    return int(np.prod(aval.shape)) * getattr(aval.dtype, "itemsize", 16)
