"""One embedding method on one dataset: run, scored, and both remembered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiffaug import metrics
from scdiffaug.benchmark import _worker, environments
from scdiffaug.benchmark.inputs import Dataset
from scdiffaug.benchmark.methods import METHODS, Method, Settings
from scdiffaug.benchmark.processes import Run, call, named_by_hash, remembered
from scdiffaug.storage import written_aside

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
        call([str(interpreter), "-P", _worker.__file__, str(aside)], timeout=job.timeout)


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
