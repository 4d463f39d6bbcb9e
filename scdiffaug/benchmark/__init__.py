"""Benchmarks: peers and ours on one's own data, in one run, from one command."""

from scdiffaug.benchmark._embedding import embedding
from scdiffaug.benchmark.methods import DEFAULT, METHODS, Method

__all__ = ["DEFAULT", "METHODS", "Method", "embedding"]
