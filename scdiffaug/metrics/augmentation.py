"""All scores of augmented cells at once: fidelity, type kept, novelty."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from scdiffaug.metrics import cell_types, fidelity, genes, novelty
from scdiffaug.metrics._inputs import Values, checked_labels

Scores = dict[str, float]
# Fewest cells of a type that can be the worst: shares of fewer are too uncertain.
_MIN_CELLS_OF_WORST = 20


def augmentation_scores(
    real: Values,
    made: Values,
    *,
    counts: tuple[Values, Values] | None = None,
    labels: ArrayLike | None = None,
    expected: ArrayLike | None = None,
    training: Values | None = None,
    sources: ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Scores of fidelity, of types kept and of novelty in one table, as the benchmark has them.

    Scores mean little without those of real cells: call it a second time with other real cells as
    ``made``.

    Parameters
    ----------
    real, made
        Log-normalised real and augmented cells, shapes ``(n, d)`` and ``(m, d)``.
    counts
        Counts of both; adds the distance of their depths.
    labels, expected
        Types of the real cells, shape ``(n,)``, and of the sources of the augmented ones, shape
        ``(m,)``; adds by two judges whether types are kept: the share of all cells, of the worst
        type of at least 20 cells (``_worst``) and of each type (``/type``).
    training
        Cells that the generator learnt from, shape ``(t, d)``, to which ``real`` must not belong;
        adds how new the augmented cells are and what they reveal.
    sources
        Row in ``training`` of the source of each augmented cell, shape ``(m,)``; adds the share
        of cells that are nearest to it.
    seed
        Seed of all judges and draws.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If features differ, one of ``labels`` and ``expected`` is missing, or cells are too few.

    Examples
    --------
    >>> import numpy as np
    >>> from scdiffaug.metrics import augmentation_scores
    >>> training, real, made = np.random.default_rng(0).random((3, 60, 8))
    >>> scores = augmentation_scores(real, made, training=training, sources=np.arange(60))
    >>> scores["duplicates_exact"], scores["zero_share"]
    (0.0, 0.0)
    """
    if (labels is None) != (expected is None):
        raise ValueError(
            "labels and expected belong together, the types of real cells and of the sources: "
            "pass both or neither."
        )
    if sources is not None and training is None:
        raise ValueError("sources are rows of training: pass training too, or leave both out.")
    if counts is not None and (not isinstance(counts, tuple) or len(counts) != 2):
        raise TypeError("counts must be a pair, those of the real and of the augmented cells.")
    if labels is not None and len(np.unique(np.asarray(labels, dtype=str))) < 2:
        raise ValueError("labels names one type alone, to which all cells are kept: pass more.")
    scores = fidelity_scores(real, made, counts=counts, seed=seed)
    if labels is not None and expected is not None:
        scores |= type_scores(real, labels, made, expected=expected, seed=seed)
    if training is not None:
        scores |= novelty_scores(training, real, made, sources=sources, seed=seed)
    return scores


def fidelity_scores(
    real: Values, made: Values, *, counts: tuple[Values, Values] | None, seed: int
) -> Scores:
    """Scores of distributions, genes and libraries; arguments as of all scores."""
    of_pairs = genes.gene_gene_correlation_agreement(real, made)
    scores = {
        "two_sample_auc": fidelity.two_sample_auc(real, made, seed=seed),
        "two_sample_auc_pca": fidelity.two_sample_auc(real, made, n_pcs=50, seed=seed),
        "mmd": fidelity.mmd(real, made, seed=seed),
        "wasserstein_2": fidelity.wasserstein_2(real, made, seed=seed),
        **fidelity.precision_recall_density_coverage(real, made, seed=seed),
        "mixing": fidelity.mixing(real, made, seed=seed),
        "gene_mean_correlation": genes.gene_mean_correlation(real, made),
        "gene_variance_correlation": genes.gene_variance_correlation(real, made),
        "gene_variance_ratio": genes.gene_variance_ratio(real, made),
        "gene_gene_pearson": of_pairs["pearson"],
        "gene_gene_difference": of_pairs["mean_absolute_difference"],
        "zero_share": genes.zero_share(made),
        "gene_zero_share_difference": genes.gene_zero_share_difference(real, made),
        "detected_genes_distance": genes.detected_genes_distance(real, made),
    }
    if counts is not None:
        scores["depth_distance"] = genes.depth_distance(*counts)
    return scores


def type_scores(
    real: Values, labels: ArrayLike, made: Values, *, expected: ArrayLike, seed: int
) -> Scores:
    """Share of cells that keep their type: overall, of the worst type, of every type."""
    wanted = checked_labels(expected, made, name="expected", of="made")
    names, sizes = np.unique(wanted, return_counts=True)
    scores: Scores = {}
    for judge in ("neighbors", "logistic"):
        kept = cell_types.type_kept_per_type(
            real, labels, made, expected=wanted, judge=judge, seed=seed
        )
        name = f"type_kept_{judge}"
        scores[name] = float(np.average([kept[str(each)] for each in names], weights=sizes))
        large = [kept[str(each)] for each in names[sizes >= _MIN_CELLS_OF_WORST]]
        if large:
            scores[f"{name}_worst"] = min(large)
        scores |= {f"{name}/{each}": share for each, share in kept.items()}
    return scores


def novelty_scores(
    training: Values, held_out: Values, made: Values, *, sources: ArrayLike | None, seed: int
) -> Scores:
    """How new cells are, and what they reveal; ``sources`` are rows of ``training``."""
    shares = novelty.duplicate_share(training, held_out, made, seed=seed)
    ratio = novelty.nearest_training_distance_ratio(training, held_out, made, seed=seed)
    scores = {
        "nearest_training_distance_ratio": ratio,
        "duplicates_exact": shares["exact"],
        "duplicates_near": shares["near"],
        "membership_auc": novelty.membership_auc(training, held_out, made, seed=seed),
    }
    if sources is not None:
        own = novelty.own_source_share(training, made, sources=sources, seed=seed)
        scores["own_source_share"] = own
    return scores
