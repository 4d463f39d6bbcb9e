"""Count thinning: draws against their distributions, the chain against enumerated cells."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from scdiffaug.diffusion import (
    CountNetwork,
    CountThinning,
    Network,
    draw_closed,
    draw_rates,
    draw_reads,
    expected_log_rates,
    thin,
)

COUNTS = CountThinning()


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def burstless(network: Network) -> CountNetwork:
    """Reads of a gene that fall by a profile alone."""

    def with_dispersion(kept: Tensor, depth: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        return network(kept, depth, condition), torch.zeros(kept.shape[1])

    return with_dispersion


def chi_square_p(observed: Tensor, probability: Tensor) -> float:
    expected = probability.double() / probability.double().sum() * observed.sum()
    return float(stats.chisquare(observed.double(), expected).pvalue)


# Thinning


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_thinning_keeps_no_read_or_every_read_at_the_ends(
    rng: torch.Generator, share: float
) -> None:
    x = torch.randint(0, 50, (30, 20), generator=rng).float()
    torch.testing.assert_close(thin(x, torch.full((30,), share), rng), share * x, rtol=0, atol=0)


@pytest.mark.parametrize(("count", "share"), [(1.0, 0.5), (20.0, 0.3), (400.0, 0.9)])
def test_thinned_reads_are_binomial(rng: torch.Generator, count: float, share: float) -> None:
    n = 20_000
    x = torch.full((n, 1), count)
    kept = thin(x, torch.full((n,), share), rng)
    variance = count * share * (1 - share)
    assert (kept <= x).all()
    assert (kept == kept.round()).all()
    assert kept.mean().item() == pytest.approx(count * share, abs=4 * math.sqrt(variance / n))
    assert kept.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n) + 0.01)


def test_thinning_has_a_share_of_its_own_for_each_cell(rng: torch.Generator) -> None:
    share = torch.tensor([0.1, 0.5, 0.9])
    kept = thin(torch.full((3, 4000), 10.0), share, rng)
    torch.testing.assert_close(kept.mean(1) / 10, share, rtol=0, atol=0.01)
    assert (thin(torch.zeros(3, 5), share, rng) == 0).all()


def test_a_stored_zero_has_no_read_to_keep(rng: torch.Generator) -> None:
    places, values = torch.tensor([[0, 0], [0, 1]]), torch.tensor([0.0, 3.0])
    x = torch.sparse_coo_tensor(places, values, (1, 2), is_coalesced=True, check_invariants=False)
    seen: list[Tensor] = []

    def network(kept: Tensor, *_: Tensor) -> Tensor:
        seen.append(kept)
        return torch.zeros_like(kept)

    for _ in range(20):
        COUNTS.loss(burstless(network), x, torch.zeros(1, 1), rng=rng)
    assert all(kept[0, 0] == 0 for kept in seen)
    assert any(kept[0, 1] > 0 for kept in seen)


# Drawing reads


def drawn(rates: Tensor, n_reads: Tensor, rng: torch.Generator) -> Tensor:
    """Reads per cell and gene."""
    reads = torch.zeros_like(rates)
    place = draw_reads(rates, n_reads, rng)
    of_row = torch.arange(len(rates)).repeat_interleave(n_reads.long())
    assert torch.equal(of_row, place // rates.shape[1])
    return reads.put_(place, torch.ones(len(place)), accumulate=True)


def test_drawn_reads_are_exactly_as_many_as_asked(rng: torch.Generator) -> None:
    n_reads = torch.tensor([0.0, 1.0, 7.0, 5000.0, 0.0])
    reads = drawn((5 * torch.randn(5, 40, generator=rng)).exp(), n_reads, rng)
    torch.testing.assert_close(reads.sum(1), n_reads, rtol=0, atol=0)


@pytest.mark.parametrize("possible", [[0], [2], [4], [1, 3], [0, 4]])
def test_no_read_is_drawn_where_its_probability_is_zero(
    rng: torch.Generator, possible: list[int]
) -> None:
    rates = torch.zeros(50, 5)
    rates[:, possible] = 1
    reads = drawn(rates, torch.full((50,), 1000.0), rng)
    impossible = [gene for gene in range(5) if gene not in possible]
    assert (reads[:, impossible] == 0).all()
    assert (reads[:, possible] > 0).all()


def test_drawn_reads_follow_each_cell_s_profile(rng: torch.Generator) -> None:
    rates = (2 * torch.randn(6, 12, generator=rng)).exp()
    reads = drawn(rates, torch.full((6,), 20_000.0), rng)
    for cell, profile in zip(reads, rates, strict=True):
        assert chi_square_p(cell, profile) > 1e-3


def test_drawn_reads_of_a_cell_are_independent(rng: torch.Generator) -> None:
    profile = torch.tensor([0.5, 0.3, 0.2])
    reads = drawn(profile.expand(10_000, 3), torch.full((10_000,), 2.0), rng)
    pairs = list(itertools.combinations_with_replacement(range(3), 2))
    observed, probability = torch.zeros(len(pairs)), torch.zeros(len(pairs))
    for k, (a, b) in enumerate(pairs):
        cell = torch.bincount(torch.tensor([a, b]), minlength=3).float()
        observed[k] = (reads == cell).all(1).sum()
        probability[k] = profile[a] * profile[b] * (1 if a == b else 2)
    assert observed.sum() == 10_000
    assert chi_square_p(observed, probability) > 1e-3


# Count thinning


def counts(rng: torch.Generator) -> Tensor:
    """Cells of many depths, among them an empty one and one of a single read."""
    x = torch.poisson(8 * torch.rand(12, 9, generator=rng), generator=rng)
    x[0] = 0
    x[1] = torch.nn.functional.one_hot(torch.tensor(4), 9)
    x[2, 3] = 3000
    return x


def sample_counts(network: Network, source: Tensor, **given: float) -> Tensor:
    return COUNTS.sample(
        burstless(network),
        source,
        torch.zeros(len(source), 1),
        strength=given.get("strength", 1.0),
        n_steps=int(given.get("n_steps", 8)),
        sampler="thicken",
        rng=seeded(int(given.get("seed", 7))),
    )


@pytest.mark.parametrize("strength", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("n_steps", [1, 2, 7, 64])
def test_made_cells_are_integers_of_the_depth_of_their_source(
    rng: torch.Generator, strength: float, n_steps: int
) -> None:
    source = counts(rng)
    weights = torch.randn(9, 9, generator=rng)

    def network(kept: Tensor, depth: Tensor, _: Tensor) -> Tensor:
        return kept.log1p() @ weights + depth[:, None]

    made = sample_counts(network, source, strength=strength, n_steps=n_steps)
    assert (made >= 0).all()
    assert (made == made.round()).all()
    torch.testing.assert_close(made.sum(1), source.sum(1), rtol=0, atol=0)
    assert torch.equal(made, source) == (strength == 0)


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.8])
def test_made_cells_keep_the_share_that_strength_leaves(strength: float) -> None:
    source = torch.full((200, 4), 50.0)
    source[:, 3] = 0
    last_gene = torch.tensor([-torch.inf, -torch.inf, -torch.inf, 0.0])
    made = sample_counts(lambda x, *_: last_gene.expand(len(x), 4), source, strength=strength)
    assert (made[:, :3] <= source[:, :3]).all()
    kept = (made[:, :3].sum() / source.sum()).item()
    error = math.sqrt(strength * (1 - strength) / source.sum().item())
    assert kept == pytest.approx(1 - strength, abs=4 * error)


def test_network_sees_the_same_in_training_and_in_sampling(rng: torch.Generator) -> None:
    source = counts(rng)
    depth = source.sum(1)
    seen: list[Tensor] = []

    def network(kept: Tensor, whole: Tensor, _: Tensor) -> Tensor:
        assert torch.equal(whole, depth)
        seen.append(kept.clone())
        return torch.zeros_like(kept)

    COUNTS.loss(burstless(network), source, torch.zeros(len(source), 1), rng=rng)
    sample_counts(network, source, n_steps=4)
    assert len(seen) == 5
    for kept in seen:
        torch.testing.assert_close(kept, kept.round(), rtol=0, atol=0)
        assert (kept.sum(1) <= depth).all()
    share = torch.stack([kept[2].sum() / depth[2] for kept in seen[1:]])
    torch.testing.assert_close(share, torch.tensor([0.0, 0.0625, 0.25, 0.5625]), rtol=0, atol=0.01)
    assert (seen[0] <= source).all()


# The exact chain on an example small enough to enumerate: cells of three genes and three reads,
# a read's gene drawn from one of two profiles, the same for all reads of a cell.

PRIOR = torch.tensor([0.6, 0.4], dtype=torch.float64)
PROFILES = torch.tensor([[0.85, 0.1, 0.05], [0.05, 0.15, 0.8]], dtype=torch.float64)
DEPTH = 3
CELLS = torch.tensor([c for c in itertools.product(range(4), repeat=3) if sum(c) == DEPTH])


def multinomial_probability(cell: Tensor, profile: Tensor) -> Tensor:
    return torch.tensor(stats.multinomial.pmf(cell.numpy(), int(cell.sum()), profile.numpy()))


def cell_probability() -> Tensor:
    return torch.stack(
        [
            sum(w * multinomial_probability(c, p) for w, p in zip(PRIOR, PROFILES, strict=True))
            for c in CELLS
        ]
    )


def posterior_by_enumeration() -> Tensor:
    """Expected profile of the missing reads by kept reads, shape (4, 4, 4, 3).

    Over both profiles, all orders of the reads and all numbers of reads kept.
    """
    mass = torch.zeros(4, 4, 4, 3, dtype=torch.float64)
    for w, p in zip(PRIOR, PROFILES, strict=True):
        for reads in itertools.product(range(3), repeat=DEPTH):
            probability = w * math.prod(p[gene].item() for gene in reads)
            for n_kept in range(DEPTH):
                kept, missing = (
                    np.bincount(part, minlength=3) for part in (reads[:n_kept], reads[n_kept:])
                )
                mass[tuple(kept)] += probability * torch.from_numpy(missing)
    # A whole cell misses no read: any profile does.
    mass[mass.sum(3) == 0] = 1
    return mass / mass.sum(3, keepdim=True)


POSTERIOR = posterior_by_enumeration()


def exact_network(kept: Tensor, *_: Tensor) -> Tensor:
    return POSTERIOR[tuple(kept.long().T)].log().float()


def prior_network(kept: Tensor, *_: Tensor) -> Tensor:
    return (PRIOR @ PROFILES).log().float().expand(len(kept), 3)


def tally(made: Tensor) -> Tensor:
    match = (made[:, None] == CELLS[None]).all(2)
    assert match.any(1).all(), "a cell that cannot be"
    return match.sum(0)


def real_cells(n: int, *, rng: torch.Generator) -> Tensor:
    return CELLS[torch.multinomial(cell_probability(), n, replacement=True, generator=rng)].float()


def test_enumerated_cells_are_all_there_are() -> None:
    assert len(CELLS) == 10
    assert cell_probability().sum().item() == pytest.approx(1)
    torch.testing.assert_close(POSTERIOR[0, 0, 0], PRIOR @ PROFILES)


# Shares kept rise as a square, so that twice as many steps as reads are at most a read each.
@pytest.mark.parametrize("n_steps", [2 * DEPTH, 10])
def test_one_read_a_step_gives_the_exact_distribution_of_cells(n_steps: int) -> None:
    source = torch.zeros(20_000, 3)
    source[:, 0] = DEPTH
    made = sample_counts(exact_network, source, n_steps=n_steps)
    assert chi_square_p(tally(made), cell_probability()) > 1e-3


def test_all_reads_in_one_step_give_another_distribution() -> None:
    source = torch.zeros(20_000, 3)
    source[:, 0] = DEPTH
    observed = tally(sample_counts(exact_network, source, n_steps=1))
    assert chi_square_p(observed, cell_probability()) < 1e-6
    independent = torch.stack([multinomial_probability(c, PRIOR @ PROFILES) for c in CELLS])
    assert chi_square_p(observed, independent) > 1e-3


@pytest.mark.parametrize("strength", [0.3, 0.7])
def test_partly_made_cells_keep_the_distribution_of_cells(
    rng: torch.Generator, strength: float
) -> None:
    source = real_cells(20_000, rng=rng)
    made = sample_counts(exact_network, source, strength=strength, n_steps=2 * DEPTH)
    assert not torch.equal(made, source)
    assert chi_square_p(tally(made), cell_probability()) > 1e-3


def test_count_loss_is_lowest_for_the_exact_network(rng: torch.Generator) -> None:
    x = real_cells(4000, rng=rng)

    def loss(network: Network) -> float:
        return COUNTS.loss(burstless(network), x, torch.zeros(len(x), 1), rng=seeded(3)).item()

    def tilted(kept: Tensor, depth: Tensor, condition: Tensor) -> Tensor:
        return exact_network(kept, depth, condition) + torch.tensor([0.5, 0.0, 0.0])

    assert loss(exact_network) < loss(prior_network) - 0.05
    assert loss(exact_network) < loss(tilted) - 0.01


def test_training_thins_cells_as_sampling_meets_them() -> None:
    """Of a cell of many reads, too, none are seen as often as in the first of eight steps."""
    x, seen = torch.full((9000, 2), 5000.0), []

    def network(kept: Tensor, *_: Tensor) -> Tensor:
        seen.append(kept.sum(1) / 10_000)
        return torch.zeros_like(kept)

    COUNTS.loss(burstless(network), x, torch.zeros(len(x), 1), rng=seeded(0))
    (share,) = seen
    assert (share == 0).float().mean().item() == pytest.approx(1 / 9, abs=0.015)
    quantiles = torch.tensor([0.25, 0.5, 0.75])
    found = share[share > 0].quantile(quantiles)
    torch.testing.assert_close(found, quantiles.square(), rtol=0, atol=0.03)


def test_count_loss_of_sparse_cells_is_that_of_dense_ones(rng: torch.Generator) -> None:
    x = counts(rng)
    weights = torch.randn(9, 9, generator=rng)
    dense, sparse = (
        COUNTS.loss(
            burstless(lambda kept, *_: kept @ weights), each, torch.zeros(12, 1), rng=seeded(4)
        )
        for each in (x, x.to_sparse())
    )
    assert torch.equal(dense, sparse)


def test_count_loss_does_not_depend_on_reads_that_are_not_there() -> None:
    x = torch.tensor([[20.0, 0.0, 50.0], [0.0, 0.0, 0.0]])
    offset = torch.tensor([[0.0], [50.0]])

    def loss(network: Network) -> float:
        return COUNTS.loss(burstless(network), x, torch.zeros(2, 1), rng=seeded(1)).item()

    even = loss(lambda kept, *_: torch.zeros_like(kept))
    assert even == pytest.approx(math.log(3))
    assert loss(lambda kept, *_: torch.zeros_like(kept) + offset) == pytest.approx(even)


# Binary cells: features that have a read or none.


def test_closed_features_are_drawn_once_and_by_their_rates(rng: torch.Generator) -> None:
    rates = torch.tensor([0.1, 0.2, 0.3, 0.4]).repeat(20_000, 1)
    kept = torch.zeros_like(rates)
    kept[:, 3] = 1
    first = draw_closed(rates, torch.ones(20_000), rng, kept=kept) % 4
    assert chi_square_p(first.bincount(minlength=4)[:3], rates[0, :3]) > 1e-3
    # Those that have a read are never drawn, so that no more than three can be.
    n_reads = torch.tensor([0, 2, 3, 9]).repeat(5_000)
    drawn = draw_closed(rates, n_reads, rng, kept=kept).bincount(minlength=80_000).view(-1, 4)
    assert drawn.max() == 1
    assert not drawn[:, 3].any()
    assert torch.equal(drawn.sum(1), n_reads.clamp_max(3))


def test_binary_cells_make_binary_cells(rng: torch.Generator) -> None:
    source = (torch.rand(30, 9, generator=rng) < 0.4).float()
    weights = torch.randn(9, 9, generator=rng)
    for strength in (0.3, 1.0):
        made = CountThinning(is_binary=True).sample(
            burstless(lambda kept, *_: kept @ weights),
            source,
            torch.zeros(30, 1),
            strength=strength,
            n_steps=4,
            sampler="thicken",
            rng=rng,
        )
        assert set(made.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(made.sum(1), source.sum(1))
        assert not torch.equal(made, source)


def test_binary_loss_is_of_the_features_that_have_no_read_yet() -> None:
    # A mixture has some features of both of its cells.
    x = torch.full((400, 4), 2.0)
    n_kept: list[Tensor] = []

    def even(kept: Tensor, depth: Tensor, _: Tensor) -> Tensor:
        assert torch.equal(depth, torch.full((400,), 4.0))
        n_kept.append(kept.sum(1))
        return torch.zeros_like(kept)

    network = burstless(even)
    found = CountThinning(is_binary=True).loss(network, x, torch.zeros(400, 1), rng=seeded(1))
    n_missing = 4 - n_kept[0]
    expected = n_missing[n_missing > 0].log().mean()
    torch.testing.assert_close(found, expected)


# Bursts: genes whose reads are negative binomial about a profile.

PROFILE = torch.tensor([0.4, 0.3, 0.2, 0.1])
DISPERSION = torch.tensor([2.0, 0.5, 0.1, 0.0])


def bursting_cells(n: int, n_reads: float, *, rng: np.random.Generator) -> Tensor:
    """Poisson reads about the profile times gamma-distributed rates."""
    rates = torch.ones(n, 4)
    for gene, phi in enumerate(DISPERSION.tolist()):
        if phi:
            rates[:, gene] = torch.from_numpy(rng.gamma(1 / phi, phi, size=n))
    return torch.from_numpy(rng.poisson((n_reads * PROFILE * rates).numpy())).float()


def test_what_bursts_lead_to_expect_is_the_mean_of_what_follows() -> None:
    rng = np.random.default_rng(0)
    # Both halves of a cell have the same rates.
    whole = bursting_cells(400_000, 20, rng=rng)
    kept = torch.from_numpy(rng.binomial(whole.long().numpy(), 0.5)).float()
    for n_seen in (0.0, 3.0, 9.0):
        chosen = (kept[:, 0] == n_seen) & (kept.sum(1) == 10)
        follows = (whole - kept)[chosen].mean(0)
        log_rates = expected_log_rates(
            PROFILE.log().expand(int(chosen.sum()), 4), DISPERSION, kept[chosen]
        )
        expected = log_rates[:, 0].exp().mean() * 10
        assert follows[0].item() == pytest.approx(expected.item(), rel=0.06)


@pytest.mark.parametrize("n_reads", [2, 10])
def test_reads_drawn_at_once_are_as_dispersed_as_their_genes(
    rng: torch.Generator, n_reads: int
) -> None:
    n, d = 1000, 400
    dispersion = torch.linspace(0, 3, d)
    none = torch.zeros(n, d)
    rates = draw_rates(torch.zeros(n, d), dispersion, none, rng=rng)
    reads = drawn(rates, torch.full((n,), float(n_reads * d)), rng)
    mean, variance = reads.mean(0), reads.var(0)
    wanted = mean * (1 + dispersion * mean)
    for part in (slice(0, 100), slice(100, 200), slice(200, 300), slice(300, 400)):
        assert variance[part].mean().item() == pytest.approx(wanted[part].mean().item(), rel=0.06)
    # The cube root of a gamma is the less normal the more zeros there are.
    zeros = torch.from_numpy(
        stats.nbinom.pmf(0, 1 / dispersion[1:], 1 / (1 + dispersion[1:] * n_reads))
    )
    assert (reads[:, 1:] == 0).float().mean(0).numpy() == pytest.approx(zeros.numpy(), abs=0.06)


@pytest.mark.parametrize(
    ("dispersion", "off"), [(1.0, 0.05), (4.0, 0.06), (16.0, 0.06), (50.0, 0.4)]
)
def test_rates_of_great_bursts_keep_their_mean_and_variance(
    rng: torch.Generator, dispersion: float, off: float
) -> None:
    n, d = 4_000, 1_000
    none = torch.zeros(n, d)
    rates = d * draw_rates(none, torch.full((n, d), dispersion), none, rng=rng)
    assert rates.mean().item() == pytest.approx(1, abs=0.06)
    assert rates.var().item() == pytest.approx(dispersion, rel=off)


def test_without_dispersion_the_profile_alone_is_drawn_from(rng: torch.Generator) -> None:
    logits, kept = torch.randn(5, 4, generator=rng), torch.full((5, 4), 7.0)
    rates = draw_rates(logits, torch.zeros(4), kept, rng=rng)
    torch.testing.assert_close(rates, logits.softmax(1))
    torch.testing.assert_close(expected_log_rates(logits, torch.zeros(4), kept), logits)


def test_count_loss_is_lowest_at_the_dispersion_of_the_cells() -> None:
    x = bursting_cells(20_000, 30, rng=np.random.default_rng(1))

    def loss(factor: float) -> float:
        def network(kept: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
            return PROFILE.log().expand(len(kept), 4), factor * DISPERSION

        return COUNTS.loss(network, x, torch.zeros(len(x), 1), rng=seeded(5)).item()

    assert loss(1.0) < min(loss(0.0), loss(0.3), loss(3.0))


def test_reads_of_few_genes_in_great_bursts_fall_somewhere(rng: torch.Generator) -> None:
    none = torch.zeros(500, 2)
    rates = draw_rates(none, torch.full((2,), 100.0), none, rng=rng)
    reads = drawn(rates, torch.full((500,), 20.0), rng)
    torch.testing.assert_close(reads.sum(1), torch.full((500,), 20.0), rtol=0, atol=0)
