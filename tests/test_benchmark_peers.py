"""Peers of the benchmark: makers of cells by their definitions, DMT-EV without its GPU."""

import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from scipy import sparse

from scdiffaug.benchmark import _worker
from scdiffaug.benchmark._augmentation import peers
from scdiffaug.features import FeatureSpace


def test_log_normalised_cells_have_ten_thousand_reads_and_empty_ones_stay_empty():
    counts = np.array([[1, 3], [0, 0]], dtype=np.float32)
    expected = np.log1p([[2500, 7500], [0, 0]])
    space = FeatureSpace("counts")
    np.testing.assert_allclose(peers.as_compared(counts, space), expected, rtol=1e-6)
    seen = peers.as_compared(sparse.csr_matrix(counts), space)
    np.testing.assert_allclose(seen.toarray(), expected, rtol=1e-6)


def test_intensities_are_compared_by_arcsinh_and_logs_as_they_are():
    intensities = np.array([[0.0, 5.0, 9000.0]], dtype=np.float32)
    space = FeatureSpace.decide(intensities, "raw")
    np.testing.assert_allclose(
        peers.as_compared(intensities, space), np.arcsinh(intensities / 5), rtol=1e-6
    )
    logs = np.array([[0.0, 0.5, 3.0]], dtype=np.float32)
    assert peers.as_compared(logs, FeatureSpace.decide(logs, "log")) is logs


def test_gaussian_noise_is_a_share_of_each_features_spread(rng):
    spread = np.array([1.0, 5.0])
    noise = peers.gaussian(np.ones((20_000, 2)), spread, rng=rng) - 1
    np.testing.assert_allclose(noise.std(0), 0.2 * spread, rtol=0.05)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_mask_drops_a_fifth_of_the_values_and_leaves_the_others(rng, form):
    cells = form(rng.integers(1, 9, size=(300, 50)).astype(np.float32))
    before = cells.copy()
    made = peers.dense(peers.mask(cells, rng=rng))
    assert (made == 0).mean() == pytest.approx(0.2, abs=0.02)
    np.testing.assert_array_equal(made[made > 0], peers.dense(before)[made > 0])
    np.testing.assert_array_equal(peers.dense(cells), peers.dense(before))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_mixup_lies_on_the_way_to_the_partner(rng, form):
    sources, partners = rng.random((2, 30, 4)).astype(np.float32)
    made = peers.dense(peers.mixup(form(sources), form(partners), rng=rng))
    shares = (made - partners) / (sources - partners)
    np.testing.assert_allclose(shares, shares[:, :1].repeat(4, 1), atol=1e-3)
    assert 0.3 < shares[:, 0].mean() < 0.7


def test_smote_lies_between_cells_of_the_wanted_type_in_the_wanted_order(rng):
    known = np.concatenate([rng.normal(0, 1, (20, 2)), rng.normal(50, 1, (9, 2))])
    labels = np.repeat(["a", "b"], [20, 9])
    wanted = np.array(["b", "a", "b", "a", "a"] * 10)
    made = peers.smote(known, labels, wanted=wanted, seed=0)
    assert made.shape == (50, 2)
    np.testing.assert_array_equal(made[:, 0] > 25, wanted == "b")
    assert not (made[:, None] == known[None]).all(2).any()


def test_smote_copies_the_only_cell_of_a_type():
    known = sparse.csr_matrix(np.array([[1.0, 2], [5, 5], [6, 6]]))
    wanted = np.array(["lone", "b", "lone"])
    made = peers.smote(known, np.array(["lone", "b", "b"]), wanted=wanted, seed=0)
    np.testing.assert_array_equal(made[[0, 2]].toarray(), [[1, 2], [1, 2]])
    assert 5 <= made[1].toarray()[0, 0] <= 6


def test_smoothed_poisson_has_the_neighbours_mean_profile_and_the_depth(rng):
    known = np.array([[1, 1, 0], [0, 30, 10], [9, 9, 9]])
    neighbors = np.tile([0, 1], (4_000, 1))
    depth = np.full(4_000, 200.0)
    made = peers.smoothed_poisson(known, neighbors, depth=depth, rng=rng).toarray()
    rate = 200 * np.mean([[0.5, 0.5, 0], [0, 0.75, 0.25]], axis=0)
    np.testing.assert_allclose(made.mean(0), rate, rtol=0.03)
    np.testing.assert_allclose(made.var(0), rate, rtol=0.1)
    np.testing.assert_array_equal(made, np.rint(made))


def test_dmtev_is_given_the_device_there_is_and_no_torchvision():
    class DMTLearn:
        def __init__(self, *, n_neighbors, nu, random_state):
            from torchvision import models
            from torchvision.transforms import functional

            assert models is not functional
            self.trainer = library.Trainer(accelerator="gpu", max_epochs=200)
            self.settings = (n_neighbors, nu, random_state)

        def fit_transform(self, cells):
            assert self.trainer == {"accelerator": "auto", "max_epochs": 200}
            assert self.settings == (30, 0.5, 7)
            return cells[:, :2].tolist()

    library = SimpleNamespace(Trainer=dict, DMTLearn=DMTLearn)
    inputs = SimpleNamespace(features=np.arange(12).reshape(3, 4))
    with mock.patch.dict(sys.modules, dmt_learn=SimpleNamespace(dmt_learn=library)):
        found = _worker.dmtev(inputs, 7)["2d"]
    np.testing.assert_array_equal(found, [[0, 1], [4, 5], [8, 9]])
