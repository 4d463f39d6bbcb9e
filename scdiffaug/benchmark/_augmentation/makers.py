"""Makers of cells, and the process they run in: ``python -m``, this module, ``FOLDER``.

The folder holds ``job.json`` (worker, rows of the table with their settings, seed, inputs) and
``plan.npz`` (for every draw the cells that may be known and the cells to start from; labels, or
types of the latter, only where a row uses them). The process adds the augmented cells
(``METHOD.DRAW.npz`` or ``.npy``), their types where it chose how many of each there are
(``METHOD.DRAW.types.npy``), and ``run.json`` (seconds, peak memory in MB, versions).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from scdiffaug.benchmark._augmentation import peers
from scdiffaug.benchmark._augmentation.peers import Rows
from scdiffaug.benchmark._worker import Inputs, write_matrix, write_run
from scdiffaug.features import FeatureSpace
from scdiffaug.matrices import depths
from scdiffaug.metrics._inputs import Values
from scdiffaug.metrics._spaces import dense, pca_of
from scdiffaug.neighbors import nearest

if TYPE_CHECKING:
    from anndata import AnnData

# Cells per type, labelled and augmented, that a classifier of the "use" setting learns from.
FILLED = 100

Made = Iterator[tuple[str, str, Values]]
Variants = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Draw:
    """One set of cells that is asked for.

    Parameters
    ----------
    known
        Rows that the maker may learn from, shape ``(k,)``.
    sources
        Row that each augmented cell starts from, shape ``(m,)``; not always a known one.
    types
        Types of the sources, shape ``(m,)``.
    """

    known: Rows
    sources: Rows
    types: NDArray[np.str_] | None = None


@dataclass(frozen=True)
class Task:
    """Cells and draws of one process; ``values`` and ``seen`` have shape ``(n, d)``."""

    values: Values
    seen: Values
    kind: str
    labels: NDArray[np.str_]
    draws: Mapping[str, Draw]
    seed: int
    max_epochs: int | None

    def by_known(self) -> Iterator[tuple[Rows, dict[str, Draw]]]:
        """Known cells, and the draws that share them and thus one training."""
        groups: dict[bytes, dict[str, Draw]] = {}
        for name, draw in self.draws.items():
            groups.setdefault(draw.known.tobytes(), {})[name] = draw
        for group in groups.values():
            yield next(iter(group.values())).known, group


def _nearest_known(task: Task, draw: Draw, *, k: int) -> Rows:
    """Positions in ``draw.known`` of the known cells nearest to each source, in 50 PCs."""
    known, sources = task.seen[draw.known], task.seen[draw.sources]
    reference, points = pca_of(known, (known, sources), n_pcs=50, seed=task.seed)
    return nearest(reference, points, min(k, len(reference)))[1]


def _partners(task: Task, draw: Draw, *, rng: np.random.Generator) -> Rows:
    """Row of one of the 15 known cells nearest to each source, apart from the source itself."""
    rows = draw.known[_nearest_known(task, draw, k=16)]
    others_first = np.argsort(rows == draw.sources[:, None], axis=1, kind="stable")
    chosen = rng.integers(max(rows.shape[1] - 1, 1), size=len(rows))
    return rows[np.arange(len(rows)), others_first[np.arange(len(rows)), chosen]]


def _depth(task: Task, draw: Draw) -> NDArray[Any]:
    return depths(task.values[draw.sources])


def _smoothed(task: Task, draw: Draw, neighbors: Rows) -> sparse.csr_matrix:
    rng = np.random.default_rng(task.seed)
    known, depth = task.values[draw.known], _depth(task, draw)
    return peers.smoothed_poisson(known, neighbors, depth=depth, rng=rng)


def _spread(task: Task, draw: Draw) -> NDArray[Any]:
    return dense(task.seen[draw.known]).std(0)


Simple = Callable[[Task, Draw, np.random.Generator], Values]
_SIMPLE: Mapping[str, Simple] = {
    "duplicate": lambda task, draw, _: peers.duplicate(task.values[draw.sources]),
    "gaussian": lambda task, draw, rng: peers.gaussian(
        task.seen[draw.sources], _spread(task, draw), rng=rng
    ),
    "mask": lambda task, draw, rng: peers.mask(task.values[draw.sources], rng=rng),
    "mixup": lambda task, draw, rng: peers.mixup(
        task.seen[draw.sources], task.seen[_partners(task, draw, rng=rng)], rng=rng
    ),
    "smote": lambda task, draw, _: peers.smote(
        task.seen[draw.known],
        task.labels[draw.known],
        wanted=task.labels[draw.sources],
        seed=task.seed,
    ),
    "knn_poisson": lambda task, draw, _: _smoothed(task, draw, _nearest_known(task, draw, k=10)),
}


def _simple(peer: Simple) -> Callable[[Task, Variants], Made]:
    def make(task: Task, variants: Variants) -> Made:
        for method in variants:
            for place, (name, draw) in enumerate(task.draws.items()):
                yield method, name, peer(task, draw, np.random.default_rng([task.seed, place]))

    return make


def scvi(task: Task, variants: Variants) -> Made:
    """SCVI (Lopez et al. 2018): counts from its posterior of the sources, or from its prior."""
    from anndata import AnnData
    from scvi import settings
    from scvi.model import SCVI

    for known, draws in task.by_known():
        settings.seed = task.seed
        adata = AnnData(task.values[known])
        SCVI.setup_anndata(adata)
        model = SCVI(adata, n_latent=30, n_layers=2, gene_likelihood="nb")
        # By default a tenth would be held back, for an early stopping that is off.
        model.train(max_epochs=task.max_epochs, train_size=1.0, enable_progress_bar=False)
        for name, draw in draws.items():
            for method, variant in variants.items():
                if variant["latent"] == "prior":
                    yield method, name, _from_prior(model, _depth(task, draw))
                else:
                    sources = AnnData(task.values[draw.sources])
                    made = model.posterior_predictive_sample(sources)
                    yield method, name, sparse.csr_matrix(made.to_scipy_sparse())


def _from_prior(model: Any, depth: NDArray[Any]) -> sparse.csr_matrix:
    import torch

    parts = []
    with torch.inference_mode():
        for block in np.array_split(depth, -(-len(depth) // 512)):
            library = torch.log(torch.as_tensor(block, dtype=torch.float32))[:, None]
            z = torch.randn(len(block), model.module.n_latent)
            batch = torch.zeros(len(block), 1, dtype=torch.long)
            made = model.module.cpu().generative(z, library, batch)["px"].sample()
            parts.append(sparse.csr_matrix(made.numpy()))
    return sparse.vstack(parts, format="csr")


def scdiffaug(task: Task, variants: Variants) -> Made:
    """Ours; ``smoothed`` averages that many neighbours in y, in place of the diffusion."""
    from anndata import AnnData

    from scdiffaug import scDiffAug

    for known, draws in task.by_known():
        cells = AnnData(task.values[known])
        model = scDiffAug(cells, feature_space=task.kind, seed=task.seed)  # type: ignore[arg-type]
        model.train(task.max_epochs, enable_progress_bar=False)
        for name, draw in draws.items():
            sources = AnnData(task.values[draw.sources])
            for method, variant in variants.items():
                if "smoothed" in variant:
                    y_known, y = (model.get_latent_representation(x) for x in (cells, sources))
                    found = nearest(y_known, y, min(variant["smoothed"], len(y_known)))[1]
                    yield method, name, _smoothed(task, draw, found)
                elif "groupby" not in variant:
                    yield method, name, model.augment(sources, seed=task.seed, **variant).X
                elif name.startswith("use"):
                    new = model.augment(
                        _labelled(task, draw), target=FILLED, seed=task.seed, **variant
                    )
                    yield method, name, new.X
                    yield method, f"{name}.types", new.obs["cell_type"].to_numpy(dtype=str)
                elif "keep" not in variant:
                    labelled = _labelled(task, draw)
                    yield method, name, model.augment(labelled, seed=task.seed, **variant).X


def _labelled(task: Task, draw: Draw) -> AnnData:
    """The sources, each once and in their order, as a user has them who knows their types."""
    from anndata import AnnData

    assert draw.types is not None
    types = pd.Series(draw.types, index=draw.sources, name="cell_type")
    types = types[~types.index.duplicated()]
    obs = types.to_frame().set_axis(types.index.astype(str))
    return AnnData(task.values[types.index.to_numpy()], obs=obs)


WORKERS: Mapping[str, Callable[[Task, Variants], Made]] = {
    **{name: _simple(peer) for name, peer in _SIMPLE.items()},
    "scvi": scvi,
    "scdiffaug": scdiffaug,
}


def _read(folder: Path, job: Mapping[str, Any]) -> Task:
    values = Inputs(Path(job["inputs"]), job["kind"]).values
    with np.load(folder / "plan.npz") as stored:
        plan = dict(stored)
    return Task(
        values=values,
        seen=peers.as_compared(values, FeatureSpace.decide(values, job["kind"])),
        kind=job["kind"],
        labels=plan.pop("labels", np.empty(0, dtype=str)),
        draws={
            name: Draw(
                plan[f"{name}.known"], plan[f"{name}.sources"], types=plan.get(f"{name}.types")
            )
            for name in job["draws"]
        },
        seed=job["seed"],
        max_epochs=job["max_epochs"],
    )


def main(folder: Path) -> None:
    """Run the job of a folder."""
    job = json.loads((folder / "job.json").read_text())
    task = _read(folder, job)
    start = time.perf_counter()
    for method, draw, cells in WORKERS[job["worker"]](task, job["variants"]):
        write_matrix(folder / f"{method}.{draw}", cells)
    write_run(folder, time.perf_counter() - start, job["packages"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
