"""Files that an embedding benchmark writes: ``results.csv``, ``summary.md``, two pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scdiffaug import pl
from scdiffaug._colours import palette_of
from scdiffaug.benchmark import pages
from scdiffaug.benchmark.inputs import Dataset, describe
from scdiffaug.benchmark.margins import (
    bootstrap_margin,
    margins,
    mean_scores,
    of_metric,
)
from scdiffaug.benchmark.methods import ENCODER_ALONE, METHODS, OURS, as_words
from scdiffaug.benchmark.pages import interval, markdown

_WORDS = {"2d": "2-D", "80d": "80-d"}
HEADLINE = {"linear_svm_accuracy": "Linear SVM accuracy", "kmeans_accuracy": "k-means accuracy"}


@dataclass(frozen=True)
class Panel:
    """One score of one embedding, as the studies of α draw it."""

    metric: str
    representation: str
    title: str


PANELS = (
    Panel("linear_svm_accuracy", "2d", "linear SVM, 2-D"),
    Panel("kmeans_accuracy", "2d", "k-means, 2-D"),
    Panel("linear_svm_accuracy", "80d", "linear SVM, 80-d"),
    Panel("kmeans_accuracy", "80d", "k-means, 80-d"),
)
Pictures = Mapping[tuple[str, str], NDArray[np.floating[Any]]]


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a report says besides its numbers.

    Parameters
    ----------
    title, command
        Heading of the report, and the command that makes it.
    notes
        Paragraphs under the heading.
    names
        Names of methods in tables and pictures, in this order; by default the registry's.
    representations
        Embeddings that have tables of their own.
    picture
        Name of the file that shows the embeddings.
    """

    title: str
    command: str
    notes: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=lambda: {name: name for name in METHODS})
    representations: tuple[str, ...] = ("2d",)
    picture: str = "embeddings.png"


def write(
    out: Path,
    results: pd.DataFrame,
    datasets: Sequence[Dataset],
    *,
    pictures: Pictures,
    page: Page,
) -> None:
    """Write the four files of a benchmark into a folder.

    Parameters
    ----------
    out
        Folder, created if it is missing.
    results
        Long table, one row per score.
    datasets
        Datasets that were embedded.
    pictures
        2-D embedding of each dataset and method.
    page
        What the report says besides its numbers.
    """
    pages.write(out, results, summary=summary(results, datasets, page=page))
    figure = embeddings_figure(pictures, datasets, names=page.names)
    pages.save(figure, out / page.picture)
    pages.save(ranks_figure(results, names=page.names), out / "ranks.png")


def summary(results: pd.DataFrame, datasets: Sequence[Dataset], *, page: Page) -> str:
    """The tables in Markdown: headline scores and margins, then all metrics and failures."""
    parts = [
        f"# {page.title}",
        f"Made by `{page.command}` on {pages.hardware()}. Means over {pages.n_seeds(results)}; "
        "the best of a row is bold.",
        *page.notes,
        markdown(describe(list(datasets))),
    ]
    return pages.joined([*parts, *tables(results, page=page)])


def tables(results: pd.DataFrame, *, page: Page) -> list[str]:
    """The part of the summary that follows from the results alone."""
    parts = []
    for metric, representation in product(_headline_metrics(results), page.representations):
        parts += [f"## {HEADLINE[metric]}, {_WORDS[representation]} (%)"]
        parts += [score_table(results, metric, representation=representation, names=page.names)]
        parts += _margins(results, metric) if representation == "2d" else []
    if results["value"].notna().any():
        parts += ["## All metrics, mean over datasets", _all_metrics(results)]
        parts += _other_settings(results)
        parts += ["## Versions", pages.versions(results)]
    return [*parts, *pages.failures(results)]


def _headline_metrics(results: pd.DataFrame) -> list[str]:
    return [metric for metric in HEADLINE if metric in set(results["metric"])]


def score_table(
    results: pd.DataFrame,
    metric: str,
    *,
    representation: str = "2d",
    names: Mapping[str, str],
) -> str:
    """Datasets in rows and methods in columns: mean ± deviation over seeds, the best in bold.

    A method that lacks a dataset has no mean, as it could not be compared with the others.
    """
    scores = mean_scores(results, metric, representation=representation)
    spread = of_metric(results, metric, representation=representation).pivot_table(
        index="dataset", columns="method", values="value", aggfunc="std"
    )
    spread = 100 * spread.reindex_like(scores)
    best = scores.eq(scores.max(axis=1), axis=0)
    # Of one run there is no deviation.
    text = scores.map("{:.1f}".format) + spread.map(" ± {:.1f}".format).where(spread.notna(), "")
    text = text.where(~best, "**" + text + "**").where(scores.notna(), "–")
    means = scores.mean(skipna=False)
    text.loc["mean"] = means.map("{:.1f}".format).where(means.notna(), "–")
    columns = [name for name in names if name in text]
    return markdown(text[columns].rename(columns=names).rename_axis("dataset").reset_index())


def _margins(results: pd.DataFrame, metric: str) -> list[str]:
    """Over the best peer of each dataset: of the whole model, and of the encoder alone."""
    return [part for ours in (OURS, ENCODER_ALONE) for part in _margin(results, metric, ours)]


def _margin(results: pd.DataFrame, metric: str, ours: str) -> list[str]:
    scores = mean_scores(results, metric)
    peers = [name for name in scores if not METHODS[name].is_ours]
    if ours not in scores or not peers:
        return []
    table = margins(scores, ours, peers).dropna()
    if table.empty:
        return []
    low, high = bootstrap_margin(results, metric, ours=ours, best_peer=table["best_peer"])
    verdict = (
        f"Margin of {ours} over the best peer of each dataset: mean "
        f"{table['margin'].mean():+.1f} points (95% interval {interval(low, high)}"
        f"{', over seeds alone' if len(table) == 1 else ''}), "
        f"worst {table['margin'].min():+.1f} ({table['margin'].idxmin()})."
    )
    return [verdict, markdown(table.round(1).rename_axis("dataset").reset_index())]


def _all_metrics(results: pd.DataFrame) -> str:
    scored = results[results["value"].notna()].copy()
    scored["method"] = scored["method"] + " " + scored["representation"]
    # Datasets may differ in their number of seeds, but each counts the same.
    each = scored.pivot_table(index=["method", "dataset"], columns="metric", values="value")
    runs = scored.groupby(["method", "dataset", "seed"])[["seconds", "peak_mb"]].first()
    each = each.join(runs.groupby(["method", "dataset"]).mean())
    table = each.groupby("method").mean()
    n_datasets = scored.groupby("method")["dataset"].nunique().rename("datasets")
    text = table.round(3).assign(
        seconds=table["seconds"].map("{:.1f}".format),
        peak_mb=table["peak_mb"].map("{:.0f}".format),
    )
    return markdown(text.join(n_datasets).reset_index())


def _other_settings(results: pd.DataFrame) -> list[str]:
    """Settings of each dataset that are not the method's row in the registry, as tuning chose."""
    settings = results["settings"].fillna("")
    chosen = settings.groupby([results["dataset"], results["method"]]).first().unstack()
    usual = pd.Series({name: as_words(METHODS[name].settings) for name in chosen})
    others = chosen.where(chosen.ne(usual) & chosen.notna(), "")
    others = others.loc[:, others.ne("").any()]
    if others.empty:
        return []
    return ["## Settings other than defaults", markdown(others.reset_index())]


def embeddings_figure(
    pictures: Pictures,
    datasets: Sequence[Dataset],
    *,
    names: Mapping[str, str],
    behind: Pictures = MappingProxyType({}),
) -> Figure:
    """Methods in columns, datasets in rows, one colour per type; cells ``behind`` are grey."""
    methods = [name for name in names if any(name == method for _, method in pictures)]
    shape = (len(datasets), max(len(methods), 1))
    figure = Figure(figsize=(2 * shape[1], 2 * shape[0]), layout="constrained")
    axes = figure.subplots(*shape, squeeze=False)
    for row, dataset in zip(axes, datasets, strict=True):
        types, codes = np.unique(dataset.labels, return_inverse=True)
        palette = palette_of(len(types))
        colours = [palette[code % len(palette)] for code in codes]
        row[0].set_ylabel(dataset.name, fontsize=6)
        for ax, method in zip(row, methods, strict=False):
            ax.set(xticks=[], yticks=[])
            style: Any = {"s": _marker_size(len(codes)), "lw": 0, "rasterized": True}
            if (dataset.name, method) in behind:
                ax.scatter(*behind[dataset.name, method].T, c="0.8", **style)
            points = pictures.get((dataset.name, method))
            if points is not None:
                ax.scatter(*points.T, c=colours, **style)
    for ax, method in zip(axes[0], methods, strict=False):
        ax.set_title(names[method], fontsize=8)
    return figure


def _marker_size(n_cells: int) -> float:
    return float(np.clip(3_000 / n_cells, 1, 12))


def ranks_figure(results: pd.DataFrame, *, names: Mapping[str, str]) -> Figure:
    """Rank of every method on every dataset by each headline metric."""
    metrics = _headline_metrics(results)
    n_methods = results["method"].nunique()
    size = (4.5 * max(len(metrics), 1), 1.2 + 0.28 * n_methods)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, max(len(metrics), 1), squeeze=False)[0]
    for ax, metric in zip(axes, metrics, strict=False):
        pl.benchmark_ranks(results, metric=metric, ax=ax, show=False)
        ax.set_yticklabels([names[label.get_text()] for label in ax.get_yticklabels()])
        ax.set_title(HEADLINE[metric])
    return figure
