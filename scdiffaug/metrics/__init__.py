"""Scores of embeddings and of augmented cells."""

from scdiffaug.metrics.augmentation import (
    gene_mean_correlation,
    two_sample_auc,
    type_kept,
    zero_share,
)
from scdiffaug.metrics.embedding import kmeans_accuracy, linear_svm_accuracy

__all__ = [
    "gene_mean_correlation",
    "kmeans_accuracy",
    "linear_svm_accuracy",
    "two_sample_auc",
    "type_kept",
    "zero_share",
]
