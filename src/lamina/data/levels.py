"""Levels made of several factors: crossed and nested groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina._checks import as_array


@dataclass(frozen=True, repr=False, eq=False)
class Crossed:
    """The combinations of two or more factors that occur in the fitted rows.

    Shapes: `codes` (n,) are the fitted rows' levels, from 0 to `num_levels` - 1, in the
    order of the factors' codes; `levels` (c, f) holds the code of each of the f factors,
    so `levels[:, 0]` are the parents of nested levels.
    """

    codes: np.ndarray
    levels: np.ndarray

    @property
    def num_levels(self) -> int:
        """How many combinations occur: the table's `num_categories`."""
        return len(self.levels)

    def __repr__(self) -> str:
        c, f = self.levels.shape
        return f"Crossed({c} combinations of {f} factors, {len(self.codes)} rows)"

    def encode(self, *factors: Any) -> np.ndarray:
        """The level of each new row; combinations that were not fitted are negative.

        A combination is new where one of its codes is, that is negative, and also where
        all are known but never occurred together. New ones are numbered -1, -2, ... in
        the order of their codes, so rows of one prediction are encoded together.

        Shapes: as many factors as were crossed, each (n,), give (n,).
        Raises: as `crossed`, but for negative codes.
        """
        rows = as_factors(factors)
        if rows.shape[1] != self.levels.shape[1]:
            raise ValueError(
                f"encode: {rows.shape[1]} factors are given, but {self.levels.shape[1]} "
                "were crossed. Give the same ones, in the same order."
            )
        known = {tuple(level): code for code, level in enumerate(self.levels.tolist())}
        found, which = np.unique(rows, axis=0, return_inverse=True)
        codes, new = np.empty(len(found), np.int64), 0
        for i, level in enumerate(map(tuple, found.tolist())):
            if level in known:
                codes[i] = known[level]
            else:
                new += 1
                codes[i] = -new
        return codes[which.reshape(-1)].astype(np.int32)


def crossed(*factors: Any) -> Crossed:
    """One level for each combination of codes that occurs: crossed or nested groups.

    For crossed factors it is their interaction, a group of its own beside theirs. For
    nested ones, such as classes numbered anew in each school, it tells class 0 of one
    school from class 0 of another:

        room = crossed(school, room_in_school)
        RandomEffectsLayer()("room", room.codes, room.num_levels)

    and `room.encode(school, room_in_school)` gives the codes of new rows. Combinations
    that do not occur take no place in the table.

    Shapes: two or more arrays of integer codes, each (n,).
    Raises: TypeError for codes that are not integers, ValueError for fewer than two
    factors, other shapes, different numbers of rows, or negative codes, which stand for
    unseen levels and so are in no fitted row.
    """
    rows = as_factors(factors)
    if rows.min(initial=0) < 0:
        row, factor = np.argwhere(rows < 0)[0]
        raise ValueError(
            f"crossed: factor {factor} has code {rows[row, factor]} in row {row}. Negative "
            "codes stand for unseen levels, which fitted rows cannot have. Cross the "
            "fitted rows, then encode new ones by the result's `encode`, which takes "
            "negative codes."
        )
    levels, codes = np.unique(rows, axis=0, return_inverse=True)
    return Crossed(codes.reshape(-1).astype(np.int32), levels)


def as_factors(factors: tuple[Any, ...]) -> np.ndarray:
    """The factors' codes side by side, (n, f)."""
    columns = [np.asarray(as_array(f)) for f in factors]
    if len(columns) < 2:
        raise ValueError(
            f"crossed: {len(columns)} factors are given, but levels are combined from "
            "two or more. One factor's codes are levels already."
        )
    for i, column in enumerate(columns):
        if column.dtype.kind not in "iu":
            raise TypeError(
                f"crossed: factor {i} has dtype {column.dtype}, but levels are integer "
                "codes. Encode it first, for example by "
                "np.unique(labels, return_inverse=True)."
            )
        if column.ndim != 1:
            raise ValueError(
                f"crossed: factor {i} has shape {column.shape}, but each row has one code "
                "of each factor: give shape (n,)."
            )
    if len({len(column) for column in columns}) > 1:
        raise ValueError(
            f"crossed: the factors have {[len(c) for c in columns]} rows. Codes are "
            "combined row by row: give all the same number."
        )
    return np.stack([column.astype(np.int64) for column in columns], axis=1)
