"""Runs one method on one dataset in a process of its own, scores it, and remembers both."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiffaug import metrics
from scdiffaug.benchmark import environments
from scdiffaug.benchmark.inputs import Dataset
from scdiffaug.benchmark.methods import METHODS, Method, Settings
from scdiffaug.storage import write_whole, written_aside

_WORKER = Path(__file__).with_name("_worker.py")
# Raised when a score changes its meaning, so that remembered ones are computed again.
_PROTOCOL = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one method.

    Parameters
    ----------
    dataset, name, seed
        What is run on what.
    settings
        Settings in place of the row's own.
    cache
        Folder of remembered runs.
    timeout
        Seconds after which a run is given up.
    """

    dataset: Dataset
    name: str
    seed: int
    settings: Settings
    cache: Path
    timeout: float

    @property
    def method(self) -> Method:
        """The method's entry in the registry."""
        return METHODS[self.name]

    @cached_property
    def folder(self) -> Path:
        """Where the run is remembered: named by the hash of all that decides its outcome."""
        environment = self.method.environment
        code = environments.requirements(environment) if environment != "main" else ""
        decides = {
            "inputs": self.dataset.digest,
            "worker": self.method.worker,
            "settings": {**self.method.settings, **self.settings},
            "seed": self.seed,
            "versions": self.method.versions(),
            "environment": code,
        }
        return named_by_hash(self.cache, self.name, decides)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of a job: scores of each representation, or why there are none."""

    seconds: float
    peak_mb: float
    versions: dict[str, str]
    scores: dict[str, dict[str, float]]
    error: str = ""

    @classmethod
    def failed(cls, error: Exception) -> Run:
        """Nothing came of it."""
        nan = float("nan")
        return cls(seconds=nan, peak_mb=nan, versions={}, scores={}, error=str(error))


def named_by_hash(cache: Path, name: str, decides: Mapping[str, Any]) -> Path:
    """Folder in which a run is remembered, given all that decides its outcome."""
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return cache / "runs" / f"{name}-{digest[:16]}"


def run(job: Job) -> Run:
    """Embed and score, or read what an earlier run of the same job left."""
    if not (job.folder / "run.json").exists():
        try:
            _embed(job)
        except (RuntimeError, FileNotFoundError) as error:
            return Run.failed(error)
    described = json.loads((job.folder / "run.json").read_text())
    described["versions"] |= job.method.versions()
    return Run(**described, scores=_scores(job))


def embeddings(job: Job) -> dict[str, NDArray[np.floating[Any]]]:
    """Embeddings of a job that was run: representation to array; empty where it failed."""
    path = job.folder / "embedding.npz"
    if not path.exists():
        return {}
    with np.load(path) as stored:
        return dict(stored)


def _embed(job: Job) -> None:
    interpreter = environments.python(job.method.environment, job.cache)
    described = {
        "method": job.method.worker,
        "seed": job.seed,
        "settings": {**job.method.settings, **job.settings},
        "packages": job.method.packages,
        "inputs": str(job.dataset.folder),
        "kind": job.dataset.kind,
    }
    with written_aside(job.folder) as aside:
        (aside / "job.json").write_text(json.dumps(described))
        call([str(interpreter), "-P", str(_WORKER), str(aside)], timeout=job.timeout)


def call(command: list[str], *, timeout: float) -> None:
    """Run a worker; RuntimeError with its last line where it fails or takes too long."""
    # Passive threads: a spinning OpenMP team of one library starves the next one's.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        try:
            done = subprocess.run(
                command, stdout=log, stderr=log, timeout=timeout, check=False, env=environment
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"took longer than {timeout:g} s") from None
        if done.returncode:
            log.seek(0)
            lines = [line.strip() for line in log if line.strip()]
            raise RuntimeError(lines[-1] if lines else f"ended with status {done.returncode}")


def _scores(job: Job) -> dict[str, dict[str, float]]:
    return remembered(
        job.folder / f"scores-{_PROTOCOL}.json",
        lambda: {
            representation: metrics.embedding_scores(
                embedding, job.dataset.labels, points=job.dataset.pca
            )
            for representation, embedding in embeddings(job).items()
        },
    )


def remembered(
    path: Path, compute: Callable[[], dict[str, dict[str, float]]]
) -> dict[str, dict[str, float]]:
    """Scores as a JSON file has them, computed and written there at first."""
    if path.exists():
        found: dict[str, dict[str, float]] = json.loads(path.read_text())
        return found
    scores = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda aside: aside.write_text(json.dumps(scores)))
    return scores
