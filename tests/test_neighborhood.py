"""The mean of a cell's neighbours, by its definition."""

import numpy as np
import pytest
import torch

from scdiffaug.neighborhood import NeighborMean, Within, compared_blocks, largest


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _neighbor_mean(references: torch.Tensor, **options: int) -> NeighborMean:
    mean = NeighborMean(*references.shape, **options)
    mean.references.copy_(references)
    return mean


def test_neighbor_mean_leaves_the_cell_itself_out() -> None:
    line = torch.tensor([[0.0], [2.0], [4.0], [7.0]])
    mean = _neighbor_mean(line, blocks=(), n_neighbors=2)
    # Both neighbours of the cell at 2 are as far; 4 weighs e^-1 and 0 e^-1.
    torch.testing.assert_close(mean(line)[1], torch.tensor([2.0]))
    # Of the cell at 7: 4 weighs e^-9/25, 2 weighs e^-1.
    near, far = np.exp(-9 / 25), np.exp(-1)
    expected = (4 * near + 2 * far) / (near + far)
    torch.testing.assert_close(mean(line)[3], torch.tensor([expected]).float())
    # No reference itself: 2 and 0 are its nearest, all of them.
    assert 0.0 < mean(torch.tensor([[0.9]])).item() < 1.0


def test_cells_far_beside_a_few_near_ones_hardly_count() -> None:
    """A cell of a rare type, of which there are three others, among fifteen neighbours."""
    rare, others = torch.randn(4, 5), torch.randn(30, 5) + 40
    mean = _neighbor_mean(torch.cat([rare, others]), blocks=(), n_neighbors=15)
    assert (mean(rare).abs() < 4).all()


def test_neighbor_mean_compares_directions_of_the_leading_components() -> None:
    """References that point elsewhere are none, however near; the 31st component says nothing."""
    references = torch.zeros(3, 40)
    references[0, 0], references[1, 1], references[2, 0] = 9.0, 0.1, 8.0
    references[2, 35] = 50.0
    mean = _neighbor_mean(references, blocks=compared_blocks(2000, 40), n_neighbors=2)
    cell = torch.zeros(1, 40)
    cell[0, 0] = 0.1
    found = mean(cell)[0]
    assert found[1] == 0
    torch.testing.assert_close(found[35], torch.tensor(25.0))


def test_neighbor_mean_is_the_brute_force_one_in_blocks() -> None:
    references, cells = torch.randn(40, 5), torch.randn(2500, 5)
    mean = _neighbor_mean(references, blocks=(), n_neighbors=7)
    distance, nearest = torch.cdist(cells, references).topk(7, largest=False)
    weights = torch.exp(-((distance / distance[:, 2:3]) ** 2))
    expected = (weights[:, :, None] * references[nearest]).sum(1) / weights.sum(1, keepdim=True)
    torch.testing.assert_close(mean(cells), expected, rtol=1e-4, atol=1e-4)


def test_neighbours_are_of_the_group_of_the_cell() -> None:
    """Five references do not fill a neighbourhood of six: their cells have others too."""
    references, cells = torch.randn(300, 5), torch.randn(200, 5)
    mean = _neighbor_mean(references, blocks=(), n_neighbors=6)
    groups = torch.arange(300) % 3
    groups[:5] = 3
    within = Within(groups, torch.arange(200) % 4)
    found = mean(cells, within=within)
    for group in range(3):
        alone = _neighbor_mean(references[groups == group], blocks=(), n_neighbors=6)
        torch.testing.assert_close(found[group::4], alone(cells[group::4]))
    torch.testing.assert_close(found[3::4], mean(cells[3::4]))
    itself = mean(references, within=Within(groups, groups))
    alone = _neighbor_mean(references[groups == 1], blocks=(), n_neighbors=6)
    torch.testing.assert_close(itself[groups == 1], alone(references[groups == 1]))


def test_references_are_found_again() -> None:
    references = torch.randn(300, 5)
    mean = _neighbor_mean(references, blocks=(), n_neighbors=6)
    order = torch.randperm(300)[:200]
    found = mean.find(torch.cat([references[order] + 1e-5, torch.randn(150, 5)]))
    assert found[:200].tolist() == order.tolist()
    assert (found[200:] == -1).all()


def test_random_weights_move_a_mean_about_the_plain_one() -> None:
    rng = torch.Generator().manual_seed(0)
    references, cell = torch.randn(40, 5, generator=rng), torch.randn(1, 5, generator=rng)
    mean = _neighbor_mean(references, blocks=(), n_neighbors=7)
    drawn = mean(cell.expand(4000, 5), rng=rng)
    assert drawn.std(0).min() > 0.1
    torch.testing.assert_close(drawn.mean(0), mean(cell)[0], rtol=0, atol=0.1)
    nearest = references[torch.cdist(cell, references)[0].topk(7, largest=False).indices]
    assert (drawn <= nearest.max(0).values).all()
    assert (drawn >= nearest.min(0).values).all()


@pytest.mark.parametrize("n_values", [16, 1_000, 1_024, 5_017])
def test_the_largest_of_a_row_are_found_whether_searched_in_groups_or_not(n_values: int) -> None:
    values = torch.randn(30, n_values, generator=torch.Generator().manual_seed(0))
    values[:, -1] += 5
    expected = values.topk(16, dim=1).indices
    torch.testing.assert_close(largest(values, 16), expected, rtol=0, atol=0)
