"""What ``scdiffaug demo`` does: train on blood cells, embed them, make new ones, score, draw."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from scdiffaug import datasets, metrics, pl, tl
from scdiffaug.model import scDiffAug
from scdiffaug.storage import write_whole

# Half of the default budget, which leaves the demo well under a minute on two cores.
_MAX_EPOCHS = 200
# Types with fewer cells cannot be in each of the ten folds of the linear SVM.
_FEWEST_CELLS = 10
_EMBEDDINGS = {
    "scDiffAug 2-D": "X_scdiffaug_2d",
    "scDiffAug 80-D": "X_scdiffaug",
    "PCA 2-D": "X_pca",
    "UMAP 2-D": "X_umap",
}
# Okabe and Ito's, with a second shade for relatives, so that lineages can be told at a glance.
_COLOURS = {
    "CD4+/CD25 T Reg": "#0072B2",
    "CD4+/CD45RA+/CD25- Naive T": "#7B8FD4",
    "CD4+/CD45RO+ Memory": "#56B4E9",
    "CD8+ Cytotoxic T": "#009E73",
    "CD8+/CD45RA+ Naive Cytotoxic": "#8CCFA8",
    "CD56+ NK": "#D6C400",
    "CD19+ B": "#CC79A7",
    "CD14+ Monocyte": "#D55E00",
    "Dendritic": "#E69F00",
    "CD34+": "#000000",
}
_PANELS = {"scDiffAug": "X_scdiffaug_2d", "PCA": "X_pca", "UMAP": "X_umap"}


def run(out: Path, *, seed: int) -> None:
    """Run the demonstration.

    Parameters
    ----------
    out
        Folder for ``pbmc68k_scdiffaug.h5ad``, ``augmented.h5ad``, ``overview.png`` and
        ``scores.csv``; created if it is missing. Each file appears whole or not at all.
    seed
        Seed of everything random.
    """
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    adata, new, model = _learn(console, seed=seed)
    console.print("Comparing with PCA and UMAP.")
    _add_peers(adata, seed=seed)
    files: dict[str, Callable[[Path], object]] = {
        "overview.png": partial(_overview(adata, new, model).savefig, dpi=200),
        "scores.csv": _report(console, adata, new, seed=seed).to_csv,
        "pbmc68k_scdiffaug.h5ad": adata.write_h5ad,
        "augmented.h5ad": new.write_h5ad,
    }
    for name, write in files.items():
        write_whole(out / name, write)
        console.print(f"Wrote {out / name}", soft_wrap=True, highlight=False)


def _learn(console: Console, *, seed: int) -> tuple[AnnData, AnnData, scDiffAug]:
    """Real cells and new ones, both embedded, and the model that did it."""
    adata = datasets.pbmc68k_reduced()
    types = adata.obs["cell_type"].cat.categories
    adata.uns["cell_type_colors"] = [_COLOURS[name] for name in types]
    console.print(
        f"Training on {adata.n_obs} blood cells x {adata.n_vars} genes for {_MAX_EPOCHS} epochs."
    )
    model = scDiffAug(adata, seed=seed)
    model.train(_MAX_EPOCHS)
    new = tl.augment(adata, model)
    for cells in (adata, new):
        tl.embed(cells, model)
    return adata, new, model


def _add_peers(adata: AnnData, *, seed: int) -> None:
    """Add log-normalised values, PCA and UMAP as scanpy makes them by default."""
    cells = AnnData(adata.X.copy(), obs=adata.obs[[]])
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.pca(cells, random_state=seed)
    sc.pp.neighbors(cells, random_state=seed)
    sc.tl.umap(cells, random_state=seed)
    adata.layers["log1p_norm"] = cells.X
    for key in ("X_pca", "X_umap"):
        adata.obsm[key] = cells.obsm[key]


def _report(console: Console, adata: AnnData, new: AnnData, *, seed: int) -> pd.DataFrame:
    """Print the scores and return them as one table."""
    n_cells = adata.obs["cell_type"].value_counts()
    common = n_cells.index[n_cells >= _FEWEST_CELLS]
    adata, new = (cells[cells.obs["cell_type"].isin(common)] for cells in (adata, new))
    embeddings = _score_embeddings(adata, seed=seed)
    augmented = _score_augmentation(adata, new, seed=seed)
    console.print(_table("Embeddings against cell types", embeddings, "{:.1%}"))
    console.print(_table("New cells against those they learned from", augmented.T, "{:.3f}"))
    for name in n_cells.index.difference(common):
        console.print(f"Left out of the scores: {name}, for it has only {n_cells[name]} cells.")
    return pd.concat([embeddings, augmented]).rename_axis("scored").round(4)


def _score_embeddings(adata: AnnData, *, seed: int) -> pd.DataFrame:
    labels = adata.obs["cell_type"].to_numpy(str)
    scores = {}
    for name, key in _EMBEDDINGS.items():
        points = adata.obsm[key][:, :2] if name.endswith(" 2-D") else adata.obsm[key]
        scores[name] = {
            "linear SVM accuracy": metrics.linear_svm_accuracy(points, labels, seed=seed),
            "k-means accuracy": metrics.kmeans_accuracy(points, labels, seed=seed),
        }
    return pd.DataFrame.from_dict(scores, orient="index")


def _score_augmentation(adata: AnnData, new: AnnData, *, seed: int) -> pd.DataFrame:
    real, made = adata.layers["log1p_norm"], new.layers["log1p_norm"]
    labels, expected = (cells.obs["cell_type"].to_numpy(str) for cells in (adata, new))
    scores = {
        "two-sample AUC (0.5 is best, below is memory)": metrics.two_sample_auc(
            real, made, seed=seed
        ),
        "type kept": metrics.type_kept(real, labels, made, expected=expected, seed=seed),
        "zeros real": metrics.zero_share(real),
        "zeros made": metrics.zero_share(made),
        "gene mean correlation": metrics.gene_mean_correlation(real, made),
    }
    return pd.DataFrame(scores, index=["augmented cells"])


def _table(title: str, scores: pd.DataFrame, form: str) -> Table:
    table = Table("", *scores.columns, title=title, title_justify="left")
    for name, row in scores.iterrows():
        table.add_row(str(name), *(form.format(score) for score in row))
    return table


def _overview(adata: AnnData, new: AnnData, model: scDiffAug) -> Figure:
    """One row: three embeddings by cell type, then real and augmented cells in ours."""
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(13.5, 3.1), layout="constrained")
        *axes, last = figure.subplots(1, len(_PANELS) + 1)
        for ax, (title, basis) in zip(axes, _PANELS.items(), strict=True):
            pl.embedding(
                adata, color="cell_type", basis=basis, ax=ax, show=False, size=9, title=title
            )
        pl.augmentation(adata, new, model=model, ax=last, color="cell_type", show=False, size=9)
        last.set_title("scDiffAug: real and augmented")
        _share_legend(figure, [*axes, last])
    return figure


def _share_legend(figure: Figure, axes: list[Axes]) -> None:
    """Put the legend of the last axes beside all of them, and take theirs away."""
    legends = [legend for ax in axes if (legend := ax.get_legend()) is not None]
    real, augmented, *types = legends[-1].legend_handles
    handles = [*types, real, augmented]
    figure.legend(handles=handles, loc="outside right center", frameon=False, handletextpad=0.2)
    for legend in legends:
        legend.remove()
