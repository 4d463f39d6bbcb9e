"""The three usage lines on some cells of every real dataset, warnings being errors."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import scdiffaug
from scdiffaug import scDiffAug

SPACES = {
    "cite_cbmc_8617_hvg2000": "counts",
    "cytof_huimmprofiling_20k": "log",
    "cytof_huimmprofiling_pbmc": "raw",
    "gastrulation_seqfish_lohoff": "counts",
    "hcl_fetal_thymus2_predlabels": "counts",
    "human_kidney_young_5685_hvg2000": "counts",
    "ifnb_pbmc_2800": "counts",
    "mca_bladder_2746_hvg2000": "counts",
    "mca_stomach_intestine_1871": "counts",
    "paul15_2730": "counts",
    "pbmc3k_named": "counts",
    "scatac_granja_hemato_14125": "peaks",
    "worm_neuron_4186": "counts",
}


@pytest.mark.parametrize("name", SPACES)
def test_usage_lines(data_dir: Path, name: str) -> None:
    path = data_dir / f"{name}.h5ad"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    adata = ad.read_h5ad(path)[::40].copy()
    model = scDiffAug(adata)
    model.train(max_epochs=1, enable_progress_bar=False)
    new = scdiffaug.tl.augment(adata, model, steps=2)
    assert model.feature_space == SPACES[name]
    assert new.shape == adata.shape
    values = new.X.data if sparse.issparse(new.X) else new.X
    assert np.isfinite(values).all()
    if SPACES[name] in ("counts", "peaks"):
        np.testing.assert_array_equal(new.X.sum(1), adata.X.sum(1))
