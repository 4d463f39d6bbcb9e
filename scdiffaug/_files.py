"""What ``scdiffaug embed``, ``augment`` and ``report`` do: files in, files out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from anndata import AnnData
from anndata.io import write_elem
from numpy.typing import NDArray

from scdiffaug import tl
from scdiffaug._checks import check_key_added
from scdiffaug.block_files import read_cells
from scdiffaug.choosing import Depth, Keep, Target
from scdiffaug.embedding import by_key, put, replaced
from scdiffaug.groups import group_names
from scdiffaug.model import scDiffAug
from scdiffaug.registration import registered_for_now
from scdiffaug.storage import (
    check_writable,
    contents,
    is_left_aside,
    read_description,
    standing,
    write_whole,
)

Summary = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Where the model comes from: a folder that has one, or training on the cells.

    Parameters
    ----------
    folder
        Folder of a saved model, which is loaded; if there is none, the trained model is saved.
    layer, batch_key
        As in :meth:`scdiffaug.scDiffAug.setup_anndata`.
    feature_space
        As in :class:`scdiffaug.scDiffAug`.
    max_epochs
        As in :meth:`scdiffaug.scDiffAug.train`.
    seed
        Seed of the training; 0 by default.
    progress
        Show a bar.
    """

    folder: Path | None
    layer: str | None
    batch_key: str | None
    feature_space: str | None
    max_epochs: int | None
    seed: int | None
    progress: bool

    @property
    def is_saved(self) -> bool:
        """Whether the folder has something in it, which then must be a model."""
        return self.folder is not None and (
            bool(contents(self.folder)) or is_left_aside(self.folder)
        )

    def check(self) -> None:
        """Raise before the training what would otherwise be raised after it.

        Raises
        ------
        PermissionError
            If the model could not be saved.
        ValueError
            If an option would train a model that is trained already.
        """
        if self.folder is not None and not self.is_saved:
            check_writable(self.folder.parent)
        if self.is_saved and self.folder is not None:
            read_description(standing(self.folder))
        given = ("layer", "batch_key", "feature_space", "max_epochs")
        options = [f"--{name.replace('_', '-')}" for name in given if getattr(self, name)]
        if self.is_saved and options:
            raise ValueError(
                f"{self.folder} holds a model already, which {', '.join(options)} cannot change: "
                "leave that out, or name another folder for --model."
            )

    def model(self, adata: AnnData, *, diffusion: Literal["auto", "none"] = "auto") -> scDiffAug:
        """The model, not yet trained if none is saved."""
        if self.is_saved and self.folder is not None:
            model = scDiffAug.load(self.folder, adata=False)
            if not model.is_trained:
                model.adata = adata
            return model
        scDiffAug.setup_anndata(adata, layer=self.layer, batch_key=self.batch_key)
        space: Any = self.feature_space or "auto"
        return scDiffAug(adata, feature_space=space, diffusion=diffusion, seed=self.seed or 0)

    def finish(self, model: scDiffAug) -> scDiffAug:
        """Train and save the model if that was not done before.

        Raises
        ------
        KeyboardInterrupt
            If Ctrl-C stopped the training; nothing is saved then.
        """
        if not model.is_trained:
            model.train(self.max_epochs, enable_progress_bar=self.progress)
            if model._was_interrupted:
                raise KeyboardInterrupt
            if self.folder is not None:
                model.save(self.folder, overwrite=True)
        return model

    def summary_of(self, model: scDiffAug) -> Summary:
        """What a summary says about the model."""
        return {
            "model": None if self.folder is None else str(self.folder),
            "feature_space": model.feature_space,
        }


@dataclass(frozen=True, kw_only=True)
class Making:
    """The options of :meth:`scdiffaug.scDiffAug.augment`."""

    groupby: str | None
    target: Target | None
    n_per_cell: int
    strength: float
    depth: Depth
    keep: Keep
    steps: int | None
    seed: int | None


def embed(
    cells: Path,
    out: Path,
    *,
    training: Training,
    key_added: str,
    overwrite: bool,
    map_batches: bool = False,
    backed: bool = False,
) -> Summary:
    """Write the cells with both embeddings; if ``backed``, their matrix is read by blocks."""
    _check_place(out, ".h5ad", overwrite=overwrite)
    check_key_added(key_added)
    training.check()
    if map_batches and not training.is_saved:
        raise ValueError(
            "--map-batches maps cells onto a model that is trained: name its folder with --model."
        )
    adata = read_cells(cells, backed=backed)
    is_copied = _can_be_copied(cells)
    if backed and not is_copied:
        raise ValueError(
            f"{cells} is a .zarr folder or of an old anndata, and is not copied by blocks: leave "
            "out --backed, or write it again as .h5ad."
        )
    # A generator that is not saved would be thrown away.
    diffusion: Literal["auto", "none"] = "none" if training.folder is None else "auto"
    with registered_for_now(scDiffAug, adata):
        model = training.finish(training.model(adata, diffusion=diffusion))
        if map_batches:
            model = scDiffAug.load_query_data(adata, model)
        # What cells lack was said when they were mapped.
        embeddings = by_key(key_added, *model._embed(adata, warns=not map_batches))
    if is_copied:
        write_whole(out, lambda aside: _copy_with(cells, embeddings, aside))
    else:
        put(adata, embeddings)
        write: Callable[[Path], object] = adata.write_h5ad
        write_whole(out, write)
    shapes = {key: list(embedding.shape) for key, embedding in embeddings.items()}
    return {"out": str(out), "n_cells": adata.n_obs, "obsm": shapes, **training.summary_of(model)}


def augment(
    cells: Path,
    out: Path,
    *,
    training: Training,
    making: Making,
    overwrite: bool,
    backed: bool = False,
) -> Summary:
    """Write new cells made from those of a file; if ``backed``, both are in memory by blocks."""
    _check_place(out, ".h5ad", overwrite=overwrite)
    if out.exists() and out.samefile(cells):
        raise ValueError(f"{out} holds the real cells: name another file for the new ones.")
    training.check()
    adata = read_cells(cells, backed=backed)
    model = training.model(adata)
    if not model.is_trained:
        # Errors are raised before the training.
        model._plan(adata, **asdict(making))
    training.finish(model)
    if backed:
        aside = out.with_name(f".whole-{out.name}")
        aside.unlink(missing_ok=True)
        new = tl.augment(adata, model, **asdict(making), path=aside)
        # Where files are locked while they are open, they cannot be renamed.
        new.file.close()
        aside.replace(out)
    else:
        new = tl.augment(adata, model, **asdict(making))
        write: Callable[[Path], object] = new.write_h5ad
        write_whole(out, write)
    share = new.uns["scdiffaug"].get("kept_share")
    return {
        "out": str(out),
        "n_cells": new.n_obs,
        "n_sources": int(new.obs["source_obs_name"].nunique()),
        "kept_share": None if share is None else float(share),
        **training.summary_of(model),
    }


def report(
    cells: Path,
    new: Path,
    out: Path,
    *,
    training: Training,
    held_out: Path | None,
    groupby: str | None,
    max_cells: int,
    seed: int | None,
    overwrite: bool,
) -> Summary:
    """Write the page that compares new cells with real ones."""
    _check_place(out, ".html", overwrite=overwrite)
    training.check()
    if training.folder is not None and not training.is_saved:
        raise FileNotFoundError(
            f"{training.folder} holds no model: name the one that made {new}, or leave --model "
            "out to train one for the report."
        )
    adata, made = read_cells(cells), read_cells(new)
    unseen = None if held_out is None else read_cells(held_out)
    for each in (adata, made, unseen):
        if each is not None:
            group_names(each, groupby, needed=np.arange(0))
    # A report looks at y, and makes no cells.
    model = training.finish(training.model(adata, diffusion="none"))
    found = model.augmentation_report(
        made,
        adata,
        held_out=unseen,
        groupby=groupby,
        max_cells=max_cells,
        path=out,
        seed=seed,
    )
    told = {key: found[key] for key in ("n_cells", "worries", "checks", "skipped")}
    return {"out": str(out), **told, **training.summary_of(model)}


def _check_place(out: Path, suffix: Literal[".h5ad", ".html"], *, overwrite: bool) -> None:
    """Raise if the result could not be written, before anything is computed."""
    if out.suffix != suffix:
        raise ValueError(f"{out} must end in {suffix}.")
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder: name a file.")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists already: pass --overwrite to replace it.")
    check_writable(out.parent)


def _can_be_copied(cells: Path) -> bool:
    """Whether embeddings can be added to a copy of the file: not before anndata 0.7."""
    if cells.suffix == ".zarr":
        return False
    with h5py.File(cells) as file:
        return isinstance(file.get("obsm", file), h5py.Group)


def _copy_with(cells: Path, embeddings: Mapping[str, NDArray[np.float32]], out: Path) -> None:
    """Copy a file of cells, and add to its obsm."""
    shutil.copyfile(cells, out)
    with h5py.File(out, "r+") as file:
        if "obsm" not in file:
            write_elem(file, "obsm", {})
        for name in replaced(file["obsm"], next(iter(embeddings))):
            del file["obsm"][name]
        for name, embedding in embeddings.items():
            write_elem(file, f"obsm/{name}", embedding)
