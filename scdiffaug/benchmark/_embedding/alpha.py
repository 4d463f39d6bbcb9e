"""Does diffusion help? The default α against α = 0, on all cells and on a part of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from rich.progress import track

from scdiffaug._checks import check_number, check_whole
from scdiffaug.benchmark import environments, pages
from scdiffaug.benchmark._embedding import runs
from scdiffaug.benchmark._embedding.report import PANELS, Panel
from scdiffaug.benchmark._embedding.study import Plan
from scdiffaug.benchmark.inputs import checked_paths, of_file, prepare_cells
from scdiffaug.benchmark.margins import of_metric, paired_interval
from scdiffaug.benchmark.methods import OURS
from scdiffaug.block_files import read_cells

logger = logging.getLogger("scdiffaug")

_WITHOUT = "scdiffaug_alpha0"
# Scores of the tables of differences that are not drawn.
_BESIDE = (
    Panel("knn_accuracy", "2d", "kNN, 2-D"),
    Panel("silhouette", "2d", "silhouette, 2-D"),
)
_DRAWN = (
    *PANELS,
    Panel("knn_accuracy", "80d", "kNN, 80-d"),
    Panel("silhouette", "80d", "silhouette, 80-d"),
)
_HOW_TO_READ = """\
Differences are default α less α = 0, in points, paired by dataset and seed: both runs have the \
same cells, initial weights and training up to the first generated positive. Of a share below 1 \
each seed draws cells of its own. Intervals are of a bootstrap over datasets and, within these, \
seeds."""


def alpha(
    data: Sequence[str | Path],
    *,
    label_key: str = "cell_type",
    shares: Sequence[float] = (1.0, 0.1),
    n_seeds: int = 5,
    out: str | Path = "benchmark_alpha",
    max_cells_svm: int | None = None,
    max_epochs: int | None = None,
    timeout: float = 3600,
    cache: str | Path | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Train with and without generated positives, and score the paired differences.

    Parameters
    ----------
    data
        ``.h5ad`` files.
    label_key
        Column of obs with the types, which are used in scores but not in training. Types with
        fewer than ten cells are left out.
    shares
        Shares of the cells to train on, drawn at random, whatever their types.
    n_seeds
        Number of pairs of runs, with seeds 0, 1, ...
    out
        Folder of ``results.csv``, ``summary.md`` and ``differences.png``.
    max_epochs
        Number of epochs; the model's own by default.
    max_cells_svm, timeout, cache, show_progress
        As in :func:`embedding`.

    Returns
    -------
    The table of :func:`embedding` with the column ``share``; its methods are ``scdiffaug`` and
    ``scdiffaug_alpha0``.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    KeyError
        If a file has no such column of labels.
    ValueError
        If a share is not above 0 and at most 1.

    Examples
    --------
    >>> from scdiffaug import benchmark
    >>> results = benchmark.alpha(["cells.h5ad"], shares=[0.1])  # doctest: +SKIP
    >>> benchmark.alpha(["cells.h5ad"], shares=[10])
    Traceback (most recent call last):
        ...
    ValueError: shares=10 must be above 0 and at most 1.
    """
    for share in shares:
        check_number("shares", share, above=0, at_most=1)
    if not shares:
        raise ValueError("shares is empty: name some shares of the cells, as in [0.1, 1].")
    check_whole("n_seeds", n_seeds)
    plan = Plan(
        n_seeds=n_seeds,
        cache=environments.cache_folder(cache),
        timeout=timeout,
        max_cells_svm=max_cells_svm,
        max_epochs=max_epochs,
        show_progress=show_progress,
    )
    options = {
        "label": label_key,
        "shares": ",".join(map(str, shares)),
        "seeds": n_seeds,
        "max-cells-svm": max_cells_svm,
        "max-epochs": max_epochs,
    }
    command = pages.command_line("alpha", data, options)
    rows: list[dict[str, Any]] = []
    turns = list(product(checked_paths(data), shares))
    for path, share in track(turns, "Alpha", disable=not show_progress):
        adata = read_cells(path)
        for seed in range(n_seeds):
            found = _pair(adata, path.stem, plan, share=share, seed=seed, label_key=label_key)
            with of_file(path):
                rows += [{**row, "share": share} for row in found]
        results = pd.DataFrame(rows, columns=[*runs.COLUMNS, "share"])
        _write(Path(out), results, notes=plan.notes, command=command)
    return results


def _pair(
    adata: AnnData, name: str, plan: Plan, *, share: float, seed: int, label_key: str
) -> Iterator[dict[str, Any]]:
    """Scores of both runs on one draw of the cells, or one row that says why there are none."""
    # On all cells, components have the seed of the other benchmarks so that their runs are reused.
    drawing = 0 if share == 1 else seed
    n_cells = round(share * adata.n_obs)
    try:
        dataset = prepare_cells(
            adata, name, label_key=label_key, cache=plan.cache, max_cells=n_cells, seed=drawing
        )
    except ValueError as error:
        why = f"{n_cells} cells: {error}"
        logger.warning("%s, %s", name, why)
        yield {"dataset": name, "method": OURS, "seed": seed, "value": np.nan, "note": why}
        return
    for method in (_WITHOUT, OURS):
        job = plan.job(dataset, method, seed)
        yield from runs.rows(job, runs.run(job))


def differences(results: pd.DataFrame, panel: Panel) -> pd.Series:
    """Default α minus α = 0 in points, by share, dataset and seed."""
    chosen = of_metric(results, panel.metric, representation=panel.representation)
    scores = chosen.pivot_table(
        index=["share", "dataset", "seed"], columns="method", values="value", sort=False
    )
    paired = scores.reindex(columns=[OURS, _WITHOUT]).dropna()
    return 100 * (paired[OURS] - paired[_WITHOUT])


def _write(out: Path, results: pd.DataFrame, *, notes: Sequence[str], command: str) -> None:
    parts = [
        "# Does diffusion help?",
        f"Made by `{command}` on {pages.hardware()}.",
        _HOW_TO_READ,
        *notes,
        pages.markdown(_verdicts(results)),
        "## Mean over seeds, by dataset",
        pages.markdown(_by_dataset(results)),
        "## Versions",
        pages.versions(results),
        *pages.failures(results),
    ]
    pages.write(out, results, summary=pages.joined(parts))
    pages.save(differences_figure(results), out / "differences.png")


def _verdicts(results: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for panel in (*_DRAWN, *_BESIDE):
        for share, own in differences(results, panel).groupby(level="share", sort=False):
            low, high = paired_interval(own)
            means = own.groupby(level="dataset").mean()
            rows.append(
                {
                    "score": panel.title,
                    "share of cells": f"{share:.0%}",
                    "mean difference": f"{means.mean():+.1f}",
                    "95% interval": pages.interval(low, high),
                    "excludes zero": "yes" if low > 0 or high < 0 else "no",
                    "datasets better": f"{(means > 0).sum()} of {len(means)}",
                    "pairs better": f"{(own > 0).sum()} of {len(own)}",
                }
            )
    return pd.DataFrame(rows)


def _by_dataset(results: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for panel in PANELS:
        groups = differences(results, panel).groupby(level=["share", "dataset"], sort=False)
        text = groups.mean().map("{:+.1f}".format)
        columns[panel.title] = text + groups.std().fillna(0).map(" ± {:.1f}".format)
    return pd.DataFrame(columns).rename_axis(["share", "dataset"]).reset_index()


def differences_figure(results: pd.DataFrame) -> Figure:
    """One point per pair, bars at the means of datasets; shares in rows, scores in columns."""
    shares = results["share"].unique()
    names = results["dataset"].unique()
    size = (2.0 * len(_DRAWN) + 1.5, (0.22 * len(names) + 0.9) * len(shares))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(shares), len(_DRAWN), squeeze=False, sharex=True, sharey=True)
    for row, share in zip(axes, shares, strict=True):
        row[0].set_ylabel(f"{share:.0%} of the cells", fontsize=7)
        row[0].set_yticks(range(len(names)), names)
        for ax, panel in zip(row, _DRAWN, strict=True):
            found = differences(results[results["share"] == share], panel)
            for place, name in enumerate(names):
                own = found[found.index.get_level_values("dataset") == name]
                ax.plot(own, np.full(len(own), place), "o", ms=3, alpha=0.5, color="C0")
                ax.plot(own.mean(), place, "|", ms=12, mew=2, color="C1")
            ax.axvline(0, color="0.6", lw=0.8)
            ax.tick_params(labelsize=6)
    # All panels share their axes. The first dataset comes on top.
    axes[0, 0].invert_yaxis()
    for ax, panel in zip(axes[0], _DRAWN, strict=True):
        ax.set_title(panel.title, fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("default α less α = 0, points", fontsize=7)
    return figure
