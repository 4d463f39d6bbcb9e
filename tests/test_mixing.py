"""What the generator learns from where cells are few: mixtures with cells near them."""

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from scdiffaug import matrices, scDiffAug
from scdiffaug.matrices import mixed_reads, to_dense
from scdiffaug.preparing import training_cells


def reads(n: int = 400, d: int = 30, *, rate: float) -> sparse.csr_matrix:
    counts = np.random.default_rng(int(rate)).poisson(rate, (n, d))
    return sparse.csr_matrix(counts.astype(np.float32))


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_matrix.toarray])
def test_mixed_cells_have_whole_reads_of_two(kind: type) -> None:
    one, other = reads(rate=2), reads(rate=5)
    made = mixed_reads(kind(one), kind(other), rng=np.random.default_rng(0))
    assert made.has_canonical_format
    assert made.dtype == np.float32
    assert (made.data == np.rint(made.data)).all()
    assert (made > one + other).nnz == 0


def test_mixed_cells_have_the_depth_of_their_own_and_a_quarter_of_it_from_others() -> None:
    x = sparse.csr_matrix(np.full((400, 8), 50, dtype=np.float32))
    none = np.zeros_like(x.toarray())
    mine, other = sparse.csr_matrix(np.hstack([x.toarray(), none])), np.hstack([none, 9 + none])
    made = mixed_reads(mine, sparse.csr_matrix(other), rng=np.random.default_rng(0)).toarray()
    # Nine reads of each gene are all that another can give.
    assert made[:, 8:].max() == 9
    kept = made[:, :8].sum(1) / 400
    assert 0.4 < kept.min() < 0.6
    assert abs(kept.mean() - 0.75) < 0.04
    rich = mixed_reads(mine, sparse.csr_matrix(100 * other), rng=np.random.default_rng(0))
    assert np.abs(np.asarray(rich.sum(1)) / 400 - 1).max() < 0.25


@pytest.mark.parametrize(("space", "changed"), [("counts", True), ("raw", False)])
def test_the_generator_learns_from_mixtures_of_few_cells_of_counts(
    pbmc: AnnData, space: str, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learnt() -> set[bytes]:
        model = scDiffAug(pbmc, feature_space=space)
        batches, _ = training_cells(model._contract, model.adata, n_components=10, batch_size=350)
        rows = [batch["x"].to_dense().numpy() for batch in batches]
        return {row.tobytes() for row in np.concatenate(rows)}

    contract = scDiffAug(pbmc, feature_space=space)._contract
    known = {row.tobytes() for row in to_dense(contract.values(contract.read(pbmc)[1]))}
    # Half of the cells of each of two batches.
    assert len(learnt() - known) == (350 if changed else 0)
    monkeypatch.setattr(matrices, "SUBSAMPLED", 699)
    assert not learnt() - known
