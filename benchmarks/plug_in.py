"""Objectives of others, each with and without generated positives.

``python benchmarks/plug_in.py [NAME ...] [--seeds 3] [--max-cells 3000]`` writes
``results/plug_in.{csv,md}``, and all scores into ``results/plug_in/``. Runs are remembered.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from itertools import product

import pandas as pd
from common import DATA, RESULTS, write_table

from scdiffaug.benchmark import embedding, pages
from scdiffaug.benchmark.margins import bootstrap_margin, mean_scores
from scdiffaug.benchmark.methods import OTHER_OBJECTIVES

# Predicted labels score nothing.
NAMES = sorted(path.stem for path in DATA.glob("*.h5ad") if "predlabels" not in path.stem)
# Rows of the registry: neighbour positives only, and with generated ones.
PAIRS = {"soft_contrastive": ("scdiffaug_alpha0", "scdiffaug")} | {
    name: (f"scdiffaug_{name}_alpha0", f"scdiffaug_{name}") for name in OTHER_OBJECTIVES
}
REPRESENTATIONS = {"80d": "y, 80-d", "2d": "z, 2-D"}
METRICS = {"linear_svm_accuracy": "linear SVM", "kmeans_accuracy": "k-means"}


def row(results: pd.DataFrame, objective: str, representation: str) -> dict[str, str]:
    """Means over the datasets on which both ran, and the interval of their difference."""
    before, after = PAIRS[objective]
    cells = {"objective": objective, "embedding": REPRESENTATIONS[representation]}
    for metric, title in METRICS.items():
        scores = mean_scores(results, metric, representation=representation)
        scores = scores.reindex(columns=[before, after]).dropna()
        if scores.empty:
            continue
        low, high = bootstrap_margin(
            results,
            metric,
            ours=after,
            best_peer=pd.Series(before, index=scores.index),
            representation=representation,
        )
        means = scores.mean()
        cells[f"{title}: neighbours"] = f"{means[before]:.1f}"
        cells[f"{title}: with generated"] = f"{means[after]:.1f}"
        cells[f"{title}: difference"] = (
            f"{means[after] - means[before]:+.1f} ({low:+.1f} to {high:+.1f})"
        )
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-cells", type=int)
    given = parser.parse_args()
    results = embedding(
        [DATA / f"{name}.h5ad" for name in given.names],
        method_names=[method for pair in PAIRS.values() for method in pair],
        n_seeds=given.seeds,
        max_cells=given.max_cells,
        out=RESULTS / "plug_in",
    )
    write_table(
        [row(results, *place) for place in product(PAIRS, REPRESENTATIONS)],
        "plug_in",
        title=(
            f"Objectives with neighbour positives only and with generated ones (%): "
            f"{len(given.names)} datasets, {pages.n_seeds(results)}; difference with 95% interval"
        ),
        command=shlex.join(["python", "benchmarks/plug_in.py", *sys.argv[1:]]),
    )


if __name__ == "__main__":
    main()
