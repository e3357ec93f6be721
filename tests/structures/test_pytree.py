import io

import pytest
import torch
from torch.utils import _pytree as pytree

from hydet.structures import (
    BitMasks,
    Boxes,
    ImageList,
    Instances,
    Keypoints,
    PolygonMasks,
    ROIMasks,
    RotatedBoxes,
)

CONTAINERS = [
    Boxes(torch.rand(3, 4)),
    RotatedBoxes(torch.rand(3, 5)),
    BitMasks(torch.rand(3, 4, 5) > 0.5),
    ROIMasks(torch.rand(3, 7, 7)),
    Keypoints(torch.rand(3, 2, 3)),
    ImageList(torch.rand(2, 3, 8, 8), [(8, 5), (6, 8)]),
]


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: type(c).__name__)
def test_tensor_is_the_only_leaf(container):
    leaves, spec = pytree.tree_flatten(container)
    assert len(leaves) == 1 and leaves[0] is container.tensor
    restored = pytree.tree_unflatten([leaves[0] * 1], spec)
    assert type(restored) is type(container) and torch.equal(restored.tensor, container.tensor)
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec
    ((path, _),), _ = pytree.tree_flatten_with_path(container)
    assert pytree.keystr(path) == ".tensor"
    pytree.tree_map(lambda leaf: None, container)  # leaves need not stay tensors


def test_instances_nest():
    instances = Instances(
        (4, 5), boxes=CONTAINERS[0], scores=torch.rand(3), polygons=PolygonMasks([[], [], []])
    )
    leaves, spec = pytree.tree_flatten(instances)
    assert [type(leaf) for leaf in leaves] == [torch.Tensor, torch.Tensor, PolygonMasks]
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(instances)[0]]
    assert paths == [".boxes.tensor", ".scores", ".polygons"]
    doubled = pytree.tree_map_only(torch.Tensor, lambda t: 2 * t, instances)
    assert doubled.image_size == (4, 5)
    torch.testing.assert_close(doubled.boxes.area(), 4 * instances.boxes.area())


class Shift(torch.nn.Module):
    def forward(self, images: ImageList, boxes: Boxes) -> Instances:
        moved = Boxes(boxes.tensor + images.tensor.mean())
        moved.clip(images.image_sizes[0])
        return Instances(images.image_sizes[0], pred_boxes=moved, areas=moved.area())


def test_containers_pass_through_exported_program():
    images, boxes = CONTAINERS[-1], Boxes(torch.rand(5, 4) * 9)
    expected = Shift()(images, boxes)
    program = torch.export.export(Shift(), (images, boxes))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    detections = torch.export.load(file).module()(images, boxes)
    assert isinstance(detections, Instances) and detections.image_size == expected.image_size
    torch.testing.assert_close(detections.pred_boxes.tensor, expected.pred_boxes.tensor)
    torch.testing.assert_close(detections.areas, expected.areas)


def test_containers_trace_without_a_graph_break():
    compiled = torch.compile(Shift(), fullgraph=True, backend="eager")
    boxes = Boxes(torch.rand(5, 4) * 9)
    torch.testing.assert_close(compiled(CONTAINERS[-1], boxes).areas, Shift()(CONTAINERS[-1], boxes).areas)
