"""Embeddings of cells that a method did not learn from, beside those of its training cells."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import track

from scdiffaug._checks import check_whole
from scdiffaug.benchmark import environments, methods, pages
from scdiffaug.benchmark._embedding import report, runs
from scdiffaug.benchmark._embedding.runs import Job
from scdiffaug.benchmark.inputs import checked_paths, describe, prepare_split
from scdiffaug.benchmark.margins import paired_interval
from scdiffaug.benchmark.methods import METHODS
from scdiffaug.benchmark.pages import markdown

EMBED_NEW = (
    "scdiffaug", "pca", "umap", "pacmap", "umap_standardised", "pacmap_standardised", "pumap",
    "ivis",
)  # fmt: skip
_METRICS = {**report.HEADLINE, "knn_accuracy": "kNN accuracy"}
_HOW_TO_READ = """\
Each score is training cells → held-back cells. Variable features, scale, components and the \
embedding are fitted on the training cells alone, and labels train nothing. Training cells, \
linear SVM and kNN: mean over ten stratified folds. Held-back cells: the same classifier fitted \
on the embedding of all training cells. k-means: clusters and their matching with the types are \
those of the training cells, and a held-back cell belongs to the nearest centre. The split is \
another one for each seed."""


def transform(
    data: Sequence[str | Path],
    *,
    label_key: str = "cell_type",
    held_out: float = 0.2,
    method_names: Sequence[str] = EMBED_NEW,
    n_seeds: int = 3,
    out: str | Path = "benchmark_transform",
    max_cells: int | None = None,
    timeout: float = 3600,
    cache: str | Path | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Fit on a part of the cells, embed the others, and score these beside the training cells.

    Everything is fitted on the training cells: variable features, scale, principal components and
    the embedding. Held-back cells are classified by a linear SVM and kNN that learnt from the
    embedding of the training cells, and by k-means clusters of these, matched with the types.
    Runs are remembered as in :func:`embedding`.

    Parameters
    ----------
    data
        ``.h5ad`` files.
    label_key
        Column of obs with the types. Types that would keep fewer than ten training cells are left
        out. The split is made within each type.
    held_out
        Share of the cells to hold back, at most one half.
    method_names
        Keys of :data:`METHODS`, of methods that can embed cells not trained on.
    n_seeds
        Number of splits, and of runs of each method, with seeds 0, 1, ...
    out
        Folder of ``results.csv``, ``summary.md``, ``embeddings.png`` (training cells grey) and
        ``ranks.png`` (of the held-back cells).
    max_cells, timeout, cache, show_progress
        As in :func:`embedding`.

    Returns
    -------
    The table of :func:`embedding`; representations that end in ``_new`` are the held-back cells.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    KeyError
        If a file has no such column of labels.
    ValueError
        If a method is unknown or cannot embed such cells, or ``held_out`` is out of range.

    Examples
    --------
    >>> import scdiffaug
    >>> from scdiffaug import benchmark
    >>> scdiffaug.datasets.pbmc68k_reduced().write_h5ad("pbmc.h5ad")
    >>> results = benchmark.transform(
    ...     ["pbmc.h5ad"], method_names=["pca"], n_seeds=1, cache="cache", show_progress=False
    ... )
    >>> results["representation"].unique().tolist()
    ['2d', '2d_new', 'components', 'components_new']
    """
    methods.check(method_names, {n: each for n, each in METHODS.items() if each.embeds_new})
    check_whole("n_seeds", n_seeds)
    folder = environments.cache_folder(cache)
    options = {
        "label": label_key,
        "held-out": held_out,
        "methods": ",".join(method_names),
        "seeds": n_seeds,
        "max-cells": max_cells,
    }
    command = pages.command_line("transform", data, options)
    rows: list[dict[str, Any]] = []
    firsts: list[Job] = []
    pairs = list(product(checked_paths(data), range(n_seeds)))
    for path, seed in track(pairs, "Transform", disable=not show_progress):
        training, new = prepare_split(
            path,
            label_key=label_key,
            cache=folder,
            held_out=held_out,
            max_cells=max_cells,
            seed=seed,
        )
        jobs = [
            Job(
                dataset=training,
                name=name,
                seed=seed,
                settings={},
                cache=folder,
                timeout=timeout,
                new=new,
            )
            for name in method_names
        ]
        rows += [row for job in jobs for row in runs.rows(job, runs.run(job))]
        firsts += jobs if seed == 0 else []
        results = pd.DataFrame(rows, columns=runs.COLUMNS)
        _write(Path(out), results, firsts, command=command)
    return results


def _write(out: Path, results: pd.DataFrame, firsts: Sequence[Job], *, command: str) -> None:
    """Write the files of the results so far; ``firsts`` are the jobs of the first seed."""
    pages.write(out, results, summary=summary(results, firsts, command=command))
    found = {(job.dataset.name, job.name): runs.embeddings(job) for job in firsts}
    drawn = {key: each for key, each in found.items() if "2d_new" in each}
    names = {name: name for name in METHODS}
    figure = report.embeddings_figure(
        {key: each["2d_new"] for key, each in drawn.items()},
        list({job.dataset.name: job.new for job in firsts if job.new is not None}.values()),
        names=names,
        behind={key: each["2d"] for key, each in drawn.items()},
    )
    pages.save(figure, out / "embeddings.png")
    of_new = results[results["representation"] == "2d_new"].assign(representation="2d")
    pages.save(report.ranks_figure(of_new, names=names), out / "ranks.png")


def summary(results: pd.DataFrame, firsts: Sequence[Job], *, command: str) -> str:
    """The tables in Markdown: both scores, and the change from one to the other."""
    by_name = {job.dataset.name: job for job in firsts}
    described = describe([job.dataset for job in by_name.values()])
    described = described.rename(columns={"cells": "training cells"})
    new_labels = [job.new.labels for job in by_name.values() if job.new is not None]
    described.insert(2, "held-back cells", [len(labels) for labels in new_labels])
    parts = [
        "# Embedding cells not trained on",
        f"Made by `{command}` on {pages.hardware()}. Means over {pages.n_seeds(results)}.",
        _HOW_TO_READ,
        markdown(described),
    ]
    for metric, title in _METRICS.items():
        scores = both_scores(results, metric)
        if not scores.empty:
            parts += [f"## {title} (%)", _score_table(scores), _change_table(scores)]
    parts += ["## Versions", pages.versions(results), *pages.failures(results)]
    return pages.joined(parts)


def both_scores(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Scores in percent, columns ``training`` and ``new``, by dataset, method and seed.

    Embeddings other than the 2-D one count as separate methods, such as ``scdiffaug 80d``.
    """
    chosen = results[(results["metric"] == metric) & results["value"].notna()]
    of = chosen["representation"].str.removesuffix("_new")
    chosen = chosen.assign(
        cells=chosen["representation"].str.endswith("_new").map({True: "new", False: "training"}),
        method=chosen["method"].where(of == "2d", chosen["method"] + " " + of),
        value=100 * chosen["value"],
    )
    index = ["dataset", "method", "seed"]
    return chosen.pivot_table(index=index, columns="cells", values="value", sort=False)


def _score_table(scores: pd.DataFrame) -> str:
    means = scores.groupby(["dataset", "method"], sort=False).mean()
    text = means["training"].map("{:.1f}".format) + " → " + means["new"].map("{:.1f}".format)
    columns = means.index.unique("method")
    return markdown(text.unstack("method")[columns].fillna("–").reset_index())


def _change_table(scores: pd.DataFrame) -> str:
    """Scores of held-back minus training cells, in points, for each method."""
    rows = []
    for method, own in (scores["new"] - scores["training"]).groupby(level="method", sort=False):
        low, high = paired_interval(own)
        by_dataset = own.groupby(level="dataset").mean()
        rows.append(
            {
                "method": method,
                "datasets": len(by_dataset),
                "change, mean": f"{by_dataset.mean():+.1f}",
                "95% interval": pages.interval(low, high),
                "worst": f"{by_dataset.min():+.1f} ({by_dataset.idxmin()})",
            }
        )
    return markdown(pd.DataFrame(rows))
