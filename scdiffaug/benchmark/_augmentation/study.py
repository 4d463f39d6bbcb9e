"""The augmentation benchmark: made cells beside real ones, from every maker with every seed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product, starmap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from scdiffaug import metrics
from scdiffaug._checks import check_whole
from scdiffaug.benchmark import environments, methods, pages, processes
from scdiffaug.benchmark._augmentation import quality, report
from scdiffaug.benchmark._augmentation.peers import Rows
from scdiffaug.benchmark._augmentation.quality import Picture, Scores
from scdiffaug.benchmark._augmentation.trials import FILLED, LABELLED, Job, Trial
from scdiffaug.benchmark.inputs import prepare_all
from scdiffaug.benchmark.methods import GENERATORS

logger = logging.getLogger("scdiffaug")

# Raised when a score changes its meaning, so that remembered ones are computed again.
_PROTOCOL = 1
_COLUMNS = [
    "dataset", "setting", "method", "seed", "metric", "type", "value", "seconds", "peak_mb",
    "settings", "versions", "note",
]  # fmt: skip


def augmentation(
    data: Sequence[str | Path],
    *,
    label_key: str = "cell_type",
    method_names: Sequence[str] = tuple(GENERATORS),
    n_seeds: int = 3,
    out: str | Path = "benchmark_augmentation",
    max_cells: int | None = None,
    max_epochs: int | None = None,
    timeout: float = 3600,
    n_jobs: int = 1,
    cache: str | Path | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Make cells with every method and score them beside real cells.

    Four settings. ``in_sample``: a maker that knows all cells makes one new cell per cell, which
    are compared to all. ``held_out``: one that knows a random half (drawn within each type) makes
    a cell for each of the other half, and these are compared to that half. ``novelty``: the same
    maker makes a cell for each that it knows; does it copy them? ``use``: it makes cells from
    5, 10, 25 or 50 labelled ones per type until each type has 100, a classifier learns from both,
    and is tested on the other half.

    The method ``real`` is the floor: the two real halves against each other, or real cells in
    place of made ones; ``none`` is the use of the labelled cells alone. Makers run in processes
    of their own, which see labels only where the method uses them, and are remembered by the
    hash of data, plan, settings, seed and versions.

    Parameters
    ----------
    data
        ``.h5ad`` files.
    label_key
        Column of obs with the types. Those of fewer than ten cells are left out.
    method_names
        Keys of :data:`GENERATORS`.
    n_seeds
        Halves and runs of each method, with seeds 0, 1, ...
    out
        Folder of ``results.csv``, ``summary.md`` and the pictures.
    max_cells
        Draw as many cells at random from larger datasets.
    max_epochs
        Epochs of the methods that train; by default each one's own.
    timeout
        Seconds after which a process is given up.
    n_jobs
        Datasets and seeds at once, in processes that share the cores; seconds are then no timing.
    cache
        Folder of remembered runs; by default in the user's cache.
    show_progress
        Show a progress bar.

    Returns
    -------
    One row a score: dataset, setting, method, seed, metric, type (empty for all types), value,
    seconds and peak_mb of the process (all its trainings and draws), settings, versions, note.
    A method that failed has one row whose note says why.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    KeyError
        If a file has no such column of labels.
    ValueError
        If a method is unknown, two files have one name, or a dataset has too few cells.

    Examples
    --------
    >>> import scdiffaug
    >>> from scdiffaug import benchmark
    >>> scdiffaug.datasets.pbmc68k_reduced().write_h5ad("pbmc.h5ad")
    >>> results = benchmark.augmentation(
    ...     ["pbmc.h5ad"],
    ...     method_names=["mask"],
    ...     n_seeds=1,
    ...     max_cells=200,
    ...     cache="cache",
    ...     show_progress=False,
    ... )
    >>> results["method"].unique().tolist()
    ['real', 'none', 'mask']
    """
    methods.check(method_names, GENERATORS)
    check_whole("n_jobs", n_jobs)
    folder = environments.default_cache() if cache is None else Path(cache)
    datasets = prepare_all(data, label_key=label_key, max_cells=max_cells, cache=folder)
    trials = list(starmap(Trial, product(datasets, range(n_seeds))))
    rows: list[dict[str, Any]] = []
    pictures: dict[tuple[str, str], Picture] = {}
    options = {
        "label": label_key,
        "methods": ",".join(method_names),
        "seeds": n_seeds,
        "max-cells": max_cells,
        "max-epochs": max_epochs,
    }
    command = pages.command_line("augmentation", data, options)
    outcome = partial(
        _outcome, method_names=method_names, max_epochs=max_epochs, timeout=timeout, cache=folder
    )
    with processes.mapped(outcome, trials, n_jobs=n_jobs) as outcomes:
        for found, drawn in track(
            outcomes, "Augmentation", total=len(trials), disable=not show_progress
        ):
            rows += found
            pictures |= drawn
            results = pd.DataFrame(rows, columns=_COLUMNS)
            report.write(Path(out), results, datasets, pictures=pictures, command=command)
    return results


def _outcome(
    trial: Trial,
    *,
    method_names: Sequence[str],
    max_epochs: int | None,
    timeout: float,
    cache: Path,
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], Picture]]:
    """Scores of all methods on one trial, and pictures of the first seed."""
    jobs = _jobs(trial, method_names, max_epochs=max_epochs, timeout=timeout, cache=cache)
    rows = list(_reference_rows(trial, cache))
    rows += [row for name, job in jobs.items() for row in _rows(trial, name, job)]
    return rows, _pictures(trial, jobs) if trial.seed == 0 else {}


def _jobs(
    trial: Trial,
    method_names: Sequence[str],
    *,
    max_epochs: int | None,
    timeout: float,
    cache: Path,
) -> dict[str, Job | None]:
    """The job of each method, None for one that cannot make such values."""
    fit = [name for name in method_names if not GENERATORS[name].unfit(trial.dataset.kind)]
    families: dict[str, list[str]] = {}
    for name in fit:
        families.setdefault(GENERATORS[name].worker, []).append(name)
    jobs = {
        worker: Job(
            trial=trial,
            names=tuple(names),
            max_epochs=max_epochs,
            timeout=timeout,
            cache=cache,
        )
        for worker, names in families.items()
    }
    return {name: jobs[GENERATORS[name].worker] if name in fit else None for name in method_names}


def scores_of(job: Job, name: str) -> dict[str, Scores]:
    """Scores of one method in every setting."""
    train, held_out = job.trial.halves
    everything = np.arange(len(job.trial.labels))
    scores = {
        "in_sample": _alike(job, name, setting="in_sample", judges=everything, real=everything),
        "held_out": _alike(job, name, setting="held_out", judges=train, real=held_out),
        "novelty": quality.novelty(
            job.trial.cells.seen[train],
            job.trial.cells.seen[held_out],
            job.made(name, "novelty").seen,
            sources=np.arange(len(train)) if GENERATORS[name].follows == "source" else None,
            seed=job.trial.seed,
        ),
    }
    if GENERATORS[name].follows != "nothing":
        scores["use"] = {f"macro_f1_{k}": _macro_f1(job, name, k) for k in LABELLED}
    return scores


def _alike(job: Job, name: str, *, setting: str, judges: Rows, real: Rows) -> Scores:
    """Fidelity to the real cells, and types kept as those judge who learn from ``judges``."""
    trial, made = job.trial, job.made(name, setting)
    scores = quality.fidelity(trial.cells[real], made, seed=trial.seed)
    if GENERATORS[name].follows == "nothing":
        return scores
    return scores | quality.types_kept(
        trial.cells.seen[judges],
        trial.labels[judges],
        made.seen,
        expected=trial.labels[real],
        seed=trial.seed,
    )


def _macro_f1(job: Job, name: str, k: int) -> float:
    made, labels = job.made(name, f"use_{k}").seen, job.trial.labels[job.trial.to_fill(k)]
    return job.trial.exams[k].macro_f1(made, labels)


def floor_of(trial: Trial) -> dict[str, Scores]:
    """The same scores of real cells in place of made ones."""
    (train, held_out), labels, seed = trial.halves, trial.labels, trial.seed
    seen = trial.cells.seen
    like_new = quality.fidelity(trial.cells[held_out], trial.cells[train], seed=seed)
    like_new["zero_share"] = metrics.zero_share(seen[held_out])
    like_new |= quality.types_kept(
        seen[train], labels[train], seen[held_out], expected=labels[held_out], seed=seed
    )
    one, other = held_out[::2], held_out[1::2]
    novelty = quality.novelty(seen[train], seen[one], seen[other], sources=None, seed=seed)
    # Real cells have no source; this is the share by chance.
    novelty["own_source_share"] = 1 / len(train)
    use: Scores = {}
    for k, exam in trial.exams.items():
        more = _more_labelled(trial, k)
        use[f"macro_f1_{k}"] = exam.macro_f1(seen[more], labels[more])
    return {"in_sample": like_new, "held_out": like_new, "novelty": novelty, "use": use}


def _more_labelled(trial: Trial, k: int) -> Rows:
    """Further training cells of each type, until it has 100 or there are no more."""
    return np.setdiff1d(trial.labelled(FILLED), trial.labelled(k))


def _reference_rows(trial: Trial, cache: Path) -> Iterator[dict[str, Any]]:
    """The floor and, for the use, the labelled cells alone."""
    decides = [trial.dataset.digest, *trial.labels]
    folder = processes.named_by_hash(cache, "floor", {"of": decides, "seed": trial.seed})
    floor = processes.remembered(folder / f"scores-{_PROTOCOL}.json", lambda: floor_of(trial))
    none = processes.remembered(
        folder / f"none-{_PROTOCOL}.json",
        lambda: {"use": {f"macro_f1_{k}": e.macro_f1(None, []) for k, e in trial.exams.items()}},
    )
    for name, scores in (("real", floor), ("none", none)):
        yield from _long(
            scores, {"dataset": trial.dataset.name, "method": name, "seed": trial.seed}
        )


def _rows(trial: Trial, name: str, job: Job | None) -> Iterator[dict[str, Any]]:
    shared = {"dataset": trial.dataset.name, "method": name, "seed": trial.seed}
    shared["settings"] = methods.as_words(GENERATORS[name].settings)
    if job is None:
        yield from _failed(shared, GENERATORS[name].unfit(trial.dataset.kind))
        return
    run = job.run()
    if run.error:
        yield from _failed(shared, run.error)
        return
    shared |= {"seconds": run.seconds, "peak_mb": run.peak_mb}
    shared["versions"] = methods.as_words(run.versions)
    path = job.folder / f"scores-{_PROTOCOL}-{name}.json"
    try:
        yield from _long(processes.remembered(path, lambda: scores_of(job, name)), shared)
    except ValueError as error:
        yield from _failed(shared, f"made cells that cannot be scored: {error}")


def _long(
    scores: Mapping[str, Mapping[str, float]], shared: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    for setting, of_setting in scores.items():
        for key, value in of_setting.items():
            metric, _, of_type = key.partition("/")
            each = {"setting": setting, "metric": metric, "type": of_type, "value": value}
            yield {**shared, **each, "note": ""}


def _failed(shared: Mapping[str, Any], why: str) -> Iterator[dict[str, Any]]:
    logger.warning("%s on %s: %s", shared["method"], shared["dataset"], why)
    yield {**shared, "setting": "", "metric": "", "type": "", "value": np.nan, "note": why}


def _pictures(trial: Trial, jobs: Mapping[str, Job | None]) -> dict[tuple[str, str], Picture]:
    """Of the held-out setting, real cells and those of each method that made any."""
    real = trial.cells[trial.halves[1]]
    found = {"real": real} | {
        name: job.made(name, "held_out")
        for name, job in jobs.items()
        if job and (job.folder / "run.json").exists() and not GENERATORS[name].is_variant
    }
    return {
        (trial.dataset.name, name): quality.picture(real, cells, seed=trial.seed)
        for name, cells in found.items()
    }
