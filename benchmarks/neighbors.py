"""How many of the true nearest neighbours the approximate search finds, and how long both take.

``python benchmarks/neighbors.py`` writes ``results/neighbors.{csv,md}``. The package searches
exactly up to 120,000 cells, so that recall is in question only beyond.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import load, write_table
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from scdiffaug import neighbors

DATA = "cytof_huimmprofiling_pbmc"
SIZES = (20_000, 50_000, 116_595)
K = 15

Search = Callable[[NDArray[Any], int, int], NDArray[np.int64]]


def timed(search: Search, points: NDArray[Any]) -> tuple[NDArray[np.int64], float]:
    """Neighbours, each cell its own first one, and seconds."""
    start = time.perf_counter()
    found = search(points, K + 1, 0)
    return found, round(time.perf_counter() - start, 1)


def recall(found: NDArray[np.int64], true: NDArray[np.int64]) -> float:
    """Mean share of the true neighbours that were found."""
    shared = [len(np.intersect1d(a, b)) for a, b in zip(found, true, strict=True)]
    return float(np.mean(shared)) / true.shape[1]


def main() -> None:
    cells = np.arcsinh(load(DATA).X / 5).astype(np.float32)
    cells = StandardScaler().fit_transform(cells)
    order = np.random.default_rng(0).permutation(len(cells))
    # The first call compiles pynndescent, which is a cost of its own.
    _, compiling = timed(neighbors._approximate, cells[order[:1000]])
    rows = []
    for size in SIZES:
        points = cells[order[:size]]
        true, exact = timed(neighbors._exact, points)
        found, approximate = timed(neighbors._approximate, points)
        rows.append(
            {
                "cells": len(points),
                "markers": points.shape[1],
                "exact (s)": exact,
                "approximate (s)": approximate,
                "compilation before (s)": compiling,
                f"recall of the {K} nearest": round(
                    recall(neighbors._drop_self(found), neighbors._drop_self(true)), 4
                ),
            }
        )
    write_table(
        rows,
        "neighbors",
        title=f"Exact and approximate neighbours, {DATA}",
        command="python benchmarks/neighbors.py",
    )


if __name__ == "__main__":
    main()
