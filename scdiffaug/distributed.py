"""Embed and augment large files, block by block over the workers of a Dask cluster."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from scdiffaug import block_files, data, doubts, storage
from scdiffaug._checks import check_is, check_key_added, check_path, check_seed, check_whole
from scdiffaug._randomness import seed_of
from scdiffaug.augmentation import made_colours
from scdiffaug.contract import X_HOLDS, layer_or_x
from scdiffaug.diffusion import Sampler
from scdiffaug.embedding import by_key, contract_for
from scdiffaug.model import scDiffAug
from scdiffaug.normalized import LogScale
from scdiffaug.planning import bare, source_obs
from scdiffaug.scales import Scales

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True, kw_only=True)
class _Job:
    """All that decides what is made from a block of cells.

    Parameters
    ----------
    verb, options
        What to do, and its arguments.
    model, seal
        Folder of the model, and sha256 of its description.
    layer
        Layer that the model reads.
    cells, changed
        File of the cells, and when it was last changed, in nanoseconds.
    block_size
        Cells per block.
    seed
        Decides the random draws of a block, together with the block's number.
    columns
        Columns of obs that the model reads, if they are there.
    scale
        On which scale the cells hold counts, told from the first block: of few cells it cannot be.
    """

    verb: Literal["embed", "augment"]
    options: dict[str, Any]
    model: str
    seal: str
    layer: str | None
    cells: str
    changed: int
    block_size: int
    seed: int
    columns: Sequence[str] = ()
    scale: LogScale | None = None

    def rows(self, block: int) -> slice:
        return slice(block * self.block_size, (block + 1) * self.block_size)

    def digest(self) -> str:
        decides = {**asdict(self), "version": version("scdiffaug")}
        described = json.dumps(decides, sort_keys=True, default=str)
        return hashlib.sha256(described.encode()).hexdigest()


def embed(
    dir_path: str | Path,
    cells: str | Path,
    out: str | Path,
    *,
    client: Client | str | None = None,
    key_added: str = "X_scdiffaug",
    block_size: int = 10_000,
) -> None:
    """Embed the cells of a file, block by block.

    Parameters
    ----------
    dir_path
        Folder of a trained model.
    cells
        An .h5ad file or a .zarr folder, with the model's features in any order. To be embedded,
        cells may lack some, as in :func:`scdiffaug.tl.embed`.
    out
        The .h5ad file to write. Finished blocks wait in a folder beside it until all are there:
        to resume a call that was interrupted, repeat it.
    client
        A ``dask.distributed.Client``, or the address of a scheduler, whose workers see the model,
        the cells and the folder of ``out`` under the same paths. By default this process handles
        one block after another.
    key_added
        Key of ``.obsm`` for the 80-D embedding; that of the 2-D embedding ends in ``_2d``, or in
        another number if the model has another ``n_projection``.
    block_size
        Cells in memory at once, on each worker.

    Returns
    -------
    Nothing; writes an AnnData without ``.X``, with the cells' ``.obs``,
    ``.obsm["X_scdiffaug"]``, shape ``(n, 80)``, and ``.obsm["X_scdiffaug_2d"]``, shape ``(n, 2)``.

    Raises
    ------
    FileExistsError
        If ``out`` exists.
    FileNotFoundError
        If there is no model in the folder, or no file of cells.
    ImportError
        If a client is given, but Dask is not installed.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If an argument is out of range, or more than nine tenths of the features that the encoder
        sees are missing.

    Examples
    --------
    >>> import anndata, scdiffaug
    >>> adata = scdiffaug.datasets.pbmc68k_reduced()
    >>> adata.write_h5ad("cells.h5ad")
    >>> model = scdiffaug.scDiffAug(adata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.save("my_model")
    >>> scdiffaug.distributed.embed("my_model", "cells.h5ad", "embedded.h5ad", block_size=300)
    >>> anndata.read_h5ad("embedded.h5ad").obsm["X_scdiffaug_2d"].shape
    (700, 2)
    """
    check_key_added(key_added)
    job = _job(
        "embed",
        dir_path,
        cells,
        options={"key_added": key_added},
        block_size=block_size,
        seed=0,
    )
    _run(job, out, client)


def augment(
    dir_path: str | Path,
    cells: str | Path,
    out: str | Path,
    *,
    client: Client | str | None = None,
    n_per_cell: int = 1,
    strength: float = 1.0,
    depth: Literal["source"] | int = "source",
    sampler: Sampler | Literal["auto"] = "auto",
    steps: int | None = None,
    seed: int | None = None,
    block_size: int = 10_000,
) -> None:
    """Make new cells from those of a file, block by block.

    The random numbers of a block come from the seed and the block's number, so that it makes no
    difference which worker makes it, or how often, if all have the same kind of device. Other
    block sizes give other cells.

    Parameters
    ----------
    dir_path, cells, out, client, block_size
        As in :func:`embed`.
    n_per_cell, strength, sampler, steps, seed
        As in :meth:`scdiffaug.scDiffAug.augment`.
    depth
        Total counts of a new cell, if the data are counts: those of its ``"source"``, or a number.

    Returns
    -------
    Nothing; writes the new cells as :meth:`scdiffaug.scDiffAug.augment` does with ``path``.

    Raises
    ------
    FileExistsError
        If ``out`` exists.
    FileNotFoundError
        If there is no model in the folder, or no file of cells.
    ImportError
        If a client is given, but Dask is not installed.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If an argument is out of range, or features of the model are missing.

    Examples
    --------
    >>> import anndata, scdiffaug
    >>> adata = scdiffaug.datasets.pbmc68k_reduced()
    >>> adata.write_h5ad("cells.h5ad")
    >>> model = scdiffaug.scDiffAug(adata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.save("my_model")
    >>> scdiffaug.distributed.augment("my_model", "cells.h5ad", "new.h5ad", block_size=300)
    >>> anndata.read_h5ad("new.h5ad").n_obs
    700
    """
    if isinstance(depth, str) and depth != "source":
        raise ValueError(
            f"depth={depth!r} would look beyond a block of cells: use 'source' or a number."
        )
    options = {
        "n_per_cell": n_per_cell,
        "strength": strength,
        "depth": depth,
        "sampler": sampler,
        "steps": steps,
    }
    job = _job("augment", dir_path, cells, options=options, block_size=block_size, seed=seed)
    _run(job, out, client)


def _job(
    verb: Literal["embed", "augment"],
    dir_path: str | Path,
    cells: str | Path,
    *,
    options: dict[str, Any],
    block_size: int,
    seed: int | None,
) -> _Job:
    check_path("dir_path", dir_path)
    check_path("cells", cells)
    check_whole("block_size", block_size)
    folder, path = storage.standing(Path(dir_path)).resolve(), Path(cells).resolve()
    description = storage.read_description(folder)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: name an .h5ad file or a .zarr folder.")
    seed = description["contract"]["seed"] if seed is None else seed
    check_seed(seed)
    return _Job(
        verb=verb,
        options=options,
        model=str(folder),
        seal=description["description_sha256"],
        layer=description["contract"]["setup"]["layer"],
        cells=str(path),
        # A folder of .zarr does not change when the files within it do.
        changed=max(part.stat().st_mtime_ns for part in (path, *path.rglob("*"))),
        block_size=block_size,
        seed=seed,
    )


def _run(job: _Job, out: str | Path, client: Client | str | None) -> None:
    """Make all blocks, then join them in one file."""
    block_files.check_new("out", out)
    out = Path(out).resolve()
    obs = _checked_obs(Path(job.cells))
    contract = _model(job.model, job.seal, job.scale)._contract
    if job.verb == "augment":
        doubts.warn_of_made(obs, "serve as sources")
        # What one block lacks is said before any is made.
        contract.covariates(AnnData(obs=obs), np.arange(len(obs)))
    else:
        contract.warn_of_batches(AnnData(obs=obs))
    column = contract.covariate_column
    job = replace(job, columns=[] if column is None or column not in obs else [column])
    job = replace(job, scale=_scale(job))
    n_blocks = -(-len(obs) // job.block_size)
    with block_files.waiting_beside(out, job.digest(), n_blocks) as places:
        _each(partial(_make, job), places, client)
        storage.write_whole(out, lambda aside: _gather(job, places, aside, obs=obs))


def _scale(job: _Job) -> LogScale | None:
    """On which scale the cells hold counts, told from the first block."""
    model, first = _cells(job, 0)
    contract = model._contract
    contract = contract_for(first, contract)[0] if job.verb == "embed" else contract
    return Scales(contract, *contract.read(first)).scale


def _checked_obs(path: Path) -> pd.DataFrame:
    obs, var = block_files.read_names(path)
    with warnings.catch_warnings():
        # AnnData warns of repeated names, which the check refuses.
        warnings.simplefilter("ignore", UserWarning)
        data.check_frame(AnnData(obs=obs, var=var))
    return obs


def _each(
    make: Callable[[int, Path], None], places: list[Path], client: Client | str | None
) -> None:
    if client is None:
        for block, place in enumerate(places):
            make(block, place)
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            "A client needs Dask, here and on the workers: pip install 'scdiffaug[dask]'."
        ) from error
    if isinstance(client, str):
        with Client(client) as connected:
            return _each(make, places, connected)
    check_is("client", client, Client, advice="pass a dask.distributed.Client or an address")
    # A block is a file, so that what a lost worker had finished is still there.
    client.gather(client.map(make, range(len(places)), places, pure=False))


def _make(job: _Job, block: int, place: Path) -> None:
    """Make one block, unless its file is there."""
    if not place.exists():
        # A worker that Dask gave up on may still write the same block, in a folder of its own.
        storage.write_whole(place, _MAKERS[job.verb](job, block).write_h5ad)


@lru_cache(maxsize=1)
def _model(folder: str, seal: str, scale: LogScale | None) -> scDiffAug:
    """Load the model, which a worker keeps from block to block."""
    if storage.read_description(Path(folder))["description_sha256"] != seal:
        raise ValueError(
            f"{folder} holds another model than when the call began: let it stand until the call "
            "ends, under the same path on all workers."
        )
    model = scDiffAug.load(folder, adata=False)
    # One block of cells may be less deep than most; a warning is of all cells, or says nothing.
    contract = replace(model._contract, depth=None)
    if scale is not None:
        contract = replace(contract, space=replace(contract.space, scale=scale))
    model._contract = contract
    return model


def _cells(job: _Job, block: int) -> tuple[scDiffAug, AnnData]:
    model = _model(job.model, job.seal, job.scale)
    path = Path(job.cells)
    layers, made = block_files.read_layers(path)
    layer = layer_or_x(job.layer, layers, made)
    cells = block_files.read_block(path, job.rows(block), layer=layer, columns=job.columns)
    cells.uns["scdiffaug"] = made
    return model, cells


def _embedded(job: _Job, block: int) -> AnnData:
    model, cells = _cells(job, block)
    embeddings = model._embed(cells, warns=False)
    return AnnData(obs=cells.obs[[]], obsm=by_key(job.options["key_added"], *embeddings))


def _augmented(job: _Job, block: int) -> AnnData:
    model, cells = _cells(job, block)
    new = model.augment(cells, **job.options, seed=seed_of(job.seed, "blocks", block))
    return bare(new)


_MAKERS = {"embed": _embedded, "augment": _augmented}


def _gather(job: _Job, places: list[Path], out: Path, *, obs: pd.DataFrame) -> None:
    """Join the blocks in one file, and add the obs and uns that they lack."""
    uns: dict[str, Any] = {}
    if job.verb == "augment":
        tables = [block_files.read_names(place)[0] for place in places]
        real, obs = obs, source_obs(obs, pd.concat(tables))
        uns = block_files.read_field(places[0], "uns")
        uns |= made_colours(real, block_files.read_colours(Path(job.cells)), obs)
        uns["scdiffaug"] |= {"seed": job.seed, "block_size": job.block_size}
        if job.layer is not None:
            uns["scdiffaug"][X_HOLDS] = job.layer
    var = block_files.read_names(places[0])[1]
    block_files.write_blocks(out, places, obs=obs, var=var, uns=uns)
