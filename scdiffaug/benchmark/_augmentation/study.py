"""The augmentation benchmark: every method with every seed, beside real cells."""

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

from scdiffaug._checks import check_choice, check_whole
from scdiffaug.benchmark import environments, methods, pages, processes
from scdiffaug.benchmark._augmentation import quality, report
from scdiffaug.benchmark._augmentation.quality import Picture
from scdiffaug.benchmark._augmentation.scoring import floor_of, scores_of, unaided
from scdiffaug.benchmark._augmentation.trials import SETTINGS, Job, Setting, Trial
from scdiffaug.benchmark.inputs import prepare_all
from scdiffaug.benchmark.methods import GENERATORS

logger = logging.getLogger("scdiffaug")

# Version of the scores: raised when one changes, so that remembered ones are computed again.
_PROTOCOL = 3
_COLUMNS = [
    "dataset", "setting", "method", "seed", "metric", "type", "value", "seconds", "peak_mb",
    "settings", "versions", "note",
]  # fmt: skip


def augmentation(
    data: Sequence[str | Path],
    *,
    label_key: str = "cell_type",
    method_names: Sequence[str] = tuple(GENERATORS),
    settings: Sequence[Setting] = SETTINGS,
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

    There are four settings:

    - ``in_sample``: a method that knows all cells makes one new cell per cell. These are compared
      to all cells.
    - ``held_out``: a method that knows a random half (drawn within each type) makes a new cell
      for each cell of the other half. These are compared to that other half.
    - ``novelty``: the same method makes a new cell for each that it knows. Does it copy them?
    - ``use``: it makes cells from 5, 10, 25 or 50 labelled ones per type until each type has 100.
      A classifier learns from both and is tested on the other half.

    The row ``real`` is the floor: the two real halves against each other, or real cells in place
    of augmented ones. The row ``none`` is a classifier of the labelled cells alone. In the row
    ``self_training`` it also learns from the other training cells, by labels that it gives them
    itself. Methods run in separate processes, which see labels only where the method uses them.
    Runs are remembered by a hash of data, plan, settings, seed and versions.

    Parameters
    ----------
    data
        ``.h5ad`` files.
    label_key
        Column of obs with the types. Types with fewer than ten cells are left out.
    method_names
        Keys of :data:`GENERATORS`.
    settings
        Which of the four; ``("use",)`` alone takes a fraction of the time.
    n_seeds
        Number of splits, and of runs of each method, with seeds 0, 1, ...
    out
        Folder of ``results.csv``, ``summary.md`` and the pictures.
    max_cells
        Draw this many cells at random from larger datasets.
    max_epochs
        Epochs of the methods that train; by default each one's own.
    timeout
        Seconds after which a process is stopped.
    n_jobs
        Number of datasets and seeds to run at once, in processes that share the cores. Seconds
        are then no timing. A script that asks for several must keep the call under
        ``if __name__ == "__main__":``.
    cache
        Folder of remembered runs; by default in the user's cache.
    show_progress
        Show a progress bar.

    Returns
    -------
    One row per score: dataset, setting, method, seed, metric, type (empty for all types), value,
    seconds and peak_mb of the process (all its trainings and draws), settings, versions, note.
    A method that failed has one row whose note says why.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    KeyError
        If a file has no such column of labels.
    ValueError
        If a method or setting is unknown, two files have one name, or a dataset has too few
        cells.

    Examples
    --------
    >>> import scdiffaug
    >>> from scdiffaug import benchmark
    >>> scdiffaug.datasets.pbmc68k_reduced().write_h5ad("pbmc.h5ad")
    >>> results = benchmark.augmentation(
    ...     ["pbmc.h5ad"],
    ...     method_names=["mask"],
    ...     settings=["use"],
    ...     n_seeds=1,
    ...     max_cells=200,
    ...     cache="cache",
    ...     show_progress=False,
    ... )
    >>> results["method"].unique().tolist()
    ['real', 'none', 'self_training', 'mask']
    """
    methods.check(method_names, GENERATORS)
    asked = _checked(settings)
    check_whole("n_jobs", n_jobs)
    check_whole("n_seeds", n_seeds)
    folder = environments.cache_folder(cache)
    datasets = prepare_all(data, label_key=label_key, max_cells=max_cells, cache=folder)
    trials = list(starmap(Trial, product(datasets, range(n_seeds), [asked])))
    rows: list[dict[str, Any]] = []
    pictures: dict[tuple[str, str], Picture] = {}
    options = {
        "label": label_key,
        "methods": ",".join(method_names),
        "settings": None if asked == SETTINGS else ",".join(asked),
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


def _checked(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """Settings in their order, each once."""
    for each in settings:
        check_choice("settings", each, SETTINGS)
    if not settings:
        raise ValueError(f"settings is empty: name some of {', '.join(map(repr, SETTINGS))}.")
    return tuple(each for each in SETTINGS if each in settings)


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


def _reference_rows(trial: Trial, cache: Path) -> Iterator[dict[str, Any]]:
    """The floor and, for the use, what there is without new cells."""
    decides = {"of": [trial.dataset.digest, *trial.labels], "settings": trial.settings}
    folder = processes.named_by_hash(cache, "floor", {**decides, "seed": trial.seed})
    floor = processes.remembered(folder / f"scores-{_PROTOCOL}.json", lambda: floor_of(trial))
    others = processes.remembered(folder / f"unaided-{_PROTOCOL}.json", lambda: unaided(trial))
    of_use = {name: {"use": scores} for name, scores in others.items()}
    for name, scores in {"real": floor, **of_use}.items():
        yield from _long(
            scores, {"dataset": trial.dataset.name, "method": name, "seed": trial.seed}
        )


def _rows(trial: Trial, name: str, job: Job | None) -> Iterator[dict[str, Any]]:
    shared = {"dataset": trial.dataset.name, "method": name, "seed": trial.seed}
    shared["settings"] = methods.as_words(GENERATORS[name].settings_of(trial.dataset.kind))
    if job is None:
        yield from _failed(shared, GENERATORS[name].unfit(trial.dataset.kind))
        return
    run = job.run
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
    """What is drawn of the held-out setting: real cells, and those of each method."""
    if "held_out" not in trial.settings:
        return {}
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
