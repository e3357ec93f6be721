"""Pooling of upright regions."""

import importlib
import math
import shutil
from functools import partial

import pytest
import torch
import torchvision

from hydet.kernels import backends, roi_align, triton_available
from hydet.kernels.region_pooling.arguments import flatten_shapes
from hydet.kernels.roi_align.op import _choose_backend
from hydet.kernels.roi_align.reference import forward_reference
from hydet.kernels.roi_align.torch_impl import backward_torch, count_samples, forward_torch
from hydet.kernels.roi_align.torchvision_impl import backward_torchvision, forward_torchvision

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
            [0, 3.3, 4.1, 20.2, 15.0],
            [1, -6.0, -9.0, 12.0, 40.0],  # extends beyond the map
            [1, 9.0, 9.0, 9.0, 12.0],  # without width
            [0, 300.0, 300.0, 350.0, 320.0],  # outside of the map
            [0, 20.0, 18.0, 31.0, 25.0],
            [1, 2.0, 3.0, 33.0, 25.0],
        ],
        dtype=dtype,
        device=DEVICE,
    )
    levels = torch.tensor([0, 1, 0, 1, 1, 0], device=DEVICE)
    return rois, levels


def make_invalid_rois():
    nan, inf = math.nan, math.inf
    rows = [
        [0, nan, 1, 9, 9],
        [0, 1, -inf, 9, 9],
        [0, 1, 1, inf, 9],
        [nan, 1, 1, 9, 9],
        [inf, 1, 1, 9, 9],
        [2, 1, 1, 9, 9],  # image that does not exist
        [-1, 1, 1, 9, 9],
        [0, -3e38, -3e38, 3e38, 3e38],
        [0, 1, 1, 1e6, 9],  # a million samples per row
        [0, 1, 1, 9, 9],  # valid, on a level that does not exist
        [0, 1, 1, 9, 9],  # valid
    ]
    levels = torch.tensor([0] * 9 + [7, 1], device=DEVICE)
    return torch.tensor(rows, device=DEVICE), levels


def pool(backend, features, rois, levels, ratio, aligned):
    args = features, rois, levels, SIZE, SCALES, ratio, aligned
    if backend == "torch":
        return forward_torch(*args)
    if backend == "torchvision":
        return forward_torchvision(*args)
    from hydet.kernels.roi_align.triton_impl import launch_forward

    return launch_forward(*args)


def unpool(backend, grad, rois, levels, shapes, ratio, aligned):
    args = grad, rois, levels, shapes, SCALES, ratio, aligned
    if backend == "torch":
        return backward_torch(*args)
    if backend == "torchvision":
        return backward_torchvision(*args)
    from hydet.kernels.roi_align.triton_impl import launch_backward

    return launch_backward(*args, deterministic=backend == "triton_gather")


FORWARD_BACKENDS = ["torch", "torchvision", pytest.param("triton", marks=needs_triton)]
BACKWARD_BACKENDS = [
    "torch",
    "torchvision",
    pytest.param("triton_gather", marks=needs_triton),
    pytest.param("triton_scatter", marks=needs_triton),
]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_forward_matches_definition(backend, ratio, aligned):
    features, (rois, levels) = make_maps(), make_rois()
    expected = forward_reference(features, rois, levels, SIZE, SCALES, ratio, aligned)
    pooled = pool(backend, features, rois, levels, ratio, aligned)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("ratio", "aligned"), [(0, True), (0, False), (2, True)])
@pytest.mark.parametrize("backend", BACKWARD_BACKENDS)
def test_backward_matches_autograd_through_definition(backend, ratio, aligned):
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    expected = forward_reference(features, rois, levels, SIZE, SCALES, ratio, aligned)
    grad = torch.randn_like(expected)
    expected.backward(grad)
    grads = unpool(backend, grad, rois, levels, [f.shape for f in features], ratio, aligned)
    for feature, map_grad in zip(features, grads, strict=True):
        assert map_grad.is_contiguous()
        torch.testing.assert_close(map_grad, feature.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_definition_matches_torchvision_on_each_level(ratio, aligned):
    features, (rois, levels) = make_maps(), make_rois()
    pooled = forward_reference(features, rois, levels, SIZE, SCALES, ratio, aligned)
    for level, (feature, scale) in enumerate(zip(features, SCALES, strict=True)):
        on_level = levels == level
        expected = torchvision.ops.roi_align(feature, rois[on_level], SIZE, scale, ratio, aligned)
        torch.testing.assert_close(pooled[on_level], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_half_precision_rounds_once_and_keeps_the_precision_of_rois(backend, dtype):
    features, (rois, levels) = make_maps(dtype=dtype), make_rois()
    maps = [f.float() for f in features]
    expected = forward_reference(maps, rois, levels, SIZE, SCALES, 0, True).to(dtype)
    pooled = pool(backend, features, rois, levels, 0, True)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled, expected, rtol=torch.finfo(dtype).eps, atol=1e-4)


@needs_triton
@pytest.mark.parametrize("backend", ["triton_gather", "triton_scatter"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gradient_adds_in_float32(backend, dtype):
    rois, levels = make_rois()
    shapes = [f.shape for f in make_maps()]
    grad = torch.randn(rois.shape[0], 5, *SIZE, device=DEVICE).to(dtype)
    expected = unpool("torch", grad.float(), rois, levels, shapes, 0, True)
    for a, b in zip(unpool(backend, grad, rois, levels, shapes, 0, True), expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_any_memory_layout(backend):
    features, (rois, levels) = make_maps(), make_rois()
    expected = pool("torch", features, rois, levels, 2, True)
    channels_last = [f.to(memory_format=torch.channels_last) for f in features]
    strided = [torch.stack([f, f], dim=-1)[..., 0] for f in features]
    strided_rois = rois.T.contiguous().T
    for maps in (channels_last, strided):
        torch.testing.assert_close(
            pool(backend, maps, strided_rois, levels, 2, True), expected, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("backend", BACKWARD_BACKENDS)
def test_any_memory_layout_of_the_gradient(backend):
    rois, levels = make_rois()
    shapes = [f.shape for f in make_maps()]
    grad = torch.randn(6, 5, *SIZE, device=DEVICE)
    expected = unpool("torch", grad, rois, levels, shapes, 2, True)
    channels_last = grad.to(memory_format=torch.channels_last)
    for a, b in zip(
        unpool(backend, channels_last, rois.T.contiguous().T, levels, shapes, 2, True), expected, strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    expanded = torch.ones((), device=DEVICE).expand_as(grad)  # like the gradient of a sum
    expected = unpool("torch", expanded.contiguous(), rois, levels, shapes, 2, True)
    for a, b in zip(unpool(backend, expanded, rois, levels, shapes, 2, True), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_invalid_regions_give_zeros(backend, ratio):
    features, (rois, levels) = make_maps(channels=2), make_invalid_rois()
    pooled = pool(backend, features, rois, levels, ratio, True)
    assert torch.isfinite(pooled).all()
    if ratio > 0:  # a fixed number of samples allows a region of any length
        pooled, rois = pooled[[0, 1, 2, 3, 4, 5, 6, 7, 9, 10]], rois[[0, 1, 2, 3, 4, 5, 6, 7, 9, 10]]
    assert (pooled[:-1] == 0).all()
    expected = torchvision.ops.roi_align(features[1], rois[-1:], SIZE, SCALES[1], ratio, True)
    torch.testing.assert_close(pooled[-1:], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKWARD_BACKENDS)
def test_invalid_regions_have_no_gradient(backend):
    rois, levels = make_invalid_rois()
    shapes = [f.shape for f in make_maps(channels=2)]
    grad = torch.ones(rois.shape[0], 2, *SIZE, device=DEVICE)
    grads = unpool(backend, grad, rois, levels, shapes, 0, True)
    expected = unpool("torchvision", grad[-1:], rois[-1:], levels[-1:], shapes, 0, True)
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_no_regions_images_or_channels(backend):
    rois, levels = make_rois()
    features = make_maps()
    assert pool(backend, features, rois[:0], levels[:0], 0, True).shape == (0, 5, *SIZE)
    no_images = [f[:0] for f in features]
    assert (pool(backend, no_images, rois, levels, 0, True) == 0).all()
    assert pool(backend, no_images, rois[:0], levels[:0], 0, True).shape == (0, 5, *SIZE)
    no_channels = [f[:, :0] for f in features]
    assert pool(backend, no_channels, rois, levels, 0, True).shape == (6, 0, *SIZE)


@pytest.mark.parametrize("backend", BACKWARD_BACKENDS)
def test_backward_without_regions_or_images(backend):
    rois, levels = make_rois()
    shapes = [f.shape for f in make_maps()]
    empty = torch.zeros(0, 5, *SIZE, device=DEVICE)
    for map_grad, shape in zip(
        unpool(backend, empty, rois[:0], levels[:0], shapes, 0, True), shapes, strict=True
    ):
        assert map_grad.shape == shape
        assert (map_grad == 0).all()
    no_images = [(0, *shape[1:]) for shape in shapes]
    grad = torch.ones(6, 5, *SIZE, device=DEVICE)
    assert [g.shape[0] for g in unpool(backend, grad, rois, levels, no_images, 0, True)] == [0, 0]


def test_images_without_regions_get_a_zero_gradient():
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    roi_align(features, rois[:0], output_size=SIZE, spatial_scales=SCALES, levels=levels[:0]).sum().backward()
    assert all((f.grad == 0).all() for f in features)


def test_pooling_of_a_constant_map_is_constant():
    features = [torch.full((1, 2, 11, 12), 3.5, device=DEVICE)]
    rois = torch.tensor([[0, 4.0, 4.0, 30.0, 35.0]], device=DEVICE)
    pooled = roi_align(features, rois, output_size=(7, 5), spatial_scales=[0.25])
    torch.testing.assert_close(pooled, torch.full_like(pooled, 3.5))


def test_gradcheck():
    features = [f.double().requires_grad_() for f in make_maps(channels=2)]
    rois, levels = make_rois(torch.float64)

    def pooled(*maps):
        return roi_align(maps, rois, output_size=(2, 2), spatial_scales=SCALES, levels=levels)

    assert torch.autograd.gradcheck(pooled, features, fast_mode=True)
    assert torch.autograd.gradgradcheck(pooled, features, fast_mode=True)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck reads it
@pytest.mark.parametrize("channels_last", [False, True])
def test_registration(channels_last):
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    torch.library.opcheck(
        torch.ops.hydet.roi_align.default, (features, rois, levels, *SIZE, list(SCALES), 0, True)
    )
    grad = torch.randn(6, 5, *SIZE, device=DEVICE, requires_grad=True)
    shapes = flatten_shapes(features)
    torch.library.opcheck(
        torch.ops.hydet.roi_align_backward.default,
        (grad, rois, levels, shapes, list(SCALES), 0, True, channels_last),
    )


@pytest.mark.parametrize("backend", FORWARD_BACKENDS)
def test_every_backend_can_be_forced(monkeypatch, backend):
    monkeypatch.setenv("HYDET_KERNELS", backend)
    assert backends()["roi_align"][DEVICE] == backend
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    pooled = roi_align(features, rois, output_size=SIZE, spatial_scales=SCALES, levels=levels)
    pooled.square().sum().backward()
    expected_grads = unpool("torch", 2 * pooled.detach(), rois, levels, [f.shape for f in features], 0, True)
    for feature, expected_grad in zip(features, expected_grads, strict=True):
        torch.testing.assert_close(feature.grad, expected_grad, rtol=1e-5, atol=1e-4)


def test_count_samples():
    rois, _ = make_rois()
    rois = torch.cat([rois[4:5], rois[5:], torch.full_like(rois[:1], math.nan)])
    levels = torch.tensor([0, 1, 9], device=DEVICE)  # the last region is not finite and on no level
    # 3 x 2 bins of 3.5 x 5.5 and of 5.5 x 7.75 cells
    for ratio, samples_per_bin in ((2, 4 + 4), (0, 2 * 3 + 2 * 4)):
        expected = samples_per_bin * SIZE[0] * SIZE[1]
        assert count_samples(rois, levels, SIZE, SCALES, ratio, True) == expected


def test_torchvision_is_chosen_for_few_samples_on_a_cpu(monkeypatch):
    monkeypatch.delenv("HYDET_KERNELS", raising=False)
    like, shapes = torch.empty(0), [(1, 256, 100, 100), (1, 256, 50, 50)]
    assert _choose_backend((20, 256, 14, 14), shapes, like, lambda: 20 * 14 * 14) == "torchvision"
    assert _choose_backend((20, 256, 14, 14), shapes, like, lambda: 20 * 14 * 14 * 4) == "torch"
    assert _choose_backend((20, 3, 14, 14), shapes, like, lambda: 20 * 14 * 14 * 4) == "torchvision"
    assert _choose_backend((2, 256, 14, 14), shapes, like) == "torchvision"
    assert _choose_backend((20, 256, 14, 14), shapes, like) == "torch"
    # Maps that are stored channels last cost torch nothing, and torchvision a copy.
    assert _choose_backend((2, 256, 14, 14), shapes, like, lambda: 1, is_channels_last=True) == "torch"
    assert _choose_backend((2, 3, 14, 14), shapes, like, lambda: 1, is_channels_last=True) == "torchvision"


def test_backward_is_deterministic_on_request():
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    previous = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            pooled = roi_align(features, rois, output_size=SIZE, spatial_scales=SCALES, levels=levels)
            runs.append(torch.autograd.grad(pooled.sum(), features))
    finally:
        torch.use_deterministic_algorithms(previous)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@needs_triton
@pytest.mark.parametrize("deterministic", [False, True])
def test_determinism_selects_the_gather_kernel(monkeypatch, deterministic):
    triton_impl = importlib.import_module("hydet.kernels.roi_align.triton_impl")
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
        pooled = roi_align(
            features, rois[:1], output_size=(1, 1), spatial_scales=SCALES, levels=levels[:1], sampling_ratio=1
        )
        torch.autograd.grad(pooled.sum(), features)
    finally:
        torch.use_deterministic_algorithms(previous)
    assert deterministic_args == [deterministic]


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
def test_compiles_without_a_graph_break():
    features, (rois, levels) = [f.requires_grad_() for f in make_maps()], make_rois()
    module = Pooler()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(module(*features, rois, levels).sum(), features)
    grads = torch.autograd.grad(compiled(*features, rois, levels).sum(), features)
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_bad_arguments():
    features, (rois, levels) = make_maps(), make_rois()
    call = partial(roi_align, output_size=SIZE, spatial_scales=SCALES, levels=levels)
    with pytest.raises(ValueError, match=r"rois must be \(R, 5\)"):
        call(features, rois[:, :4])
    with pytest.raises(ValueError, match="spatial scales"):
        call(features[:1], rois)
    with pytest.raises(ValueError, match="same N and C"):
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
def test_any_number_of_channels(channels):
    features, (rois, levels) = [f.requires_grad_() for f in make_maps(channels)], make_rois()
    pooled = roi_align(features, rois, output_size=SIZE, spatial_scales=SCALES, levels=levels)
    expected = forward_reference(features, rois, levels, SIZE, SCALES, 0, True)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(pooled)
    grads, expected_grads = (torch.autograd.grad(out, features, grad) for out in (pooled, expected))
    torch.testing.assert_close(grads, expected_grads, rtol=1e-5, atol=1e-5)
