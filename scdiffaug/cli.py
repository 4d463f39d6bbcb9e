"""The command line; what it runs is imported only when it runs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from scdiffaug import __version__, _cli_benchmark, _cli_files
from scdiffaug._cli_errors import or_fail as _or_fail

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", add_completion=False)
app.add_typer(_cli_benchmark.benchmark, name="benchmark")
data = typer.Typer(no_args_is_help=True, help="Find and download datasets.")
app.add_typer(data, name="data")
for _command in (_cli_files.embed, _cli_files.augment, _cli_files.report, _cli_benchmark.paper):
    app.command()(_command)

_Name = Annotated[str, typer.Argument(help="Name of a dataset, as `data list` shows it.")]
_Files = Annotated[
    list[str] | None,
    typer.Option("--file", help="Only this file; may be given again. Default: all it is made of."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scdiffaug {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Label-free embedding and augmentation of single-cell omics."""


@app.command()
def demo(
    *,
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the figures and cells it makes.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
) -> None:
    """Train on a small dataset of blood cells, embed it, and make new cells."""
    from scdiffaug._demo import run

    _or_fail(lambda: run(out, seed=seed))


@data.command("list")
def list_datasets(*, as_json: _Json = False) -> None:
    """Show the datasets, and whether their files are here."""
    from scdiffaug import datasets

    entries = datasets.registry().values()
    states = _or_fail(lambda: [datasets.whereabouts(entry) for entry in entries])
    if as_json:
        pairs = zip(entries, states, strict=True)
        known = [asdict(entry) | {"whereabouts": at} for entry, at in pairs]
        typer.echo(json.dumps(known, indent=2, ensure_ascii=False))
        return
    rows = [
        (entry.name, entry.title, entry.n_cells, entry.n_features, entry.feature_space, at)
        for entry, at in zip(entries, states, strict=True)
    ]
    _print_table(["Name", "Title", "Cells", "Features", "Space", "Files"], rows)


@data.command()
def fetch(
    name: _Name,
    *,
    file: _Files = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")] = False,
    as_json: _Json = False,
) -> None:
    """Download the files of a dataset that are not here, and print where they are."""
    from scdiffaug import datasets

    found = _or_fail(lambda: datasets.fetch(name, files=file, progress=not quiet))
    _print_paths(name, found, as_json=as_json)


@data.command()
def path(name: _Name, *, file: _Files = None, as_json: _Json = False) -> None:
    """Print where the files of a dataset are; exit status 1 if one is not here."""
    from scdiffaug import datasets

    found = _or_fail(lambda: datasets.path(name, files=file))
    _print_paths(name, found, as_json=as_json)


def _print_paths(name: str, found: dict[str, Path], *, as_json: bool) -> None:
    if not found:
        # On standard error, as scripts read paths from standard output.
        typer.echo(f"{name} has no files: scdiffaug.datasets.load({name!r}) makes it.", err=True)
    if as_json:
        typer.echo(json.dumps({name: str(at) for name, at in found.items()}, indent=2))
        return
    for at in found.values():
        typer.echo(at)


def _print_table(titles: list[str], rows: Sequence[tuple[object, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*titles, box=None, pad_edge=False)
    for row in rows:
        shown = ("?" if value is None else value for value in row)
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in shown))
    Console().print(table)
