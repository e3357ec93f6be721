"""Non-maximum suppression of upright boxes of several images."""

import pytest
import torch
from torchvision.ops import nms

from hydet.kernels import nms_padded
from hydet.kernels.nms_padded.op import _nms_padded
from hydet.kernels.nms_padded.reference import forward_reference

OP = "nms_padded"
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy, in the interpreter


def make_scene(num_images, count, *, classes=3):
    corner = (torch.rand(num_images, count, 2) * 100).round()
    boxes = torch.cat([corner, corner + (torch.rand(num_images, count, 2) * 40).round()], dim=-1)
    scores = (torch.rand(num_images, count) * 30).round()  # many ties, and some boxes without area
    groups = torch.randint(0, classes, (num_images, count))
    valid = torch.rand(num_images, count) < 0.8
    return boxes, scores, groups, valid


# 0.3 in float32 is above 0.3, so boxes with an IoU of 3/10 show how the comparison rounds.
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("optional", ["groups and valid", "groups", "valid", "neither"])
def test_matches_definition(forward, threshold, optional):
    boxes, scores, groups, valid = make_scene(2, 70)
    args = (
        boxes,
        scores,
        groups if "groups" in optional else None,
        valid if "valid" in optional else None,
        threshold,
        70,
    )
    torch.testing.assert_close(forward(*args), forward_reference(*args))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_definition_matches_torchvision_per_image_and_class(threshold):
    boxes, scores, groups, valid = make_scene(2, 70)
    indices, counts = forward_reference(boxes, scores, groups, valid, threshold, 70)
    for image in range(2):
        keep = []
        for group in groups[image].unique():
            rows = (valid[image] & (groups[image] == group)).nonzero()[:, 0]
            keep.append(rows[nms(boxes[image, rows], scores[image, rows], threshold)])
        keep = torch.cat(keep).sort()[0]
        expected = keep[scores[image, keep].argsort(descending=True, stable=True)]
        assert indices[image, : counts[image]].tolist() == expected.tolist()
        assert (indices[image, counts[image] :] == 0).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 0), (1, 1), (1, 32), (2, 33)])
def test_sizes(forward, shape):
    boxes, scores, _, _ = make_scene(*shape)
    args = (boxes, scores, None, None, 0.4, shape[1])
    indices, counts = forward(*args)
    assert indices.shape == shape and counts.shape == shape[:1]
    torch.testing.assert_close((indices, counts), forward_reference(*args))


def test_groups_of_any_size(forward, monkeypatch):
    from hydet.kernels.nms_padded import torch_impl, torchvision_impl

    monkeypatch.setattr(torch_impl, "PAIRS_PER_CHUNK", 200)
    monkeypatch.setattr(torchvision_impl, "PAIRS_PER_CHUNK", 200)
    monkeypatch.setattr(torchvision_impl, "SMALL_GROUP", 12)
    boxes, scores, _, valid = make_scene(2, 150)
    groups = (
        torch.rand(2, 150) ** 3 * 40
    ).long() - 7  # some groups have dozens of boxes, others a single one
    args = (boxes, scores, groups, valid, 0.3, 150)
    torch.testing.assert_close(forward(*args), forward_reference(*args))


def test_outputs_are_truncated_and_padded(forward):
    boxes, scores, groups, valid = make_scene(2, 40)
    indices, counts = forward(boxes, scores, groups, valid, 0.3, 40)
    truncated, truncated_counts = forward(boxes, scores, groups, valid, 0.3, 5)
    assert torch.equal(truncated, indices[:, :5])
    assert torch.equal(truncated_counts, counts.clamp(max=5))
    padded, padded_counts = forward(boxes, scores, groups, valid, 0.3, 50)
    assert torch.equal(padded[:, :40], indices) and (padded[:, 40:] == 0).all()
    assert torch.equal(padded_counts, counts)
    empty, empty_counts = forward(boxes, scores, groups, valid, 0.3, 0)
    assert empty.shape == (2, 0) and (empty_counts == 0).all()


def test_only_padding(forward):
    boxes, scores, groups, _ = make_scene(2, 20)
    _, counts = forward(boxes, scores, groups, torch.zeros(2, 20, dtype=torch.bool), 0.3, 20)
    assert counts.tolist() == [0, 0]


def test_non_finite_boxes_overlap_nothing(forward):
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(6, 1)
    boxes[1, 0], boxes[2, 2], boxes[3], boxes[4, 0] = torch.nan, torch.inf, torch.nan, -torch.inf
    args = (boxes[None], torch.arange(6, 0, -1.0)[None], None, None, 0.3, 6)
    indices, counts = forward(*args)
    assert indices[0, : counts[0]].tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close((indices, counts), forward_reference(*args))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_and_strides(forward, dtype):
    boxes, scores, groups, valid = make_scene(2, 30)
    boxes = boxes.to(dtype)
    expected = forward_reference(boxes, scores, groups, valid, 0.35, 30)
    strided = boxes.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    result = forward(strided, scores.to(dtype), groups.t().contiguous().t(), valid, 0.35, 30)
    torch.testing.assert_close(result, expected)


def test_threshold_is_rounded_down_to_float32():
    pytest.importorskip("triton")
    from hydet.kernels.nms_padded.triton_impl import round_down

    for threshold in (0.3, 0.5, 0.7, 0.0, 1.0):
        rounded = torch.tensor(round_down(threshold), dtype=torch.float32)
        next_float = torch.nextafter(rounded, torch.tensor(2.0))
        assert rounded.double() <= threshold < next_float.double()


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


def test_compiles_and_exports_with_static_shapes():
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
    other_args = make_scene(3, 20)[:3]
    torch.testing.assert_close(program.module()(*other_args), Model()(*other_args))


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
    expected = forward_reference(boxes.cpu(), scores.cpu(), groups.cpu(), valid.cpu(), 0.5, 100)
    assert torch.equal(indices.cpu(), expected[0]) and torch.equal(counts.cpu(), expected[1])
