"""Figure 4: scores against α, the probability that a positive is a generated cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track

from scdiffaug.benchmark import pages
from scdiffaug.benchmark._embedding import runs
from scdiffaug.benchmark._embedding.report import PANELS, Panel
from scdiffaug.benchmark._embedding.runs import Job
from scdiffaug.benchmark._embedding.study import Plan
from scdiffaug.benchmark.inputs import Dataset, describe
from scdiffaug.benchmark.margins import of_metric
from scdiffaug.training import TrainingOptions

GRID = (0.0, 0.05, 0.1, 0.15, 0.2, 0.5, 0.8)
# Values of α that are methods of the benchmark: by these names, its remembered runs are reused.
_KNOWN: Mapping[float, str] = {0.0: "scdiffaug_alpha0", TrainingOptions.alpha: "scdiffaug"}


def figure(
    datasets: Sequence[Dataset], plan: Plan, *, notes: Sequence[str], command: str, out: Path
) -> pd.DataFrame:
    """Run the grid, and write the report with a box over the seeds for each α.

    The files are written after every dataset.
    """
    rows = []
    pairs = list(product(datasets, GRID))
    for dataset, alpha in track(pairs, "Figure 4", disable=not plan.show_progress):
        jobs = [at_alpha(plan, dataset, alpha, seed=seed) for seed in range(plan.n_seeds)]
        found = [row for job in jobs for row in runs.rows(job, runs.run(job))]
        rows += [{**row, "alpha": alpha} for row in found]
        if alpha == GRID[-1]:
            results = pd.DataFrame(rows, columns=[*runs.COLUMNS, "alpha"])
            text = _summary(results, datasets, notes=notes, command=command)
            pages.write(out, results, summary=text)
            pages.save(boxes(results, [each.name for each in datasets]), out / "figure4.png")
    return results


def _summary(
    results: pd.DataFrame, datasets: Sequence[Dataset], *, notes: Sequence[str], command: str
) -> str:
    parts = [
        "# Figure 4: the share of generated positives",
        f"Made by `{command}` on {pages.hardware()}. Means over {pages.n_seeds(results)}, ± "
        "their standard deviation.",
        *notes,
        pages.markdown(describe(list(datasets))),
        *(text for panel in PANELS for text in _table(results, panel)),
        *pages.failures(results),
    ]
    return pages.joined(parts)


def at_alpha(plan: Plan, dataset: Dataset, alpha: float, *, seed: int) -> Job:
    """The job of scDiffAug with this α."""
    if alpha in _KNOWN:
        return plan.job(dataset, _KNOWN[alpha], seed)
    return plan.job(dataset, "scdiffaug", seed, settings={"alpha": alpha})


def boxes(results: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Scores in rows, datasets in columns: a box over the seeds for each α."""
    figure = Figure(figsize=(2.6 * len(names) + 0.6, 2.2 * len(PANELS)), layout="constrained")
    axes = figure.subplots(len(PANELS), len(names), squeeze=False)
    for row, panel in zip(axes, PANELS, strict=True):
        scores = of_metric(results, panel.metric, representation=panel.representation)
        row[0].set_ylabel(f"{panel.title} (%)", fontsize=7)
        for ax, name in zip(row, names, strict=True):
            _draw_boxes(ax, scores[scores["dataset"] == name])
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name, fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("α", fontsize=7)
    return figure


def _draw_boxes(ax: Axes, scores: pd.DataFrame) -> None:
    by_alpha = {alpha: 100 * own["value"].to_numpy() for alpha, own in scores.groupby("alpha")}
    if by_alpha:
        ax.boxplot(
            list(by_alpha.values()),
            tick_labels=[f"{alpha:g}" for alpha in by_alpha],
            medianprops={"color": "C1"},
            flierprops={"markersize": 3},
        )
    ax.tick_params(labelsize=6)


def _table(results: pd.DataFrame, panel: Panel) -> tuple[str, str]:
    scores = of_metric(results, panel.metric, representation=panel.representation)
    values = (100 * scores["value"]).groupby([scores["alpha"], scores["dataset"]], sort=False)
    text = values.mean().map("{:.1f}".format) + values.std().fillna(0).map(" ± {:.1f}".format)
    table = text.unstack("dataset").fillna("–").rename_axis("α").reset_index()
    return f"## {panel.title} (%)", pages.markdown(table)
