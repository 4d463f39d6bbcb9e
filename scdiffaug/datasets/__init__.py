"""Real data: a registry of datasets, where their files are, and one call to load each."""

from scdiffaug.datasets._fetch import fetch, path, whereabouts
from scdiffaug.datasets._load import load
from scdiffaug.datasets._pbmc68k import pbmc68k_reduced
from scdiffaug.datasets._registry import Entry, File, registry

__all__ = ["Entry", "File", "fetch", "load", "path", "pbmc68k_reduced", "registry", "whereabouts"]
