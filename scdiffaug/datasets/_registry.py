"""What is known of each dataset: ``data_registry.yaml``, read and checked line by line."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from types import GenericAlias
from typing import Any, NoReturn, get_args

import yaml

from scdiffaug.datasets._loaders import LOADERS


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


def registry(file: Path | None = None) -> dict[str, Entry]:
    """Read what is known of each dataset.

    Parameters
    ----------
    file
        A registry of your own, written like ``data_registry.yaml``; by default that one.

    Returns
    -------
    Mapping of dataset name to entry.

    Raises
    ------
    ValueError
        If a key, type or value of the file is wrong; the message names the line.

    Examples
    --------
    >>> import scdiffaug
    >>> scdiffaug.datasets.registry()["pbmc3k"].n_cells
    2638
    """
    file = _packaged() if file is None else file
    try:
        with file.open(encoding="utf-8") as stream:
            root = yaml.compose(stream, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{file} has no entries: write one dataset name per top-level key")
    entries = {name: _record(node, Entry, name=name) for name, node in _table(root).items()}
    _check_file_names(file, entries)
    return entries


def _packaged() -> Path:
    packaged = Path(str(resources.files("scdiffaug") / "data_registry.yaml"))
    # An editable install has no copy inside the package: the file stands beside it.
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "data_registry.yaml"


def _check_file_names(file: Path, entries: dict[str, Entry]) -> None:
    # Cache and mirror are one flat folder each.
    names = Counter(known.name for entry in entries.values() for known in entry.files)
    name, times = names.most_common(1)[0] if names else ("", 0)
    if times > 1:
        raise ValueError(f"{file} has {times} files named {name!r}: give each a name of its own")


def _record(node: yaml.Node, kind: type, **given: str) -> Any:
    """Make a ``kind`` from a mapping; ``given`` are the fields that the mapping does not have."""
    hints = {field.name: field.type for field in fields(kind) if field.name not in given}
    found = _table(node)
    for key, _ in node.value:
        if key.value not in hints:
            _reject(key, f"key {key.value!r} is unknown: the keys are {', '.join(hints)}")
    for name in hints:
        if name not in found:
            _reject(node, f"key {name!r} is missing: write null where it is not known")
    record = kind(**given, **{key: _value(found[key], key, hints[key]) for key in hints})
    _check_whole(record, node)
    return record


def _table(node: yaml.Node) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        _reject(node, f"found {node.value!r} where keys with values are expected")
    table: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.value in table:
            _reject(key, f"key {key.value!r} is there twice: keep one")
        table[key.value] = value
    return table


def _value(node: yaml.Node, key: str, hint: Any) -> Any:
    if isinstance(hint, GenericAlias):
        return _values(node, key, get_args(hint)[0])
    value = yaml.SafeLoader("").construct_object(node, deep=True)
    if not isinstance(value, hint) or isinstance(value, bool):
        wanted = getattr(hint, "__name__", str(hint)).replace("None", "null")
        _reject(node, f"{key} is {value!r}, expected {wanted}")
    correct, wanted = _RULES.get((key, type(value)), _ANYTHING)
    if not correct(value):
        _reject(node, f"{key} is {value!r}, expected {wanted}")
    return value


def _values(node: yaml.Node, key: str, kind: type) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        _reject(node, f"{key} is {node.value!r}, expected a list")
    if kind is File:
        return tuple(_record(item, File) for item in node.value)
    return tuple(_value(item, key, kind) for item in node.value)


def _check_whole(record: Entry | File, node: yaml.Node) -> None:
    unknown = [field.name for field in fields(record) if getattr(record, field.name) is None]
    if not record.note and unknown:
        _reject(node, f"{record.name}: say in the note why {', '.join(unknown)} is null")
    if isinstance(record, Entry):
        absent = set(record.reads) - {file.name for file in record.files}
        if absent:
            _reject(node, f"reads names {min(absent)!r}, which is not among the files: add it")


def _reject(node: yaml.Node, what: str) -> NoReturn:
    raise ValueError(f"{node.start_mark.name}, line {node.start_mark.line + 1}: {what}")


_Rule = tuple[Callable[[Any], object], str]
_ANYTHING: _Rule = (lambda _: True, "")
_IS_SPACE = {"counts", "peaks", "log", "raw"}.__contains__
_POSITIVE: _Rule = (lambda value: value > 0, "more than 0")
_RULES: dict[tuple[str, type], _Rule] = {
    ("n_cells", int): _POSITIVE,
    ("n_features", int): _POSITIVE,
    ("size", int): _POSITIVE,
    ("sha256", str): (re.compile(r"[0-9a-f]{64}").fullmatch, "64 digits 0-9 a-f"),
    ("md5", str): (re.compile(r"[0-9a-f]{32}").fullmatch, "32 digits 0-9 a-f"),
    ("url", str): (re.compile(r"https?://.+").fullmatch, "an address of http or https"),
    # A name that leads elsewhere would be written outside the cache.
    ("name", str): (re.compile(r"(?!\.)[^/\\]+").fullmatch, "a file name without a folder"),
    ("feature_space", str): (_IS_SPACE, "counts, peaks, log or raw"),
    ("loader", str): (LOADERS.__contains__, f"one of {', '.join(LOADERS)}"),
}
