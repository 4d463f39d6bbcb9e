"""Figure 3: t-SNE of the latent spaces of methods that learn one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import track

from scdiffaug.benchmark._embedding import report, runs
from scdiffaug.benchmark._embedding.report import Page
from scdiffaug.benchmark._embedding.runs import Job
from scdiffaug.benchmark._embedding.study import Plan
from scdiffaug.benchmark.inputs import Dataset, with_points

# Latent space of each method; t-SNE itself starts from 50 principal components.
_LATENTS: Mapping[str, str] = {
    "tsne": "",
    "scvi": "latent",
    "scdiffaug_simclr": "80d",
    "scdiffaug_no_diffusion": "80d",
    "scdiffaug": "80d",
}
_NAMES = {
    "tsne": "50 PCs",
    "scvi": "scVI",
    "scdiffaug_simclr": "SimCLR",
    "scdiffaug_no_diffusion": "no diffusion",
    "scdiffaug": "DiffAug",
}

_HOW_TO_READ = (
    "Scores and seconds are those of the t-SNE of each latent space; trustworthiness, continuity "
    "and triplets compare it with that space."
)


def figure(
    datasets: Sequence[Dataset], plan: Plan, *, notes: Sequence[str], command: str, out: Path
) -> pd.DataFrame:
    """Run t-SNE on every latent space, score the pictures, and write the report.

    The files are written after every dataset.
    """
    page = Page(
        title="Figure 3: t-SNE of latent spaces",
        command=command,
        notes=(_HOW_TO_READ, *notes),
        names=_NAMES,
        picture="figure3.png",
    )
    rows: list[dict[str, Any]] = []
    pictures = {}
    pairs = list(product(datasets, _LATENTS))
    for dataset, name in track(pairs, "Figure 3", disable=not plan.show_progress):
        for seed in range(plan.n_seeds):
            job = plan.job(dataset, name, seed)
            found = runs.run(job)
            if _LATENTS[name] and not found.error:
                job = _tsne(job, plan)
                found = runs.run(job)
            rows += [{**row, "method": name} for row in runs.rows(job, found)]
            points = runs.embeddings(job)
            if seed == 0 and "2d" in points and not found.error:
                pictures[dataset.name, name] = points["2d"]
        if name == list(_LATENTS)[-1]:
            results = pd.DataFrame(rows, columns=runs.COLUMNS)
            report.write(out, results, datasets, pictures=pictures, page=page)
    return results


def _tsne(job: Job, plan: Plan) -> Job:
    latent = runs.embeddings(job)[_LATENTS[job.name]]
    return plan.job(with_points(job.dataset, latent, cache=job.cache), "tsne", job.seed)
