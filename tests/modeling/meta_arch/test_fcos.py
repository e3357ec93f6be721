import pytest
import torch

from hydet.modeling import DefaultAnchorGenerator
from hydet.modeling.meta_arch import fcos as fcos_module
from hydet.structures import Boxes, Instances


def test_losses_of_tiny_objects_are_finite(fcos, dense_batch):
    batch = dense_batch((2, 0))
    batch[0]["instances"].gt_boxes = Boxes([[10.0, 10, 11, 11], [30, 30, 30.5, 60]])
    assert all(value.isfinite() for value in fcos()(batch).values())


def test_a_location_is_assigned_to_the_smallest_object(fcos):
    model = fcos(center_sampling_radius=100)
    anchors = model.anchor_generator([torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)])
    gt = Instances(
        (64, 64),
        gt_boxes=Boxes([[0.0, 0.0, 62.0, 30.0], [0.0, 0.0, 62.0, 29.9]]),
        gt_classes=torch.tensor([0, 1]),
    )
    labels, boxes = model.label_anchors(anchors, [gt])
    is_positive = labels[0] != model.num_classes
    assert is_positive.any()
    assert (labels[0][is_positive] == 1).all()  # areas differ by 6 square pixels
    assert (boxes[0][~is_positive] == 0).all()


def crowd(count, size):
    """Return random objects, each of them twice, so that areas tie."""
    corner = torch.rand(count, 2) * size
    boxes = torch.cat([corner, corner + 2 + size * torch.rand(count, 2)], dim=1).repeat(2, 1)
    return Instances((size, size), gt_boxes=Boxes(boxes), gt_classes=torch.arange(2 * count) % 3)


def test_labels_do_not_depend_on_the_size_of_tiles(fcos, monkeypatch):
    torch.manual_seed(0)
    model, gt = fcos(), crowd(40, 128)
    anchors = model.anchor_generator([torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 8, 8)])
    results = []
    for pairs in (1, 1000, 1 << 18):
        monkeypatch.setattr(fcos_module, "PAIRS_PER_TILE", pairs)
        results.append([tensor for (tensor,) in model.label_anchors(anchors, [gt])])
    assert (results[0][0] != model.num_classes).sum() > 50
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))
    # The first one of equal objects, as argmin over the whole matrix finds it.
    boxes = gt.gt_boxes.tensor
    is_positive = results[0][0] != model.num_classes
    index = (results[0][1][is_positive, None] == boxes).all(dim=2).int().argmax(dim=1)
    assert (index < 40).all()
    assert torch.equal(gt.gt_classes[index], results[0][0][is_positive])


def test_labels_of_many_objects_need_no_matrix_of_locations_and_objects(fcos, largest_result):
    model, gt = fcos(), crowd(1000, 256)
    anchors = model.anchor_generator([torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 16, 16)])
    with largest_result() as largest:
        model.label_anchors(anchors, [gt])
    assert largest.numel <= fcos_module.PAIRS_PER_TILE < 2000 * 1280


def test_centerness_is_one_in_the_center_and_zero_outside(fcos):
    anchors = [Boxes([[4.0, 4, 12, 12], [0, 4, 8, 12], [40, 40, 48, 48]])]
    matched = torch.tensor([[0.0, 0, 16, 16]]).expand(3, 4)
    targets = fcos().compute_ctrness_targets(anchors, [matched])
    assert targets[0].tolist() == pytest.approx([1.0, (4 / 12) ** 0.5, 0.0])


@torch.no_grad()
def test_the_product_score_multiplies_after_the_threshold(fcos, dense_batch):
    settings = {"test_score_thresh": 0.0, "test_nms_thresh": 1.0}
    model = fcos(test_score="product", **settings).eval()
    products = model.inference(dense_batch(), do_postprocess=False)[0]
    means = fcos(**settings).eval().inference(dense_batch(), do_postprocess=False)[0]
    torch.testing.assert_close(products.scores, means.scores**2)
    model.test_score_thresh = (
        float(products.scores.max()) * 1.01
    )  # class probabilities exceed it, products do not
    assert len(model.inference(dense_batch(), do_postprocess=False)[0]) > 0
    with pytest.raises(ValueError, match="test_score must be one of geometric_mean, product, got 'sum'"):
        fcos(test_score="sum")


def test_an_anchor_generator_moves_the_locations(fcos):
    anchors = DefaultAnchorGenerator(sizes=[[8], [16]], aspect_ratios=[1.0], strides=[8, 16], offset=0.0)
    first, _ = fcos(anchor_generator=anchors).anchor_generator(
        [torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1)]
    )
    assert first.get_centers().tolist() == [[0, 0], [8, 0], [0, 8], [8, 8]]
