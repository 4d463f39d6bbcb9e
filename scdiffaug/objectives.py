"""What the encoder learns: the paper's objective, and others that take the same positives.

An objective takes cells and their views, stacked: x ``(2n, k)``, y ``(2n, 80)``, z ``(2n, 2)``;
and how much each cell repels each view in the 2-D embedding, ``(n, n)``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scdiffaug import losses
from scdiffaug.nn import SemanticEncoder, mlp, move_average

ObjectiveName = Literal["soft_contrastive", "infonce", "byol", "simsiam", "moco", "vicreg"]

# The projection head of the paper, wider at its end.
_HIDDEN, _WIDTH = 500, 256
_SIMSIAM_BOTTLENECK = 64
_MOMENTUM = 0.99
# Two batches: a queue longer than the data would hold the keys of the queries' own cells.
_QUEUE = 1024


class Objective(nn.Module):
    """Terms of the loss, and whatever must be trained or kept for them.

    Parameters
    ----------
    encoder
        The encoder that is trained; the objective keeps no reference to it.
    """

    terms: ClassVar[tuple[str, ...]]
    """Terms of the loss that it returns.

    With ``"semantic"`` y has a term of its own, and z does not move it.
    """

    def __init__(self, encoder: SemanticEncoder) -> None:
        super().__init__()

    def forward(
        self, x: Tensor, y: Tensor, z: Tensor, *, repulsion: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the terms of a batch."""
        raise NotImplementedError

    def after_step(self, encoder: SemanticEncoder) -> None:
        """Follow the encoder, which an optimiser step has moved."""


class SoftContrastive(Objective):
    """The paper's objective: similarities in z match those in y (Zang et al. 2023)."""

    terms = ("contrastive",)

    def forward(
        self, x: Tensor, y: Tensor, z: Tensor, *, repulsion: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the terms of a batch."""
        return {"contrastive": _soft_contrastive(y, z, repulsion)}


class InfoNCE(Objective):
    """SimCLR (Chen et al. 2020) on the projection z, through which y learns."""

    terms = ("contrastive",)

    def forward(
        self, x: Tensor, y: Tensor, z: Tensor, *, repulsion: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the terms of a batch."""
        z_anchor, z_view = z.chunk(2)
        return {"contrastive": losses.info_nce(z_anchor=z_anchor, z_view=z_view)}


class SemanticObjective(Objective):
    """An objective that trains y through a wide head, which two dimensions could not replace.

    Beside it, z learns the similarities of y by the soft contrastive loss, whose gradient does
    not reach y.
    """

    terms = ("semantic", "contrastive")

    def __init__(self, encoder: SemanticEncoder) -> None:
        super().__init__(encoder)
        self.head = mlp([encoder.n_semantic, _HIDDEN, _HIDDEN, _WIDTH])

    def forward(
        self, x: Tensor, y: Tensor, z: Tensor, *, repulsion: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the terms of a batch."""
        contrastive = _soft_contrastive(y.detach(), z, repulsion)
        return {"semantic": self.semantic(x, y), "contrastive": contrastive}

    def semantic(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss that trains y."""
        raise NotImplementedError


class BYOL(SemanticObjective):
    """Predict a momentum encoder's output for the other view (Grill et al. 2020)."""

    def __init__(self, encoder: SemanticEncoder) -> None:
        super().__init__(encoder)
        self.predictor = mlp([_WIDTH, _HIDDEN, _WIDTH])
        self.target = _momentum_copy(encoder, self.head)

    def semantic(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss that trains y."""
        return _in_float32(losses.byol, self.predictor(self.head(y)), _swapped(self.target(x)))

    def after_step(self, encoder: SemanticEncoder) -> None:
        """Follow the encoder, which an optimiser step has moved."""
        _move_average(self.target, encoder, self.head)


class SimSiam(SemanticObjective):
    """Predict the encoder's own output for the other view (Chen & He 2021)."""

    def __init__(self, encoder: SemanticEncoder) -> None:
        super().__init__(encoder)
        self.predictor = mlp([_WIDTH, _SIMSIAM_BOTTLENECK, _WIDTH])

    def semantic(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss that trains y."""
        projected = self.head(y)
        return _in_float32(losses.simsiam, self.predictor(projected), _swapped(projected))


class MoCo(SemanticObjective):
    """Tell a cell's view from views of earlier batches (He et al. 2020)."""

    queue: Tensor

    def __init__(self, encoder: SemanticEncoder) -> None:
        super().__init__(encoder)
        self.target = _momentum_copy(encoder, self.head)
        self.register_buffer("queue", F.normalize(torch.randn(_QUEUE, _WIDTH)))

    def semantic(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss that trains y, and put the keys of the views into the queue."""
        query = F.normalize(self.head(y.chunk(2)[0]).float())
        key = F.normalize(self.target(x.chunk(2)[1]).float())
        loss = _in_float32(losses.moco, query, key, self.queue)
        self.queue = torch.cat([key, self.queue])[: len(self.queue)]
        return loss

    def after_step(self, encoder: SemanticEncoder) -> None:
        """Follow the encoder, which an optimiser step has moved."""
        _move_average(self.target, encoder, self.head)


class VICReg(SemanticObjective):
    """Make views alike, and dimensions wide and uncorrelated (Bardes et al. 2022)."""

    def semantic(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss that trains y."""
        return _in_float32(losses.vicreg, *self.head(y).chunk(2))


OBJECTIVES: dict[ObjectiveName, type[Objective]] = {
    "soft_contrastive": SoftContrastive,
    "infonce": InfoNCE,
    "byol": BYOL,
    "simsiam": SimSiam,
    "moco": MoCo,
    "vicreg": VICReg,
}


def _soft_contrastive(y: Tensor, z: Tensor, repulsion: Tensor | None) -> Tensor:
    y_anchor, y_view = y.chunk(2)
    z_anchor, z_view = z.chunk(2)
    return losses.soft_contrastive(
        y_anchor=y_anchor,
        y_view=y_view,
        z_anchor=z_anchor,
        z_view=z_view,
        repulsion=repulsion,
    )


def _in_float32(loss: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    with torch.autocast(tensors[0].device.type, enabled=False):
        return loss(*(tensor.float() for tensor in tensors))


def _swapped(stacked: Tensor) -> Tensor:
    """Swap the halves: views where cells were, and the other way round."""
    return torch.cat(stacked.chunk(2)[::-1])


def _momentum_copy(encoder: SemanticEncoder, head: nn.Module) -> nn.Module:
    return copy.deepcopy(nn.Sequential(encoder.semantic, head)).requires_grad_(False)


def _move_average(target: nn.Module, encoder: SemanticEncoder, head: nn.Module) -> None:
    trained = (*encoder.semantic.parameters(), *head.parameters())
    move_average(target.parameters(), trained, decay=_MOMENTUM)
