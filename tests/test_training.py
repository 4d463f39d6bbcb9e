"""Generated positives really reach the loss; averaging, budget, interruption and guards."""

import logging
import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData

import scdiffaug
from scdiffaug import scDiffAug
from scdiffaug._signals import WITHOUT_CHATTER
from scdiffaug.budget import Budget
from scdiffaug.checkpoint import Checkpoints
from scdiffaug.module import DiffAugModule
from scdiffaug.neighborhood import neighbor_mean
from scdiffaug.pairs import batch_bounds
from scdiffaug.preparing import training_cells
from scdiffaug.training import DiffAugPlan, best_precision


def _batch(model: scDiffAug, size: int = 400) -> dict[str, torch.Tensor]:
    n_components = model._module_config["n_components"]
    batches, axes = training_cells(
        model._contract, model.adata, n_components=n_components, batch_size=size
    )
    model.module.inputs.fit_axes(axes)
    return next(iter(batches))


def _views(model: scDiffAug, batch: dict[str, torch.Tensor], *, generated: bool) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return model.module.make_views(batch, generated=generated, rng=rng)


def _partners(model: scDiffAug, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the generated views of the same seed are mixed with."""
    return model.module._generated_inputs(batch, torch.Generator().manual_seed(0))


def _beside(views: torch.Tensor, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How far each view is from all mixtures of a cell and another."""
    way = other - x
    length = way.square().sum(1, keepdim=True).clamp_min(1e-12)
    share = ((views - x) * way).sum(1, keepdim=True) / length
    return (x + share.clamp(0, 1) * way - views).abs().amax(1)


def test_share_of_generated_positives_is_alpha(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc)
    model.train(max_epochs=40, batch_size=100, alpha=0.3, startup=0.4, enable_progress_bar=False)
    share = model.history["generated_share"]["generated_share"]
    # Of seven batches in an epoch; the encoder learns in five eighths of them.
    assert (share[:10] == 0).all()
    assert (share[25:] == 0).all()
    # 105 batches: three standard errors are 0.14.
    assert abs(share[10:25].mean() - 0.3) < 0.14


def budget_of(n_cells: int, **options: Any) -> Budget:
    usual = {"n_processes": 1, "batch_size": 512, "max_epochs": None, "n_passes": 75}
    return Budget.chosen(n_cells, **{**usual, **options})


def test_the_generator_sees_no_cell_more_often_than_it_may() -> None:
    assert budget_of(100_000).generator_batch == 512
    assert budget_of(100_000, batch_size=300).generator_batch == 300
    assert budget_of(2746).generator_batch == 259
    assert budget_of(1373).generator_batch == 129
    assert budget_of(1373, max_epochs=2667).generator_batch == 13
    assert budget_of(1373, n_passes=0).generator_batch == 0
    assert budget_of(1373, n_passes=150).generator_batch == 258
    halves = budget_of(2746, n_processes=2)
    assert halves.generator_batch == budget_of(1373, max_epochs=halves.max_epochs).generator_batch


def test_generated_positives_reach_the_loss(pbmc: AnnData) -> None:
    """A stale, empty or all-zero source of generated cells would leave these as they were."""
    model = scDiffAug(pbmc)
    batch = _batch(model)
    mixed, views = (_views(model, batch, generated=which) for which in (False, True))
    assert (views != mixed).any(1).all()
    made = _partners(model, batch)
    empty = model.module.inputs.axes(torch.zeros(1, 765))
    assert ((made[:, :50] - empty).abs().amax(1) > 0.1).all()
    assert (_beside(views, batch["inputs"], made) < 1e-5).all()
    assert (views != batch["inputs"]).any(1).all()


def test_positives_follow_the_averaged_generator(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc)
    model.module.fit_scale(pbmc.X)
    batch = _batch(model)
    before = _partners(model, batch)
    with torch.no_grad():
        model.module.generator.profile.out.bias[:] = 0
        model.module.generator.profile.out.bias[7] = 50
    assert torch.equal(_partners(model, batch), before)
    model.module.update_ema(0.0)
    after = _partners(model, batch)
    all_reads_of_one_gene = torch.zeros(1, 765)
    all_reads_of_one_gene[:, 7] = np.log1p(1e4)
    expected = model.module.inputs.axes(all_reads_of_one_gene).expand(len(after), -1)
    torch.testing.assert_close(after[:, :50], expected, rtol=1e-3, atol=1e-3)


def test_a_cell_is_made_by_one_network_that_is_its_own(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc)
    model.train(max_epochs=1, enable_progress_bar=False)
    seen = []
    model.module.ema_generator.register_forward_pre_hook(
        lambda _network, _inputs, options: seen.append(options["units"]), with_kwargs=True
    )
    model.augment(indices=range(20), steps=3)
    first, *others = seen
    assert len(others) == 2
    assert all(torch.equal(first, other) for other in others)
    assert len(first.unique(dim=0)) == 20


def test_positives_follow_the_condition(pbmc: AnnData) -> None:
    """Cells made from y differ from cells made from another cell's y."""
    model = scDiffAug(pbmc)
    model.train(max_epochs=20, enable_progress_bar=False)
    monocytes, bcells = (
        np.flatnonzero(pbmc.obs["cell_type"] == name) for name in ("CD14+ Monocyte", "CD19+ B")
    )
    made = model.augment(indices=[*monocytes[:60], *bcells[:60]], steps=8)
    lyz, cd79a = (np.asarray(made[:, g].X.todense()).ravel() for g in ("LYZ", "CD79A"))
    assert lyz[:60].mean() > 2 * lyz[60:].mean()
    assert cd79a[60:].mean() > 2 * cd79a[:60].mean()


def test_mixup_stays_between_cell_and_neighbor(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc)
    batch = _batch(model)
    views = _views(model, batch, generated=False)
    assert (_beside(views, batch["inputs"], batch["neighbor_inputs"]) < 1e-5).all()


def test_diffusion_loss_does_not_move_the_encoder(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc)
    batch = _batch(model)
    batch["views"] = _views(model, batch, generated=False)
    rng = torch.Generator().manual_seed(0)
    for terms, moved in (({"diffusion": 1.0}, False), ({"contrastive": 1.0}, True)):
        model.module.zero_grad()
        output = model.module(
            batch,
            generative_kwargs={"rng": rng},
            loss_kwargs={"terms": terms},
        )[2]
        output.loss.backward()
        gradients = [p.grad for p in model.module.encoder.parameters() if p.grad is not None]
        assert any((g != 0).any() for g in gradients) is moved


def test_the_generator_is_conditioned_on_the_neighbors_of_a_cell_not_on_itself(
    pbmc: AnnData,
) -> None:
    model = scDiffAug(pbmc)
    module, batch = model.module, _batch(model)
    given = module._get_generative_input(batch, {})
    module.eval()
    assert given["x"] is batch["x"]
    assert batch["x"].shape == (400, 765)
    around = batch["neighborhood"]
    torch.testing.assert_close(given["y"], module.encoder.semantic(around))
    assert not given["y"].requires_grad
    batches, _ = training_cells(model._contract, pbmc, n_components=50, batch_size=700)
    neighbors, drawn = batches.walks.neighbors, next(iter(batches))
    rows = [
        int(np.flatnonzero((batches.inputs == cell.numpy()).all(1))[0]) for cell in drawn["inputs"]
    ]
    assert (neighbors != np.arange(700)[:, None]).all()
    near = torch.from_numpy(batches.inputs[neighbors[rows]])
    assert (drawn["neighborhood"] >= near.amin(1) - 1e-5).all()
    assert (drawn["neighborhood"] <= near.amax(1) + 1e-5).all()
    values = pbmc.X[rows].toarray()
    # The first half has reads of the cells near them.
    np.testing.assert_array_equal(drawn["x"].to_dense()[350:], values[350:])
    np.testing.assert_array_equal(drawn["depth"], values.sum(1))


def test_new_cells_are_conditioned_as_those_of_training(pbmc: AnnData) -> None:
    """Neighbours found among the references are those of the graph, the cell itself left out."""
    model = scDiffAug(pbmc)
    batches, axes = training_cells(model._contract, pbmc, n_components=50, batch_size=700)
    model.module.inputs.fit_axes(axes)
    model.module.inputs.fit_references(batches.inputs)
    inputs = torch.from_numpy(batches.inputs)
    known = neighbor_mean(inputs, inputs[batches.walks.neighbors], axes.blocks)
    torch.testing.assert_close(
        model.module.inputs.neighborhood(inputs), known, rtol=1e-4, atol=1e-4
    )


def test_a_cell_is_embedded_two_thirds_of_the_way_to_its_neighborhood(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc, diffusion="none")
    model.train(max_epochs=2, enable_progress_bar=False)
    module = model.module
    cells = module.inputs.neighborhood.references
    with torch.inference_mode():
        seen = cells / 3 + 2 / 3 * module.inputs.neighborhood(cells)
        y, z = module.encoder(seen)
    for found, by_hand in zip(model._embed(), (y, z), strict=True):
        np.testing.assert_allclose(found, by_hand, rtol=1e-3, atol=1e-4)


def test_the_mean_of_neighbors_is_another_one_each_time(pbmc: AnnData) -> None:
    """And on the whole the one that new cells are made by."""
    batches, axes = training_cells(
        scDiffAug(pbmc)._contract, pbmc, n_components=50, batch_size=700
    )
    cells, rng = np.arange(700), np.random.default_rng(0)
    drawn = np.stack([batches._neighborhoods(cells, rng) for _ in range(200)])
    near = torch.from_numpy(batches.inputs[batches.walks.neighbors])
    mean = neighbor_mean(torch.from_numpy(batches.inputs), near, axes.blocks).numpy()
    assert not np.isclose(drawn[0], drawn[1]).all(1).any()
    spread = np.sqrt(np.square(drawn - mean).sum(2).mean())
    assert np.sqrt(np.square(drawn.mean(0) - mean).sum(1).mean()) < 0.2 * spread


def test_history_holds_every_term(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc)
    model.train(max_epochs=4, enable_progress_bar=False)
    assert set(model.history) == {
        "loss",
        "contrastive",
        "diffusion",
        "layout",
        "generated_share",
        "gradient_norm",
    }
    values = {name: frame[name].to_numpy() for name, frame in model.history.items()}
    assert all(len(series) == 4 for series in values.values())
    # Of eight steps the encoder learns in five.
    assert np.isfinite(values.pop("contrastive")).tolist() == [True, True, True, False]
    # Cells are drawn to the layout in the first fifth of these, the first of the two of its epoch.
    layout = np.nan_to_num(values.pop("layout")) / 2
    assert np.flatnonzero(layout).tolist() == [0]
    assert all(np.isfinite(series).all() for series in values.values())
    known = model.history["contrastive"]["contrastive"].fillna(0) + values["diffusion"] + layout
    # The third epoch trains both terms in one step of its two.
    np.testing.assert_allclose(values["loss"][[0, 1, 3]], known[[0, 1, 3]], 1e-4)
    assert values["diffusion"][-1] < values["diffusion"][0]


def test_the_encoder_has_learnt_when_the_generator_learns_on(
    pbmc: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[float]] = {"encoder": [], "generator": []}

    def watched(module: DiffAugModule, _: float) -> None:
        for name, weights in seen.items():
            weights.append(next(getattr(module, name).parameters()).sum().item())

    monkeypatch.setattr(DiffAugModule, "update_ema", watched)
    scDiffAug(pbmc).train(max_epochs=8, enable_progress_bar=False)
    assert len(set(seen["encoder"][:10])) == 10
    assert len(set(seen["encoder"][9:])) == 1
    assert len(set(seen["generator"])) == 16


def test_terms_take_turns_where_epochs_alternate(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc)
    model.train(
        max_epochs=4, schedule="alternating", alpha=1, startup=0, enable_progress_bar=False
    )
    trained = model.history["contrastive"]["contrastive"].notna()
    assert trained.tolist() == [True, False, True, False]
    assert (model.history["generated_share"]["generated_share"] == trained).all()
    assert (model.history["diffusion"]["diffusion"].isna() == trained).all()


def test_both_learn_as_long_where_epochs_alternate() -> None:
    joint, alternating = budget_of(2746), budget_of(2746, alternates=True)
    # 800 steps of the generator and 500 of the encoder; until this is done, they take turns.
    assert joint.n_steps == pytest.approx(800, rel=0.01)
    assert alternating.n_steps == pytest.approx(1_300, rel=0.01)
    assert alternating.encoder_share * alternating.n_steps == pytest.approx(1_000, rel=0.01)
    assert alternating.generator_batch == pytest.approx(joint.generator_batch, abs=2)
    # Both have an epoch, however many cells there are.
    assert budget_of(50_000, batch_size=32, alternates=True).max_epochs == 2


def test_more_processes_than_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="4 processes cannot share 3 cells"):
        budget_of(3, n_processes=4)


def test_no_generator_has_no_curve(pbmc: AnnData) -> None:
    model = scDiffAug(pbmc, diffusion="none")
    model.train(max_epochs=1, enable_progress_bar=False)
    assert "diffusion" not in model.history


@pytest.mark.parametrize(
    ("n_cells", "generates", "steps"),
    [
        (50, True, 800),
        (513, True, 800),
        (1_025, True, 800),
        (2_000, True, 800),
        (10_000, True, 800),
        (1_000_000, True, 8_000),
        (50_000, False, 500),
        # One pass at least.
        (1_000_000, False, 1_954),
    ],
)
def test_default_budget_is_one_of_steps(n_cells: int, generates: bool, steps: int) -> None:
    budget = budget_of(n_cells, n_passes=75 * generates)
    assert budget.max_epochs == budget.usual_epochs
    assert budget.n_steps == pytest.approx(steps, rel=0.15)


@pytest.mark.parametrize(
    ("n_cells", "batch_size", "sizes"),
    [
        (3, 2, [3]),
        (5, 2, [2, 3]),
        (5, 512, [5]),
        (513, 512, [513]),
        (519, 512, [519]),
        (520, 512, [512, 8]),
        (1_025, 512, [512, 513]),
    ],
)
def test_a_few_cells_left_over_join_the_last_batch(
    n_cells: int, batch_size: int, sizes: list[int]
) -> None:
    assert np.diff(batch_bounds(n_cells, batch_size)).tolist() == sizes


@pytest.mark.parametrize(
    ("n_cells", "epsilon"), [(50, 2e-4), (1_300, 2e-5), (2_600, 5e-6), (10**6, 1e-8)]
)
def test_the_fewer_the_cells_the_slower_rare_genes_are_learnt(
    n_cells: int, epsilon: float
) -> None:
    assert budget_of(n_cells).generator_epsilon == pytest.approx(epsilon)


def test_bfloat16_only_where_hardware_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert best_precision("cpu") == "bf16-mixed"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert best_precision("cpu") == "32-true"
    assert best_precision("mps") == "32-true"
    for emulates, wanted in ((True, "32-true"), (False, "bf16-mixed")):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda *, including_emulation, only=emulates: including_emulation or not only,
        )
        assert best_precision("cuda") == best_precision("gpu") == wanted


def test_interrupt_leaves_a_usable_model_and_says_so(
    pbmc: AnnData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    update, steps = DiffAugModule.update_ema, []

    def press_ctrl_c(module: DiffAugModule, decay: float) -> None:
        update(module, decay)
        steps.append(decay)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(DiffAugModule, "update_ema", press_ctrl_c)
    handler = signal.getsignal(signal.SIGINT)
    model = scDiffAug(pbmc)
    model.train(max_epochs=200, enable_progress_bar=False)
    assert 5 <= len(steps) < 10
    assert "Training was stopped after 3 of 200 epochs" in caplog.text
    assert signal.getsignal(signal.SIGINT) is handler
    assert np.isfinite(model.get_latent_representation()).all()
    assert model.augment(indices=[0], steps=2).n_obs == 1


def test_training_in_a_thread_leaves_signals_alone(pbmc: AnnData) -> None:
    """Only the main thread may set what a signal does."""
    model = scDiffAug(pbmc[:60, :40].copy(), n_semantic=8)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(model.train, 2, accelerator="cpu", enable_progress_bar=False).result()
    assert len(model.history["loss"]) == 2


def test_lightning_is_quiet_until_the_last_of_two_threads_is_done() -> None:
    chatter = logging.getLogger("lightning.pytorch")
    before, filters, begun, may_end = chatter.level, warnings.filters[:], Event(), Event()

    def longer() -> None:
        with WITHOUT_CHATTER:
            begun.set()
            may_end.wait(60)

    with ThreadPoolExecutor(1) as pool:
        with WITHOUT_CHATTER:
            other = pool.submit(longer)
            begun.wait(60)
        assert chatter.level == logging.WARNING
        assert warnings.filters != filters
        may_end.set()
        other.result()
    assert chatter.level == before
    assert warnings.filters == filters


def test_a_loss_that_is_not_finite_says_what_to_do(
    pbmc: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = scdiffaug.fitting.fit

    def spoiled(module: DiffAugModule, *args: Any, **options: Any) -> Any:
        with torch.no_grad():
            module.encoder.semantic[1].weight[0, 0] = torch.nan
        return fit(module, *args, **options)

    monkeypatch.setattr(scdiffaug.fitting, "fit", spoiled)
    model = scDiffAug(pbmc)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        model.train(max_epochs=3, enable_progress_bar=False)


@pytest.mark.parametrize("step", [1, 2, 5, 6])
def test_a_gradient_that_is_not_finite_never_ends_well(
    pbmc: AnnData, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """That of the last of the six steps spoils weights of which no loss is computed."""
    clip, seen = torch.nn.utils.clip_grad_norm_, []

    def inject(parameters: list[torch.Tensor], bound: float) -> torch.Tensor:
        seen.append(bound)
        if len(seen) == step:
            next(p.grad for p in parameters if p.grad is not None).view(-1)[0] = torch.nan
        return clip(parameters, bound)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", inject)
    model = scDiffAug(pbmc[:60, :40].copy(), n_semantic=8)
    with pytest.raises(FloatingPointError, match=f"became nan in epoch {(step - 1) // 2}: lower"):
        model.train(3, batch_size=30, enable_progress_bar=False)


def test_termination_does_not_look_like_success() -> None:
    script = """
import os, signal
import scdiffaug
from scdiffaug.module import DiffAugModule
from scdiffaug.neighborhood import neighbor_mean

def told_to_end(module, decay):
    os.kill(os.getpid(), signal.SIGTERM)

DiffAugModule.update_ema = told_to_end
model = scdiffaug.scDiffAug(scdiffaug.datasets.pbmc68k_reduced()[:60, :40].copy())
model.train(max_epochs=50, accelerator="cpu", enable_progress_bar=False)
print("trained to the end")
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 128 + signal.SIGTERM
    assert "trained to the end" not in run.stdout


def test_ctrl_c_between_two_epochs_keeps_what_was_learnt(
    pbmc: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Checkpoints.write, []

    def press_ctrl_c(checkpoints: Checkpoints, progress: Any) -> None:
        write(checkpoints, progress)
        written.append(progress)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Checkpoints, "is_due", lambda _: True)
    whole = scDiffAug(pbmc)
    whole.train(max_epochs=6, enable_progress_bar=False)
    monkeypatch.setattr(Checkpoints, "write", press_ctrl_c)
    model = scDiffAug(pbmc)
    options = {"max_epochs": 6, "checkpoint_dir": tmp_path, "enable_progress_bar": False}
    model.train(**options)
    assert len(model.history["loss"]) == 3
    assert model.is_trained
    assert model._was_interrupted
    model.train(**options, resume=True)
    assert not model._was_interrupted
    np.testing.assert_array_equal(
        model.get_latent_representation(), whole.get_latent_representation()
    )


def test_a_handler_of_signals_that_is_not_pythons_is_left_alone(
    pbmc: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where R or another program has Python within it: what it set cannot be put back."""
    own = signal.signal

    def signal_of_a_host(number: int, handler: Any) -> Any:
        assert number != signal.SIGINT
        return own(number, handler)

    known = signal.getsignal
    monkeypatch.setattr(signal, "signal", signal_of_a_host)
    monkeypatch.setattr(
        signal, "getsignal", lambda number: None if number == signal.SIGINT else known(number)
    )
    model = scDiffAug(pbmc[:60, :40].copy(), n_semantic=8)
    model.train(max_epochs=1, enable_progress_bar=False)
    assert model.is_trained


def test_weights_decay(pbmc: AnnData) -> None:
    ends = {}
    for decay in (0.0, 0.5):
        model = scDiffAug(pbmc[:100, :50].copy(), n_semantic=8, diffusion="none")
        model.train(max_epochs=20, weight_decay=decay, enable_progress_bar=False)
        ends[decay] = sum(float(p.detach().square().sum()) for p in model.module.parameters())
    assert ends[0.5] < ends[0.0]


def test_a_gradient_is_cut_to_a_norm_of_ten_and_kept_as_it_was() -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), 50.0)
    plan = SimpleNamespace(_epoch=[{}])
    DiffAugPlan.configure_gradient_clipping(plan, torch.optim.SGD([weight], lr=1))
    assert float(weight.grad.norm()) == pytest.approx(10)
    assert float(plan._epoch[-1]["gradient_norm"]) == pytest.approx(100)


def test_generated_views_of_deep_cells_have_no_more_reads_than_the_encoder_sees(
    pbmc: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    pbmc.X = pbmc.X * 1000
    model = scDiffAug(pbmc)
    batch, depths = _batch(model), []
    sample = model.module.sample
    monkeypatch.setattr(
        model.module, "sample", lambda *a, **k: depths.append(k["depth"]) or sample(*a, **k)
    )
    _views(model, batch, generated=True)
    assert float(depths[0].max()) == 10_000
