"""Checkpoints of a training run: one safetensors file, replaced whole, that can run no code."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from scdiffaug._checks import check_flag, check_path
from scdiffaug.contract import DataContract
from scdiffaug.matrices import digest
from scdiffaug.pairs import PairBatches
from scdiffaug.storage import check_writable, difference, write_whole

_FILE = "checkpoint.safetensors"
_SCHEMA_VERSION = 8
# Writing takes a fraction of a second, an epoch of few cells a hundredth.
_SECONDS_BETWEEN = 60.0


def check_place(checkpoint_dir: str | Path | None, *, resume: bool) -> None:
    """Raise if training could not begin, or would replace the checkpoint of another run.

    Raises
    ------
    FileExistsError
        If there is a checkpoint that is not to be resumed.
    NotADirectoryError
        If the folder is a file.
    PermissionError
        If nothing can be written there.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If there is nowhere to resume from.
    """
    check_flag("resume", resume)
    if checkpoint_dir is None:
        if resume:
            raise ValueError("resume=True needs checkpoint_dir=..., the folder to resume from.")
        return
    check_path("checkpoint_dir", checkpoint_dir)
    folder = Path(checkpoint_dir)
    if folder.is_file():
        raise NotADirectoryError(f"checkpoint_dir={str(folder)!r} is a file: name a folder.")
    check_writable(folder if folder.exists() else folder.parent)
    path = folder / _FILE
    if path.exists() and not resume:
        raise FileExistsError(
            f"{path} exists already: pass resume=True to go on from it, or name another "
            "checkpoint_dir."
        )


def described(
    contract: DataContract, batches: PairBatches, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """All that decides the outcome of a run: cells, features, and how it is trained."""
    has_graph = contract.setup["neighbors_key"] is not None
    return {
        "cells": batches.digest(),
        "features": contract.to_dict()["var_names_sha256"],
        "variable features": list(contract.selected),
        "feature_space": asdict(contract.space),
        "neighbors_key": contract.setup["neighbors_key"],
        # Those that the package searches for depend on the cells and on rounding alone.
        "neighbors": digest(batches.walks.neighbors) if has_graph else None,
        "n_neighbors": contract.n_neighbors,
        "batch_size": batches.batch_size,
        **settings,
    }


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands at the end of an epoch.

    Parameters
    ----------
    records
        Means of the recorded quantities, for each epoch done.
    generators
        States of the generators of random numbers, by name, as JSON has them.
    tensors
        All else that training changes: weights, averages and moments of the optimiser.
    """

    records: list[dict[str, float]]
    generators: dict[str, Any]
    tensors: dict[str, Tensor]


class Checkpoints:
    """The checkpoint of one run, in a folder.

    Parameters
    ----------
    folder
        Where the file is, or will be.
    run
        All that decides the outcome of the run; another run's checkpoint is refused.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        self._path, self._run = folder / _FILE, json.loads(json.dumps(run))
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last checkpoint was written long enough ago."""
        return time.monotonic() - self._last >= _SECONDS_BETWEEN

    def write(self, progress: Progress) -> None:
        """Replace the checkpoint; whatever happens, the one before or this one is whole."""
        text = json.dumps(
            {
                "schema_version": _SCHEMA_VERSION,
                "run": self._run,
                "records": progress.records,
                "generators": progress.generators,
            }
        )
        tensors = {
            name: part.detach().cpu().contiguous() for name, part in progress.tensors.items()
        }
        metadata = {"training": text, "sha256": _digest(text, tensors)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = safetensors.torch.save(tensors, metadata)
        write_whole(self._path, lambda aside: aside.write_bytes(content))
        self._last = time.monotonic()

    def read(self, expected: Mapping[str, Tensor]) -> Progress | None:
        """The progress of the run; None where there is no checkpoint yet.

        Parameters
        ----------
        expected
            Tensors of the right names, shapes and types; their values are not looked at.

        Raises
        ------
        ValueError
            If the file is damaged, or belongs to another run.
        """
        if not self._path.exists():
            return None
        text, tensors = self._content()
        said = self._fields(text)
        self._check_run(said["run"])
        if differs := difference(tensors, expected):
            raise self._damaged(f"it {differs}")
        return Progress(records=said["records"], generators=said["generators"], tensors=tensors)

    def _content(self) -> tuple[str, dict[str, Tensor]]:
        """Text and tensors as they were written."""
        try:
            with safetensors.safe_open(self._path, framework="pt") as file:
                metadata = file.metadata() or {}
            tensors = safetensors.torch.load_file(self._path)
        except (safetensors.SafetensorError, OSError) as error:
            raise self._damaged(error) from error
        text = metadata.get("training", "")
        if metadata.get("sha256") != _digest(text, tensors):
            raise self._damaged("its sha256 differs")
        return text, tensors

    def _fields(self, text: str) -> dict[str, Any]:
        """What the text says, once its fields are checked."""
        try:
            said = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"it holds no JSON: {error}") from error
        kinds = {"schema_version": int, "run": dict, "records": list, "generators": dict}
        if not isinstance(said, dict) or {k: type(v) for k, v in said.items()} != kinds:
            raise self._damaged(f"its fields are not {', '.join(kinds)}")
        if said["schema_version"] != _SCHEMA_VERSION:
            raise ValueError(
                f"{self._path} has schema version {said['schema_version']}, this scdiffaug reads "
                f"{_SCHEMA_VERSION}: use the version that wrote it."
            )
        return said

    def _check_run(self, saved: Mapping[str, Any]) -> None:
        names = sorted(self._run.keys() | saved.keys())
        differing = [name for name in names if self._run.get(name) != saved.get(name)]
        if differing:
            raise ValueError(
                f"{self._path} is of a run with other {', '.join(differing)}: repeat that run's "
                "call to resume it, or name another checkpoint_dir."
            )

    def _damaged(self, why: object) -> ValueError:
        return ValueError(
            f"The checkpoint {self._path} is damaged ({why}): remove it to train from the "
            "beginning."
        )


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """sha256 of all that is written."""
    found = hashlib.sha256(text.encode())
    for name, part in sorted(tensors.items()):
        found.update(name.encode())
        found.update(part.numpy().tobytes())
    return found.hexdigest()
