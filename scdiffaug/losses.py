"""Loss terms of DiffAug as pure functions of tensors (Zang et al. 2023, eq. 2-6)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Reads = tuple[Tensor, Tensor, Tensor]
_LOG_ZERO, _LEAST = -30.0, 1e-6
PROJECTION_DOF = 0.01


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances between rows, ``(n, k)`` and ``(m, k)`` to ``(n, m)``."""
    # It is a difference of large squares: a product in bfloat16 would lose the near cells.
    with torch.autocast(a.device.type, enabled=False):
        squares = a.square().sum(1)[:, None] + b.square().sum(1)
        return torch.addmm(squares, a, b.T, alpha=-2).clamp_min_(0)


def log_t_kernel(sq_distance: Tensor, dof: float) -> Tensor:
    r"""Log density of Student's t at distance :math:`\sqrt{D}` (Zang et al. 2023, eq. 3).

    .. math:: S_\nu(D) = \frac{\Gamma((\nu+1)/2)}{\sqrt{\nu\pi}\,\Gamma(\nu/2)}
              \left(1 + D/\nu\right)^{-(\nu+1)/2}

    Parameters
    ----------
    sq_distance
        Squared Euclidean distances D.
    dof
        Degrees of freedom :math:`\nu`.
    """
    log_scale = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof * math.pi)
    return torch.log1p(sq_distance / dof).mul_(-0.5 * (dof + 1)).add_(log_scale)


def log_t_similarity(sq_distance: Tensor, dof: float) -> Tensor:
    r"""Log of the similarity :math:`2\pi S_\nu(D)^2` of the authors' released code.

    The square rescales the density so that the similarity of identical points is close to 1 for
    large :math:`\nu`, which makes it a probability.
    """
    return log_t_kernel(sq_distance, dof).mul_(2).add_(math.log(2 * math.pi))


def soft_contrastive(
    *,
    y_anchor: Tensor,
    y_view: Tensor,
    z_anchor: Tensor,
    z_view: Tensor,
    repulsion: Tensor | None = None,
    dof_semantic: float = 100.0,
    dof_projection: float = PROJECTION_DOF,
) -> Tensor:
    r"""Soft contrastive loss (Zang et al. 2023, eq. 2-4), mean over anchors.

    .. math:: -\sum_{ij} P_{ij}\log Q_{ij} + R_{ij} (1 - P_{ij})\log(1 - Q_{ij}),\quad
              P = \max\{H, \tilde S_{\nu_y}(y_i, y_j^+)\},\; Q = \tilde S_{\nu_z}(z_i, z_j^+)

    with :math:`\tilde S = 2\pi S^2` (:func:`log_t_similarity`) in place of the paper's S, and H
    the identity matrix: row i of the views is the positive of anchor i. The paper weights
    the positives by :math:`e^\beta` and clips P at 1. Here :math:`\beta \to \infty`, since at a
    finite one the loss has a trivial minimum: the encoder drives :math:`P_{ii}` to 0 by moving
    all y apart (``benchmarks/NOTES.md``, experiment 1). The paper's R is 1, with which the room
    that a group takes grows with its cells (experiment 24).

    Parameters
    ----------
    y_anchor, y_view
        Semantic vectors of the anchors and of their views, shape ``(n, 80)``.
    z_anchor, z_view
        Their projections, shape ``(n, 2)``.
    repulsion
        R, how much each anchor repels each view, shape ``(n, n)``; 1 by default.
    dof_semantic, dof_projection
        Degrees of freedom of the two kernels.
    """
    dof = (dof_semantic, dof_projection)
    repelled = z_anchor.new_ones(()) if repulsion is None else repulsion
    return _SoftContrastive.apply(dof, repelled, y_anchor, y_view, z_anchor, z_view)


class _SoftContrastive(torch.autograd.Function):
    """Loss with a gradient by hand: autograd would fill some twenty cell-by-cell matrices."""

    @staticmethod
    def forward(ctx: Any, dof: tuple[float, float], repelled: Tensor, *points: Tensor) -> Tensor:
        y_anchor, y_view, z_anchor, z_view = points
        sq_y, sq_z = squared_distances(y_anchor, y_view), squared_distances(z_anchor, z_view)
        # Below e^-30 P is zero to the loss, and as subnormal numbers it slows processors tenfold.
        p = log_t_similarity(sq_y, dof[0]).clamp_(_LOG_ZERO, 0).exp_().fill_diagonal_(1)
        log_q = log_t_similarity(sq_z, dof[1])
        q = log_q.exp()
        not_q = (1 - q).clamp_min_(_LEAST)
        log_not_q = not_q.log().mul_(repelled)
        p_log_odds = log_q.sub_(log_not_q).mul_(p)
        loss = -p_log_odds.sum() - log_not_q.sum()
        # Where 1 - q is clamped, which needs more degrees of freedom than 0.01, the loss is flat.
        pressed = torch.addcmul(repelled, p, 1 - repelled)
        by_log_q = q.mul_(pressed).sub_(p).div_(F.threshold(not_q, _LEAST, math.inf))
        by_log_p = p_log_odds.neg_().fill_diagonal_(0)
        ctx.save_for_backward(
            *_by_points(y_anchor, y_view, _by_distance(by_log_p, sq_y, dof[0])),
            *_by_points(z_anchor, z_view, _by_distance(by_log_q, sq_z, dof[1])),
        )
        return loss / len(p)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        scale = upstream / len(gradients[0])
        return (None, None, *(gradient * scale for gradient in gradients))


def _by_distance(by_log_s: Tensor, sq_distance: Tensor, dof: float) -> Tensor:
    """Gradient by squared distances, from that by log similarities; both are overwritten."""
    return by_log_s.mul_(-(dof + 1)).div_(sq_distance.add_(dof))


def _by_points(anchor: Tensor, view: Tensor, by_distance: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients by the points, from that by their squared distances."""
    with torch.autocast(anchor.device.type, enabled=False):
        return (
            2 * (by_distance.sum(1)[:, None] * anchor - by_distance @ view),
            2 * (by_distance.sum(0)[:, None] * view - by_distance.T @ anchor),
        )


def layout(z: Tensor, places: Tensor) -> Tensor:
    r"""Squared distance of cells and their views from their starting places, mean over cells.

    .. math:: \lVert z_i - t_i \rVert^2 + \lVert z_i^+ - t_i \rVert^2

    Parameters
    ----------
    z
        Projections of the cells, then of their views, shape ``(2n, 2)``.
    places
        t, the place of each cell's community (:func:`~scdiffaug.layouts.community_layout`), shape
        ``(n, 2)``.
    """
    return 2 * (z - places.repeat(2, 1)).square().sum(1).mean()


def info_nce(*, z_anchor: Tensor, z_view: Tensor) -> Tensor:
    r"""InfoNCE, the loss of SimCLR (Chen et al. 2020), mean over anchors.

    The similarity is the Cauchy kernel :math:`1/(1 + D)` rather than the cosine, as in t-SimCNE
    (Böhm et al. 2023): a cosine would bend a plane onto a circle.

    Parameters
    ----------
    z_anchor, z_view
        Projections of the anchors and of their views, shape ``(n, 2)``.
    """
    logits = -torch.log1p(squared_distances(z_anchor, z_view))
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def byol(prediction: Tensor, target: Tensor) -> Tensor:
    r"""BYOL's loss (Grill et al. 2020, eq. 2), mean over rows.

    .. math:: \left\lVert \frac{q}{\lVert q\rVert} - \frac{k}{\lVert k\rVert}\right\rVert^2
              = 2 - 2\cos(q, k)

    Parameters
    ----------
    prediction
        Predictions q of the online network, shape ``(n, k)``.
    target
        Outputs of the momentum network for the other views, shape ``(n, k)``; a constant.
    """
    return 2 + 2 * simsiam(prediction, target)


def simsiam(prediction: Tensor, target: Tensor) -> Tensor:
    r"""SimSiam's loss :math:`-\cos(p, \mathrm{stopgrad}(z))` (Chen & He 2021, eq. 1 and 3).

    Parameters
    ----------
    prediction, target
        Prediction of one view and projection of the other, shape ``(n, k)``; mean over rows.
    """
    return -F.cosine_similarity(prediction, target.detach()).mean()


def moco(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    r"""MoCo's InfoNCE against a queue of old keys (He et al. 2020, eq. 1), mean over queries.

    .. math:: -\log \frac{\exp(q \cdot k_+/\tau)}
              {\exp(q \cdot k_+/\tau) + \sum_i \exp(q \cdot k_i/\tau)}

    with :math:`\tau = 0.1`, as in the authors' recipe for small images.

    Parameters
    ----------
    query, key
        Cells, and their positives by the momentum network; rows of length 1, shape ``(n, k)``.
    queue
        Keys of earlier batches, rows of length 1, shape ``(m, k)``.
    """
    positive = (query * key).sum(1, keepdim=True)
    logits = torch.cat([positive, query @ queue.T], dim=1) / 0.1
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=query.device))


def vicreg(a: Tensor, b: Tensor) -> Tensor:
    r"""VICReg (Bardes et al. 2022, eq. 1-6).

    .. math:: \lambda \frac1n \sum_i \lVert a_i - b_i \rVert^2
              + \sum_{x \in \{a, b\}} \frac{\mu}{k} \sum_j
              \max(0, 1 - \sqrt{C(x)_{jj} + 10^{-4}})
              + \frac{\nu}{k} \sum_{i \neq j} C(x)_{ij}^2

    with C the covariance matrix and the authors' weights 25, 25 and 1. As in their code, the
    first term is divided by k and the second halved.

    Parameters
    ----------
    a, b
        Projections of cells and of their views, shape ``(n, k)``.
    """
    covariances = [torch.cov(x.T) for x in (a, b)]
    too_narrow = [F.relu(1 - (c.diagonal() + 1e-4).sqrt()).mean() for c in covariances]
    shared = [(c.square().sum() - c.diagonal().square().sum()) / len(c) for c in covariances]
    variance, covariance = torch.stack(too_narrow).mean(), torch.stack(shared).sum()
    return 25 * F.mse_loss(a, b) + 25 * variance + covariance


def preconditioned_denoising(denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    r"""Weighted squared error of denoised cells (eq. 5; weight of Karras et al. 2022).

    Eq. 5 compares noise with predicted noise; with the denoised cell as the prediction the same
    error carries the weight :math:`(\sigma^2 + 1)/\sigma^2`. It balances the loss over noise
    levels, as features have unit variance.

    Parameters
    ----------
    denoised, x
        Predicted and true cells, shape ``(n, d)``.
    sigma
        Noise level of each cell, shape ``(n,)``.
    """
    weight = (sigma.square() + 1) / sigma.square()
    return (weight * (denoised - x).square().mean(1)).mean()


def missing_reads_nll(logits: Tensor, reads: Reads) -> Tensor:
    r"""Mean negative log-likelihood per missing read, in nats.

    :math:`-\sum_g m_g \log p_g / \sum_g m_g` with p the softmax of the logits, averaged over the
    cells that miss at least one read (Chen & Zhou 2023).

    Parameters
    ----------
    logits
        Unnormalised log-profile of the missing reads, shape ``(n, d)``.
    reads
        The missing reads: row, column and number, each shape ``(k,)``; no place twice.
    """
    return _MissingReads.apply(logits, *reads)


class _MissingReads(torch.autograd.Function):
    """Loss with a gradient by hand: autograd fills four cell-by-gene matrices, this just one."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, *reads: Tensor) -> Tensor:
        row, column, number = reads
        precise = torch.promote_types(logits.dtype, torch.float32)
        log_p = torch.log_softmax(logits, dim=1, dtype=precise)
        number = number.to(log_p.dtype)
        n_missing = number.new_zeros(len(logits)).index_add(0, row, number)
        # Weight of each read in the mean over cells of the mean over a cell's reads.
        weight = number / (n_missing * (n_missing > 0).sum())[row]
        weight = torch.where(number > 0, weight, 0.0)
        place = row * logits.shape[1] + column
        ctx.save_for_backward(log_p, row, place, weight)
        ctx.dtype = logits.dtype
        return -(weight * log_p.take(place)).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        log_p, row, place, weight = ctx.saved_tensors
        weight = weight * upstream
        cell_weight = weight.new_zeros(len(log_p)).index_add(0, row, weight)
        grad = log_p.exp().mul_(cell_weight[:, None])
        grad.put_(place, -weight, accumulate=True)
        return grad.to(ctx.dtype), None, None, None
