"""Run one embedding method in a separate process: ``python _worker.py JOB_FOLDER``.

This file stands alone, because the environments of some peers have no scdiffaug. The folder holds
``job.json`` (method, seed, settings, where the inputs are); labels come as ``labels.npy``, and
only to the supervised ablation. The worker adds ``embedding.npz`` and ``run.json`` (seconds, peak
memory in MB, versions).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import MagicMock

import numpy as np
from scipy import sparse

Embeddings = dict[str, np.ndarray]
Matrix: TypeAlias = np.ndarray | sparse.csr_matrix


def write_matrix(path: Path, matrix: Matrix) -> None:
    """Write a matrix at ``path`` with the ending ``.npz`` if it is sparse, else ``.npy``."""
    if sparse.issparse(matrix):
        sparse.save_npz(f"{path}.npz", matrix)
    else:
        np.save(f"{path}.npy", matrix)


def read_matrix(path: Path) -> Matrix:
    """What :func:`write_matrix` wrote."""
    packed = Path(f"{path}.npz")
    return sparse.load_npz(packed).tocsr() if packed.exists() else np.load(f"{path}.npy")


@dataclass(frozen=True)
class Inputs:
    """What a method may look at.

    Parameters
    ----------
    folder
        Folder of ``values`` (the matrix as it came) and ``features`` (variable features on the
        log scale), both ``.npz`` if sparse, else ``.npy``, and of 50 principal components of the
        features (``pca_log.npy``) and of the standardised features (``pca_standardised.npy``).
    kind
        Feature space of the values: counts, peaks, log or raw.
    new
        Cells to embed that the method must not learn from, in the same coordinates.
    labels
        Types, shape ``(n,)``, for the supervised ablation.
    """

    folder: Path
    kind: str
    new: Inputs | None = None
    labels: np.ndarray | None = None

    @property
    def values(self) -> Matrix:
        """The matrix as it came, shape ``(n, d)``."""
        return read_matrix(self.folder / "values")

    @property
    def features(self) -> np.ndarray:
        """Variable features on the log scale, dense, shape ``(n, k)``."""
        features = read_matrix(self.folder / "features")
        return features.toarray() if isinstance(features, sparse.csr_matrix) else features

    def pca(self, scale: str = "log") -> np.ndarray:
        """Points to start from: components of log or standardised features, shape ``(n, k)``."""
        return np.load(self.folder / f"pca_{scale}.npy")


def _fitted(model: Any, inputs: Inputs, points: Callable[[Inputs], np.ndarray]) -> Embeddings:
    """2-D embedding of the cells and, by ``transform``, of new cells if there are any."""
    found = {"2d": model.fit_transform(points(inputs))}
    if inputs.new is not None:
        found["2d_new"] = model.transform(points(inputs.new))
    return found


def pca(inputs: Inputs, _seed: int, *, scale: str = "log") -> Embeddings:
    """The components that other methods start from, and the first two of them."""
    points = inputs.pca(scale)
    found = {"2d": points[:, :2], "components": points}
    if inputs.new is None:
        return found
    new = inputs.new.pca(scale)
    return found | {"2d_new": new[:, :2], "components_new": new}


def umap(
    inputs: Inputs, seed: int, *, scale: str = "log", n_neighbors: int = 15, min_dist: float = 0.1
) -> Embeddings:
    """UMAP (McInnes et al. 2018) with umap-learn's defaults."""
    from umap import UMAP

    model = UMAP(n_neighbors=n_neighbors, min_dist=min_dist, random_state=seed, n_jobs=1)
    return _fitted(model, inputs, lambda cells: cells.pca(scale))


def densmap(
    inputs: Inputs, seed: int, *, n_neighbors: int = 30, dens_lambda: float = 2.0
) -> Embeddings:
    """UMAP that keeps densities: densMAP (Narayan et al. 2021) with its authors' 30 neighbours."""
    from umap import UMAP

    model = UMAP(
        n_neighbors=n_neighbors,
        densmap=True,
        dens_lambda=dens_lambda,
        random_state=seed,
        n_jobs=1,
    )
    return {"2d": model.fit_transform(inputs.pca())}


def tsne(
    inputs: Inputs,
    seed: int,
    *,
    scale: str = "log",
    perplexity: float = 30,
    exaggeration: float | None = None,
) -> Embeddings:
    """t-SNE by openTSNE (Poličar et al. 2019): PCA start, learning rate n / exaggeration."""
    from openTSNE import TSNE

    model = TSNE(
        perplexity=perplexity, exaggeration=exaggeration, random_state=seed, n_jobs=_threads()
    )
    return {"2d": np.asarray(model.fit(inputs.pca(scale)))}


def pacmap(
    inputs: Inputs, seed: int, *, scale: str = "log", n_neighbors: int = 10, fp_ratio: float = 2
) -> Embeddings:
    """PaCMAP (Wang et al. 2021)."""
    from pacmap import PaCMAP

    model = PaCMAP(n_neighbors=n_neighbors, FP_ratio=fp_ratio, random_state=seed)
    points = inputs.pca(scale)
    found = {"2d": model.fit_transform(points)}
    if inputs.new is not None:
        found["2d_new"] = model.transform(inputs.new.pca(scale), basis=points)
    return found


def localmap(
    inputs: Inputs,
    seed: int,
    *,
    scale: str = "log",
    n_neighbors: int = 10,
    low_dist_thres: float = 10,
) -> Embeddings:
    """LocalMAP (Wang et al. 2024)."""
    from pacmap import LocalMAP

    model = LocalMAP(n_neighbors=n_neighbors, low_dist_thres=low_dist_thres, random_state=seed)
    return {"2d": model.fit_transform(inputs.pca(scale))}


def phate(inputs: Inputs, seed: int, *, knn: int = 5, gamma: float = 1) -> Embeddings:
    """PHATE (Moon et al. 2019): square roots of library-normalised counts, its own 100 PCs."""
    from phate import PHATE

    values = inputs.values
    if inputs.kind == "counts":
        depth = np.asarray(values.sum(1)).ravel()
        values = (sparse.diags(np.median(depth) / depth) @ sparse.csr_matrix(values)).sqrt()
    elif inputs.kind == "peaks":
        values = inputs.pca()
    else:
        values = inputs.features
    model = PHATE(knn=knn, gamma=gamma, random_state=seed, n_jobs=_threads(), verbose=0)
    return {"2d": model.fit_transform(values)}


def pumap(inputs: Inputs, seed: int, *, n_neighbors: int = 15, epochs: int = 1) -> Embeddings:
    """Parametric UMAP (Sainburg et al. 2021) with umap-learn's network and ten loss reports."""
    import tensorflow as tf
    from umap.parametric_umap import ParametricUMAP

    tf.keras.utils.set_random_seed(seed)
    model = ParametricUMAP(n_neighbors=n_neighbors, random_state=seed, verbose=False)
    # umap-learn 0.5.12 takes it only as an attribute.
    model.n_training_epochs = epochs
    return _fitted(model, inputs, Inputs.pca)


def ivis(inputs: Inputs, seed: int, *, k: int = 15, model: str = "maaten") -> Embeddings:
    """Siamese network ivis (Szubert et al. 2019) by its single-cell guide: scaled PCs, k = 15."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    from ivis import Ivis

    tf.random.set_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (ivis draws from the global stream)
    points = inputs.pca().astype(np.float32)
    lowest, width = points.min(0), points.max(0) - points.min(0)
    with_network = Ivis(
        embedding_dims=2, k=k, model=model, n_epochs_without_progress=10, verbose=0
    )
    return _fitted(
        with_network, inputs, lambda cells: (cells.pca().astype(np.float32) - lowest) / width
    )


def dmtev(inputs: Inputs, seed: int, *, n_neighbors: int = 30, nu: float = 0.5) -> Embeddings:
    """DMT-EV (Zang et al. 2022) by dmt-learn's defaults, on a GPU where there is one."""
    # Needed for images alone, torchvision loads only beside the build of torch it was made for.
    for part in ("", ".datasets", ".models", ".transforms", ".transforms.functional", ".utils"):
        name = f"torchvision{part}"
        sys.modules[name] = MagicMock(__spec__=ModuleSpec(name, None), __path__=[])
    from dmt_learn import dmt_learn

    # dmt-learn 0.0.81 asks for a GPU, though it runs without one.
    dmt_learn.Trainer = partial(_on_any_device, dmt_learn.Trainer)
    model = dmt_learn.DMTLearn(n_neighbors=n_neighbors, nu=nu, random_state=seed)
    return {"2d": np.asarray(model.fit_transform(inputs.features))}


def _on_any_device(trainer: Callable[..., Any], **settings: Any) -> Any:
    return trainer(**{**settings, "accelerator": "auto"})


def scvi(inputs: Inputs, seed: int, *, n_latent: int = 30, n_layers: int = 2) -> Embeddings:
    """Latent space of scVI (Lopez et al. 2018) on counts of variable genes; in 2-D by UMAP."""
    from umap import UMAP

    latent = _scvi_latent(inputs, seed, n_latent=n_latent, n_layers=n_layers)
    return {"latent": latent, "2d": UMAP(random_state=seed, n_jobs=1).fit_transform(latent)}


def scvi_2d(inputs: Inputs, seed: int, *, n_layers: int = 2) -> Embeddings:
    """Latent space of scVI with two dimensions."""
    return {"2d": _scvi_latent(inputs, seed, n_latent=2, n_layers=n_layers)}


def _scvi_latent(inputs: Inputs, seed: int, *, n_latent: int, n_layers: int) -> np.ndarray:
    from anndata import AnnData
    from scvi import settings
    from scvi.model import SCVI

    if inputs.kind != "counts":
        raise ValueError(f"scVI models counts of genes, and these are {inputs.kind} values")
    settings.seed = seed
    selected = np.load(inputs.folder / "selected.npy")
    adata = AnnData(inputs.values[:, selected])
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_latent=n_latent, n_layers=n_layers, gene_likelihood="nb")
    # By default a tenth would be held back, for an early stopping that is off.
    model.train(train_size=1.0, enable_progress_bar=False)
    return model.get_latent_representation()


def scdiffaug(inputs: Inputs, seed: int, **settings: Any) -> Embeddings:
    """Ours; settings are split between the constructor and ``train``."""
    from anndata import AnnData

    from scdiffaug import scDiffAug

    training = {"alpha", "balance", "relatedness", "schedule", "startup"}
    training |= {"max_epochs", "batch_size"}
    cells = AnnData(inputs.values)
    if inputs.labels is not None:
        cells.obs["type"] = inputs.labels
        scDiffAug.setup_anndata(cells, labels_key="type")
    model = scDiffAug(
        cells,
        feature_space=inputs.kind,  # type: ignore[arg-type]
        seed=seed,
        **{key: value for key, value in settings.items() if key not in training},
    )
    model.train(
        enable_progress_bar=False,
        **{key: value for key, value in settings.items() if key in training},
    )
    y, z = model._embed()
    found = {"2d": z, "80d": y}
    if inputs.new is not None:
        found["80d_new"], found["2d_new"] = model._embed(AnnData(inputs.new.values))
    return found


METHODS: Mapping[str, Callable[..., Embeddings]] = {
    method.__name__: method
    for method in (
        pca,
        umap,
        densmap,
        tsne,
        pacmap,
        localmap,
        phate,
        pumap,
        ivis,
        dmtev,
        scvi,
        scvi_2d,
        scdiffaug,
    )
}


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def main(folder: Path) -> None:
    """Run the job of a folder."""
    job = json.loads((folder / "job.json").read_text())
    inputs = Inputs(
        Path(job["inputs"]),
        job["kind"],
        new=Inputs(Path(job["new"]), job["kind"]) if "new" in job else None,
        labels=np.load(folder / "labels.npy") if (folder / "labels.npy").exists() else None,
    )
    start = time.perf_counter()
    embeddings = METHODS[job["method"]](inputs, job["seed"], **job["settings"])
    seconds = time.perf_counter() - start
    np.savez(folder / "embedding.npz", **embeddings)  # type: ignore[arg-type]
    write_run(folder, seconds, job["packages"])


def write_run(folder: Path, seconds: float, packages: Sequence[str]) -> None:
    """Write ``run.json``: seconds, peak memory of this process in MB, versions."""
    run = {
        "seconds": round(seconds, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": {package: version(package) for package in packages},
    }
    (folder / "run.json").write_text(json.dumps(run))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
