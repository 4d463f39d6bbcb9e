"""The sets of cells that a report on new cells compares."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scdiffaug import data, metrics
from scdiffaug._randomness import seed_of
from scdiffaug.choosing import Names, group_names
from scdiffaug.features import FeatureSpace
from scdiffaug.matrices import SUBSAMPLED, Matrix, Rows, StoredMatrix, drawn_rows

Cells = tuple[AnnData, Matrix | StoredMatrix]

logger = logging.getLogger("scdiffaug")

_FEWEST_CELLS = 20


@dataclass(frozen=True, kw_only=True)
class Side:
    """A set of cells: values and, if asked for, groups.

    Parameters
    ----------
    x, seen
        Values as in the AnnData, and as they are compared, shape ``(n, d)``.
    groups
        Shape ``(n,)``, or ``(0,)`` where no column was named.
    """

    x: Matrix
    seen: Matrix
    groups: Names

    @classmethod
    def of(cls, cells: Cells, rows: Rows, *, space: FeatureSpace, groupby: str | None) -> Side:
        """Take some rows of the cells."""
        x, groups = cells[1][rows], group_names(cells[0], groupby)
        return cls(
            x=x,
            seen=space.transform(x),
            groups=np.array([], dtype=str) if groups is None else groups[rows],
        )


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
    n_new, asked
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
    asked: dict[str, int]
    provenance: dict[str, Any]


def split(
    real: Cells,
    new: Cells,
    *,
    held_out: Cells | None,
    space: FeatureSpace,
    groupby: str | None,
    max_cells: int,
    seed: int,
) -> Sides:
    """Split cells into the sets to compare; see :meth:`scdiffaug.scDiffAug.augmentation_report`.

    Parameters
    ----------
    real, new, held_out
        Cells and their values, as :meth:`DataContract.read` gives them.
    space
        Feature space of the model.
    groupby, max_cells, seed
        As in that method.

    Raises
    ------
    ValueError
        If there are too few cells to compare, or new cells are passed in place of the real ones.
    """
    _check_sides(real[0], new[0], held_out)
    rng = np.random.default_rng(seed_of(seed, "split"))
    link = data.source_rows(new[0].obs, real[0].obs_names)
    _warn_of_unknown(new[0], link)
    is_linked = bool((link >= 0).any())
    candidates = rng.permutation(np.unique(link[link >= 0]) if is_linked else real[0].n_obs)
    if held_out is None:
        half = len(candidates) // 2
        (sources, others), place = np.split(candidates[: 2 * half], 2), real
    else:
        sources, others, place = candidates, rng.permutation(held_out[0].n_obs), held_out
    made = rng.permutation(new[0].n_obs)
    if is_linked:
        made = _one_of_each(made, link, sources)
    n = min(max_cells, *map(len, (sources, others, made)))
    if n < _FEWEST_CELLS:
        raise ValueError(
            f"A report compares {_FEWEST_CELLS} cells a side or more, found {n}: {len(made)} new "
            f"cells of different sources, {len(sources)} sources and {len(others)} other real "
            f"cells (max_cells={max_cells}). It takes new cells of "
            f"{2 * _FEWEST_CELLS} sources, or of {_FEWEST_CELLS} beside as many held-out cells, "
            "which the model never saw. Of fewer, scdiffaug.metrics.type_kept and "
            "pl.augmentation show where they lie."
        )
    side = partial(Side.of, space=space, groupby=groupby)
    rest = rng.permutation(np.setdiff1d(np.arange(real[0].n_obs), candidates))[:max_cells]
    compared = side(place, others[:n])
    return Sides(
        made=side(new, made[:n]),
        sources=side(real, sources[:n]),
        others=compared,
        judges=(compared, side(real, rest)) if groupby is not None and len(rest) else (compared,),
        own=np.arange(n) if is_linked else None,
        repeats=(_repeats(new[1]), _repeats(real[1])),
        seed=seed,
        n_new=new[0].n_obs,
        asked=_sizes(group_names(new[0], groupby)),
        provenance=dict(new[0].uns.get("scdiffaug", {})),
    )


def _check_sides(real: AnnData, new: AnnData, held_out: Cells | None) -> None:
    if "is_augmented" not in new.obs and data.are_made(real.obs):
        raise ValueError("adata holds augmented cells, new does not: pass the new cells first.")
    if "start_obs_name" in new.obs and "source_obs_name" not in new.obs:
        raise ValueError(
            "new holds interpolated cells, which are a sample of no real ones: report on cells "
            "that augment made; pl.augmentation shows where these lie."
        )
    if held_out is None:
        return
    if n_known := int(held_out[0].obs_names.isin(real.obs_names).sum()):
        logger.warning(
            "%d of %d held-out cells have names of real cells that new ones were made from: pass "
            "cells that the model never saw.",
            n_known,
            held_out[0].n_obs,
        )


def _sizes(groups: Names | None) -> dict[str, int]:
    return {} if groups is None else pd.Series(groups).value_counts().sort_index().to_dict()


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
