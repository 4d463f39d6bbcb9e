import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from scdiffaug import losses

N, D, N_SEMANTIC = 6, 5, 4


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(*shape: int, rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def sq_distance(a: Tensor, b: Tensor) -> float:
    return sum((s - t) ** 2 for s, t in zip(a.tolist(), b.tolist(), strict=True))


def similarity(sq: float, dof: float) -> float:
    return 2 * math.pi * float(stats.t.pdf(math.sqrt(sq), dof)) ** 2


def test_squared_distances_equal_the_double_loop(rng: torch.Generator) -> None:
    a, b = normal(N, 3, rng=rng), normal(N + 2, 3, rng=rng)
    expected = [[sq_distance(row, column) for column in b] for row in a]
    torch.testing.assert_close(losses.squared_distances(a, b), torch.tensor(expected).double())


def test_squared_distances_are_never_negative(rng: torch.Generator) -> None:
    a = 1e3 + normal(50, 80, rng=rng).float()
    assert losses.squared_distances(a, a).min() >= 0


def test_squared_distances_are_exact_under_autocast(rng: torch.Generator) -> None:
    a = 30 + normal(50, 2, rng=rng).float()
    exact = losses.squared_distances(a, a)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(losses.squared_distances(a, a), exact)


@pytest.mark.parametrize("dof", [0.01, 1.0, 5.0, 100.0])
def test_log_t_kernel_is_the_density_of_student_t(dof: float) -> None:
    distance = np.array([0.0, 1e-3, 0.5, 1.0, 7.0, 1e3, 1e6])
    kernel = losses.log_t_kernel(torch.tensor(distance**2), dof)
    np.testing.assert_allclose(kernel, stats.t.logpdf(distance, dof), rtol=1e-9)


@pytest.mark.parametrize("dof", [0.01, 1.0, 100.0, 1e4])
def test_similarity_is_a_probability_that_falls_with_distance(dof: float) -> None:
    log_similarity = losses.log_t_similarity(torch.linspace(0, 50, 200).double(), dof)
    assert log_similarity.max() <= 0
    assert (log_similarity.diff() < 0).all()
    assert log_similarity[0].item() == pytest.approx(math.log(similarity(0, dof)))


def test_similarity_of_identical_points_is_close_to_one_at_many_degrees_of_freedom() -> None:
    assert losses.log_t_similarity(torch.zeros(1), 100.0).exp().item() > 0.99


@pytest.mark.parametrize(("dof_semantic", "dof_projection"), [(100.0, 0.01), (10.0, 1.0)])
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_soft_contrastive_equals_the_double_loop(
    rng: torch.Generator, spread: float, dof_semantic: float, dof_projection: float
) -> None:
    y_anchor, y_view = (spread * normal(N, N_SEMANTIC, rng=rng) for _ in range(2))
    z_anchor, z_view = normal(N, 2, rng=rng), normal(N, 2, rng=rng)
    repulsion = normal(N, N, rng=rng).exp()
    total = 0.0
    for i, j in itertools.product(range(N), repeat=2):
        h = float(i == j)
        p = max(h, similarity(sq_distance(y_anchor[i], y_view[j]), dof_semantic))
        q = similarity(sq_distance(z_anchor[i], z_view[j]), dof_projection)
        total -= p * math.log(q) + repulsion[i, j].item() * (1 - p) * math.log1p(-q)
    loss = losses.soft_contrastive(
        y_anchor=y_anchor,
        y_view=y_view,
        z_anchor=z_anchor,
        z_view=z_view,
        repulsion=repulsion,
        dof_semantic=dof_semantic,
        dof_projection=dof_projection,
    )
    assert loss.item() == pytest.approx(total / N, rel=1e-6)


def test_layout_equals_the_loop(rng: torch.Generator) -> None:
    z, places = normal(2 * N, 2, rng=rng), normal(N, 2, rng=rng)
    total = sum(sq_distance(z[i], places[i]) + sq_distance(z[N + i], places[i]) for i in range(N))
    assert losses.layout(z, places).item() == pytest.approx(total / N, rel=1e-6)


def test_defaults_are_the_ones_documented(rng: torch.Generator) -> None:
    a, b = (normal(N, D, rng=rng) for _ in range(2))
    both = {"y_anchor": a, "y_view": b, "z_anchor": a, "z_view": b}
    documented = losses.soft_contrastive(**both, dof_semantic=100.0, dof_projection=0.01)
    assert torch.equal(losses.soft_contrastive(**both), documented)
    assert torch.equal(losses.soft_contrastive(**both, repulsion=torch.ones(N, N)), documented)


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_gradient_of_soft_contrastive_is_that_of_its_values(
    rng: torch.Generator, spread: float
) -> None:
    points = [spread * normal(N, k, rng=rng) for k in (N_SEMANTIC, N_SEMANTIC, 2, 2)]
    repulsion = normal(N, N, rng=rng).exp()

    def loss(y_anchor: Tensor, y_view: Tensor, z_anchor: Tensor, z_view: Tensor) -> Tensor:
        return losses.soft_contrastive(
            y_anchor=y_anchor,
            y_view=y_view,
            z_anchor=z_anchor,
            z_view=z_view,
            repulsion=repulsion,
        )

    assert torch.autograd.gradcheck(loss, [each.requires_grad_() for each in points])


def test_soft_contrastive_does_not_reward_a_semantic_space_that_moves_positives_apart(
    rng: torch.Generator,
) -> None:
    z = normal(N, 2, rng=rng)
    y = 1e3 * normal(N, N_SEMANTIC, rng=rng)
    anchors = {"y_anchor": y, "z_anchor": z, "z_view": z}
    together = losses.soft_contrastive(y_view=y, **anchors)
    apart = losses.soft_contrastive(y_view=-y, **anchors)
    torch.testing.assert_close(apart, together)


def test_contrastive_losses_are_lowest_where_each_view_lies_at_its_anchor(
    rng: torch.Generator,
) -> None:
    y, z = 100 * normal(N, N_SEMANTIC, rng=rng), 10 * normal(N, 2, rng=rng)
    for shift in range(1, N):
        moved = z.roll(shift, 0)
        assert losses.info_nce(z_anchor=z, z_view=z) < losses.info_nce(z_anchor=z, z_view=moved)
        same = losses.soft_contrastive(y_anchor=y, y_view=y, z_anchor=z, z_view=z)
        assert same < losses.soft_contrastive(y_anchor=y, y_view=y, z_anchor=z, z_view=moved)


def test_info_nce_equals_the_double_loop(rng: torch.Generator) -> None:
    z_anchor, z_view = normal(N, 2, rng=rng), normal(N, 2, rng=rng)
    total = 0.0
    for i in range(N):
        kernel = [1 / (1 + sq_distance(z_anchor[i], z_view[j])) for j in range(N)]
        total -= math.log(kernel[i] / sum(kernel))
    loss = losses.info_nce(z_anchor=z_anchor, z_view=z_view)
    assert loss.item() == pytest.approx(total / N)


def soft_contrastive_of(points: Tensor, views: Tensor) -> Tensor:
    return losses.soft_contrastive(
        y_anchor=points, y_view=views, z_anchor=points[:, :2], z_view=views[:, :2]
    )


def info_nce_of(points: Tensor, views: Tensor) -> Tensor:
    return losses.info_nce(z_anchor=points[:, :2], z_view=views[:, :2])


@pytest.mark.parametrize("loss", [soft_contrastive_of, info_nce_of])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_contrastive_gradients_are_finite_for_coincident_and_far_points(
    rng: torch.Generator, loss: Callable[[Tensor, Tensor], Tensor], scale: float, offset: float
) -> None:
    shape = (N, N_SEMANTIC)
    points = (offset + scale * normal(*shape, rng=rng)).float().requires_grad_()
    views = (offset + scale * normal(*shape, rng=rng)).float().requires_grad_()
    value = loss(points, views)
    value.backward()
    assert value.isfinite()
    for leaf in (points, views):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("dof", [0.01, 1e6, 1e8])
def test_soft_contrastive_is_finite_where_the_similarity_of_coincident_points_rounds_to_one(
    dof: float,
) -> None:
    y = torch.arange(N * 1.0)[:, None].requires_grad_()
    z = torch.zeros(N, 2, requires_grad=True)
    loss = losses.soft_contrastive(y_anchor=y, y_view=y, z_anchor=z, z_view=z, dof_projection=dof)
    gradients = torch.autograd.grad(loss, [y, z])
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(s * t for s, t in zip(a, b, strict=True))
    return dot / math.sqrt(sum(s * s for s in a) * sum(t * t for t in b))


def test_byol_is_the_squared_distance_of_directions(rng: torch.Generator) -> None:
    prediction, target = normal(N, D, rng=rng), normal(N, D, rng=rng)
    total = 0.0
    for q, k in zip(prediction, target, strict=True):
        q_length, k_length = (math.sqrt(sq_distance(v, torch.zeros(D))) for v in (q, k))
        total += sq_distance(q / q_length, k / k_length)
    assert losses.byol(prediction, target).item() == pytest.approx(total / N)


def test_simsiam_equals_the_loop_and_takes_targets_as_constants(rng: torch.Generator) -> None:
    prediction, target = (normal(N, D, rng=rng).requires_grad_() for _ in range(2))
    total = sum(-cosine(p, t) for p, t in zip(prediction.tolist(), target.tolist(), strict=True))
    loss = losses.simsiam(prediction, target)
    assert loss.item() == pytest.approx(total / N)
    loss.backward()
    assert prediction.grad is not None
    assert target.grad is None


def test_moco_equals_the_double_loop(rng: torch.Generator) -> None:
    query, key, queue = (normal(n, D, rng=rng) for n in (N, N, 9))
    total = 0.0
    for q, positive in zip(query.tolist(), key.tolist(), strict=True):
        weights = [
            math.exp(sum(s * t for s, t in zip(q, k, strict=True)) / 0.1)
            for k in [positive, *queue.tolist()]
        ]
        total -= math.log(weights[0] / sum(weights))
    loss = losses.moco(query, key, queue)
    assert loss.item() == pytest.approx(total / N)


def test_vicreg_equals_the_loops(rng: torch.Generator) -> None:
    a, b = 0.7 * normal(N, D, rng=rng), 1.3 * normal(N, D, rng=rng)
    total = 25 * sum(sq_distance(s, t) for s, t in zip(a, b, strict=True)) / (N * D)
    for x in (a.tolist(), b.tolist()):
        mean = [sum(row[j] for row in x) / N for j in range(D)]
        for i, j in itertools.product(range(D), repeat=2):
            shared = sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in x) / (N - 1)
            if i == j:
                total += 25 / 2 * max(0, 1 - math.sqrt(shared + 1e-4)) / D
            else:
                total += shared**2 / D
    assert losses.vicreg(a, b).item() == pytest.approx(total)


def test_vicreg_gradients_are_finite_where_all_cells_are_one() -> None:
    a, b = (torch.ones(N, D, requires_grad=True) for _ in range(2))
    gradients = torch.autograd.grad(losses.vicreg(a, b), [a, b])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_preconditioned_denoising_equals_the_double_loop(rng: torch.Generator) -> None:
    denoised, x = normal(N, D, rng=rng), normal(N, D, rng=rng)
    sigma = normal(N, rng=rng).exp()
    total = 0.0
    for i, s in enumerate(sigma.tolist()):
        weight = (s**2 + 1) / s**2
        total += sum(weight * (denoised[i, g].item() - x[i, g].item()) ** 2 for g in range(D))
    loss = losses.preconditioned_denoising(denoised, x, sigma)
    assert loss.item() == pytest.approx(total / (N * D))


@pytest.fixture
def missing() -> Tensor:
    """Missing reads of six cells by five genes; the third and the last cell miss none."""
    rows = [[0, 3, 0, 1, 0], [7, 0, 0, 0, 0], [0] * 5, [1, 1, 1, 1, 1], [0, 0, 0, 90, 2], [0] * 5]
    return torch.tensor(rows, dtype=torch.float64)


def as_reads(missing: Tensor) -> losses.Reads:
    """Coordinate form, of genes that miss no read too, as the forward process hands them on."""
    row, column = torch.ones_like(missing).nonzero(as_tuple=True)
    return row, column, missing[row, column]


def naive_nll(logits: Tensor, missing: Tensor) -> Tensor:
    per_cell = []
    for cell_logits, cell in zip(logits, missing, strict=True):
        if cell.sum() > 0:
            log_p = cell_logits - torch.log(cell_logits.exp().sum())
            per_cell.append(-(cell * log_p).sum() / cell.sum())
    return torch.stack(per_cell).mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_missing_reads_nll_and_its_gradient_equal_the_naive_ones(
    rng: torch.Generator, missing: Tensor, dtype: torch.dtype
) -> None:
    logits = (3 * normal(N, D, rng=rng)).to(dtype).requires_grad_()
    loss = losses.missing_reads_nll(logits, as_reads(missing.to(dtype)))
    expected = naive_nll(logits, missing.to(dtype))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    # A factor, since the gradient from above is not 1 where the loss is one term of a sum.
    gradient = torch.autograd.grad(3 * loss, logits)[0]
    torch.testing.assert_close(
        gradient, torch.autograd.grad(3 * expected, logits)[0], rtol=1e-5, atol=1e-6
    )
    assert gradient.dtype == dtype
    assert (gradient[missing.sum(1) == 0] == 0).all()


def test_missing_reads_nll_gradient_equals_finite_differences(
    rng: torch.Generator, missing: Tensor
) -> None:
    logits = normal(N, D, rng=rng).float().requires_grad_()
    reads = as_reads(missing.float())
    gradient = torch.autograd.grad(losses.missing_reads_nll(logits, reads), logits)[0]
    step = 0.03
    for i, g in [(0, 1), (0, 0), (2, 0), (3, 4), (4, 3)]:
        bump = torch.zeros(N, D)
        bump[i, g] = step
        rise = losses.missing_reads_nll(logits + bump, reads)
        rise = rise - losses.missing_reads_nll(logits - bump, reads)
        assert gradient[i, g].item() == pytest.approx(rise.item() / (2 * step), abs=1e-4)


def test_missing_reads_nll_runs_in_bfloat16(rng: torch.Generator, missing: Tensor) -> None:
    logits = normal(N, D, rng=rng).bfloat16().requires_grad_()
    loss = losses.missing_reads_nll(logits, as_reads(missing.float()))
    exact = logits.detach().float().requires_grad_()
    expected = naive_nll(exact, missing.float())
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    gradient = torch.autograd.grad(loss, logits)[0]
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(
        gradient.float(), torch.autograd.grad(expected, exact)[0], rtol=0.03, atol=2e-3
    )


@pytest.mark.parametrize("scale", [0.0, 1e6])
def test_missing_reads_nll_is_finite_for_equal_and_extreme_logits(
    rng: torch.Generator, missing: Tensor, scale: float
) -> None:
    logits = (scale * normal(N, D, rng=rng)).float().requires_grad_()
    loss = losses.missing_reads_nll(logits, as_reads(missing.float()))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_missing_reads_nll_is_zero_where_no_cell_misses_a_read() -> None:
    logits = torch.zeros(N, D, requires_grad=True)
    loss = losses.missing_reads_nll(logits, as_reads(torch.zeros(N, D)))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_missing_reads_nll_is_lowest_at_the_profile_of_the_missing_reads(
    rng: torch.Generator, missing: Tensor
) -> None:
    reads = as_reads(missing)
    best = losses.missing_reads_nll(missing.clamp_min(1e-9).log(), reads)
    for _ in range(5):
        other = missing.clamp_min(1e-9).log() + 0.3 * normal(N, D, rng=rng)
        assert losses.missing_reads_nll(other, reads) > best
