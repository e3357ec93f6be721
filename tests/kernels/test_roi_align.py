import importlib
import math
import shutil
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision

from hydet.kernels import backends, roi_align, triton_available
from hydet.kernels.roi_align.op import _backend, flatten_shapes
from hydet.kernels.roi_align.reference import (
    backward_reference,
    backward_torchvision,
    count_samples,
    forward_reference,
    forward_torchvision,
    upright_regions,
)

needs_triton = pytest.mark.skipif(not triton_available(), reason="needs Triton")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SCALES = (0.5, 0.25)
SIZE = (3, 2)


def make_maps(channels=5, dtype=torch.float32):
    return [torch.randn(2, channels, *size, device=DEVICE).to(dtype) for size in ((13, 17), (7, 9))]


def make_rois(dtype=torch.float32):
    rois = torch.tensor(
        [
            [0, 3.3, 4.1, 20.2, 15.0],
            [1, -6.0, -9.0, 12.0, 40.0],  # reaches beyond the map
            [1, 9.0, 9.0, 9.0, 12.0],  # no width
            [0, 300.0, 300.0, 350.0, 320.0],  # outside
            [0, 20.0, 18.0, 31.0, 25.0],
            [1, 2.0, 3.0, 33.0, 25.0],
        ],
        dtype=dtype,
        device=DEVICE,
    )
    levels = torch.tensor([0, 1, 0, 1, 1, 0], device=DEVICE)
    return rois, levels


def bad_rois():
    nan, inf = math.nan, math.inf
    rows = [
        [0, nan, 1, 9, 9],
        [0, 1, -inf, 9, 9],
        [0, 1, 1, inf, 9],
        [nan, 1, 1, 9, 9],
        [inf, 1, 1, 9, 9],
        [2, 1, 1, 9, 9],  # no such image
        [-1, 1, 1, 9, 9],
        [0, -3e38, -3e38, 3e38, 3e38],
        [0, 1, 1, 1e6, 9],  # a million samples in a row
        [0, 1, 1, 9, 9],  # an ordinary one on a level that there is not
        [0, 1, 1, 9, 9],  # and a good one
    ]
    levels = torch.tensor([0] * 9 + [7, 1], device=DEVICE)
    return torch.tensor(rows, device=DEVICE), levels


def pool(way, features, rois, levels, ratio, aligned, size=SIZE, scales=SCALES):
    if way == "reference":
        geometry = partial(upright_regions, output_size=size, sampling_ratio=ratio, aligned=aligned)
        return forward_reference(features, rois, levels, size, scales, geometry)
    if way == "torchvision":
        return forward_torchvision(features, rois, levels, size, scales, ratio, aligned)
    from hydet.kernels.roi_align.triton_impl import launch_forward

    return launch_forward(features, rois, levels, size, scales, ratio, aligned)


def unpool(way, grad, rois, levels, shapes, ratio, aligned, scales=SCALES):
    size = tuple(grad.shape[2:])
    if way == "reference":
        geometry = partial(upright_regions, output_size=size, sampling_ratio=ratio, aligned=aligned)
        return backward_reference(grad, rois, levels, shapes, scales, geometry)
    if way == "torchvision":
        return backward_torchvision(grad, rois, levels, shapes, scales, ratio, aligned)
    from hydet.kernels.roi_align.triton_impl import launch_backward

    return launch_backward(
        grad, rois, levels, shapes, scales, ratio, aligned, deterministic=way == "triton_gather"
    )


WAYS = ["reference", "torchvision", pytest.param("triton", marks=needs_triton)]
GRAD_WAYS = [
    "reference",
    "torchvision",
    pytest.param("triton_gather", marks=needs_triton),
    pytest.param("triton_scatter", marks=needs_triton),
]


def level_by_level(features, rois, levels, ratio, aligned):
    out = features[0].new_zeros(rois.shape[0], features[0].shape[1], *SIZE)
    for level, (feature, scale) in enumerate(zip(features, SCALES, strict=True)):
        own = levels == level
        out[own] = torchvision.ops.roi_align(feature, rois[own], SIZE, scale, ratio, aligned)
    return out


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_forward_matches_torchvision_on_each_level(way, ratio, aligned):
    features, (rois, levels) = make_maps(), make_rois()
    expected = level_by_level(features, rois, levels, ratio, aligned)
    found = pool(way, features, rois, levels, ratio, aligned)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("ratio", "aligned"), [(0, True), (0, False), (2, True)])
@pytest.mark.parametrize("way", GRAD_WAYS)
def test_backward_matches_autograd_through_torchvision(way, ratio, aligned):
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    expected = level_by_level(features, rois, levels, ratio, aligned)
    grad = torch.randn_like(expected)
    expected.backward(grad)
    found = unpool(way, grad, rois, levels, [f.shape for f in features], ratio, aligned)
    for feature, own in zip(features, found, strict=True):
        assert own.is_contiguous()
        torch.testing.assert_close(own, feature.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_reduced_precision_rounds_once_and_keeps_the_rois(way, dtype):
    features, (rois, levels) = make_maps(dtype=dtype), make_rois()
    expected = level_by_level([f.float() for f in features], rois, levels, 0, True).to(dtype)
    found = pool(way, features, rois, levels, 0, True)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=torch.finfo(dtype).eps, atol=1e-4)


@needs_triton
@pytest.mark.parametrize("way", ["triton_gather", "triton_scatter"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_gradient_adds_in_float32(way, dtype):
    rois, levels = make_rois()
    shapes = [f.shape for f in make_maps()]
    grad = torch.randn(rois.shape[0], 5, *SIZE, device=DEVICE).to(dtype)
    expected = unpool("reference", grad.float(), rois, levels, shapes, 0, True)
    for a, b in zip(unpool(way, grad, rois, levels, shapes, 0, True), expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_any_memory_layout(way):
    features, (rois, levels) = make_maps(), make_rois()
    expected = pool("reference", features, rois, levels, 2, True)
    last = [f.to(memory_format=torch.channels_last) for f in features]
    strided = [torch.stack([f, f], dim=-1)[..., 0] for f in features]
    columns = rois.T.contiguous().T
    for maps in (last, strided):
        torch.testing.assert_close(pool(way, maps, columns, levels, 2, True), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", GRAD_WAYS)
def test_any_memory_layout_of_the_gradient(way):
    rois, levels = make_rois()
    shapes = [f.shape for f in make_maps()]
    grad = torch.randn(6, 5, *SIZE, device=DEVICE)
    expected = unpool("reference", grad, rois, levels, shapes, 2, True)
    last = grad.to(memory_format=torch.channels_last)
    for a, b in zip(unpool(way, last, rois.T.contiguous().T, levels, shapes, 2, True), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    same = torch.ones((), device=DEVICE).expand_as(grad)  # as that of a sum is
    expected = unpool("reference", same.contiguous(), rois, levels, shapes, 2, True)
    for a, b in zip(unpool(way, same, rois, levels, shapes, 2, True), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@needs_triton
def test_triton_in_several_blocks(monkeypatch):
    """Bins and channels of one region, and tiles of one map, that do not fit one program."""
    triton_impl = importlib.import_module("hydet.kernels.roi_align.triton_impl")
    monkeypatch.setattr(triton_impl, "_block_c", lambda channels: 16)
    monkeypatch.setattr(triton_impl, "_block_p", lambda num_bins: 16)
    features = [torch.randn(1, 18, 35, 34, device=DEVICE)]  # more than the 32 cells of a tile
    rois = torch.tensor([[0, 20.0, 30.0, 66.0, 67.0], [0, 1.0, 50.0, 40.0, 60.0]], device=DEVICE)
    args = features, rois, None, 2, True
    expected = pool("reference", *args, size=(5, 4), scales=[0.5])
    torch.testing.assert_close(
        pool("triton", *args, size=(5, 4), scales=[0.5]), expected, rtol=1e-5, atol=1e-5
    )
    grad = torch.randn_like(expected)
    shapes = [features[0].shape]
    (wanted,) = unpool("reference", grad, rois, None, shapes, 2, True, scales=[0.5])
    for way in ("triton_gather", "triton_scatter"):
        (found,) = unpool(way, grad, rois, None, shapes, 2, True, scales=[0.5])
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_unusable_regions_give_zeros(way, ratio):
    features, (rois, levels) = make_maps(channels=2), bad_rois()
    found = pool(way, features, rois, levels, ratio, True)
    assert torch.isfinite(found).all()
    if ratio > 0:  # there the longest one is an ordinary region
        found, rois = found[[0, 1, 2, 3, 4, 5, 6, 7, 9, 10]], rois[[0, 1, 2, 3, 4, 5, 6, 7, 9, 10]]
    assert (found[:-1] == 0).all()
    good = torchvision.ops.roi_align(features[1], rois[-1:], SIZE, SCALES[1], ratio, True)
    torch.testing.assert_close(found[-1:], good, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", GRAD_WAYS)
def test_unusable_regions_send_no_gradient(way):
    rois, levels = bad_rois()
    shapes = [f.shape for f in make_maps(channels=2)]
    grad = torch.ones(rois.shape[0], 2, *SIZE, device=DEVICE)
    found = unpool(way, grad, rois, levels, shapes, 0, True)
    expected = unpool("torchvision", grad[-1:], rois[-1:], levels[-1:], shapes, 0, True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_to_pool(way):
    rois, levels = make_rois()
    features = make_maps()
    assert pool(way, features, rois[:0], levels[:0], 0, True).shape == (0, 5, *SIZE)
    no_images = [f[:0] for f in features]
    assert (pool(way, no_images, rois, levels, 0, True) == 0).all()
    assert pool(way, no_images, rois[:0], levels[:0], 0, True).shape == (0, 5, *SIZE)
    no_channels = [f[:, :0] for f in features]
    assert pool(way, no_channels, rois, levels, 0, True).shape == (6, 0, *SIZE)


@pytest.mark.parametrize("way", GRAD_WAYS)
def test_nothing_to_send_back(way):
    rois, levels = make_rois()
    shapes = [f.shape for f in make_maps()]
    none = torch.zeros(0, 5, *SIZE, device=DEVICE)
    for own, shape in zip(unpool(way, none, rois[:0], levels[:0], shapes, 0, True), shapes, strict=True):
        assert own.shape == shape
        assert (own == 0).all()
    no_images = [(0, *shape[1:]) for shape in shapes]
    grad = torch.ones(6, 5, *SIZE, device=DEVICE)
    assert [g.shape[0] for g in unpool(way, grad, rois, levels, no_images, 0, True)] == [0, 0]


def test_chunks_change_nothing(monkeypatch):
    reference = sys.modules[forward_reference.__module__]
    features, (rois, levels) = make_maps(), make_rois()
    shapes, grad = [f.shape for f in features], torch.randn(6, 5, *SIZE, device=DEVICE)
    expected = pool("reference", features, rois, levels, 0, True)
    expected_grads = unpool("reference", grad, rois, levels, shapes, 0, True)
    monkeypatch.setattr(reference, "SAMPLES_PER_CHUNK", 50)
    monkeypatch.setattr(reference, "SAMPLES_PER_BACKWARD_CHUNK", 50)
    torch.testing.assert_close(pool("reference", features, rois, levels, 0, True), expected)
    for a, b in zip(unpool("reference", grad, rois, levels, shapes, 0, True), expected_grads, strict=True):
        torch.testing.assert_close(a, b)


def test_one_region_of_one_image_is_read_in_whole_rows(monkeypatch):
    """Of a strided table embedding_bag reads number by number, ten times slower."""
    strides = []
    product = F.embedding_bag

    def watched(index, table, *args, **kwargs):
        strides.append(table.stride(1))
        return product(index, table, *args, **kwargs)

    monkeypatch.setattr(F, "embedding_bag", watched)
    features, (rois, levels) = [f[:1] for f in make_maps()], make_rois()
    expected = level_by_level(features, rois[:1], levels[:1], 2, True)
    found = pool("reference", features, rois[:1], levels[:1], 2, True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    unpool("reference", torch.ones_like(found), rois[:1], levels[:1], [f.shape for f in features], 2, True)
    assert strides == [1, 1]


def test_image_without_regions_still_gets_a_gradient():
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    roi_align(features, rois[:0], output_size=SIZE, spatial_scales=SCALES, levels=levels[:0]).sum().backward()
    assert all((f.grad == 0).all() for f in features)


def test_constant_map_gives_the_constant():
    features = [torch.full((1, 2, 11, 12), 3.5, device=DEVICE)]
    rois = torch.tensor([[0, 4.0, 4.0, 30.0, 35.0]], device=DEVICE)
    found = roi_align(features, rois, output_size=(7, 5), spatial_scales=[0.25])
    torch.testing.assert_close(found, torch.full_like(found, 3.5))


def test_gradients_in_float64():
    features = [f.double().requires_grad_() for f in make_maps(channels=2)]
    rois, levels = make_rois(torch.float64)

    def pooled(*maps):
        return roi_align(maps, rois, output_size=(2, 2), spatial_scales=SCALES, levels=levels)

    assert torch.autograd.gradcheck(pooled, features, fast_mode=True)
    assert torch.autograd.gradgradcheck(pooled, features, fast_mode=True)


def test_registration():
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    torch.library.opcheck(
        torch.ops.hydet.roi_align.default, (features, rois, levels, *SIZE, list(SCALES), 0, True)
    )
    grad = torch.randn(6, 5, *SIZE, device=DEVICE, requires_grad=True)
    shapes = flatten_shapes(features)
    torch.library.opcheck(
        torch.ops.hydet.roi_align_backward.default, (grad, rois, levels, shapes, list(SCALES), 0, True)
    )


@pytest.mark.parametrize("backend", WAYS)
def test_every_backend_can_be_forced(monkeypatch, backend):
    monkeypatch.setenv("HYDET_KERNELS", backend)
    assert backends()["roi_align"][DEVICE] == backend
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    found = roi_align(features, rois, output_size=SIZE, spatial_scales=SCALES, levels=levels)
    found.square().sum().backward()
    expected = unpool("reference", 2 * found.detach(), rois, levels, [f.shape for f in features], 0, True)
    for feature, own in zip(features, expected, strict=True):
        torch.testing.assert_close(feature.grad, own, rtol=1e-5, atol=1e-4)


def test_samples_are_counted_as_they_are_taken():
    rois, _ = make_rois()
    rois = torch.cat([rois[4:5], rois[5:], torch.full_like(rois[:1], math.nan)])
    levels = torch.tensor([0, 1, 9], device=DEVICE)  # the last is of no level, and not finite
    # 3 x 2 bins of 3.5 x 5.5 and of 5.5 x 7.75 cells
    for ratio, of_bins in ((2, 4 + 4), (0, 2 * 3 + 2 * 4)):
        geometry = partial(upright_regions, output_size=SIZE, sampling_ratio=ratio, aligned=True)
        assert count_samples(rois, levels, SIZE, SCALES, geometry) == of_bins * SIZE[0] * SIZE[1]


def test_torchvision_takes_the_few_samples_on_a_cpu(monkeypatch):
    monkeypatch.delenv("HYDET_KERNELS", raising=False)
    like, shapes = torch.empty(0), [(1, 256, 100, 100), (1, 256, 50, 50)]
    assert _backend((20, 256, 14, 14), shapes, like, lambda: 20 * 14 * 14) == "torchvision"
    assert _backend((20, 256, 14, 14), shapes, like, lambda: 20 * 14 * 14 * 4) == "reference"
    assert _backend((20, 3, 14, 14), shapes, like, lambda: 20 * 14 * 14 * 4) == "torchvision"
    assert _backend((2, 256, 14, 14), shapes, like) == "torchvision"
    assert _backend((20, 256, 14, 14), shapes, like) == "reference"


def test_backward_is_deterministic_on_request():
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            found = roi_align(features, rois, output_size=SIZE, spatial_scales=SCALES, levels=levels)
            runs.append(torch.autograd.grad(found.sum(), features))
    finally:
        torch.use_deterministic_algorithms(was)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@needs_triton
@pytest.mark.parametrize("deterministic", [False, True])
def test_determinism_picks_the_kernel_that_gathers(monkeypatch, deterministic):
    triton_impl = importlib.import_module("hydet.kernels.roi_align.triton_impl")
    launch, asked = triton_impl.launch_backward, []

    def watched(*args):
        asked.append(args[-1])
        return launch(*args)

    monkeypatch.setattr(triton_impl, "launch_backward", watched)
    monkeypatch.setenv("HYDET_KERNELS", "triton")
    features, (rois, levels) = [f.requires_grad_() for f in make_maps(1)], make_rois()
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        found = roi_align(
            features, rois[:1], output_size=(1, 1), spatial_scales=SCALES, levels=levels[:1], sampling_ratio=1
        )
        torch.autograd.grad(found.sum(), features)
    finally:
        torch.use_deterministic_algorithms(was)
    assert asked == [deterministic]


@pytest.mark.gpu
@pytest.mark.parametrize("deterministic", [False, True])
def test_the_gradient_needs_memory_for_the_result_only(deterministic):
    shapes = [(2, 64, 200, 336), (2, 64, 100, 168)]
    corner = torch.rand(2000, 2, device="cuda") * 500
    rois = torch.cat([corner[:, :1] % 2 // 1, corner, corner + 100], dim=1)
    levels = torch.arange(2000, device="cuda") % 2
    grad = torch.randn(2000, 64, 7, 7, device="cuda")
    way = "triton_gather" if deterministic else "triton_scatter"
    unpool(way, grad, rois, levels, shapes, 0, True, scales=(0.25, 0.125))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = unpool(way, grad, rois, levels, shapes, 0, True, scales=(0.25, 0.125))
    size = sum(f.numel() * 4 for f in found)
    assert torch.cuda.max_memory_allocated() - before < size + 2 * 2**20


class Pooler(torch.nn.Module):
    def forward(self, fine, coarse, rois, levels):
        return roi_align([fine, coarse], rois, output_size=SIZE, spatial_scales=SCALES, levels=levels) * 2


def test_export_keeps_one_node():
    features, (rois, levels) = make_maps(), make_rois()
    count = torch.export.Dim("count")
    program = torch.export.export(
        Pooler(), (*features, rois, levels), dynamic_shapes=(None, None, {0: count}, {0: count})
    )
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("hydet.roi_align.default") == 1
    args = (*features, rois[:4], levels[:4])
    torch.testing.assert_close(program.module()(*args), Pooler()(*args))


@needs_compiler
def test_compiles_without_a_break():
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    module = Pooler()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(module(*features, rois, levels).sum(), features)
    found = torch.autograd.grad(compiled(*features, rois, levels).sum(), features)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_says_what_does_not_fit():
    features, (rois, levels) = make_maps(), make_rois()
    call = partial(roi_align, output_size=SIZE, spatial_scales=SCALES, levels=levels)
    with pytest.raises(ValueError, match=r"rois must be \(R, 5\)"):
        call(features, rois[:, :4])
    with pytest.raises(ValueError, match="spatial scales"):
        call(features[:1], rois)
    with pytest.raises(ValueError, match="one N and C"):
        call([features[0], features[1][:, :2]], rois)
    with pytest.raises(TypeError, match="one floating point dtype"):
        call([features[0], features[1].half()], rois)
    with pytest.raises(TypeError, match="rois must be floating point"):
        call(features, rois.nan_to_num().long())
    with pytest.raises(ValueError, match="need the level"):
        call(features, rois, levels=None)
    with pytest.raises(ValueError, match="levels must be int64"):
        call(features, rois, levels=levels[:2])
    with pytest.raises(ValueError, match="output_size"):
        call(features, rois, output_size=(0, 2))


@pytest.mark.parametrize("channels", [3, 64])
def test_width_does_not_matter(channels):
    features, (rois, levels) = [f.requires_grad_() for f in make_maps(channels)], make_rois()
    found = roi_align(features, rois, output_size=SIZE, spatial_scales=SCALES, levels=levels)
    expected = level_by_level(features, rois, levels, 0, True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad(out, features, grad) for out in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
