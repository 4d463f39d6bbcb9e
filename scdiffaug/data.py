"""Reading an AnnData: every check that a user's data must pass, with what to do about it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse

from scdiffaug.features import FeatureSpace, Matrix, stored_values, to_dense


def read_matrix(adata: AnnData, layer: str | None) -> Matrix:
    """X or a layer as float32, CSR where it is sparse, checked.

    Raises
    ------
    KeyError
        If the layer is missing.
    ValueError
        If there are no cells or features, names repeat, or values are NaN or infinite.
    """
    check_frame(adata)
    check_layer(adata, layer)
    source = adata.X if layer is None else adata.layers[layer]
    if source is None:
        raise ValueError("adata.X is empty (None): set X or pass layer=...")
    if adata.isbacked:
        source = source[:]
    if sparse.issparse(source):
        x = sparse.csr_matrix(source, dtype=np.float32)
    else:
        x = np.ascontiguousarray(source, dtype=np.float32)
    finite = np.isfinite(stored_values(x))
    if not finite.all():
        raise ValueError(
            f"{_place(layer)} has {int((~finite).sum())} NaN or infinite values: remove those "
            "cells or features, or fill the values, before setup."
        )
    return x


def check_frame(adata: AnnData) -> None:
    """Raise ValueError where an AnnData is empty or its names repeat."""
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise ValueError(f"adata is empty: found {adata.n_obs} cells x {adata.n_vars} features.")
    for field, names in (("obs_names", adata.obs_names), ("var_names", adata.var_names)):
        if not names.is_unique:
            repeated = names[names.duplicated()].unique()
            raise ValueError(
                f"adata.{field} has {len(repeated)} duplicate names, e.g. {repeated[0]!r}: call "
                f"adata.{field}_make_unique()."
            )


def check_depth(x: Matrix, obs_names: pd.Index, space: FeatureSpace) -> None:
    """Raise ValueError where a cell of a counts matrix has no counts."""
    if space.kind != "counts":
        return
    empty = np.asarray(x.sum(1)).ravel() == 0
    if empty.any():
        raise ValueError(
            f"{int(empty.sum())} cells have no counts, e.g. {obs_names[empty][0]!r}: remove them "
            "with sc.pp.filter_cells(adata, min_counts=1)."
        )


def check_setup(
    adata: AnnData, layer: str | None, *, labels_key: str | None, batch_key: str | None
) -> None:
    """Raise KeyError where a layer or column of obs is missing, ValueError as in check_frame."""
    check_frame(adata)
    check_key(adata, "labels_key", labels_key)
    check_key(adata, "batch_key", batch_key)
    check_layer(adata, layer)


def check_layer(adata: AnnData, layer: str | None) -> None:
    """Raise KeyError where a layer is named that is not there."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"layer={layer!r} not found in adata.layers: it has {list(adata.layers)}.")


def check_graph(adata: AnnData, neighbors_key: str | None) -> None:
    """Raise KeyError where a neighbour graph is named that is not there."""
    if neighbors_key is not None and neighbors_key not in adata.uns:
        raise KeyError(
            f"neighbors_key={neighbors_key!r} not found in adata.uns: run "
            f"sc.pp.neighbors(adata, key_added={neighbors_key!r})."
        )


def check_key(adata: AnnData, argument: str, key: str | None) -> None:
    """Raise KeyError where a column of obs is named that is not there."""
    if key is not None and key not in adata.obs:
        raise KeyError(
            f"{argument}={key!r} not found in adata.obs: it has {list(adata.obs.columns)}."
        )


def align_features(adata: AnnData, var_names: pd.Index) -> AnnData:
    """``adata`` itself, or a view of it with the model's features in the model's order.

    Raises
    ------
    ValueError
        If features of the model are missing, naming how many and the first few.
    """
    if adata.var_names.equals(var_names):
        return adata
    check_frame(adata)
    missing = var_names.difference(adata.var_names, sort=False)
    if len(missing):
        raise ValueError(
            f"adata lacks {len(missing)} of the model's {len(var_names)} features, e.g. "
            f"{', '.join(map(repr, missing[:5]))}: the model needs the features it was trained on."
        )
    return adata[:, var_names]


def to_tensor(x: Matrix) -> torch.Tensor:
    """A dense or CSR matrix as a dense float32 tensor."""
    return torch.from_numpy(to_dense(x))


def _place(layer: str | None) -> str:
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"
