"""The registry of embedding methods: where each runs, what it needs, what may be tuned."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import scdiffaug

Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the table.

    Parameters
    ----------
    worker
        Function of ``_worker.py`` that runs it.
    packages
        What must be installed, the first one being the method's own; their versions are recorded.
    settings
        Settings of the row.
    environment
        ``"main"``, or the name of an environment of :mod:`scdiffaug.benchmark.environments`.
    grid
        Settings tried by ``tuned=True`` beside the default, the same number for every method.
    is_ours
        Whether the row is scDiffAug or an ablation of it.
    """

    worker: str
    packages: tuple[str, ...]
    settings: Settings = field(default_factory=dict)
    environment: str = "main"
    grid: tuple[Settings, ...] = ()
    is_ours: bool = False

    def versions(self) -> dict[str, str]:
        """Installed versions; empty where one is missing, or the method has its own environment.

        Of scdiffaug itself the source is hashed too: a changed line is another method.
        """
        if self.environment != "main":
            return {}
        try:
            found = {package: metadata.version(package) for package in self.packages}
        except metadata.PackageNotFoundError:
            return {}
        return found | ({"source": _source_digest()} if self.is_ours else {})


def _ours(**settings: Any) -> Method:
    grid = ({"n_neighbors": 10}, {"n_neighbors": 30}, {"alpha": 0.3})
    return Method(
        worker="scdiffaug",
        packages=("scdiffaug", "torch"),
        settings=settings,
        grid=() if settings else grid,
        is_ours=True,
    )


METHODS: Mapping[str, Method] = {
    "scdiffaug": _ours(),
    "pca": Method(worker="pca", packages=("scikit-learn",)),
    "umap": Method(
        worker="umap",
        packages=("umap-learn",),
        grid=({"n_neighbors": 30}, {"min_dist": 0.01}, {"min_dist": 0.5}),
    ),
    "densmap": Method(
        worker="densmap",
        packages=("umap-learn",),
        grid=({"n_neighbors": 15}, {"dens_lambda": 0.5}, {"dens_lambda": 1.0}),
    ),
    "tsne": Method(
        worker="tsne",
        packages=("openTSNE",),
        grid=({"perplexity": 15}, {"perplexity": 100}, {"exaggeration": 4}),
    ),
    "pacmap": Method(
        worker="pacmap",
        packages=("pacmap",),
        grid=({"n_neighbors": 20}, {"n_neighbors": 30}, {"fp_ratio": 4}),
    ),
    "localmap": Method(
        worker="localmap",
        packages=("pacmap",),
        grid=({"n_neighbors": 20}, {"low_dist_thres": 5}, {"low_dist_thres": 20}),
    ),
    "phate": Method(
        worker="phate", packages=("phate",), grid=({"knn": 15}, {"gamma": 0}, {"knn": 30})
    ),
    "pumap": Method(
        worker="pumap",
        packages=("umap-learn", "tensorflow-cpu"),
        environment="keras",
        grid=({"n_neighbors": 30}, {"epochs": 3}, {"n_neighbors": 10}),
    ),
    "ivis": Method(
        worker="ivis",
        packages=("ivis", "tensorflow-cpu"),
        environment="keras",
        grid=({"k": 30}, {"k": 100}, {"model": "szubert"}),
    ),
    "dmtev": Method(
        worker="dmtev",
        packages=("dmt-learn",),
        environment="dmt",
        grid=({"nu": 0.1}, {"n_neighbors": 15}, {"n_neighbors": 60}),
    ),
    "scvi": Method(
        worker="scvi",
        packages=("scvi-tools", "umap-learn"),
        grid=({"n_latent": 10}, {"n_layers": 1}, {"n_layers": 3}),
    ),
    "scvi_2d": Method(
        worker="scvi_2d",
        packages=("scvi-tools",),
        grid=({"n_layers": 1}, {"n_layers": 3}, {"n_layers": 4}),
    ),
    "scdiffaug_alpha0": _ours(alpha=0.0),
    "scdiffaug_no_diffusion": _ours(diffusion="none"),
    "scdiffaug_alternating": _ours(schedule="alternating"),
    "scdiffaug_infonce": _ours(objective="infonce"),
    "scdiffaug_random_condition": _ours(condition="random"),
}

# The published figures are against these; the ablations and scVI are asked for by name.
DEFAULT = ("scdiffaug", "pca", "umap", "densmap", "tsne", "pacmap", "localmap", "phate")


def check(names: tuple[str, ...]) -> None:
    """Raise ValueError where a method is unknown."""
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ValueError(f"method {unknown[0]!r} is unknown: use one of {', '.join(METHODS)}.")


def _source_digest() -> str:
    digest = hashlib.sha256()
    folder = Path(scdiffaug.__file__).parent
    for path in sorted(folder.glob("*.py")):
        # Pictures and the command line do not move an embedding.
        if path.stem not in {"pl", "cli", "_demo", "_colours", "datasets", "tl"}:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
