"""Every example is run: those of the public docstrings, of the user guide and of README."""

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
from scdiffaug import budget

ROOT = Path(__file__).parents[1]
API = ROOT / "docs" / "api"
PAGES = {path.stem: path for path in sorted(ROOT.glob("docs/guide/*.md"))}
PAGES["README"] = ROOT / "README.md"
PUBLIC = ["tl", "distributed", "pl", "datasets", "metrics", "benchmark"]


def _public() -> Iterator[tuple[str, Any]]:
    """Functions, classes and methods that users may call, each with its name in the docs."""
    yield from _with_methods("scDiffAug", scdiffaug.scDiffAug)
    for name in PUBLIC:
        module: ModuleType = importlib.import_module(f"scdiffaug.{name}")
        names = getattr(module, "__all__", None) or [
            key for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
            and not key.startswith("_")
        ]  # fmt: skip
        for key in names:
            if callable(thing := getattr(module, key)):
                yield from _with_methods(f"{name}.{key}", thing)


def _with_methods(name: str, thing: Any) -> Iterator[tuple[str, Any]]:
    yield name, thing
    if inspect.isclass(thing):
        for key, value in inspect.getmembers(thing, inspect.isroutine):
            if key.startswith("_") or not value.__module__.startswith("scdiffaug"):
                continue
            # A method that refuses what scvi-tools would do has nothing to show.
            if value.__annotations__.get("return") != "NoReturn":
                yield f"{name}.{key}", value


OBJECTS = dict(_public())


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


@pytest.mark.parametrize("name", OBJECTS)
def test_docstring(name: str) -> None:
    (example,) = doctest.DocTestFinder(recurse=False, exclude_empty=False).find(
        OBJECTS[name], name, globs={}
    )
    failed, tried = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert tried, f"{name} has no example"
    assert not failed


@pytest.mark.skipif(not API.is_dir(), reason="the docs are not in the source distribution")
def test_every_public_name_is_on_a_page_of_the_api() -> None:
    pages = "".join(page.read_text() for page in API.glob("*.md"))
    listed = set(re.findall(r"^(?:\.\. auto\w+:: |   )([\w.]+)$", pages, re.M))
    assert {name for name in OBJECTS if name.count(".") < 2} <= listed


@pytest.mark.parametrize("page", PAGES)
def test_guide(page: str, monkeypatch: pytest.MonkeyPatch, pbmc: AnnData) -> None:
    pbmc.write_h5ad("cells.h5ad")
    monkeypatch.setattr(budget, "default_epochs", lambda *_, **__: 1)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGES[page].read_text(), re.M | re.S)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
