"""Recording terms and outcomes, and telling a model that it predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import zip_longest
from typing import Any

import numpyro
from numpyro.primitives import Messenger

from lamina._typing import Array, Model, Shape
from lamina.effects import Prediction, random_key


class record_terms(Messenger):
    """Keep every layer's output as the deterministic site `{name}.term`."""

    def process_message(self, message: Any) -> None:
        if message["type"] == "term":
            numpyro.deterministic(f"{message['term']}.term", message["value"])


class record_outcomes(Messenger):
    """Keep each link's predictor as `{name}.linear` and its mean as `{name}.mean`.

    The sites are recorded from inside the model, so scopes rename them as they rename
    the outcome. An outcome without a mean has no site of it.
    """

    def process_message(self, message: Any) -> None:
        if message["type"] == "outcome":
            name = message["outcome"]
            numpyro.deterministic(f"{name}.linear", message["value"])
            with suppress(NotImplementedError, AttributeError):
                mean = message["mean"] or (lambda: message["family"].mean)
                numpyro.deterministic(f"{name}.mean", mean())


class predicting(Messenger):
    """Tell layers and links that this is a prediction, with its key and number of rows.

    `key` is the draw's: unseen levels are drawn from it by site and code, so that every
    chunk of rows agrees on them. Without it they are drawn from the seed handler.
    """

    def __init__(
        self,
        fn: Model | Callable[..., Any] | None = None,
        *,
        key: Array | None = None,
        num_rows: int | None = None,
    ) -> None:
        super().__init__(fn)
        self.key, self.num_rows = key, num_rows

    def process_message(self, message: Any) -> None:
        if message["type"] == "prediction":
            key = random_key() if self.key is None else self.key
            message["value"] = Prediction(key, self.num_rows)


class with_rows(Messenger):
    """Draw an outcome for every row where its distribution alone knows no rows.

    In a fit, `numpyro.sample("obs", Normal(a, 1), obs=y)` takes its rows from `y`; to
    draw `y`, it needs the shape that the outcome is to have.
    """

    def __init__(
        self,
        fn: Model | Callable[..., Any] | None = None,
        *,
        shapes: Mapping[str, Shape],
    ) -> None:
        super().__init__(fn)
        self.shapes = shapes

    def process_message(self, message: Any) -> None:
        shape = self.shapes.get(message.get("name", ""))
        if message["type"] != "sample" or message["is_observed"] or shape is None:
            return
        fn = message["fn"]
        batch = shape[: len(shape) - fn.event_dim]
        if shape != batch + fn.event_shape or fn.batch_shape == batch:
            return
        own = (1,) * (len(batch) - len(fn.batch_shape)) + fn.batch_shape
        if all(a in (1, b) for a, b in zip_longest(own, batch)):
            message["fn"] = fn.expand(batch)
