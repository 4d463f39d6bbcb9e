"""The embedding benchmark: every method on every dataset with every seed."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.progress import track

from scdiffaug.benchmark import environments, methods
from scdiffaug.benchmark._embedding import report, runs
from scdiffaug.benchmark._embedding.runs import Job
from scdiffaug.benchmark.inputs import Dataset, prepare_all
from scdiffaug.benchmark.processes import Run

logger = logging.getLogger("scdiffaug")
_COLUMNS = [
    "dataset", "method", "representation", "seed", "metric", "value", "seconds", "peak_mb",
    "settings", "versions", "note",
]  # fmt: skip


def embedding(
    data: Sequence[str | Path],
    *,
    label_key: str = "cell_type",
    method_names: Sequence[str] = methods.DEFAULT,
    n_seeds: int = 3,
    out: str | Path = "benchmark",
    max_cells: int | None = None,
    tuned: bool = False,
    timeout: float = 3600,
    cache: str | Path | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Embed labelled datasets with every method and score the embeddings.

    2-D, linear SVM over ten stratified folds and k-means with matched labels are the protocol of
    Zang et al. 2023; other metrics stand beside them. Every run is a process of its own that
    never sees the labels, and is remembered by the hash of data, settings, seed and versions: an
    interrupted benchmark goes on where it stopped. After every dataset the files are written.

    Parameters
    ----------
    data
        ``.h5ad`` files.
    label_key
        Column of obs with the types. Those of fewer than ten cells are left out.
    method_names
        Keys of :data:`METHODS`.
    n_seeds
        Runs of each method, with seeds 0, 1, ...
    out
        Folder of ``results.csv``, ``summary.md``, ``embeddings.png`` and ``ranks.png``.
    max_cells
        Draw as many cells at random from larger datasets.
    tuned
        Try every setting of each method's grid with seed 0 and keep the one whose embedding is
        the most trustworthy, which needs no labels.
    timeout
        Seconds after which a run is given up.
    cache
        Folder of remembered runs; by default in the user's cache.
    show_progress
        Show a progress bar.

    Returns
    -------
    One row a score: dataset, method, representation, seed, metric, value, seconds, peak_mb,
    settings, versions, note. A run that failed has one row whose note says why.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    KeyError
        If a file has no such column of labels.
    ValueError
        If a method is unknown, or two files have one name.
    """
    methods.check(method_names, methods.METHODS)
    folder = environments.default_cache() if cache is None else Path(cache)
    datasets = prepare_all(data, label_key=label_key, max_cells=max_cells, cache=folder)
    pairs = list(product(datasets, method_names))
    rows: list[dict[str, Any]] = []
    pictures: dict[tuple[str, str], NDArray[np.floating[Any]]] = {}
    command = _command(data, method_names, n_seeds, max_cells=max_cells, tuned=tuned)
    for dataset, name in track(pairs, "Embedding", disable=not show_progress):
        jobs = _jobs(dataset, name, n_seeds, tuned=tuned, timeout=timeout, cache=folder)
        for job in jobs:
            rows += _rows(job, runs.run(job))
        first = runs.embeddings(jobs[0])
        if "2d" in first:
            pictures[dataset.name, name] = first["2d"]
        if name == method_names[-1]:
            results = pd.DataFrame(rows, columns=_COLUMNS)
            report.write(Path(out), results, datasets, pictures=pictures, command=command)
    return results


def _jobs(
    dataset: Dataset, name: str, n_seeds: int, *, tuned: bool, timeout: float, cache: Path
) -> list[Job]:
    def job(seed: int, settings: methods.Settings) -> Job:
        return Job(
            dataset=dataset,
            name=name,
            seed=seed,
            settings=settings,
            cache=cache,
            timeout=timeout,
        )

    settings: methods.Settings = {}
    if tuned:
        candidates = [job(0, each) for each in ({}, *methods.METHODS[name].grid)]
        settings = max(candidates, key=_trust).settings
    return [job(seed, settings) for seed in range(n_seeds)]


def _trust(job: Job) -> float:
    return runs.run(job).scores.get("2d", {}).get("trustworthiness", -np.inf)


def _rows(job: Job, run: Run) -> Iterator[dict[str, Any]]:
    shared = {
        "dataset": job.dataset.name,
        "method": job.name,
        "seed": job.seed,
        "seconds": run.seconds,
        "peak_mb": run.peak_mb,
        "settings": methods.as_words({**job.method.settings, **job.settings}),
        "versions": methods.as_words(run.versions),
        "note": run.error,
    }
    for representation, scores in run.scores.items():
        for metric, value in scores.items():
            yield {**shared, "representation": representation, "metric": metric, "value": value}
    if run.error:
        logger.warning("%s on %s: %s", job.name, job.dataset.name, run.error)
        yield {**shared, "representation": "", "metric": "", "value": np.nan}


def _command(
    data: Sequence[str | Path],
    method_names: Sequence[str],
    n_seeds: int,
    *,
    max_cells: int | None,
    tuned: bool,
) -> str:
    words = ["scdiffaug", "benchmark", "embedding"]
    words += [word for path in data for word in ("--data", str(path))]
    words += ["--methods", ",".join(method_names), "--seeds", str(n_seeds)]
    words += [] if max_cells is None else ["--max-cells", str(max_cells)]
    return shlex.join([*words, *(["--tuned"] if tuned else [])])
