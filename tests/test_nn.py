import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from scdiffaug.nn import (
    LOWEST_SCORE,
    CountGenerator,
    Dispersion,
    Generator,
    NoiseLevelEmbedding,
    SemanticEncoder,
    ValueGenerator,
    mlp,
)

D = 30


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def linear_widths(layers: nn.Module) -> list[int]:
    linear = [layer for layer in layers.modules() if isinstance(layer, nn.Linear)]
    for before, after in pairwise(linear):
        assert before.out_features == after.in_features
    return [linear[0].in_features, *(layer.out_features for layer in linear)]


def test_widths_are_those_of_the_paper() -> None:
    encoder, generator = SemanticEncoder(D), Generator(D)
    assert linear_widths(encoder.semantic) == [D, 500, 300, 80]
    assert linear_widths(encoder.projection) == [80, 500, 500, 2]
    assert linear_widths(nn.ModuleList([*generator.hidden, generator.out])) == [D, 500, 80, 500, D]


@pytest.mark.parametrize(("n_semantic", "n_projection"), [(80, 2), (16, 3)])
def test_encoder_returns_both_spaces(n_semantic: int, n_projection: int) -> None:
    encoder = SemanticEncoder(D, n_semantic=n_semantic, n_projection=n_projection)
    y, z = encoder(torch.randn(6, D))
    assert y.shape == (6, n_semantic)
    assert z.shape == (6, n_projection)


def test_last_layer_of_a_block_is_bare() -> None:
    block = mlp([D, 8, 4])
    assert [type(layer) for layer in block] == [
        nn.Linear,
        nn.BatchNorm1d,
        nn.LeakyReLU,
        nn.Linear,
    ]


def trained(encoder: SemanticEncoder) -> SemanticEncoder:
    """Running statistics unlike those at the start, then evaluation mode."""
    for _ in range(3):
        encoder(3 + 2 * torch.randn(32, D))
    return encoder.eval()


def test_a_cell_has_the_same_embedding_in_any_batch() -> None:
    encoder = trained(SemanticEncoder(D))
    cells = torch.randn(9, D)
    with torch.no_grad():
        whole = encoder(cells)
        alone = [encoder(cell[None]) for cell in cells]
        among_others = encoder(torch.cat([100 * torch.randn(5, D), cells]))
    for space in range(2):
        one_by_one = torch.cat([pair[space] for pair in alone])
        torch.testing.assert_close(one_by_one, whole[space], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(among_others[space][5:], whole[space], rtol=1e-4, atol=1e-5)


def test_a_made_cell_is_the_same_in_any_batch_while_training_too() -> None:
    generator = Generator(D).train()
    inputs = torch.randn(9, D), torch.rand(9), torch.randn(9, 80)
    with torch.no_grad():
        whole = generator(*inputs)
        alone = torch.cat([generator(*(part[i : i + 1] for part in inputs)) for i in range(9)])
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)


def test_embedding_under_autocast_is_float32_and_of_its_precision() -> None:
    encoder = trained(SemanticEncoder(D))
    cells = torch.randn(64, D)
    with torch.no_grad():
        y_exact, z_exact = encoder(cells)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, z = encoder(cells)
    assert y.dtype == z.dtype == torch.float32
    # Coordinates rounded to bfloat16 would all survive the way there and back.
    assert (z != z.bfloat16().float()).float().mean() > 0.9
    torch.testing.assert_close(z, z_exact, rtol=0.1, atol=0.1 * z_exact.std().item())
    torch.testing.assert_close(y, y_exact, rtol=0.1, atol=0.1 * y_exact.std().item())


def test_gradients_under_autocast_reach_every_parameter() -> None:
    encoder = SemanticEncoder(D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, z = encoder(torch.randn(16, D))
        loss = (y**2).mean() + (z**3).mean()
    loss.backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("changed", ["cells", "level", "condition"])
def test_generator_depends_on_each_input(changed: str) -> None:
    generator = Generator(D)
    assert not generator.out.weight.any()
    torch.nn.init.normal_(generator.out.weight)
    inputs = {
        "cells": torch.randn(5, D),
        "level": torch.rand(5),
        "condition": torch.randn(5, 80),
    }
    other = inputs | {changed: torch.rand_like(inputs[changed])}

    def make(given: dict[str, Tensor]) -> Tensor:
        return generator(given["cells"], given["level"], given["condition"])

    with torch.no_grad():
        assert ((make(inputs) - make(other)).abs().amax(1) > 1e-4).all()


def test_count_generator_sees_depth_and_has_a_positive_dispersion_of_each_gene_and_cell() -> None:
    generator = CountGenerator(D)
    torch.nn.init.normal_(generator.profile.out.weight)
    kept, condition = torch.poisson(torch.ones(5, D)), torch.randn(5, 80)
    with torch.no_grad():
        shallow, dispersion = generator(kept, 2 * kept.sum(1), condition)
        # The same share of the reads is kept.
        deep, _ = generator(kept, 200 * kept.sum(1), condition)
    assert ((shallow - deep).abs().amax(1) > 1e-4).all()
    assert dispersion.shape == (5, D)
    torch.testing.assert_close(dispersion.log(), torch.full((5, D), -2.0))


@torch.no_grad()
def test_dispersions_follow_a_line_of_each_gene_and_one_of_all() -> None:
    dispersion = Dispersion(3)
    logits, mean, depth = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0.0, 2.0, 5.0]), 0.5
    dispersion.level.copy_(torch.tensor([0.1, 0.0, 0.0]))
    dispersion.trend.copy_(torch.tensor([0.0, 0.1, 0.1]))
    dispersion.shared.copy_(torch.tensor([0.01, 0.02, 0.03, 0.04]))
    found = dispersion(logits, mean, torch.full((1, 1), depth)).log()
    # Begun at -2 and ten times as fast: level, trend times what the profile is above its mean.
    own = [1.0 + 0.0 * 1, 0.0 + 1.0 * 0, 0.0 + 1.0 * -2]
    shared = [0.1 + 0.2 * m + 0.3 * a + 0.4 * depth for m, a in ((0, 1), (2, 0), (5, -2))]
    wanted = [-2 + o + s for o, s in zip(own, shared, strict=True)]
    assert found[0].tolist() == pytest.approx(wanted, abs=1e-5)
    dispersion.level.fill_(1e3)
    assert dispersion(logits, mean, torch.zeros(1, 1)).log().max().item() == pytest.approx(4)


def test_profiles_do_not_learn_from_how_reads_vary() -> None:
    generator = CountGenerator(D)
    kept, condition = torch.poisson(torch.ones(5, D)), torch.randn(5, 80)
    generator(kept, 2 * kept.sum(1), condition)[1].sum().backward()
    assert all(part.grad is None for part in generator.profile.parameters())
    assert (generator.dispersion.level.grad > 0).all()


def test_each_cell_of_counts_lacks_three_tenths_of_the_hidden_units() -> None:
    rng = torch.Generator().manual_seed(0)
    units = CountGenerator(D).draw_units(2_000, rng=rng)
    assert units.shape == (2_000, 500 + 80 + 500)
    assert units.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    torch.testing.assert_close((units == 0).float().mean(), torch.tensor(0.3), atol=1e-3, rtol=0)
    assert (units[0] != units[1]).any()


def test_a_cell_does_not_see_the_units_that_it_lacks() -> None:
    generator = Generator(D, dropout=0.5)
    torch.nn.init.normal_(generator.out.weight)
    units = generator.draw_units(6, rng=torch.Generator().manual_seed(0))
    inputs = torch.randn(6, D), torch.rand(6), torch.randn(6, 80)
    lacks = units[:, -500] == 0
    assert lacks.any()
    assert not lacks.all()
    with torch.no_grad():
        before = generator(*inputs, units=units)
        generator.out.weight[:, 0] += 7
        moved = (generator(*inputs, units=units) - before).abs().amax(1)
    assert (moved[lacks] == 0).all()
    assert (moved[~lacks] > 1e-4).all()


def test_generator_takes_conditions_of_another_width() -> None:
    generator = Generator(D, n_condition=7)
    assert generator(torch.randn(3, D), torch.rand(3), torch.randn(3, 7)).shape == (3, D)


def test_noise_level_embedding_is_sines_and_cosines() -> None:
    embed = NoiseLevelEmbedding()
    assert embed.frequencies.shape == (32,)
    level = torch.tensor([0.0, 0.25])
    angles = level[:, None] * embed.frequencies
    torch.testing.assert_close(embed(level)[:, :32], angles.sin())
    torch.testing.assert_close(embed(level)[:, 32:], angles.cos())


def test_noise_level_embedding_tells_levels_apart_and_does_not_learn() -> None:
    embed = NoiseLevelEmbedding()
    features = embed(torch.linspace(0, 1, 101))
    assert features.shape == (101, 64)
    assert (torch.pdist(features) > 1e-2).all()
    assert not list(embed.parameters())
    assert "frequencies" in embed.state_dict()


def test_values_are_the_lowest_with_the_probability_of_bayes_rule() -> None:
    """Of a share at one place and others of a standard normal the best guess is known."""
    generator = ValueGenerator(D)
    nn.init.zeros_(generator.network.out.bias)
    for sigma in (0.1, 1.0, 3.0, 30.0):
        for share in (0.2, 0.9):
            generator.lowest_log_odds.fill_(math.log(share / (1 - share)))
            x = torch.linspace(-8, 4, D).expand(3, D)
            root = math.sqrt(1 + sigma**2)
            level = torch.full((3,), math.log(sigma) / 4)
            with torch.no_grad():
                left = generator(x / root, level, torch.randn(3, 80))
            denoised = x / root**2 + left * sigma / root
            at_place = share * Normal(LOWEST_SCORE, sigma).log_prob(x).exp()
            among = (1 - share) * Normal(0.0, root).log_prob(x).exp()
            wanted = (at_place * LOWEST_SCORE + among * x / root**2) / (at_place + among)
            torch.testing.assert_close(denoised, wanted, rtol=1e-3, atol=1e-3)


def test_without_odds_a_value_is_never_the_lowest() -> None:
    generator = ValueGenerator(D)
    x = LOWEST_SCORE + 1e-3 * torch.randn(3, D)
    with torch.no_grad():
        generator.network.out.bias[:D].normal_()
        left = generator(x, torch.full((3,), -0.9), torch.randn(3, 80))
    torch.testing.assert_close(left, generator.network.out.bias[:D].expand(3, D))
