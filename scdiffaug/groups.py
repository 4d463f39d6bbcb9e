"""Groups of cells: their names, and which of them a cell is assigned to."""

from __future__ import annotations

import logging
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf

from scdiffaug import data
from scdiffaug.matrices import Rows

Names: TypeAlias = NDArray[np.str_]

logger = logging.getLogger("scdiffaug")

# Group of cells that have none; no column holds such a name.
NO_GROUP = "\0none"
# Share of a group's cells that are as near to its mean as one must be to be taken for one of them.
_NEAR_ENOUGH = 0.95
# Share of the training cells, far above what the former leaves out where all groups are known.
_MANY_STRANGERS = 0.2
# Real cells to which the covariance within groups is fitted, about as many.
_MOST_CELLS_FITTED = 50_000


def group_names(
    cells: AnnData, groupby: str | None, *, needed: Rows, argument: str = "adata"
) -> Names | None:
    """Group of each cell, shape ``(n,)``; None if no column is named.

    ``needed``: cells that must have one; of others that do not it is ``NO_GROUP``.
    ``argument``: what errors call the cells.

    Raises
    ------
    KeyError
        If the column is missing.
    ValueError
        If it holds fractions, or missing values that are not allowed.
    """
    if groupby is None:
        return None
    data.check_key(cells, "groupby", groupby, of=argument)
    data.check_no_missing(cells.obs[[groupby]].iloc[needed], "groupby", groupby, of=argument)
    column = cells.obs[groupby]
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    if pd.api.types.is_float_dtype(values.dtype) and (values.dropna() % 1 != 0).any():
        raise ValueError(
            f"groupby={groupby!r} holds fractions, not groups: name a column of categories."
        )
    return data.named_groups(column).fillna(NO_GROUP).to_numpy(dtype=str)


def listed(names: Names) -> str:
    """The first names of groups, for messages."""
    return ", ".join(repr(name) for name in names[:20].tolist() if name != NO_GROUP)


def warn_of_one(groups: Names) -> None:
    """Warn if there is a single group, to which all new cells are consistent."""
    names = np.unique(groups[groups != NO_GROUP])
    if len(names) == 1:
        logger.warning(
            "All cells are %r, so that keep='consistent' rejects none: pass the other cells too, "
            "and name the sources by indices.",
            str(names[0]),
        )


def warn_of_strangers(groups: Names) -> None:
    """Warn if many training cells are of no group, which some always are by chance.

    ``groups``: those of the training cells, as :func:`members` finds them.
    """
    n_strangers = np.count_nonzero(groups == NO_GROUP)
    if n_strangers > _MANY_STRANGERS * len(groups):
        logger.warning(
            "%d of %d training cells seem to be of none of the groups passed, and which of the "
            "others are is a guess: pass all cells, and name the sources by indices.",
            n_strangers,
            len(groups),
        )


def assigned(y: NDArray[np.float32], y_known: NDArray[np.float32], groups: Names) -> Names:
    """Group that each cell is assigned to, shape ``(m,)``.

    Of the means of all groups, that of its group is the nearest, by the covariance within groups
    (linear discriminant analysis with equal priors, so that rare groups are not swamped).

    Parameters
    ----------
    y, y_known
        Semantic embeddings of the cells, and of cells whose groups are known, shapes ``(m, 80)``
        and ``(n, 80)``.
    groups
        Groups of the latter, shape ``(n,)``.
    """
    has_group = groups != NO_GROUP
    y_known = y_known[has_group]
    names, codes = np.unique(groups[has_group], return_inverse=True)
    if len(names) == 1:
        return np.repeat(names, len(y))
    means = np.stack([y_known[codes == code].mean(0) for code in range(len(names))])
    root = _whitening((y_known - means[codes])[:: len(codes) // _MOST_CELLS_FITTED + 1])
    return np.asarray(names[cdist(y @ root, means @ root).argmin(1)])


def members(y: NDArray[np.float32], y_known: NDArray[np.float32], groups: Names) -> Names:
    """Group that each cell is :func:`assigned` to, or ``NO_GROUP`` if it lies too far from it.

    Too far from the group's mean, that is, for 95 % of all cells whose groups are known, each
    compared with the mean of the others of its group: who passes cells of some groups alone does
    not have all training cells taken for these (benchmarks/NOTES.md, 71).

    Parameters
    ----------
    y, y_known, groups
        As for :func:`assigned`.
    """
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    means = np.stack([y_known[codes == code].mean(0) for code in range(len(names))])
    found = assigned(y, y_known, groups)
    counted = (groups != NO_GROUP) & (sizes[codes] > 1)
    if not counted.any():
        return found
    factor = sizes[codes] / np.maximum(sizes[codes] - 1, 1)
    own = (factor * np.linalg.norm(y_known - means[codes], axis=1))[counted]
    far = np.linalg.norm(y - means[np.searchsorted(names, found)], axis=1)
    return np.where(far > np.quantile(own, _NEAR_ENOUGH), NO_GROUP, found)


def _whitening(deviations: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """Coordinates in which cells spread alike about their groups' means (Ledoit and Wolf 2004)."""
    covariance = ledoit_wolf(deviations, assume_centered=True)[0]
    spread = np.trace(covariance) / len(covariance)
    # Few cells span few directions, and groups of one cell each none at all.
    covariance += (1e-6 * spread + np.finfo(np.float32).tiny) * np.eye(len(covariance))
    return np.linalg.inv(np.linalg.cholesky(covariance)).T
