"""Scores of embeddings and of augmented cells."""

from scdiffaug.metrics.augmentation import augmentation_scores
from scdiffaug.metrics.cell_types import type_kept, type_kept_per_type
from scdiffaug.metrics.embedding import (
    adjusted_rand_index,
    embedding_scores,
    kmeans_accuracy,
    knn_accuracy,
    linear_svm_accuracy,
    normalized_mutual_information,
    silhouette,
)
from scdiffaug.metrics.fidelity import (
    mixing,
    mmd,
    precision_recall_density_coverage,
    two_sample_auc,
    wasserstein_2,
)
from scdiffaug.metrics.genes import (
    depth_distance,
    detected_genes_distance,
    gene_gene_correlation_agreement,
    gene_mean_correlation,
    gene_variance_correlation,
    gene_variance_ratio,
    gene_zero_share_difference,
    zero_share,
)
from scdiffaug.metrics.novelty import (
    duplicate_share,
    membership_auc,
    nearest_training_distance_ratio,
    own_source_share,
    own_source_share_of_real,
    repeat_share,
)
from scdiffaug.metrics.query import query_scores
from scdiffaug.metrics.structure import continuity, random_triplet_accuracy, trustworthiness

__all__ = [
    "adjusted_rand_index",
    "augmentation_scores",
    "continuity",
    "depth_distance",
    "detected_genes_distance",
    "duplicate_share",
    "embedding_scores",
    "gene_gene_correlation_agreement",
    "gene_mean_correlation",
    "gene_variance_correlation",
    "gene_variance_ratio",
    "gene_zero_share_difference",
    "kmeans_accuracy",
    "knn_accuracy",
    "linear_svm_accuracy",
    "membership_auc",
    "mixing",
    "mmd",
    "nearest_training_distance_ratio",
    "normalized_mutual_information",
    "own_source_share",
    "own_source_share_of_real",
    "precision_recall_density_coverage",
    "query_scores",
    "random_triplet_accuracy",
    "repeat_share",
    "silhouette",
    "trustworthiness",
    "two_sample_auc",
    "type_kept",
    "type_kept_per_type",
    "wasserstein_2",
    "zero_share",
]
