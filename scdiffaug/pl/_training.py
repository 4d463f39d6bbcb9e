"""Training curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scdiffaug._colours import OKABE_ITO
from scdiffaug.pl._figure import panels, result

if TYPE_CHECKING:
    from scdiffaug.model import scDiffAug


def history(
    model: scDiffAug,
    *,
    keys: Sequence[str] | None = None,
    color: str = OKABE_ITO[0],
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw the training curves of a model, each in a panel of its own.

    Parameters
    ----------
    model
        A trained model.
    keys
        Keys of ``model.history`` to draw; all by default. ``"loss"`` is the sum of the terms that
        an epoch trains, and falls where the encoder's training ends.
    color
        Colour of the curves.
    ax
        Where to draw, one for each curve; by default a new figure.
    show, return_fig
        As in :func:`embedding`.

    Returns
    -------
    The figure if ``return_fig``, nothing if it was shown, else the axes.

    Raises
    ------
    KeyError
        If a key is missing.
    RuntimeError
        If the model is not trained.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If there are not as many axes as curves, or no curves.

    Examples
    --------
    >>> import scdiffaug
    >>> model = scdiffaug.scDiffAug(scdiffaug.datasets.pbmc68k_reduced())
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> axes = scdiffaug.pl.history(model, keys=["loss", "diffusion"], show=False)
    >>> [ax.get_title() for ax in axes]
    ['loss', 'diffusion']
    """
    curves = _curves(model, keys)
    axes = panels(ax, len(curves), of="curves")
    for panel, (key, curve) in zip(axes, curves.items(), strict=True):
        panel.plot(curve.index, curve[key], color=color, linewidth=1)
        panel.set(title=key.replace("_", " "), xlabel=curve.index.name or "epoch")
        panel.spines[["top", "right"]].set_visible(False)
    return result(axes, new=ax is None, show=show, return_fig=return_fig)


def _curves(model: scDiffAug, keys: Sequence[str] | None) -> dict[str, pd.DataFrame]:
    recorded = model.history
    if isinstance(keys, str):
        raise TypeError(f"keys={keys!r} must be a list of names: pass [{keys!r}].")
    if not recorded:
        raise RuntimeError("The model has no history: call model.train() first.")
    missing = [key for key in keys or () if key not in recorded]
    if missing:
        raise KeyError(f"keys={missing} not found in model.history: it has {list(recorded)}.")
    # A term has no value in epochs in which it was not trained.
    return {key: recorded[key].dropna() for key in (recorded if keys is None else keys)}
