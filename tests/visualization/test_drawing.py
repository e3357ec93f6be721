from types import SimpleNamespace

import pytest
import torch

from hydet.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks, RotatedBoxes
from hydet.visualization import (
    draw_ground_truth,
    draw_instances,
    draw_panoptic,
    draw_predictions,
    draw_semantic,
)

META = SimpleNamespace(
    thing_classes=("cat", "dog"),
    stuff_classes=("things", "sky"),
    palette=((255, 0, 0), (0, 0, 255)),
    keypoint_names=("nose", "tail"),
    keypoint_skeleton=(("nose", "tail"),),
)


def grey(height=80, width=120):
    return torch.full((3, height, width), 127, dtype=torch.uint8)


def predictions(n=2, size=(80, 120), **extra):
    boxes = torch.tensor([[20.0, 20, 60, 60], [70, 30, 110, 70], [5, 5, 9, 9]])[:n]
    return Instances(
        size,
        pred_boxes=Boxes(boxes),
        pred_classes=torch.arange(n) % 2,
        scores=torch.linspace(0.9, 0.6, n),
        **extra,
    )


def changed(picture, image):
    return (picture != image).any(dim=0)


def test_boxes_are_drawn_where_they_are_and_the_image_stays():
    image = grey()
    before = image.clone()
    picture = draw_instances(image, predictions(1), META, labels=False, min_side=0)
    assert picture.shape == image.shape and picture.dtype == torch.uint8
    assert torch.equal(image, before)
    touched = changed(picture, image)
    assert touched[20, 30] and touched[40, 60] and not touched[40, 40] and not touched[:15].any()
    assert picture[:, 20, 40].tolist() == [255, 0, 0]  # the colour of class 0 in the metadata


def test_labels_and_scores_add_ink():
    image = grey()
    without = draw_instances(image, predictions(1), META, labels=False, min_side=0)
    assert changed(draw_instances(image, predictions(1), META, min_side=0), without).sum() > 50
    assert changed(draw_instances(image, predictions(1), None, min_side=0), without).any()


def test_score_threshold_and_number_of_objects():
    image = grey()
    assert torch.equal(draw_instances(image, predictions(), META, score_threshold=0.95, min_side=0), image)
    one = draw_instances(image, predictions(1), META, min_side=0)
    assert torch.equal(draw_instances(image, predictions(), META, max_instances=1, min_side=0), one)
    assert torch.equal(draw_instances(image, predictions(), META, score_threshold=0.8, min_side=0), one)


def test_order_of_objects_does_not_matter():
    image = grey()
    one = predictions(2)
    flipped = one[torch.tensor([1, 0])]
    assert torch.equal(draw_instances(image, one, META), draw_instances(image, flipped, META))


@pytest.mark.parametrize("kind", ["tensor", "bitmasks", "soft"])
def test_masks_tint_their_pixels(kind):
    masks = torch.zeros(2, 80, 120, dtype=torch.bool)
    masks[0, 25:55, 25:55] = True
    given = {"tensor": masks, "bitmasks": BitMasks(masks), "soft": torch.ones(2, 1, 14, 14)}[kind]
    picture = draw_instances(grey(), predictions(2, pred_masks=given), META, labels=False, min_side=0)
    assert picture[0, 40, 40] > 150 > picture[1, 40, 40]
    assert changed(picture, grey())[40, 40]


def test_rotated_boxes():
    boxes = RotatedBoxes([[60.0, 40, 40, 20, 45]])
    one = Instances((80, 120), pred_boxes=boxes, scores=torch.ones(1), pred_classes=torch.zeros(1).long())
    touched = changed(draw_instances(grey(), one, META, labels=False, min_side=0), grey())
    corner = (60 + 10 * 2**0.5 - 5 * 2**0.5, 40 - 10 * 2**0.5 - 5 * 2**0.5)  # of the turned box: up and right
    ys, xs = touched.nonzero().unbind(1)
    assert (xs - corner[0]).square().add((ys - corner[1]).square()).min() <= 4
    assert not touched[40, 60]


def test_keypoints_and_skeleton():
    points = torch.tensor([[[30.0, 30, 0.9], [50, 50, 0.9]], [[80.0, 40, 0.9], [100, 60, 0.0]]])
    one = predictions(2, pred_keypoints=points)
    plain = draw_instances(grey(), predictions(2), META, labels=False, min_side=0)
    touched = changed(draw_instances(grey(), one, META, labels=False, min_side=0), plain)
    assert touched[30, 30] and touched[40, 40] and touched[40, 80]
    assert not touched[60, 100] and not touched[50, 90]  # too low a score: neither point nor bone
    by_index = SimpleNamespace(thing_classes=(), keypoint_skeleton=[(0, 1)], palette=META.palette)
    again = draw_instances(grey(), one, by_index, labels=False, min_side=0)
    assert torch.equal(changed(again, plain), touched)


def test_predictions_in_another_frame_are_rescaled():
    half = predictions(1)
    half.pred_boxes.scale(0.5, 0.5)
    half = Instances((40, 60), **half.get_fields())
    expected = draw_instances(grey(), predictions(1), META, min_side=0)
    assert torch.equal(draw_instances(grey(), half, META, min_side=0), expected)


def test_small_pictures_are_enlarged_unless_asked_not_to_be():
    image = grey(24, 32)
    one = Instances((24, 32), pred_boxes=Boxes([[4.0, 4, 20, 20]]), scores=torch.ones(1))
    assert draw_instances(image, one, META).shape == (3, 240, 320)
    assert draw_instances(image, one, META, min_side=0).shape == (3, 24, 32)


def test_nothing_to_draw_and_odd_boxes():
    image = grey()
    assert torch.equal(draw_instances(image, predictions(0), META, min_side=0), image)
    assert torch.equal(draw_instances(image, Instances((80, 120)), META, min_side=0), image)
    odd = torch.tensor(
        [[float("nan")] * 4, [-1e9, -1e9, 1e9, 1e9], [60, 60, 20, 20], [5, 5, 5, 5], [500, 9, 600, 20]]
    )
    one = Instances((80, 120), pred_boxes=Boxes(odd), scores=torch.ones(5), pred_classes=torch.full((5,), 7))
    assert draw_instances(image, one, META).shape == (3, 213, 320)
    proposals = Instances(
        (80, 120), proposal_boxes=Boxes([[4.0, 4, 20, 20]]), objectness_logits=-torch.ones(1)
    )
    assert changed(draw_instances(image, proposals, META, min_side=0), image).any()


@pytest.mark.parametrize("image", [torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.uint8), None])
def test_what_is_no_picture_is_refused(image):
    with pytest.raises((TypeError, ValueError), match="picture"):
        draw_instances(image, predictions(), META)


def record(**extra):
    square = [20.0, 20, 60, 20, 60, 60, 20, 60]
    code = {"size": [80, 120], "counts": [80 * 70 + 30, 40, 80 * 50 - 70]}
    fields = {
        "image": grey(),
        "boxes": torch.tensor([[20.0, 20, 60, 60], [70, 30, 71, 70], [90, 10, 110, 30]]),
        "classes": torch.tensor([0, 1, 1]),
        "iscrowd": torch.tensor([False, True, False]),
        "segments": [[square], code, None],
        "keypoints": torch.tensor([[[30.0, 30, 2], [50, 50, 1]]] * 3),
        "rotated_boxes": None,
        "sem_seg": None,
        "panoptic_seg": None,
    }
    return SimpleNamespace(**{**fields, **extra})


def test_a_record_and_the_model_input_made_of_it_look_alike():
    kept = record(iscrowd=None, keypoints=None)
    kept.segments = [kept.segments[0]] * 3
    instances = Instances(
        (80, 120),
        gt_boxes=Boxes(kept.boxes),
        gt_classes=kept.classes,
        gt_masks=PolygonMasks([kept.segments[0]] * 3),
    )
    picture = draw_ground_truth({"image": kept.image, "instances": instances}, META)
    assert torch.equal(picture, draw_ground_truth(kept, META))
    assert changed(picture, draw_ground_truth(kept, META, labels=False)).any()


def test_a_record_may_bring_its_own_metadata_and_masks():
    plain = draw_ground_truth(record(iscrowd=None), META)
    assert torch.equal(draw_ground_truth(record(iscrowd=None, metadata=META)), plain)
    masks = torch.zeros(3, 80, 120, dtype=torch.bool)
    without = draw_ground_truth(record(segments=None), META)
    assert torch.equal(draw_ground_truth(record(segments=None, masks=masks), META), without)
    masks[2, 12:28, 92:108] = True
    assert changed(draw_ground_truth(record(segments=None, masks=masks), META), without).any()


def test_crowd_keypoints_and_run_length_codes():
    picture = draw_ground_truth(record(), META, labels=False, min_side=0)
    touched = changed(picture, grey())
    assert touched[30:70, 70].any() and touched[40, 30]
    plain = draw_ground_truth(record(iscrowd=None), META, labels=False, min_side=0)
    assert changed(picture, plain).any()
    turned = record(rotated_boxes=torch.tensor([[40.0, 40, 30, 10, 30]] * 3))
    assert not changed(draw_ground_truth(turned, META, labels=False, min_side=0), picture).any()
    assert changed(draw_ground_truth(turned, META, rotated=True, labels=False, min_side=0), picture).any()
    instances = Instances(
        (80, 120), gt_boxes=Boxes(torch.ones(1, 4)), gt_keypoints=Keypoints(record().keypoints[:1])
    )
    points = draw_ground_truth({"image": grey(), "instances": instances}, META, min_side=0)
    assert changed(points, grey())[30, 30]


def test_semantic_maps():
    regions = torch.zeros(80, 120, dtype=torch.int64)
    regions[:, 60:] = 1
    regions[:40, :60] = 255
    picture = draw_semantic(grey(), regions, META, labels=False)
    touched = changed(picture, grey())
    assert not touched[:35, :55].any() and touched[45:, :55].all() and touched[:, 65:].all()
    logits = torch.stack([(regions != 1).float(), (regions == 1).float()])
    assert draw_semantic(grey(), logits, META).shape == (3, 80, 120)
    assert torch.equal(draw_semantic(grey(), torch.full((80, 120), 255), META), grey())
    shown = draw_ground_truth(record(sem_seg=regions), META, layers="semantic", labels=False, min_side=0)
    assert torch.equal(shown, picture)


def test_panoptic_maps():
    ids = torch.zeros(80, 120, dtype=torch.int32)
    ids[10:40, 10:40], ids[60:] = 3, 7
    segments = [
        {"id": 3, "category_id": 1, "isthing": True, "score": 0.8},
        {"id": 7, "category_id": 1, "isthing": False, "area": 2400},
        {"id": 9, "category_id": 0, "isthing": True},  # has no pixels
    ]
    picture = draw_panoptic(grey(), ids, segments, META, labels=False)
    touched = changed(picture, grey())
    assert touched[20, 20] and touched[70].all() and not touched[45:55].any()
    output = {"panoptic_seg": (ids, segments), "instances": predictions(1), "sem_seg": torch.rand(2, 80, 120)}
    shown = draw_predictions(grey(), output, META, labels=False, min_side=0)
    assert torch.equal(shown, picture)
    both = draw_predictions(grey(), output, META, layers=("instances", "panoptic"), labels=False, min_side=0)
    assert torch.equal(both, draw_instances(picture, predictions(1), META, labels=False, min_side=0))
    assert draw_panoptic(grey(), ids, [], META).equal(grey())


def test_layers_that_are_not_there():
    with pytest.raises(ValueError, match="one of"):
        draw_ground_truth(record(), META, layers=("depth",))
    with pytest.raises(ValueError, match="nothing to draw for layer 'panoptic'"):
        draw_ground_truth(record(), META, layers=("panoptic",))
    with pytest.raises(ValueError, match="with an image"):
        draw_ground_truth({"instances": predictions()}, META)
    assert draw_ground_truth({"image": grey()}, META, min_side=0).equal(grey())
