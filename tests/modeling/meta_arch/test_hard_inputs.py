"""Training of every architecture on unusual inputs that real data contains.

Every trainable parameter must get a gradient from every batch: under DDP, the other processes would wait for a missing
gradient.
"""

import pytest
import torch

from hydet.structures import Instances, PolygonMasks

TINY_BOXES = [
    [10, 10, 11, 11],  # one pixel
    [20, 20, 20.5, 20.5],  # less than a pixel
    [33.2, 10, 33.7, 60],  # a line
    [0, 0, 1, 1],
    [95, 63, 96, 64],
    [95.5, 0, 96, 64],
    [0, 63.5, 96, 64],
    [0, 0, 96, 64],  # the whole image
]


def compute_gradients(model, batch, dtype=torch.float32):
    """Compute losses and gradients, check that they are finite, and return the losses."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        losses = model(batch)
    assert losses and all(value.isfinite() for value in losses.values()), losses
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, g in gradients.items() if g is None] == []
    assert [name for name, g in gradients.items() if not g.isfinite().all()] == []
    return losses


def test_every_parameter_gets_a_gradient(architecture):
    model = architecture.model()
    assert all(p.requires_grad for p in model.parameters())
    losses = compute_gradients(model, architecture.batch())
    assert all(value > 0 for value in losses.values())
    assert [name for name, p in model.named_parameters() if not p.grad.any()] == []


@pytest.mark.parametrize("counts", [(0, 0), (3, 0)])
def test_losses_of_images_without_objects_are_finite(architecture, counts):
    losses = compute_gradients(architecture.model(), architecture.batch(counts=counts))
    regression = [
        v for k, v in losses.items() if "box_reg" in k or "loc" in k or "mask" in k or "keypoint" in k
    ]
    assert all((value == 0) == (sum(counts) == 0) for value in regression)


@pytest.mark.parametrize(
    "architecture",
    ["cascade_mask_rcnn_fpn", "keypoint_rcnn_fpn", "mask_rcnn_c4", "panoptic_fpn"],
    indirect=True,
)
def test_images_without_objects_may_lack_ground_truth_fields(architecture):
    batch = architecture.batch(counts=(3, 0))
    boxes = batch[1]["instances"].gt_boxes
    batch[1]["instances"] = Instances((64, 96), gt_boxes=boxes, gt_classes=torch.zeros(0, dtype=torch.int64))
    compute_gradients(architecture.model(), batch)


def test_losses_of_tiny_boxes_and_of_boxes_on_the_border_are_finite(architecture):
    batch = [architecture.entry(boxes=TINY_BOXES), architecture.entry(boxes=TINY_BOXES[1:2])]
    compute_gradients(architecture.model(), batch)


def test_losses_of_five_hundred_objects_are_finite(architecture):
    compute_gradients(architecture.model(), architecture.batch(counts=(500, 1)))


@pytest.mark.parametrize(
    "architecture", ["cascade_rcnn_fpn", "fcos", "retinanet", "rotated_faster_rcnn_fpn"], indirect=True
)
def test_losses_of_identical_objects_are_finite(architecture):
    compute_gradients(architecture.model(), [architecture.entry(boxes=[[20, 10, 60, 50]] * 9)])


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(((40, 72), (64, 50)), id="different"),
        pytest.param(((7, 9), (5, 5)), id="below a stride"),
        pytest.param(((8, 128), (120, 6)), id="elongated"),
        pytest.param(((64, 96),), id="one image"),
    ],
)
def test_losses_of_unusual_image_sizes_are_finite(architecture, sizes):
    compute_gradients(architecture.model(), architecture.batch(sizes=sizes))


@pytest.mark.parametrize("counts", [(4, 3), (0, 0)])
def test_losses_without_proposals_are_finite(architecture, counts):
    if not architecture.has_boxes or architecture.dense:
        pytest.skip("has no proposals")
    model = architecture.model()
    compute_gradients(model, architecture.without_proposals(model, architecture.batch(counts=counts)))


def test_bfloat16_losses_are_float32_and_close(architecture):
    batch = architecture.batch()
    torch.manual_seed(2)
    exact = architecture.model()(batch)
    torch.manual_seed(2)
    losses = compute_gradients(architecture.model(), batch, dtype=torch.bfloat16)
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.1, abs=0.05), name


@pytest.mark.parametrize("architecture", ["keypoint_rcnn_fpn"], indirect=True)
def test_keypoint_loss_without_visible_keypoints_is_zero(architecture):
    batch = architecture.batch()
    for entry in batch:
        entry["instances"].gt_keypoints.tensor[..., 2] = 0
    assert compute_gradients(architecture.model(), batch)["loss_keypoint"] == 0


@pytest.mark.parametrize("architecture", ["mask_rcnn_fpn", "mask_rcnn_c4", "panoptic_fpn"], indirect=True)
def test_mask_loss_of_empty_masks_is_positive(architecture):
    batch = architecture.batch()
    for entry in batch:
        entry["instances"].gt_masks.tensor[:] = False
    assert compute_gradients(architecture.model(), batch)["loss_mask"] > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_errors_name_the_non_finite_image(architecture, value):
    model, batch = architecture.model(), architecture.batch()
    batch[1]["image"] = batch[1]["image"].float()
    model.compute_losses(batch)
    batch[1]["image"][1, 20, 30] = value
    for function in (model, model.losses_and_inference, model.inference):
        with pytest.raises(ValueError, match=r"1\.png: the image .* not finite"):
            function(batch)


def test_errors_name_the_degenerate_box(architecture):
    if not architecture.has_boxes:
        pytest.skip("has no boxes")
    model, batch = architecture.model(), architecture.batch()
    boxes = batch[1]["instances"].gt_boxes.tensor
    original = boxes.clone()
    no_width = 0.0 if architecture.rotated else boxes[2, 0].item()  # a width, or the right side of a box
    for wrong in (no_width, -1.0, float("nan"), float("inf")):
        boxes[2, 2] = wrong
        with pytest.raises(ValueError, match=r"1\.png: ground-truth box 2 is"):
            model(batch)
    boxes[:] = original
    model(batch)


def test_errors_name_the_class_out_of_range(architecture, tools):
    if not architecture.has_boxes or architecture.name.startswith("rpn"):
        pytest.skip("has no classes")
    batch = architecture.batch()
    for wrong in (-1, tools.num_classes):
        batch[1]["instances"].gt_classes[2] = wrong
        with pytest.raises(
            ValueError, match=rf"1\.png: ground-truth class {wrong} of box 2.* classes 0 to 2"
        ):
            architecture.model()(batch)


@pytest.mark.parametrize("architecture", ["semantic_fpn", "panoptic_fpn"], indirect=True)
@pytest.mark.parametrize("wrong", [-1, 5])
def test_errors_name_the_label_out_of_range(architecture, wrong):
    batch = architecture.batch()
    batch[1]["sem_seg"][3, 4] = wrong
    with pytest.raises(ValueError, match=rf"1\.png: sem_seg has label {wrong}.*0 to 4 or 255"):
        architecture.model()(batch)


@pytest.mark.parametrize(
    "architecture", ["mask_rcnn_fpn", "rpn_fpn", "rotated_faster_rcnn_fpn"], indirect=True
)
def test_errors_of_diverged_weights_name_the_files(architecture):
    model = architecture.model()
    with torch.no_grad():
        model.proposal_generator.rpn_head.anchor_deltas.bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"file_name 0\.png, file_name 1\.png: predicted boxes"):
        model(architecture.batch())


@pytest.mark.parametrize("architecture", ["fcos", "mask_rcnn_fpn"], indirect=True)
def test_many_objects_need_no_matrix_of_objects_and_regions(architecture, largest_result):
    model, count = architecture.model(), 2000
    entry = architecture.entry(
        (64, 96), torch.tensor([[0.0, 0, 20, 20]]).expand(count, 4) + 40 * torch.rand(count, 1)
    )
    squares = [[box[[0, 1, 2, 1, 2, 3, 0, 3]]] for box in entry["instances"].gt_boxes.tensor]
    entry["instances"].gt_masks = PolygonMasks(squares)
    weights = max(p.numel() for p in model.parameters())
    with largest_result() as largest:
        compute_gradients(model, [entry])
    # 2,000 objects and the boxes of 2,000 objects and more would make 4 million pairs.
    assert largest.numel < max(1_000_000, 1.1 * weights)
