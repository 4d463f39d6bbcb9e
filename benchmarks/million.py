"""Train, embed and augment cells on disk: seconds and peak memory against their number.

``python benchmarks/million.py [--folder FOLDER] [N ...]`` makes files of 10,000, 100,000 and
1,000,000 cells by 2000 genes in the folder, runs each in a process of its own, and writes
``results/million/``. A file of a million cells has 1.4 GB; that of the new cells lies beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from common import RESULTS, in_own_process, load, write_table
from scipy import sparse

SOURCE = "human_kidney_young_5685_hvg2000"
SIZES = (10_000, 100_000, 1_000_000)
COMMAND = "python benchmarks/million.py"
STAGES = ("set up", "train", "embed", "augment")


def make(n_cells: int, path: Path) -> None:
    """Real cells drawn with replacement, each keeping 70 to 100% of its reads at random."""
    from scdiffaug.block_files import write_blocks

    real, rng = load(SOURCE), np.random.default_rng(0)
    drawn = rng.integers(real.n_obs, size=n_cells)
    names = [f"cell{place}" for place in range(n_cells)]
    obs = pd.DataFrame({"cell_type": real.obs["cell_type"].to_numpy()[drawn]}, index=names)
    obs["cell_type"] = obs["cell_type"].astype("category")
    parts = np.array_split(drawn, max(1, n_cells // 10_000))
    blocks = (AnnData(_thinned(real.X[part], rng), var=real.var[[]]) for part in parts)
    write_blocks(path, blocks, obs=obs, uns={})


def _thinned(x: sparse.csr_matrix, rng: np.random.Generator) -> sparse.csr_matrix:
    thin, shares = x.copy(), rng.uniform(0.7, 1.0, size=x.shape[0])
    kept = rng.binomial(x.data.astype(int), np.repeat(shares, np.diff(x.indptr)))
    thin.data = kept.astype(np.float32)
    empty = np.asarray(thin.sum(1)).ravel() == 0
    thin.data = np.where(np.repeat(empty, np.diff(x.indptr)), x.data, thin.data)
    thin.eliminate_zeros()
    return thin


def measure(path: Path) -> dict[str, Any]:
    """Seconds of each stage, and the peak of this process's memory when it ends."""
    import scdiffaug

    adata = ad.read_h5ad(path, backed="r")
    new = path.with_suffix(".new.h5ad")
    new.unlink(missing_ok=True)
    stored: Any = adata.X
    found: dict[str, Any] = {
        "cells": adata.n_obs,
        "density": round(len(stored.group["data"]) / adata.n_obs / adata.n_vars, 4),
        "matrix in memory (MB)": round(8 * len(stored.group["data"]) / 1e6),
    }
    models = []
    stages: dict[str, Callable[[], object]] = {
        "set up": lambda: models.append(scdiffaug.scDiffAug(adata)),
        "train": lambda: models[0].train(enable_progress_bar=False),
        "embed": lambda: scdiffaug.tl.embed(adata, models[0]),
        "augment": lambda: scdiffaug.tl.augment(adata, models[0], path=new),
    }
    for stage, run in stages.items():
        start = time.perf_counter()
        run()
        found[f"{stage} (s)"] = round(time.perf_counter() - start, 1)
        found[f"peak after {stage} (MB)"] = _peak()
        print(json.dumps(found), flush=True)
    new.unlink()
    return found


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds of the stages, and peak memory beside what the matrix would take."""
    table = pd.DataFrame(rows).sort_values("cells")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for stage in STAGES:
        left.loglog(table["cells"], table[f"{stage} (s)"], marker="o", label=stage)
    left.set(xlabel="cells", ylabel="seconds")
    peak, matrix = table["peak after augment (MB)"] / 1e3, table["matrix in memory (MB)"] / 1e3
    right.semilogx(table["cells"], peak, marker="o", label="peak of the whole run")
    right.semilogx(table["cells"], matrix, marker="o", label="the matrix alone, CSR")
    right.axhline(6, color="0.6", linestyle="--", label="6 GB")
    right.set(xlabel="cells", ylabel="GB", ylim=(0, 8))
    left.legend(frameon=False, loc="lower right")
    right.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Make what is missing, measure, and write table and picture of all that was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--folder", type=Path, default=Path("million"))
    parser.add_argument("--make", type=int)
    parser.add_argument("--measure", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.make:
        make(asked.make, asked.folder / f"{asked.make}.h5ad")
        print("{}")
        return
    if asked.measure:
        print(json.dumps(measure(asked.measure)))
        return
    out = RESULTS / "million"
    out.mkdir(parents=True, exist_ok=True)
    known = out / "million.csv"
    rows = pd.read_csv(known).to_dict("records") if known.exists() else []
    for n_cells in asked.sizes:
        path = asked.folder / f"{n_cells}.h5ad"
        if not path.exists():
            in_own_process("million.py", "--folder", str(asked.folder), "--make", str(n_cells))
        found = in_own_process("million.py", "--measure", str(path))
        print(found, flush=True)
        rows = [row for row in rows if row["cells"] != n_cells] + [found]
        title = "Cells on disk, trained on, embedded and augmented by as many"
        write_table(rows, "million/million", title=title, command=COMMAND)
        draw(rows, out / "million.png")


if __name__ == "__main__":
    main()
