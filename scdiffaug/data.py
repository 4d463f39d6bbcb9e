"""Reading an AnnData: every check that a user's data must pass, with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scdiffaug._checks import as_whole, check_cells, check_name
from scdiffaug.features import FeatureSpace
from scdiffaug.matrices import (
    Matrix,
    Rows,
    StoredMatrix,
    as_float32,
    depths,
    is_stored,
    opened,
)

# An Ensembl identifier, and what is added to it when a gene's annotation changes.
_VERSIONED = r"^(ENS[A-Z]*\d+)\.\d+$"


def read_matrix(
    adata: AnnData, layer: str | None, *, argument: str = "adata"
) -> Matrix | StoredMatrix:
    """X or a layer as float32, CSR where it is sparse, checked.

    If more than 20,000 cells are on disk, or computed by dask, rows are read when they are asked
    for.

    Raises
    ------
    KeyError
        If the layer is missing.
    TypeError
        If values are not real numbers.
    ValueError
        If there are no cells or features, names repeat, values are NaN or infinite, or many cells
        are on disk by columns.
    """
    check_frame(adata, argument)
    check_layer(adata, layer)
    stored, rows, columns = _stored(adata, layer)
    place = f"{argument}.X" if layer is None else f"{argument}.layers[{layer!r}]"
    if stored is None:
        raise ValueError(f"{place} is empty (None): set X or pass layer=...")
    if is_stored(stored):
        return opened(stored, rows, columns, place=place)
    return as_float32(adata.X if layer is None else adata.layers[layer], place)


def _stored(adata: AnnData, layer: str | None) -> tuple[Any, Rows, Rows | None]:
    """The matrix as it is stored, and where in it the rows and columns of a view are."""
    if not adata.is_view:
        source = adata.X if layer is None else adata.layers[layer]
        return source, np.arange(adata.n_obs), None
    # A view of data on disk would read all of itself.
    base = adata._adata_ref
    rows = np.arange(base.n_obs)[adata._oidx]
    columns = np.arange(base.n_vars)[adata._vidx]
    is_whole = np.array_equal(columns, np.arange(base.n_vars))
    return _stored(base, layer)[0], rows, None if is_whole else columns


def has_x(adata: AnnData) -> bool:
    """Whether there is an X; it is not read."""
    try:
        return _stored(adata, None)[0] is not None
    except KeyError:
        # Raised for a file that has none.
        return False


def check_not_swapped(adata: AnnData, new: AnnData, *, first: str) -> None:
    """Raise ValueError if all real cells say that they are augmented, and new ones do not."""
    made = "is_augmented" in adata.obs and adata.obs["is_augmented"].isin([True]).all()
    if made and "is_augmented" not in new.obs:
        what = "adata holds augmented cells, new does not"
        raise ValueError(f"{what}: pass the {first} cells first.")


def source_rows(made: pd.DataFrame, known: pd.Index) -> Rows:
    """Place of each new cell's source among the known names, shape ``(m,)``; -1 if not there."""
    if "source_obs_name" not in made:
        return np.full(len(made), -1)
    return known.get_indexer(made["source_obs_name"].astype(str))


def check_made(new: AnnData) -> None:
    """Raise as check_frame, and ValueError if only a part of the cells is augmented."""
    check_frame(new, "new")
    if "is_augmented" not in new.obs:
        return
    n_made = int(new.obs["is_augmented"].isin([True]).sum())
    if 0 < n_made < new.n_obs:
        raise ValueError(
            f"new has {new.n_obs - n_made} cells of {new.n_obs} that are not marked as augmented: "
            "pass new[new.obs['is_augmented'].isin([True])]."
        )


def check_frame(adata: AnnData, argument: str = "adata") -> None:
    """Raise as check_cells does, and ValueError if there are no features or names repeat.

    Tables that ``anndata.experimental.read_lazy`` left on disk are loaded: they are small.
    """
    check_cells(argument, adata)
    for table in ("obs", "var"):
        if hasattr(lazy := getattr(adata, table), "to_memory"):
            setattr(adata, table, lazy.to_memory())
    if adata.n_vars == 0:
        raise ValueError(f"{argument} is empty: found {adata.n_obs} cells x 0 features.")
    for field, names in (("obs_names", adata.obs_names), ("var_names", adata.var_names)):
        # anndata makes text of names, but not of an index that is assigned to obs.
        text = names.categories if isinstance(names, pd.CategoricalIndex) else names
        if (kind := pd.api.types.infer_dtype(text, skipna=False)) != "string":
            raise TypeError(
                f"{argument}.{field} holds values of type {kind}, not text: call "
                f"{argument}.{field} = {argument}.{field}.astype(str)."
            )
        if not names.is_unique:
            repeated = names[names.duplicated()].unique()
            raise ValueError(
                f"{argument}.{field} has {len(repeated)} duplicate names, e.g. {repeated[0]!r}: "
                f"call {argument}.{field}_make_unique()."
            )


def check_depth(x: Matrix | StoredMatrix, obs_names: pd.Index, space: FeatureSpace) -> None:
    """Raise ValueError if a cell of a counts matrix has no counts."""
    if not space.is_counts:
        return
    empty = depths(x) == 0
    if empty.all() and len(empty) > 1:
        raise ValueError(
            f"None of {len(empty)} cells has counts in the {x.shape[1]} features of the model: "
            "put them there, or name the layer that holds them, setup_anndata(adata, layer=...)."
        )
    if empty.any():
        raise ValueError(
            f"{int(empty.sum())} cells have no counts, e.g. {obs_names[empty][0]!r}, in the "
            f"{x.shape[1]} features of the model: remove them, with "
            "sc.pp.filter_cells(adata, min_genes=1) where adata has these features alone."
        )


def check_setup(
    adata: AnnData, layer: str | None, *, labels_key: str | None, batch_key: str | None
) -> None:
    """Raise KeyError if a layer or column of obs is missing, and else as check_frame does."""
    check_frame(adata)
    check_column(adata, "labels_key", labels_key)
    check_column(adata, "batch_key", batch_key)
    check_layer(adata, layer)


def check_column(adata: AnnData, argument: str, key: str | None) -> None:
    """Raise KeyError or ValueError if a column of obs is named that is no whole grouping."""
    check_key(adata, argument, key)
    check_no_missing(adata.obs, argument, key)
    check_sortable(adata, argument, key)


def check_several_of_each(batches: pd.Series) -> None:
    """Raise ValueError if there are more batches than half of the cells."""
    if (n_batches := batches.nunique()) > len(batches) / 2:
        raise ValueError(
            f"batch_key={batches.name!r} has {n_batches} batches of {len(batches)} cells: name a "
            "column of samples, donors or conditions."
        )


def check_layer(adata: AnnData, layer: str | None) -> None:
    """Raise KeyError if a layer is named that is not there."""
    if layer is None:
        return
    check_name("layer", layer)
    if layer not in adata.layers:
        raise KeyError(f"layer={layer!r} not found in adata.layers: it has {list(adata.layers)}.")


def check_graph(adata: AnnData, neighbors_key: str | None) -> None:
    """Raise KeyError if a neighbour graph is named that is missing or incomplete."""
    if neighbors_key is None:
        return
    check_name("neighbors_key", neighbors_key)
    advice = f"run sc.pp.neighbors(adata, key_added={neighbors_key!r})."
    if neighbors_key not in adata.uns:
        raise KeyError(f"neighbors_key={neighbors_key!r} not found in adata.uns: {advice}")
    recorded = adata.uns[neighbors_key]
    distances = recorded.get("distances_key") if isinstance(recorded, Mapping) else None
    if distances not in adata.obsp:
        raise KeyError(
            f"neighbors_key={neighbors_key!r} names the distances {distances!r}, which are not in "
            f"adata.obsp: {advice}"
        )


def check_no_view_on_disk(adata: AnnData) -> None:
    """Raise ValueError for a view of cells on disk, into which nothing can be written."""
    if adata.is_view and adata.isbacked:
        raise ValueError(
            "adata is a view of cells on disk: pass those, or a file of the view's own, made "
            "with adata.copy('view.h5ad')."
        )


def check_no_missing(
    obs: pd.DataFrame, argument: str, key: str | None, *, of: str = "adata"
) -> None:
    """Raise ValueError if a column of obs has missing values; ``of``: whose obs it is."""
    if key is not None and (n_missing := int(obs[key].isna().sum())):
        raise ValueError(
            f"{argument}={key!r} has {n_missing} missing values in {of}.obs: name that group, or "
            "leave those cells out."
        )


def check_sortable(adata: AnnData, argument: str, key: str | None) -> None:
    """Raise TypeError if the values of a column of obs cannot be sorted, as text and numbers."""
    if key is None:
        return
    try:
        sorted(pd.unique(adata.obs[key].astype(object)))
    except TypeError as error:
        raise TypeError(
            f"{argument}={key!r} holds values of several types in adata.obs: call "
            f"adata.obs[{key!r}] = adata.obs[{key!r}].astype(str)."
        ) from error


def is_complete(obs: pd.DataFrame, key: str | None) -> bool:
    """Whether there is such a column, with no missing value."""
    return key in obs and not obs[key].isna().any()


def group_name(value: object) -> str:
    """Name of a group; 1 and 1.0, which pandas makes of 1 beside missing values, are one."""
    return str(as_whole(value))


def named_groups(column: pd.Series) -> pd.Series:
    """Name of the group of each cell; missing values stay missing."""
    return column.astype(object).map(group_name, na_action="ignore")


def check_known(names: pd.Series, known: Sequence[str], *, argument: str) -> None:
    """Raise ValueError if cells have labels, or are of batches, that training did not see."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        what = "labels" if argument == "labels_key" else "batches"
        raise ValueError(
            f"{argument}={names.name!r} has {len(unknown)} {what} that the model was not trained "
            f"on, e.g. {unknown[0]!r}: leave those cells out, or train on such cells too."
        )


def check_indices(indices: Sequence[int], n_cells: int) -> NDArray[np.int64]:
    """Positions of the cells that are asked for, from positions or a boolean mask.

    Raises
    ------
    TypeError
        If they are neither.
    ValueError
        If there are none, some repeat, they are not in one row, or a mask is of another length.
    IndexError
        If there is no cell at a position.
    """
    found = np.asarray(indices)
    if found.ndim != 1:
        raise ValueError(
            f"indices has shape {found.shape}: pass positions in one row, as range(5) is, "
            "or np.where(mask)[0]."
        )
    if not found.size:
        raise ValueError("indices is empty: name at least one cell.")
    if found.dtype.kind not in "biu":
        raise TypeError(
            f"indices holds values of type {found.dtype}: pass positions of cells, e.g. those of "
            "adata.obs_names.get_indexer(names)."
        )
    if found.dtype.kind == "b":
        return _checked_mask(found, n_cells)
    beyond = found[(found < -n_cells) | (found >= n_cells)]
    if beyond.size:
        raise IndexError(
            f"indices names cell {beyond[0]}, but there are {n_cells}: positions go from 0 to "
            f"{n_cells - 1}."
        )
    positions = np.arange(n_cells)[found]
    if len(np.unique(positions)) < len(positions):
        raise ValueError(
            "indices names cells more than once: name each once; for several new cells of each, "
            "pass n_per_cell to augment."
        )
    return positions


def _checked_mask(mask: NDArray[np.bool_], n_cells: int) -> NDArray[np.int64]:
    if len(mask) != n_cells:
        raise ValueError(
            f"indices has {len(mask)} truth values for {n_cells} cells: pass one for each."
        )
    if not mask.any():
        raise ValueError("indices is a mask in which no cell is True: choose at least one cell.")
    return np.flatnonzero(mask)


def check_key(adata: AnnData, argument: str, key: str | None, *, of: str = "adata") -> None:
    """Raise KeyError if a column of obs is named that is not there; ``of``: whose obs it is."""
    if key is None:
        return
    check_name(argument, key)
    if key not in adata.obs:
        raise KeyError(
            f"{argument}={key!r} not found in {of}.obs: it has {list(adata.obs.columns)}."
        )


def align_features(
    adata: AnnData,
    var_names: pd.Index,
    indices: Sequence[int] | None = None,
    *,
    argument: str = "adata",
) -> AnnData:
    """``adata`` itself, or a view of it with the model's features in the model's order.

    ``indices``: cells that are wanted, by default all; errors as in :func:`check_indices`.

    Raises
    ------
    ValueError
        If features of the model are missing, naming how many and the first few.
    """
    check_frame(adata, argument)
    rows = slice(None) if indices is None else check_indices(indices, adata.n_obs)
    if adata.var_names.equals(var_names):
        return adata if indices is None else _subset(adata, rows, None)
    missing = var_names.difference(adata.var_names, sort=False)
    if not len(missing):
        return _subset(adata, rows, var_names)
    if len(missing) == len(var_names):
        raise ValueError(
            f"{argument} has none of the model's {len(var_names)} features: its names are like "
            f"{adata.var_names[0]!r}, the model's like {var_names[0]!r}; rename "
            f"{argument}.var_names, e.g. from symbols to Ensembl identifiers."
            f"{hint_at_other_names(missing, adata.var_names)}"
        )
    raise features_missing(
        missing,
        adata,
        of=len(var_names),
        advice="add as zeros those that no cell expresses, or train on features that all cells "
        "share; cells that are only embedded, and not attached to a model, may lack some",
        argument=argument,
    )


def features_missing(
    missing: pd.Index, adata: AnnData, *, of: int, advice: str, argument: str = "adata"
) -> ValueError:
    """The error for cells that lack features of the model, which has so many."""
    return ValueError(
        f"{argument} lacks {len(missing)} of the model's {of} features, e.g. "
        f"{', '.join(map(repr, missing[:5]))}: {advice}."
        f"{hint_at_other_names(missing, adata.var_names)}"
    )


def _subset(adata: AnnData, rows: slice | NDArray[np.int64], names: pd.Index | None) -> AnnData:
    """A view of these rows and features, of the file itself: on disk, views have no views."""
    if not (adata.is_view and adata.isbacked):
        return adata[rows] if names is None else adata[rows, names]
    base = adata._adata_ref
    kept = np.arange(base.n_obs)[adata._oidx][rows]
    return base[kept, adata.var_names if names is None else names]


def hint_at_other_names(missing: pd.Index, names: pd.Index) -> str:
    """Under which other names most missing features are there; empty if under none."""
    in_capitals = missing.str.casefold().isin(names.str.casefold()).sum()
    stems = [index.str.replace(_VERSIONED, r"\1", regex=True) for index in (missing, names)]
    of_other_version = stems[0].isin(stems[1]).sum()
    if of_other_version > in_capitals:
        return f" {of_other_version} are there with another version: remove it from both."
    return f" {in_capitals} are there in other capitals: another species?" if in_capitals else ""
