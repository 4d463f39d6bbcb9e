"""Find arrays by name inside an R object file, whatever classes are around them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_named(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read the first numbers, strings or factor of each name, in the order of the file.

    Bioconductor has changed its classes between releases, but not the names inside them.

    Raises
    ------
    ImportError
        If the package ``rdata`` is not installed.
    ValueError
        If a name is not in the file.
    """
    try:
        from rdata import parser
    except ImportError as error:
        raise ImportError("R files need rdata: pip install 'scdiffaug[datasets]'") from error
    found: dict[str, NDArray[Any]] = {}
    for name, node in _walk(parser.parse_file(path).object):
        if name in names and name not in found and node.info.type.name in {"INT", "REAL", "STR"}:
            found[name] = _array(node)
    absent = [name for name in names if name not in found]
    if absent:
        raise ValueError(f"{path} has no {absent[0]!r}: fetch it again")
    return found


def _walk(node: Any) -> Iterator[tuple[str, Any]]:
    """Every named object, the outer ones first."""
    for name, child in _children(node):
        yield name, child
        yield from _walk(child)


# An enclosing environment is no part of an environment, and references lead back to known nodes.
def _children(node: Any) -> Iterator[tuple[str, Any]]:
    kind = node.info.type.name
    if node.attributes is not None:
        yield from _children(node.attributes)
    if kind == "LIST":
        yield _text(node.tag), node.value[0]
        yield from _children(node.value[1])
    elif kind == "ENV":
        for content in (node.value.frame, node.value.hash_table):
            yield from _children(content)
    elif kind == "VEC":
        names = dict(_children(node.attributes)).get("names") if node.attributes else None
        known = [_text(name) for name in names.value] if names else [""] * len(node.value)
        yield from zip(known, node.value, strict=True)


def _array(node: Any) -> NDArray[Any]:
    about = dict(_children(node.attributes)) if node.attributes else {}
    if node.info.type.name == "STR":
        return np.array([_text(value) for value in node.value])
    if "levels" in about:
        return _array(about["levels"])[np.asarray(node.value) - 1]
    values = np.asarray(node.value)
    # R stores the first axis fastest.
    return values.reshape(about["dim"].value, order="F") if "dim" in about else values


def _text(node: Any) -> str:
    """The text of a string or a symbol; empty where there is none."""
    if node is not None and node.info.type.name == "REF":
        node = node.referenced_object
    if node is None or node.value is None:
        return ""
    value = node.value if node.info.type.name == "CHAR" else node.value.value
    return "" if value is None else bytes(value).decode()
