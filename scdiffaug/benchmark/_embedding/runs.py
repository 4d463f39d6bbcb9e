"""One embedding method on one dataset: run, scored, and both remembered."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiffaug import metrics
from scdiffaug.benchmark import _worker, environments, methods
from scdiffaug.benchmark.inputs import Dataset
from scdiffaug.benchmark.methods import METHODS, Method, Settings
from scdiffaug.benchmark.processes import Run, call, named_by_hash, remembered
from scdiffaug.storage import written_aside

logger = logging.getLogger("scdiffaug")

# Version of the scores: raised when one changes, so that remembered ones are computed again.
_PROTOCOL = 1
COLUMNS = [
    "dataset", "method", "representation", "seed", "metric", "value", "seconds", "peak_mb",
    "settings", "versions", "note",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one method.

    Parameters
    ----------
    dataset, name, seed
        Dataset, name of the method, and seed.
    settings
        Settings that replace or add to those of the row.
    cache
        Folder of remembered runs.
    timeout
        Seconds after which a run is stopped.
    new
        Cells that the method embeds without learning from them. If given, they are scored.
    max_cells_svm
        Score the linear SVM on at most this many cells, drawn at random.
    """

    dataset: Dataset
    name: str
    seed: int
    settings: Settings
    cache: Path
    timeout: float
    new: Dataset | None = None
    max_cells_svm: int | None = None

    @property
    def method(self) -> Method:
        """The method's entry in the registry."""
        return METHODS[self.name]

    @cached_property
    def folder(self) -> Path:
        """Where the run is remembered: named by the hash of all that decides its outcome."""
        environment = self.method.environment
        packages = environments.requirements(environment) if environment != "main" else ""
        decides: dict[str, Any] = {
            "inputs": self.dataset.digest,
            "worker": self.method.worker,
            "settings": {**self.method.settings, **self.settings},
            "seed": self.seed,
            "versions": self.method.versions(),
            "environment": packages,
            "code": inspect.getsource(_worker),
        }
        if self.new is not None:
            decides["new"] = self.new.digest
        if self.method.uses_labels:
            decides["labels"] = self.dataset.labels.tolist()
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
    try:
        return Run(**described, scores=_scores(job))
    except ValueError as error:
        return Run.failed(ValueError(f"made an embedding that cannot be scored: {error}"))


def embeddings(job: Job) -> dict[str, NDArray[np.floating[Any]]]:
    """Embeddings of a job that was run: representation to array; empty where it failed."""
    path = job.folder / "embedding.npz"
    if not path.exists():
        return {}
    with np.load(path) as stored:
        return dict(stored)


def _embed(job: Job) -> None:
    interpreter = environments.python(job.method.environment, job.cache)
    described: dict[str, Any] = {
        "method": job.method.worker,
        "seed": job.seed,
        "settings": {**job.method.settings, **job.settings},
        "packages": job.method.packages,
        "inputs": str(job.dataset.folder),
        "kind": job.dataset.kind,
    }
    if job.new is not None:
        described["new"] = str(job.new.folder)
    with written_aside(job.folder) as aside:
        (aside / "job.json").write_text(json.dumps(described))
        if job.method.uses_labels:
            np.save(aside / "labels.npy", job.dataset.labels)
        call([str(interpreter), "-P", _worker.__file__, str(aside)], timeout=job.timeout)


def _scores(job: Job) -> dict[str, dict[str, float]]:
    """Scores, remembered by labels too: an embedding may be scored against several columns."""
    if (new := job.new) is not None:
        name = f"new_cells-{_PROTOCOL}-{_digest(job.dataset.labels, new.labels)}.json"
        return remembered(job.folder / name, lambda: _scores_of_new(job, new))
    drawn = "" if job.max_cells_svm is None else f"-svm{job.max_cells_svm}"
    return remembered(
        job.folder / f"scores-{_PROTOCOL}{drawn}-{_digest(job.dataset.labels)}.json",
        lambda: {
            representation: metrics.embedding_scores(
                embedding,
                job.dataset.labels,
                points=job.dataset.pca,
                max_cells_svm=job.max_cells_svm,
            )
            for representation, embedding in embeddings(job).items()
        },
    )


def _digest(*labels: NDArray[Any]) -> str:
    return sha256(json.dumps([of.tolist() for of in labels]).encode()).hexdigest()[:16]


def _scores_of_new(job: Job, new: Dataset) -> dict[str, dict[str, float]]:
    """Scores of training cells and, under names that end in ``_new``, of held-back cells."""
    found, labels = embeddings(job), job.dataset.labels
    scores: dict[str, dict[str, float]] = {}
    for name in [name for name in found if not name.endswith("_new")]:
        scores[name] = {
            score.__name__: score(found[name], labels)
            for score in (
                metrics.linear_svm_accuracy, metrics.knn_accuracy, metrics.kmeans_accuracy
            )
        }  # fmt: skip
        scores[f"{name}_new"] = metrics.query_scores(
            found[name], labels, query=found[f"{name}_new"], query_labels=new.labels
        )
    return scores


def rows(job: Job, found: Run) -> Iterator[dict[str, Any]]:
    """Rows of a job: one per score, or one that says why there is none."""
    shared = {
        "dataset": job.dataset.name,
        "method": job.name,
        "seed": job.seed,
        "seconds": found.seconds,
        "peak_mb": found.peak_mb,
        "settings": methods.as_words({**job.method.settings, **job.settings}),
        "versions": methods.as_words(found.versions),
        "note": found.error,
    }
    for representation, scores in found.scores.items():
        for metric, value in scores.items():
            yield {**shared, "representation": representation, "metric": metric, "value": value}
    if found.error:
        logger.warning("%s on %s: %s", job.name, job.dataset.name, found.error)
        yield {**shared, "representation": "", "metric": "", "value": np.nan}
