"""Test-time augmentation: one untouched picture changes nothing, results agree with what they were merged from."""

import pytest
import torch

import hydet
from hydet.modeling import (
    DatasetMapperTTA,
    DenseDetectorWithTTA,
    GeneralizedRCNNWithTTA,
    PanopticFPNWithTTA,
    SemanticSegmentorWithTTA,
    make_tta,
)

SMALL = [
    "size.pyramid_channels=32",
    "size.fc_channels=32",
    "size.mask_conv_dims=[16,16]",
    "size.dense_conv_dims=[64]",
]
WRAPPERS = {
    "retinanet": DenseDetectorWithTTA,
    "fcos": DenseDetectorWithTTA,
    "mask_rcnn_fpn": GeneralizedRCNNWithTTA,
    "cascade_rcnn_fpn": GeneralizedRCNNWithTTA,
    "mask_rcnn_c4": GeneralizedRCNNWithTTA,
    "panoptic_fpn": PanopticFPNWithTTA,
    "semantic_fpn": SemanticSegmentorWithTTA,
}


@pytest.fixture(scope="module")
def build():
    """A small model with random weights, which finds something everywhere."""
    models = {}

    def built(name):
        if name not in models:
            torch.manual_seed(0)
            more = ["backbone=r50_slim"] if name.endswith("c4") else []
            model = hydet.instantiate(hydet.compose(f"model={name}", *more, *SMALL).model)
            with torch.no_grad():  # or batch normalisation lets random weights explode
                model.inference([entry(), entry()])
            model.eval()
            for module in model.modules():
                if hasattr(module, "test_score_thresh"):
                    module.test_score_thresh = 0.0
            models[name] = model
        return models[name]

    return built


def entry(height=64, width=96):
    return {
        "image": (torch.rand(3, height, width) * 255).byte(),
        "height": height,
        "width": width,
        "image_id": 1,
    }


def as_it_is():
    return DatasetMapperTTA(min_sizes=[64], max_size=1000, flip=False)


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_wrapper_fits_the_model_and_one_untouched_picture_changes_nothing(name, build):
    model = build(name)
    wrapped = make_tta(model=model, tta_mapper=as_it_is())
    assert type(wrapped) is WRAPPERS[name]
    batch = [entry(), entry()]
    with torch.no_grad():
        plain, augmented = model.inference(batch), wrapped(batch)
    for a, b in zip(plain, augmented, strict=True):
        assert a.keys() == b.keys()
        if "sem_seg" in a:
            torch.testing.assert_close(b["sem_seg"].exp(), a["sem_seg"].softmax(0), atol=1e-5, rtol=1e-4)
        if "instances" in a:
            assert set(a["instances"].get_fields()) == set(b["instances"].get_fields())
            # Suppressed twice: what is left can only be less.
            assert 0 < len(b["instances"]) <= len(a["instances"])
            assert b["instances"].scores[0] == pytest.approx(float(a["instances"].scores[0]), abs=1e-6)
            torch.testing.assert_close(
                b["instances"].pred_boxes.tensor[0], a["instances"].pred_boxes.tensor[0], atol=1e-3, rtol=0
            )


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_mirrored_picture_gives_mirrored_results(name, build):
    """Sizes whose strides divide the width, so that a mirror image sees the same grid."""
    wrapped = make_tta(
        model=build(name), tta_mapper=DatasetMapperTTA(min_sizes=[64, 128], max_size=1000, flip=True)
    )
    one = entry(64, 64)
    mirrored = {**one, "image": one["image"].flip(2)}
    (a,), (b,) = wrapped([one]), wrapped([mirrored])
    if "sem_seg" in a:
        torch.testing.assert_close(a["sem_seg"], b["sem_seg"].flip(2), atol=1e-4, rtol=1e-4)
    if "instances" in a:
        x1, y1, x2, y2 = b["instances"].pred_boxes.tensor[0].tolist()
        assert a["instances"].pred_boxes.tensor[0].tolist() == pytest.approx(
            [64 - x2, y1, 64 - x1, y2], abs=0.01
        )
        if a["instances"].has("pred_masks"):
            assert a["instances"].pred_masks.shape[1:] == (64, 64)


def test_panoptic_segments_are_those_of_the_merged_parts(build):
    model = build("panoptic_fpn")
    model.combine_stuff_area_thresh, model.combine_instances_score_thresh = 20, 0.0
    wrapped = make_tta(model=model, tta_mapper=DatasetMapperTTA(min_sizes=[48, 64], max_size=200, flip=True))
    (found,) = wrapped([entry()])
    ids, segments = found["panoptic_seg"]
    assert ids.shape == (64, 96)
    assert {s["id"] for s in segments} == set(ids.unique().tolist()) - {0}


def test_nothing_found_anywhere(build):
    for name in ("mask_rcnn_fpn", "retinanet", "panoptic_fpn"):
        wrapped = make_tta(model=build(name), tta_mapper=as_it_is())
        wrapped.test_score_thresh = 2.0
        (found,) = wrapped([entry()])
        assert len(found["instances"]) == 0
        if found["instances"].has("pred_masks"):
            assert found["instances"].pred_masks.shape == (0, 64, 96)


def test_limits_are_those_of_the_model(build):
    model = build("cascade_rcnn_fpn")
    model.roi_heads.box_predictor[-1].test_topk_per_image = 7
    assert make_tta(model=model, tta_mapper=as_it_is()).test_topk_per_image == 7
    assert make_tta(model=build("retinanet"), tta_mapper=as_it_is()).test_topk_per_image == 100


@pytest.mark.parametrize(("name", "word"), [("rpn_fpn", "proposals"), ("rotated_faster_rcnn_fpn", "rotated")])
def test_what_cannot_be_merged_is_refused(name, word, build):
    with pytest.raises(ValueError, match=word):
        make_tta(model=build(name), tta_mapper=as_it_is())


def test_keypoints_are_not_promised(build):
    wrapped = make_tta(model=build("keypoint_rcnn_fpn"), tta_mapper=as_it_is())
    assert wrapped.tasks == ("box",)
    (found,) = wrapped([entry()])
    assert not found["instances"].has("pred_keypoints")
