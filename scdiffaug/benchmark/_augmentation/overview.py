"""All datasets of the augmentation benchmark together: means, and ours minus every other row."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from scdiffaug._results import REFERENCES
from scdiffaug.benchmark import pages
from scdiffaug.benchmark._augmentation.trials import LABELLED
from scdiffaug.benchmark.margins import paired_interval
from scdiffaug.benchmark.methods import CONSISTENT, GENERATORS, OURS

# Setting and metric of each column.
_MEANS = {
    "AUC in sample": ("in_sample", "two_sample_auc"),
    "AUC in sample, from 0.5": ("in_sample", "two_sample_auc"),
    "AUC in sample, PCA": ("in_sample", "two_sample_auc_pca"),
    "AUC held out": ("held_out", "two_sample_auc"),
    "type kept held out": ("held_out", "type_kept_neighbors"),
    "own source": ("novelty", "own_source_share"),
    "distance ratio": ("novelty", "nearest_training_distance_ratio"),
    "membership AUC": ("novelty", "membership_auc"),
    **{f"macro-F1, {k}": ("use", f"macro_f1_{k}") for k in LABELLED},
}
# In sample an AUC below 0.5 tells of near copies: a mean of both sides would hide it.
_FROM_HALF = "AUC in sample, from 0.5"
_DIFFERENCES = ("AUC held out", *(name for name in _MEANS if name.startswith("macro")))
_HOW_TO_READ = """\
Differences are ours less the row, in points, with a 95% interval by a paired bootstrap over \
datasets and, within these, seeds; then the datasets on which ours is ahead. Ahead is lower \
for the AUC, where below 0.5 is no better than 0.5, and higher for macro-F1."""


def overview(results: pd.DataFrame) -> list[str]:
    """All datasets together, in Markdown; empty where there is one, or ours was not run."""
    if results["dataset"].nunique() < 2 or {OURS, CONSISTENT}.isdisjoint(results["method"]):
        return []
    chosen = results[results["type"].eq("") & results["value"].notna()]
    runs = chosen.set_index(["setting", "metric", "dataset", "seed", "method"])["value"].unstack()
    methods = [name for name in (*REFERENCES, *GENERATORS) if name in runs]
    parts = {"Means over datasets": _means(runs, methods)}
    for ours in (OURS, CONSISTENT):
        if ours in runs:
            parts[f"Differences of {ours}"] = _differences(runs, methods, ours=ours)
    tables = [text for title, table in parts.items() for text in (f"### {title}", table)]
    return ["## All datasets", *tables, _HOW_TO_READ]


def _means(runs: pd.DataFrame, methods: list[str]) -> str:
    columns = {
        title: _mean(runs.loc[_MEANS[title]], title).reindex(methods)
        for title in _measured(runs, _MEANS)
    }
    text = pd.DataFrame(columns).map(lambda value: "–" if pd.isna(value) else f"{value:.3f}")
    return pages.markdown(text.rename_axis("method").reset_index())


def _mean(scores: pd.DataFrame, title: str) -> pd.Series:
    scores = (scores - 0.5).abs() if title == _FROM_HALF else scores
    # A mean over fewer datasets could not be compared with the others.
    return scores.groupby(level="dataset").mean().mean(skipna=False)


def _measured(runs: pd.DataFrame, titles: Iterable[str]) -> list[str]:
    places = set(runs.index.droplevel(["dataset", "seed"]))
    return [title for title in titles if _MEANS[title] in places]


def _differences(runs: pd.DataFrame, methods: list[str], *, ours: str) -> str:
    titles = _measured(runs[runs[ours].notna()], _DIFFERENCES)
    rows = [
        {
            f"{ours} less": name,
            **{title: _difference(runs, name, title, ours=ours) for title in titles},
        }
        for name in methods
        if name != ours
    ]
    return pages.markdown(pd.DataFrame(rows))


def _difference(runs: pd.DataFrame, other: str, title: str, *, ours: str) -> str:
    place = _MEANS[title]
    of_both = runs.loc[place][[ours, other]].dropna()
    if place[1] == "two_sample_auc":
        of_both = of_both.clip(lower=0.5)
    if of_both.empty:
        return "–"
    differences = 100 * (of_both[ours] - of_both[other])
    by_dataset = differences.groupby(level="dataset").mean()
    ahead = (by_dataset < 0 if place[1] == "two_sample_auc" else by_dataset > 0).sum()
    low, high = paired_interval(differences)
    words = pages.interval(low, high)
    return f"{by_dataset.mean():+.1f} ({words}), {ahead} of {len(by_dataset)}"
