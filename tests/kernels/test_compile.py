"""Every op is one node of a compiled or exported graph, and compiled code gives the same numbers."""

import shutil

import pytest
import torch

from hydet import kernels


def upright(count):
    corner = torch.rand(count, 2) * 40
    return torch.cat([corner, corner + 2 + torch.rand(count, 2) * 15], dim=1)


def rotated(count):
    return torch.rand(count, 5) * torch.tensor([40.0, 40, 15, 15, 360]) + torch.tensor([0.0, 0, 3, 3, 0])


def with_image(boxes):
    return torch.cat([torch.zeros(len(boxes), 1), boxes], dim=1)


def pool_upright(fine, coarse, boxes, levels):
    scales = [0.5, 0.25]
    return kernels.roi_align([fine, coarse], boxes, output_size=(3, 2), spatial_scales=scales, levels=levels)


def pool_rotated(fine, coarse, boxes, levels):
    scales = [0.5, 0.25]
    return kernels.roi_align_rotated(
        [fine, coarse], boxes, output_size=(3, 2), spatial_scales=scales, levels=levels
    )


def match(anchors, gt_boxes):
    return kernels.match_anchors(
        anchors, gt_boxes, thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
    )


def loss(fine, coarse, targets):
    return kernels.sigmoid_focal_loss([fine, coarse], targets, alpha=0.25)


def paste(masks, boxes):
    return kernels.paste_masks(masks, boxes, (41, 53))


def suppress(boxes, scores, groups):
    return kernels.nms_padded(boxes, scores, 0.3, groups=groups, max_outputs=4)


def suppress_rotated(boxes, scores, groups):
    return kernels.batched_nms_rotated(boxes, scores, groups, 0.3)


def suppress_rotated_padded(boxes, scores, groups):
    valid = scores > 0.1
    return kernels.nms_rotated_padded(boxes, scores, 0.3, groups=groups, valid=valid, max_outputs=4)


def convolve(x, weight, bias):
    return kernels.winograd_conv2d(x, weight, bias)


def convolve_transformed(x, weight, bias):
    return kernels.winograd_conv2d_transformed(x, weight, bias, relu=True)


def make_cases():
    torch.manual_seed(0)
    maps = torch.randn(1, 4, 13, 17), torch.randn(1, 4, 7, 9)
    levels, groups = torch.tensor([0, 1, 1, 0, 0]), torch.randint(0, 2, (9,))
    return {
        "roi_align": (pool_upright, (*maps, with_image(upright(5)), levels)),
        "roi_align_rotated": (pool_rotated, (*maps, with_image(rotated(5)), levels)),
        "box_iou_rotated": (kernels.box_iou_rotated, (rotated(5), rotated(4))),
        "nms_rotated": (suppress_rotated, (rotated(9), torch.rand(9), groups)),
        "nms_padded": (suppress, (upright(18).view(2, 9, 4), torch.rand(2, 9), groups.expand(2, -1))),
        "nms_rotated_padded": (
            suppress_rotated_padded, (rotated(18).view(2, 9, 5), torch.rand(2, 9), groups.expand(2, -1)),
        ),
        "match_anchors": (match, (upright(30), upright(4))),
        "sigmoid_focal_loss": (loss, (torch.randn(2, 6, 3), torch.randn(2, 2, 3), torch.randint(-1, 4, (2, 8)))),
        "paste_masks": (paste, (torch.rand(3, 7, 7), upright(3))),
        "winograd_conv2d": (convolve, (maps[0], torch.randn(5, 4, 3, 3), torch.randn(5))),
        "winograd_conv2d_transformed": (convolve_transformed, (maps[0], torch.randn(36, 4, 5), torch.randn(5))),
    }  # fmt: skip


class Call(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def count_nodes(graph, name):
    return sum(node.op == "call_function" and f"hydet.{name}." in str(node.target) for node in graph.nodes)


@pytest.mark.parametrize("name", make_cases())
def test_compiles_to_one_node_without_a_graph_break(name):
    function, args = make_cases()[name]
    graphs = []

    def record(module, example_inputs):
        graphs.append(module.graph)
        return module

    torch._dynamo.reset()
    result = torch.compile(Call(function), fullgraph=True, backend=record)(*args)
    torch.testing.assert_close(result, function(*args))
    assert [count_nodes(graph, name) for graph in graphs] == [1]
    hydet_nodes = [n for n in graphs[0].nodes if n.op == "call_function" and "hydet" in str(n.target)]
    assert len(hydet_nodes) == 1


@pytest.mark.parametrize("name", make_cases())
def test_exports_as_one_node(name):
    function, args = make_cases()[name]
    program = torch.export.export(Call(function), args)
    assert count_nodes(program.graph, name) == 1
    torch.testing.assert_close(program.module()(*args), function(*args))


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_inductor_compiles_all_ops():
    cases = make_cases()
    del cases["nms_rotated"]  # its output size is known at run time only; covered above

    def run_all(inputs):
        return {name: cases[name][0](*args) for name, args in inputs.items()}

    inputs = {name: args for name, (_, args) in cases.items()}
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(run_all, fullgraph=True)(inputs), run_all(inputs))
