import ast
from pathlib import Path

import torch

from hydet import modeling
from hydet.modeling.meta_arch.training_image import draw_boxes, draw_proposals
from hydet.structures import Boxes, Instances


def make_input():
    gt = Instances((30, 40), gt_boxes=Boxes([[5.0, 5, 20, 20]]))
    return {"image": torch.arange(3)[:, None, None].expand(3, 30, 40) * 10, "instances": gt}


def test_bgr_inputs_are_drawn_in_rgb():
    for input_format, color in (("BGR", [20, 10, 0]), ("RGB", [0, 10, 20])):
        image = draw_boxes(make_input(), torch.zeros(0, 4), input_format=input_format)
        assert image[:, 0, 0].tolist() == color
        assert image[:, 5, 10].tolist() == [0, 255, 0]  # the ground truth


def test_only_the_best_proposals_are_drawn():
    boxes = torch.tensor([[5.0, 5, 10, 10]]).repeat(30, 1)
    boxes[29] = torch.tensor([20.0, 20, 30, 28])
    proposals = Instances((30, 40), proposal_boxes=Boxes(boxes), objectness_logits=torch.arange(30.0))
    image = draw_proposals(make_input(), proposals, input_format="RGB")[:, :, 40:]
    assert image[:, 20, 25].tolist() == [255, 165, 0]
    proposals.remove("objectness_logits")
    image = draw_proposals(make_input(), proposals, input_format="RGB")[:, :, 40:]
    assert image[:, 20, 25].tolist() == [0, 10, 20]


def test_models_do_not_import_the_drawing_package():
    """Models draw only if the user logs images, so functions import the package, not modules."""
    importers = [
        path
        for path in Path(modeling.__file__).parent.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom) and "visualization" in ast.unparse(node)
    ]
    assert importers == []
