"""What the augmentation benchmark asks of methods, and the processes that answer."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiffaug.benchmark import processes
from scdiffaug.benchmark._augmentation import makers, peers
from scdiffaug.benchmark._augmentation.makers import FILLED, Draw
from scdiffaug.benchmark._augmentation.peers import Rows
from scdiffaug.benchmark._augmentation.quality import Cells, Exam
from scdiffaug.benchmark._worker import Inputs, read_matrix
from scdiffaug.benchmark.inputs import Dataset, pca_for
from scdiffaug.benchmark.methods import GENERATORS, Generator
from scdiffaug.benchmark.processes import Run
from scdiffaug.features import FeatureSpace
from scdiffaug.metrics._spaces import dense
from scdiffaug.storage import written_aside

Setting = Literal["in_sample", "held_out", "novelty", "use"]
SETTINGS: tuple[Setting, ...] = get_args(Setting)
LABELLED = (5, 10, 25, 50)


@dataclass(frozen=True)
class Trial:
    """One dataset and one seed: the halves, the labelled cells, and what methods are asked for."""

    dataset: Dataset
    seed: int
    settings: tuple[Setting, ...] = SETTINGS

    @property
    def labels(self) -> NDArray[np.str_]:
        """Types, shape ``(n,)``."""
        return self.dataset.labels

    @cached_property
    def halves(self) -> tuple[Rows, Rows]:
        """Rows to train on and rows held out, split within each type, in random order."""
        shuffled = np.random.default_rng(self.seed).permutation(len(self.labels))
        by_type = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
        # Rows are sorted by type, so taking every second one splits each type in half.
        train, held_out = by_type[::2], by_type[1::2]
        rng = np.random.default_rng([self.seed, 1])
        return rng.permutation(train), rng.permutation(held_out)

    def labelled(self, k: int) -> Rows:
        """The first ``k`` training cells of each type."""
        train = pd.Series(self.halves[0])
        return train[train.groupby(self.labels[train]).cumcount() < k].to_numpy()

    def to_fill(self, k: int) -> Rows:
        """Labelled cells, repeated as sources of the cells that fill every type up to 100."""
        rows = self.labelled(k)
        groups = pd.Series(rows).groupby(self.labels[rows])
        return np.concatenate([np.resize(own, FILLED - len(own)) for _, own in groups])

    def filled_labels(self, k: int) -> NDArray[np.str_]:
        """Types that the cells made from :meth:`to_fill` should have."""
        return self.labels[self.to_fill(k)]

    def draws(self, generator: Generator) -> dict[str, Draw]:
        """Draws that a generator is asked for, by name."""
        everything = np.arange(len(self.labels))
        train, held_out = self.halves
        asked = {
            "in_sample": (everything, everything),
            "held_out": (train, held_out),
            "novelty": (train, train),
        }
        for k in LABELLED:
            # A method that uses labels must not know those of other cells.
            known = self.labelled(k) if generator.uses_labels else train
            asked[f"use_{k}"] = (known, self.to_fill(k))
        draws = {
            name: Draw(known, sources, types=self.labels[sources])
            for name, (known, sources) in asked.items()
        }
        # The setting "use" has a draw for each number of labelled cells.
        settings = tuple(filter(generator.takes_part, self.settings))
        return {name: draw for name, draw in draws.items() if name.startswith(settings)}

    @cached_property
    def cells(self) -> Cells:
        """All real cells."""
        return as_cells(self._values, self.space)

    @cached_property
    def space(self) -> FeatureSpace:
        """The kind of the values; those of augmented cells are read by it too."""
        return FeatureSpace.decide(self._values, self.dataset.kind)

    @cached_property
    def _values(self) -> Any:
        return Inputs(self.dataset.folder, self.dataset.kind).values

    @cached_property
    def exams(self) -> dict[int, Exam]:
        """A classification task per number of labelled cells."""
        train, held_out = self.halves
        seen = self.cells.seen
        pca = pca_for(seen[train], seed=self.seed).fit(dense(seen[train]))
        return {
            k: Exam(
                pca=pca,
                labelled=seen[self.labelled(k)],
                labels=self.labels[self.labelled(k)],
                unlabelled=seen[np.setdiff1d(train, self.labelled(k))],
                test=seen[held_out],
                answers=self.labels[held_out],
            )
            for k in LABELLED
        }


def as_cells(values: Any, space: FeatureSpace) -> Cells:
    """Values of cells, and what they are compared as."""
    seen = peers.as_compared(values, space)
    return Cells(seen, values if space.is_counts else None)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One process: the rows of the table that share a worker, on one trial."""

    trial: Trial
    names: tuple[str, ...]
    max_epochs: int | None
    timeout: float
    cache: Path

    @property
    def generator(self) -> Generator:
        """The first of the rows, for all that the rows share."""
        return GENERATORS[self.names[0]]

    @cached_property
    def draws(self) -> dict[str, Draw]:
        """All draws that any of the rows is asked for."""
        return {
            key: draw
            for name in self.names
            for key, draw in self.trial.draws(GENERATORS[name]).items()
        }

    @cached_property
    def description(self) -> dict[str, Any]:
        """What decides the outcome, apart from the plan."""
        return {
            "worker": self.generator.worker,
            "variants": {
                name: dict(GENERATORS[name].settings_of(self.trial.dataset.kind))
                for name in self.names
            },
            "packages": self.generator.packages,
            "seed": self.trial.seed,
            "max_epochs": self.max_epochs,
            "kind": self.trial.dataset.kind,
            "draws": list(self.draws),
        }

    @cached_property
    def plan(self) -> dict[str, NDArray[Any]]:
        """Arrays of the draws, with the labels only where they are used."""
        parts: dict[str, NDArray[Any]] = {}
        told = [GENERATORS[name] for name in self.names if GENERATORS[name].needs_types]
        for name, draw in self.draws.items():
            parts |= {f"{name}.known": draw.known, f"{name}.sources": draw.sources}
            if draw.types is not None and any(name in self.trial.draws(each) for each in told):
                parts[f"{name}.types"] = draw.types
        return parts | ({"labels": self.trial.labels} if self.generator.uses_labels else {})

    @cached_property
    def folder(self) -> Path:
        """Where the augmented cells are remembered."""
        code = hashlib.sha256(inspect.getsource(makers).encode())
        code.update(inspect.getsource(peers).encode())
        decides = {
            **self.description,
            "inputs": self.trial.dataset.digest,
            # Scores lie beside the cells, and depend on labels even where the cells do not.
            "labels": hashlib.sha256("\n".join(self.trial.labels).encode()).hexdigest(),
            "versions": self.generator.versions(),
            "code": code.hexdigest(),
        }
        return processes.named_by_hash(self.cache, self.generator.worker, decides)

    @cached_property
    def run(self) -> Run:
        """Make the cells, unless they are remembered; scores are left to :func:`scores_of`."""
        if not (self.folder / "run.json").exists():
            try:
                self._make()
            except RuntimeError as error:
                return Run.failed(error)
        return Run(**json.loads((self.folder / "run.json").read_text()), scores={})

    def _make(self) -> None:
        described = {**self.description, "inputs": str(self.trial.dataset.folder)}
        with written_aside(self.folder) as aside:
            (aside / "job.json").write_text(json.dumps(described))
            np.savez(aside / "plan.npz", **self.plan)  # type: ignore[arg-type]
            module = makers.__name__
            processes.call([sys.executable, "-P", "-m", module, str(aside)], timeout=self.timeout)

    def made(self, name: str, draw: str) -> Cells:
        """Augmented cells of one row of the table and one draw."""
        cells = read_matrix(self.folder / f"{name}.{draw}")
        if GENERATORS[name].makes == "seen":
            return Cells(cells, None)
        return as_cells(cells, self.trial.space)

    def filled_types(self, name: str, k: int) -> NDArray[np.str_]:
        """Types that the cells made from ``k`` labelled cells per type should have."""
        if GENERATORS[name].needs_types:
            return np.asarray(read_matrix(self.folder / f"{name}.use_{k}.types"))
        return self.trial.filled_labels(k)
