from types import SimpleNamespace

import pytest
import torch

from hydet.structures import BitMasks, Boxes, Instances, RotatedBoxes
from hydet.visualization import draw_instances
from hydet.visualization.instances import _label_text
from hydet.visualization.objects import objects_from_predictions
from hydet.visualization.vocabulary import Vocabulary

from .conftest import METADATA, changed_pixels, make_gray, make_predictions


def draw(image, instances, **options):
    return draw_instances(image, instances, METADATA, **({"labels": False, "min_side": 0} | options))


def test_boxes_are_drawn_at_their_edges_and_the_image_stays(gray):
    before = gray.clone()
    drawn = draw(gray, make_predictions(1))
    assert drawn.shape == gray.shape and drawn.dtype == torch.uint8 and torch.equal(gray, before)
    changed = changed_pixels(drawn, gray)
    assert changed[20, 30] and changed[40, 60] and not changed[40, 40] and not changed[:15].any()
    assert drawn[:, 20, 40].tolist() == [255, 0, 0]  # the color of class 0 in the metadata


def test_labels_are_drawn_with_and_without_metadata(gray):
    plain = draw(gray, make_predictions(1))
    assert changed_pixels(draw(gray, make_predictions(1), labels=True), plain).sum() > 50
    assert changed_pixels(draw_instances(gray, make_predictions(1), min_side=0), plain).any()


def test_score_threshold_and_number_of_objects(gray):
    assert torch.equal(draw(gray, make_predictions(), score_threshold=0.95), gray)
    first = draw(gray, make_predictions(1))
    assert torch.equal(draw(gray, make_predictions(), max_instances=1), first)
    assert torch.equal(draw(gray, make_predictions(), score_threshold=0.8), first)


def test_the_order_of_objects_does_not_matter(gray):
    instances = make_predictions(2)
    reversed_order = instances[torch.tensor([1, 0])]
    assert torch.equal(draw(gray, instances, labels=True), draw(gray, reversed_order, labels=True))


@pytest.mark.parametrize("kind", ["tensor", "bitmasks", "regions"])
def test_masks_tint_their_pixels(gray, kind):
    masks = torch.zeros(2, 80, 120, dtype=torch.bool)
    masks[0, 25:55, 25:55] = True
    pred_masks = {"tensor": masks, "bitmasks": BitMasks(masks), "regions": torch.ones(2, 1, 14, 14)}[kind]
    drawn = draw(gray, make_predictions(2, pred_masks=pred_masks))
    assert drawn[0, 40, 40] > 150 > drawn[1, 40, 40]


def test_rotated_boxes(gray):
    boxes = RotatedBoxes([[60.0, 40, 40, 20, 45]])
    instances = Instances(
        (80, 120), pred_boxes=boxes, scores=torch.ones(1), pred_classes=torch.zeros(1).long()
    )
    changed = changed_pixels(draw(gray, instances), gray)
    corner = (60 + 10 * 2**0.5 - 5 * 2**0.5, 40 - 10 * 2**0.5 - 5 * 2**0.5)  # upper right, after the rotation
    ys, xs = changed.nonzero().unbind(1)
    assert (xs - corner[0]).square().add((ys - corner[1]).square()).min() <= 4
    assert not changed[40, 60]


def test_keypoints_and_skeleton(gray):
    points = torch.tensor([[[30.0, 30, 0.9], [50, 50, 0.9]], [[80.0, 40, 0.9], [100, 60, 0.0]]])
    instances = make_predictions(2, pred_keypoints=points)
    without = draw(gray, make_predictions(2))
    changed = changed_pixels(draw(gray, instances), without)
    assert changed[30, 30] and changed[40, 40] and changed[40, 80]
    assert not changed[60, 100] and not changed[50, 90]  # the score is too low for the point and its line
    by_index = SimpleNamespace(thing_classes=(), keypoint_skeleton=[(0, 1)], palette=METADATA.palette)
    again = draw_instances(gray, instances, by_index, labels=False, min_side=0)
    assert torch.equal(changed_pixels(again, without), changed)


def test_predictions_in_another_frame_are_rescaled(gray):
    half = make_predictions(1)
    half.pred_boxes.scale(0.5, 0.5)
    half = Instances((40, 60), **half.get_fields())
    assert torch.equal(draw(gray, half, labels=True), draw(gray, make_predictions(1), labels=True))


def test_small_images_are_enlarged_to_min_side():
    image = make_gray(24, 32)
    instances = Instances((24, 32), pred_boxes=Boxes([[4.0, 4, 20, 20]]), scores=torch.ones(1))
    assert draw_instances(image, instances).shape == (3, 240, 320)
    assert draw_instances(image, instances, min_side=0).shape == (3, 24, 32)


@pytest.mark.parametrize("instances", [make_predictions(0), Instances((80, 120))])
def test_no_objects(gray, instances):
    assert torch.equal(draw(gray, instances), gray)


def test_degenerate_boxes_and_unknown_classes(gray):
    nan = float("nan")
    boxes = [[nan] * 4, [-1e9, -1e9, 1e9, 1e9], [60, 60, 20, 20], [5, 5, 5, 5], [500, 9, 600, 20]]
    instances = Instances(
        (80, 120),
        pred_boxes=Boxes(torch.tensor(boxes)),
        scores=torch.ones(5),
        pred_classes=torch.full((5,), 7),
    )
    assert draw_instances(gray, instances, METADATA).shape == (3, 213, 320)


def test_proposals_are_not_filtered_by_score(gray):
    boxes = Boxes([[4.0, 4, 20, 20]])
    proposals = Instances((80, 120), proposal_boxes=boxes, objectness_logits=-torch.ones(1))
    assert changed_pixels(draw(gray, proposals), gray).any()


def test_tracked_objects_have_their_number_in_the_label():
    instances = Instances(
        (100, 100),
        pred_boxes=Boxes([[10.0, 40, 60, 90]] * 2),
        pred_classes=torch.tensor([0, 0]),
        scores=torch.tensor([0.9, 0.8]),
        track_ids=torch.tensor([7, -1]),
    )
    objects = objects_from_predictions(instances, (100, 100), 0.0)
    vocabulary = Vocabulary(thing_classes=("cat",))
    assert [_label_text(objects, i, vocabulary) for i in range(2)] == ["7: cat 0.90", "cat 0.80"]
