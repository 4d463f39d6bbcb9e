"""What the tests of bad input share: something to try arguments on, and values that are bad."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from small_cells import logs_of_no_counts

from scdiffaug import datasets, scDiffAug

NAN, INF = float("nan"), float("inf")


class Bench:
    """What the arguments are tried on: data, a trained model, and one that never was."""

    def __init__(self, folder: Path) -> None:
        self.adata = datasets.pbmc68k_reduced()[:60, :40].copy()
        self.adata.obs["holes"] = pd.Categorical(["a"] * 59 + [None])
        self.adata.obs["half"] = np.linspace(0, 1, 60)
        self.adata.uns["loose"] = {"distances_key": "nowhere"}
        self.adata.uns["text"] = "no graph"
        self.adata.obsm["line"] = np.zeros((60, 1))
        scDiffAug.setup_anndata(self.adata)
        self.model = scDiffAug(self.adata, n_semantic=8)
        self.model.train(max_epochs=2, enable_progress_bar=False)
        self.log = self._log_model()
        self.folder = folder
        self.model.save(folder / "model")
        self.loose = scDiffAug.load(folder / "model")
        (folder / "file").write_text("mine")
        self.z = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
        self.labels = np.repeat(["a", "b"], 30)

    def _log_model(self) -> scDiffAug:
        model = scDiffAug(AnnData(logs_of_no_counts(self.adata.X.toarray())), n_semantic=8)
        model.train(max_epochs=1, enable_progress_bar=False)
        return model

    def raw(self, **changed: Any) -> AnnData:
        return AnnData(**{"X": self.adata.X.toarray(), **changed})

    def spoiled(self, value: float) -> np.ndarray:
        z = self.z.astype(np.float64)
        z[3, 1] = value
        return z


Case = tuple[str, Callable[[Bench], Any], type[Exception], str]


def each(
    verb: str, call: Callable[..., Any], values: dict[str, dict[Any, type[Exception]]]
) -> Iterator[Case]:
    """A case for each value of each argument; the message names the argument and the value."""
    for name, tried in values.items():
        for value, error in tried.items():
            found = f"{name}={value}" if error is ValueError else f"{name}={value!r}"
            loosely = re.escape(found).replace("'", "'?")
            if isinstance(value, str):
                loosely = re.escape(f"{name}={value!r}")
            yield f"{verb}({found})", _with(call, name, value), error, loosely


def _with(call: Callable[..., Any], name: str, value: object) -> Callable[[Bench], Any]:
    return lambda bench: call(bench, **{name: value})


V, T, K = ValueError, TypeError, KeyError
WHOLE = {0: V, -1: V, 1.5: T, "3": T, NAN: T, True: T, None: T}
# True equals 1, so that a dict holds but one of them.
FROM_TWO = {value: error for value, error in WHOLE.items() if value is not True} | {1: V}
OPTIONAL_WHOLE = {value: error for value, error in WHOLE.items() if value is not None}
SHARE = {-0.1: V, 1.1: V, NAN: V, INF: V, "0.5": T, None: T, True: T}
CHOICE = {"best": V, "": V, 3: V, None: V}
SEED = {-1: V, 2**32: V, 0.5: T, "7": T, True: T}
NAME = {"absent": K, 3: T, ("a", "b"): T}
