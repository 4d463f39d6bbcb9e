"""Scores of augmented cells, as flat tables with keys ``metric`` or ``metric/type``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from scdiffaug.benchmark._augmentation.peers import Rows
from scdiffaug.matrices import depths
from scdiffaug.metrics._inputs import Values
from scdiffaug.metrics._spaces import dense, one_above_other, pca_of
from scdiffaug.metrics.augmentation import Scores, fidelity_scores

_MOST_CELLS_DRAWN = 1_000


@dataclass(frozen=True)
class Cells:
    """Real or augmented cells, shape ``(n, d)``: ``seen`` as compared, and ``counts`` if any."""

    seen: Values
    counts: Values | None

    def __getitem__(self, rows: Rows) -> Cells:
        """The cells of some rows, in the order of the rows."""
        return Cells(self.seen[rows], None if self.counts is None else self.counts[rows])


def fidelity(real: Cells, made: Cells, *, seed: int) -> Scores:
    """Every score of :mod:`scdiffaug.metrics` on distributions, genes and libraries."""
    has_counts = real.counts is not None and made.counts is not None
    counts = (real.counts, made.counts) if has_counts else None
    return fidelity_scores(real.seen, made.seen, counts=counts, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Exam:
    """A classifier trained on few labelled cells, tested on cells that nothing was fitted on.

    Parameters
    ----------
    pca
        Principal components, fitted on the training cells.
    labelled, labels
        The few labelled cells, shape ``(k, d)``, and their types.
    unlabelled
        The other training cells, shape ``(u, d)``.
    test, answers
        Untouched real cells, shape ``(t, d)``, and their types.
    """

    pca: PCA
    labelled: Values
    labels: NDArray[Any]
    unlabelled: Values
    test: Values
    answers: NDArray[Any]

    def macro_f1(self, made: Values | None, made_labels: ArrayLike) -> float:
        """Mean F1 over types of a logistic regression on the labelled and the augmented cells."""
        cells = self.labelled if made is None else one_above_other(self.labelled, made)
        labels = np.concatenate([self.labels, np.asarray(made_labels, dtype=str)])
        return self._score(make_pipeline(StandardScaler(), _logistic()), cells, labels)

    def self_training_f1(self) -> float:
        """The same where, instead, it labels unlabelled cells that it is sure of (Yarowsky 1995).

        Makers learn from these cells too: what is gained by new cells alone lies beyond this.
        """
        if not self.unlabelled.shape[0]:
            return self.macro_f1(None, [])
        names, codes = np.unique(self.labels, return_inverse=True)
        unknown = np.full(self.unlabelled.shape[0], -1)
        classifier = make_pipeline(StandardScaler(), SelfTrainingClassifier(_logistic()))
        cells = one_above_other(self.labelled, self.unlabelled)
        return self._score(classifier, cells, np.concatenate([codes, unknown]), names=names)

    def _score(
        self,
        classifier: Pipeline,
        cells: Values,
        labels: NDArray[Any],
        *,
        names: NDArray[Any] | None = None,
    ) -> float:
        """Macro-F1 on untouched cells; ``names``: of labels that are numbers."""
        classifier.fit(self.pca.transform(dense(cells)), labels)
        found = classifier.predict(self.pca.transform(dense(self.test)))
        found = found if names is None else names[found]
        types = np.unique(self.answers)
        score = f1_score(self.answers, found, average="macro", labels=types, zero_division=0)
        return float(score)


def _logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=1_000)


@dataclass(frozen=True)
class Picture:
    """What is drawn of cells: two components of at most 1,000, means of genes, depths."""

    points: NDArray[Any]
    gene_means: NDArray[Any]
    depths: NDArray[Any] | None


def picture(real: Cells, cells: Cells, *, seed: int) -> Picture:
    """What is drawn of ``cells``, in components of the real cells so that pictures compare."""
    n = cells.seen.shape[0]
    rows = np.random.default_rng(seed).permutation(n)[:_MOST_CELLS_DRAWN]
    return Picture(
        pca_of(real.seen, (cells.seen[rows],), n_pcs=2, seed=seed)[0],
        np.asarray(cells.seen.mean(0)).ravel(),
        None if cells.counts is None else depths(cells.counts),
    )
