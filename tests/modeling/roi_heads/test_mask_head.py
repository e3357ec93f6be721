import pytest
import torch

from hydet.layers import ShapeSpec
from hydet.modeling import MaskRCNNConvUpsampleHead, mask_rcnn_inference, mask_rcnn_loss
from hydet.structures import BitMasks, Boxes, Instances, PolygonMasks

SIZE = (40, 50)


def head(num_classes=3, **options):
    shape = ShapeSpec(channels=4, height=5, width=5)
    return MaskRCNNConvUpsampleHead(input_shape=shape, num_classes=num_classes, conv_dims=[6, 6], **options)


def foreground(make, count, num_classes=3):
    found = make.targets(SIZE, count, num_classes=num_classes)
    found.proposal_boxes = Boxes(found.gt_boxes.tensor + torch.rand(count, 4))
    return found


def detections(make, count, num_classes=3):
    return Instances(
        SIZE,
        pred_boxes=Boxes(make.random_boxes(count, SIZE)),
        pred_classes=torch.randint(num_classes, (count,)),
    )


@pytest.mark.parametrize("training", [True, False])
def test_ground_truth_decides_between_losses_and_masks_not_the_mode(make, training):
    module = head().train(training)
    losses = module(torch.randn(3, 4, 5, 5), [foreground(make, 3)])
    assert set(losses) == {"loss_mask"}
    given = [detections(make, 2), detections(make, 0), detections(make, 1)]
    found = module(torch.randn(3, 4, 5, 5), given)
    assert [tuple(f.pred_masks.shape) for f in found] == [(2, 1, 10, 10), (0, 1, 10, 10), (1, 1, 10, 10)]
    assert not any(g.has("pred_masks") for g in given)


def test_perfect_logits_have_no_loss_and_inverted_ones_have_much(make):
    found = foreground(make, 4)
    targets = found.gt_masks.crop_and_resize(found.proposal_boxes.tensor, 10).float()
    logits = (targets * 200 - 100)[:, None].expand(-1, 3, -1, -1)
    assert mask_rcnn_loss(logits, [found]) < 1e-6
    assert mask_rcnn_loss(-logits, [found]) > 99


def test_only_the_true_class_gets_a_gradient(make):
    found = foreground(make, 3)
    logits = torch.randn(3, 3, 10, 10, requires_grad=True)
    mask_rcnn_loss(logits, [found]).backward()
    touched = logits.grad.flatten(2).abs().sum(dim=2) > 0
    assert touched.long().argmax(dim=1).tolist() == found.gt_classes.tolist()
    assert (touched.sum(dim=1) == 1).all()


def test_polygons_and_bitmaps_of_the_same_box_agree(make):
    boxes = torch.tensor([[4.0, 6, 20, 30], [10, 10, 42, 38]])
    polygons = PolygonMasks([[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()])
    logits, losses = torch.randn(2, 1, 14, 14), []
    for masks in (polygons, BitMasks.from_polygon_masks(polygons, *SIZE)):
        found = Instances(SIZE, proposal_boxes=Boxes(boxes), gt_classes=torch.zeros(2).long(), gt_masks=masks)
        losses.append(mask_rcnn_loss(logits, [found]))
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
def test_without_foreground_the_loss_is_a_zero_that_reaches_every_parameter(norm):
    shape = ShapeSpec(channels=4, height=5, width=5)
    module = MaskRCNNConvUpsampleHead(input_shape=shape, num_classes=3, conv_dims=[32, 6], conv_norm=norm)
    empty = Instances(SIZE, proposal_boxes=Boxes([]), gt_classes=torch.zeros(0).long())
    losses = module(torch.zeros(0, 4, 5, 5), [empty, empty])
    losses["loss_mask"].backward()
    assert losses["loss_mask"] == 0
    assert all(p.grad is not None and (p.grad == 0).all() for p in module.parameters())


def test_an_image_without_foreground_may_lack_the_fields(make):
    empty = Instances(SIZE, proposal_boxes=Boxes([]), gt_classes=torch.zeros(0).long())
    found, logits = foreground(make, 2), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(mask_rcnn_loss(logits, [empty, found]), mask_rcnn_loss(logits, [found]))


@pytest.mark.parametrize("channels", [1, 3])
def test_inference_picks_the_mask_of_the_class(make, channels):
    found, logits = [detections(make, 2), detections(make, 1)], torch.randn(3, channels, 6, 6)
    mask_rcnn_inference(logits, found)
    classes = torch.cat([f.pred_classes for f in found]) if channels > 1 else torch.zeros(3).long()
    expected = logits[torch.arange(3), classes].sigmoid()
    torch.testing.assert_close(torch.cat([f.pred_masks for f in found])[:, 0], expected)


def test_no_images():
    assert head()(torch.zeros(0, 4, 5, 5), []) == []


def test_pictures_come_every_so_many_training_steps(make):
    module, pictures = head(vis_period=2).train(), []
    module.on_picture = lambda name, picture: pictures.append(picture)
    for _ in range(4):
        module(torch.randn(3, 4, 5, 5), [foreground(make, 3)])
    assert len(pictures) == 2
    assert pictures[0].dtype == torch.uint8 and pictures[0].shape[0] == 3
    module.eval()(torch.randn(3, 4, 5, 5), [foreground(make, 3)])
    assert len(pictures) == 2


def test_wrong_arguments_are_refused(make):
    with pytest.raises(ValueError, match="conv_dims"):
        MaskRCNNConvUpsampleHead(input_shape=ShapeSpec(channels=4), num_classes=1, conv_dims=[])
    with pytest.raises(ValueError, match="channels"):
        MaskRCNNConvUpsampleHead(input_shape=ShapeSpec(), num_classes=1, conv_dims=[4])
    with pytest.raises(ValueError, match="square"):
        mask_rcnn_loss(torch.zeros(1, 3, 4, 5), [foreground(make, 1)])
