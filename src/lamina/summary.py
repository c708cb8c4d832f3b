"""Tables of posterior draws: moments, intervals, and how well chains mixed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpyro.diagnostics import effective_sample_size, hpdi, split_gelman_rubin

ROWS_SHOWN = 60
FEWEST_SHOWN = 3
"""Rows of a site, where not all can be shown."""


@dataclass(frozen=True, repr=False)
class Table:
    """Named rows and columns of numbers, which print well and become a DataFrame."""

    names: tuple[str, ...]
    columns: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> dict[str, float]:
        """One row, as column -> number."""
        if name not in self.names:
            raise KeyError(f"{name!r} is no row; the rows are {list(self.names)}.")
        at = self.names.index(name)
        return {column: float(values[at]) for column, values in self.columns.items()}

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        heads = ["", *self.columns]
        body: list[list[str]] = []
        left_out: dict[int, str] = {}
        for start, shown, size in _groups_shown(self.names):
            body += [
                [self.names[i], *(_number(c, v[i]) for c, v in self.columns.items())]
                for i in range(start, start + shown)
            ]
            if shown < size:
                left_out[len(body)] = (
                    f"... and {size - shown} rows more of {_group(self.names[start])}"
                )
        widths = [max(len(row[k]) for row in [heads, *body]) for k in range(len(heads))]
        lines = [
            "  ".join(
                cell.ljust(w) if k == 0 else cell.rjust(w)
                for k, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in [heads, *body]
        ]
        hidden = len(self) - len(body)
        if hidden:
            left_out[len(body)] = f"... and {hidden} rows more: to_dataframe()"
        for at, words in reversed(left_out.items()):
            lines.insert(at + 1, words)
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return f"<pre>{self!r}</pre>"

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with the names as its index (extra: lamina[dataframe])."""
        import pandas

        return pandas.DataFrame(self.columns, index=list(self.names))


def _group(name: str) -> str:
    """The site that a row is of."""
    return name.partition("[")[0]


def _groups_shown(names: Sequence[str]) -> list[tuple[int, int, int]]:
    """Each site's first row, how many of its rows are printed, and how many it has.

    All where they fit; otherwise as many of each site as do, so that none goes missing,
    or the first rows where the sites are too many for that.
    """
    sizes = [len(list(rows)) for _, rows in itertools.groupby(names, _group)]
    starts = [0, *itertools.accumulate(sizes)]
    most = min(max(sizes, default=0), ROWS_SHOWN)
    while most > 1 and sum(min(size, most) for size in sizes) > ROWS_SHOWN:
        most -= 1
    if most < FEWEST_SHOWN:
        most = max(sizes, default=0)
    left, found = ROWS_SHOWN, []
    for start, size in zip(starts, sizes, strict=False):
        shown = min(size, most, left)
        left -= shown
        if shown:
            found.append((start, shown, size))
    return found


def in_order(sites: Iterable[str]) -> list[str]:
    """Sites as they are read: auxiliary ones last, what they make in their place.

    Auxiliary is what a deterministic value of the model is made from and stands for it
    in the sampler alone: `x.beta_decentered` beside `x.beta`, `g.z` beside `g.theta`, a
    gate beside its weight.
    """
    known = list(sites)
    makes = {site: made for site in known if (made := _makes(site, known))}
    first = [makes.get(site, site) for site in known]
    return list(dict.fromkeys([s for s in first if s not in makes] + list(makes)))


def _makes(site: str, known: Sequence[str]) -> str | None:
    """The site that an auxiliary one is made into, None for any other."""
    if (part := re.fullmatch(r"(.+\.)(z|gate)(\d*)", site)) is not None:
        before, word, suffix = part.groups()
        made = ("weight",) if word == "gate" else ("theta", "beta")
        return next((s for m in made if (s := f"{before}{m}{suffix}") in known), None)
    whole = re.sub(r"_(decentered|base|size|start|steps)(\d*)$", r"\2", site)
    return whole if whole != site and whole in known else None


def chosen(sites: Iterable[str], var_names: str | Iterable[str] | None) -> list[str]:
    """The sites that are asked for, in the order asked; all of them for None.

    A name is a site, or the part before a dot, which stands for all sites under it; `*`
    stands for any characters. With `~` in front it leaves out what it names; names that
    all leave out, leave out from all.

    Raises: ValueError for a name that no site has.
    """
    known = in_order(sites)
    if var_names is None:
        return known
    several = isinstance(var_names, Iterable) and not isinstance(var_names, str)
    names: list[Any] = list(var_names) if several else [var_names]
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TypeError(
            f"var_names holds {wrong[0]!r}, which is no name. Give names of sites, such "
            "as summary(['x.beta', '~*_decentered']); `interval` goes by keyword."
        )
    keep: dict[str, None] = {}
    drop: set[str] = set()
    for name in names:
        found = [s for s in known if _names(name.removeprefix("~"), s)]
        if not found:
            raise ValueError(
                f"var_names: {name!r} names no site; the sites are {known}. Give one of "
                "them, the part before a dot, or a pattern with *."
            )
        if name.startswith("~"):
            drop.update(found)
        else:
            keep.update(dict.fromkeys(found))
    if names and all(name.startswith("~") for name in names):
        keep = dict.fromkeys(known)
    return [site for site in keep if site not in drop]


def _names(pattern: str, site: str) -> bool:
    """Whether a pattern names a site, or what the site is under."""
    words = ".*".join(map(re.escape, pattern.split("*")))
    return re.fullmatch(rf"{words}([./].*)?", site) is not None


def summarise(
    draws: Mapping[str, np.ndarray],
    *,
    interval: float,
    correlated: bool,
    notes: tuple[str, ...] = (),
    var_names: str | Iterable[str] | None = None,
) -> Table:
    """One row for each number that was drawn, of the sites that `chosen` chooses.

    `hdi` bounds are the highest-density interval of probability `interval`. `ess` and
    `r_hat` are given for chains only: independent draws always mix.
    """
    require_probability(interval)
    names: list[str] = []
    parts: list[dict[str, np.ndarray]] = []
    for site in chosen(draws, var_names):
        values = draws[site]
        shape = values.shape[2:]
        names += [
            _entry(site, index) for index in itertools.product(*map(range, shape))
        ]
        flat = values.reshape(*values.shape[:2], -1).astype(float)
        pooled = flat.reshape(-1, flat.shape[-1])
        single = len(pooled) == 1
        low, high = (pooled[0], pooled[0]) if single else hpdi(pooled, interval)
        part = {
            "mean": pooled.mean(axis=0),
            "sd": np.zeros(flat.shape[-1]) if single else pooled.std(axis=0, ddof=1),
            f"hdi {percent(interval)} low": low,
            f"hdi {percent(interval)} high": high,
        }
        if correlated and flat.shape[1] >= 4:
            with np.errstate(invalid="ignore", divide="ignore"):
                part["ess"] = effective_sample_size(flat)
                part["r_hat"] = split_gelman_rubin(flat)
        parts.append({k: np.atleast_1d(np.asarray(v)) for k, v in part.items()})
    columns = (
        {k: np.concatenate([p[k] for p in parts]) for k in parts[0]} if parts else {}
    )
    return Table(tuple(names), columns, notes)


def require_probability(interval: float) -> None:
    """Raise unless `interval` is a probability strictly inside (0, 1)."""
    if isinstance(interval, bool) or not 0 < interval < 1:
        raise ValueError(
            f"interval is {interval!r}; it is a probability between 0 and 1, such as 0.9."
        )


def percent(interval: float) -> str:
    """A probability as a heading: 0.9 is 90%, 0.995 is 99.5%."""
    return f"{100 * interval:.4g}%"


def _entry(site: str, index: tuple[int, ...]) -> str:
    return f"{site}[{','.join(map(str, index))}]" if index else site


def _number(column: str, value: float) -> str:
    if column == "ess":
        return f"{value:.0f}"
    if 0 < abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 1e4 else f"{value:.4g}"


@dataclass(frozen=True, repr=False)
class Predicted:
    """A prediction for each row: its mean, standard deviation and interval over draws.

    `lower` and `upper` bound the highest-density interval of probability `interval`. All
    have the shape of the outcome; `draws`, if asked for, has an axis of draws in front.
    """

    kind: str
    interval: float
    mean: np.ndarray
    sd: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    draws: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.mean)

    def entry(self, i: int) -> Predicted:
        """The prediction of one entry of the last axis."""
        return replace(
            self,
            mean=self.mean[..., i],
            sd=self.sd[..., i],
            lower=self.lower[..., i],
            upper=self.upper[..., i],
            draws=None if self.draws is None else self.draws[..., i],
        )

    def table(self) -> Table:
        """One row for each entry of the outcome."""
        columns = {
            "mean": self.mean,
            "sd": self.sd,
            f"{percent(self.interval)} low": self.lower,
            f"{percent(self.interval)} high": self.upper,
        }
        names = [",".join(map(str, index)) for index in np.ndindex(self.mean.shape)]
        return Table(tuple(names), {k: np.ravel(v) for k, v in columns.items()})

    def to_dataframe(self) -> Any:
        """A pandas DataFrame (extra: lamina[dataframe])."""
        return self.table().to_dataframe()

    def __repr__(self) -> str:
        return f"Predicted {self.kind} of shape {self.mean.shape}\n{self.table()!r}"

    def _repr_html_(self) -> str:
        return f"<pre>{self!r}</pre>"


def summarised(
    values: np.ndarray, kind: str, interval: float, *, keep: bool
) -> Predicted:
    """A chunk's draws, (draw, rows, ...), as moments and intervals."""
    wide = values.astype(np.float64)
    mean, sd = wide.mean(axis=0), np.zeros(values.shape[1:])
    low = high = values[0]
    if len(values) > 1:
        with np.errstate(invalid="ignore"):  # of an infinite mean, which has no sd
            sd = wide.std(axis=0, ddof=1)
            low, high = hpdi(values, interval)
    return Predicted(kind, interval, mean, sd, low, high, values if keep else None)


def joined(pieces: list[Predicted]) -> Predicted:
    """Predictions of successive chunks as one."""

    def along(name: str, axis: int) -> np.ndarray:
        return np.concatenate([getattr(p, name) for p in pieces], axis=axis)

    first = pieces[0]
    return Predicted(
        first.kind,
        first.interval,
        mean=along("mean", 0),
        sd=along("sd", 0),
        lower=along("lower", 0),
        upper=along("upper", 0),
        draws=None if first.draws is None else along("draws", 1),
    )
