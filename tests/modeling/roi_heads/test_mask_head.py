from functools import partial

import pytest
import torch

from hydet.layers import ShapeSpec
from hydet.modeling import (
    BaseMaskRCNNHead,
    MaskHeadEnsemble,
    MaskRCNNConvUpsampleHead,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from hydet.modeling.roi_heads import mask_head
from hydet.structures import BitMasks, Boxes, Instances, PolygonMasks

SIZE = (40, 50)


def head(num_classes=3, **options):
    shape = ShapeSpec(channels=4, height=5, width=5)
    return MaskRCNNConvUpsampleHead(input_shape=shape, num_classes=num_classes, conv_dims=[6, 6], **options)


def foreground(make, count, num_classes=3):
    proposals = make.targets(SIZE, count, num_classes=num_classes)
    proposals.proposal_boxes = Boxes(proposals.gt_boxes.tensor + torch.rand(count, 4))
    return proposals


def detections(make, count, num_classes=3):
    return Instances(
        SIZE,
        pred_boxes=Boxes(make.random_boxes(count, SIZE)),
        pred_classes=torch.randint(num_classes, (count,)),
    )


@pytest.mark.parametrize("training", [True, False])
def test_ground_truth_selects_losses_in_any_mode(make, training):
    module = head().train(training)
    losses = module(torch.randn(3, 4, 5, 5), [foreground(make, 3)])
    assert set(losses) == {"loss_mask"}
    given = [detections(make, 2), detections(make, 0), detections(make, 1)]
    results = module(torch.randn(3, 4, 5, 5), given)
    assert [tuple(f.pred_masks.shape) for f in results] == [(2, 1, 10, 10), (0, 1, 10, 10), (1, 1, 10, 10)]
    assert not any(g.has("pred_masks") for g in given)


def test_loss_is_zero_for_perfect_logits_and_large_for_inverted_logits(make):
    proposals = foreground(make, 4)
    targets = proposals.gt_masks.crop_and_resize(proposals.proposal_boxes.tensor, 10).float()
    logits = (targets * 200 - 100)[:, None].expand(-1, 3, -1, -1)
    assert mask_rcnn_loss(logits, [proposals]) < 1e-6
    assert mask_rcnn_loss(-logits, [proposals]) > 99


def test_loss_trains_the_ground_truth_class_only(make):
    proposals = foreground(make, 3)
    logits = torch.randn(3, 3, 10, 10, requires_grad=True)
    mask_rcnn_loss(logits, [proposals]).backward()
    touched = logits.grad.flatten(2).abs().sum(dim=2) > 0
    assert touched.long().argmax(dim=1).tolist() == proposals.gt_classes.tolist()
    assert (touched.sum(dim=1) == 1).all()


def test_polygons_and_bitmaps_give_the_same_loss(make):
    boxes = torch.tensor([[4.0, 6, 20, 30], [10, 10, 42, 38]])
    polygons = PolygonMasks([[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()])
    logits, losses = torch.randn(2, 1, 14, 14), []
    for masks in (polygons, BitMasks.from_polygon_masks(polygons, *SIZE)):
        proposals = Instances(
            SIZE, proposal_boxes=Boxes(boxes), gt_classes=torch.zeros(2).long(), gt_masks=masks
        )
        losses.append(mask_rcnn_loss(logits, [proposals]))
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
def test_loss_without_foreground_is_a_connected_zero(norm):
    shape = ShapeSpec(channels=4, height=5, width=5)
    module = MaskRCNNConvUpsampleHead(input_shape=shape, num_classes=3, conv_dims=[32, 6], conv_norm=norm)
    empty = Instances(SIZE, proposal_boxes=Boxes([]), gt_classes=torch.zeros(0).long())
    losses = module(torch.zeros(0, 4, 5, 5), [empty, empty])
    losses["loss_mask"].backward()
    assert losses["loss_mask"] == 0
    assert all(p.grad is not None and (p.grad == 0).all() for p in module.parameters())


def test_image_without_foreground_may_lack_fields(make):
    empty = Instances(SIZE, proposal_boxes=Boxes([]), gt_classes=torch.zeros(0).long())
    proposals, logits = foreground(make, 2), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(
        mask_rcnn_loss(logits, [empty, proposals]), mask_rcnn_loss(logits, [proposals])
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_inference_selects_the_mask_of_the_predicted_class(make, channels):
    instances, logits = [detections(make, 2), detections(make, 1)], torch.randn(3, channels, 6, 6)
    mask_rcnn_inference(logits, instances)
    classes = torch.cat([f.pred_classes for f in instances]) if channels > 1 else torch.zeros(3).long()
    expected = logits[torch.arange(3), classes].sigmoid()
    torch.testing.assert_close(torch.cat([f.pred_masks for f in instances])[:, 0], expected)


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_masks_of_the_predicted_class_alone_are_the_same(monkeypatch, make, num_classes, count):
    monkeypatch.setattr(mask_head, "HIDDEN_SIZE", 2 * 5 * 5 * 4 * 6)  # two regions at a time
    module, x = head(num_classes=num_classes), torch.randn(count, 4, 5, 5)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    instances = [detections(make, count, num_classes=3)]
    expected = module(x, instances)[0].pred_masks
    module.predicts_class_only = True
    with torch.no_grad():
        torch.testing.assert_close(module(x, instances)[0].pred_masks, expected)
    assert module.predict_logits(x, instances[0].pred_classes).requires_grad


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("counts", [[1], [4, 0, 3], [0]])
def test_loss_of_masks_of_the_true_class_alone_has_the_same_gradients(monkeypatch, make, num_classes, counts):
    monkeypatch.setattr(mask_head, "HIDDEN_SIZE", 2 * 5 * 5 * 4 * 6)  # two regions at a time
    module, x = head(num_classes=num_classes), torch.randn(sum(counts), 4, 5, 5, requires_grad=True)
    proposals = [foreground(make, count) for count in counts]
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)

    def loss_and_gradients():
        loss = module(x, proposals)["loss_mask"]
        return loss, *torch.autograd.grad(loss, [x, *module.parameters()])

    expected = loss_and_gradients()
    module.predicts_class_only = True
    torch.testing.assert_close(loss_and_gradients(), expected)


def test_an_empty_batch_gives_no_instances():
    assert head()(torch.zeros(0, 4, 5, 5), []) == []


def test_vis_period_is_stored_and_checked():
    assert head(vis_period=2).vis_period == 2 and head().vis_period == 0
    with pytest.raises(ValueError, match="vis_period"):
        head(vis_period=-1)


def test_subclass_only_needs_layers(make):
    class PlainHead(BaseMaskRCNNHead):
        def __init__(self):
            super().__init__(loss_weight=2.0)
            self.predictor = torch.nn.Conv2d(4, 3, 1)

        def layers(self, x):
            return self.predictor(x)

    plain, x, proposals = PlainHead(), torch.randn(3, 4, 5, 5), [foreground(make, 3)]
    expected = 2 * mask_rcnn_loss(plain.layers(x), proposals)
    torch.testing.assert_close(plain(x, proposals)["loss_mask"], expected)
    with pytest.raises(TypeError, match="abstract"):
        BaseMaskRCNNHead()


def test_invalid_arguments_raise(make):
    with pytest.raises(ValueError, match="conv_dims"):
        MaskRCNNConvUpsampleHead(input_shape=ShapeSpec(channels=4), num_classes=1, conv_dims=[])
    with pytest.raises(ValueError, match="channels"):
        MaskRCNNConvUpsampleHead(input_shape=ShapeSpec(), num_classes=1, conv_dims=[4])
    with pytest.raises(ValueError, match="square"):
        mask_rcnn_loss(torch.zeros(1, 3, 4, 5), [foreground(make, 1)])


def test_an_ensemble_averages_probabilities():
    heads = [head(), head()]
    ensemble, x = MaskHeadEnsemble(heads=heads), torch.randn(2, 4, 5, 5)
    expected = (heads[0].layers(x).sigmoid() + heads[1].layers(x).sigmoid()) / 2
    torch.testing.assert_close(ensemble.layers(x).sigmoid(), expected)
    assert ensemble.num_classes == 3
    built = MaskHeadEnsemble(
        heads=[partial(MaskRCNNConvUpsampleHead, num_classes=2, conv_dims=[6])] * 3,
        input_shape=ShapeSpec(channels=4, height=5, width=5),
    )
    assert len(built.heads) == 3
    with pytest.raises(ValueError, match="equal classes"):
        MaskHeadEnsemble(heads=[head(), head(num_classes=2)])
