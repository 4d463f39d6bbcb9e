import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from scdiffaug import samplers

Schedule = Callable[..., Tensor]

MU = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
S = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def exact_denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """E[clean | noised] where the clean data is N(MU, diag(S^2))."""
    return MU + S**2 / (S**2 + sigma**2) * (x - MU)


def exact_solution(x: Tensor, sigma: Tensor, sigma_end: Tensor) -> Tensor:
    """Where the probability-flow ODE through x at sigma stands at sigma_end."""
    return MU + (x - MU) * ((S**2 + sigma_end**2) / (S**2 + sigma**2)).sqrt()


def from_marginal(n: int, sigma: float, *, rng: torch.Generator) -> Tensor:
    noise = torch.randn(n, 3, generator=rng, dtype=torch.float64)
    return MU + (S**2 + sigma**2).sqrt() * noise


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("schedule", [samplers.paper_sigmas, samplers.karras_sigmas])
@pytest.mark.parametrize("n_steps", [2, 3, 16, 200])
@pytest.mark.parametrize("sigma_max", [0.3, 80.0])
def test_schedules_fall_between_their_bounds_and_end_at_zero(
    schedule: Schedule, n_steps: int, sigma_max: float
) -> None:
    sigmas = schedule(n_steps, sigma_max=sigma_max, sigma_min=0.05)
    assert sigmas.dtype == torch.float32
    assert len(sigmas) == n_steps + 1
    assert (sigmas.diff() < 0).all()
    assert sigmas[0].item() == pytest.approx(sigma_max, rel=1e-5)
    assert sigmas[-2].item() == pytest.approx(0.05, rel=1e-5)
    assert sigmas[-1] == 0


@pytest.mark.parametrize("schedule", [samplers.paper_sigmas, samplers.karras_sigmas])
def test_schedule_of_one_step_starts_at_the_highest_level(schedule: Schedule) -> None:
    sigmas = schedule(1, sigma_max=10.0, sigma_min=0.05)
    torch.testing.assert_close(sigmas, torch.tensor([10.0, 0.0]))


def test_karras_levels_are_even_in_their_seventh_root() -> None:
    root = samplers.karras_sigmas(10, sigma_max=80.0, sigma_min=0.01)[:-1].double() ** (1 / 7)
    torch.testing.assert_close(root.diff(), root.diff().mean().expand(9), rtol=1e-4, atol=0)


def test_paper_levels_come_from_a_beta_that_rises_linearly() -> None:
    sigmas = samplers.paper_sigmas(50, sigma_max=80.0, sigma_min=0.02).double()[:-1].flip(0)
    minus_log_bar = sigmas.square().log1p()
    beta = minus_log_bar.diff()
    assert (beta > 0).all()
    rise = beta.diff()
    torch.testing.assert_close(rise, rise.mean().expand(len(rise)), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("solve", "tolerance"), [(samplers.ddim, 5e-2), (samplers.dpmpp_2m, 1e-3)]
)
def test_deterministic_solvers_converge_to_the_exact_solution(
    rng: torch.Generator, solve: Callable[..., Tensor], tolerance: float
) -> None:
    x = from_marginal(8, 20.0, rng=rng)
    errors = []
    for n_steps in (10, 40, 160):
        sigmas = samplers.karras_sigmas(n_steps, sigma_max=20.0, sigma_min=1e-3).double()
        exact = exact_solution(x, sigmas[0], sigmas[-1])
        errors.append((solve(exact_denoise, x, sigmas) - exact).abs().max().item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < tolerance


@pytest.mark.parametrize(("solve", "order"), [(samplers.ddim, 1), (samplers.dpmpp_2m, 2)])
def test_halving_the_step_shows_the_order_of_the_solver(
    rng: torch.Generator, solve: Callable[..., Tensor], order: int
) -> None:
    x = from_marginal(8, 20.0, rng=rng)
    errors = []
    for n_steps in (65, 129):
        # Without the last step to 0, which is of first order in every solver.
        sigmas = torch.logspace(math.log10(20.0), -1, n_steps, dtype=torch.float64)
        exact = exact_solution(x, sigmas[0], sigmas[-1])
        errors.append((solve(exact_denoise, x, sigmas) - exact).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("n_steps", [8, 16, 32, 64])
def test_dpmpp_is_more_accurate_than_ddim_at_equal_steps(
    rng: torch.Generator, n_steps: int
) -> None:
    x = from_marginal(8, 20.0, rng=rng)
    sigmas = samplers.karras_sigmas(n_steps, sigma_max=20.0, sigma_min=0.01).double()
    exact = exact_solution(x, sigmas[0], sigmas[-1])
    error = {
        solve: (solve(exact_denoise, x, sigmas) - exact).abs().mean()
        for solve in (samplers.ddim, samplers.dpmpp_2m)
    }
    assert error[samplers.dpmpp_2m] < 0.6 * error[samplers.ddim]


@pytest.mark.parametrize(
    "solve", [samplers.ddim, samplers.dpmpp_2m, partial(samplers.ddpm, rng=None)]
)
def test_one_step_to_zero_is_the_denoised_cell(
    rng: torch.Generator, solve: Callable[..., Tensor]
) -> None:
    x = from_marginal(4, 3.0, rng=rng)
    sigmas = torch.tensor([3.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(solve(exact_denoise, x, sigmas), exact_denoise(x, sigmas[0]))


def test_ddpm_step_is_the_rule_of_the_paper(rng: torch.Generator) -> None:
    sigma, sigma_next = torch.tensor([2.0, 1.5], dtype=torch.float64)
    x = from_marginal(16, 2.0, rng=rng)

    x_t = x / (1 + sigma**2).sqrt()
    alpha_bar, alpha_bar_before = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
    alpha = alpha_bar / alpha_bar_before
    x_0 = exact_denoise(x, sigma)
    epsilon = (x_t - alpha_bar.sqrt() * x_0) / (1 - alpha_bar).sqrt()
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    expected = (x_t - (1 - alpha) / (1 - alpha_bar).sqrt() * epsilon) / alpha.sqrt()
    expected = expected + (1 - alpha).sqrt() * z

    sigmas = torch.stack([sigma, sigma_next])
    made = samplers.ddpm(exact_denoise, x, sigmas, rng=torch.Generator().manual_seed(5))
    torch.testing.assert_close(made / (1 + sigma_next**2).sqrt(), expected)


def test_ddpm_samples_have_the_mean_and_variance_of_the_data(rng: torch.Generator) -> None:
    n = 4000
    sigmas = samplers.paper_sigmas(200, sigma_max=80.0, sigma_min=0.02).double()
    made = samplers.ddpm(exact_denoise, from_marginal(n, 80.0, rng=rng), sigmas, rng=rng)
    assert ((made.mean(0) - MU).abs() < 4 * S / math.sqrt(n)).all()
    # The standard error of a normal sample's variance is S^2 sqrt(2 / n).
    assert ((made.var(0) - S**2).abs() < 4 * S**2 * math.sqrt(2 / n)).all()


def test_ddpm_repeats_itself_from_the_same_seed(rng: torch.Generator) -> None:
    x = from_marginal(4, 5.0, rng=rng)
    sigmas = samplers.paper_sigmas(5, sigma_max=5.0, sigma_min=0.02).double()
    first, again, other = (
        samplers.ddpm(exact_denoise, x, sigmas, rng=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first != other).all()
