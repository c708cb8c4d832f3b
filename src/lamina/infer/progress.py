"""Progress of long work, shown where someone looks."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm


def progress(steps: int, shown: bool | None) -> tqdm:
    """A progress bar, shown in terminals and notebooks unless said otherwise."""
    return tqdm(total=steps, disable=not bar_shown(shown), unit="step", smoothing=0.1)


def bar_shown(shown: bool | None) -> bool:
    """Whether progress is shown: as asked, else in terminals and notebooks."""
    if shown is not None:
        return shown
    return sys.stderr.isatty() or "ipykernel" in sys.modules
