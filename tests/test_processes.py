"""Two processes train one model: by Lightning's launch, and as SLURM starts them on two nodes."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdiffaug import datasets, scDiffAug

TRAIN = """
import hashlib, json, os, signal, sys
import scdiffaug
from scdiffaug.checkpoint import Checkpoints
from scdiffaug.module import DiffAugModule
from scdiffaug.neighbors import NeighborWalks

def watched(thing, name):
    calls, method = [], getattr(thing, name)
    setattr(thing, name, lambda *args, **options: calls.append(args) or method(*args, **options))
    return calls

seen = watched(NeighborWalks, "draw")
written = watched(Checkpoints, "write")
encoders, update = [], DiffAugModule.update_ema

def looked_at(module, decay):
    weights = [part.double().sum().item() for part in module.encoder.state_dict().values()]
    encoders.append(weights)
    update(module, decay)

DiffAugModule.update_ema = looked_at

rank = int(os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", 0)))
quiet = {"accelerator": "cpu", "enable_progress_bar": False}
place = json.loads(sys.argv[1])
pbmc = scdiffaug.datasets.pbmc68k_reduced()[:200, :100]
model = scdiffaug.scDiffAug(pbmc.copy())
model.train(20, batch_size=50, **place, **quiet, checkpoint_dir="checkpoint")
model.save("model")
# The first walks count what crosses between communities.
seen = seen[1:]
weights = b"".join(part.numpy().tobytes() for part in model.module.state_dict().values())
told = {
    "weights": hashlib.sha256(weights).hexdigest(),
    "history": {name: frame[name].tolist() for name, frame in model.history.items()},
    "seen": [cells.tolist() for _, cells, _ in seen[:4]],
    "n_batches": len(seen),
    "written": len(written),
    "encoders": [*encoders],
}
part = scdiffaug.scDiffAug(pbmc[: 100 + 10 * (rank if "num_nodes" in place else 0)].copy())
try:
    part.train(2, schedule="alternating", **place, **quiet)
except ValueError as error:
    told["refused"] = str(error)
with open(f"{rank}.json", "w") as file:
    json.dump(told, file)

def told_to_end(module, decay):
    if rank == 0:
        os.kill(os.getpid(), signal.SIGTERM)

DiffAugModule.update_ema = told_to_end
scdiffaug.scDiffAug(pbmc.copy()).train(20, **place, **quiet)
print("trained to the end")
"""


def _begun(command: list[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _by_lightning(folder: Path) -> list[subprocess.Popen[str]]:
    place = {"devices": 2}
    return [_begun([sys.executable, "train.py", json.dumps(place)], folder)]


def _by_slurm(folder: Path) -> list[subprocess.Popen[str]]:
    """What srun tells the processes of two nodes."""
    place = {"devices": 1, "num_nodes": 2, "strategy": "ddp_find_unused_parameters_true"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    job = {"JOB_ID": "1", "NTASKS": "2", "NTASKS_PER_NODE": "1", "NNODES": "2", "LOCALID": "0"}
    said = {f"SLURM_{name}": value for name, value in job.items()}
    return [
        _begun(
            [sys.executable, "train.py", json.dumps(place)],
            folder,
            **said,
            SLURM_PROCID=rank,
            SLURM_NODEID=rank,
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank in "01"
    ]


@pytest.mark.parametrize("started", [_by_lightning, _by_slurm])
def test_two_processes_train_one_model(started: Any, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    processes = started(tmp_path)
    output = [process.communicate(timeout=600) for process in processes]
    one, other = (_told(tmp_path / f"{rank}.json", output) for rank in "01")
    assert one["weights"] == other["weights"]
    assert one["history"] == other["history"]
    assert one["n_batches"] == other["n_batches"] == 40
    assert one["written"] > other["written"] == 0
    _check_shards(one["seen"], other["seen"])
    _check_saved(tmp_path, one["weights"])
    _check_loss(one["history"])
    _check_encoder_ends_first(one)
    if started is _by_slurm:
        assert "2 processes of this training have read different cells" in one["refused"]
        assert other["refused"] == one["refused"]
    else:
        assert "refused" not in one
    assert processes[0].returncode == -signal.SIGTERM
    assert all(process.returncode for process in processes)
    assert not any("trained to the end" in out for out, _ in output)


def _told(path: Path, output: list[tuple[str, str]]) -> dict[str, Any]:
    assert path.exists(), output
    return json.loads(path.read_text())


def _check_shards(one: list[list[int]], other: list[list[int]]) -> None:
    """Two epochs of two batches: each deals out all cells, and not as the one before."""
    first, second = (
        [{*seen[epoch], *seen[epoch + 1]} for seen in (one, other)] for epoch in (0, 2)
    )
    for mine, yours in (first, second):
        assert len(mine) == len(yours) == 100
        assert mine | yours == set(range(200))
    assert first[0] != second[0]


def _check_loss(history: dict[str, list[float]]) -> None:
    """That of one process with as many cells in a step; the contrastive one grows with a batch."""
    alone = scDiffAug(datasets.pbmc68k_reduced()[:200, :100].copy())
    alone.train(20, batch_size=100, accelerator="cpu", enable_progress_bar=False)
    expected = alone.history["diffusion"]["diffusion"][-5:].mean()
    assert np.mean(history["diffusion"][-5:]) == pytest.approx(expected, rel=0.01)


def _check_encoder_ends_first(told: dict[str, Any]) -> None:
    """After five eighths of the steps neither its weights nor its running means move."""
    is_trained = ~np.isnan(told["history"]["contrastive"])
    assert is_trained.tolist() == [True] * 13 + [False] * 7
    assert len({*map(tuple, told["encoders"][:25])}) == 25
    assert len({*map(tuple, told["encoders"][25:])}) == 1


def _check_saved(folder: Path, weights: str) -> None:
    """What the first process saved is what all have."""
    state = scDiffAug.load(folder / "model", accelerator="cpu").module.state_dict()
    found = hashlib.sha256(b"".join(part.numpy().tobytes() for part in state.values()))
    assert found.hexdigest() == weights
