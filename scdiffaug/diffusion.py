"""The two forward processes behind one protocol: Gaussian noise and count thinning.

Networks are just callables here. A ``Network`` takes noised cells, their noise level and the
condition, and returns a value for each feature. A ``CountNetwork`` takes thinned cells, the reads
of the whole cells and the condition, and returns log-profiles and dispersions of the genes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from scdiffaug import losses, samplers

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
CountNetwork = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
AnyNetwork = Callable[[Tensor, Tensor, Tensor], Any]
Sampler = Literal["thicken", "dpmpp_2m", "ddim", "ddpm"]


class ForwardProcess(Protocol):
    """What training and sampling ask of a noise process."""

    @property
    def samplers(self) -> tuple[Sampler, ...]:
        """Samplers that fit, the default first."""
        ...

    @property
    def default_steps(self) -> int:
        """Denoising steps if the user gives no number."""
        ...

    @property
    def n_passes(self) -> int:
        """How often the network may see a cell in training before it memorises the cell."""
        ...

    def loss(
        self, network: AnyNetwork, x: Tensor, condition: Tensor, *, rng: torch.Generator
    ) -> Tensor:
        """Denoising loss on clean cells ``x``, shape ``(n, d)``; a scalar."""
        ...

    def sample(
        self,
        network: AnyNetwork,
        source: Tensor,
        condition: Tensor,
        *,
        strength: float,
        n_steps: int,
        sampler: Sampler,
        rng: torch.Generator,
        depth: Tensor | None = None,
    ) -> Tensor:
        """New cells, shape ``(n, d)``; ``strength`` is the share that is not the source's.

        ``depth``, shape ``(n,)``: reads that they are to have, if the process makes reads; by
        default as many as their sources.
        """
        ...


@dataclass(frozen=True)
class GaussianDiffusion:
    r"""Gaussian noise on standardised features (Zang et al. 2023, eq. 5).

    The noised cell :math:`\sqrt{\bar\alpha} x + \sqrt{1-\bar\alpha}\,\delta` is represented as
    :math:`x + \sigma\delta` with :math:`\sigma^2 = (1-\bar\alpha)/\bar\alpha`. The network
    predicts what is left after the skip path of Karras et al. (2022, table 1), since an 80-wide
    layer cannot pass noise of thousands of dimensions.
    """

    sigma_min: float = 0.02
    sigma_max: float = 80.0
    samplers: ClassVar[tuple[Sampler, ...]] = ("dpmpp_2m", "ddim", "ddpm")
    # With eight, a forest tells new cells by up to 14 points better (benchmarks/NOTES.md, 48).
    default_steps: ClassVar[int] = 32
    # With 75, a forest tells new cytometry cells by 3 points better (benchmarks/NOTES.md, 49).
    n_passes: ClassVar[int] = 150

    def denoise(self, network: Network, x: Tensor, sigma: Tensor, *, condition: Tensor) -> Tensor:
        """Expected clean cells given noised ones, both shape ``(n, d)``; sigma ``(n,)``."""
        s = sigma[:, None]
        root = (1 + s.square()).sqrt()
        residual = network(x / root, sigma.log() / 4, condition)
        return x / root.square() + residual.float() * s / root

    def loss(
        self, network: Network, x: Tensor, condition: Tensor, *, rng: torch.Generator
    ) -> Tensor:
        """Weighted squared error at log-normal noise levels, whose logarithms have mean -0.6.

        Karras et al. (2022) use -1.2.
        """
        log_sigma = torch.randn(len(x), generator=rng, device=x.device) * 1.2 - 0.6
        sigma = log_sigma.exp()
        noise = torch.randn(x.shape, generator=rng, device=x.device)
        denoised = self.denoise(network, x + sigma[:, None] * noise, sigma, condition=condition)
        return losses.preconditioned_denoising(denoised, x, sigma)

    def sample(
        self,
        network: Network,
        source: Tensor,
        condition: Tensor,
        *,
        strength: float,
        n_steps: int,
        sampler: Sampler,
        rng: torch.Generator,
        depth: Tensor | None = None,
    ) -> Tensor:
        """Noise the source up to a level that rises with strength, then solve back to 0."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            # Filled in there: a copy to the device would wait for all before it.
            level = x.new_full((len(x),), sigma.item())
            return self.denoise(network, x, level, condition=condition)

        start = self.start_level(strength)
        noise = torch.randn(source.shape, generator=rng, device=source.device)
        x = (source if strength < 1 else torch.zeros_like(source)) + start * noise
        bounds = {"sigma_max": start, "sigma_min": min(self.sigma_min, start / 2)}
        if sampler == "ddpm":
            return samplers.ddpm(denoise, x, samplers.paper_sigmas(n_steps, **bounds), rng=rng)
        solve = samplers.ddim if sampler == "ddim" else samplers.dpmpp_2m
        return solve(denoise, x, samplers.karras_sigmas(n_steps, **bounds))

    def start_level(self, strength: float) -> float:
        """Noise level at which a strength starts, geometric between the two bounds."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** strength


@dataclass(frozen=True)
class CountThinning:
    """Binomial thinning of counts, and its reverse (Chen & Zhou 2023, "Learning to Jump").

    A cell keeps each read with probability a; the network sees the kept reads, how many the whole
    cell has, and the condition, and predicts the profile of the reads still missing. A gene's
    counts vary more than Poisson: its rate is the profile times a gamma-distributed factor, which
    the kept reads help to infer. The reverse adds reads drawn from both, step by step, so that
    the network still sees a thinned cell; zeros, integers and depth hold by construction.

    Parameters
    ----------
    is_binary
        Whether no feature has more than one read, as of peaks that are open or not.
    """

    is_binary: bool = False

    samplers: ClassVar[tuple[Sampler, ...]] = ("thicken",)
    # New cells are nearly as good from 4 steps on (benchmarks/NOTES.md, 48).
    default_steps: ClassVar[int] = 8
    # With more, small datasets are memorised; with fewer, large ones not learnt (19, 46 there).
    n_passes: ClassVar[int] = 75

    def loss(
        self, network: CountNetwork, x: Tensor, condition: Tensor, *, rng: torch.Generator
    ) -> Tensor:
        """Negative log-likelihood per missing read, of cells thinned as sampling meets them.

        ``x`` may be sparse, in coordinate form.
        """
        share = _shares_met(len(x), rng)
        row, column, whole = _reads(x)
        if self.is_binary:
            # Mixtures of two cells have a feature of both twice.
            whole = whole.clamp_max(1)
        none = torch.zeros_like(share)
        depth = none.index_add(0, row, whole)
        kept = _binomial(whole, share[row], rng)
        thinned = whole.new_zeros(x.shape)
        thinned[row, column] = kept
        logits, dispersion = network(thinned, depth, condition)
        logits = expected_log_rates(logits, dispersion, thinned)
        if self.is_binary:
            # No missing read is of a feature that has one; infinity times none is not a number.
            logits = logits.masked_fill(thinned > 0, torch.finfo(logits.dtype).min)
        return losses.missing_reads_nll(logits, (row, column, whole - kept))

    def sample(
        self,
        network: CountNetwork,
        source: Tensor,
        condition: Tensor,
        *,
        strength: float,
        n_steps: int,
        sampler: Sampler,
        rng: torch.Generator,
        depth: Tensor | None = None,
    ) -> Tensor:
        """Thin the source to ``1 - strength`` of the depth, by default its own, then add reads.

        The share kept rises as the square of the step: the first reads say which cell it is, so
        only few of them can be drawn at once (benchmarks/NOTES.md, experiment 4).
        """
        x, depth = _start(source, depth, strength=strength, rng=rng)
        n_kept = x.sum(1)
        start = (n_kept / depth.clamp_min(1)).sqrt()
        draw = partial(draw_closed, kept=x) if self.is_binary else draw_reads
        for step in range(1, n_steps + 1):
            share = (start + (1 - start) * (step / n_steps)).square()
            n_wanted = (share * depth).round()
            logits, dispersion = network(x, depth, condition)
            rates = draw_rates(logits, dispersion, x, rng=rng)
            place = draw(rates, n_wanted - n_kept, rng)
            x.put_(place, x.new_ones(()).expand(len(place)), accumulate=True)
            n_kept = n_wanted
        return x


def _shares_met(n_cells: int, rng: torch.Generator) -> Tensor:
    """Shares of reads kept, drawn as the steps of :meth:`CountThinning.sample` have them.

    Sampling begins with none; later the share is the square of a step. If shares were uniform, a
    cell of many reads would hardly ever keep few, on which all depends (benchmarks/NOTES.md, 46).
    """
    first = 1 / CountThinning.default_steps
    steps = torch.rand(n_cells, generator=rng, device=rng.device) * (1 + first) - first
    return steps.clamp_min_(0).square_()


def _reads(x: Tensor) -> losses.Reads:
    """Row, column and number of the reads of dense or sparse cells."""
    if x.is_sparse:
        cells = x.coalesce()
        row, column = cells.indices()
        return row, column, cells.values()
    row, column = x.nonzero(as_tuple=True)
    return row, column, x[row, column]


def _binomial(number: Tensor, share: Tensor, rng: torch.Generator) -> Tensor:
    """Binomial draws, with the first trial drawn apart for speed: most counts are one."""
    first = torch.rand(number.shape, generator=rng, device=number.device) < share
    others = torch.binomial((number - 1).clamp_min_(0), share, generator=rng)
    return others + (first & (number > 0))


def _start(
    source: Tensor, depth: Tensor | None, *, strength: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Reads that are kept from the source, and the depth to reach."""
    wanted = source.sum(1) if depth is None else depth
    if strength == 1:
        return torch.zeros_like(source), wanted
    share = torch.full_like(wanted, 1 - strength)
    if depth is None:
        return thin(source, share, rng), wanted
    return keep_reads(source, torch.binomial(depth, share, generator=rng), rng), wanted


def thin(x: Tensor, share: Tensor, rng: torch.Generator) -> Tensor:
    """Keep each read with the cell's probability: Binomial(x, share), shape ``(n, d)``."""
    rows, cols, number = _reads(x)
    kept = torch.zeros_like(x)
    kept[rows, cols] = _binomial(number, share[rows], rng)
    return kept


def keep_reads(x: Tensor, n_reads: Tensor, rng: torch.Generator) -> Tensor:
    """Draw reads of each cell without replacement, shape ``(n, d)``; all if it has no more.

    Parameters
    ----------
    x
        Counts, shape ``(n, d)``.
    n_reads
        Whole number of reads to keep per row, shape ``(n,)``.
    """
    n, d = x.shape
    *places, number = _reads(x)
    read_row, read_col = (part.repeat_interleave(number.long()) for part in places)
    # Row i lies in [i, i + 1), in double precision, so that one sort shuffles within every row.
    u = torch.rand(len(read_row), generator=rng, device=x.device, dtype=torch.float64)
    read_col = read_col[(read_row + u).argsort()]
    of_row = torch.bincount(read_row, minlength=n)
    rank = torch.arange(len(read_row), device=x.device) - (of_row.cumsum(0) - of_row)[read_row]
    hits = (read_row * d + read_col)[rank < n_reads[read_row]]
    return torch.bincount(hits, minlength=n * d).view(n, d).to(x.dtype)


def expected_log_rates(logits: Tensor, dispersion: Tensor, kept: Tensor) -> Tensor:
    r"""Log-profile of the reads still missing, given those kept, shape ``(n, d)``.

    A gene's reads are Poisson about its profile times a rate of mean 1 and variance
    :math:`\phi_g`, gamma-distributed, which makes them negative binomial. After :math:`k` reads
    where :math:`\mu` were expected that rate is :math:`(1 + \phi k) / (1 + \phi\mu)` in the mean
    (Robinson & Smyth 2008 for the model; conjugacy for the mean).

    Parameters
    ----------
    logits
        Unnormalised log-profiles, shape ``(n, d)``.
    dispersion
        :math:`\phi` of each gene and cell, shape ``(n, d)``.
    kept
        Kept reads of each gene, shape ``(n, d)``.
    """
    # Cells are as good without the gradient of a second softmax (benchmarks/NOTES.md, 42).
    expected = torch.softmax(logits.detach(), dim=1) * kept.sum(1, keepdim=True)
    return logits + torch.log1p(dispersion * kept) - torch.log1p(dispersion * expected)


def draw_rates(
    logits: Tensor, dispersion: Tensor, kept: Tensor, *, rng: torch.Generator
) -> Tensor:
    """Draw the rates at which a cell's next reads fall on its genes, shape ``(n, d)``.

    With rates drawn, a step may add many reads. Rates are drawn from the gamma distribution whose
    mean :func:`expected_log_rates` gives, by its cube root, which is nearly normal (Wilson &
    Hilferty 1931): exact draws would take longer than the network. Means hold within 5 %, and so
    do variances up to dispersions of 16; at 50 the variances are a third too large.
    """
    gained = torch.addcmul(kept.new_ones(()), kept, dispersion)
    rates = torch.softmax(logits, dim=1)
    expected = (rates * kept.sum(1, keepdim=True)).mul_(dispersion).add_(1)
    rates.mul_(gained).div_(expected)
    # In place from here on: these are matrices of cells by genes.
    spread = gained.reciprocal_().mul_(dispersion)
    # It would be a ninth of the spread, were roots not cut off at 0.
    variance = spread / torch.add(9, spread, alpha=0.18)
    root = expected.normal_(generator=rng).mul_(variance.sqrt()).add_(1).sub_(variance)
    # Above 0, so that some gene can have a read.
    root.clamp_min_(1e-3)
    rates.mul_(root).mul_(root).mul_(root)
    return rates.mul_(variance.square_().div_(4).add_(1))


def draw_reads(rates: Tensor, n_reads: Tensor, rng: torch.Generator) -> Tensor:
    """One multinomial draw per row, read by read: time is linear in reads, not in steps.

    Parameters
    ----------
    rates
        Rate of each gene, not normalised, shape ``(n, d)``.
    n_reads
        Whole number of reads to draw per row, shape ``(n,)``.

    Returns
    -------
    Place of each read in the flattened matrix, shape ``(k,)``, in the order of rows.
    """
    n, d = rates.shape
    row = torch.arange(n, device=rates.device).repeat_interleave(n_reads.long())
    draws, start, end = _in_order(row, n_reads.long(), rng)
    cdf = rates.cumsum(1)
    # Each profile is stretched over its row's part of the line, so that one search serves all.
    edges = cdf.double().mul_(((end - start) / cdf[:, -1])[:, None]).add_(start[:, None])
    place = torch.searchsorted(edges.flatten(), draws, right=True)
    return place.clamp_(row * d, row * d + d - 1)


def draw_closed(rates: Tensor, n_reads: Tensor, rng: torch.Generator, *, kept: Tensor) -> Tensor:
    """Draw features that have no read yet, each once (Efraimidis & Spirakis 2006).

    Parameters
    ----------
    rates
        Rate of each feature, not normalised, shape ``(n, d)``.
    n_reads
        Whole number of features to draw per row, shape ``(n,)``; all if no more are left.
    kept
        Reads that there are, shape ``(n, d)``.

    Returns
    -------
    Place of each read in the flattened matrix, shape ``(k,)``, in the order of rows.
    """
    times = torch.empty_like(rates).exponential_(generator=rng).div_(rates)
    times.masked_fill_(kept > 0, torch.inf)
    most = min(int(n_reads.max()), rates.shape[1])
    first, column = times.topk(most, dim=1, largest=False)
    rank = torch.arange(column.shape[1], device=rates.device)
    row, rank = ((rank < n_reads[:, None]) & first.isfinite()).nonzero(as_tuple=True)
    return row * rates.shape[1] + column[row, rank]


def _in_order(row: Tensor, n_draws: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted uniform draws on adjoining parts of a line, one part per row, and the parts' ends.

    Sorted draws are searched twice as fast. They are sums of exponential gaps, of which each row
    has one more than it has draws (Devroye 1986, chapter V).
    """
    n_gaps = len(row) + len(n_draws)
    u = torch.rand(n_gaps, generator=rng, device=row.device, dtype=torch.float64)
    marks = -torch.log1p(-u).cumsum(0)
    end = marks[(n_draws + 1).cumsum(0) - 1]
    start = torch.cat([end.new_zeros(1), end])[:-1]
    return marks[torch.arange(len(row), device=row.device) + row], start, end
