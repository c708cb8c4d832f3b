"""What layers learn from the training data once: found, kept and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from numpyro import handlers
from numpyro.primitives import Messenger

from lamina._typing import Model, comparable
from lamina.effects import Unlearned


class Memory:
    """Names and what was learned under them: `known` from before, the rest on the way."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)
        self.known = frozenset(self.values)

    def keep(self, name: str, value: Any) -> None:
        """Keep what was learned just now.

        Raises: ValueError where the name stands for something else already.
        """
        known = self.values.get(name, value)
        if comparable(known) != comparable(value):
            raise ValueError(
                f"two layers learn {name!r} from different data, so one would read what "
                "is the other's. Give each layer a name of its own."
            )
        self.values[name] = value


class remembering(Messenger):
    """Answer what layers learned from the training data; the rest is learned, and kept.

    `values` maps names, such as `"smooth.knots"`, to what was learned.
    """

    def __init__(
        self,
        fn: Model | Callable[..., Any] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(fn)
        self.memory = Memory(values or {})


def learn(model: Model, data: Mapping[str, Any]) -> dict[str, Any]:
    """What the model's layers learn from these data: name -> value.

    The model is traced, or runs where it computes with the data before its layers.

    Raises: ValueError where that depends on what the model draws.
    """

    def run(seed: int) -> dict[str, Any]:
        keeper = remembering()
        with handlers.block(), handlers.seed(rng_seed=seed), keeper:
            model(**data)
        return keeper.memory.values

    found: dict[str, Any] = {}
    try:
        jax.eval_shape(lambda: found.update(run(0)))
    except (Unlearned, jax.errors.JAXTypeError):
        found, other = run(0), run(1)
        drawn = [
            k for k, v in found.items() if comparable(v) != comparable(other.get(k))
        ]
        if drawn:
            raise ValueError(
                f"{drawn} are learned from what the model draws, a latent value or a "
                "random part of the rows, so knots and ranges would be those of one "
                "draw. Give such a layer data that are known, and all their rows."
            ) from None
    return found
