"""Files that the augmentation benchmark writes: ``results.csv``, ``summary.md``, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scdiffaug import pl
from scdiffaug._colours import OKABE_ITO
from scdiffaug._drawing import draw_agreement
from scdiffaug._results import IDEAL, IDEAL_BY_TABLE, REFERENCES, Along, along
from scdiffaug.benchmark import pages
from scdiffaug.benchmark._augmentation.overview import overview
from scdiffaug.benchmark._augmentation.quality import Picture
from scdiffaug.benchmark.inputs import Dataset, describe
from scdiffaug.benchmark.methods import GENERATORS

FIDELITY = ("distribution", "genes and libraries", "types kept")
Drawing = Callable[[Axes, Picture, Picture], None]
_TITLES = {"in_sample": "In sample", "held_out": "Held out"}
_ON_CURVES = (
    "two_sample_auc",
    "mmd",
    "type_kept_neighbors",
    "nearest_training_distance_ratio",
)
_HOW_TO_READ = """\
- **In sample**: makers know all cells and make one per cell; compared to all of them. **Held \
out**: makers know half of the cells and make one for each of the other half; compared to that \
half.
- `real` is the floor: the two real halves against each other. In sample it has half as many \
cells as the methods, and the two-sample AUC and the Wasserstein distance move with that number. \
Its `own_source_share` is of held-out cells, one drawn from the 15 nearest to each training cell.
- Halves and made cells have the same number of each type as what they are compared to; with few \
cells such a balance puts a perfect two-sample AUC a little below 0.5.
- Bold: the best of a column, and all that are at the floor or nearer to the ideal. What copies \
its source is nearer still: read the novelty table beside it. `zero_share` should be that of \
`real`; an AUC below 0.5 is as telling as one above.
- `scdiffaug`, the Poisson peers and scVI take no more from a source than where it lies and how \
many reads it has. `duplicate`, `gaussian`, `mask`, `mixup` and strengths below 1 keep values of \
the source itself, which held out is one of the cells they are compared to. `smote` alone is \
shown the types of the cells it knows, and takes nothing but the type from a source.
- Use: every type is filled to 100 cells by the method; `none` is the labelled cells alone, \
`self_training` lets the classifier label the other training cells, from which the makers learn \
too (scikit-learn's, threshold 0.75), `real` further real training cells with their labels, as \
far as there are, a ceiling.
- `scdiffaug_grouped` and `scdiffaug_consistent` are told the types of the cells that they start \
from, in use those of the labelled cells alone, as a user would tell them by `groupby`: \
neighbours are then of the type of the source. The latter (`keep="consistent"`) also draws again \
what is nearer to another type; with `_0.8`, `strength=0.8`.
- Counts are compared as log1p of 10,000 counts per cell, raw intensities by arcsinh.
- `gaussian`, `mixup` and `smote` make log-normalised values of counts, which have no depth.
- Seconds and memory are those of a process: both trainings, and all draws of all its methods."""


def write(
    out: Path,
    results: pd.DataFrame,
    datasets: Sequence[Dataset],
    *,
    pictures: Mapping[tuple[str, str], Picture],
    command: str,
) -> None:
    """Write tables and pictures into a folder.

    Parameters
    ----------
    out
        Folder, created if it is missing.
    results
        Long table, one row per score.
    datasets
        Datasets from which cells were made.
    pictures
        What is drawn, by dataset and method, with ``real`` as one of the methods.
    command
        Command line that makes the same files.
    """
    pages.write(out, results, summary=summary(results, datasets, command=command))
    for dataset in datasets:
        own = {method: each for (name, method), each in pictures.items() if name == dataset.name}
        for name, figure in _figures(own).items():
            pages.save(figure, out / f"{dataset.name}_{name}.png")
    for setting in ("steps", "strength"):
        if curves := curves_figure(results, setting):
            pages.save(curves, out / f"quality_by_{setting}.png")


def summary(results: pd.DataFrame, datasets: Sequence[Dataset], *, command: str) -> str:
    """Tables in Markdown: all datasets together, then fidelity, types, novelty and use of each."""
    parts = [
        "# Augmentation benchmark",
        f"Made by `{command}` on {pages.hardware()}. Means over {pages.n_seeds(results)}, ± their "
        "standard deviation.",
        pages.markdown(describe(list(datasets))),
        _HOW_TO_READ,
        *overview(results),
    ]
    for name, of_dataset in results.groupby("dataset", sort=False):
        parts += [f"## {name}", *_dataset_tables(of_dataset)]
    if "versions" in results and (results["versions"].fillna("") != "").any():
        parts += ["## Versions", pages.versions(results)]
    return pages.joined([*parts, *pages.failures(results)])


def _dataset_tables(results: pd.DataFrame) -> list[str]:
    parts = []
    for setting, title in _TITLES.items():
        for name in FIDELITY:
            parts += _titled(f"{title}: {name}", _table(results, setting, name))
    parts += _titled("Types kept, one by one (held out, neighbours)", _type_table(results))
    parts += _titled("Novelty and privacy", _table(results, "novelty", "novelty"))
    title = "Use: macro-F1 with 5, 10, 25, 50 labelled cells per type"
    parts += _titled(title, _table(results, "use", "use"))
    return [*parts, *_titled("Cost", _cost_table(results))]


def _table(results: pd.DataFrame, setting: str, name: str) -> pd.DataFrame:
    return method_table(results, setting, list(IDEAL_BY_TABLE[name]))


def _titled(title: str, table: pd.DataFrame) -> list[str]:
    return [] if table.empty else [f"### {title}", pages.markdown(table.reset_index())]


def method_table(results: pd.DataFrame, setting: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Methods in rows, real cells first, metrics in columns, as text with the best in bold.

    Parameters
    ----------
    results
        Rows of one dataset.
    setting, metrics
        Scores to show.
    """
    chosen = results[(results["setting"] == setting) & (results["type"] == "")]
    chosen = chosen[chosen["metric"].isin(metrics)]
    groups = chosen.groupby(["method", "metric"], sort=False)["value"]
    values, spread = groups.mean().unstack(), groups.std().unstack()
    rows = [name for name in (*REFERENCES, *GENERATORS) if name in values.index]
    table = pd.DataFrame(index=pd.Index(rows, name="method"))
    for metric in (each for each in metrics if each in values):
        text = values[metric].map("{:.3g}".format)
        text += spread[metric].map(lambda std: "" if np.isnan(std) else f" ± {std:.2g}")
        bold = best(values[metric], metric)
        text = text.where(~bold, "**" + text + "**").where(values[metric].notna(), "–")
        table[metric] = text
    return table


def best(values: pd.Series, metric: str) -> pd.Series:
    """Which methods are the nearest to the ideal, or at least as near as real cells."""
    ideal = IDEAL[metric]
    costs = (values - (values["real"] if ideal is None else ideal)).abs()
    methods = costs.drop("real")
    # In the setting "use", real cells are a ceiling and not a floor.
    reached = -np.inf if metric.startswith("macro_f1") else costs["real"]
    wins = methods <= max(methods.min(), reached)
    return wins.reindex(values.index, fill_value=False)


def _type_table(results: pd.DataFrame) -> pd.DataFrame:
    chosen = results[
        (results["setting"] == "held_out")
        & (results["metric"] == "type_kept_neighbors")
        & (results["type"] != "")
    ]
    table = chosen.pivot_table(index="type", columns="method", values="value")
    columns = ["real", *(n for n, each in GENERATORS.items() if not each.is_variant)]
    return table[[name for name in columns if name in table]].round(3)


def _cost_table(results: pd.DataFrame) -> pd.DataFrame:
    known = results.dropna(subset=["seconds"])
    runs = known.groupby(["method", "seed"], sort=False)[["seconds", "peak_mb"]].first()
    return runs.groupby("method", sort=False).mean().round(1)


def _figures(pictures: Mapping[str, Picture]) -> dict[str, Figure]:
    if "real" not in pictures:
        return {}
    real = pictures["real"]
    made = {name: each for name, each in pictures.items() if name != "real"}
    with_depth = {name: each for name, each in made.items() if each.depths is not None}
    figures = {
        "cells": _panels(real, made, _draw_cells),
        "gene_means": _panels(real, made, _means),
    }
    if real.depths is not None and with_depth:
        figures["depth"] = _panels(real, with_depth, _draw_depths)
    return {name: figure for name, figure in figures.items() if made}


def _panels(real: Picture, made: Mapping[str, Picture], draw: Drawing) -> Figure:
    n_columns = min(max(len(made), 1), 5)
    n_rows = -(-max(len(made), 1) // n_columns)
    figure = Figure(figsize=(2.4 * n_columns, 2.4 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for ax, (name, each) in zip(axes, made.items(), strict=False):
        draw(ax, real, each)
        ax.set_title(name, fontsize=8)
        ax.tick_params(labelsize=6)
    for ax in axes[len(made) :]:
        ax.set_axis_off()
    return figure


def _draw_cells(ax: Axes, real: Picture, made: Picture) -> None:
    for each, color in ((real, "0.6"), (made, "C1")):
        x, y = each.points.T
        ax.scatter(x, y, s=2, lw=0, c=color, alpha=0.6, rasterized=True)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel("PC 1: real grey, made orange", fontsize=6)
    ax.set_ylabel("PC 2", fontsize=6)


def _means(ax: Axes, real: Picture, made: Picture) -> None:
    draw_agreement(ax, real.gene_means, made.gene_means, color=OKABE_ITO[0], size=2)
    ax.set_xlabel("mean of real", fontsize=6)
    ax.set_ylabel("mean of made", fontsize=6)


def _draw_depths(ax: Axes, real: Picture, made: Picture) -> None:
    assert real.depths is not None
    assert made.depths is not None
    # Depths differ by orders of magnitude: bins are equally wide on the axis of logarithms.
    known = np.log10(np.maximum(np.concatenate([real.depths, made.depths]), 1))
    bins = (10 ** np.histogram_bin_edges(known, 40)).tolist()
    ax.hist(real.depths, bins, color="0.7")
    ax.hist(made.depths, bins, color="C1", histtype="step")
    ax.set_xscale("log")
    ax.set_xlabel("counts per cell: real grey, made orange", fontsize=6)
    ax.set_yticks([])


def curves_figure(results: pd.DataFrame, setting: Along) -> Figure | None:
    """Quality of ours against ``"steps"`` or ``"strength"``; None if only one value was run."""
    rows = along(results, setting)
    metrics = [name for name in _ON_CURVES if name in set(rows["metric"])]
    if rows["at"].nunique() < 2 or not metrics:
        return None
    figure = Figure(figsize=(4 * len(metrics), 3), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    pl.benchmark_quality(results, along=setting, metrics=metrics, ax=axes, show=False)
    return figure
