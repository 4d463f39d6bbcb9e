"""The Gaussian chain against a denoiser known exactly, and what both processes have in common."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from scdiffaug.diffusion import CountThinning, GaussianDiffusion, Network

COUNTS, GAUSS = CountThinning(), GaussianDiffusion()


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Gaussian diffusion on data N(MU, diag(S^2)), whose exact denoiser is known.

MU, S = torch.tensor([1.0, -0.5, 0.0]), torch.tensor([0.5, 1.0, 1.5])
Denoiser = Callable[[Tensor, Tensor], Tensor]


def normal(n: int, *, rng: torch.Generator) -> Tensor:
    return MU + S * torch.randn(n, 3, generator=rng)


def exact_denoise(x: Tensor, sigma: Tensor) -> Tensor:
    return MU + S**2 / (S**2 + sigma[:, None] ** 2) * (x - MU)


def as_network(denoise: Denoiser) -> Network:
    """The network whose output, preconditioned as in Karras et al. 2022, is the denoiser."""

    def network(scaled: Tensor, level: Tensor, _: Tensor) -> Tensor:
        sigma = torch.exp(4 * level)
        c_in = (1 / (1 + sigma**2).sqrt())[:, None]
        c_skip, c_out = c_in**2, sigma[:, None] * c_in
        x = scaled / c_in
        return (denoise(x, sigma) - c_skip * x) / c_out

    return network


def sample_normal(network: Network, source: Tensor, **given: float | str) -> Tensor:
    return GAUSS.sample(
        network,
        source,
        torch.zeros(len(source), 1),
        strength=float(given.get("strength", 1.0)),
        n_steps=int(given.get("n_steps", 16)),
        sampler=given.get("sampler", "dpmpp_2m"),  # type: ignore[arg-type]
        rng=seeded(int(given.get("seed", 7))),
    )


def test_denoise_undoes_the_preconditioning(rng: torch.Generator) -> None:
    sigma = torch.tensor([0.02, 0.3, 1.0, 8.0, 80.0])
    x = normal(5, rng=rng) + sigma[:, None] * torch.randn(5, 3, generator=rng)
    denoised = GAUSS.denoise(as_network(exact_denoise), x, sigma, condition=torch.zeros(5, 1))
    torch.testing.assert_close(denoised, exact_denoise(x, sigma), rtol=1e-4, atol=1e-4)


def test_input_and_wanted_output_of_the_network_have_unit_variance(rng: torch.Generator) -> None:
    n = 20_000
    x, noise = torch.randn(2, n, 1, generator=rng)
    for level in (0.02, 0.5, 2.0, 80.0):
        sigma = torch.full((n,), level)
        noised = x + level * noise
        seen: list[Tensor] = []

        def network(scaled: Tensor, *_: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(scaled)
            return torch.zeros_like(scaled)

        skip = GAUSS.denoise(network, noised, sigma, condition=torch.zeros(n, 1))
        unit = GAUSS.denoise(
            lambda scaled, *_: torch.ones_like(scaled), noised, sigma, condition=torch.zeros(n, 1)
        )
        wanted = (x - skip) / (unit - skip)
        assert seen[0].std().item() == pytest.approx(1, abs=0.03)
        assert wanted.std().item() == pytest.approx(1, abs=0.03)


def test_gaussian_loss_is_lowest_for_the_exact_denoiser(rng: torch.Generator) -> None:
    x = normal(4000, rng=rng)

    def loss(denoise: Denoiser) -> float:
        return GAUSS.loss(as_network(denoise), x, torch.zeros(len(x), 1), rng=seeded(2)).item()

    exact = loss(exact_denoise)
    assert exact < loss(lambda x, sigma: exact_denoise(x, sigma) + 0.1)
    assert exact < loss(lambda x, sigma: exact_denoise(x, 1.3 * sigma))
    assert exact < loss(lambda x, sigma: exact_denoise(x, sigma / 1.3))
    assert exact < loss(lambda x, _: x)


def test_gaussian_loss_of_the_best_guess_on_unit_normal_data_is_one(rng: torch.Generator) -> None:
    x = torch.randn(4000, 3, generator=rng)
    no_residual = GAUSS.loss(
        lambda scaled, *_: torch.zeros_like(scaled), x, torch.zeros(4000, 1), rng=rng
    )
    assert no_residual.item() == pytest.approx(1, abs=4 * math.sqrt(2 / 12_000))


def test_start_level_runs_geometrically_between_its_bounds() -> None:
    process = GaussianDiffusion(sigma_min=0.01, sigma_max=100.0)
    levels = [process.start_level(strength) for strength in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert levels == pytest.approx([0.01, 0.1, 1.0, 10.0, 100.0])


@pytest.mark.parametrize("sampler", GAUSS.samplers)
def test_distance_from_the_source_grows_with_strength(rng: torch.Generator, sampler: str) -> None:
    source = normal(500, rng=rng)
    network = as_network(exact_denoise)
    distance = [
        (sample_normal(network, source, strength=strength, sampler=sampler) - source)
        .square()
        .mean()
        .sqrt()
        .item()
        for strength in (0.0, 0.05, 0.3, 0.5, 0.7, 1.0)
    ]
    assert all(near < far for near, far in itertools.pairwise(distance))
    assert distance[1] < 0.05
    # Two independent draws are apart by the root of twice the variance.
    assert distance[-1] == pytest.approx(math.sqrt(2 * S.square().mean().item()), rel=0.1)


@pytest.mark.parametrize(("sampler", "n_steps"), [("dpmpp_2m", 32), ("ddim", 120), ("ddpm", 200)])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_made_cells_have_the_mean_and_variance_of_the_data(
    rng: torch.Generator, sampler: str, n_steps: int, strength: float
) -> None:
    n = 4000
    made = sample_normal(
        as_network(exact_denoise),
        normal(n, rng=rng),
        strength=strength,
        n_steps=n_steps,
        sampler=sampler,
    )
    assert ((made.mean(0) - MU).abs() < 5 * S / math.sqrt(n)).all()
    assert ((made.var(0) / S**2 - 1).abs() < 5 * math.sqrt(2 / n) + 0.02).all()


@pytest.mark.parametrize("sampler", GAUSS.samplers)
def test_full_strength_forgets_the_source(rng: torch.Generator, sampler: str) -> None:
    network, source = as_network(exact_denoise), normal(6, rng=rng)
    made = sample_normal(network, source, sampler=sampler)
    torch.testing.assert_close(made, sample_normal(network, source + 5, sampler=sampler))
    assert (made != sample_normal(network, source, sampler=sampler, seed=1)).all()


@pytest.mark.parametrize("sampler", GAUSS.samplers)
@pytest.mark.parametrize("n_steps", [1, 2])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_few_steps_are_finite(
    rng: torch.Generator, sampler: str, n_steps: int, strength: float
) -> None:
    made = sample_normal(
        as_network(exact_denoise),
        normal(6, rng=rng),
        sampler=sampler,
        n_steps=n_steps,
        strength=strength,
    )
    assert made.isfinite().all()


# Both processes.


def test_condition_reaches_the_network_in_loss_and_sampling(rng: torch.Generator) -> None:
    condition = torch.arange(4.0)[:, None]
    seen: list[Tensor] = []

    def network(x: Tensor, level: Tensor, given: Tensor) -> Tensor:
        assert level.shape == (4,)
        seen.append(given)
        return torch.zeros_like(x)

    def count_network(*given: Tensor) -> tuple[Tensor, Tensor]:
        return network(*given), torch.ones(3)

    x = normal(4, rng=rng)
    for process, network_of in ((GAUSS, network), (COUNTS, count_network)):
        process.loss(network_of, x.abs().round(), condition, rng=rng)
        process.sample(
            network_of,
            x.abs().round(),
            condition,
            strength=0.5,
            n_steps=3,
            sampler=process.samplers[0],
            rng=rng,
        )
    assert len(seen) == 8
    assert all(torch.equal(given, condition) for given in seen)


def test_defaults_name_a_sampler_that_fits() -> None:
    assert COUNTS.samplers[0] == "thicken"
    assert GAUSS.samplers[0] == "dpmpp_2m"
