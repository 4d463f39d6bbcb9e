"""Checks of inputs that the scores share."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from scdiffaug._checks import check_whole

Embedding: TypeAlias = NDArray[np.floating[Any]]
Values: TypeAlias = NDArray[np.floating[Any]] | sparse.csr_matrix


def require_matrix(cells: Values, name: str) -> None:
    """Raise unless ``cells`` is a matrix of finite numbers."""
    if not isinstance(cells, np.ndarray) and not sparse.issparse(cells):
        raise TypeError(
            f"{name} must be an array or a sparse matrix, found {type(cells).__name__}: pass the "
            "matrix of an AnnData (adata.X), or np.asarray of anything else."
        )
    if (form := getattr(cells, "format", "csr")) not in ("csr", "csc"):
        raise TypeError(
            f"{name} is a sparse matrix in {form.upper()} format: pass {name}.tocsr()."
        )
    if cells.ndim != 2:
        raise ValueError(f"{name} has shape {cells.shape}: pass a row for each cell.")
    if cells.shape[0] == 0:
        raise ValueError(f"{name} has no cells: pass at least one.")
    if cells.dtype.kind not in "iuf":
        raise TypeError(f"{name} has values of type {cells.dtype}: convert them to real numbers.")
    values = cells.data if sparse.issparse(cells) else cells
    if n_spoiled := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{name} has {n_spoiled} NaN or infinite values: leave those cells out.")


def label_array(labels: ArrayLike) -> NDArray[Any]:
    """Labels as an array; NumPy's strings of any length, which pandas does not know, as others."""
    found = np.asarray(labels)
    return np.array(found.tolist()) if found.dtype.kind == "T" else found


def checked_labels(
    labels: ArrayLike, cells: Values, *, name: str = "labels", of: str = "embedding"
) -> NDArray[Any]:
    """The labels as an array, one for each row of ``cells`` and none missing."""
    require_matrix(cells, of)
    found = label_array(labels)
    if found.shape != (cells.shape[0],):
        raise ValueError(
            f"{name} has shape {found.shape}, but {of} has {cells.shape[0]} cells: pass one "
            "label per cell, in the same order."
        )
    if n_missing := int(pd.isna(found).sum()):
        raise ValueError(f"{name} has {n_missing} missing values: leave those cells out.")
    return found


def require_common_labels(
    some: NDArray[Any], known: NDArray[Any], *, what: tuple[str, str]
) -> None:
    """Raise if none of the labels is known, as they are then spelt in another way."""
    if len(some) and len(known) and not np.isin(some, known).any():
        raise ValueError(
            f"{what[0]} has no label that {what[1]} has: found {str(some[0])!r}, and "
            f"{str(known[0])!r} there; spell them alike."
        )


def require_same_cells(points: Values, embedding: Values) -> None:
    """Raise unless both have the same number of rows."""
    require_matrix(points, "points")
    require_matrix(embedding, "embedding")
    if points.shape[0] != embedding.shape[0]:
        raise ValueError(
            f"points has {points.shape[0]} cells, but embedding has {embedding.shape[0]}: pass "
            "the points that were embedded, in the same order."
        )


def require_cells(cells: Values, n_needed: int, *, name: str, why: str) -> None:
    """Raise unless there are at least ``n_needed`` rows."""
    if cells.shape[0] < n_needed:
        raise ValueError(
            f"{name} has {cells.shape[0]} cells, but {why} needs at least {n_needed}: add cells, "
            "or ask for less."
        )


def require_cells_per_label(labels: NDArray[Any], n_folds: int) -> None:
    """Raise unless there are two labels or more, each with at least ``n_folds`` cells."""
    check_whole("n_folds", n_folds, at_least=2)
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"labels has {str(names[0])!r} alone: pass cells of two labels or more.")
    if counts.min() < n_folds:
        raise ValueError(
            f"label {str(names[counts.argmin()])!r} has {counts.min()} cells, fewer than the "
            f"{n_folds} folds: leave its cells out, or lower n_folds where the score has it."
        )


def require_same_features(one: Values, other: Values, *, names: tuple[str, str]) -> None:
    """Raise unless both have the same number of columns."""
    require_matrix(one, names[0])
    require_matrix(other, names[1])
    if one.shape[1] != other.shape[1]:
        raise ValueError(
            f"{names[0]} has {one.shape[1]} features, but {names[1]} has {other.shape[1]}: pass "
            "the same features in the same order."
        )
