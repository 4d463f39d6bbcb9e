"""What ``scdiffaug demo`` does: train on blood cells, embed them, make new ones, score, draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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

# Half of the default budget: about 30 s on two cores, which leaves the demo under a minute.
_MAX_EPOCHS = 300
# Rarer types cannot be in each of the ten folds of the linear SVM.
_FEWEST_CELLS = 10
_EMBEDDINGS = {
    "scDiffAug 2-D": "X_scdiffaug_2d",
    "scDiffAug 80-D": "X_scdiffaug",
    "PCA 2-D": "X_pca",
    "UMAP 2-D": "X_umap",
}
_PANELS = {"scDiffAug": "X_scdiffaug_2d", "PCA": "X_pca", "UMAP": "X_umap"}


def run(out: Path, *, seed: int) -> None:
    """Run the demonstration.

    Parameters
    ----------
    out
        Folder for ``pbmc68k_scdiffaug.h5ad``, ``augmented.h5ad``, ``overview.png`` and
        ``scores.csv``; made where it is missing. Each file appears whole or not at all.
    seed
        Seed of everything random.
    """
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    adata = datasets.pbmc68k_reduced()
    console.print(
        f"Training on {adata.n_obs} blood cells x {adata.n_vars} genes for {_MAX_EPOCHS} epochs."
    )
    model = scDiffAug(adata, seed=seed)
    model.train(_MAX_EPOCHS)
    tl.embed(adata, model)
    new = tl.augment(adata, model)
    tl.embed(new, model)
    console.print("Comparing with PCA and UMAP.")
    _add_peers(adata, seed=seed)
    _report(console, adata, new, out=out, seed=seed)
    figure = _overview(adata, new, model)
    with _whole(out / "overview.png") as path:
        figure.savefig(path, dpi=200)
    for name, cells in (("pbmc68k_scdiffaug.h5ad", adata), ("augmented.h5ad", new)):
        with _whole(out / name) as path:
            cells.write_h5ad(path)
    for name in ("overview.png", "pbmc68k_scdiffaug.h5ad", "augmented.h5ad", "scores.csv"):
        console.print(f"Wrote {out / name}", soft_wrap=True, highlight=False)


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


def _report(console: Console, adata: AnnData, new: AnnData, *, out: Path, seed: int) -> None:
    """Print the scores and save them."""
    n_cells = adata.obs["cell_type"].value_counts()
    common = n_cells.index[n_cells >= _FEWEST_CELLS]
    adata, new = (cells[cells.obs["cell_type"].isin(common)] for cells in (adata, new))
    embeddings = _score_embeddings(adata, seed=seed)
    augmented = _score_augmentation(adata, new, seed=seed)
    console.print(_table("Embeddings against cell types", embeddings, "{:.1%}"))
    console.print(_table("Augmented cells against the cells they learned from", augmented))
    for name in n_cells.index.difference(common):
        console.print(f"Left out of the scores: {name}, {n_cells[name]} cells, too few.")
    with _whole(out / "scores.csv") as path:
        pd.concat([embeddings, augmented]).rename_axis("scored").round(4).to_csv(path)


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
        "two-sample AUC (0.5 is perfect)": metrics.two_sample_auc(real, made, seed=seed),
        "type kept": metrics.type_kept(real, labels, made, expected=expected, seed=seed),
        "zeros real": metrics.zero_share(real),
        "zeros made": metrics.zero_share(made),
        "gene mean correlation": metrics.gene_mean_correlation(real, made),
    }
    return pd.DataFrame(scores, index=["augmented cells"])


def _table(title: str, scores: pd.DataFrame, form: str = "{:.3f}") -> Table:
    table = Table("", *scores.columns, title=title, title_justify="left")
    for name, row in scores.iterrows():
        table.add_row(str(name), *(form.format(score) for score in row))
    return table


def _overview(adata: AnnData, new: AnnData, model: scDiffAug) -> Figure:
    """One row: three embeddings by cell type, then real and augmented cells in ours."""
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10}):
        figure = Figure(figsize=(14, 3.4), layout="constrained")
        *axes, last = figure.subplots(1, len(_PANELS) + 1)
        for ax, (title, basis) in zip(axes, _PANELS.items(), strict=True):
            pl.embedding(adata, basis=basis, ax=ax, show=False, title=title)
        title = "scDiffAug, augmented cells overlaid"
        pl.augmentation(
            adata, new, model=model, color="cell_type", ax=last, show=False, title=title
        )
        _share_legend(figure, [*axes, last])
    return figure


def _share_legend(figure: Figure, axes: list[Axes]) -> None:
    """Put the legend of the last axes beside all of them, and take theirs away."""
    handles = axes[-1].get_legend().legend_handles
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    for ax in axes:
        ax.get_legend().remove()


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path to write to, renamed to the one wanted once all is written."""
    # The suffix stays at the end, since savefig chooses the format by it.
    aside = path.with_name(f".partial-{path.name}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
