"""How the long tables of the benchmarks are read: scores, costs and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd

from scdiffaug._checks import check_is

Along = Literal["steps", "strength"]

# Best possible value of each score; None: the value for real cells.
IDEAL_EMBEDDING: Mapping[str, float | None] = {
    "linear_svm_accuracy": 1,
    "knn_accuracy": 1,
    "kmeans_accuracy": 1,
    "adjusted_rand_index": 1,
    "normalized_mutual_information": 1,
    "silhouette": 1,
    "trustworthiness": 1,
    "continuity": 1,
    "random_triplet_accuracy": 1,
}
# The same for scores of new cells, by the tables in which they stand.
IDEAL_BY_TABLE: Mapping[str, Mapping[str, float | None]] = {
    "distribution": {
        "two_sample_auc": 0.5,
        "two_sample_auc_pca": 0.5,
        "mmd": 0,
        "wasserstein_2": 0,
        "precision": 1,
        "recall": 1,
        "density": 1,
        "coverage": 1,
        "mixing": 1,
    },
    "genes and libraries": {
        "gene_mean_correlation": 1,
        "gene_variance_correlation": 1,
        "gene_variance_ratio": 1,
        "gene_gene_pearson": 1,
        "gene_gene_difference": 0,
        "zero_share": None,
        "gene_zero_share_difference": 0,
        "detected_genes_distance": 0,
        "depth_distance": 0,
    },
    "types kept": {
        "type_kept_neighbors": 1,
        "type_kept_neighbors_worst": 1,
        "type_kept_logistic": 1,
        "type_kept_logistic_worst": 1,
    },
    "novelty": {
        "nearest_training_distance_ratio": 1,
        "duplicates_exact": 0,
        "duplicates_near": 0,
        "own_source_share": 0,
        "membership_auc": 0.5,
    },
    "use": {
        "macro_f1_5": 1,
        "macro_f1_10": 1,
        "macro_f1_25": 1,
        "macro_f1_50": 1,
    },
}
IDEAL: Mapping[str, float | None] = {
    metric: ideal for table in IDEAL_BY_TABLE.values() for metric, ideal in table.items()
}

# Settings that also name a solver or smoothing do not match: such rows are on no axis.
_OUR_SETTINGS = r"^steps=(?P<steps>\S+) strength=(?P<strength>\S+)$"

# Real cells in place of new ones, no new cells at all, and labels that the classifier gives to
# unlabelled cells: yardsticks, not methods.
REFERENCES = ("real", "none", "self_training")


_COLUMNS = ("dataset", "method", "metric", "value")


def check(
    results: pd.DataFrame,
    *,
    setting: str | None = None,
    metric: str | None = None,
    columns: Sequence[str] = (),
) -> str:
    """Check that a table has what is asked of it.

    Parameters
    ----------
    results
        Long table of a benchmark.
    setting
        Representation or setting; by default that of most interest.
    metric
        A score that must be there; any by default.
    columns
        Further columns that must be there.

    Returns
    -------
    The setting.

    Raises
    ------
    KeyError
        If a column, the setting or the metric is missing.
    TypeError
        If it is not a table.
    """
    check_is("results", results, pd.DataFrame, advice="pass what the benchmark returned")
    column = setting_column(results)
    for name in (*_COLUMNS, column, *columns):
        _require(name, results.columns, found=f"column {name!r}")
    setting = setting or ("2d" if column == "representation" else "held_out")
    found = results.dropna(subset=["value"])
    _require(setting, found[column].unique(), found=f"setting={setting!r}")
    if metric is not None:
        found = found[found[column] == setting]
        _require(metric, found["metric"].unique(), found=f"metric={metric!r}")
    return setting


def _require(name: str, known: Sequence[str], *, found: str) -> None:
    if name not in known:
        raise KeyError(f"{found} not found in results: they have {list(known)}.")


def setting_column(results: pd.DataFrame) -> str:
    """Column that says what was scored: a representation, or a setting of new cells."""
    return "representation" if "representation" in results else "setting"


def scored(results: pd.DataFrame, *, setting: str) -> pd.DataFrame:
    """Rows of one setting that have a score, those of single types left out."""
    rows = results[(results[setting_column(results)] == setting) & results["value"].notna()]
    # Other rows have an empty text, which a CSV file brings back as missing.
    return rows[rows["type"].fillna("") == ""] if "type" in rows else rows


def of_metric(results: pd.DataFrame, metric: str, *, setting: str) -> pd.DataFrame:
    """Rows of one metric in one setting that have a score."""
    rows = scored(results, setting=setting)
    return rows[rows["metric"] == metric]


def mean_scores(results: pd.DataFrame, metric: str, *, setting: str) -> pd.DataFrame:
    """Means over seeds, datasets in rows and methods in columns.

    Parameters
    ----------
    results
        Long table with columns dataset, method, metric, value, and representation or setting.
    metric, setting
        Which of its scores.
    """
    rows = of_metric(results, metric, setting=setting)
    return rows.pivot_table(index="dataset", columns="method", values="value")


def metrics_of(results: pd.DataFrame, *, setting: str) -> list[str]:
    """Metrics that have scores in a setting, in the order of the table."""
    return list(scored(results, setting=setting)["metric"].unique())


def ranks(results: pd.DataFrame, metric: str, *, setting: str) -> pd.DataFrame:
    """Rank of each method on each dataset, 1 being the best, references left out.

    Parameters
    ----------
    results, metric, setting
        As in :func:`mean_scores`.
    """
    scores = mean_scores(results, metric, setting=setting)
    methods = costs(scores, metric).drop(columns=list(REFERENCES), errors="ignore")
    return methods.rank(axis=1)


def costs(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """How far scores are from the best there could be; lower is better.

    Parameters
    ----------
    scores
        Scores of one metric, datasets in rows and methods in columns.
    metric
        Which one.

    Raises
    ------
    KeyError
        If the metric is unknown, or is judged by real cells and these have no score.
    """
    known = {**IDEAL_EMBEDDING, **IDEAL}
    if metric not in known:
        raise KeyError(f"metric={metric!r} is unknown: use one of {list(known)}.")
    ideal = known[metric]
    if ideal is not None:
        return (scores - ideal).abs()
    if "real" not in scores:
        raise KeyError(f"metric={metric!r} is judged by the method 'real', which has no scores.")
    return scores.sub(scores["real"], axis=0).abs()


def along(results: pd.DataFrame, axis: Along) -> pd.DataFrame:
    """Rows of our generator in which only ``axis`` differs, its value in the column ``at``.

    Parameters
    ----------
    results
        Long table of scores of new cells.
    axis
        ``"steps"`` or ``"strength"``; the other has the value that most methods have.
    """
    other = "strength" if axis == "steps" else "steps"
    settings = results["settings"].fillna("").str.extract(_OUR_SETTINGS).astype(float)
    rows = results.assign(at=settings[axis], other=settings[other]).dropna(subset=["at"])
    usual = rows.drop_duplicates("method")["other"].mode()
    return rows[rows["other"].isin(usual[:1])].drop(columns="other")
