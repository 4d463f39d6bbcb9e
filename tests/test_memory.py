"""Where memory runs out, cells are made in half as large batches, once, and then it is said."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData
from refusals import Bench

from scdiffaug import augmentation, scDiffAug
from scdiffaug.module import DiffAugModule

ERRORS = {
    "python": MemoryError(),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9 GB)"),
}


def _too_small(monkeypatch: pytest.MonkeyPatch, method: str, room: int, error: Exception) -> None:
    """Memory for so many cells in a method of the module, the first argument being cells."""
    real: Callable[..., Any] = getattr(DiffAugModule, method)

    def limited(module: DiffAugModule, x: torch.Tensor, *rest: Any, **how: Any) -> Any:
        if len(x) > room:
            raise error
        return real(module, x, *rest, **how)

    monkeypatch.setattr(DiffAugModule, method, limited)


def _dense(new: AnnData) -> np.ndarray:
    return new.X.toarray()


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_cells_are_made_as_with_half_the_batch(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    wanted = _dense(bench.model.augment(steps=2, batch_size=20))
    _too_small(monkeypatch, "sample", 20, error)
    found = bench.model.augment(steps=2, batch_size=40)
    np.testing.assert_array_equal(_dense(found), wanted)
    assert caplog.messages == ["No memory for 40 cells at once: trying 20."]


def test_cells_are_embedded_in_halves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = bench.model.get_latent_representation()
    _too_small(monkeypatch, "embed", 30, MemoryError())
    found = bench.model.get_latent_representation()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("device", "n_features", "n_cells"),
    [("cpu", 2000, 512), ("cuda", 30, 8192), ("cuda", 4096, 4096), ("cuda", 60_000, 512)],
)
def test_as_many_cells_at_once_as_the_device_has_use_for(
    device: str, n_features: int, n_cells: int
) -> None:
    module: Any = SimpleNamespace(device=torch.device(device))
    contract: Any = SimpleNamespace(var_names=range(n_features))
    assert augmentation.made_at_once(module, contract, None) == n_cells


def test_a_batch_is_halved_only_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _too_small(monkeypatch, "sample", 10, MemoryError())
    with pytest.raises(MemoryError, match="No memory for 20 cells at once: pass a smaller batch"):
        bench.model.augment(steps=2, batch_size=40)


def test_one_cell_is_tried_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _too_small(monkeypatch, "sample", 0, MemoryError())
    with pytest.raises(MemoryError, match="No memory for 1 cells at once: free memory"):
        bench.model.augment(indices=[0], steps=2)
    assert "trying" not in caplog.text


def test_other_errors_stay_what_they_are(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _too_small(monkeypatch, "sample", 10, RuntimeError("mat1 and mat2 must have the same dtype"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        bench.model.augment(steps=2, batch_size=40)


def test_training_says_what_to_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    model = scDiffAug(bench.adata, n_semantic=8)
    _too_small(monkeypatch, "inference", 40, ERRORS["cuda"])
    with pytest.raises(MemoryError, match="No memory for 30 cells at once: pass a smaller batch_"):
        model.train(1, batch_size=30, enable_progress_bar=False)
    _too_small(monkeypatch, "inference", 0, RuntimeError("mat1 and mat2"))
    with pytest.raises(RuntimeError, match="mat1"):
        model.train(1, batch_size=30, enable_progress_bar=False)
