"""``scdiffaug benchmark`` and ``paper``; what they run is imported only when it runs."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from scdiffaug._cli_errors import or_fail

benchmark = typer.Typer(no_args_is_help=True, help="Compare methods on labelled data.")

_Data = Annotated[
    list[Path] | None, typer.Option(dir_okay=False, help="An .h5ad file; repeatable.")
]
_More = Annotated[
    list[Path] | None,
    typer.Argument(exists=True, dir_okay=False, metavar="[FILE]...", help="The same as --data."),
]
_Label = Annotated[str, typer.Option(help="Column of obs with the types.")]
_Seeds = Annotated[int, typer.Option(min=1, help="Runs of each method.")]
_Out = Annotated[Path, typer.Option(file_okay=False, help="Folder of the results.")]
_MaxCells = Annotated[int | None, typer.Option(help="Draw as many cells from larger datasets.")]
_MaxCellsSvm = Annotated[
    int | None,
    typer.Option(help="Score the linear SVM on as many cells drawn at random. Default: all."),
]
_Timeout = Annotated[float, typer.Option(help="Seconds after which a run is given up.")]
_MaxEpochs = Annotated[
    int | None, typer.Option(min=1, help="Epochs of methods that train. Default: their own.")
]


@benchmark.command()
def embedding(
    *,
    data: _Data = None,
    more: _More = None,
    label: _Label = "cell_type",
    methods: Annotated[
        str, typer.Option(help="Names with commas; 'default' or 'all' for many.")
    ] = "default",
    seeds: _Seeds = 3,
    out: _Out = Path("benchmark"),
    max_cells: _MaxCells = None,
    max_cells_svm: _MaxCellsSvm = None,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Tune every method on its grid, without labels.")
    ] = False,
    timeout: _Timeout = 3600,
) -> None:
    """Score 2-D embeddings of scDiffAug and other methods, and write tables and pictures."""
    from scdiffaug.benchmark import DEFAULT, METHODS
    from scdiffaug.benchmark import embedding as run

    groups = {"default": DEFAULT, "all": tuple(METHODS)}
    or_fail(
        lambda: run(
            _named(data, more),
            label_key=label,
            method_names=groups.get(methods, _words(methods)),
            n_seeds=seeds,
            out=out,
            max_cells=max_cells,
            max_cells_svm=max_cells_svm,
            tuned=tuned,
            timeout=timeout,
        )
    )
    _say(out)


@benchmark.command()
def transform(
    *,
    data: _Data = None,
    more: _More = None,
    label: _Label = "cell_type",
    held_out: Annotated[float, typer.Option(help="Share of the cells that is held back.")] = 0.2,
    methods: Annotated[
        str, typer.Option(help="Names with commas; 'default' for all that can.")
    ] = "default",
    seeds: _Seeds = 3,
    out: _Out = Path("benchmark_transform"),
    max_cells: _MaxCells = None,
    timeout: _Timeout = 3600,
) -> None:
    """Score embeddings of held-back cells beside those of the cells that were learnt from."""
    from scdiffaug.benchmark import EMBED_NEW
    from scdiffaug.benchmark import transform as run

    or_fail(
        lambda: run(
            _named(data, more),
            label_key=label,
            held_out=held_out,
            method_names=EMBED_NEW if methods == "default" else _words(methods),
            n_seeds=seeds,
            out=out,
            max_cells=max_cells,
            timeout=timeout,
        )
    )
    _say(out)


@benchmark.command()
def alpha(
    *,
    data: _Data = None,
    more: _More = None,
    label: _Label = "cell_type",
    shares: Annotated[
        str, typer.Option(help="Shares of the cells to train on, with commas.")
    ] = "1,0.1",
    seeds: Annotated[int, typer.Option(min=1, help="Pairs of runs.")] = 5,
    out: _Out = Path("benchmark_alpha"),
    max_cells_svm: _MaxCellsSvm = None,
    max_epochs: _MaxEpochs = None,
    timeout: _Timeout = 3600,
) -> None:
    """Does diffusion help? Score the default against training without generated positives."""
    from scdiffaug.benchmark import alpha as run

    or_fail(
        lambda: run(
            _named(data, more),
            label_key=label,
            shares=_numbers(shares),
            n_seeds=seeds,
            out=out,
            max_cells_svm=max_cells_svm,
            max_epochs=max_epochs,
            timeout=timeout,
        )
    )
    _say(out)


@benchmark.command()
def augmentation(
    *,
    data: _Data = None,
    more: _More = None,
    label: _Label = "cell_type",
    methods: Annotated[str, typer.Option(help="Names with commas, or 'all'.")] = "all",
    settings: Annotated[
        str, typer.Option(help="With commas: in_sample, held_out, novelty, use, or 'all'.")
    ] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Halves and runs of each method.")] = 3,
    out: _Out = Path("benchmark_augmentation"),
    max_cells: _MaxCells = None,
    max_epochs: _MaxEpochs = None,
    timeout: _Timeout = 3600,
    jobs: Annotated[int, typer.Option(min=1, help="Datasets and seeds at once.")] = 1,
) -> None:
    """Score cells made by scDiffAug and other methods beside real ones, and write the report."""
    from scdiffaug.benchmark import GENERATORS
    from scdiffaug.benchmark import augmentation as run
    from scdiffaug.benchmark._augmentation.trials import SETTINGS

    or_fail(
        lambda: run(
            _named(data, more),
            label_key=label,
            method_names=tuple(GENERATORS) if methods == "all" else _words(methods),
            settings=SETTINGS if settings == "all" else _words(settings),  # type: ignore[arg-type]
            n_seeds=seeds,
            out=out,
            max_cells=max_cells,
            max_epochs=max_epochs,
            timeout=timeout,
            n_jobs=jobs,
        )
    )
    _say(out)


@benchmark.command()
def speed(
    *,
    cells: Annotated[int, typer.Option(min=100, help="Simulated cells.")] = 10_000,
    features: Annotated[int, typer.Option(min=10, help="Their genes.")] = 2000,
    density: Annotated[float, typer.Option(help="Share of the counts that is not zero.")] = 0.08,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each kind.")] = 3,
    out: _Out = Path("benchmark_speed"),
    max_epochs: Annotated[int, typer.Option(min=1, help="Epochs that are timed.")] = 4,
    made: Annotated[int, typer.Option(min=1, help="Cells that are made.")] = 1024,
    accelerator: Annotated[str, typer.Option(help="What trains and samples: cpu, gpu.")] = "cpu",
    timeout: _Timeout = 600,
) -> None:
    """Time training, sampling and loading beside scVI, on simulated counts, in turn."""
    from scdiffaug.benchmark import speed as run

    or_fail(
        lambda: run(
            n_cells=cells,
            n_features=features,
            density=density,
            n_rounds=rounds,
            out=out,
            max_epochs=max_epochs,
            n_made=made,
            accelerator=accelerator,  # type: ignore[arg-type]
            timeout=timeout,
        )
    )
    _say(out)


@benchmark.command()
def setup(
    names: Annotated[
        list[str] | None, typer.Argument(help="Environments: keras, dmt; all by default.")
    ] = None,
) -> None:
    """Make the environments of methods whose dependencies clash with ours."""
    from scdiffaug.benchmark import environments

    cache = environments.cache_folder()
    for name in names or environments.NAMES:
        typer.echo(or_fail(partial(environments.make, name, cache)))


def paper(
    what: Annotated[
        str, typer.Argument(help="table2, table4, table5, figure3 or figure4.", metavar="WHAT")
    ],
    *,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder. Default: paper_WHAT.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Runs of each. Default: 3; figure3 1, figure4 5."),
    ] = None,
    max_cells: Annotated[
        int, typer.Option(help="Draw as many cells from larger datasets.")
    ] = 60_000,
    max_cells_svm: _MaxCellsSvm = None,
    max_epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of ours. Default: its own number.")
    ] = None,
    timeout: _Timeout = 3600,
) -> None:
    """Make a table or figure of the paper on those of its datasets that are here.

    Files are looked for in SCDIFFAUG_DATA_DIR and among those that `data fetch` brought. Where
    HCL, Gast, SAM or MCA is missing, a smaller dataset of its kind stands in and is named so.

    Example: scdiffaug paper table4 --out table4
    """
    from scdiffaug.benchmark import paper as run

    place = Path(f"paper_{what}") if out is None else out
    or_fail(
        lambda: run(
            what,
            out=place,
            n_seeds=seeds,
            max_cells=max_cells,
            max_cells_svm=max_cells_svm,
            max_epochs=max_epochs,
            timeout=timeout,
        )
    )
    _say(place)


def _say(out: Path) -> None:
    typer.echo(f"wrote {out / 'summary.md'}")


def _named(data: list[Path] | None, more: list[Path] | None) -> list[Path]:
    if not data and not more:
        raise typer.BadParameter("name at least one .h5ad file.", param_hint="'--data'")
    return [*(data or []), *(more or [])]


def _words(text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(word.strip() for word in text.split(","))


def _numbers(text: str) -> list[float]:
    """Numbers between commas."""
    try:
        return [float(word) for word in _words(text)]
    except ValueError as error:
        raise ValueError(f"{text!r} must be numbers with commas between: 1,0.1") from error
