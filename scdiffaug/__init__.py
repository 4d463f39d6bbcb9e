"""Label-free augmentation and embedding of single-cell omics with DiffAug."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scdiffaug import datasets, distributed, metrics, pl, tl
    from scdiffaug.model import scDiffAug

__all__ = ["__version__", "datasets", "distributed", "metrics", "pl", "scDiffAug", "tl"]

__version__ = version("scdiffaug")


# Lazy (PEP 562): the version and `scdiffaug --help` must not wait for torch.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "scDiffAug":
        return import_module("scdiffaug.model").scDiffAug
    return import_module(f"scdiffaug.{name}")


def __dir__() -> list[str]:
    return __all__
