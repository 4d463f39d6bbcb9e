"""Scores of embeddings and of augmented cells."""

from scdiffaug.metrics.augmentation import (
    gene_mean_correlation,
    two_sample_auc,
    type_kept,
    zero_share,
)
from scdiffaug.metrics.embedding import (
    adjusted_rand_index,
    continuity,
    embedding_scores,
    kmeans_accuracy,
    knn_accuracy,
    linear_svm_accuracy,
    normalized_mutual_information,
    random_triplet_accuracy,
    silhouette,
    trustworthiness,
)

__all__ = [
    "adjusted_rand_index",
    "continuity",
    "embedding_scores",
    "gene_mean_correlation",
    "kmeans_accuracy",
    "knn_accuracy",
    "linear_svm_accuracy",
    "normalized_mutual_information",
    "random_triplet_accuracy",
    "silhouette",
    "trustworthiness",
    "two_sample_auc",
    "type_kept",
    "zero_share",
]
