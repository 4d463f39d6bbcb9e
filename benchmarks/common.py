"""What the scripts of this folder share: the datasets, one process per run, result tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DATA = Path(os.environ.get("SCDIFFAUG_DATA_DIR", HERE.parents[1] / "shared" / "data"))


def load(name: str, *, min_cells: int = 1) -> ad.AnnData:
    """A dataset without the types of fewer than ``min_cells`` cells, which folds cannot hold."""
    adata = ad.read_h5ad(DATA / f"{name}.h5ad")
    sizes = adata.obs["cell_type"].value_counts()
    kept = adata[adata.obs["cell_type"].isin(sizes.index[sizes >= min_cells])].copy()
    kept.obs["cell_type"] = kept.obs["cell_type"].astype(str)
    if kept.n_obs < adata.n_obs:
        print(
            f"{name}: {(sizes < min_cells).sum()} types of fewer than {min_cells} cells left out"
        )
    return kept


def in_own_process(script: str, *arguments: str) -> dict[str, Any]:
    """Run ``python script arguments`` and read the JSON of its last line.

    One process a run: torch, numba and joblib workers in one process have stalled each other,
    and peak memory is then the run's own.
    """
    command = [sys.executable, str(HERE / script), *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def scvi_told_batches(cells: ad.AnnData, seed: int) -> Any:
    """scVI of all cells, which get its setup, with its authors' settings for integration."""
    from scvi import settings
    from scvi.model import SCVI

    settings.seed = seed
    SCVI.setup_anndata(cells, batch_key="batch")
    model = SCVI(cells, n_latent=30, n_layers=2, gene_likelihood="nb")
    model.train(train_size=1.0, accelerator="cpu", enable_progress_bar=False)
    return model


def write_means(rows: list[dict[str, Any]], name: str, *, by: list[str], **said: str) -> None:
    """Write the means of rows that are alike in some columns, over seeds; else as a table."""
    means = pd.DataFrame(rows).groupby(by, sort=False).mean().round(2).reset_index()
    write_table(means.to_dict("records"), name, **said)


def write_table(rows: list[dict[str, Any]], name: str, *, title: str, command: str) -> None:
    """Write rows as CSV and as a Markdown table that says how it was made."""
    RESULTS.mkdir(exist_ok=True)
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / f"{name}.csv", index=False)
    cells = table.astype(str)
    lines = [
        f"# {title}",
        "",
        f"Made by `{command}`.",
        "",
        *(f"| {' | '.join(row)} |" for row in [cells.columns, ["---"] * len(cells.columns)]),
        *(f"| {' | '.join(row)} |" for row in cells.to_numpy()),
    ]
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
