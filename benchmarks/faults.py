"""Kills whatever writes files, and reads what is left: the old, the new, nothing; never a half.

``python benchmarks/faults.py`` runs all campaigns, ``python benchmarks/faults.py NAME ...`` some,
and prints the counts, at the end as JSON. Each kill is a SIGKILL of a process of its own. Where a
stage has few file operations it is killed before each of them; else before calls drawn at random
from all that it makes, or after a random time where it waits for another process. After each kill
what is there is checked, the stage is run again to its end, and nothing may be left over.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from killing import Stage, State, at_random, ended, forked, in_time, systematic

from scdiffaug import checkpoint, datasets, scDiffAug, storage, streaming
from scdiffaug.benchmark import embedding
from scdiffaug.cli import app

# Saving a model.


def save(folder: Path, generation: int, *, with_cells: bool) -> None:
    """A small model whose weights and description say which one it is."""
    cells = anndata.AnnData(np.full((3, 2), generation, np.float32)) if with_cells else None
    storage.write_model(
        folder / "model",
        {"weight": torch.full((4,), float(generation))},
        {"generation": generation},
        adata=cells,
        overwrite=True,
    )


def saved(folder: Path) -> State:
    """Which model can be read, all its digests being right."""
    standing = storage.standing(folder / "model")
    if not standing.exists():
        return "none"
    said = storage.read_description(standing)
    content = (standing / "model.safetensors").read_bytes()
    assert storage.sha256(content) == said["weights_sha256"]
    cells = storage.saved_adata(standing, said["adata_sha256"])
    assert cells is None or np.unique(anndata.read_h5ad(cells).X) == [said["generation"]]
    return "new" if said["generation"] == 2 else "old"


def save_campaigns() -> Iterator[tuple[str, Counter[str]]]:
    """Weights alone or with cells, at first or in place of others."""
    for with_cells in (False, True):
        what = "weights and cells" if with_cells else "weights"
        act = partial(save, generation=2, with_cells=with_cells)
        first = Stage(prepare=Path.exists, act=act, left=saved, states=("none", "new"))
        yield f"save of {what}, first", systematic(first)
        old = partial(save, generation=1, with_cells=with_cells)
        again = Stage(prepare=old, act=act, left=saved, states=("old", "new"))
        yield f"save of {what}, replacing", systematic(again)


# Writing a checkpoint.

EXPECTED = {"weight": torch.zeros(4)}


def keep(folder: Path, generation: int) -> None:
    """A small checkpoint that says which one it is."""
    progress = checkpoint.Progress(
        records=[{"loss": float(generation)}],
        generators={},
        tensors={"weight": torch.full((4,), float(generation))},
    )
    checkpoint.Checkpoints(folder / "run", {}).write(progress)


def kept(folder: Path) -> State:
    """Which checkpoint can be read."""
    progress = checkpoint.Checkpoints(folder / "run", {}).read(EXPECTED)
    if progress is None:
        return "none"
    assert (progress.tensors["weight"] == progress.records[0]["loss"]).all()
    return "new" if progress.records[0]["loss"] == 2 else "old"


def checkpoint_campaigns() -> Iterator[tuple[str, Counter[str]]]:
    """The first one, or one in place of another."""
    act, old = partial(keep, generation=2), partial(keep, generation=1)
    first = Stage(prepare=Path.exists, act=act, left=kept, states=("none", "new"))
    yield "checkpoint, first", systematic(first)
    again = Stage(prepare=old, act=act, left=kept, states=("old", "new"))
    yield "checkpoint, replacing", systematic(again)


# Training with checkpoints, resumed after the kill.


def few_cells() -> anndata.AnnData:
    return datasets.pbmc68k_reduced()[:200, :60].copy()


def train(folder: Path) -> None:
    """Train to the end from where the checkpoint stands, and write what came out."""
    checkpoint._SECONDS_BETWEEN = 0.0
    model = scDiffAug(few_cells(), n_semantic=8)
    model.train(
        8, batch_size=50, accelerator="cpu", checkpoint_dir=folder / "run", resume=True,
        enable_progress_bar=False,
    )  # fmt: skip
    found = hashlib.sha256(
        json.dumps({n: h[n].tolist() for n, h in model.history.items()}).encode()
    )
    for name, value in sorted(model.module.state_dict().items()):
        found.update(name.encode() + value.numpy().tobytes())
    storage.write_whole(folder / "outcome", lambda aside: aside.write_text(found.hexdigest()))


def trained(folder: Path, whole: str) -> State:
    """``"old"`` stands for a run that a checkpoint holds; one that ended must be the whole one."""
    if (folder / "outcome").exists():
        assert (folder / "outcome").read_text() == whole
        return "new"
    return "old" if (folder / "run" / "checkpoint.safetensors").exists() else "none"


def training_campaigns() -> Iterator[tuple[str, Counter[str]]]:
    """Every run, resumed, must end bit by bit where the one ends that was not killed."""
    with tempfile.TemporaryDirectory() as name:
        assert not ended(forked(partial(train, Path(name))))
        whole = (Path(name) / "outcome").read_text()
    left = partial(trained, whole=whole)
    stage = Stage(prepare=Path.exists, act=train, left=left, states=("none", "old", "new"))
    # The share in which checkpoints are written.
    yield "training, resumed", at_random(stage, 30, last=0.5)


# Downloads, from a server on this machine.

WHOLE = np.random.default_rng(0).bytes(3_000_000)


class Handler(BaseHTTPRequestHandler):
    """Serves one file, and its rest to who has a part of it."""

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(WHOLE) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(WHOLE) - 1}/{len(WHOLE)}")
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(WHOLE[start:])

    def log_message(self, *_: object) -> None:
        pass


def download(folder: Path, url: str) -> None:
    known = {"size": len(WHOLE), "sha256": hashlib.sha256(WHOLE).hexdigest(), "md5": None}
    file = datasets.File(name="cells", url=url, note=None, **known)
    unknown = ("n_cells", "n_features", "label_key", "batch_key", "feature_space")
    entry = datasets.Entry(
        **dict.fromkeys((*unknown, "organism", "assay", "licence", "citation", "note")),
        **{"name": "served", "title": "Served", "loader": "h5ad", "reads": ("cells",)},
        files=(file,),
    )
    os.environ["SCDIFFAUG_CACHE_DIR"] = str(folder)
    datasets.fetch(entry, progress=False)


def downloaded(folder: Path) -> State:
    path = folder / "files" / "cells"
    if not path.exists():
        return "none"
    assert path.read_bytes() == WHOLE
    return "new"


def download_campaigns() -> Iterator[tuple[str, Counter[str]]]:
    """At every file operation, and anywhere."""
    os.environ.pop("SCDIFFAUG_DATA_DIR", None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = forked(server.serve_forever)
    try:
        act = partial(download, url=f"http://127.0.0.1:{server.server_port}/cells")
        # What is imported here is not imported after each fork.
        with tempfile.TemporaryDirectory() as name:
            act(Path(name))
        stage = Stage(prepare=Path.exists, act=act, left=downloaded, states=("none", "new"))
        yield "download, at file operations", systematic(stage)
        yield "download, anywhere", at_random(stage, 20)
    finally:
        os.kill(serving, signal.SIGKILL)
        ended(serving)


# The command line's files.


def make_files(folder: Path) -> None:
    few_cells().write_h5ad(folder / "cells.h5ad")
    model = scDiffAug(few_cells(), n_semantic=8)
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    model.save(folder / "model")


def copy_files(folder: Path, *, source: Path, with_old: bool, without: str = "") -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(without))
    if with_old:
        shutil.copy(folder / "cells.h5ad", folder / "out.h5ad")


def command(folder: Path, verb: str) -> None:
    names = [str(folder / name) for name in ("cells.h5ad", "out.h5ad", "model")]
    app([verb, *names[:2], "--model", names[2], "--overwrite", "--quiet"], standalone_mode=False)


def written(folder: Path) -> State:
    """Which file can be read; that of neither command has what is told them by."""
    path = folder / "out.h5ad"
    if not path.exists():
        return "none"
    cells = anndata.read_h5ad(path)
    return "new" if "X_scdiffaug" in cells.obsm or "is_augmented" in cells.obs else "old"


def file_campaigns() -> Iterator[tuple[str, Counter[str]]]:
    """``scdiffaug embed`` and ``scdiffaug augment``."""
    with tempfile.TemporaryDirectory() as name:
        assert not ended(forked(partial(make_files, Path(name))))
        for verb, with_old in (("embed", False), ("augment", True)):
            stage = Stage(
                prepare=partial(copy_files, source=Path(name), with_old=with_old),
                act=partial(command, verb=verb),
                left=written,
                states=("old" if with_old else "none", "new"),
            )
            yield f"scdiffaug {verb}, anywhere", at_random(stage, 10)
            # The share in which the file is written.
            yield f"scdiffaug {verb}, writing", at_random(stage, 20, last=0.03)


# New cells that are written as they are made.


def write_by_blocks(folder: Path) -> None:
    streaming._CELLS_OF_A_BLOCK = 16
    # What a user does who finds a file there already.
    (folder / "out.h5ad").unlink(missing_ok=True)
    model = scDiffAug.load(folder / "model", few_cells(), accelerator="cpu")
    model.augment(steps=2, path=folder / "out.h5ad")


def made_by_blocks(folder: Path, *, whole: Path) -> State:
    """A file that is there holds the very cells of a run that was not killed."""
    path = folder / "out.h5ad"
    if not path.exists():
        return "none"
    found, expected = (anndata.read_h5ad(place) for place in (path, whole))
    assert found.obs_names.equals(expected.obs_names)
    assert (found.X != expected.X).sum() == 0
    return "new"


def streaming_campaigns() -> Iterator[tuple[str, Counter[str]]]:
    """``augment(path=...)``: blocks that were made are not made again."""
    with tempfile.TemporaryDirectory() as name:
        assert not ended(forked(partial(make_files, Path(name))))
        assert not ended(forked(partial(write_by_blocks, Path(name))))
        stage = Stage(
            prepare=partial(copy_files, source=Path(name), with_old=False, without="out.h5ad"),
            act=write_by_blocks,
            left=partial(made_by_blocks, whole=Path(name) / "out.h5ad"),
            states=("none", "new"),
        )
        # The share in which cells are made and written.
        yield "augment by blocks", at_random(stage, 20, last=0.7)


# Benchmark runs.


def prepare_benchmark(folder: Path) -> None:
    few_cells().write_h5ad(folder / "cells.h5ad")


def run_benchmark(folder: Path) -> None:
    embedding(
        [folder / "cells.h5ad"], method_names=["pca"], n_seeds=1, out=folder / "out",
        cache=folder / "cache", show_progress=False,
    )  # fmt: skip


def benchmarked(folder: Path) -> State:
    """Tables and pictures are whole, whichever are there."""
    pictures = list((folder / "out").glob("*.png"))
    assert all(path.read_bytes()[-8:-4] == b"IEND" for path in pictures)
    path = folder / "out" / "results.csv"
    if not path.exists():
        return "none"
    assert pd.read_csv(path)["value"].notna().all()
    return "new" if len(pictures) == 2 else "old"


def benchmark_campaigns() -> Iterator[tuple[str, Counter[str]]]:
    """One method, in a process of its own."""
    stage = Stage(
        prepare=prepare_benchmark,
        act=run_benchmark,
        left=benchmarked,
        states=("none", "old", "new"),
    )
    yield "benchmark", in_time(stage, 12)


CAMPAIGNS: dict[str, Callable[[], Iterator[tuple[str, Counter[str]]]]] = {
    "save": save_campaigns,
    "checkpoint": checkpoint_campaigns,
    "training": training_campaigns,
    "download": download_campaigns,
    "files": file_campaigns,
    "streaming": streaming_campaigns,
    "benchmark": benchmark_campaigns,
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.getLogger("scdiffaug").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {}
    for name in sys.argv[1:] or CAMPAIGNS:
        for campaign, counts in CAMPAIGNS[name]():
            results[campaign] = counts
            print(f"{campaign}: {dict(counts)}", file=sys.stderr, flush=True)
    total = sum(counts["kills"] for counts in results.values())
    print(json.dumps({**results, "kills": total}))
