"""One call from a dataset's name to an AnnData."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scdiffaug._checks import check_whole
from scdiffaug.datasets._fetch import fetch, resolve
from scdiffaug.datasets._loaders import LOADERS
from scdiffaug.datasets._registry import Entry

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Subset = int | Mapping[str, str | Sequence[str]] | None


def load(
    dataset: str | Entry, *, subset: Subset = None, seed: int = 0, progress: bool = True
) -> "AnnData":
    """Load a dataset, downloading what is not here.

    Parameters
    ----------
    dataset
        Name of a dataset, or an entry of :func:`registry`.
    subset
        A number of cells to draw at random, or a mapping of columns of ``obs`` to the wanted
        values, such as ``{"tissue": ["AdultKidney", "FetalKidney"]}``; by default all cells.
    seed
        Seed of the random cells.
    progress
        Show a progress bar on stderr while downloading.

    Returns
    -------
    The cells in the order of the file. The registry's entry says what ``.X`` is
    (``feature_space``), and which columns of ``.obs`` are types (``label_key``) and batches
    (``batch_key``).

    Raises
    ------
    TypeError
        If the dataset is no name, or the subset no whole number.
    ValueError
        If there is no such dataset, the subset asks for what is not there, or a file is not what
        the registry says.
    FileNotFoundError
        If a file is not here and has no direct download, or the server does not have it.
    OSError
        If a download fails.

    Examples
    --------
    >>> import scdiffaug
    >>> scdiffaug.datasets.load("pbmc68k_reduced", subset=100).shape
    (100, 765)
    """
    entry = resolve(dataset)
    paths = list(fetch(entry, progress=progress).values())
    adata = LOADERS[entry.loader](paths, partial(_rows, subset=subset, seed=seed))
    _check(adata, entry, whole=subset is None)
    return adata


def _rows(obs: "pd.DataFrame", *, subset: Subset, seed: int) -> NDArray[np.intp]:
    if subset is None:
        return np.arange(len(obs))
    if isinstance(subset, Mapping):
        return _matching_rows(obs, subset)
    check_whole("subset", subset, at_most=len(obs))
    return np.sort(np.random.default_rng(seed).choice(len(obs), subset, replace=False))


def _matching_rows(
    obs: "pd.DataFrame", subset: Mapping[str, str | Sequence[str]]
) -> NDArray[np.intp]:
    keep = np.ones(len(obs), dtype=bool)
    for key, wanted in subset.items():
        if key not in obs:
            raise ValueError(f"subset has column {key!r}: choose one of {', '.join(obs)}")
        keep &= obs[key].isin([wanted] if isinstance(wanted, str) else wanted).to_numpy()
    if not keep.any():
        raise ValueError(f"subset is {dict(subset)}, which no cell is: choose other values")
    return np.flatnonzero(keep)


def _check(adata: "AnnData", entry: Entry, *, whole: bool) -> None:
    for field in ("label_key", "batch_key"):
        key = getattr(entry, field)
        if key is not None and key not in adata.obs:
            columns = ", ".join(adata.obs) or "no columns"
            raise ValueError(f"{field} of {entry.name} is {key!r}, its files have {columns}")
    known = (entry.n_cells or adata.n_obs, entry.n_features or adata.n_vars)
    if whole and adata.shape != known:
        # The registry's numbers are second-hand where no checksum is known.
        warnings.warn(f"{entry.name} is {adata.shape}, the registry says {known}", stacklevel=3)
