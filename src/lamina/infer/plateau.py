"""Whether a noisy loss still falls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamina._checks import positive_size


def lower(
    before: np.ndarray, after: np.ndarray, errors: float, least: float = 0.0
) -> bool:
    """Whether the mean loss fell by more than this many standard errors, and `least`."""
    error = np.sqrt(before.var() / len(before) + after.var() / len(after))
    return bool(before.mean() - after.mean() > max(errors * error, least))


@dataclass(frozen=True)
class Plateau:
    """Stop when the loss no longer falls: a rule on a fixed grid of steps.

    The mean loss of the last `window` steps is compared with that of the `window` steps
    before; the run stops when it is not lower by more than `tolerance` standard errors.
    """

    window: int = 1000
    tolerance: float = 1.0

    def __post_init__(self) -> None:
        positive_size("Plateau", "window", self.window)

    def reached(self, losses: np.ndarray) -> bool:
        """Whether the last losses lie on a plateau."""
        w = self.window
        if len(losses) < 2 * w:
            return False
        before, after = losses[-2 * w : -w], losses[-w:]
        return not lower(before, after, self.tolerance)
