"""Benchmarks: peers and ours on one's own data, in one run, from one command."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scdiffaug.benchmark._augmentation.study import augmentation
    from scdiffaug.benchmark._embedding.study import embedding
    from scdiffaug.benchmark.methods import DEFAULT, GENERATORS, METHODS, Generator, Method

__all__ = [
    "DEFAULT", "GENERATORS", "METHODS", "Generator", "Method", "augmentation", "embedding",
]  # fmt: skip

_HOMES = {"augmentation": "_augmentation.study", "embedding": "_embedding.study"}


# Lazy (PEP 562): worker processes of simple peers must not wait for torch.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'methods')}"), name)


def __dir__() -> list[str]:
    return __all__
