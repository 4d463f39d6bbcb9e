"""The registry of embedding methods: where each runs, what it needs, what may be tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import scdiffaug
from scdiffaug.benchmark.processes import digest_of

Settings = Mapping[str, Any]

# Our rows: the defaults, in both registries; what the guide advises for training a classifier.
OURS, CONSISTENT = "scdiffaug", "scdiffaug_consistent"
# What tl.embed trains by itself.
ENCODER_ALONE = "scdiffaug_no_diffusion"


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the tables on embeddings.

    Parameters
    ----------
    worker
        Function of ``_worker.py`` that runs it.
    packages
        Packages that must be installed, the method's own first; their versions are recorded.
    settings
        Settings of the row.
    environment
        ``"main"``, or the name of an environment of :mod:`scdiffaug.benchmark.environments`.
    grid
        Settings that ``tuned=True`` tries besides the defaults: three, or none if not tuned.
    is_ours
        Whether the row is scDiffAug or an ablation of it.
    uses_labels
        Whether the method is shown the types of the cells it may learn from.
    embeds_new
        Whether the method, once fitted, can embed cells that it has not seen.

    Examples
    --------
    >>> from scdiffaug.benchmark import METHODS
    >>> METHODS["umap"].packages
    ('umap-learn',)
    """

    worker: str
    packages: tuple[str, ...]
    settings: Settings = field(default_factory=dict)
    environment: str = "main"
    grid: tuple[Settings, ...] = ()
    is_ours: bool = False
    uses_labels: bool = False
    embeds_new: bool = False

    def versions(self) -> dict[str, str]:
        """Installed versions; empty where one is missing, or the method has its own environment.

        For scdiffaug itself the source is hashed too, as a changed line is another method.

        Examples
        --------
        >>> from scdiffaug.benchmark import METHODS
        >>> list(METHODS["umap"].versions())
        ['umap-learn']
        """
        if self.environment != "main":
            return {}
        try:
            found = {package: metadata.version(package) for package in self.packages}
        except metadata.PackageNotFoundError:
            return {}
        return found | ({"source": _source_digest()} if self.is_ours else {})


def _ours(*, grid: tuple[Settings, ...] = (), **settings: Any) -> Method:
    return Method(
        worker="scdiffaug",
        packages=("scdiffaug", "torch"),
        settings=settings,
        grid=grid,
        is_ours=True,
        uses_labels=settings.get("condition") == "labels",
        embeds_new=True,
    )


# Modules that change neither embeddings nor augmented cells, and are not hashed.
_DECIDE_NOTHING = {
    "_cli_benchmark", "_cli_errors", "_cli_files", "_colours", "_demo", "_drawing", "_files",
    "_report_page", "_report_sides", "_results", "_saved_fields", "_verdicts", "block_files",
    "checkpoint", "cli", "distributed", "report", "storage", "streaming", "tl",
}  # fmt: skip

# Peers that also run on the components our encoder sees: how much of a margin is the input?
_ON_OUR_COMPONENTS = {
    "pca": "scikit-learn",
    "umap": "umap-learn",
    "tsne": "openTSNE",
    "pacmap": "pacmap",
    "localmap": "pacmap",
}

# Spelt out and not imported, as workers of simple peers must not wait for torch.
OTHER_OBJECTIVES = ("infonce", "byol", "simsiam", "moco", "vicreg")

METHODS: Mapping[str, Method] = {
    "scdiffaug": _ours(grid=({"n_neighbors": 10}, {"n_neighbors": 30}, {"alpha": 0.3})),
    "pca": Method(worker="pca", packages=("scikit-learn",), embeds_new=True),
    "umap": Method(
        worker="umap",
        packages=("umap-learn",),
        grid=({"n_neighbors": 30}, {"min_dist": 0.01}, {"min_dist": 0.5}),
        embeds_new=True,
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
        embeds_new=True,
    ),
    "localmap": Method(
        worker="localmap",
        packages=("pacmap",),
        grid=({"n_neighbors": 20}, {"low_dist_thres": 5}, {"low_dist_thres": 20}),
    ),
    **{
        f"{name}_standardised": Method(
            worker=name,
            packages=(package,),
            settings={"scale": "standardised"},
            embeds_new=name in ("pca", "umap", "pacmap"),
        )
        for name, package in _ON_OUR_COMPONENTS.items()
    },
    "phate": Method(
        worker="phate", packages=("phate",), grid=({"knn": 15}, {"gamma": 0}, {"knn": 30})
    ),
    "pumap": Method(
        worker="pumap",
        packages=("umap-learn", "tensorflow-cpu"),
        environment="keras",
        grid=({"n_neighbors": 30}, {"epochs": 3}, {"n_neighbors": 10}),
        embeds_new=True,
    ),
    "ivis": Method(
        worker="ivis",
        packages=("ivis", "tensorflow-cpu"),
        environment="keras",
        grid=({"k": 30}, {"k": 100}, {"model": "szubert"}),
        embeds_new=True,
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
    ENCODER_ALONE: _ours(
        diffusion="none", grid=({"n_neighbors": 10}, {"n_neighbors": 30}, {"balance": 0.0})
    ),
    "scdiffaug_alternating": _ours(schedule="alternating"),
    "scdiffaug_simclr": _ours(objective="infonce", diffusion="none"),
    "scdiffaug_random_condition": _ours(condition="random"),
    "scdiffaug_label_condition": _ours(condition="labels"),
    **{f"scdiffaug_{name}": _ours(objective=name) for name in OTHER_OBJECTIVES},
    **{f"scdiffaug_{name}_alpha0": _ours(objective=name, alpha=0.0) for name in OTHER_OBJECTIVES},
}

# Published figures compare with these; ablations, scVI and the rest run only if named.
DEFAULT = (
    "scdiffaug",
    ENCODER_ALONE,
    "pca",
    "umap",
    "densmap",
    "tsne",
    "pacmap",
    "localmap",
    "phate",
    *(f"{name}_standardised" for name in _ON_OUR_COMPONENTS),
)


@dataclass(frozen=True, kw_only=True)
class Generator(Method):
    """One row of the tables on augmented cells.

    ``worker`` is a key of ``_augmentation.makers.WORKERS``; rows with the same worker share what
    it trains.

    Parameters
    ----------
    kinds
        Kinds of values that the method can make.
    makes
        ``"values"`` as the data came, or ``"seen"``, which for counts are logarithms.
    follows
        What an augmented cell takes from its source cell.

    Examples
    --------
    >>> from scdiffaug.benchmark import GENERATORS
    >>> GENERATORS["scdiffaug_steps_4"].settings
    {'steps': 4, 'strength': 1.0}
    """

    kinds: tuple[str, ...] = ("counts", "peaks", "log", "raw")
    makes: Literal["values", "seen"] = "values"
    follows: Literal["source", "type", "nothing"] = "source"

    def unfit(self, kind: str) -> str:
        """Why the method cannot make values of this kind; empty where it can.

        Examples
        --------
        >>> from scdiffaug.benchmark import GENERATORS
        >>> GENERATORS["knn_poisson"].unfit("log")
        'makes counts or peaks values, not log'
        """
        return "" if kind in self.kinds else f"makes {' or '.join(self.kinds)} values, not {kind}"

    def settings_of(self, kind: str) -> Settings:
        """The settings of the method for values of this kind.

        Examples
        --------
        >>> from scdiffaug.benchmark import GENERATORS
        >>> GENERATORS["scdiffaug"].settings_of("log")
        {'steps': 32, 'strength': 1.0}
        """
        names_none = self.settings.get("steps", 0) is None
        return {**self.settings, "steps": _STEPS[kind]} if names_none else self.settings

    def takes_part(self, setting: str) -> bool:
        """Whether the method can make what a setting of the benchmark asks for.

        Examples
        --------
        >>> from scdiffaug.benchmark import GENERATORS
        >>> GENERATORS["scvi_prior"].takes_part("use")
        False
        """
        # Rejected cells are missing where there is to be one for each source.
        return self.follows != "nothing" if setting == "use" else "keep" not in self.settings

    @property
    def needs_types(self) -> bool:
        """Whether it is told the types of the cells that it starts from, as groups."""
        return "groupby" in self.settings

    @property
    def is_variant(self) -> bool:
        """Whether the row is ours with other steps, strength or solver than by default."""
        return "steps" in self.settings and self.settings != _OURS


# Our default row. Where steps are None, they are those of the kind of values.
_OURS: Settings = {"steps": None, "strength": 1.0}
# Default steps of each kind, spelt out since they are points on the curves of quality.
_STEPS = {"counts": 8, "peaks": 8, "log": 32, "raw": 32}


def _made_by_us(**settings: Any) -> Generator:
    return Generator(
        worker="scdiffaug",
        packages=("scdiffaug", "torch"),
        settings={**_OURS, **settings},
        kinds=("log", "raw") if "sampler" in settings else ("counts", "peaks", "log", "raw"),
        is_ours=True,
    )


GENERATORS: Mapping[str, Generator] = {
    "scdiffaug": _made_by_us(),
    "duplicate": Generator(worker="duplicate", packages=("numpy",)),
    "gaussian": Generator(worker="gaussian", packages=("numpy",), makes="seen"),
    "mask": Generator(worker="mask", packages=("numpy",)),
    "mixup": Generator(worker="mixup", packages=("scikit-learn",), makes="seen"),
    "smote": Generator(
        worker="smote",
        packages=("imbalanced-learn",),
        makes="seen",
        follows="type",
        uses_labels=True,
    ),
    "knn_poisson": Generator(
        worker="knn_poisson", packages=("scikit-learn",), kinds=("counts", "peaks")
    ),
    "semantic_poisson": Generator(
        worker="scdiffaug",
        packages=("scdiffaug", "torch"),
        settings={"smoothed": 5},
        kinds=("counts", "peaks"),
        is_ours=True,
    ),
    "scvi_posterior": Generator(
        worker="scvi",
        packages=("scvi-tools",),
        settings={"latent": "posterior"},
        kinds=("counts", "peaks"),
    ),
    "scvi_prior": Generator(
        worker="scvi",
        packages=("scvi-tools",),
        settings={"latent": "prior"},
        kinds=("counts", "peaks"),
        follows="nothing",
    ),
    **{f"scdiffaug_steps_{steps}": _made_by_us(steps=steps) for steps in (1, 2, 4, 16, 64)},
    **{
        f"scdiffaug_strength_{strength}": _made_by_us(strength=strength)
        for strength in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
    },
    "scdiffaug_grouped": _made_by_us(groupby="cell_type"),
    CONSISTENT: _made_by_us(groupby="cell_type", keep="consistent"),
    f"{CONSISTENT}_0.8": _made_by_us(groupby="cell_type", keep="consistent", strength=0.8),
    "scdiffaug_ddim": _made_by_us(sampler="ddim"),
    "scdiffaug_ddpm": _made_by_us(sampler="ddpm"),
}


def check(names: Sequence[str], known: Mapping[str, Method]) -> None:
    """Raise ValueError where a method is unknown, or there is none."""
    if not names:
        raise ValueError(f"method_names is empty: name some of {', '.join(known)}.")
    unknown = [name for name in names if name not in known]
    if unknown:
        what = "cannot do this" if unknown[0] in {*METHODS, *GENERATORS} else "is unknown"
        raise ValueError(f"method {unknown[0]!r} {what}: use one of {', '.join(known)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"method_names has a method twice: {', '.join(names)}.")


def as_words(values: Settings) -> str:
    """Settings or versions in one line."""
    return " ".join(f"{key}={value}" for key, value in values.items())


@cache
def _source_digest() -> str:
    files = sorted(Path(scdiffaug.__file__).parent.glob("*.py"))
    return digest_of(file for file in files if file.stem not in _DECIDE_NOTHING)
