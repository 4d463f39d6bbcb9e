"""Solvers of the reverse diffusion as plain functions of ``(denoise, x, sigmas)``.

``denoise(x, sigma)`` returns the expected clean cell given ``x = clean + sigma * noise``;
``sigmas`` falls from the level of ``x`` to 0. All three share this variance-exploding form: the
paper's variance-preserving variable is ``x / sqrt(1 + sigma**2)``, with
``alpha_bar = 1 / (1 + sigma**2)``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]


def paper_sigmas(n_steps: int, *, sigma_max: float, sigma_min: float) -> Tensor:
    r"""Noise levels of the paper's schedule, its beta rising linearly, then 0.

    With :math:`\beta_t` linear in t, :math:`-\log\bar\alpha_t` is quadratic in t; the square
    runs from the bound of the lowest noise level to that of the highest.
    """
    root = torch.tensor([sigma_max, sigma_min], dtype=torch.float64).square().log1p().sqrt()
    minus_log_bar = torch.linspace(
        root[0].item(), root[1].item(), n_steps, dtype=torch.float64
    ).square()
    return torch.cat([minus_log_bar.expm1().sqrt().float(), torch.zeros(1)])


def karras_sigmas(n_steps: int, *, sigma_max: float, sigma_min: float, rho: float = 7.0) -> Tensor:
    """Noise levels even in ``sigma ** (1 / rho)``, then 0 (Karras et al. 2022, eq. 5)."""
    ramp = torch.linspace(0, 1, n_steps)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1)])


def ddpm(denoise: Denoiser, x: Tensor, sigmas: Tensor, *, rng: torch.Generator) -> Tensor:
    r"""Ancestral sampling, the paper's rule (Ho et al. 2020, algorithm 2).

    In the variance-preserving variable this is
    :math:`x_{t-1} = (x_t - (1-\alpha_t)/\sqrt{1-\bar\alpha_t}\,\epsilon)/\sqrt{\alpha_t}
    + \sqrt{\beta_t} z` with :math:`\alpha_t = \bar\alpha_t/\bar\alpha_{t-1}`.
    """
    for sigma, sigma_next in pairwise(sigmas):
        bar, bar_next = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
        alpha = bar / bar_next
        noise = (x - denoise(x, sigma)) / sigma
        mean = (x * bar.sqrt() - (1 - alpha) / (1 - bar).sqrt() * noise) / alpha.sqrt()
        if sigma_next > 0:
            fresh = torch.randn(x.shape, generator=rng, device=x.device)
            mean = mean + (1 - alpha).sqrt() * fresh
        x = mean / bar_next.sqrt()
    return x


def ddim(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """Deterministic first-order solver (Song et al. 2021), Euler's rule on the noise levels."""
    for sigma, sigma_next in pairwise(sigmas):
        clean = denoise(x, sigma)
        x = clean + (sigma_next / sigma) * (x - clean)
    return x


def dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """Deterministic second-order multistep solver DPM-Solver++(2M) (Lu et al. 2022)."""
    previous, step_before = x, torch.tensor(torch.inf)
    for sigma, sigma_next in pairwise(sigmas):
        clean = estimate = denoise(x, sigma)
        step = torch.log(sigma / sigma_next)
        # First order at the first step and at the last, whose length in log-noise is infinite.
        if step.isfinite():
            slope = step / (2 * step_before)
            estimate = (1 + slope) * clean - slope * previous
        x = estimate + (sigma_next / sigma) * (x - estimate)
        previous, step_before = clean, step
    return x
