"""Saved models: weights as safetensors, all else as JSON, so that no file can run code."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from anndata import AnnData
from torch import Tensor

SCHEMA_VERSION = 1
_WEIGHTS, _DESCRIPTION, _ADATA = "model.safetensors", "model.json", "adata.h5ad"


def write_model(
    folder: Path,
    weights: dict[str, Tensor],
    description: dict[str, Any],
    *,
    adata: AnnData | None,
    overwrite: bool,
) -> None:
    """Write a model's folder beside its place, then rename it there.

    Raises
    ------
    FileExistsError
        If the folder exists and ``overwrite`` is false, or is not a saved model.
    """
    if folder.exists():
        if not overwrite:
            raise FileExistsError(f"{folder} exists already: pass overwrite=True to replace it.")
        if not (folder / _DESCRIPTION).is_file() and any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not a saved model: it is not overwritten.")
    with written_aside(folder) as aside:
        safetensors.torch.save_file(weights, aside / _WEIGHTS)
        text = json.dumps({"schema_version": SCHEMA_VERSION, **description}, indent=1)
        (aside / _DESCRIPTION).write_text(text, encoding="utf-8")
        if adata is not None:
            adata.write_h5ad(aside / _ADATA)


def read_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and description.

    Raises
    ------
    FileNotFoundError
        If there is no saved model in the folder.
    ValueError
        If it was saved by a newer version or the files are damaged.
    """
    if not (folder / _DESCRIPTION).is_file():
        raise FileNotFoundError(f"{folder} holds no saved scDiffAug model ({_DESCRIPTION}).")
    try:
        description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        weights = safetensors.torch.load_file(folder / _WEIGHTS)
    except (json.JSONDecodeError, UnicodeDecodeError, safetensors.SafetensorError) as error:
        raise ValueError(f"The model in {folder} is damaged: {error}. Save it again.") from error
    if description.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"The model in {folder} has schema version {description.get('schema_version')!r}, "
            f"this scdiffaug reads {SCHEMA_VERSION}: use the version that saved it."
        )
    return weights, description


def saved_adata(folder: Path) -> Path | None:
    """Where the AnnData saved with a model is, if one was."""
    path = folder / _ADATA
    return path if path.is_file() else None


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the place and rename, so that no interruption leaves half a file."""
    # The suffix stays at the end: savefig chooses the format by it.
    aside = path.with_name(f".partial-{path.name}")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder`` once it is written whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield aside
        _put_in_place(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _put_in_place(aside: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(aside, folder)
        return
    # A full folder cannot be renamed over another: the old one waits until the new one stands.
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    os.rename(folder, old)
    try:
        os.rename(aside, folder)
    except OSError:
        os.rename(old, folder)
        raise
    shutil.rmtree(old)
