"""Sphinx configuration: `make docs` builds docs/_build/html, warnings being errors."""

import re
import shutil
from importlib.metadata import version as version_of
from pathlib import Path

_HERE = Path(__file__).parent
_RESULTS = _HERE.parent / "benchmarks"
_TUTORIALS = _HERE.parent / "tutorials"

project = "scdiffaug"
author = "the scdiffaug developers"
copyright = "the scdiffaug developers"
release = version = version_of("scdiffaug")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# Guide pages are run by tests/test_examples.py, tutorials by `make tutorials`; a build trains no
# models.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
# Written out, these are many lines of numpy's private names.
autodoc_type_aliases = {
    name: name for name in ("Array", "ArrayLike", "Embedding", "Matrix", "Points", "Values")
}
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "sphinx_book_theme"
html_title = "scdiffaug"
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True}


def _as_prose(_app, _what, _name, _object, _options, lines):
    """Our sections on what is returned are sentences, not the types that napoleon looks for."""
    text = "\n".join(lines)
    found = re.search(r"^Returns\n-+\n(.*?)(?=\n\n\S+\n-+\n|\Z)", text, flags=re.M | re.S)
    if found:
        # A colon is an entry without name and type; what is indented below it is its description.
        body = "\n".join(f"    {line}".rstrip() for line in found[1].strip().splitlines())
        text = f"{text[: found.start(1)]}:\n{body}{text[found.end(1) :]}"
        lines[:] = text.splitlines()


def _copy_results(_app):
    """What was measured is shown as it is; pages can only be made of files in this folder."""
    generated = _HERE / "generated"
    shutil.rmtree(generated / "results", ignore_errors=True)
    (generated / "results").mkdir(parents=True)
    for page in ("NOTES.md", "SPEED.md"):
        shutil.copy(_RESULTS / page, generated / page)
    pages = sorted((_RESULTS / "results").glob("**/*.md"))
    for page in pages:
        shutil.copytree(
            page.parent,
            generated / "results" / page.parent.relative_to(_RESULTS / "results"),
            ignore=lambda _, names: [n for n in names if not n.endswith((".md", ".png", ".svg"))],
            dirs_exist_ok=True,
        )
    listed = "```{toctree}\n:maxdepth: 1\n:glob:\n\nresults/**\n```\n"
    text = listed if pages else "No results are in this checkout.\n"
    (generated / "results.md").write_text(f"# Results\n\n{text}", encoding="utf-8")


def _link_to_copies(_app, _name, source):
    """Pages link to results as they lie in the repository, so that the links hold there too."""
    text = source[0].replace("](../../benchmarks/", "](../generated/")
    source[0] = text.replace("](../benchmarks/", "](generated/")


def _copy_tutorials(_app):
    """Notebooks are shown as they were run; pages can only be made of files in this folder."""
    shown = _HERE / "generated" / "tutorials"
    shutil.rmtree(shown, ignore_errors=True)
    shown.mkdir(parents=True)
    for notebook in _TUTORIALS.glob("*.ipynb"):
        shutil.copy(notebook, shown)


def setup(app):
    """Hooks; Sphinx calls this."""
    app.connect("builder-inited", _copy_tutorials, priority=100)
    app.connect("builder-inited", _copy_results, priority=100)
    app.connect("source-read", _link_to_copies)
    app.connect("autodoc-process-docstring", _as_prose, priority=100)
