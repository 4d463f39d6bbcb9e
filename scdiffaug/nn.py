"""The networks of DiffAug: the semantic encoder, and a conditional generator for each process.

Widths follow Zang et al. 2023: encoder ``[d, 500, 300, 80]``, projection head
``[80, 500, 500, 2]``, generator ``[d, 500, 80, 500, d]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

# Standardised features are clipped at this many standard deviations, as in Seurat's recipe.
MOST_DEVIATIONS = 10.0
# Log-dispersions move this many times as fast as weights, or training would end before they are
# where the likelihood wants them. Dispersions begin at 0.14, and stay where rates can be drawn.
_DISPERSION_RATE = 10
_FIRST_LOG_DISPERSION, _LOG_DISPERSIONS = -2.0, (-8.0, 4.0)
# Place of values that are the lowest of their feature, below the others, which lie about 0.
LOWEST_SCORE = -4.5
# Log odds that no evidence outweighs; minus infinity could not be saved.
NEVER = -1e6
# Widths of the generator's hidden layers, of the embedded noise level, and of the context made
# from it and the condition.
_WIDTHS, _LEVEL_WIDTH, _CONTEXT_WIDTH = (500, 80, 500), 64, 128
# Least part of a component's squared loadings that a projection is divided by.
_LEAST_LOADING = 0.05
# Share of hidden units dropped in the count generator; see benchmarks/NOTES.md, 43 and 46.
_DROPOUT = 0.3


def multiplies_bfloat16(device_type: str) -> bool:
    """Whether the hardware multiplies bfloat16 natively rather than emulating it."""
    if device_type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    if device_type in ("cuda", "gpu"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return False


def _computing_dtype(device_type: str) -> torch.dtype:
    """Type that layers compute in: that of autocast if it is on, else float32."""
    enabled = torch.is_autocast_enabled(device_type)
    return torch.get_autocast_dtype(device_type) if enabled else torch.float32


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with BatchNorm and leaky ReLU between them, the last one bare."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths[:-1]):
        layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


@torch.no_grad()
def move_average(averaged: Iterable[Tensor], trained: Iterable[Tensor], *, decay: float) -> None:
    """Move an exponential moving average towards the trained weights."""
    step = get_ema_multi_avg_fn(decay)
    step(list(averaged), list(trained), 0)


class FixedProjection(nn.Module):
    """Clipped standardisation and a linear projection that training does not move.

    Parameters
    ----------
    n_input, n_output
        Number of features and of components.
    """

    centre: Tensor
    scale: Tensor
    axes: Tensor

    def __init__(self, n_input: int, n_output: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(n_input))
        self.register_buffer("scale", torch.ones(n_input))
        self.register_buffer("axes", torch.zeros(n_input, n_output))

    def forward(self, x: Tensor, *, measured: Tensor | None = None) -> Tensor:
        """Components of features, shape ``(n, n_input)`` to ``(n, n_output)``.

        ``measured``: mask of the features that ``x`` has, shape ``(n_input,)``. Each component is
        then the least-squares estimate from these, its own loadings alone considered; 0 if it has
        none.
        """
        centre, scale, axes = self.centre, self.scale, self.axes
        if measured is not None:
            centre, scale, loadings = centre[measured], scale[measured], axes[measured]
            share = loadings.square().sum(0) / axes.square().sum(0)
            axes = loadings / share.clamp_min(_LEAST_LOADING)
        with torch.autocast(x.device.type, enabled=False):
            standardised = (x - centre).div_(scale)
            return standardised.clamp_(-MOST_DEVIATIONS, MOST_DEVIATIONS) @ axes

    def known_of(self, measured: Tensor) -> Tensor:
        """Mask of the components with loadings on measured features, shape ``(n_output,)``."""
        return (self.axes[measured] != 0).any(0)


class Leading(nn.Module):
    """The first columns of a matrix, shape ``(n, n_columns)``."""

    def __init__(self, n_columns: int) -> None:
        super().__init__()
        self.n_columns = n_columns

    def forward(self, x: Tensor) -> Tensor:
        """Those of ``x``."""
        return x[:, : self.n_columns]


class SemanticEncoder(nn.Module):
    """Maps cells to the semantic vector y and its low-dimensional projection z.

    Parameters
    ----------
    n_input
        Number of columns that it sees; those after them only say which cells are near.
    n_semantic
        Width of the semantic vector y.
    n_projection
        Width of the projection z.
    """

    def __init__(self, n_input: int, *, n_semantic: int = 80, n_projection: int = 2) -> None:
        super().__init__()
        self.n_semantic = n_semantic
        self.semantic = nn.Sequential(Leading(n_input), *mlp([n_input, 500, 300, n_semantic]))
        self.projection = mlp([n_semantic, 500, 500, n_projection])

    def forward(self, x: Tensor, *, stop_gradient: bool = False) -> tuple[Tensor, Tensor]:
        """Return y, shape ``(n, n_semantic)``, and z, shape ``(n, n_projection)``.

        ``stop_gradient``: the gradient of z does not reach y.
        """
        y = self.semantic(x).float()
        hidden = self.projection[:-1](y.detach() if stop_gradient else y)
        # Coordinates in bfloat16 lose the distances of near neighbours, which the loss needs.
        with torch.autocast(x.device.type, enabled=False):
            return y, self.projection[-1](hidden.float())


class NoiseLevelEmbedding(nn.Module):
    """Fourier features of a scalar noise level, shape ``(n,)`` to ``(n, 64)``."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.linspace(0.0, 5.0, _LEVEL_WIDTH // 2).exp())

    def forward(self, level: Tensor) -> Tensor:
        """Embed the noise level."""
        angles = level[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Generator(nn.Module):
    """Denoiser conditioned on the noise level and the semantic vector.

    The condition enters every hidden layer as a learned scale and shift (FiLM, Perez et al.
    2018), so that the narrow middle layer does not have to carry it.

    Parameters
    ----------
    n_features
        Number of features of a cell, in and out.
    n_condition
        Width of the condition.
    dropout
        Share of hidden units dropped in each cell's own network.
    n_outputs
        Outputs per feature.
    """

    def __init__(
        self,
        n_features: int,
        *,
        n_condition: int = 80,
        dropout: float = 0.0,
        n_outputs: int = 1,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.level = NoiseLevelEmbedding()
        self.context = nn.Sequential(
            nn.Linear(n_condition + _LEVEL_WIDTH, _CONTEXT_WIDTH), nn.GELU()
        )
        pairs = pairwise([n_features, *_WIDTHS])
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in pairs)
        self.norms = nn.ModuleList(nn.LayerNorm(o, elementwise_affine=False) for o in _WIDTHS)
        self.films = nn.ModuleList(nn.Linear(_CONTEXT_WIDTH, 2 * o) for o in _WIDTHS)
        self.out = nn.Linear(_WIDTHS[-1], n_features * n_outputs)
        # Rare features see too few gradients to unlearn random weights.
        nn.init.zeros_(self.out.weight)

    def draw_units(self, n_cells: int, *, rng: torch.Generator) -> Tensor:
        """Weight of each hidden unit in a cell's network, shape ``(n, 1080)``.

        This is a dropout mask, drawn once per cell and kept in all its steps. It is like drawing
        one of the networks that fit the data (Gal & Ghahramani 2016): the errors of a single
        network would be shared by all new cells.
        """
        draws = torch.rand(n_cells, sum(_WIDTHS), generator=rng, device=rng.device)
        present = (draws >= self.dropout).to(_computing_dtype(rng.device.type))
        return present.div_(1 - self.dropout)

    def forward(
        self, x: Tensor, level: Tensor, condition: Tensor, *, units: Tensor | None = None
    ) -> Tensor:
        """Return the outputs of the features, shape ``(n, n_outputs * n_features)``.

        Parameters
        ----------
        x
            Noised cells, shape ``(n, n_features)``.
        level
            Noise level of each cell, shape ``(n,)``.
        condition
            Semantic vector of each cell, shape ``(n, n_condition)``.
        units
            As :meth:`draw_units` gives them, in training as in sampling.
        """
        context = self.context(torch.cat([self.level(level), condition], dim=1))
        counts = [1.0] * len(_WIDTHS) if units is None else units.split(_WIDTHS, dim=1)
        hidden = x
        for linear, norm, film, count in zip(
            self.hidden, self.norms, self.films, counts, strict=True
        ):
            scale, shift = film(context).chunk(2, dim=1)
            hidden = nn.functional.gelu(norm(linear(hidden)) * (1 + scale) + shift) * count
        output: Tensor = self.out(hidden)
        return output


class ValueGenerator(nn.Module):
    """Denoiser of real values, some of which may be the lowest of their feature.

    The narrow layer of a :class:`Generator` cannot carry which values of thousands of features
    are the lowest. So each feature's own noised value tells, by Bayes' rule: the lowest values
    lie at one place, the others are standard normal, and the network gives the odds (a spike and
    a slab, Mitchell & Beauchamp 1988; benchmarks/NOTES.md, 48).

    Parameters
    ----------
    n_features
        Number of features.
    n_condition
        Width of the condition.
    """

    lowest_log_odds: Tensor

    def __init__(self, n_features: int, *, n_condition: int = 80) -> None:
        super().__init__()
        self.network = Generator(n_features, n_condition=n_condition, n_outputs=2)
        # Before data are seen, which may have no such values, a value is never the lowest.
        self.register_buffer("lowest_log_odds", torch.full((n_features,), NEVER))

    def forward(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        r"""Return what is left of the values after the skip path, shape ``(n, n_features)``.

        For a noised value x the input is :math:`x/\sqrt{1+\sigma^2}`. F comes from the network, v
        is the place of the lowest, r the probability of being one, and the last term leads to v:
        :math:`(1-r) F + r (v\sqrt{1+\sigma^2} - x/\sqrt{1+\sigma^2})/\sigma`.

        Parameters
        ----------
        x
            Noised cells divided by the root of their variance, shape ``(n, n_features)``.
        level
            Noise level of each cell, a quarter of the logarithm of sigma, shape ``(n,)``.
        condition
            Semantic vector of each cell, shape ``(n, n_condition)``.
        """
        other, log_odds = self.network(x, level, condition).float().chunk(2, dim=1)
        sigma = (4 * level).exp()[:, None]
        root = (1 + sigma.square()).sqrt()
        lowest = (LOWEST_SCORE * root - x) / sigma
        # Log density of the noised value about the place of the lowest, minus that about 0.
        away = (x * root - LOWEST_SCORE) / sigma
        evidence = (x.square() - away.square()) / 2 + (root / sigma).log()
        is_lowest = torch.sigmoid(self.lowest_log_odds + log_odds + evidence)
        return torch.lerp(other, lowest, is_lowest)


class Dispersion(nn.Module):
    """How much rates vary, for each gene and cell (scVI's "gene-cell"): a line in logarithms.

    A marker gene varies differently in cells where its few reads are ambient, so its dispersion
    depends on how far its profile is above its mean. All genes also share a line in how abundant
    they are and in the cell's depth, as a rare gene has too few reads to learn from
    (benchmarks/NOTES.md, 47).

    Parameters
    ----------
    n_features
        Number of genes.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(n_features))
        self.trend = nn.Parameter(torch.zeros(n_features))
        self.shared = nn.Parameter(torch.zeros(4))

    def forward(self, logits: Tensor, mean: Tensor, depth: Tensor) -> Tensor:
        """Dispersions, shape ``(n, n_features)``.

        Parameters
        ----------
        logits
            Log-profiles of cells, shape ``(n, n_features)``.
        mean
            Log-profile of all cells together, shape ``(n_features,)``.
        depth
            Logarithm of the reads of each whole cell, halved and shifted, shape ``(n, 1)``.
        """
        constant, of_mean, of_trend, of_depth = _DISPERSION_RATE * self.shared
        slope = _DISPERSION_RATE * self.trend + of_trend
        level = _FIRST_LOG_DISPERSION + _DISPERSION_RATE * self.level + constant
        # Terms of genes are summed first, as each later step runs over all cells and genes.
        level = level + (of_mean - slope) * mean
        log_dispersion = torch.addcmul(level, slope, logits) + of_depth * depth
        return log_dispersion.clamp(*_LOG_DISPERSIONS).exp()


class CountGenerator(nn.Module):
    """Denoiser of thinned counts: profiles, and how much rates vary about them.

    Genes are expressed in bursts: one read of a gene makes more of it likely. The narrow layer
    of a :class:`Generator` cannot carry that for each gene (benchmarks/NOTES.md, 23 and 42).

    Parameters
    ----------
    n_features
        Number of genes.
    n_condition
        Width of the condition.
    """

    def __init__(self, n_features: int, *, n_condition: int = 80) -> None:
        super().__init__()
        self.profile = Generator(n_features, n_condition=n_condition + 1, dropout=_DROPOUT)
        self.dispersion = Dispersion(n_features)

    def draw_units(self, n_cells: int, *, rng: torch.Generator) -> Tensor:
        """As in :meth:`Generator.draw_units`, for the profile."""
        return self.profile.draw_units(n_cells, rng=rng)

    def forward(
        self, kept: Tensor, depth: Tensor, condition: Tensor, *, units: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return log-profiles and dispersions, each of shape ``(n, n_features)``.

        Parameters
        ----------
        kept
            Thinned cells, shape ``(n, n_features)``.
        depth
            Reads of each whole cell, shape ``(n,)``.
        condition
            Semantic vector of each cell, shape ``(n, n_condition)``.
        units
            As :meth:`draw_units` gives them.
        """
        share = kept.sum(1) / depth.clamp_min(1)
        # About 0 for cells of some 400 reads, 1 for seven times as many.
        log_depth = depth.log1p()[:, None] / 2 - 3
        seen = torch.cat([condition, log_depth], dim=1)
        logits = self.profile(kept.log1p(), share, seen, units=units).float()
        # Profiles are learnt from the reads themselves, not from how much these vary.
        mean = self.profile.out.bias.detach().float()
        return logits, self.dispersion(logits.detach(), mean, log_depth)
