"""Objectives other than the paper's: what moves what, momentum, queue, and that they all learn."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from anndata import AnnData
from torch import Tensor, nn

from scdiffaug import scDiffAug
from scdiffaug.nn import SemanticEncoder
from scdiffaug.objectives import (
    BYOL,
    OBJECTIVES,
    MoCo,
    ObjectiveName,
    SemanticObjective,
    SimSiam,
)

NAMES = get_args(ObjectiveName)
SEMANTIC = [name for name, kind in OBJECTIVES.items() if issubclass(kind, SemanticObjective)]
MOMENTUM = 0.99


@pytest.fixture
def encoder() -> SemanticEncoder:
    torch.manual_seed(0)
    return SemanticEncoder(12)


def terms_of(kind: type, encoder: SemanticEncoder, n: int = 16) -> tuple[nn.Module, dict]:
    objective = kind(encoder)
    x = torch.randn(2 * n, 12)
    y, z = encoder(x, stop_gradient="semantic" in objective.terms)
    return objective, objective(x, y, z)


def is_moved(module: nn.Module) -> bool:
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return any(gradient.abs().sum() > 0 for gradient in gradients)


def parameters(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_every_name_has_its_class() -> None:
    assert tuple(OBJECTIVES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_terms_are_finite_and_named(encoder: SemanticEncoder, name: ObjectiveName) -> None:
    objective, terms = terms_of(OBJECTIVES[name], encoder)
    assert tuple(terms) == objective.terms
    assert all(term.ndim == 0 and term.isfinite() for term in terms.values())


@pytest.mark.parametrize("name", SEMANTIC)
def test_the_plane_follows_y_and_does_not_move_it(
    encoder: SemanticEncoder, name: ObjectiveName
) -> None:
    objective, terms = terms_of(OBJECTIVES[name], encoder)
    terms["contrastive"].backward()
    assert is_moved(encoder.projection)
    assert not is_moved(encoder.semantic)
    assert not is_moved(objective)


@pytest.mark.parametrize("name", SEMANTIC)
def test_the_semantic_term_moves_y_and_not_the_plane(
    encoder: SemanticEncoder, name: ObjectiveName
) -> None:
    objective, terms = terms_of(OBJECTIVES[name], encoder)
    terms["semantic"].backward()
    assert is_moved(encoder.semantic)
    assert is_moved(objective.head)
    assert not is_moved(encoder.projection)


@pytest.mark.parametrize("name", ["soft_contrastive", "infonce"])
def test_other_objectives_move_y_through_the_plane(
    encoder: SemanticEncoder, name: ObjectiveName
) -> None:
    _, terms = terms_of(OBJECTIVES[name], encoder)
    terms["contrastive"].backward()
    assert is_moved(encoder.semantic)
    assert is_moved(encoder.projection)


@pytest.mark.parametrize("kind", [BYOL, MoCo])
def test_targets_follow_by_momentum_alone(encoder: SemanticEncoder, kind: type) -> None:
    objective, terms = terms_of(kind, encoder)
    terms["semantic"].backward()
    assert not is_moved(objective.target)
    trained = nn.Sequential(encoder.semantic, objective.head)
    before = parameters(objective.target)
    torch.testing.assert_close(before, parameters(trained))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 1
    objective.after_step(encoder)
    torch.testing.assert_close(parameters(objective.target), before + (1 - MOMENTUM))


def test_simsiam_learns_through_its_predictions_alone(encoder: SemanticEncoder) -> None:
    """With a predictor that says nothing of its input, stop-gradient leaves y where it is."""
    objective = SimSiam(encoder)
    with torch.no_grad():
        objective.predictor[-1].weight.zero_()
    x = torch.randn(8, 12)
    y, z = encoder(x)
    objective(x, y, z)["semantic"].backward()
    assert not is_moved(encoder.semantic)


def test_byol_targets_are_those_of_the_other_view(encoder: SemanticEncoder) -> None:
    """With the identity as predictor a pair of equal views costs nothing, unlike ones do."""
    objective = BYOL(encoder)
    objective.predictor = nn.Identity()
    cells = torch.randn(8, 12)
    for views, costs_nothing in ((cells, True), (cells.roll(1, 0), False)):
        x = torch.cat([cells, views])
        y, z = encoder(x)
        cost = objective(x, y, z)["semantic"].item()
        assert (cost == pytest.approx(0, abs=1e-5)) is costs_nothing


def test_queue_holds_the_latest_keys_first(encoder: SemanticEncoder) -> None:
    objective = MoCo(encoder)
    size = len(objective.queue)
    torch.testing.assert_close(objective.queue.norm(dim=1), torch.ones(size))
    for n in (16, size + 8):
        before = objective.queue.clone()
        x = torch.randn(2 * n, 12)
        y, z = encoder(x)
        objective(x, y, z)
        keys = nn.functional.normalize(objective.target(x[n:]))
        expected = torch.cat([keys, before])[:size]
        torch.testing.assert_close(objective.queue, expected, rtol=1e-4, atol=1e-5)
        assert not objective.queue.requires_grad


def drawn_from(centres: Tensor) -> Tensor:
    """Noise of variance 1 around each centre."""
    return centres + torch.randn_like(centres)


@torch.no_grad()
def share_between_groups(encoder: SemanticEncoder, group_of: Tensor, centres: Tensor) -> float:
    """Share of the variance of y that is between groups; 0 / 0, not a number, on collapse."""
    y = encoder.eval().semantic(drawn_from(centres[group_of]))
    encoder.train()
    means = torch.stack([y[group_of == group].mean(0) for group in range(len(centres))])
    return (means[group_of].var(0).sum() / y.var(0).sum()).item()


@pytest.mark.parametrize("name", NAMES)
def test_y_learns_what_cells_share_with_their_views(
    encoder: SemanticEncoder, name: ObjectiveName
) -> None:
    """A collapsed y would hold nothing of the groups, an untrained one holds mostly noise."""
    objective = OBJECTIVES[name](encoder)
    centres, group_of = 1.5 * torch.eye(4, 12), torch.arange(4).repeat(32)
    before = share_between_groups(encoder, group_of, centres)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *objective.parameters()], lr=1e-3)
    for _ in range(60):
        x = torch.cat([drawn_from(centres[group_of]) for _ in range(2)])
        y, z = encoder(x, stop_gradient="semantic" in objective.terms)
        loss = torch.stack(list(objective(x, y, z).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step(encoder)
    assert share_between_groups(encoder, group_of, centres) > 1.5 * before


@pytest.mark.parametrize("name", SEMANTIC)
def test_same_seed_same_bits_and_saved_ones_too(
    pbmc: AnnData, name: ObjectiveName, tmp_path: Path
) -> None:
    def trained() -> scDiffAug:
        model = scDiffAug(pbmc, objective=name, seed=3)
        model.train(max_epochs=2, startup=0.0, alpha=1, enable_progress_bar=False)
        return model

    first, second = trained(), trained()
    assert first.history["generated_share"]["generated_share"].iloc[0] == 1
    # Of four steps the encoder learns in two.
    assert np.isfinite(first.history["semantic"]["semantic"]).tolist() == [True, False]
    first.save(tmp_path / "model")
    loaded = scDiffAug.load(tmp_path / "model", pbmc)
    for representation in ("semantic", "projection"):
        embeddings = [
            model.get_latent_representation(representation=representation)
            for model in (first, second, loaded)
        ]
        np.testing.assert_array_equal(embeddings[0], embeddings[1])
        np.testing.assert_array_equal(embeddings[0], embeddings[2])
    states = [model.module.objective.state_dict() for model in (first, loaded)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("name", SEMANTIC)
def test_the_plane_of_a_model_does_not_move_y(pbmc: AnnData, name: ObjectiveName) -> None:
    module = scDiffAug(pbmc, objective=name, diffusion="none").module
    x = torch.randn(16, 50)
    outputs = module.inference(torch.cat([x, x + 1]))
    terms = ("contrastive",)
    batch = {"inputs": x, "views": x + 1, "repulsion": torch.ones(16, 16)}
    module.loss(batch, outputs, {}, terms=terms).loss.backward()
    assert is_moved(module.encoder.projection)
    assert not is_moved(module.encoder.semantic)


def test_unknown_objective_is_refused_with_those_there_are(pbmc: AnnData) -> None:
    with pytest.raises(ValueError, match=r"objective='dino' is unknown.*'byol'.*'vicreg'"):
        scDiffAug(pbmc, objective="dino")
