"""Choosing what to make: which cells are sources, how deep new cells are, which are kept."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scdiffaug import data, neighbors
from scdiffaug._checks import as_whole, check_choice, check_whole, is_one_of
from scdiffaug.features import FeatureSpace
from scdiffaug.groups import Names, assigned, listed
from scdiffaug.matrices import Matrix, Rows, StoredMatrix, depths

Target = int | Literal["max", "median"] | Mapping[str, int]
Depth = int | Literal["source", "sampled"]
Keep = Literal["all", "consistent"]

_N_NEIGHBORS = 15
_SIZES: dict[str, Callable[[NDArray[np.int64]], np.floating[Any]]] = {
    "max": np.max,
    "median": np.median,
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the user wants made; see :meth:`scdiffaug.scDiffAug.augment`."""

    groupby: str | None
    target: Target | None
    n_per_cell: int
    depth: Depth
    keep: Keep

    def __post_init__(self) -> None:
        """Take whole numbers that are written as floats for what they are."""
        target = as_whole(self.target)
        if isinstance(target, Mapping):
            target = {name: as_whole(size) for name, size in target.items()}
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "depth", as_whole(self.depth))

    def check(self, space: FeatureSpace) -> None:
        """Raise TypeError or ValueError if an argument is wrong or does not fit the others."""
        check_whole("n_per_cell", self.n_per_cell)
        check_choice("keep", self.keep, get_args(Keep))
        if self.target is not None:
            self._check_target()
        if not is_one_of(self.depth, ("source", "sampled")) and not _is_size(self.depth):
            raise ValueError(
                f"depth={reprlib.repr(self.depth)} must be 'source', 'sampled' or a whole number "
                "of counts, at least 1."
            )
        if self.depth != "source" and not space.is_counts:
            raise ValueError(
                f"depth={self.depth!r} sets the total counts of a cell, but this model holds "
                f"{space.kind!r} values: leave depth='source', or train on raw counts."
            )

    def _check_target(self) -> None:
        if self.groupby is None:
            raise ValueError(f"target={self.target!r} needs groupby: name a column of obs.")
        if self.n_per_cell != 1:
            raise ValueError(
                f"target={self.target!r} decides how many cells are made, but n_per_cell="
                f"{self.n_per_cell} does too: leave one of them out."
            )
        if isinstance(self.target, pd.Series):
            raise TypeError("target is a Series: pass target.to_dict().")
        if isinstance(self.target, Mapping):
            fits = bool(self.target) and all(map(_is_size, self.target.values()))
        else:
            fits = is_one_of(self.target, ("max", "median")) or _is_size(self.target)
        if not fits:
            raise ValueError(
                f"target={self.target!r} must be 'max', 'median' or a number of cells, at least "
                '1, of every group or by its name, as in {"B cell": 200}.'
            )

    @property
    def looks_beyond_sources(self) -> bool:
        """Whether cells that are not sources matter too."""
        return self.groupby is not None or self.keep != "all" or self.depth == "sampled"

    def to_dict(self) -> dict[str, Any]:
        """The options that were set; h5ad holds neither None nor a name with a slash."""
        chosen = {name: value for name, value in vars(self).items() if value is not None}
        if isinstance(self.target, Mapping):
            sizes = {data.group_name(name): int(size) for name, size in self.target.items()}
            chosen["target"] = json.dumps(sizes)
        return chosen

    def sources(self, rows: Rows, groups: Names | None, *, rng: np.random.Generator) -> Rows:
        """Source of each new cell, one of ``rows``."""
        if self.target is None or groups is None:
            return np.repeat(rows, self.n_per_cell)
        return balancing_sources(rows, groups, target=self.target, rng=rng)

    def wanted_depths(
        self,
        x: Matrix | StoredMatrix,
        source_of: Rows,
        *,
        groups: Names | None,
        rng: np.random.Generator,
    ) -> NDArray[np.float32] | None:
        """Reads of each new cell, shape ``(m,)``; None if they are the source's."""
        if self.depth == "source":
            return None
        if self.depth != "sampled":
            return np.full(len(source_of), self.depth, dtype=np.float32)
        pools = np.zeros(x.shape[0], dtype=int) if groups is None else groups
        return sampled_depths(depths(x), source_of, pools, rng=rng)


def balancing_sources(
    rows: Rows, groups: Names, *, target: Target, rng: np.random.Generator
) -> Rows:
    """Sources of the new cells that bring each group among ``rows`` up to a size.

    Parameters
    ----------
    rows
        Cells that may be sources, shape ``(r,)``; they count towards their group's size.
    groups
        Group of every cell, shape ``(n,)``.
    target
        The size: a number, the ``"max"`` or ``"median"`` of the groups' sizes, or a size for each
        of some groups by name.
    rng
        Draws the sources, no cell a second time before all of its group were drawn.

    Raises
    ------
    KeyError
        If a group that is named has no cells.
    ValueError
        If all groups already have their size.
    """
    names, sizes = np.unique(groups[rows], return_counts=True)
    wanted = _wanted_sizes(names, sizes, target)
    drawn = [
        drawn_in_turn(rows[groups[rows] == name], wanted[name] - n, rng)
        for name, n in zip(names, sizes, strict=True)
        if n < wanted.get(name, 0)
    ]
    if not drawn:
        whose = "every group that it names" if isinstance(target, Mapping) else "every group"
        least = sizes[np.isin(names, list(wanted))].min()
        raise ValueError(
            f"target={target!r} leaves nothing to make: {whose} has {least} cells or more. "
            "Raise target."
        )
    return np.concatenate(drawn)


def _wanted_sizes(names: Names, sizes: NDArray[np.int64], target: Target) -> dict[str, int]:
    """Size that each group is to reach, by name."""
    if not isinstance(target, Mapping):
        size = _SIZES[target](sizes) if isinstance(target, str) else target
        return dict.fromkeys(names.tolist(), int(size))
    wanted = {data.group_name(name): int(size) for name, size in target.items()}
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise KeyError(
            f"target names {unknown[0]!r}, which has no cells: the groups are {listed(names)}."
        )
    return wanted


def sampled_depths(
    known: NDArray[np.float32],
    source_of: Rows,
    pools: NDArray[Any],
    *,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Reads of each new cell, those of a random cell of its source's pool, shape ``(m,)``.

    Parameters
    ----------
    known, pools
        Reads and pool of every real cell, shape ``(n,)``.
    source_of
        Source of each new cell, shape ``(m,)``.
    rng
        Draws with replacement.
    """
    drawn = np.empty(len(source_of), dtype=np.float32)
    for pool in np.unique(pools[source_of]):
        wanted = pools[source_of] == pool
        drawn[wanted] = rng.choice(known[pools == pool], wanted.sum())
    return drawn


def consistent(
    y_real: NDArray[np.float32],
    y_made: NDArray[np.float32],
    source_of: Rows,
    *,
    groups: Names | None,
) -> NDArray[np.bool_]:
    """Which new cells still stand where their source does, shape ``(m,)``.

    With groups: it is assigned to the source's group (:func:`scdiffaug.groups.assigned`). Without:
    the cell is no farther from its source than the 15th of the source's own neighbours.

    Parameters
    ----------
    y_real, y_made
        Semantic embeddings of real and of new cells, shapes ``(n, 80)`` and ``(m, 80)``.
    source_of
        Source of each new cell, shape ``(m,)``.
    groups
        Group of each real cell, shape ``(n,)``.
    """
    if groups is None:
        return _near_source(y_real, y_made, source_of)
    return np.asarray(assigned(y_made, y_real, groups) == groups[source_of])


def _near_source(
    y_real: NDArray[np.float32], y_made: NDArray[np.float32], source_of: Rows
) -> NDArray[np.bool_]:
    sources, place = np.unique(source_of, return_inverse=True)
    # One more than wanted, since a cell is its own nearest neighbour.
    n_neighbors = min(_N_NEIGHBORS + 1, len(y_real))
    radii = neighbors.nearest(y_real, y_real[sources], n_neighbors)[0][:, -1]
    moved = np.linalg.norm(y_made - y_real[source_of], axis=1)
    return moved <= radii[place]


def drawn_in_turn(rows: Rows, n: int, rng: np.random.Generator) -> Rows:
    """Draw n of the rows at random, none a second time before all were drawn."""
    n_rounds = -(-n // len(rows))
    return np.concatenate([rng.permutation(rows) for _ in range(n_rounds)])[:n]


def _is_size(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def both_ends(
    cells: AnnData, start: str | int, end: str | int, *, groups: Names | None
) -> tuple[Rows, Rows]:
    """Rows of the ends of an interpolation: of a cell by name or position, or of a group's cells.

    Raises
    ------
    KeyError
        If there is no such cell or group; the message names the argument.
    TypeError
        If it is neither a name nor a position.
    ValueError
        If both are one cell.
    """
    begins = _end_rows(cells, start, groups=groups, argument="start")
    ends = _end_rows(cells, end, groups=groups, argument="end")
    if len(begins) == 1 and np.array_equal(begins, ends):
        raise ValueError(
            f"start={start!r} and end={end!r} are one cell, {cells.obs_names[begins[0]]!r}: pass "
            "two."
        )
    return begins, ends


def _end_rows(cells: AnnData, end: str | int, *, groups: Names | None, argument: str) -> Rows:
    if groups is not None:
        rows = np.flatnonzero(groups == data.group_name(end))
        known = f"the groups are {listed(np.unique(groups))}"
    elif isinstance(end, str):
        rows = np.flatnonzero(cells.obs_names == end)
        known = f"adata.obs_names begins with {cells.obs_names[0]!r}; groups need groupby"
    else:
        _check_position(argument, end)
        rows = np.arange(cells.n_obs)[end : end + 1] if end >= 0 else np.array([], dtype=int)
        known = f"positions go from 0 to {cells.n_obs - 1}"
    if not len(rows):
        raise KeyError(f"{argument}={end!r} not found: {known}.")
    return rows


def _check_position(argument: str, end: object) -> None:
    if not isinstance(end, Integral) or isinstance(end, bool):
        raise TypeError(
            f"{argument}={end!r} must be the name or the position of a cell; it is of type "
            f"{type(end).__name__}."
        )
