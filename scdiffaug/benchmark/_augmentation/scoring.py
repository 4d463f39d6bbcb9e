"""Scores of methods in each setting, and of real cells in place of augmented ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from scdiffaug import metrics
from scdiffaug.benchmark._augmentation import quality
from scdiffaug.benchmark._augmentation.makers import FILLED
from scdiffaug.benchmark._augmentation.peers import Rows
from scdiffaug.benchmark._augmentation.trials import Job, Setting, Trial
from scdiffaug.benchmark.methods import GENERATORS
from scdiffaug.metrics.augmentation import Scores, novelty_scores, type_scores


def scores_of(job: Job, name: str) -> dict[str, Scores]:
    """Scores of one method in every setting that is asked for."""
    return {
        setting: _SCORED[setting](job, name)
        for setting in filter(GENERATORS[name].takes_part, job.trial.settings)
    }


def _in_sample(job: Job, name: str) -> Scores:
    everything = np.arange(len(job.trial.labels))
    return _alike(job, name, setting="in_sample", judges=everything, real=everything)


def _held_out(job: Job, name: str) -> Scores:
    train, held_out = job.trial.halves
    return _alike(job, name, setting="held_out", judges=train, real=held_out)


def _alike(job: Job, name: str, *, setting: str, judges: Rows, real: Rows) -> Scores:
    """Fidelity to the real cells, and types kept by classifiers that learn from ``judges``."""
    trial, made = job.trial, job.made(name, setting)
    scores = quality.fidelity(trial.cells[real], made, seed=trial.seed)
    if GENERATORS[name].follows == "nothing":
        return scores
    return scores | type_scores(
        trial.cells.seen[judges],
        trial.labels[judges],
        made.seen,
        expected=trial.labels[real],
        seed=trial.seed,
    )


def _novelty(job: Job, name: str) -> Scores:
    trial = job.trial
    train, held_out = trial.halves
    return novelty_scores(
        trial.cells.seen[train],
        trial.cells.seen[held_out],
        job.made(name, "novelty").seen,
        sources=np.arange(len(train)) if GENERATORS[name].follows == "source" else None,
        seed=trial.seed,
    )


def _use(job: Job, name: str) -> Scores:
    return {
        f"macro_f1_{k}": exam.macro_f1(job.made(name, f"use_{k}").seen, job.filled_types(name, k))
        for k, exam in job.trial.exams.items()
    }


_SCORED: Mapping[Setting, Callable[[Job, str], Scores]] = {
    "in_sample": _in_sample,
    "held_out": _held_out,
    "novelty": _novelty,
    "use": _use,
}


def floor_of(trial: Trial) -> dict[str, Scores]:
    """The same scores of real cells in place of augmented ones."""
    floors: dict[str, Scores] = {}
    if {"in_sample", "held_out"} & set(trial.settings):
        floors |= dict.fromkeys(("in_sample", "held_out"), _like_new(trial))
    if "novelty" in trial.settings:
        floors["novelty"] = _new(trial)
    if "use" in trial.settings:
        floors["use"] = _more_used(trial)
    return {setting: floors[setting] for setting in trial.settings}


def _like_new(trial: Trial) -> Scores:
    (train, held_out), labels, seed = trial.halves, trial.labels, trial.seed
    seen = trial.cells.seen
    scores = quality.fidelity(trial.cells[held_out], trial.cells[train], seed=seed)
    scores["zero_share"] = metrics.zero_share(seen[held_out])
    return scores | type_scores(
        seen[train], labels[train], seen[held_out], expected=labels[held_out], seed=seed
    )


def _new(trial: Trial) -> Scores:
    (train, held_out), seen = trial.halves, trial.cells.seen
    one, other = held_out[::2], held_out[1::2]
    scores = novelty_scores(seen[train], seen[one], seen[other], sources=None, seed=trial.seed)
    own = metrics.own_source_share_of_real(seen[train], seen[held_out], seed=trial.seed)
    return scores | {"own_source_share": own}


def _more_used(trial: Trial) -> Scores:
    scores: Scores = {}
    for k, exam in trial.exams.items():
        more = _more_labelled(trial, k)
        scores[f"macro_f1_{k}"] = exam.macro_f1(trial.cells.seen[more], trial.labels[more])
    return scores


def unaided(trial: Trial) -> dict[str, Scores]:
    """Scores of use without new cells, by name: with the unlabelled cells, or without them."""
    if "use" not in trial.settings:
        return {}
    exams = {f"macro_f1_{k}": exam for k, exam in trial.exams.items()}
    return {
        "none": {name: exam.macro_f1(None, []) for name, exam in exams.items()},
        "self_training": {name: exam.self_training_f1() for name, exam in exams.items()},
    }


def _more_labelled(trial: Trial, k: int) -> Rows:
    """Further training cells of each type, until it has 100 or there are no more."""
    return np.setdiff1d(trial.labelled(FILLED), trial.labelled(k))
