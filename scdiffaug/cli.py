"""The command line; what it runs is imported only when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from scdiffaug import __version__

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", add_completion=False)


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
    """Augment and embed single-cell omics with [bold]DiffAug[/bold]."""


@app.command()
def demo(
    *,
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the figures and cells it makes.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Train on a small dataset of blood cells, embed it, and make new cells."""
    from scdiffaug._demo import run

    run(out, seed=seed)
