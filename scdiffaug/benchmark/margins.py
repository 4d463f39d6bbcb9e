"""Margins over the best peer of each dataset, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiffaug import _results

_RESAMPLES = 10_000


def of_metric(results: pd.DataFrame, metric: str, *, representation: str = "2d") -> pd.DataFrame:
    """Rows of one metric and one representation."""
    return _results.of_metric(results, metric, setting=representation)


def mean_scores(results: pd.DataFrame, metric: str, *, representation: str = "2d") -> pd.DataFrame:
    """Mean of the scores over seeds, datasets in rows and methods in columns, in percent."""
    return 100 * _results.mean_scores(results, metric, setting=representation)


def margins(scores: pd.DataFrame, ours: str, peers: Sequence[str]) -> pd.DataFrame:
    """Our score minus that of the best peer, for each dataset.

    Parameters
    ----------
    scores
        Datasets in rows and methods in columns, as :func:`mean_scores` gives them.
    ours, peers
        Columns to compare.
    """
    # A dataset on which no peer could be run has no best peer.
    others = scores[[peer for peer in peers if peer in scores]].dropna(how="all")
    scores = scores.loc[others.index]
    return pd.DataFrame(
        {
            "ours": scores[ours],
            "best_peer": others.idxmax(axis=1),
            "peer": others.max(axis=1),
            "margin": scores[ours] - others.max(axis=1),
        }
    )


def bootstrap_margin(
    results: pd.DataFrame,
    metric: str,
    *,
    ours: str,
    best_peer: pd.Series,
    representation: str = "2d",
) -> tuple[float, float]:
    """95% interval of the mean margin, by a bootstrap over datasets and, within these, seeds.

    Seeds of ours and of the peer are drawn each by themselves, as they have nothing in common but
    their number, and the best peer of a dataset stays the same in all draws. NaN where ours was
    run once.

    Parameters
    ----------
    results
        Long table with columns dataset, method, representation, seed, metric, value.
    metric
        Metric to compare.
    ours
        Our method.
    best_peer
        Best peer of each dataset, indexed by dataset.
    representation
        Embedding to compare.
    """
    rng = np.random.default_rng(0)
    chosen = of_metric(results, metric, representation=representation)
    by_run = chosen.set_index(["dataset", "method"])["value"]
    if len(by_run.loc[[(dataset, ours) for dataset in best_peer.index]]) < 2:
        return float("nan"), float("nan")
    per_dataset = np.stack(
        [
            _resampled_mean(by_run.loc[[(dataset, ours)]], rng)
            - _resampled_mean(by_run.loc[[(dataset, peer)]], rng)
            for dataset, peer in best_peer.items()
        ]
    )
    return _interval(100 * per_dataset, rng)


def paired_interval(differences: pd.Series) -> tuple[float, float]:
    """95% interval of the mean over datasets of paired differences; NaN for a single one.

    Parameters
    ----------
    differences
        One for each dataset and seed, with ``dataset`` as a level of the index. Datasets are
        resampled and, within these, seeds.
    """
    if len(differences) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    per_dataset = np.stack(
        [_resampled_mean(own, rng) for _, own in differences.groupby(level="dataset")]
    )
    return _interval(per_dataset, rng)


def _interval(
    per_dataset: NDArray[np.floating[Any]], rng: np.random.Generator
) -> tuple[float, float]:
    """95% interval of the mean over datasets, from resampled means, shape ``(n, resamples)``."""
    drawn = rng.integers(len(per_dataset), size=per_dataset.shape)
    means = np.take_along_axis(per_dataset, drawn, axis=0).mean(0)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _resampled_mean(values: pd.Series, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
    seeds = rng.integers(len(values), size=(len(values), _RESAMPLES))
    return values.to_numpy()[seeds].mean(0)
