"""Checks of arguments: each error names the argument, what was found and what is allowed."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np

# The limit of scikit-learn, the lowest of all generators that seeds go to.
_LARGEST_SEED = 2**32 - 1


def shown(value: object) -> str:
    """A value in a message; of an array its shape, as it may hold thousands of numbers."""
    shape = getattr(value, "shape", None)
    return f"<{type(value).__name__} of shape {shape}>" if shape else repr(value)


def as_whole(value: Any) -> Any:
    """1e4, as people write 10,000, as a whole number; all else as it is."""
    is_whole = isinstance(value, float | np.floating) and value.is_integer()
    return int(value) if is_whole else value


def check_whole(name: str, value: object, *, at_least: int = 1, at_most: int | None = None) -> int:
    """Check a whole number, and return it as a Python int, as JSON cannot hold NumPy's.

    Raises
    ------
    TypeError
        If it is not a whole number.
    ValueError
        If it is out of range.
    """
    allowed = f"at least {at_least}" + ("" if at_most is None else f" and at most {at_most}")
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(
            f"{name}={shown(value)} must be a whole number, {allowed}; it is of type "
            f"{type(value).__name__}."
        )
    number = int(value)
    if number < at_least or (at_most is not None and number > at_most):
        raise ValueError(f"{name}={value} must be {allowed}.")
    return number


def check_number(
    name: str,
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> float:
    """Check a finite number, and return it as a Python float.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is out of range, NaN or infinite.
    """
    bounds = {"at least": at_least, "above": above, "at most": at_most}
    given = {word: bound for word, bound in bounds.items() if bound is not None}
    allowed = " and ".join(f"{word} {bound}" for word, bound in given.items())
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(
            f"{name}={shown(value)} must be a number, {allowed}; it is of type "
            f"{type(value).__name__}."
        )
    number = float(value)
    if not math.isfinite(number):
        allowed = f"finite and {allowed}"
    is_low = at_least is not None and number < at_least
    is_low = is_low or (above is not None and number <= above)
    if not math.isfinite(number) or is_low or (at_most is not None and number > at_most):
        raise ValueError(f"{name}={value} must be {allowed}.")
    return number


def is_one_of(value: object, names: Collection[str]) -> bool:
    """As ``in``, but safe for arrays and Series, which compare each of their values."""
    return isinstance(value, str) and value in names


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check one of a few names; ValueError if it is none of them."""
    if not is_one_of(value, choices):
        *first, last = map(repr, choices)
        raise ValueError(f"{name}={shown(value)} is unknown: use {', '.join(first)} or {last}.")


def check_name(argument: str, name: object, *, advice: str = "") -> None:
    """Check a name; TypeError, with the advice, if it is not a string, ValueError if empty."""
    if not isinstance(name, str):
        raise TypeError(
            f"{argument}={shown(name)} must be one name, a str, not {type(name).__name__}{advice}."
        )
    if not name:
        raise ValueError(f"{argument} is empty: pass a name.")


def check_key_added(key: object) -> None:
    """Check a key of obsm to write; as :func:`check_name`, and ValueError for a slash."""
    check_name("key_added", key)
    if "/" in str(key):
        raise ValueError(f"key_added={key!r} has a slash, which no file can hold: leave it out.")


def check_flag(name: str, value: object) -> None:
    """Check a truth value; TypeError if it is something else."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={shown(value)} must be True or False.")


def check_seed(value: object) -> int:
    """Check a seed; TypeError or ValueError as in :func:`check_whole`."""
    return check_whole("seed", value, at_least=0, at_most=_LARGEST_SEED)


def check_path(name: str, value: object) -> None:
    """Check a path; TypeError if it is not one, ValueError if it is empty."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(
            f"{name}={shown(value)} must be a path, a str or a Path; it is of type "
            f"{type(value).__name__}."
        )
    if not os.fspath(value):
        raise ValueError(f"{name} is empty: name a file or a folder.")


def check_is(name: str, value: object, wanted: type, *, advice: str) -> None:
    """Check the class of an object; TypeError, ending in the advice, if it is another."""
    if not isinstance(value, wanted):
        raise TypeError(
            f"{name} must be of type {wanted.__name__}, found {type(value).__name__}: {advice}."
        )


def check_cells(name: str, value: object) -> None:
    """Check an AnnData; TypeError if it is none (e.g. a MuData), ValueError if it is empty."""
    # Imported here, since `scdiffaug --help` checks arguments too and must not wait for anndata.
    from anndata import AnnData

    modalities = getattr(value, "mod", None)
    if isinstance(modalities, Mapping):
        raise TypeError(
            f"{name} is a MuData with the modalities {list(modalities)}: pass one of them, e.g. "
            f"mdata[{next(iter(modalities), 'rna')!r}]."
        )
    is_path = isinstance(value, str | PathLike)
    read, put = "read it with scanpy.read_h5ad", "put the matrix into anndata.AnnData(x)"
    check_is(name, value, AnnData, advice=read if is_path else put)
    assert isinstance(value, AnnData)
    if value.n_obs == 0:
        raise ValueError(f"{name} is empty: found 0 cells x {value.n_vars} features.")
