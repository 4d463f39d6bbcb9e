"""Saved models: weights as safetensors, all else as JSON, so that no file can run code."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from anndata import AnnData
from anndata.io import write_h5ad
from torch import Tensor

SCHEMA_VERSION = 20
_WEIGHTS, _DESCRIPTION, _ADATA = "model.safetensors", "model.json", "adata.h5ad"
# By Finder and Jupyter.
_LEFT_BEHIND = {".DS_Store", ".ipynb_checkpoints"}
# A million names take 20 MB; the names and shapes of a model's weights some 10 kB.
_LARGEST_DESCRIPTION = 256 * 2**20
_LARGEST_HEADER = 2**20
_Role = Literal["new", "old"]

logger = logging.getLogger("scdiffaug")


def write_model(
    folder: Path,
    weights: Mapping[str, Tensor],
    description: Mapping[str, Any],
    *,
    adata: AnnData | None,
    overwrite: bool,
) -> None:
    """Write a model's folder beside its place, then rename it there.

    Raises
    ------
    FileExistsError
        If the folder exists and ``overwrite`` is false, or holds anything but a saved model.
    PermissionError
        If the folder that it is in may not be written to.
    ValueError
        If weights are NaN or infinite.
    """
    folder = folder.resolve()
    if folder.exists():
        if not overwrite:
            raise FileExistsError(f"{folder} exists already: pass overwrite=True to replace it.")
        _check_holds_a_model_alone(folder)
    if spoiled := _not_finite(weights):
        raise ValueError(f"The weights {spoiled!r} are NaN or infinite: train the model again.")
    content = safetensors.torch.save(dict(weights))
    with written_aside(folder) as aside:
        (aside / _WEIGHTS).write_bytes(content)
        if adata is not None:
            # AnnData's own method would back the AnnData by the new file.
            write_h5ad(aside / _ADATA, adata)
        digest = None if adata is None else _file_sha256(aside / _ADATA)
        text = json.dumps(sealed({**description, "adata_sha256": digest}, content), indent=1)
        (aside / _DESCRIPTION).write_text(text, encoding="utf-8")


def sealed(description: Mapping[str, Any], weights: bytes) -> dict[str, Any]:
    """A description with its versions, and the sha256 of itself and of the weights' file."""
    body = {
        **description,
        "schema_version": SCHEMA_VERSION,
        "saved_by": f"scdiffaug {version('scdiffaug')}",
        "weights_sha256": sha256(weights),
    }
    return {**body, "description_sha256": _digest(body)}


def sha256(content: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(body: Mapping[str, Any]) -> str:
    return sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def _check_holds_a_model_alone(folder: Path) -> None:
    """Raise FileExistsError if what is replaced is a file, or holds files of others."""
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is not a saved model, but a file: name a folder.")
    names = contents(folder)
    # Without a model, even an adata.h5ad is somebody's own.
    others = names - {_WEIGHTS, _DESCRIPTION, _ADATA} if _DESCRIPTION in names else names
    if others:
        raise FileExistsError(
            f"{folder} is not a saved model alone, but holds {min(others)!r} too, which would be "
            "lost: name another folder."
        )


def damaged(folder: Path, why: object) -> ValueError:
    """The error for a saved model that cannot be right."""
    return ValueError(
        f"The model in {folder} is damaged: {why}. Save it again, or copy it whole from where it "
        "came."
    )


def read_description(folder: Path) -> dict[str, Any]:
    """Read what :func:`write_model` wrote beside the weights.

    Raises
    ------
    FileNotFoundError
        If there is no saved model in the folder.
    ValueError
        If it was saved by another version, or the file is damaged.
    """
    if not os.path.lexists(folder / _DESCRIPTION):
        raise FileNotFoundError(
            f"{folder} holds no saved scDiffAug model: name the folder that save made."
        )
    content = _content(folder, _DESCRIPTION, at_most=_LARGEST_DESCRIPTION)
    try:
        saved = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(folder, f"{_DESCRIPTION} is not JSON ({error})") from error
    _check_seal(folder, saved)
    return saved


def _check_seal(folder: Path, saved: Any) -> None:
    if not isinstance(saved, dict):
        raise damaged(folder, f"{_DESCRIPTION} holds no JSON object")
    schema = saved.get("schema_version")
    if schema != SCHEMA_VERSION or isinstance(schema, bool):
        maker = f" ({saved['saved_by']})" if isinstance(saved.get("saved_by"), str) else ""
        raise ValueError(
            f"The model in {folder} has schema version {schema!r}{maker}, this scdiffaug reads "
            f"{SCHEMA_VERSION}: load it with the version that saved it, or train it again."
        )
    body = {name: value for name, value in saved.items() if name != "description_sha256"}
    if saved.get("description_sha256") != _digest(body):
        raise damaged(folder, f"{_DESCRIPTION} is not what was saved (its sha256 differs)")


def read_weights(
    folder: Path, digest: object, *, expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Read the weights.

    Parameters
    ----------
    folder
        Folder of the model.
    digest
        sha256 of the file, as the description has it.
    expected
        Tensors of the right names, shapes and types; their values are not looked at.

    Raises
    ------
    ValueError
        If the file is damaged, or holds other weights.
    """
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    content = _content(folder, _WEIGHTS, at_most=n_bytes + _LARGEST_HEADER)
    if sha256(content) != digest:
        raise damaged(folder, f"{_WEIGHTS} is not what was saved (its sha256 differs)")
    try:
        weights = safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise damaged(folder, f"{_WEIGHTS} is not of this format ({error})") from error
    if differs := difference(weights, expected):
        raise damaged(folder, f"{_WEIGHTS} {differs}")
    return weights


def _content(folder: Path, name: str, *, at_most: int) -> bytes:
    # A link is followed, as Hugging Face's cache is made of them: what it leads to is only read,
    # within bounds, and refused unless the digest knew its content.
    path = folder / name
    if not path.is_file():
        raise damaged(folder, f"{name} is missing or not a file (a folder, a pipe)")
    # One byte too many tells a file that grows, or hides its size, from one that fits.
    with path.open("rb") as file:
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise damaged(folder, f"{name} is larger than the {at_most} bytes it can need")
    return content


def difference(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """What is wrong with the weights, in words."""
    for word, names in (("lacks", expected.keys() - weights), ("adds", weights.keys() - expected)):
        if names:
            return f"{word} {len(names)} weights, e.g. {min(names)!r}"
    for name, wanted in expected.items():
        found = weights[name]
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            return (
                f"has {name!r} as {found.dtype} of shape {tuple(found.shape)}, not "
                f"{wanted.dtype} of shape {tuple(wanted.shape)}"
            )
    spoiled = _not_finite(weights)
    return f"has NaN or infinite values in {spoiled!r}" if spoiled else None


def _not_finite(weights: Mapping[str, Tensor]) -> str | None:
    return next((name for name, part in weights.items() if not part.isfinite().all()), None)


def saved_adata(folder: Path, digest: str | None) -> Path | None:
    """Where the AnnData saved with a model is, if one was; ``digest`` as in the description.

    Raises
    ------
    ValueError
        If the file is missing or is not the one that was saved.
    """
    if digest is None:
        return None
    path = folder / _ADATA
    if not path.is_file():
        raise damaged(folder, f"{_ADATA} is missing or not a file")
    if _file_sha256(path) != digest:
        raise damaged(folder, f"{_ADATA} is not what was saved (its sha256 differs)")
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the place and rename, so that no interruption leaves half a file.

    Raises
    ------
    PermissionError
        If the folder may not be written to.
    """
    with _workshop(path) as aside:
        # The name stays: savefig chooses the format by its suffix.
        write(aside / path.name)
        os.replace(aside / path.name, path)


def check_writable(folder: Path) -> None:
    """Make a folder if there is none; PermissionError if nothing can be written there."""
    with _permission_errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def _permission_errors_named(folder: Path) -> Iterator[None]:
    """Say which folder may not be written to, rather than which file aside."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise PermissionError(
            f"{folder} cannot be written to: name another folder, or change who may write there."
        ) from error


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder`` once it is written whole."""
    with _permission_errors_named(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with _workshop(folder) as aside:
        yield aside
        _put_in_place(aside, folder)


@contextmanager
def _workshop(place: Path) -> Iterator[Path]:
    """Yield an empty folder beside a place, which is removed in the end.

    Those that killed processes left there are swept up first.
    """
    with _permission_errors_named(place.parent):
        for left in _beside(place, "new"):
            _sweep(left)
        aside, lock = _locked_beside(place)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        _unlock(lock)


def contents(folder: Path) -> set[str]:
    """Names in a folder, but for what desktops leave behind; none if there is no folder."""
    return {path.name for path in folder.iterdir()} - _LEFT_BEHIND if folder.exists() else set()


def is_left_aside(folder: Path) -> bool:
    """Whether overwriting was killed midway, so that what was before it is all there is."""
    return not folder.exists() and bool(_waiting(folder))


def standing(folder: Path) -> Path:
    """The folder of a model, or the one before it if overwriting was killed midway."""
    waiting = [] if folder.exists() else _waiting(folder)
    if not waiting:
        return folder
    logger.warning(
        "%s is missing as a save was interrupted: reading what it was to replace, %s.",
        folder,
        waiting[-1],
    )
    return waiting[-1]


def _put_in_place(aside: Path, folder: Path) -> None:
    if folder.exists():
        # A full folder cannot be renamed over another: the old one waits until the new one stands.
        old = _new_name(folder, "old")
        os.rename(folder, old)
        try:
            os.rename(aside, folder)
        except OSError:
            os.rename(old, folder)
            raise
    else:
        os.rename(aside, folder)
    for old in _beside(folder, "old"):
        shutil.rmtree(old, ignore_errors=True)


def _waiting(folder: Path) -> list[Path]:
    """Folders that were being replaced, the last one last."""
    found = [path for path in _beside(folder, "old") if any(path.iterdir())]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def _locked_beside(place: Path) -> tuple[Path, int | None]:
    while True:
        made = _new_name(place, "new")
        # mkdtemp would keep the model from all but its owner.
        made.mkdir()
        lock = _lock(made, waits=True)
        # Another process may have swept it up before it was locked.
        if made.is_dir():
            return made, lock
        _unlock(lock)


def _new_name(place: Path, role: _Role) -> Path:
    return place.with_name(f".{place.name}.{role}-{secrets.token_hex(4)}")


def _beside(place: Path, role: _Role) -> list[Path]:
    """Folders with names of :func:`_new_name` for this place, and none that begins like it."""
    name = re.compile(rf"\.{re.escape(place.name)}\.{role}-\w{{8}}")
    siblings = place.parent.iterdir() if place.parent.is_dir() else ()
    return [path for path in siblings if name.fullmatch(path.name)]


def _sweep(left: Path) -> None:
    """Remove a folder, unless the process that writes there is alive."""
    lock = _lock(left)
    if lock is not None:
        shutil.rmtree(left, ignore_errors=True)
    _unlock(lock)


def _lock(folder: Path, *, waits: bool = False) -> int | None:
    """Lock a folder until :func:`_unlock` or a kill; None if that is not possible."""
    handle = None
    try:
        # Windows and some network file systems have no locks: there nothing is swept up.
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except (ImportError, OSError):
        _unlock(handle)
        return None
    return handle


def _unlock(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
