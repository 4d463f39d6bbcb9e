"""The command line; what it runs is imported only when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from scdiffaug import __version__

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", add_completion=False)
benchmark = typer.Typer(no_args_is_help=True, help="Compare methods on labelled data.")
app.add_typer(benchmark, name="benchmark")


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


@benchmark.command()
def embedding(
    *,
    data: Annotated[list[Path], typer.Option(dir_okay=False, help="An .h5ad file; repeatable.")],
    label: Annotated[str, typer.Option(help="Column of obs with the types.")] = "cell_type",
    methods: Annotated[
        str, typer.Option(help="Names with commas; 'default' or 'all' for many.")
    ] = "default",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 3,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the results.")] = Path(
        "benchmark"
    ),
    max_cells: Annotated[
        int | None, typer.Option(help="Draw as many cells from larger datasets.")
    ] = None,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Tune every method on its grid, without labels.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds after which a run is given up.")] = 3600,
) -> None:
    """Score 2-D embeddings of scDiffAug and its peers, and write tables and pictures."""
    from scdiffaug.benchmark import DEFAULT, METHODS
    from scdiffaug.benchmark import embedding as run

    groups = {"default": DEFAULT, "all": tuple(METHODS)}
    run(
        data,
        label_key=label,
        method_names=groups.get(methods, tuple(methods.split(","))),
        n_seeds=seeds,
        out=out,
        max_cells=max_cells,
        tuned=tuned,
        timeout=timeout,
    )
    typer.echo(f"wrote {out / 'summary.md'}")


@benchmark.command()
def setup(
    names: Annotated[
        list[str] | None, typer.Argument(help="Environments: keras, dmt; all by default.")
    ] = None,
) -> None:
    """Make the environments of peers whose dependencies clash with ours."""
    from scdiffaug.benchmark import environments

    for name in names or environments.NAMES:
        typer.echo(environments.make(name, environments.default_cache()))
