"""New cells written as they are made, a block at a time, so that few of them are in memory."""

from __future__ import annotations

import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.utils import gen_batches

from scdiffaug import block_files, matrices
from scdiffaug._randomness import seed_of
from scdiffaug.augmentation import made_uns
from scdiffaug.contract import X_HOLDS
from scdiffaug.planning import MOST_TRIES, Plan, bare, source_obs
from scdiffaug.storage import write_whole

logger = logging.getLogger("scdiffaug")

_CELLS_OF_A_BLOCK = 8192


def write_new_cells(path: Path, plan: Plan) -> AnnData:
    """Make the cells of a plan block by block; see :meth:`scdiffaug.scDiffAug.augment`.

    Each block waits in a file of its own, in a folder beside the path that is named by all that
    decides the cells. Blocks that are there already are not made again.

    Returns
    -------
    The cells, backed by the file.

    Raises
    ------
    TypeError
        If a file cannot hold a column of obs or var.
    """
    block_files.check_writable_tables(plan.real.cells)
    blocks = _blocks(plan)
    with block_files.waiting_beside(path, _digest(plan), len(blocks)) as places:
        for number, (rows, place) in enumerate(zip(blocks, places, strict=True)):
            if place.exists():
                continue
            part = plan.part(rows, seed=seed_of(plan.sampling.seed, "blocks", number))
            write_whole(place, bare(part.make(as_learnt=True)).write_h5ad)
            logger.info("Made block %d of %d.", number + 1, len(blocks))
        write_whole(path, lambda aside: _join(places, plan, aside))
    return anndata.read_h5ad(path, backed="r")


def _blocks(plan: Plan) -> list[slice]:
    """Rows of the plan in each block."""
    return list(gen_batches(len(plan.source_of), _CELLS_OF_A_BLOCK))


def _join(made: list[Path], plan: Plan, out: Path) -> None:
    """Write all blocks into one file."""
    tables = [block_files.read_names(place)[0] for place in made]
    # A table without rows has no column types to keep.
    filled = [table for table in tables if len(table)] or tables[:1]
    obs = source_obs(plan.real.cells.obs, pd.concat(filled))
    provenance = plan.provenance
    if plan.choice.keep != "all":
        n_asked = [rows.stop - rows.start for rows in _blocks(plan)]
        n_drawn = sum(map(_n_drawn, made, map(len, tables), n_asked))
        provenance = {**provenance, "kept_share": len(obs) / n_drawn}
    if plan.real.contract.setup["layer"] is not None:
        provenance = {**provenance, X_HOLDS: plan.real.contract.setup["layer"]}
    uns = made_uns(plan.real.cells, obs, provenance=provenance, scale=plan.scales.scale)
    block_files.write_blocks(out, made, obs=obs, var=plan.real.cells.var, uns=uns)


def _n_drawn(place: Path, n_kept: int, n_asked: int) -> float:
    """Cells that were drawn for a block, rejected ones included."""
    share = block_files.read_field(place, "uns/scdiffaug/kept_share")
    return n_kept / share if share else MOST_TRIES * n_asked


def _digest(plan: Plan) -> str:
    """sha256 of all that decides the cells."""
    values = [version("scdiffaug"), plan.provenance, plan.batch_size, plan.real.contract.to_dict()]
    values.append(matrices.digest(plan.real.x))
    found = hashlib.sha256(json.dumps(values, default=int).encode())
    weights = [part.cpu().numpy() for part in plan.real.module.state_dict().values()]
    held = plan.scales.learnt_as(np.unique(plan.source_of)).x
    totals = None if held is None else held.totals
    contract, cells = plan.real.contract, plan.real.cells
    arrays: list[Any] = [
        plan.source_of,
        plan.depth,
        plan.real.groups,
        contract.covariates(cells, plan.source_of),
        contract.batches(cells),
        totals,
        *weights,
    ]
    for array in arrays:
        if array is not None:
            found.update(np.ascontiguousarray(array).data)
    found.update(pd.util.hash_pandas_object(plan.real.cells.obs_names).to_numpy().data)
    return found.hexdigest()
