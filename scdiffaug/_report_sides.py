"""The sets of cells that a report on new cells compares."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug import data, metrics
from scdiffaug._randomness import seed_of
from scdiffaug.contract import DataContract
from scdiffaug.groups import NO_GROUP, Names, group_names
from scdiffaug.matrices import SUBSAMPLED, Matrix, Rows, StoredMatrix, drawn_rows

Cells = tuple[AnnData, Matrix | StoredMatrix]

logger = logging.getLogger("scdiffaug")

_FEWEST_CELLS = 20
# So many cells of the same names are looked at for the same values.
_COMPARED = 1000


@dataclass(frozen=True, kw_only=True)
class Side:
    """A set of cells: values and, if asked for, groups.

    Parameters
    ----------
    x, seen
        Values as in the AnnData, and as they are compared, shape ``(n, d)``.
    groups
        Shape ``(n,)``, or ``(0,)`` where no column was named.
    batches
        Codes of the cells' batches, as :meth:`DataContract.batches` gives them.
    """

    x: Matrix
    seen: Matrix
    groups: Names
    batches: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Pool:
    """Cells of which a side is drawn, their values and, if these are compared, their groups."""

    cells: AnnData
    x: Matrix | StoredMatrix
    groups: Names | None

    @classmethod
    def of(cls, cells: Cells, groupby: str | None, *, argument: str) -> _Pool:
        none = np.arange(0)
        return cls(*cells, group_names(cells[0], groupby, needed=none, argument=argument))

    @property
    def rows(self) -> Rows:
        """Cells that can be compared: those that have a group, if groups are."""
        every = np.arange(self.cells.n_obs)
        return every if self.groups is None else every[self.groups != NO_GROUP]

    def side(self, rows: Rows, contract: DataContract) -> Side:
        """These of the cells."""
        x, none = self.x[rows], np.array([], dtype=str)
        groups = none if self.groups is None else self.groups[rows]
        batches = contract.batches(self.cells, rows)
        return Side(x=x, seen=contract.space.transform(x), groups=groups, batches=batches)


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The sets of cells that a report compares, the first three of the same size.

    Parameters
    ----------
    made
        New cells, one from each of the ``sources`` if these are known.
    sources
        Cells that they were made from.
    others
        Real cells that they were not made from.
    judges
        Real cells whose groups decide in which group a cell is: the ``others``, and cells of which
        nothing was made, as new cells may stray into any group.
    own
        Row in ``sources`` of each new cell's source, if known.
    repeats
        Share of all new cells, and of all real ones, that equal another one; of 20,000 drawn if
        there are more.
    seed
        Seed of all random draws.
    n_new, n_new_of
        How many new cells there are, and how many of each group, those that are not compared
        included.
    provenance
        What the new cells record about how they were made.
    """

    made: Side
    sources: Side
    others: Side
    judges: tuple[Side, ...]
    own: Rows | None
    repeats: tuple[float, float]
    seed: int
    n_new: int
    n_new_of: dict[str, int]
    provenance: dict[str, Any]


def split(
    real: Cells,
    new: Cells,
    *,
    contract: DataContract,
    held_out: Cells | None,
    groupby: str | None,
    max_cells: int,
    seed: int,
) -> Sides:
    """Split cells into the sets to compare; see :meth:`scdiffaug.scDiffAug.augmentation_report`.

    Parameters
    ----------
    real, new, held_out
        Cells and their values, as :meth:`DataContract.read` gives them.
    contract
        That of the model.
    groupby, max_cells, seed
        As in that method.

    Raises
    ------
    ValueError
        If there are too few cells to compare, or new cells are passed in place of the real ones.
    """
    _check_sides(real[0], new[0])
    for cells in (real, new, held_out):
        if cells is not None:
            contract.warn_of_batches(cells[0])
    if held_out is not None:
        _check_held_out(held_out, real)
    rng = np.random.default_rng(seed_of(seed, "split"))
    known, fresh = (
        _Pool.of(cells, groupby, argument=name) for name, cells in (("adata", real), ("new", new))
    )
    unseen = None if held_out is None else _Pool.of(held_out, groupby, argument="held_out")
    link = _links(fresh, known)
    is_linked = bool((link >= 0).any())
    candidates = rng.permutation(np.unique(link[link >= 0]) if is_linked else known.rows)
    if unseen is None:
        half = len(candidates) // 2
        (sources, others), place = np.split(candidates[: 2 * half], 2), known
    else:
        sources, others, place = candidates, rng.permutation(unseen.rows), unseen
    made = rng.permutation(fresh.rows)
    if is_linked:
        made = _one_of_each(made, link, sources)
    n = min(max_cells, *map(len, (sources, others, made)))
    _check_enough(n, made, sources, others=others, max_cells=max_cells)
    beyond = np.setdiff1d(known.rows, candidates)
    rest = rng.permutation(beyond)[:max_cells]
    compared = place.side(others[:n], contract)
    more = (known.side(rest, contract),) if groupby is not None and len(rest) else ()
    return Sides(
        made=fresh.side(made[:n], contract),
        sources=known.side(sources[:n], contract),
        others=compared,
        judges=(compared, *more),
        own=np.arange(n) if is_linked else None,
        repeats=(_repeats(new[1]), _repeats(real[1])),
        seed=seed,
        n_new=new[0].n_obs,
        n_new_of=_sizes(fresh),
        provenance=dict(new[0].uns.get("scdiffaug", {})),
    )


def _links(new: _Pool, real: _Pool) -> Rows:
    """Row of each new cell's source; -1 if it is unknown or, as the cell, has no group."""
    link = data.source_rows(new.cells.obs, real.cells.obs_names)
    _warn_of_unknown(new.cells, link)
    both = np.isin(np.arange(len(link)), new.rows) & np.isin(link, real.rows)
    return np.where(both, link, -1)


def _check_enough(n: int, made: Rows, sources: Rows, *, others: Rows, max_cells: int) -> None:
    if n < _FEWEST_CELLS:
        raise ValueError(
            f"A report compares {_FEWEST_CELLS} cells a side or more, found {n}: {len(made)} new "
            f"cells of different sources, {len(sources)} sources and {len(others)} other real "
            f"cells (max_cells={max_cells}). It takes new cells of "
            f"{2 * _FEWEST_CELLS} sources, or of {_FEWEST_CELLS} beside as many held-out cells, "
            "which the model never saw. Of fewer, scdiffaug.metrics.type_kept and "
            "pl.augmentation show where they lie."
        )


def _check_sides(real: AnnData, new: AnnData) -> None:
    data.check_not_swapped(real, new, first="new")
    if "start_obs_name" in new.obs and "source_obs_name" not in new.obs:
        raise ValueError(
            "new holds interpolated cells, which are a sample of no real ones: report on cells "
            "that augment made; pl.augmentation shows where these lie."
        )


def _check_held_out(held_out: Cells, real: Cells) -> None:
    n_known = _n_known(held_out, real)
    if n_known == held_out[0].n_obs:
        raise ValueError(
            "held_out holds the real cells that new ones were made from: pass cells that the "
            "model never saw, or leave held_out out."
        )
    if n_known:
        logger.warning(
            "%d of %d held-out cells are real cells that new ones were made from: pass cells that "
            "the model never saw.",
            n_known,
            held_out[0].n_obs,
        )


def _n_known(cells: Cells, real: Cells) -> int:
    """How many of the cells are real ones, by their names and values."""
    places = real[0].obs_names.get_indexer(cells[0].obs_names)
    named = np.flatnonzero(places >= 0)
    if not len(named):
        return 0
    # Cells of two files may both be named by their numbers; of many, some are compared.
    some = named[drawn_rows(len(named), _COMPARED)]
    one, other = sparse.csr_matrix(cells[1][some]), sparse.csr_matrix(real[1][places[some]])
    is_same = (one != other).getnnz(1) == 0
    return round(len(named) * is_same.mean())


def _sizes(new: _Pool) -> dict[str, int]:
    """How many new cells there are of each group."""
    if new.groups is None:
        return {}
    return pd.Series(new.groups[new.rows]).value_counts().sort_index().to_dict()


def _warn_of_unknown(new: AnnData, link: Rows) -> None:
    n_unknown = int((link < 0).sum())
    if n_unknown and "source_obs_name" in new.obs:
        logger.warning(
            "The source_obs_name of %d of %d new cells names none of the real cells: pass those "
            "that they were made from as adata.",
            n_unknown,
            len(link),
        )


def _repeats(x: Matrix | StoredMatrix) -> float:
    return metrics.repeat_share(x[drawn_rows(x.shape[0], SUBSAMPLED)])


def _one_of_each(made: Rows, link: Rows, sources: Rows) -> Rows:
    """The first new cell of each source, in the order of the sources."""
    first = pd.Series(made, index=link[made])
    return first[~first.index.duplicated()].loc[sources].to_numpy()
