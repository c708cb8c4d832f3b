"""Recording terms and outcomes, and telling a model that it predicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpyro
from numpyro.primitives import Messenger

from lamina._typing import Array, Model
from lamina.effects import Prediction, random_key


class record_terms(Messenger):
    """Keep every layer's output as the deterministic site `{name}.term`."""

    def process_message(self, message: Any) -> None:
        if message["type"] == "term":
            numpyro.deterministic(f"{message['term']}.term", message["value"])


class record_outcomes(Messenger):
    """Keep each link's predictor as `{name}.linear` and its mean as `{name}.mean`.

    The sites are recorded from inside the model, so scopes rename them as they rename
    the outcome.
    """

    def process_message(self, message: Any) -> None:
        if message["type"] == "outcome":
            name = message["outcome"]
            numpyro.deterministic(f"{name}.linear", message["value"])
            numpyro.deterministic(f"{name}.mean", message["family"].mean)


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
