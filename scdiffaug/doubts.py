"""Warnings of values, and of new cells, that may not be what they are taken for."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug.data import hint_at_other_names
from scdiffaug.features import FeatureSpace, are_regions
from scdiffaug.matrices import (
    Bounds,
    Matrix,
    Rows,
    StoredMatrix,
    depths,
    row_blocks,
    stored_values,
)
from scdiffaug.normalized import LARGEST_LOG_VALUE, find_scale, odd_cell

logger = logging.getLogger("scdiffaug")

# How many cells are searched for counts.
_LOOKED_AT = 100
# Share of the cells of which no doubt arises.
_FEW_OF_A_SCALE = 0.02
# Whole numbers that sum to more in a cell are no reads.
_MOST_READS_OF_A_CELL = 1e7
# A warning names groups whose new cells are made from fewer sources than this, and so many.
_FEW_SOURCES, _MOST_NAMED = 5, 10


def warn_of_guess(adata: AnnData, x: Matrix | StoredMatrix, space: FeatureSpace) -> None:
    """Warn of all that makes a guess of the feature space doubtful.

    Parameters
    ----------
    adata, x
        Cells, and those of their values that the model is to read.
    space
        What these were taken for.
    """
    if not space.is_counts:
        _warn_of_counts_beside(adata)
    first = x[row_blocks(x)[0]]
    _warn_of_odd_cells(x, adata.obs_names, space)
    _warn_of_intensities(first, space)
    _warn_of_peaks(adata.var_names, space)
    _warn_of_mixed_features(adata)
    # Of mixed scales, other advice leads astray.
    if not _warn_of_mixed_scales(x, space):
        _warn_of_lost_ones(first, space)


def _warn_of_counts_beside(adata: AnnData) -> None:
    """Warn if counts stand beside values that are none: the generator does better with counts."""
    for name, values in adata.layers.items():
        if found := _counts_in(values):
            advice = f"call setup_anndata(adata, layer={name!r})"
            logger.warning("Layer %r holds %s: %s to learn from them.", name, found, advice)
    # On disk, anndata reads all of raw at once.
    if adata.isbacked or adata.raw is None:
        return
    if found := _counts_in(adata.raw.X):
        logger.warning("adata.raw holds %s: pass adata.raw.to_adata() to learn from them.", found)


def _warn_of_peaks(names: pd.Index, space: FeatureSpace) -> None:
    """Warn if nothing but the counts themselves says that they are of peaks."""
    if space.kind == "peaks" and not are_regions(names):
        logger.warning(
            "The values are read as counts of peaks, as 2 is the most frequent, or 1 the only "
            "one: pass feature_space='counts' if they are of genes."
        )


def warn_of_few(sources: Rows, groups: NDArray[np.str_]) -> None:
    """Warn of groups with so few sources that the new cells are only variants of these."""
    table = pd.Series(sources).groupby(groups[sources]).agg(["nunique", "size"])
    few = table[(table["nunique"] < _FEW_SOURCES) & (table["size"] > table["nunique"])]
    for name, (n_sources, n_new) in few.iloc[:_MOST_NAMED].iterrows():
        logger.warning(
            "All %d new cells of group %r are made from %d of its cells: they vary as so few do, "
            "not as the group may.",
            n_new,
            name,
            n_sources,
        )
    if len(few) > _MOST_NAMED:
        logger.warning("The same is true of %d other groups.", len(few) - _MOST_NAMED)


def warn_of_rare(wanted: NDArray[np.str_], groups: NDArray[np.str_], *, n_neighbors: int) -> None:
    """Warn of groups too small to fill a neighbourhood, so that new cells are of others too.

    Parameters
    ----------
    wanted
        Group of each new cell, shape ``(m,)``.
    groups
        Group of each training cell, shape ``(r,)``.
    n_neighbors
        Cells of a neighbourhood.
    """
    sizes = {name: np.count_nonzero(groups == name) for name in np.unique(wanted).tolist()}
    rare = [f"{name!r} ({size} cells)" for name, size in sizes.items() if size <= n_neighbors]
    if rare:
        logger.warning(
            "Many new cells of %s may be of other groups, as a neighbourhood (%d cells) holds "
            "others too: pass strength=0.8 and keep='consistent', and check marker genes.",
            ", ".join(rare[:_MOST_NAMED]) + (" and others" if len(rare) > _MOST_NAMED else ""),
            n_neighbors,
        )


def warn_of_made(obs: pd.DataFrame, what: str) -> None:
    """Warn if cells say that they are augmented themselves."""
    made = obs["is_augmented"].isin([True]) if "is_augmented" in obs else np.array([])
    if n_made := int(made.sum()):
        advice = (
            "pass adata[~adata.obs['is_augmented'].isin([True])] to leave them out"
            if n_made < len(obs)
            else "pass the real ones, or, to embed these, the model that made them"
        )
        logger.warning(
            "%d of %d cells are augmented themselves, and %s like real ones: %s.",
            n_made,
            len(obs),
            what,
            advice,
        )


def warn_of_unmeasured(names: pd.Index, cells: AnnData) -> None:
    """Warn if cells lack some of the features that an embedding is made of."""
    missing = names[~names.isin(cells.var_names)]
    if len(missing):
        logger.warning(
            "The cells lack %d of the %d features that the embedding is made of (%.0f%%), e.g. "
            "%r: it is estimated from the others, the less exactly the more are missing.%s",
            len(missing),
            len(names),
            100 * len(missing) / len(names),
            missing[0],
            hint_at_other_names(missing, cells.var_names),
        )


def _warn_of_mixed_features(adata: AnnData) -> None:
    """Warn if genes, proteins or peaks are mixed in one matrix, as read_10x_h5 gives them."""
    if "feature_types" not in adata.var:
        return
    types = adata.var["feature_types"].value_counts()
    types = types[types > 0]
    if len(types) > 1:
        logger.warning(
            "adata.var['feature_types'] has %s, which are learnt as one kind: pass one of them, "
            "as adata[:, adata.var['feature_types'] == %r].copy().",
            " and ".join(f"{n} {name!r}" for name, n in types.items()),
            types.index[0],
        )


def _warn_of_lost_ones(x: Matrix, space: FeatureSpace) -> None:
    """Warn if these cells hold counts that were normalised, rounded or estimated."""
    least = _least_values(x)
    if not len(least):
        return
    usual = float(np.median(least))
    is_sparse = np.count_nonzero(stored_values(x)) <= x.shape[0] * x.shape[1] / 2
    if space.kind == "counts" and usual > 1 and is_sparse:
        logger.warning(
            "The smallest value of most cells is %d, not 1: if these are normalised values that "
            "were rounded, pass the counts themselves, or the values unrounded and after "
            "sc.pp.log1p, of which counts are recovered.",
            usual,
        )
    elif space.cofactor is None:
        return
    # Totals differ between cells, and so do the values that one count became.
    elif np.mean(least == usual) < 1 / 2 and find_scale(np.log1p(x)) == "log1p":
        logger.warning(
            "These are normalised counts without their logarithm: call sc.pp.log1p(adata) before, "
            "and the counts are recovered and learnt from."
        )
    elif is_sparse:
        logger.warning(
            "Most values are 0 and the others are not whole: they are read as intensities. Of "
            "estimated counts (as of SoupX, alevin or kallisto) pass np.rint; of normalised ones "
            "(as TPM) their logarithm, by sc.pp.log1p(adata)."
        )


def _least_values(x: Matrix) -> NDArray[np.floating[Any]]:
    """Smallest non-zero value of each cell that has any."""
    values = sparse.csr_matrix(x, copy=True)
    values.eliminate_zeros()
    filled = np.flatnonzero(np.diff(values.indptr))
    return np.minimum.reduceat(values.data, values.indptr[filled]) if len(filled) else np.empty(0)


def _warn_of_odd_cells(x: Matrix | StoredMatrix, obs_names: pd.Index, space: FeatureSpace) -> None:
    """Warn if most cells hold log-normalised counts, and some do not."""
    if space.kind != "log":
        return
    if (found := odd_cell(x)) is not None:
        scale, row = found
        logger.warning(
            "Most cells hold %s of normalised counts, but %r does not: pass the counts, or leave "
            "such cells out, to learn from counts; now all are read as logarithms.",
            scale,
            obs_names[row],
        )


def _warn_of_intensities(x: Matrix, space: FeatureSpace) -> None:
    """Warn if these cells have more counts than are ever sequenced."""
    median = float(np.median(depths(x)))
    if space.kind == "counts" and median > _MOST_READS_OF_A_CELL:
        logger.warning(
            "Cells sum to %.2g (median), more counts than are sequenced: if these are intensities "
            "(proteomics, cytometry), pass feature_space='raw'.",
            median,
        )


def _warn_of_mixed_scales(x: Matrix | StoredMatrix, space: FeatureSpace) -> bool:
    """Warn, and tell, if some cells hold whole numbers and others do not, as of two files."""
    if space.is_counts:
        return False
    # Files are put together one after the other.
    blocks = row_blocks(x)
    ends = blocks if len(blocks) < 3 else [blocks[0], blocks[-1]]
    share = np.concatenate([_are_whole(x[rows]) for rows in ends]).mean()
    if _FEW_OF_A_SCALE < share < 1 - _FEW_OF_A_SCALE:
        logger.warning(
            "%.0f%% of the cells hold whole numbers, as counts are, and the others do not: if "
            "they come from several files, put all on one scale.",
            100 * share,
        )
        return True
    return False


def _are_whole(x: Matrix) -> NDArray[np.bool_]:
    """Cells all of whose values are whole numbers, some of them above 0."""
    values = sparse.csr_matrix(x)
    row = np.repeat(np.arange(x.shape[0]), np.diff(values.indptr))
    broken = np.bincount(row, values.data % 1 != 0, minlength=x.shape[0]) > 0
    return ~broken & (depths(values) > 0)


def warn_of_sparse_values(x: Matrix) -> None:
    """Warn if most values are 0 and the others are not counts."""
    zero_share = 1 - np.count_nonzero(stored_values(x)) / (x.shape[0] * x.shape[1])
    if zero_share > 1 / 2:
        logger.warning(
            "%.0f%% of the values are 0, and they are no counts: new cells will be less like real "
            "ones than those made from counts. Pass raw counts (layer=...) where there are some; "
            "round estimated ones (np.rint), else the embedding is worse too.",
            100 * zero_share,
        )


def _counts_in(values: Any) -> str:
    """What counts the first cells hold, in words; empty if none, or if they are not in memory."""
    if not isinstance(values, np.ndarray) and not sparse.issparse(values):
        return ""
    some = values[:_LOOKED_AT]
    if some.dtype.kind not in "iuf":
        return ""
    if sparse.issparse(some):
        some = sparse.csr_matrix(some)
    found = Bounds.of(some)
    if not np.isfinite(found.highest) or found.lowest < 0 or found.highest <= 0:
        return ""
    if found.is_whole:
        return "counts"
    is_log = found.highest <= LARGEST_LOG_VALUE and find_scale(some) is not None
    return "log-normalised counts" if is_log else ""
