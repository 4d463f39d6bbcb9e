"""What every method of a benchmark starts from: one folder of matrices per dataset."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

import scdiffaug
from scdiffaug._checks import check_number, check_whole
from scdiffaug.benchmark._worker import write_matrix
from scdiffaug.benchmark.processes import digest_of
from scdiffaug.block_files import read_cells
from scdiffaug.components import PrincipalAxes
from scdiffaug.contract import DataContract
from scdiffaug.data import check_key
from scdiffaug.matrices import Matrix, to_dense
from scdiffaug.metrics._inputs import Values
from scdiffaug.storage import written_aside

# Types with fewer cells are left out: ten stratified folds need ten cells.
MIN_CELLS_PER_TYPE = 10
_N_LSI = 30
# A change in one of these files makes inputs again, but runs only where the inputs changed.
_PREPARING = [
    Path(scdiffaug.__file__).parent / name
    for name in (
        "benchmark/inputs.py",
        "components.py",
        "contract.py",
        "data.py",
        "features.py",
        "matrices.py",
        "nn.py",
        "normalized.py",
    )
]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A labelled dataset, prepared for the methods.

    Parameters
    ----------
    name
        Stem of its file.
    folder
        Where the inputs of the methods lie.
    kind
        Feature space: counts, peaks, log or raw.
    digest
        Hash of the inputs.
    labels
        Types, shape ``(n,)``, which are no part of the inputs.
    note
        Which types were left out.
    """

    name: str
    folder: Path
    kind: str
    digest: str
    labels: NDArray[np.str_]
    note: str

    @property
    def pca(self) -> NDArray[np.float32]:
        """Points that methods start from, principal components as a rule, shape ``(n, k)``."""
        return np.load(self.folder / "pca_log.npy")


def prepare(
    path: Path, *, label_key: str, cache: Path, max_cells: int | None = None, seed: int = 0
) -> Dataset:
    """Read a dataset and write what the methods start from, once per content.

    Counts are normalised to log1p of 10,000 counts per cell, and the 2,000 most variable features
    are taken. Methods start from 50 principal components of these, as in scanpy's tutorial, or of
    the standardised features, as in Seurat and our own encoder. For peaks they start from 30
    components of TF-IDF, as in Signac's guide.

    Parameters
    ----------
    path
        An ``.h5ad`` file.
    label_key
        Column of obs with the types. Types with fewer than ten cells are left out.
    cache
        Folder of the inputs.
    max_cells
        Draw this many cells at random where there are more.
    seed
        Seed of the draw and of the components.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If there is no such column.
    """
    adata = read_cells(path)
    with of_file(path):
        return prepare_cells(
            adata, path.stem, label_key=label_key, cache=cache, max_cells=max_cells, seed=seed
        )


@contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Name the file in what is raised: there may be several."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        kind = next(kind for kind in (KeyError, TypeError, ValueError) if isinstance(error, kind))
        words = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
        raise kind(f"{path}: {words}") from error


def prepare_cells(
    adata: AnnData,
    name: str,
    *,
    label_key: str,
    cache: Path,
    max_cells: int | None = None,
    seed: int = 0,
) -> Dataset:
    """:func:`prepare` for cells in memory."""
    cells, note = _scorable(adata, label_key, max_cells=max_cells, seed=seed)
    contract = _contract(cells, seed)
    return _prepared(cells, contract, name=name, label_key=label_key, note=note, cache=cache)


def prepare_split(
    path: Path,
    *,
    label_key: str,
    cache: Path,
    held_out: float,
    max_cells: int | None = None,
    seed: int = 0,
) -> tuple[Dataset, Dataset]:
    """Training cells as :func:`prepare` gives them, and held-back cells in their coordinates.

    Variable features, their scale and the principal components are those of the training cells.
    Cells are held back within each type. Types that would keep fewer than ten training cells are
    left out.

    Parameters
    ----------
    path, label_key, cache, max_cells
        As in :func:`prepare`.
    held_out
        Share of the cells to hold back, at most one half.
    seed
        As in :func:`prepare`; the split has the same seed.

    Returns
    -------
    Training cells and held-back cells.
    """
    check_number("held_out", held_out, above=0, at_most=0.5)
    min_cells = math.ceil(MIN_CELLS_PER_TYPE / (1 - held_out))
    cells = read_cells(path)
    with of_file(path):
        adata, note = _scorable(
            cells, label_key, min_cells=min_cells, max_cells=max_cells, seed=seed
        )
    parts = train_test_split(
        np.arange(adata.n_obs),
        test_size=held_out,
        stratify=adata.obs[label_key].astype(str),
        random_state=seed,
    )
    training, new = (adata[np.sort(part)].copy() for part in parts)
    contract = _contract(training, seed)
    said = {"name": path.stem, "label_key": label_key, "note": note}
    return (
        _prepared(training, contract, **said, cache=cache, fitted_on=training),
        _prepared(new, contract, **said, cache=cache, fitted_on=training),
    )


def _prepared(
    adata: AnnData,
    contract: DataContract,
    *,
    name: str,
    label_key: str,
    note: str,
    cache: Path,
    fitted_on: AnnData | None = None,
) -> Dataset:
    values = contract.read(adata)[1]
    reference = None if fitted_on is None else contract.read(fitted_on)[1]
    digest = _digest([values, reference], contract.space.kind, contract.seed)
    folder = cache / "inputs" / f"{digest}-{digest_of(_PREPARING)}"
    if not folder.exists():
        with written_aside(folder) as aside:
            _write(aside, contract, values, reference=reference)
    return Dataset(
        name=name,
        folder=folder,
        kind=contract.space.kind,
        digest=digest_of(sorted(folder.iterdir())),
        labels=adata.obs[label_key].to_numpy().astype(str),
        note=note,
    )


def with_points(dataset: Dataset, points: NDArray[np.floating[Any]], *, cache: Path) -> Dataset:
    """The dataset with other points, shape ``(n, k)``, in place of its principal components."""
    digest = _digest([points])
    folder = cache / "inputs" / f"points-{digest}"
    if not folder.exists():
        with written_aside(folder) as aside:
            np.save(aside / "pca_log.npy", points)
    return replace(dataset, folder=folder, digest=digest)


def prepare_all(
    data: Sequence[str | Path], *, label_key: str, max_cells: int | None, cache: Path
) -> list[Dataset]:
    """:func:`prepare` for each of the files of :func:`checked_paths`."""
    return [
        prepare(path, label_key=label_key, cache=cache, max_cells=max_cells)
        for path in checked_paths(data)
    ]


def checked_paths(data: Sequence[str | Path]) -> list[Path]:
    """Paths of files; ValueError where there are none, or two have the same name."""
    paths = [Path(path) for path in data]
    names = [path.stem for path in paths]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f"data has two files named {repeated[0]!r}: rename one.")
    if not paths:
        raise ValueError("data is empty: pass at least one .h5ad file.")
    return paths


def _scorable(
    adata: AnnData,
    label_key: str,
    *,
    min_cells: int = MIN_CELLS_PER_TYPE,
    max_cells: int | None,
    seed: int,
) -> tuple[AnnData, str]:
    check_key(adata, "label_key", label_key)
    if max_cells is not None:
        check_whole("max_cells", max_cells)
    notes = []
    if max_cells is not None and adata.n_obs > max_cells:
        drawn = np.random.default_rng(seed).choice(adata.n_obs, max_cells, replace=False)
        notes.append(f"{max_cells} of {adata.n_obs} cells drawn at random")
        adata = adata[np.sort(drawn)]
    sizes = adata.obs[label_key].value_counts()
    sizes = sizes[sizes > 0]
    rare = sizes.index[sizes < min_cells]
    kept = adata.obs[label_key].notna() & ~adata.obs[label_key].isin(rare)
    if not kept.all():
        left_out = f"{(~kept).sum()} cells without a type or of types of fewer than "
        notes.append(f"{left_out}{min_cells} cells left out")
    if (n_types := len(sizes) - len(rare)) < 2:
        raise ValueError(
            f"label_key={label_key!r} has {n_types} types of {min_cells} or more of the "
            f"{adata.n_obs} cells: name a column that has two or more to be told apart, "
            "or draw more cells."
        )
    return adata[kept].copy(), "; ".join(notes)


def _contract(adata: AnnData, seed: int) -> DataContract:
    keys = ("layer", "labels_key", "batch_key", "neighbors_key")
    return DataContract.fit(
        adata,
        dict.fromkeys(keys),
        feature_space="auto",
        n_top_features=None,
        n_neighbors=15,
        covariate=None,
        seed=seed,
    )


def _write(
    folder: Path, contract: DataContract, values: Matrix, *, reference: Matrix | None
) -> None:
    features = contract.features(values)
    write_matrix(folder / "values", values)
    write_matrix(folder / "features", features)
    np.save(folder / "selected.npy", np.asarray(contract.selected))
    fitted_on = features if reference is None else contract.features(reference)
    is_peaks = contract.space.kind == "peaks"
    axes = PrincipalAxes.fit(fitted_on, seed=contract.seed, tf_idf=is_peaks)
    components = axes.transform(features)
    np.save(folder / "pca_standardised.npy", components)
    if is_peaks:
        # Latent semantic indexing, of which Signac takes thirty components.
        np.save(folder / "pca_log.npy", components[:, :_N_LSI])
        return
    pca = pca_for(fitted_on, seed=contract.seed)
    if reference is None:
        points = pca.fit_transform(to_dense(features))
    else:
        # Late components of fit_transform differ from transform's, as the solver is randomised.
        points = pca.fit(to_dense(fitted_on)).transform(to_dense(features))
    np.save(folder / "pca_log.npy", points)


def pca_for(cells: Values, *, seed: int) -> PCA:
    """An unfitted PCA of 50 components; of one fewer than cells or features if that is less."""
    return PCA(min(50, *(size - 1 for size in cells.shape)), random_state=seed)


def _digest(matrices: Sequence[Matrix | None], *settings: Any) -> str:
    digest = hashlib.sha256(repr(settings).encode())
    for matrix in matrices:
        if matrix is None:
            continue
        digest.update(repr(matrix.shape).encode())
        parts = [matrix]
        if isinstance(matrix, sparse.csr_matrix):
            parts = [matrix.data, matrix.indices, matrix.indptr]
        for part in parts:
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:16]


def describe(datasets: list[Dataset]) -> pd.DataFrame:
    """One row per dataset: cells, types, kind of values, and what was left out."""
    return pd.DataFrame(
        {
            "dataset": dataset.name,
            "cells": len(dataset.labels),
            "types": len(np.unique(dataset.labels)),
            "values": dataset.kind,
            "note": dataset.note,
        }
        for dataset in datasets
    )
