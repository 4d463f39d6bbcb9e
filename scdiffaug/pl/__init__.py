"""Plots, with scanpy's conventions: cells, training, genes, and results of benchmarks."""

from scdiffaug.pl._benchmark import benchmark_heatmap, benchmark_ranks
from scdiffaug.pl._cells import augmentation, embedding
from scdiffaug.pl._genes import gene_agreement
from scdiffaug.pl._quality import benchmark_quality
from scdiffaug.pl._training import history

__all__ = [
    "augmentation",
    "benchmark_heatmap",
    "benchmark_quality",
    "benchmark_ranks",
    "embedding",
    "gene_agreement",
    "history",
]
