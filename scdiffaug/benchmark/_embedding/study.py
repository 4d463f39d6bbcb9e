"""The embedding benchmark: every method on every dataset with every seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.progress import track

from scdiffaug._checks import check_whole
from scdiffaug.benchmark import environments, methods, pages
from scdiffaug.benchmark._embedding import report, runs
from scdiffaug.benchmark._embedding.runs import Job
from scdiffaug.benchmark.inputs import Dataset, prepare_all
from scdiffaug.benchmark.methods import METHODS


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How often and how long each method is run, and what of it is scored.

    Parameters
    ----------
    n_seeds, tuned, max_cells_svm, timeout, show_progress
        As in :func:`embedding`.
    cache
        Folder of remembered runs.
    max_epochs
        Number of epochs of scDiffAug; its own by default.
    """

    n_seeds: int
    cache: Path
    timeout: float
    tuned: bool = False
    max_cells_svm: int | None = None
    max_epochs: int | None = None
    show_progress: bool = True

    def job(
        self, dataset: Dataset, name: str, seed: int, *, settings: methods.Settings | None = None
    ) -> Job:
        """One run of one method."""
        given = dict(settings or {})
        if self.max_epochs is not None and METHODS[name].is_ours:
            given["max_epochs"] = self.max_epochs
        return Job(
            dataset=dataset,
            name=name,
            seed=seed,
            settings=given,
            cache=self.cache,
            timeout=self.timeout,
            max_cells_svm=self.max_cells_svm,
        )

    def jobs(self, dataset: Dataset, name: str) -> list[Job]:
        """One run for each seed, with the best settings where they are tuned."""
        settings: methods.Settings = {}
        if self.tuned:
            candidates = [
                self.job(dataset, name, 0, settings=each) for each in ({}, *METHODS[name].grid)
            ]
            settings = max(candidates, key=_trust).settings
        return [self.job(dataset, name, seed, settings=settings) for seed in range(self.n_seeds)]

    @property
    def notes(self) -> list[str]:
        """What a report must say about the plan."""
        notes = []
        if self.max_cells_svm is not None:
            notes.append(
                f"Linear SVM: of {self.max_cells_svm} cells drawn at random with seed 0, whatever "
                "their types, where a dataset has more; types of fewer than ten of these are left "
                "out of it. All cells are embedded, and all other scores are of all cells."
            )
        if self.tuned:
            notes.append(
                "Tuned: of its defaults and the settings of its grid "
                "(scdiffaug.benchmark.METHODS), each method has those whose embedding with seed 0 "
                "is the most trustworthy, which needs no labels: the column settings of "
                "results.csv. Methods without a grid have their defaults."
            )
        if self.max_epochs is not None:
            notes.append(f"Ours was trained for {self.max_epochs} epochs, not its default.")
        return notes


def embedding(
    data: Sequence[str | Path],
    *,
    label_key: str = "cell_type",
    method_names: Sequence[str] = methods.DEFAULT,
    n_seeds: int = 3,
    out: str | Path = "benchmark",
    max_cells: int | None = None,
    max_cells_svm: int | None = None,
    tuned: bool = False,
    timeout: float = 3600,
    cache: str | Path | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Embed labelled datasets with every method and score the embeddings.

    The protocol is that of Zang et al. 2023: 2-D embeddings, scored by a linear SVM over ten
    stratified folds and by k-means with matched labels. Other metrics are reported too. Every run
    is a separate process, which sees labels only in the ablation ``scdiffaug_label_condition``.
    Runs are remembered by a hash of data, settings, seed and versions, so an interrupted
    benchmark resumes where it stopped. The files are written after every dataset.

    Parameters
    ----------
    data
        ``.h5ad`` files.
    label_key
        Column of obs with the types. Types with fewer than ten cells are left out.
    method_names
        Keys of :data:`METHODS`.
    n_seeds
        Number of runs of each method, with seeds 0, 1, ...
    out
        Folder of ``results.csv``, ``summary.md``, ``embeddings.png`` and ``ranks.png``.
    max_cells
        Draw this many cells at random from larger datasets.
    max_cells_svm
        Score the linear SVM on at most this many cells, drawn at random, as its time grows with
        the square of the cells. Embeddings and other scores do not depend on it.
    tuned
        Try every setting of each method's grid with seed 0 and keep the one whose embedding is
        the most trustworthy, which needs no labels.
    timeout
        Seconds after which a run is stopped.
    cache
        Folder of remembered runs; by default in the user's cache.
    show_progress
        Show a progress bar.

    Returns
    -------
    One row per score: dataset, method, representation, seed, metric, value, seconds, peak_mb,
    settings, versions, note. A run that failed has one row whose note says why.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    KeyError
        If a file has no such column of labels.
    ValueError
        If a method is unknown, or two files have one name.

    Examples
    --------
    >>> import scdiffaug
    >>> from scdiffaug import benchmark
    >>> scdiffaug.datasets.pbmc68k_reduced().write_h5ad("pbmc.h5ad")
    >>> results = benchmark.embedding(
    ...     ["pbmc.h5ad"], method_names=["pca"], n_seeds=1, cache="cache", show_progress=False
    ... )
    >>> accuracy = results[results["metric"] == "linear_svm_accuracy"]
    >>> accuracy["representation"].tolist()
    ['2d', 'components']
    """
    methods.check(method_names, METHODS)
    check_whole("n_seeds", n_seeds)
    folder = environments.cache_folder(cache)
    datasets = prepare_all(data, label_key=label_key, max_cells=max_cells, cache=folder)
    plan = Plan(
        n_seeds=n_seeds,
        cache=folder,
        timeout=timeout,
        tuned=tuned,
        max_cells_svm=max_cells_svm,
        show_progress=show_progress,
    )
    options = {
        "label": label_key,
        "methods": ",".join(method_names),
        "seeds": n_seeds,
        "max-cells": max_cells,
        "max-cells-svm": max_cells_svm,
        "tuned": tuned,
    }
    command = pages.command_line("embedding", data, options)
    page = report.Page(title="Embedding benchmark", command=command, notes=tuple(plan.notes))
    return compare(datasets, method_names, plan, page=page, out=Path(out))


def compare(
    datasets: Sequence[Dataset],
    method_names: Sequence[str],
    plan: Plan,
    *,
    page: report.Page,
    out: Path,
) -> pd.DataFrame:
    """Run methods on datasets, and write the report after each dataset."""
    found: list[dict[str, Any]] = []
    pictures: dict[tuple[str, str], NDArray[np.floating[Any]]] = {}
    pairs = list(product(datasets, method_names))
    for dataset, name in track(pairs, page.title, disable=not plan.show_progress):
        jobs = plan.jobs(dataset, name)
        found += [row for job in jobs for row in runs.rows(job, runs.run(job))]
        first = runs.embeddings(jobs[0])
        if "2d" in first:
            pictures[dataset.name, name] = first["2d"]
        if name == method_names[-1]:
            results = pd.DataFrame(found, columns=runs.COLUMNS)
            report.write(out, results, datasets, pictures=pictures, page=page)
    return results


def _trust(job: Job) -> float:
    return runs.run(job).scores.get("2d", {}).get("trustworthiness", -np.inf)
