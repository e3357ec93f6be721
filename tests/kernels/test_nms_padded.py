"""Suppression of upright boxes of several images, padded."""

import pytest
import torch
from torchvision.ops import nms

from hydet.kernels import nms_padded
from hydet.kernels.nms.op import _nms_padded
from hydet.kernels.nms.reference import nms_padded_reference, nms_padded_torchvision

pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy, in the interpreter

TRITON = ["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]


def triton_device_of(name):
    pytest.importorskip("triton")
    if name == "interpreter" and torch.cuda.is_available():
        pytest.skip("kernels are compiled on this machine, so the interpreter is off")
    return torch.device("cpu" if name == "interpreter" else "cuda")


def make_scene(num_images, count, *, classes=3):
    corner = (torch.rand(num_images, count, 2) * 100).round()
    boxes = torch.cat([corner, corner + (torch.rand(num_images, count, 2) * 40).round()], dim=-1)
    scores = (torch.rand(num_images, count) * 30).round()  # many ties, and empty boxes
    groups = torch.randint(0, classes, (num_images, count))
    valid = torch.rand(num_images, count) < 0.8
    return boxes, scores, groups, valid


def one_by_one(boxes, scores, groups, valid, threshold):
    """Survivors of one image by torchvision, class after class."""
    kept = []
    for group in groups.unique():
        rows = (valid & (groups == group)).nonzero()[:, 0]
        kept.append(rows[nms(boxes[rows], scores[rows], threshold)])
    kept = torch.cat(kept).sort()[0] if kept else torch.empty(0, dtype=torch.int64)
    return kept[scores[kept].argsort(descending=True, stable=True)]


@pytest.fixture(params=["reference", "torchvision", *TRITON])
def suppress(request):
    if request.param in ("interpreter", "cuda"):
        device = triton_device_of(request.param)
        from hydet.kernels.nms.triton_impl import launch_nms_padded

        def run(*args):
            moved = [a.to(device) if isinstance(a, torch.Tensor) else a for a in args]
            return tuple(t.cpu() for t in launch_nms_padded(*moved))

        return run
    return nms_padded_reference if request.param == "reference" else nms_padded_torchvision


# 0.3 as float32 is above 0.3: boxes whose IoU is 3/10 show how the comparison rounds
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_same_as_torchvision(suppress, threshold):
    boxes, scores, groups, valid = make_scene(2, 70)
    indices, counts = suppress(boxes, scores, groups, valid, threshold, 70)
    for image in range(2):
        expected = one_by_one(boxes[image], scores[image], groups[image], valid[image], threshold)
        assert indices[image, : counts[image]].tolist() == expected.tolist()
        assert (indices[image, counts[image] :] == 0).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 0), (1, 1), (1, 32), (2, 33)])
def test_sizes(suppress, shape):
    boxes, scores, _, _ = make_scene(*shape)
    indices, counts = suppress(boxes, scores, None, None, 0.4, shape[1])
    assert indices.shape == shape and counts.shape == shape[:1]
    for image in range(shape[0]):
        expected = nms(boxes[image], scores[image], 0.4)
        assert indices[image, : counts[image]].tolist() == expected.tolist()


def test_groups_of_every_size(suppress, monkeypatch):
    from hydet.kernels.nms import reference

    monkeypatch.setattr(reference, "SMALL_GROUP", 12)
    monkeypatch.setattr(reference, "PAIRS_PER_CHUNK", 200)
    boxes, scores, _, valid = make_scene(2, 150)
    groups = (torch.rand(2, 150) ** 3 * 40).long() - 7  # some have dozens of boxes, some one
    indices, counts = suppress(boxes, scores, groups, valid, 0.3, 150)
    for image in range(2):
        expected = one_by_one(boxes[image], scores[image], groups[image], valid[image], 0.3)
        assert indices[image, : counts[image]].tolist() == expected.tolist()


def test_outputs_are_cut_and_padded(suppress):
    boxes, scores, groups, valid = make_scene(2, 40)
    every, counts = suppress(boxes, scores, groups, valid, 0.3, 40)
    few, few_counts = suppress(boxes, scores, groups, valid, 0.3, 5)
    assert few.shape == (2, 5) and (few_counts == counts.clamp(max=5)).all()
    assert torch.equal(few, every[:, :5])
    more, more_counts = suppress(boxes, scores, groups, valid, 0.3, 50)
    assert torch.equal(more[:, :40], every) and (more[:, 40:] == 0).all() and torch.equal(more_counts, counts)
    none, no_counts = suppress(boxes, scores, groups, valid, 0.3, 0)
    assert none.shape == (2, 0) and (no_counts == 0).all()


def test_all_padding(suppress):
    boxes, scores, groups, _ = make_scene(2, 20)
    _, counts = suppress(boxes, scores, groups, torch.zeros(2, 20, dtype=torch.bool), 0.3, 20)
    assert counts.tolist() == [0, 0]


def test_non_finite_boxes_overlap_nothing(suppress):
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(6, 1)
    boxes[1, 0], boxes[2, 2], boxes[3], boxes[4, 0] = torch.nan, torch.inf, torch.nan, -torch.inf
    indices, counts = suppress(boxes[None], torch.arange(6, 0, -1.0)[None], None, None, 0.3, 6)
    assert indices[0, : counts[0]].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_and_strides(suppress, dtype):
    boxes, scores, groups, valid = make_scene(2, 30)
    expected = nms_padded_reference(boxes.to(dtype).float(), scores, groups, valid, 0.35, 30)
    strided = boxes.to(dtype).permute(2, 1, 0).contiguous().permute(2, 1, 0)
    got = suppress(strided, scores.to(dtype), groups.t().contiguous().t(), valid, 0.35, 30)
    assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])


@pytest.mark.parametrize("bitwise", [False, True])
def test_both_ways_to_join_words(triton_device, bitwise):
    from hydet.kernels.nms.suppression_triton import launch_suppression

    mask = torch.zeros(1, 2, 40, dtype=torch.int32)
    mask[0, 1, 0] = 1 << 3  # box 0 overlaps box 35, which overlaps box 39
    mask[0, 1, 35] = 1 << 7
    mask[0, 0, 1] = -(1 << 31)  # box 1 overlaps box 31
    alive = torch.ones(1, 40, dtype=torch.bool)
    alive[0, 20] = False
    keep = launch_suppression(mask.to(triton_device), alive.to(triton_device), bitwise=bitwise)[0]
    assert (~keep).nonzero()[:, 0].tolist() == [20, 31, 35]


def test_round_down():
    pytest.importorskip("triton")
    from hydet.kernels.nms.triton_impl import round_down

    for threshold in (0.3, 0.5, 0.7, 0.0, 1.0):
        rounded = torch.tensor(round_down(threshold), dtype=torch.float32)
        above = torch.nextafter(rounded, torch.tensor(2.0))
        assert rounded.double() <= threshold < above.double()


def test_bad_arguments():
    boxes, scores, groups, valid = make_scene(2, 5)
    with pytest.raises(ValueError, match=r"boxes must be \(B, N, 4\)"):
        nms_padded(boxes[0], scores[0], 0.5)
    with pytest.raises(ValueError, match="groups must be"):
        nms_padded(boxes, scores, 0.5, groups=groups[:1])
    with pytest.raises(TypeError, match="valid must be bool"):
        nms_padded(boxes, scores, 0.5, valid=valid.float())
    with pytest.raises(ValueError, match="max_outputs"):
        nms_padded(boxes, scores, 0.5, max_outputs=-1)


def test_registration():
    boxes, scores, groups, valid = make_scene(2, 9)
    torch.library.opcheck(_nms_padded, (boxes, scores, groups, valid, 0.5, 4))
    torch.library.opcheck(_nms_padded, (boxes, scores, None, None, 0.5, 9))


def test_compiles_and_exports_with_fixed_shapes():
    class Model(torch.nn.Module):
        def forward(self, boxes, scores, groups):
            indices, counts = nms_padded(boxes, scores, 0.5, groups=groups, max_outputs=6)
            return boxes.gather(1, indices[..., None].expand(-1, -1, 4)), counts

    args = make_scene(2, 12)[:3]
    expected = Model()(*args)
    torch.testing.assert_close(torch.compile(Model(), fullgraph=True, backend="aot_eager")(*args), expected)
    dims = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Model(), args, dynamic_shapes=(dims, dims, dims))
    torch.testing.assert_close(program.module()(*args), expected)
    other = make_scene(3, 20)[:3]
    torch.testing.assert_close(program.module()(*other), Model()(*other))


@pytest.mark.gpu
def test_runs_in_a_cuda_graph():
    boxes, scores, groups, valid = (t.cuda() for t in make_scene(2, 500))
    run = lambda: nms_padded(boxes, scores, 0.5, groups=groups, valid=valid, max_outputs=100)  # noqa: E731
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        indices, counts = run()
    boxes.copy_(make_scene(2, 500)[0])
    graph.replay()
    expected = nms_padded_reference(boxes.cpu(), scores.cpu(), groups.cpu(), valid.cpu(), 0.5, 100)
    assert torch.equal(indices.cpu(), expected[0]) and torch.equal(counts.cpu(), expected[1])
