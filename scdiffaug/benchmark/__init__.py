"""Benchmarks: scDiffAug and its peers on your own data, in one run, from one command."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scdiffaug.benchmark._augmentation.study import augmentation
    from scdiffaug.benchmark._embedding.alpha import alpha
    from scdiffaug.benchmark._embedding.study import embedding
    from scdiffaug.benchmark._embedding.transform import EMBED_NEW, transform
    from scdiffaug.benchmark._paper.study import paper
    from scdiffaug.benchmark._speed.study import speed
    from scdiffaug.benchmark.methods import DEFAULT, GENERATORS, METHODS, Generator, Method

__all__ = [
    "DEFAULT", "EMBED_NEW", "GENERATORS", "METHODS", "Generator", "Method", "alpha",
    "augmentation", "embedding", "paper", "speed", "transform",
]  # fmt: skip

_HOMES = {
    "EMBED_NEW": "_embedding.transform",
    "alpha": "_embedding.alpha",
    "augmentation": "_augmentation.study",
    "embedding": "_embedding.study",
    "paper": "_paper.study",
    "speed": "_speed.study",
    "transform": "_embedding.transform",
}


# Lazy (PEP 562): worker processes of simple peers must not wait for torch.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'methods')}"), name)


def __dir__() -> list[str]:
    return __all__
