import importlib
import math
import shutil
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision

from hydet.kernels import roi_align_rotated, triton_available
from hydet.kernels.roi_align.op import flatten_shapes
from hydet.kernels.roi_align.reference import backward_reference, forward_reference
from hydet.kernels.roi_align_rotated.reference import rotated_regions

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
            [0, 12.3, 9.1, 17.2, 11.0, 30.0],
            [1, 3.0, 15.0, 40.0, 50.0, -75.0],  # reaches beyond the map
            [1, 9.0, 9.0, 3.0, 5.0, 200.0],
            [0, 300.0, 300.0, 20.0, 20.0, 10.0],  # outside
            [0, 20.0, 18.0, 11.0, 25.0, 90.0],
            [1, 18.0, 13.0, 33.0, 25.0, 0.0],
        ],
        dtype=dtype,
        device=DEVICE,
    )
    levels = torch.tensor([0, 1, 0, 1, 1, 0], device=DEVICE)
    return rois, levels


def pool(way, features, rois, levels, ratio, size=SIZE, scales=SCALES):
    if way == "reference":
        geometry = partial(rotated_regions, output_size=size, sampling_ratio=ratio)
        return forward_reference(features, rois, levels, size, scales, geometry)
    from hydet.kernels.roi_align_rotated.triton_impl import launch_forward

    return launch_forward(features, rois, levels, size, scales, ratio)


def unpool(way, grad, rois, levels, shapes, ratio, scales=SCALES):
    if way == "reference":
        geometry = partial(rotated_regions, output_size=tuple(grad.shape[2:]), sampling_ratio=ratio)
        return backward_reference(grad, rois, levels, shapes, scales, geometry)
    from hydet.kernels.roi_align_rotated.triton_impl import launch_backward

    return launch_backward(grad, rois, levels, shapes, scales, ratio, deterministic=way == "triton_gather")


WAYS = ["reference", pytest.param("triton", marks=needs_triton)]
GRAD_WAYS = [
    "reference",
    pytest.param("triton_gather", marks=needs_triton),
    pytest.param("triton_scatter", marks=needs_triton),
]


def one_by_one(features, rois, levels, ratio):
    """From the definition, with torch's sampler: a region at a time."""
    out = []
    for roi, level in zip(rois.tolist(), levels.tolist(), strict=True):
        image, cx, cy, width, height, angle = roi
        scale, feature = SCALES[level], features[level][int(image)]
        cx, cy, width, height = cx * scale - 0.5, cy * scale - 0.5, width * scale, height * scale
        rows = ratio or math.ceil(height / SIZE[0])
        columns = ratio or math.ceil(width / SIZE[1])
        v = (torch.arange(SIZE[0] * rows) + 0.5) / (SIZE[0] * rows) * height - height / 2
        u = (torch.arange(SIZE[1] * columns) + 0.5) / (SIZE[1] * columns) * width - width / 2
        v, u = torch.meshgrid(v, u, indexing="ij")
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        x, y = u * cos + v * sin + cx, v * cos - u * sin + cy
        inside = (x >= -1) & (x <= feature.shape[2]) & (y >= -1) & (y <= feature.shape[1])
        grid = torch.stack(
            [2 * x / (feature.shape[2] - 1) - 1, 2 * y / (feature.shape[1] - 1) - 1], dim=2
        ).to(feature)
        values = F.grid_sample(feature[None], grid[None], padding_mode="border", align_corners=True)[0]
        values = values * inside.to(feature)
        out.append(values.view(-1, SIZE[0], rows, SIZE[1], columns).mean(dim=(2, 4)))
    return torch.stack(out)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_forward_matches_the_definition(way, ratio):
    features, (rois, levels) = make_maps(), make_rois()
    expected = one_by_one(features, rois, levels, ratio)
    torch.testing.assert_close(pool(way, features, rois, levels, ratio), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("way", GRAD_WAYS)
def test_backward_matches_autograd_through_the_definition(way, ratio):
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    expected = one_by_one(features, rois, levels, ratio)
    grad = torch.randn_like(expected)
    expected.backward(grad)
    found = unpool(way, grad, rois, levels, [f.shape for f in features], ratio)
    for feature, own in zip(features, found, strict=True):
        assert own.is_contiguous()
        torch.testing.assert_close(own, feature.grad, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("way", WAYS)
def test_without_rotation_it_is_the_upright_op(way):
    feature = make_maps()[0]
    rois = torch.tensor([[1, 14.0, 12.0, 18.0, 11.0, 0.0]], device=DEVICE)
    upright = torch.tensor([[1, 5.0, 6.5, 23.0, 17.5]], device=DEVICE)
    expected = torchvision.ops.roi_align(feature, upright, SIZE, 0.5, 2, True)
    torch.testing.assert_close(pool(way, [feature], rois, None, 2, scales=[0.5]), expected)


@pytest.mark.parametrize("way", WAYS)
def test_quarter_turns_turn_the_output(way):
    feature = make_maps()[0]
    rois = torch.tensor([[0, 14.0, 12.0, 10.0, 10.0, a] for a in (0.0, 90.0, 180.0, 360.0)], device=DEVICE)
    plain, quarter, half, whole = pool(way, [feature], rois, None, 2, size=(4, 4), scales=[0.5])
    torch.testing.assert_close(quarter, plain.rot90(-1, dims=(1, 2)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(half, plain.rot90(2, dims=(1, 2)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_reduced_precision_rounds_once(way, dtype):
    features, (rois, levels) = make_maps(dtype=dtype), make_rois()
    expected = pool("reference", [f.float() for f in features], rois, levels, 0).to(dtype)
    found = pool(way, features, rois, levels, 0)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=torch.finfo(dtype).eps, atol=1e-4)


@needs_triton
@pytest.mark.parametrize("way", ["triton_gather", "triton_scatter"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_gradient_adds_in_float32(way, dtype):
    rois, levels = make_rois()
    shapes = [f.shape for f in make_maps()]
    grad = torch.randn(rois.shape[0], 5, *SIZE, device=DEVICE).to(dtype)
    expected = unpool("reference", grad.float(), rois, levels, shapes, 0)
    for a, b in zip(unpool(way, grad, rois, levels, shapes, 0), expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_any_memory_layout(way):
    features, (rois, levels) = make_maps(), make_rois()
    expected = pool("reference", features, rois, levels, 2)
    last = [f.to(memory_format=torch.channels_last) for f in features]
    found = pool(way, last, rois.T.contiguous().T, levels, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def bad_rois():
    nan, inf = math.nan, math.inf
    rows = [[0, 9.0, 9.0, 8.0, 6.0, 20.0] for _ in range(12)]
    for k, value in enumerate((nan, inf, -inf, nan, inf, nan)):
        rows[k][k] = value
    rows[6][0], rows[7][0] = 2, -1  # no such image
    rows[8][3] = 3e38
    rows[9][4] = 1e6  # a million samples in a column
    levels = torch.tensor([0] * 10 + [7, 1], device=DEVICE)  # no such level, and a good one
    return torch.tensor(rows, device=DEVICE), levels


@pytest.mark.parametrize("way", WAYS)
def test_unusable_regions_give_zeros(way):
    features, (rois, levels) = make_maps(channels=2), bad_rois()
    found = pool(way, features, rois, levels, 0)
    assert (found[:-1] == 0).all()
    expected = one_by_one(features, rois[-1:], levels[-1:], 0)
    torch.testing.assert_close(found[-1:], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", GRAD_WAYS)
def test_unusable_regions_send_no_gradient(way):
    rois, levels = bad_rois()
    shapes = [f.shape for f in make_maps(channels=2)]
    grad = torch.ones(rois.shape[0], 2, *SIZE, device=DEVICE)
    found = unpool(way, grad, rois, levels, shapes, 0)
    assert (found[0] == 0).all()
    torch.testing.assert_close(found[1].sum(), grad[-1:].sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_to_pool(way):
    features, (rois, levels) = make_maps(), make_rois()
    assert pool(way, features, rois[:0], levels[:0], 0).shape == (0, 5, *SIZE)
    assert (pool(way, [f[:0] for f in features], rois, levels, 0) == 0).all()


@pytest.mark.parametrize("way", GRAD_WAYS)
def test_nothing_to_send_back(way):
    rois, levels = make_rois()
    shapes = [f.shape for f in make_maps()]
    none = torch.zeros(0, 5, *SIZE, device=DEVICE)
    for own, shape in zip(unpool(way, none, rois[:0], levels[:0], shapes, 0), shapes, strict=True):
        assert own.shape == shape and (own == 0).all()
    no_images = [(0, *shape[1:]) for shape in shapes]
    grad = torch.ones(6, 5, *SIZE, device=DEVICE)
    assert [g.shape[0] for g in unpool(way, grad, rois, levels, no_images, 0)] == [0, 0]


def test_gradients_in_float64():
    features = [f.double().requires_grad_() for f in make_maps(channels=2)]
    rois, levels = make_rois(torch.float64)

    def pooled(*maps):
        return roi_align_rotated(maps, rois, output_size=(2, 2), spatial_scales=SCALES, levels=levels)

    assert torch.autograd.gradcheck(pooled, features, fast_mode=True)
    assert torch.autograd.gradgradcheck(pooled, features, fast_mode=True)


def test_registration():
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    op = torch.ops.hydet.roi_align_rotated.default
    torch.library.opcheck(op, (features, rois, levels, *SIZE, list(SCALES), 0))
    grad = torch.randn(6, 5, *SIZE, device=DEVICE, requires_grad=True)
    op = torch.ops.hydet.roi_align_rotated_backward.default
    torch.library.opcheck(op, (grad, rois, levels, flatten_shapes(features), list(SCALES), 0))


@needs_triton
@pytest.mark.parametrize("deterministic", [False, True])
def test_determinism_picks_the_kernel_that_gathers(monkeypatch, deterministic):
    triton_impl = importlib.import_module("hydet.kernels.roi_align_rotated.triton_impl")
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
        found = roi_align_rotated(
            features, rois[:1], output_size=(1, 1), spatial_scales=SCALES, levels=levels[:1], sampling_ratio=1
        )
        torch.autograd.grad(found.sum(), features)
    finally:
        torch.use_deterministic_algorithms(was)
    assert asked == [deterministic]


class Pooler(torch.nn.Module):
    def forward(self, fine, coarse, rois, levels):
        return roi_align_rotated([fine, coarse], rois, output_size=SIZE, spatial_scales=SCALES, levels=levels)


def test_export_keeps_one_node():
    features, (rois, levels) = make_maps(), make_rois()
    count = torch.export.Dim("count")
    program = torch.export.export(
        Pooler(), (*features, rois, levels), dynamic_shapes=(None, None, {0: count}, {0: count})
    )
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("hydet.roi_align_rotated.default") == 1


@needs_compiler
def test_compiles_without_a_break():
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    compiled = torch.compile(Pooler(), fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(Pooler()(*features, rois, levels).sum(), features)
    found = torch.autograd.grad(compiled(*features, rois, levels).sum(), features)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_says_what_does_not_fit():
    features, (rois, levels) = make_maps(), make_rois()
    with pytest.raises(ValueError, match=r"rois must be \(R, 6\)"):
        roi_align_rotated(features, rois[:, :5], output_size=SIZE, spatial_scales=SCALES, levels=levels)
