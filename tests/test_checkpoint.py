"""A run that was interrupted and resumed ends, bit by bit, where the whole run does."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import scanpy as sc
import torch
from anndata import AnnData

from scdiffaug import checkpoint, datasets, scDiffAug
from scdiffaug.module import DiffAugModule

FILE = "checkpoint.safetensors"
N_STEPS = 4 * 3
N_INTERRUPTIONS = 4
Outcome = tuple[str, dict[str, list[str]]]


class Interrupted(Exception):
    """Ends a run where a kill would."""


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return datasets.pbmc68k_reduced()[:90, :40].copy()


@pytest.fixture(autouse=True)
def _at_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN", 0.0)


def _model(adata: AnnData, **how: Any) -> scDiffAug:
    return scDiffAug(adata.copy(), **{"n_semantic": 8, "n_top_features": 30, **how})


def _train(model: scDiffAug, **how: Any) -> scDiffAug:
    quick = {"max_epochs": 4, "batch_size": 30, "enable_progress_bar": False}
    model.train(**{**quick, "accelerator": "cpu", "precision": "32-true", **how})
    return model


def _outcome(model: scDiffAug) -> Outcome:
    found = hashlib.sha256()
    for name, value in sorted(model.module.state_dict().items()):
        found.update(name.encode() + value.numpy().tobytes())
    # As text, in which the NaN of an epoch that did not train a term is that of another.
    history = {name: part[name].map(repr).tolist() for name, part in model.history.items()}
    return found.hexdigest(), history


def _interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """End the next run after so many of its steps."""
    update, seen = DiffAugModule.update_ema, []

    def count(module: DiffAugModule, decay: float) -> None:
        update(module, decay)
        seen.append(decay)
        if len(seen) == after:
            raise Interrupted

    monkeypatch.setattr(DiffAugModule, "update_ema", count)


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "counts": ({}, {}),
    "alternating": ({}, {"schedule": "alternating", "precision": "bf16-mixed"}),
    "gaussian": ({"diffusion": "gaussian"}, {"alpha": 0.5, "startup": 0.2}),
    "no generator": ({"diffusion": "none"}, {}),
    "a queue and a momentum copy": ({"objective": "moco"}, {}),
}


@pytest.mark.parametrize(("made", "trained"), KINDS.values(), ids=KINDS)
def test_resumed_run_is_the_whole_run(
    adata: AnnData,
    made: dict[str, Any],
    trained: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = _outcome(_train(_model(adata, **made), **trained))
    rng = np.random.default_rng(0)
    # One run, interrupted again and again: after five steps one epoch of three is done for good.
    for after in rng.integers(1, 6, size=N_INTERRUPTIONS):
        with monkeypatch.context() as patch:
            _interrupt(patch, after)
            with pytest.raises(Interrupted):
                _train(_model(adata, **made), **trained, checkpoint_dir=tmp_path, resume=True)
    resumed = _train(_model(adata, **made), **trained, checkpoint_dir=tmp_path, resume=True)
    assert _outcome(resumed) == whole


def test_checkpoints_change_nothing(adata: AnnData, tmp_path: Path) -> None:
    whole = _outcome(_train(_model(adata)))
    kept = _train(_model(adata), checkpoint_dir=tmp_path / "new" / "folder")
    assert _outcome(kept) == whole
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [FILE]


def test_a_finished_run_is_found_finished(
    adata: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _outcome(_train(_model(adata), checkpoint_dir=tmp_path))
    _interrupt(monkeypatch, 1)
    assert _outcome(_train(_model(adata), checkpoint_dir=tmp_path, resume=True)) == whole


def test_a_run_stopped_by_hand_goes_on_from_the_last_whole_epoch(
    adata: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _outcome(_train(_model(adata)))
    steps = iter(range(N_STEPS))
    update = DiffAugModule.update_ema

    def press_ctrl_c(module: DiffAugModule, decay: float) -> None:
        update(module, decay)
        if next(steps) == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(DiffAugModule, "update_ema", press_ctrl_c)
        stopped = _train(_model(adata), checkpoint_dir=tmp_path)
    assert len(stopped.history["loss"]) == 3
    assert _outcome(_train(_model(adata), checkpoint_dir=tmp_path, resume=True)) == whole


def test_checkpoints_are_no_more_frequent_than_allowed(
    adata: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = checkpoint.Checkpoints.write
    monkeypatch.setattr(
        checkpoint.Checkpoints,
        "write",
        lambda kept, progress: (write(kept, progress), written.append(len(progress.records))),
    )
    _train(_model(adata), checkpoint_dir=tmp_path / "often")
    monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN", 3600.0)
    _train(_model(adata), checkpoint_dir=tmp_path / "seldom")
    assert written == [1, 2, 3, 4, 4]


@pytest.fixture(scope="module")
def left(adata: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left")
    _train(_model(adata), checkpoint_dir=folder)
    return folder


OTHER: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "learning rate": ({}, {"learning_rate": 1e-4}, "other learning_rate:"),
    "epochs": ({}, {"max_epochs": 5}, "other max_epochs:"),
    "batches": ({}, {"batch_size": 45}, "other batch_size:"),
    "precision": ({}, {"precision": "bf16-mixed"}, "other precision:"),
    "seed": ({"seed": 1}, {}, "other seed:"),
    "objective": ({"objective": "infonce"}, {}, "other objective:"),
    "variable features": ({"n_top_features": 29}, {}, "other .*variable features:"),
}


@pytest.mark.parametrize(("made", "trained", "named"), OTHER.values(), ids=OTHER)
def test_another_run_is_not_resumed(
    adata: AnnData, left: Path, made: dict[str, Any], trained: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=f"is of a run with {named} repeat that run's call"):
        _train(_model(adata, **made), **trained, checkpoint_dir=left, resume=True)


def test_other_cells_are_not_taken_for_those_of_the_run(adata: AnnData, left: Path) -> None:
    other = adata[::-1].copy()
    with pytest.raises(ValueError, match="is of a run with other cells:"):
        _train(_model(other), checkpoint_dir=left, resume=True)
    renamed = adata.copy()
    renamed.var_names = [f"{name}-other" for name in adata.var_names]
    with pytest.raises(ValueError, match="is of a run with other features:"):
        _train(_model(renamed), checkpoint_dir=left, resume=True)


def test_another_graph_is_not_taken_for_that_of_the_run(adata: AnnData, tmp_path: Path) -> None:
    cells = adata.copy()
    sc.pp.neighbors(cells, use_rep="X", n_neighbors=16)
    scDiffAug.setup_anndata(cells, neighbors_key="neighbors")
    _train(_model(cells), checkpoint_dir=tmp_path / "run")
    sc.pp.neighbors(cells, use_rep="X", n_neighbors=16, metric="cosine")
    with pytest.raises(ValueError, match="is of a run with other neighbors:"):
        _train(_model(cells), checkpoint_dir=tmp_path / "run", resume=True)


def test_a_run_that_is_not_resumed_leaves_a_trained_model(adata: AnnData, left: Path) -> None:
    model = _train(_model(adata))
    before = _outcome(model)
    with pytest.raises(ValueError, match="is of a run with other max_epochs:"):
        _train(model, max_epochs=5, checkpoint_dir=left, resume=True)
    assert _outcome(model) == before
    assert model.get_latent_representation().shape == (90, 8)


def test_a_checkpoint_is_not_replaced_unasked(adata: AnnData, left: Path) -> None:
    before = (left / FILE).read_bytes()
    with pytest.raises(FileExistsError, match="pass resume=True to go on from it"):
        _train(_model(adata), checkpoint_dir=left)
    assert (left / FILE).read_bytes() == before


def test_there_must_be_somewhere_to_resume_from(adata: AnnData) -> None:
    with pytest.raises(ValueError, match="resume=True needs checkpoint_dir"):
        _train(_model(adata), resume=True)


def _rewritten(
    path: Path,
    text: Callable[[str], str] = lambda text: text,
    tensors: Callable[[dict[str, torch.Tensor]], object] = len,
) -> None:
    """Change the file as a forger would, who can compute digests too."""
    with safetensors.safe_open(path, framework="pt") as file:
        said = text(file.metadata()["training"])
    parts = {name: part.clone() for name, part in safetensors.torch.load_file(path).items()}
    tensors(parts)
    metadata = {"training": said, "sha256": checkpoint._digest(said, parts)}
    path.write_bytes(safetensors.torch.save(parts, metadata))


def _said(**changed: Any) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), **changed})


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-9]), "is damaged"),
    "empty": (lambda p: p.write_bytes(b""), "is damaged"),
    "pickle": (lambda p: torch.save({"weights": torch.zeros(3)}, p), "is damaged"),
    "bit": (_flip, "is damaged .its sha256 differs"),
    "folder": (_as_folder, "is damaged"),
    "another file": (
        lambda p: p.write_bytes(safetensors.torch.save({"x": torch.zeros(3)})),
        "is damaged .its sha256 differs",
    ),
    "no JSON": (lambda p: _rewritten(p, lambda _: "{"), "is damaged .it holds no JSON"),
    "nested": (lambda p: _rewritten(p, lambda _: "[" * 10**6), "is damaged .it holds no JSON"),
    "a list": (lambda p: _rewritten(p, lambda _: "[]"), "its fields are not schema_version, run"),
    "a field more": (lambda p: _rewritten(p, _said(code="os")), "its fields are not"),
    "no records": (lambda p: _rewritten(p, _said(records="none")), "its fields are not"),
    "newer": (lambda p: _rewritten(p, _said(schema_version=99)), "has schema version 99"),
    "NaN": (
        lambda p: _rewritten(p, tensors=lambda t: t["module.inputs.axes.centre"].fill_(torch.nan)),
        "it has NaN or infinite values in 'module.inputs.axes.centre'",
    ),
    "shape": (
        lambda p: _rewritten(
            p, tensors=lambda t: t.update({"module.inputs.axes.centre": torch.zeros(3)})
        ),
        "it has 'module.inputs.axes.centre' as torch.float32 of shape .3,.",
    ),
    "a tensor less": (
        lambda p: _rewritten(p, tensors=lambda t: t.pop("optimizer.0.exp_avg")),
        "it lacks 1 weights",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_refused(
    adata: AnnData, left: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / FILE
    path.write_bytes((left / FILE).read_bytes())
    damage(path)
    with pytest.raises(ValueError, match=message) as caught:
        _train(_model(adata), checkpoint_dir=tmp_path, resume=True)
    assert str(path) in str(caught.value)
