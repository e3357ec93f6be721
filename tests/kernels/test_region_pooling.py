"""The code that ``roi_align`` and ``roi_align_rotated`` share: arguments, sampling, chunks and blocks."""

import importlib

import pytest
import torch
import torch.nn.functional as F

from hydet.kernels import roi_align, roi_align_rotated, triton_available
from hydet.kernels.region_pooling import torch_impl
from hydet.kernels.region_pooling.arguments import flatten_shapes, unflatten_shapes
from hydet.kernels.region_pooling.reference import sample_bilinear
from hydet.kernels.region_pooling.regions import LONGEST_SIDE, num_samples_along_bin
from hydet.kernels.region_pooling.sampling_matrix import SourceMaps, sampling_matrix
from hydet.kernels.roi_align.torch_impl import backward_torch, forward_torch, upright_regions

needs_triton = pytest.mark.skipif(not triton_available(), reason="needs Triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SCALES = (0.5, 0.25)
SIZE = (3, 2)
SETTINGS = {"sampling_ratio": 0, "aligned": True}


def make_maps(channels=5):
    return [torch.randn(2, channels, *size, device=DEVICE) for size in ((13, 17), (7, 9))]


def make_rois():
    """Return valid regions, and their levels."""
    rois = [[0, 3.3, 4.1, 20.2, 15.0], [1, 2.0, 3.0, 33.0, 25.0], [0, 20.0, 18.0, 31.0, 25.0]]
    return torch.tensor(rois, device=DEVICE), torch.tensor([0, 1, 1], device=DEVICE)


def test_shapes_survive_flattening():
    shapes = [(2, 5, 13, 17), (2, 5, 7, 9), (2, 5, 0, 4)]
    assert unflatten_shapes(flatten_shapes([torch.empty(shape) for shape in shapes])) == shapes


def test_sampling_interpolates_inside_and_extends_the_edge_by_one_cell():
    feature = torch.arange(12.0).view(1, 3, 4)
    assert sample_bilinear(feature, 1, 2).item() == 6
    assert sample_bilinear(feature, 0.5, 1.25).item() == 0.5 * 4 + 1.25
    assert sample_bilinear(feature, -1, 3.9).item() == 3
    assert sample_bilinear(feature, -1.01, 1).item() == 0


def test_adaptive_sampling_takes_one_sample_per_cell():
    bins = torch.tensor([0.0, 0.2, 1.0, 1.5, -3.0, float("nan"), 1e9])
    assert num_samples_along_bin(bins, 0).tolist() == [0, 1, 1, 2, 0, 0, LONGEST_SIDE]
    assert num_samples_along_bin(bins, 2).tolist() == [2] * 7


@pytest.mark.parametrize("samples_per_chunk", [1, 100, 1 << 16])
def test_weights_of_a_bin_sum_to_1_inside_of_the_map(samples_per_chunk):
    rois, _ = make_rois()
    maps = SourceMaps.find(rois, (2, 5, 13, 17), 0.5)
    regions = upright_regions(rois, maps.scale[:, None], output_size=SIZE, **SETTINGS)
    stop = 0
    for rows in sampling_matrix(regions, maps, SIZE, samples_per_chunk):
        assert rows.bins.start == stop
        stop = rows.bins.stop
        sums = torch.stack([weights.sum() for weights in rows.weights.split(rows.counts.tolist())])
        torch.testing.assert_close(sums, torch.ones_like(sums))
    assert stop == rois.shape[0] * SIZE[0] * SIZE[1]


def test_regions_without_a_map_are_invalid():
    rows = [[0, 1, 1, 9, 9], [2, 1, 1, 9, 9], [-1, 1, 1, 9, 9], [0, 1, 1, float("inf"), 9], [1, 1, 1, 9, 9]]
    maps = SourceMaps.find(torch.tensor(rows), (2, 5, 13, 17), 0.5)
    assert maps.valid.tolist() == [True, False, False, False, True]
    assert maps.first_cell.tolist() == [0, 0, 0, 0, 13 * 17]


def test_chunk_size_does_not_matter(monkeypatch):
    features, (rois, levels) = make_maps(), make_rois()
    shapes, grad = [f.shape for f in features], torch.randn(3, 5, *SIZE, device=DEVICE)

    def run():
        pooled = forward_torch(features, rois, levels, SIZE, SCALES, 0, True)
        return [pooled, *backward_torch(grad, rois, levels, shapes, SCALES, 0, True)]

    expected = run()
    monkeypatch.setattr(torch_impl, "SAMPLES_PER_CHUNK", 50)
    monkeypatch.setattr(torch_impl, "SAMPLES_PER_BACKWARD_CHUNK", 50)
    torch.testing.assert_close(run(), expected)


@pytest.mark.parametrize(
    ("pool", "channels"),
    [(roi_align, 5), (roi_align, 32), (roi_align_rotated, 5)],
    ids=["torchvision", "torch", "rotated"],
)
def test_gradients_are_stored_as_their_maps(pool, channels):
    contiguous, (rois, levels) = make_maps(channels), make_rois()
    if pool is roi_align_rotated:
        rois = F.pad(rois, (0, 1), value=30.0)  # the angle
    gradients = []
    for order in (torch.contiguous_format, torch.channels_last):
        maps = [f.detach().to(memory_format=order).requires_grad_() for f in contiguous]
        pooled = pool(maps, rois, output_size=SIZE, spatial_scales=SCALES, levels=levels)
        gradients.append(torch.autograd.grad(pooled.square().sum(), maps))
        assert all(g.abs().sum() > 0 for g in gradients[-1])
        assert all(g.is_contiguous(memory_format=order) for g in gradients[-1])
    torch.testing.assert_close(*gradients)


def test_single_region_is_read_in_whole_rows(monkeypatch):
    """embedding_bag reads a strided table one number at a time, which is ten times slower."""
    strides = []
    embedding_bag = F.embedding_bag

    def recording(index, table, *args, **kwargs):
        strides.append(table.stride(1))
        return embedding_bag(index, table, *args, **kwargs)

    monkeypatch.setattr(F, "embedding_bag", recording)
    features, (rois, levels) = [f[:1] for f in make_maps()], make_rois()
    pooled = forward_torch(features, rois[:1], levels[:1], SIZE, SCALES, 2, True)
    shapes = [f.shape for f in features]
    backward_torch(torch.ones_like(pooled), rois[:1], levels[:1], shapes, SCALES, 2, True)
    assert strides == [1, 1]


@needs_triton
def test_triton_in_several_blocks(monkeypatch):
    """The bins and channels of one region, and the tiles of one map, exceed one program."""
    from hydet.kernels.roi_align.triton_impl import launch_backward, launch_forward

    for name in ("triton_forward", "triton_backward"):
        module = importlib.import_module(f"hydet.kernels.region_pooling.{name}")
        monkeypatch.setattr(module, "channels_per_block", lambda channels: 16)
        monkeypatch.setattr(module, "bins_per_block", lambda num_bins: 16)
    features = [torch.randn(1, 18, 35, 34, device=DEVICE)]  # larger than the 32 x 32 cells of a tile
    rois = torch.tensor([[0, 20.0, 30.0, 66.0, 67.0], [0, 1.0, 50.0, 40.0, 60.0]], device=DEVICE)
    args = features, rois, None, (5, 4), [0.5], 2, True
    expected = forward_torch(*args)
    torch.testing.assert_close(launch_forward(*args), expected, rtol=1e-5, atol=1e-5)
    backward_args = torch.randn_like(expected), rois, None, [features[0].shape], [0.5], 2, True
    expected_grads = backward_torch(*backward_args)
    for deterministic in (False, True):
        grads = launch_backward(*backward_args, deterministic=deterministic)
        torch.testing.assert_close(grads, expected_grads, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("deterministic", [False, True])
def test_backward_allocates_only_its_result(deterministic):
    from hydet.kernels.roi_align.triton_impl import launch_backward

    shapes = [(2, 64, 200, 336), (2, 64, 100, 168)]
    corner = torch.rand(2000, 2, device="cuda") * 500
    rois = torch.cat([corner[:, :1] % 2 // 1, corner, corner + 100], dim=1)
    levels = torch.arange(2000, device="cuda") % 2
    grad = torch.randn(2000, 64, 7, 7, device="cuda")
    args = grad, rois, levels, shapes, (0.25, 0.125), 0, True
    launch_backward(*args, deterministic=deterministic)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    grads = launch_backward(*args, deterministic=deterministic)
    size = sum(f.numel() * 4 for f in grads)
    assert torch.cuda.max_memory_allocated() - before < size + 2 * 2**20
