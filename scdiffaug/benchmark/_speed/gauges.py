"""Measurements of speed, and the process each runs in: ``python -m``, this module, ``FOLDER``.

The folder holds ``job.json`` (the gauge's name and its settings); the process adds
``measured.json`` (what was measured, and the peak memory of the process in MB).
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

    from scdiffaug.training import DiffAugPlan

Measured = dict[str, float]
Accelerator = Literal["cpu", "gpu"]

_N_TYPES = 8
_CELLS_AT_ONCE = 1024
_GEMM_SECONDS, _GEMM_AT_ONCE = 0.5, 10
_COUNTED_STEPS = 40


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of what is measured.

    Parameters
    ----------
    cells, features, density
        Simulated counts: their shape, and the share of them that is not zero.
    epochs
        Number of epochs that are timed, after a warm-up.
    made
        Number of cells to make, for each number of steps.
    steps
        Numbers of denoising steps to measure.
    accelerator
        What trains and samples: ``"cpu"`` or ``"gpu"``.
    """

    cells: int
    features: int
    density: float
    epochs: int
    made: int
    steps: tuple[int, ...]
    accelerator: Accelerator = "cpu"


def simulated_counts(size: Size) -> sparse.csr_matrix:
    """Poisson counts of eight types of cells, shape ``(cells, features)``.

    Genes differ by orders of magnitude, as real ones do. The depth is chosen to give the density.
    """
    rng = np.random.default_rng(0)
    profiles = rng.lognormal(0, 2, size.features) * rng.lognormal(
        0, 0.7, (_N_TYPES, size.features)
    )
    profiles *= _depth(profiles / profiles.sum(1, keepdims=True), size.density) / profiles.sum(
        1, keepdims=True
    )
    parts = []
    for start in range(0, size.cells, _CELLS_AT_ONCE):
        n = min(_CELLS_AT_ONCE, size.cells - start)
        rate = profiles[rng.integers(_N_TYPES, size=n)] * rng.lognormal(0, 0.4, (n, 1))
        counts = rng.poisson(rate).astype(np.float32)
        # A cell without reads would be refused.
        counts[counts.sum(1) == 0, 0] = 1
        parts.append(sparse.csr_matrix(counts))
    return sparse.vstack(parts, format="csr")


def _depth(shares: np.ndarray, density: float) -> float:
    """Reads per cell at which this share of its genes is expected to have any."""
    low, high = 1.0, 1e9
    while high / low > 1.01:
        depth = np.sqrt(low * high)
        found = -np.expm1(-depth * shares).mean()
        low, high = (depth, high) if found < density else (low, depth)
    return low


def matrix_product(size: Size) -> Measured:
    """Peak rate of matrix products on this machine, in the default precision of training."""
    import torch

    from scdiffaug.training import best_precision

    half = best_precision(size.accelerator) == "bf16-mixed"
    device = "cuda" if size.accelerator == "gpu" else "cpu"
    dtype = torch.bfloat16 if half else torch.float32
    shapes = (
        [(8192, 8192, 8192)]
        if device == "cuda"
        else [(2048, 2048, 2048), (512, size.features, 500), (1024, 500, 500)]
    )
    rates = []
    for n, k, m in shapes:
        a, b = (torch.rand(rows, k, dtype=dtype, device=device) for rows in (n, m))
        seconds = _seconds_each(partial(torch.nn.functional.linear, a, b))
        rates.append(2 * n * k * m / seconds)
    return {"flops_per_second": max(rates), "bits": 16 if half else 32}


def _seconds_each(work: Callable[[], torch.Tensor]) -> float:
    def several() -> None:
        for _ in range(_GEMM_AT_ONCE):
            product = work()
        # Wait for the result: a GPU works on after the calls have returned.
        product[0, 0].item()

    several()
    start, n_done = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < _GEMM_SECONDS or not n_done:
        several()
        n_done += _GEMM_AT_ONCE
    return passed / n_done


def train_scdiffaug(size: Size) -> Measured:
    """Training of encoder and generator by Lightning, including batches drawn from memory."""
    from scdiffaug.budget import Budget
    from scdiffaug.diffusion import CountThinning
    from scdiffaug.processes import Hardware
    from scdiffaug.training import DiffAugPlan, TrainingOptions, best_precision, fit

    model, batches = _ours(size)

    options = TrainingOptions(precision=best_precision(size.accelerator))

    def budget(epochs: int) -> Budget:
        return Budget.chosen(
            size.cells,
            n_processes=1,
            batch_size=512,
            max_epochs=epochs,
            n_passes=CountThinning.n_passes,
        )

    def train(epochs: int) -> None:
        fit(
            model.module,
            batches,
            options,
            budget=budget(epochs),
            hardware=Hardware.chosen(
                size.accelerator, 1, strategy="auto", num_nodes=1, alternates=False
            ),
            enable_progress_bar=False,
            checkpoints=None,
        )

    # Two epochs: only the second one reaches the phase in which the generator learns alone.
    train(2)
    seconds = _timed(lambda: train(size.epochs))
    plan = DiffAugPlan(model.module.cpu().train(), options, budget(size.epochs))
    return {
        "cells_per_second": size.cells * size.epochs / seconds,
        "flops_per_cell": _flops_per_cell(plan, batches),
    }


def _ours(size: Size) -> tuple[Any, Any]:
    from scdiffaug.preparing import training_cells

    model = _model(size)
    batches, axes = training_cells(
        model._contract,
        model.adata,
        n_components=model._module_config["n_components"],
        batch_size=512,
    )
    model.module.fit_cells(batches.x, batches.inputs, axes)
    return model, batches


def _model(size: Size) -> Any:
    from anndata import AnnData

    from scdiffaug import scDiffAug

    return scDiffAug(AnnData(simulated_counts(size)))


def _flops_per_cell(plan: DiffAugPlan, batches: Any) -> float:
    """FLOPs of matrix products, forward and backward, as a mean over the whole training."""
    from torch.utils.flop_counter import FlopCounterMode

    batch = next(iter(batches))
    plan.on_train_start()
    steps = np.linspace(0, plan.budget.n_steps, _COUNTED_STEPS, endpoint=False).astype(int)
    with FlopCounterMode(display=False) as counter:
        for step in steps:
            plan._steps_before = int(step)
            plan.training_step(dict(batch), 0).backward()
    return float(counter.get_total_flops() / len(steps) / len(batch["inputs"]))


def train_scvi(size: Size) -> Measured:
    """Training of scVI with the settings of its authors' tutorials."""
    model = _scvi(size)
    train = partial(
        model.train, train_size=1.0, accelerator=size.accelerator, enable_progress_bar=False
    )
    train(max_epochs=1)
    seconds = _timed(partial(train, max_epochs=size.epochs))
    return {"cells_per_second": size.cells * size.epochs / seconds}


def _scvi(size: Size) -> Any:
    from anndata import AnnData
    from scvi import settings
    from scvi.model import SCVI

    settings.seed = 0
    adata = AnnData(simulated_counts(size))
    SCVI.setup_anndata(adata)
    return SCVI(adata, n_latent=30, n_layers=2, gene_likelihood="nb")


def sample_scdiffaug(size: Size) -> Measured:
    """Sampling by ``augment``, from cells in memory to an AnnData, for each number of steps."""
    model = _model(size)
    model.train(max_epochs=1, accelerator=size.accelerator, enable_progress_bar=False)
    rows = range(min(size.made, size.cells))
    model.augment(indices=rows, steps=1)
    return {
        f"cells_per_second_{steps}": len(rows)
        / _timed(partial(model.augment, indices=rows, steps=steps))
        for steps in size.steps
    }


def sample_scvi(size: Size) -> Measured:
    """Sampling by scVI's ``posterior_predictive_sample``."""
    model = _scvi(size)
    model.train(max_epochs=1, accelerator=size.accelerator, enable_progress_bar=False)
    rows = range(min(size.made, size.cells))
    model.posterior_predictive_sample(indices=rows[:8])
    seconds = _timed(lambda: model.posterior_predictive_sample(indices=rows))
    return {"cells_per_second": len(rows) / seconds}


def load_csr(size: Size) -> Measured:
    """Loading of sparse counts in memory: an epoch of batches."""
    from anndata import AnnData

    return _loaded(AnnData(simulated_counts(size)))


def load_dense(size: Size) -> Measured:
    """Loading of dense counts in memory: an epoch of batches."""
    from anndata import AnnData

    return _loaded(AnnData(simulated_counts(size).toarray()))


def load_backed(size: Size) -> Measured:
    """Loading of sparse counts from an ``.h5ad`` file, then an epoch of batches."""
    import tempfile

    import anndata as ad

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        ad.AnnData(simulated_counts(size)).write_h5ad(path)
        adata = ad.read_h5ad(path, backed="r")
        measured = _loaded(adata)
        adata.file.close()
    return measured


def load_lazy(size: Size) -> Measured:
    """Loading of sparse counts from a ``.zarr`` folder by dask, then an epoch of batches."""
    import tempfile

    import anndata as ad

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.zarr"
        with warnings.catch_warnings():
            # Of what zarr and anndata will do by default in their next versions.
            warnings.simplefilter("ignore")
            ad.AnnData(simulated_counts(size)).write_zarr(path)
        return _loaded(ad.experimental.read_lazy(path))


def _loaded(adata: AnnData) -> Measured:
    from scdiffaug.data import read_matrix
    from scdiffaug.neighbors import NeighborWalks
    from scdiffaug.pairs import PairBatches
    from scdiffaug.repulsion import Repulsion

    n, k = adata.n_obs, min(15, adata.n_obs - 1)
    # Neighbours along a ring, as the cost of a neighbour search is no part of loading.
    walks = NeighborWalks((np.arange(n)[:, None] + 1 + np.arange(k)) % n)

    def load() -> None:
        batches = PairBatches(
            x=read_matrix(adata, None),
            inputs=np.zeros((n, 50), np.float32),
            walks=walks,
            neighbor_weights=np.full((n, k), 1 / k, np.float32),
            repulsion=Repulsion(np.zeros(n, np.int64), np.array([n]), np.ones((1, 1), np.float32)),
            places=np.zeros((n, 2), np.float32),
            covariates=np.zeros(n, np.int64),
            batch_size=512,
            rng=np.random.default_rng(0),
        )
        for _ in batches:
            pass

    return {"cells_per_second": n / _timed(load)}


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


GAUGES: Mapping[str, Callable[[Size], Measured]] = {
    gauge.__name__: gauge
    for gauge in (
        matrix_product,
        train_scdiffaug,
        train_scvi,
        sample_scdiffaug,
        sample_scvi,
        load_csr,
        load_dense,
        load_backed,
        load_lazy,
    )
}


def main(folder: Path) -> None:
    """Run the job of a folder."""
    job = json.loads((folder / "job.json").read_text())
    size = Size(**{**job["size"], "steps": tuple(job["size"]["steps"])})
    measured = GAUGES[job["gauge"]](size)
    measured["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    (folder / "measured.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
