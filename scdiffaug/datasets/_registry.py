"""What is known of each dataset: ``data_registry.yaml``, whose entries the tests check."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class File:
    """One file of a dataset; what is not known is ``None``, and the note says why.

    Attributes
    ----------
    name
        Name in the local mirror and in the cache, unique within the registry.
    url
        Address for a direct download.
    size
        Bytes.
    sha256, md5
        Checksums in hexadecimal.
    note
        Where it comes from, and why something is not known.

    Examples
    --------
    >>> import scdiffaug
    >>> [file.name for file in scdiffaug.datasets.registry()["pbmc3k"].files]
    ['pbmc3k_named.h5ad']
    """

    name: str
    url: str | None
    size: int | None
    sha256: str | None
    md5: str | None
    note: str | None


@dataclass(frozen=True)
class Entry:
    """One dataset; what is not known is ``None``, and the note says why.

    Attributes
    ----------
    name
        Name to pass to :func:`~scdiffaug.datasets.load`.
    title, organism, assay, licence, citation
        What the data are, and whose.
    n_cells, n_features
        Shape of the whole AnnData.
    label_key, batch_key
        Columns of ``obs`` with the true cell types and the batches.
    feature_space
        ``"counts"``, ``"peaks"``, ``"log"`` or ``"raw"`` (as measured).
    note
        What to know before using it, and why something is not known.
    loader
        Name of the function that makes the AnnData.
    reads
        Names of the files that the loader reads, in the order in which it takes them.
    files
        All files.

    Examples
    --------
    >>> import scdiffaug
    >>> entry = scdiffaug.datasets.registry()["pbmc3k"]
    >>> entry.n_cells, entry.n_features, entry.label_key
    (2638, 13714, 'cell_type')
    """

    name: str
    title: str
    organism: str | None
    assay: str | None
    n_cells: int | None
    n_features: int | None
    label_key: str | None
    batch_key: str | None
    feature_space: str | None
    licence: str | None
    citation: str | None
    note: str | None
    loader: str
    reads: tuple[str, ...]
    files: tuple[File, ...]


def registry() -> dict[str, Entry]:
    """Read what is known of each dataset.

    Returns
    -------
    Mapping of dataset name to entry.

    Examples
    --------
    >>> import scdiffaug
    >>> scdiffaug.datasets.registry()["pbmc3k"].n_cells
    2638
    """
    known = yaml.safe_load(_packaged().read_text(encoding="utf-8"))
    return {name: _entry(name, **fields) for name, fields in known.items()}


def _packaged() -> Path:
    packaged = Path(str(resources.files("scdiffaug") / "data_registry.yaml"))
    # An editable install has no copy inside the package: the file stands beside it.
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "data_registry.yaml"


def _entry(name: str, *, reads: list[str], files: list[dict[str, Any]], **fields: Any) -> Entry:
    made = tuple(File(**file) for file in files)
    return Entry(name=name, reads=tuple(reads), files=made, **fields)
