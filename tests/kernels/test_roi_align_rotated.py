"""Pooling of rotated regions."""

import importlib
import math
import shutil

import pytest
import torch
import torch.nn.functional as F
import torchvision

from hydet.kernels import roi_align_rotated, triton_available
from hydet.kernels.region_pooling.arguments import flatten_shapes
from hydet.kernels.roi_align_rotated.reference import forward_reference
from hydet.kernels.roi_align_rotated.torch_impl import backward_torch, forward_torch

needs_triton = pytest.mark.skipif(not triton_available(), reason="needs Triton")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SCALES = (0.5, 0.25)
SIZE = (3, 2)
# NumPy, in the interpreter
pytestmark = [
    pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"),
]


def make_maps(channels=5, dtype=torch.float32):
    return [torch.randn(2, channels, *size, device=DEVICE).to(dtype) for size in ((13, 17), (7, 9))]


def make_rois(dtype=torch.float32):
    rois = torch.tensor(
        [
            [0, 12.3, 9.1, 17.2, 11.0, 30.0],
            [1, 3.0, 15.0, 40.0, 50.0, -75.0],  # extends beyond the map
            [1, 9.0, 9.0, 3.0, 5.0, 200.0],
            [0, 300.0, 300.0, 20.0, 20.0, 10.0],  # outside of the map
            [0, 20.0, 18.0, 11.0, 25.0, 90.0],
            [1, 18.0, 13.0, 33.0, 25.0, 0.0],
        ],
        dtype=dtype,
        device=DEVICE,
    )
    levels = torch.tensor([0, 1, 0, 1, 1, 0], device=DEVICE)
    return rois, levels


def pool(backend, features, rois, levels, ratio, size=SIZE, scales=SCALES):
    args = features, rois, levels, size, scales, ratio
    if backend == "torch":
        return forward_torch(*args)
    from hydet.kernels.roi_align_rotated.triton_impl import launch_forward

    return launch_forward(*args)


def unpool(backend, grad, rois, levels, shapes, ratio, scales=SCALES):
    args = grad, rois, levels, shapes, scales, ratio
    if backend == "torch":
        return backward_torch(*args)
    from hydet.kernels.roi_align_rotated.triton_impl import launch_backward

    return launch_backward(*args, deterministic=backend == "triton_gather")


FORWARD_BACKENDS = ["torch", pytest.param("triton", marks=needs_triton)]
BACKWARD_BACKENDS = [
    "torch",
    pytest.param("triton_gather", marks=needs_triton),
    pytest.param("triton_scatter", marks=needs_triton),
]


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_forward_matches_definition(backend, ratio):
    features, (rois, levels) = make_maps(), make_rois()
    expected = forward_reference(features, rois, levels, SIZE, SCALES, ratio)
    torch.testing.assert_close(pool(backend, features, rois, levels, ratio), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("backend", BACKWARD_BACKENDS)
def test_backward_matches_autograd_through_definition(backend, ratio):
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    expected = forward_reference(features, rois, levels, SIZE, SCALES, ratio)
    grad = torch.randn_like(expected)
    expected.backward(grad)
    grads = unpool(backend, grad, rois, levels, [f.shape for f in features], ratio)
    for feature, map_grad in zip(features, grads, strict=True):
        assert map_grad.is_contiguous()
        torch.testing.assert_close(map_grad, feature.grad, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("ratio", [1, 2])
def test_definition_matches_grid_sample(ratio):
    feature = make_maps()[0]
    rois = torch.tensor([[1, 12.3, 9.1, 17.2, 11.0, 30.0]], device=DEVICE)
    cx, cy, width, height = (rois[0, 1:5] * 0.5).tolist()
    v = (torch.arange(SIZE[0] * ratio) + 0.5) / (SIZE[0] * ratio) * height - height / 2
    u = (torch.arange(SIZE[1] * ratio) + 0.5) / (SIZE[1] * ratio) * width - width / 2
    v, u = torch.meshgrid(v, u, indexing="ij")
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    x, y = u * cos + v * sin + cx, v * cos - u * sin + cy  # cells, with edges at integers
    grid = torch.stack([2 * x / feature.shape[3] - 1, 2 * y / feature.shape[2] - 1], dim=2).to(feature)
    values = F.grid_sample(feature[1:], grid[None], padding_mode="border", align_corners=False)[0]
    expected = values.view(1, -1, SIZE[0], ratio, SIZE[1], ratio).mean(dim=(3, 5))
    pooled = forward_reference([feature], rois, None, SIZE, [0.5], ratio)
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_regions_without_rotation_equal_upright_regions(backend):
    feature = make_maps()[0]
    rois = torch.tensor([[1, 14.0, 12.0, 18.0, 11.0, 0.0]], device=DEVICE)
    upright = torch.tensor([[1, 5.0, 6.5, 23.0, 17.5]], device=DEVICE)
    expected = torchvision.ops.roi_align(feature, upright, SIZE, 0.5, 2, True)
    torch.testing.assert_close(pool(backend, [feature], rois, None, 2, scales=[0.5]), expected)


@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_quarter_turns_rotate_the_output(backend):
    feature = make_maps()[0]
    rois = torch.tensor([[0, 14.0, 12.0, 10.0, 10.0, a] for a in (0.0, 90.0, 180.0, 360.0)], device=DEVICE)
    plain, quarter, half, whole = pool(backend, [feature], rois, None, 2, size=(4, 4), scales=[0.5])
    torch.testing.assert_close(quarter, plain.rot90(-1, dims=(1, 2)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(half, plain.rot90(2, dims=(1, 2)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_half_precision_rounds_once(backend, dtype):
    features, (rois, levels) = make_maps(dtype=dtype), make_rois()
    maps = [f.float() for f in features]
    expected = forward_reference(maps, rois, levels, SIZE, SCALES, 0).to(dtype)
    pooled = pool(backend, features, rois, levels, 0)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled, expected, rtol=torch.finfo(dtype).eps, atol=1e-4)


@needs_triton
@pytest.mark.parametrize("backend", ["triton_gather", "triton_scatter"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gradient_adds_in_float32(backend, dtype):
    rois, levels = make_rois()
    shapes = [f.shape for f in make_maps()]
    grad = torch.randn(rois.shape[0], 5, *SIZE, device=DEVICE).to(dtype)
    expected = unpool("torch", grad.float(), rois, levels, shapes, 0)
    for a, b in zip(unpool(backend, grad, rois, levels, shapes, 0), expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_any_memory_layout(backend):
    features, (rois, levels) = make_maps(), make_rois()
    expected = pool("torch", features, rois, levels, 2)
    channels_last = [f.to(memory_format=torch.channels_last) for f in features]
    pooled = pool(backend, channels_last, rois.T.contiguous().T, levels, 2)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)


def make_invalid_rois():
    nan, inf = math.nan, math.inf
    rows = [[0, 9.0, 9.0, 8.0, 6.0, 20.0] for _ in range(12)]
    for k, value in enumerate((nan, inf, -inf, nan, inf, nan)):
        rows[k][k] = value
    rows[6][0], rows[7][0] = 2, -1  # images that do not exist
    rows[8][3] = 3e38
    rows[9][4] = 1e6  # a million samples per column
    levels = torch.tensor([0] * 10 + [7, 1], device=DEVICE)  # a level that does not exist, and a valid region
    return torch.tensor(rows, device=DEVICE), levels


@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_invalid_regions_give_zeros(backend):
    features, (rois, levels) = make_maps(channels=2), make_invalid_rois()
    pooled = pool(backend, features, rois, levels, 0)
    assert (pooled[:-1] == 0).all()
    expected = forward_reference(features, rois[-1:], levels[-1:], SIZE, SCALES, 0)
    torch.testing.assert_close(pooled[-1:], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKWARD_BACKENDS)
def test_invalid_regions_have_no_gradient(backend):
    rois, levels = make_invalid_rois()
    shapes = [f.shape for f in make_maps(channels=2)]
    grad = torch.ones(rois.shape[0], 2, *SIZE, device=DEVICE)
    grads = unpool(backend, grad, rois, levels, shapes, 0)
    assert (grads[0] == 0).all()
    torch.testing.assert_close(grads[1].sum(), grad[-1:].sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_no_regions_or_images(backend):
    features, (rois, levels) = make_maps(), make_rois()
    assert pool(backend, features, rois[:0], levels[:0], 0).shape == (0, 5, *SIZE)
    assert (pool(backend, [f[:0] for f in features], rois, levels, 0) == 0).all()


@pytest.mark.parametrize("backend", BACKWARD_BACKENDS)
def test_backward_without_regions_or_images(backend):
    rois, levels = make_rois()
    shapes = [f.shape for f in make_maps()]
    empty = torch.zeros(0, 5, *SIZE, device=DEVICE)
    for map_grad, shape in zip(unpool(backend, empty, rois[:0], levels[:0], shapes, 0), shapes, strict=True):
        assert map_grad.shape == shape and (map_grad == 0).all()
    no_images = [(0, *shape[1:]) for shape in shapes]
    grad = torch.ones(6, 5, *SIZE, device=DEVICE)
    assert [g.shape[0] for g in unpool(backend, grad, rois, levels, no_images, 0)] == [0, 0]


def test_gradcheck():
    features = [f.double().requires_grad_() for f in make_maps(channels=2)]
    rois, levels = make_rois(torch.float64)

    def pooled(*maps):
        return roi_align_rotated(maps, rois, output_size=(2, 2), spatial_scales=SCALES, levels=levels)

    assert torch.autograd.gradcheck(pooled, features, fast_mode=True)
    assert torch.autograd.gradgradcheck(pooled, features, fast_mode=True)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck reads it
@pytest.mark.parametrize("channels_last", [False, True])
def test_registration(channels_last):
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    op = torch.ops.hydet.roi_align_rotated.default
    torch.library.opcheck(op, (features, rois, levels, *SIZE, list(SCALES), 0))
    grad = torch.randn(6, 5, *SIZE, device=DEVICE, requires_grad=True)
    op = torch.ops.hydet.roi_align_rotated_backward.default
    torch.library.opcheck(op, (grad, rois, levels, flatten_shapes(features), list(SCALES), 0, channels_last))


@needs_triton
@pytest.mark.parametrize("deterministic", [False, True])
def test_determinism_selects_the_gather_kernel(monkeypatch, deterministic):
    triton_impl = importlib.import_module("hydet.kernels.roi_align_rotated.triton_impl")
    launch, deterministic_args = triton_impl.launch_backward, []

    def recording(*args):
        deterministic_args.append(args[-1])
        return launch(*args)

    monkeypatch.setattr(triton_impl, "launch_backward", recording)
    monkeypatch.setenv("HYDET_KERNELS", "triton")
    features, (rois, levels) = [f.requires_grad_() for f in make_maps(1)], make_rois()
    previous = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        pooled = roi_align_rotated(
            features, rois[:1], output_size=(1, 1), spatial_scales=SCALES, levels=levels[:1], sampling_ratio=1
        )
        torch.autograd.grad(pooled.sum(), features)
    finally:
        torch.use_deterministic_algorithms(previous)
    assert deterministic_args == [deterministic]


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
def test_compiles_without_a_graph_break():
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    compiled = torch.compile(Pooler(), fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(Pooler()(*features, rois, levels).sum(), features)
    grads = torch.autograd.grad(compiled(*features, rois, levels).sum(), features)
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_bad_arguments():
    features, (rois, levels) = make_maps(), make_rois()
    with pytest.raises(ValueError, match=r"rois must be \(R, 6\)"):
        roi_align_rotated(features, rois[:, :5], output_size=SIZE, spatial_scales=SCALES, levels=levels)
