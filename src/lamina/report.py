"""The main job's report: a picture and a page."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpyro.diagnostics import hpdi

from lamina.data.bundled import Radon
from lamina.posterior import Posterior


class Entry(NamedTuple):
    """A published number, and (mean, sd) of it by each fit."""

    name: str
    published: float
    fits: dict[str, tuple[float, float]]


COLOURS = {"minibatch VI": "#c44e52", "NUTS": "#30638e"}


def draw_report(fits: Mapping[str, Posterior], radon: Radon, path: Path) -> Path:
    """Draw county intercepts by both fits and the loss, and save them as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    houses = np.bincount(radon.county)
    order = np.argsort(houses, kind="stable")
    at = np.arange(len(order))
    for shift, (label, posterior) in zip((-0.2, 0.2), fits.items(), strict=True):
        intercepts = county_intercepts(posterior)
        low, high = hpdi(intercepts, 0.9)
        colour = COLOURS[label]
        left.vlines(
            at + shift, low[order], high[order], color=colour, alpha=0.35, lw=1.4
        )
        left.plot(
            at + shift,
            intercepts.mean(0)[order],
            "o",
            color=colour,
            ms=2.6,
            label=label,
        )
    raw = raw_means(radon)
    left.plot(at, raw[order], "x", color="0.45", ms=3.5, label="county's own mean")
    left.axhline(1.462, color="0.3", lw=0.8, ls="--", label="published mean, 1.462")
    shown = at[:: len(at) // 8]
    left.set_xticks(shown, [str(houses[order][i]) for i in shown])
    left.set(
        xlabel="counties, by number of houses measured",
        ylabel="log radon in the basement",
        title="85 counties, partially pooled: mean and 90 % interval",
    )
    left.set_ylim(top=3.3)
    left.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    losses = next(p.losses for p in fits.values() if p.losses is not None)
    right.plot(losses, color=COLOURS["minibatch VI"], lw=0.3, alpha=0.35)
    width = 100
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    right.plot(
        np.arange(len(smooth)) + width / 2, smooth, color=COLOURS["minibatch VI"]
    )
    low, high = np.quantile(losses[len(losses) // 4 :], [0.01, 0.995])
    right.set_ylim(low - 0.2 * (high - low), high + 0.8 * (high - low))
    right.set(xlabel="step", ylabel="negative ELBO, nats", title="Loss of minibatch VI")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    return path


def county_intercepts(posterior: Posterior) -> np.ndarray:
    """Draws of each county's intercept: (draw, county)."""
    base = posterior.draws["basement.beta"].reshape(-1, 1)
    return base + posterior.draws["county.theta"].reshape(len(base), -1)


def raw_means(radon: Radon) -> np.ndarray:
    """Each county's own mean in the basement, pooled with nothing."""
    basement = radon.log_radon + 0.693 * radon.floor
    return np.bincount(radon.county, basement) / np.bincount(radon.county)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Lamina: radon</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
img {{ max-width: 100%; }}
p.small {{ color: #666; font-size: .85rem; }}
</style></head><body>
<h1>Radon in Minnesota houses</h1>
<p>The same model, log radon by floor with a partially pooled intercept for each of 85
counties, fitted in two ways by Lamina: {times}.</p>
<table><tr>{heads}</tr>
{rows}
</table>
{picture}
<p class="small">Mean ± standard deviation. Published: Gelman and Hill (2007), Data Analysis
Using Regression and Multilevel/Hierarchical Models, chapter 12, by restricted maximum
likelihood. Data: U.S. Environmental Protection Agency, public domain.</p>
</body></html>
"""


def write_html(
    entries: list[Entry], seconds: Mapping[str, float], picture: Path | None, path: Path
) -> Path:
    """Write the page, with the picture inside it."""
    labels = list(entries[0].fits)
    heads = "".join(f"<th>{html.escape(h)}</th>" for h in ("", "published", *labels))
    rows = "\n".join(
        f"<tr><td>{html.escape(e.name)}</td><td>{e.published:.3f}</td>"
        + "".join(f"<td>{m:.3f} ± {s:.3f}</td>" for m, s in e.fits.values())
        + "</tr>"
        for e in entries
    )
    image = ""
    if picture is not None:
        encoded = base64.b64encode(picture.read_bytes()).decode()
        image = (
            f'<p><img alt="county intercepts and loss" '
            f'src="data:image/png;base64,{encoded}"></p>'
        )
    times = " and ".join(f"{label} in {s:.0f} s" for label, s in seconds.items())
    path.write_text(
        PAGE.format(times=times, heads=heads, rows=rows, picture=image), "utf-8"
    )
    return path
