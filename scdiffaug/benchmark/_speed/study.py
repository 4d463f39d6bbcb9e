"""Rounds of measurements taken in turn, and the tables of their results."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from rich.progress import track

from scdiffaug._checks import check_choice, check_number, check_whole
from scdiffaug.benchmark import pages
from scdiffaug.benchmark._speed import gauges
from scdiffaug.benchmark._speed.gauges import GAUGES, Accelerator, Size
from scdiffaug.benchmark.processes import call

COLUMNS = ["round", "gauge", "measure", "value", "note"]
_HOW_TO_READ = """\
Each measurement is a process of its own; all of them are taken in turn, round after round, so \
that a disturbance of the machine does not fall on one alone. Figures are medians over rounds, \
with the lowest and the highest in brackets; ratios are of measurements of the same round. \
Training: epochs after a warm-up, batches and Lightning included, neighbours and components not. \
Loading: the matrix is read and checked, then an epoch of batches is made of it. Peak memory is \
that of the process, Python and its libraries included."""


def speed(
    *,
    n_cells: int = 10_000,
    n_features: int = 2000,
    density: float = 0.08,
    n_rounds: int = 3,
    out: str | Path = "benchmark_speed",
    max_epochs: int = 4,
    n_made: int = 1024,
    accelerator: Accelerator = "cpu",
    timeout: float = 600,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Measure training and sampling beside scVI, and loading, on simulated counts.

    Parameters
    ----------
    n_cells, n_features, density
        Shape of the counts, and the share of them that is not zero.
    n_rounds
        Number of times that each measurement is taken.
    out
        Folder of ``results.csv`` and ``summary.md``.
    max_epochs
        Number of training epochs that are timed.
    n_made
        Number of cells to make, at most ``n_cells``.
    accelerator
        What trains and samples, ours and scVI alike: ``"cpu"`` or ``"gpu"``.
    timeout
        Seconds after which a measurement is stopped.
    show_progress
        Show a progress bar.

    Returns
    -------
    Long table with columns round, gauge, measure, value, note.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from scdiffaug import benchmark
    >>> results = benchmark.speed(n_cells=20_000)  # doctest: +SKIP
    >>> benchmark.speed(density=2)
    Traceback (most recent call last):
        ...
    ValueError: density=2 must be above 0 and at most 1.
    """
    check_whole("n_cells", n_cells, at_least=100)
    check_whole("n_features", n_features, at_least=10)
    check_number("density", density, above=0, at_most=1)
    for name, value in (("n_rounds", n_rounds), ("max_epochs", max_epochs), ("n_made", n_made)):
        check_whole(name, value)
    check_choice("accelerator", accelerator, get_args(Accelerator))
    size = Size(
        cells=n_cells,
        features=n_features,
        density=density,
        epochs=max_epochs,
        made=n_made,
        steps=(4, 8, 16),
        accelerator=accelerator,
    )
    options = {
        "cells": n_cells,
        "features": n_features,
        "density": density,
        "rounds": n_rounds,
        "max-epochs": max_epochs,
        "made": n_made,
        "accelerator": accelerator,
    }
    command = pages.command_line("speed", [], options)
    rows: list[dict[str, Any]] = []
    turns = list(product(range(n_rounds), GAUGES))
    for place, gauge in track(turns, "Speed", disable=not show_progress):
        rows += [{"round": place, **row} for row in _rows(gauge, size, timeout=timeout)]
        results = pd.DataFrame(rows, columns=COLUMNS)
        _write(Path(out), results, command=command, is_gpu=accelerator == "gpu")
    return results


def _rows(gauge: str, size: Size, *, timeout: float) -> list[dict[str, Any]]:
    try:
        measured = _measured(gauge, size, timeout=timeout)
    except RuntimeError as error:
        return [{"gauge": gauge, "measure": "", "value": float("nan"), "note": str(error)}]
    return [
        {"gauge": gauge, "measure": measure, "value": value, "note": ""}
        for measure, value in measured.items()
    ]


def _measured(gauge: str, size: Size, *, timeout: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        job = {"gauge": gauge, "size": asdict(size)}
        (Path(folder) / "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-P", "-m", gauges.__name__, folder]
        # Threads spin, as for users: each process has one library that computes.
        call(command, timeout=timeout, passive=False)
        found: dict[str, float] = json.loads((Path(folder) / "measured.json").read_text())
    return found


def by_round(results: pd.DataFrame, gauge: str, measure: str = "cells_per_second") -> pd.Series:
    """One measure of a gauge, indexed by round; empty where it failed."""
    chosen = results[(results["gauge"] == gauge) & (results["measure"] == measure)]
    return chosen.set_index("round")["value"]


def _spread(values: pd.Series, digits: int = 0) -> str:
    if values.dropna().empty:
        return "–"
    middle, low, high = (f"{each:,.{digits}f}" for each in (values.median(), *_ends(values)))
    return f"{middle} ({low}–{high})"


def _ends(values: pd.Series) -> tuple[float, float]:
    return values.min(), values.max()


def _write(out: Path, results: pd.DataFrame, *, command: str, is_gpu: bool) -> None:
    failed = results[results["note"] != ""][["gauge", "note"]].drop_duplicates()
    parts = [
        "# Speed",
        f"Made by `{command}` on {pages.hardware(gpu=is_gpu)}.",
        _HOW_TO_READ,
        "## Training and sampling beside scVI",
        pages.markdown(_beside_scvi(results)),
        "## Share of what the hardware multiplies",
        pages.markdown(_of_peak(results)),
        "## Loading",
        pages.markdown(_loading(results)),
        *([] if failed.empty else ["## Without a result", pages.markdown(failed)]),
    ]
    pages.write(out, results, summary=pages.joined(parts))


def _beside_scvi(results: pd.DataFrame) -> pd.DataFrame:
    sampled = results[results["gauge"] == "sample_scdiffaug"]["measure"].unique()
    pairs = [("training", "train", "cells_per_second")] + [
        (f"sampling, {measure.rpartition('_')[2]} steps", "sample", measure)
        for measure in sampled
        if measure != "peak_mb"
    ]
    rows = []
    for what, kind, measure in pairs:
        ours = by_round(results, f"{kind}_scdiffaug", measure)
        scvi = by_round(results, f"{kind}_scvi")
        memory = [by_round(results, f"{kind}_{of}", "peak_mb") for of in ("scdiffaug", "scvi")]
        rows.append(
            {
                "": what,
                "scdiffaug, cells/s": _spread(ours),
                "scVI, cells/s": _spread(scvi),
                "ratio": _spread(ours / scvi, 1),
                "scdiffaug, peak MB": _spread(memory[0]),
                "scVI, peak MB": _spread(memory[1]),
            }
        )
    return pd.DataFrame(rows)


def _of_peak(results: pd.DataFrame) -> pd.DataFrame:
    peak = by_round(results, "matrix_product", "flops_per_second")
    bits = by_round(results, "matrix_product", "bits")
    per_cell = by_round(results, "train_scdiffaug", "flops_per_cell")
    done = per_cell * by_round(results, "train_scdiffaug")
    row = {
        "precision": " ".join(f"{each:.0f} bits" for each in bits.unique()),
        "measured peak, GFLOP/s": _spread(peak / 1e9),
        "MFLOP per cell and step": _spread(per_cell / 1e6, 1),
        "training, GFLOP/s": _spread(done / 1e9),
        "share, %": _spread(100 * done / peak, 1),
    }
    return pd.DataFrame([row])


def _loading(results: pd.DataFrame) -> pd.DataFrame:
    names = {
        "load_csr": "CSR in memory",
        "load_dense": "dense in memory",
        "load_backed": ".h5ad",
        "load_lazy": ".zarr, by dask",
    }
    return pd.DataFrame(
        {
            "storage": name,
            "cells/s": _spread(by_round(results, gauge)),
            "peak MB": _spread(by_round(results, gauge, "peak_mb")),
        }
        for gauge, name in names.items()
    )
