"""Every example is run: those of the public docstrings, and the Python of the user guide."""

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import pytest
from anndata import AnnData

import scdiffaug
from scdiffaug import model

GUIDE = Path(__file__).parents[1] / "docs" / "guide"
PUBLIC = ["tl", "pl", "datasets", "metrics", "benchmark"]


def _public_objects() -> Iterator[Any]:
    yield scdiffaug.scDiffAug
    for name in PUBLIC:
        module: ModuleType = importlib.import_module(f"scdiffaug.{name}")
        names = getattr(module, "__all__", None) or [
            key for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
            and not key.startswith("_")
        ]  # fmt: skip
        yield from (getattr(module, key) for key in names)


def _examples() -> list[doctest.DocTest]:
    finder, found = doctest.DocTestFinder(recurse=False), []
    for thing in _public_objects():
        methods = [
            value for key, value in inspect.getmembers(thing)
            if not key.startswith("_") and getattr(value, "__module__", "").startswith("scdiffaug")
        ] if inspect.isclass(thing) else []  # fmt: skip
        for documented in (thing, *methods):
            name = getattr(documented, "__qualname__", type(documented).__qualname__)
            found += finder.find(documented, name, globs={})
    return [example for example in found if example.examples]


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.name)
def test_docstring(example: doctest.DocTest) -> None:
    failed, tried = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert tried
    assert not failed


@pytest.mark.skipif(not GUIDE.is_dir(), reason="the guide is not in the source distribution")
@pytest.mark.parametrize("page", [path.stem for path in sorted(GUIDE.glob("*.md"))])
def test_guide(page: str, monkeypatch: pytest.MonkeyPatch, pbmc: AnnData) -> None:
    pbmc.write_h5ad("cells.h5ad")
    monkeypatch.setattr(model, "default_epochs", lambda *_: 1)
    blocks = re.findall(r"^```python\n(.*?)^```", (GUIDE / f"{page}.md").read_text(), re.M | re.S)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
