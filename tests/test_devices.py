"""A number names one device, and what a kind of device cannot do is refused; no GPU is needed."""

from typing import Any

import pytest
import torch
from anndata import AnnData

from scdiffaug import processes, scDiffAug
from scdiffaug.processes import placed_alone


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    fabric = "lightning.fabric.accelerators.cuda"
    for name, answer in {
        "torch.cuda.is_available": True,
        "torch.cuda.device_count": 4,
        f"{fabric}.is_cuda_available": True,
        f"{fabric}.num_cuda_devices": 4,
        f"{fabric}._get_all_visible_cuda_devices": [0, 1, 2, 3],
    }.items():
        monkeypatch.setattr(name, lambda answer=answer: answer)


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("device", [0, 1, "1", 3])
def test_a_number_is_that_of_the_device(device: int | str) -> None:
    assert placed_alone("gpu", device) == torch.device("cuda", int(device))


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("device", ["0,1", -1, "-1", 4])
def test_several_devices_or_none_are_refused(device: int | str) -> None:
    with pytest.raises(ValueError, match=r"device=.*(one device|at least 0|not possible)"):
        placed_alone("gpu", device)


@pytest.mark.parametrize("device", ["auto", 0, 1, "1"])
def test_there_is_one_processor(device: int | str) -> None:
    assert placed_alone("cpu", device) == torch.device("cpu")


def test_counts_are_not_trained_on_an_apple_gpu(
    pbmc: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apple(*_: Any, **__: Any) -> tuple[str, int, torch.device]:
        return "mps", 1, torch.device("mps")

    monkeypatch.setattr(processes, "placed", apple)
    model = scDiffAug(pbmc)
    with pytest.raises(ValueError, match="accelerator='mps' cannot draw counts"):
        model.train(1, accelerator="mps")
    assert not model.is_trained
