"""Where training runs: devices and nodes, and what their processes tell each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from scvi.model._utils import parse_device_args
from torch import distributed as dist
from torch import nn

from scdiffaug._checks import check_choice, check_whole

Strategy = Literal["auto", "ddp", "ddp_find_unused_parameters_true"]
_T = TypeVar("_T")


def placed(
    accelerator: str, devices: int | list[int] | str, *, argument: str = "devices"
) -> tuple[str, int | list[int], torch.device]:
    """Accelerator, devices and the first device, with automatic choices made.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    try:
        return parse_device_args(accelerator, devices, return_device="torch")
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
        raise ValueError(
            f"accelerator={accelerator!r} and {argument}={devices!r} are not possible: {error}"
        ) from error


def placed_alone(accelerator: str, device: int | str) -> torch.device:
    """The one device of that number, which Lightning would take for a number of devices.

    Raises
    ------
    TypeError
        If the device is neither a whole number nor a string.
    ValueError
        If there is no such device, or it is not one.
    """
    kind, _, first = placed(accelerator, "auto", argument="device")
    if device == "auto":
        return first
    if isinstance(device, str) and not device.isdecimal():
        raise ValueError(f'device={device!r} must be "auto" or the number of one device.')
    number = check_whole("device", int(device) if isinstance(device, str) else device, at_least=0)
    # There is one processor, whatever its number.
    return first if kind == "cpu" else placed(kind, [number], argument="device")[2]


def check_draws_counts(kind: str) -> None:
    """Raise ValueError if new counts cannot be drawn on devices of a kind."""
    if kind == "mps":
        raise ValueError(
            "accelerator='mps' cannot draw counts, as PyTorch has neither double precision nor "
            "binomial draws there: use accelerator='cpu'."
        )


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Devices and nodes of a training run, which has a process for each device.

    Parameters
    ----------
    accelerator, devices, strategy, num_nodes
        As Lightning's Trainer takes them, with automatic choices made.
    """

    accelerator: str
    devices: int | list[int]
    strategy: Strategy
    num_nodes: int

    @classmethod
    def chosen(
        cls,
        accelerator: str,
        devices: int | list[int] | str,
        *,
        strategy: Strategy,
        num_nodes: int,
        alternates: bool,
    ) -> Hardware:
        """Resolve the automatic choices.

        Parameters
        ----------
        accelerator, devices, strategy, num_nodes
            As in :meth:`scdiffaug.scDiffAug.train`.
        alternates
            Whether a step trains only a part of the parameters.

        Raises
        ------
        TypeError
            If ``num_nodes`` is not a whole number.
        ValueError
            If an argument is out of range or unknown, or the strategy cannot train a part.
        """
        check_choice("strategy", strategy, get_args(Strategy))
        num_nodes = check_whole("num_nodes", num_nodes)
        if strategy == "ddp" and alternates:
            raise ValueError(
                "strategy='ddp' needs all parameters in each step, schedule='alternating' trains "
                "a part of them: pass strategy='auto'."
            )
        kind, found, _ = placed(accelerator, devices)
        chosen = cls(accelerator=kind, devices=found, strategy=strategy, num_nodes=num_nodes)
        if strategy != "auto" or chosen.n_processes == 1:
            return chosen
        return replace(chosen, strategy="ddp_find_unused_parameters_true" if alternates else "ddp")

    @property
    def n_processes(self) -> int:
        """Processes of all nodes."""
        per_node = self.devices if isinstance(self.devices, int) else len(self.devices)
        return per_node * self.num_nodes

    def share(self, module: nn.Module) -> None:
        """Give all processes the weights and buffers of the first one."""
        if self.n_processes > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)


class SameCells(pl.Callback):
    """Refuses to train if the processes have read different cells.

    Parameters
    ----------
    digest
        Digest of the cells that this process has read.
    """

    def __init__(self, digest: str) -> None:
        self._digest = digest

    def on_fit_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        """Compare the digests of all processes.

        Raises
        ------
        ValueError
            If they differ.
        """
        digests = gathered(self._digest)
        if len(set(digests)) > 1:
            raise ValueError(
                f"The {len(digests)} processes of this training have read different cells: let "
                "all read the same files, and give a seed to whatever draws among the cells."
            )


def is_first_process() -> bool:
    """Whether this process is alone, or the first of those that train together."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def gathered(value: _T) -> list[_T]:
    """Values of all processes, in their order."""
    said: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(said, value)
    return said


def averaged(values: dict[str, float]) -> dict[str, float]:
    """Means over the processes, the same in all of them."""
    said = gathered(values)
    return {name: sum(each[name] for each in said) / len(said) for name in values}
