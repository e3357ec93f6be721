"""The wrapper of each architecture: an identity mapper changes nothing, and flipped inputs give flipped results."""

import pytest
import torch

from hydet.modeling import (
    DatasetMapperTTA,
    DenseDetectorWithTTA,
    GeneralizedRCNNWithTTA,
    PanopticFPNWithTTA,
    SemanticSegmentorWithTTA,
    make_tta,
)

WRAPPERS = {
    "retinanet": DenseDetectorWithTTA,
    "fcos": DenseDetectorWithTTA,
    "mask_rcnn_fpn": GeneralizedRCNNWithTTA,
    "cascade_rcnn_fpn": GeneralizedRCNNWithTTA,
    "mask_rcnn_c4": GeneralizedRCNNWithTTA,
    "panoptic_fpn": PanopticFPNWithTTA,
    "semantic_fpn": SemanticSegmentorWithTTA,
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_identity_mapper_keeps_the_results(name, build, make):
    model = build(name)
    wrapped = make_tta(model=model, tta_mapper=make.identity_mapper())
    assert type(wrapped) is WRAPPERS[name]
    batch = [make.entry(), make.entry()]
    with torch.no_grad():
        plain, merged = model.inference(batch), wrapped(batch)
    for a, b in zip(plain, merged, strict=True):
        assert a.keys() == b.keys()
        if "sem_seg" in a:
            torch.testing.assert_close(b["sem_seg"].exp(), a["sem_seg"].softmax(0), atol=1e-5, rtol=1e-4)
        if "instances" in a:
            assert set(a["instances"].get_fields()) == set(b["instances"].get_fields())
            # Merged boxes are suppressed a second time, so there can only be fewer of them.
            assert 0 < len(b["instances"]) <= len(a["instances"])
            assert b["instances"].scores[0] == pytest.approx(float(a["instances"].scores[0]), abs=1e-6)
            torch.testing.assert_close(
                b["instances"].pred_boxes.tensor[0], a["instances"].pred_boxes.tensor[0], atol=1e-3, rtol=0
            )


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_flipped_image_gives_flipped_results(name, build, make):
    """The strides divide the width, so that the flipped image has the same grid of cells."""
    wrapped = make_tta(
        model=build(name), tta_mapper=DatasetMapperTTA(min_sizes=[64, 128], max_size=1000, flip=True)
    )
    entry = make.entry(64, 64)
    flipped = {**entry, "image": entry["image"].flip(2)}
    (a,), (b,) = wrapped([entry]), wrapped([flipped])
    if "sem_seg" in a:
        torch.testing.assert_close(a["sem_seg"], b["sem_seg"].flip(2), atol=1e-4, rtol=1e-4)
    if "instances" in a:
        x1, y1, x2, y2 = b["instances"].pred_boxes.tensor[0].tolist()
        assert a["instances"].pred_boxes.tensor[0].tolist() == pytest.approx(
            [64 - x2, y1, 64 - x1, y2], abs=0.01
        )
        if a["instances"].has("pred_masks"):
            assert a["instances"].pred_masks.shape[1:] == (64, 64)


@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "retinanet", "panoptic_fpn"])
def test_no_detections_give_empty_results(name, build, make):
    wrapped = make_tta(model=build(name), tta_mapper=make.identity_mapper())
    wrapped.test_score_thresh = 2.0
    (result,) = wrapped([make.entry()])
    assert len(result["instances"]) == 0
    if result["instances"].has("pred_masks"):
        assert result["instances"].pred_masks.shape == (0, 64, 96)


def test_limits_are_those_of_the_model(build, make):
    model = build("cascade_rcnn_fpn")
    last_predictor = model.roi_heads.box_predictor[-1]
    last_predictor.test_topk_per_image, last_predictor.test_nms_thresh = 7, 0.4
    wrapped = make_tta(model=model, tta_mapper=make.identity_mapper())
    assert (wrapped.test_nms_thresh, wrapped.test_topk_per_image) == (0.4, 7)
    model = build("retinanet")
    model.test_nms_thresh, model.max_detections_per_image = 0.3, 9
    wrapped = make_tta(model=model, tta_mapper=make.identity_mapper())
    assert (wrapped.test_nms_thresh, wrapped.test_topk_per_image) == (0.3, 9)
    last_predictor.test_topk_per_image, last_predictor.test_nms_thresh = 100, 0.5
    model.test_nms_thresh, model.max_detections_per_image = 0.5, 100


@pytest.mark.parametrize(("name", "word"), [("rpn_fpn", "proposals"), ("rotated_faster_rcnn_fpn", "rotated")])
def test_models_whose_results_cannot_be_merged_raise(name, word, build, make):
    with pytest.raises(ValueError, match=word):
        make_tta(model=build(name), tta_mapper=make.identity_mapper())


class OtherDetector(torch.nn.Module):
    """A detector that is none of hydet's meta-architectures."""

    def __init__(self, tasks):
        super().__init__()
        self.tasks = tasks


def test_other_box_detectors_are_merged_with_default_limits(make):
    wrapped = make_tta(model=OtherDetector(("box",)), tta_mapper=make.identity_mapper())
    assert type(wrapped) is DenseDetectorWithTTA
    assert (wrapped.test_nms_thresh, wrapped.test_topk_per_image) == (0.5, 100)
    with pytest.raises(ValueError, match="needs a PanopticFPN, got OtherDetector"):
        make_tta(model=OtherDetector(("panoptic",)), tta_mapper=make.identity_mapper())
