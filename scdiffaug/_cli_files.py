"""``scdiffaug embed``, ``augment`` and ``report``; what they run is imported only when it runs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from scdiffaug._cli_errors import or_fail

_In = Annotated[
    Path, typer.Argument(metavar="IN", help="Real cells, an .h5ad file or a .zarr folder.")
]
_Layer = Annotated[
    str | None,
    typer.Option(help="Layer with the values, raw counts where there are any. Default: X."),
]
_BatchKey = Annotated[
    str | None,
    typer.Option(help="Column of obs with batches, for which the embedding is corrected."),
]
_Space = Annotated[
    str | None,
    typer.Option(
        help="What the values are: counts, peaks, log or raw. Default: inferred from them."
    ),
]
_MaxEpochs = Annotated[
    int | None,
    typer.Option(min=1, help="Passes over the cells. Default: a budget that suits their number."),
]
_Seed = Annotated[
    int | None,
    typer.Option(
        min=0, help="Seed of everything random. Default: that of a saved model, 0 for a new one."
    ),
]
_Model = Annotated[
    Path | None,
    typer.Option(
        file_okay=False,
        help="Folder of a saved model; if it has none, embed and augment save theirs there.",
    ),
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file that is there.")]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")]
_Json = Annotated[bool, typer.Option("--json", help="Print a summary as JSON, and no bar.")]
_Backed = Annotated[
    bool,
    typer.Option(
        "--backed", help="Larger than memory: read and write the matrices by blocks of cells."
    ),
]
_Groupby = Annotated[
    str | None, typer.Option(help="Column of obs with groups. Training does not see it.")
]


def embed(
    cells: _In,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .h5ad file to write.")],
    *,
    layer: _Layer = None,
    batch_key: _BatchKey = None,
    feature_space: _Space = None,
    max_epochs: _MaxEpochs = None,
    model: _Model = None,
    map_batches: Annotated[
        bool,
        typer.Option(
            "--map-batches",
            help="Map cells of batches that the saved model did not learn from onto it.",
        ),
    ] = False,
    key_added: Annotated[
        str,
        typer.Option(help="Key of obsm for the 80-D embedding; that of the 2-D one ends in _2d."),
    ] = "X_scdiffaug",
    seed: _Seed = None,
    backed: _Backed = False,
    overwrite: _Overwrite = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Embed cells: OUT is IN with two embeddings in obsm, 80-D for analysis and 2-D for plots.

    Trains a model on the cells, unless --model names one that is trained; without its generator,
    unless --model names where to save it.

    Example: scdiffaug embed cells.h5ad embedded.h5ad --layer counts --model my_model
    """
    from scdiffaug import _files

    training = _files.Training(
        folder=model,
        layer=layer,
        batch_key=batch_key,
        feature_space=feature_space,
        max_epochs=max_epochs,
        seed=seed,
        progress=not (quiet or as_json),
    )
    found = or_fail(
        lambda: _files.embed(
            cells,
            out,
            training=training,
            map_batches=map_batches,
            key_added=key_added,
            overwrite=overwrite,
            backed=backed,
        )
    )
    keys = " and ".join(f"obsm[{key!r}] {tuple(shape)}" for key, shape in found["obsm"].items())
    _say(found, [f"Wrote {out}: {found['n_cells']:,} cells with {keys}"], as_json=as_json)


def augment(
    cells: _In,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .h5ad file to write.")],
    *,
    n_per_cell: Annotated[int, typer.Option(help="New cells per real cell.")] = 1,
    groupby: _Groupby = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Bring each group of --groupby up to this many cells, the real ones counted: a "
            "number, max, median, or numbers by name as in '{\"B cell\": 200}'."
        ),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(help="From near 0, the new cell equals its source, to 1, made from noise."),
    ] = 1.0,
    depth: Annotated[
        str,
        typer.Option(help="Total counts of each new cell: source, sampled or a number."),
    ] = "source",
    keep: Annotated[
        str,
        typer.Option(help="all, or consistent: only cells that stayed near their source."),
    ] = "all",
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps. Default: 8 with count thinning, else 32.")
    ] = None,
    layer: _Layer = None,
    batch_key: _BatchKey = None,
    feature_space: _Space = None,
    max_epochs: _MaxEpochs = None,
    model: _Model = None,
    seed: _Seed = None,
    backed: _Backed = False,
    overwrite: _Overwrite = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Make new cells: OUT holds them alone, each with the name of the real cell it comes from.

    Trains a model on the cells, unless --model names one that is trained. Check what was made
    with `scdiffaug report`.

    Example: scdiffaug augment cells.h5ad new.h5ad --groupby cell_type --target max
    """
    from scdiffaug import _files

    training = _files.Training(
        folder=model,
        layer=layer,
        batch_key=batch_key,
        feature_space=feature_space,
        max_epochs=max_epochs,
        seed=seed,
        progress=not (quiet or as_json),
    )
    chosen: Any = keep
    making = _files.Making(
        groupby=groupby,
        target=_number_or_name(target),
        n_per_cell=n_per_cell,
        strength=strength,
        depth=_number_or_name(depth),
        keep=chosen,
        steps=steps,
        seed=seed,
    )
    found = or_fail(
        lambda: _files.augment(
            cells, out, training=training, making=making, overwrite=overwrite, backed=backed
        )
    )
    kept = "" if found["kept_share"] is None else f", {found['kept_share']:.0%} of those made"
    _say(found, [f"Wrote {out}: {found['n_cells']:,} new cells{kept}"], as_json=as_json)


def report(
    cells: _In,
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Cells that augment made from IN.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="The page to write.")],
    *,
    held_out: Annotated[
        Path | None,
        typer.Option(help="Real cells the model never saw, an .h5ad file: a stricter yardstick."),
    ] = None,
    groupby: _Groupby = None,
    max_cells: Annotated[int, typer.Option(min=20, help="Cells of each side at most.")] = 1000,
    layer: _Layer = None,
    batch_key: _BatchKey = None,
    feature_space: _Space = None,
    max_epochs: _MaxEpochs = None,
    model: _Model = None,
    seed: _Seed = None,
    overwrite: _Overwrite = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Check new cells beside what real cells reach, and say in plain words what to worry about.

    Name with --model the model that made them; else one is trained first. The exit status is 0
    whatever is found: programs read `checks` and `worries` of --json.

    Example: scdiffaug report cells.h5ad new.h5ad report.html --model my_model
    """
    from scdiffaug import _files

    training = _files.Training(
        folder=model,
        layer=layer,
        batch_key=batch_key,
        feature_space=feature_space,
        max_epochs=max_epochs,
        seed=seed,
        progress=not (quiet or as_json),
    )
    found = or_fail(
        lambda: _files.report(
            cells,
            new,
            out,
            training=training,
            held_out=held_out,
            groupby=groupby,
            max_cells=max_cells,
            seed=seed,
            overwrite=overwrite,
        )
    )
    worries = found["worries"] or ["Nothing to worry about was found."]
    _say(found, [f"Wrote {out}", *(f"- {words}" for words in worries)], as_json=as_json)


def _number_or_name(text: str | None) -> Any:
    """``100`` and ``1e2`` are numbers, ``{"B cell": 100}`` numbers by name, ``max`` a name.

    The model checks what it is given.
    """
    try:
        found = None if text is None else json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, int | float | dict) else text


def _say(found: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))
