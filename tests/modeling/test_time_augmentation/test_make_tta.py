"""The wrapper of each architecture: an identity mapper changes nothing, and flipped inputs give flipped results."""

import pytest
import torch

from hydet.modeling import (
    DatasetMapperTTA,
    DenseDetectorWithTTA,
    GeneralizedRCNNWithTTA,
    PanopticFPNWithTTA,
    ProposalNetworkWithTTA,
    SemanticSegmentorWithTTA,
    make_tta,
)
from hydet.modeling.test_time_augmentation.dataset_mapper import flip_boxes

WRAPPERS = {
    "retinanet": DenseDetectorWithTTA,
    "fcos": DenseDetectorWithTTA,
    "mask_rcnn_fpn": GeneralizedRCNNWithTTA,
    "cascade_rcnn_fpn": GeneralizedRCNNWithTTA,
    "mask_rcnn_c4": GeneralizedRCNNWithTTA,
    "keypoint_rcnn_fpn": GeneralizedRCNNWithTTA,
    "rotated_faster_rcnn_fpn": GeneralizedRCNNWithTTA,
    "rpn_fpn": ProposalNetworkWithTTA,
    "panoptic_fpn": PanopticFPNWithTTA,
    "semantic_fpn": SemanticSegmentorWithTTA,
}

FLIP_INDICES = [1, 0, 2, 3, 4]


@pytest.mark.parametrize("name", WRAPPERS)
def test_identity_mapper_keeps_the_results(name, build, make):
    model = build(name)
    wrapped = make_tta(model=model, tta_mapper=make.identity_mapper())
    assert type(wrapped) is WRAPPERS[name]
    batch = [make.entry(), make.entry()]
    with torch.no_grad():
        # One image at a time, as the wrapper does: rounding in a batch may exchange nearly equal scores.
        plain, merged = [model.inference([entry])[0] for entry in batch], wrapped(batch)
    for a, b in zip(plain, merged, strict=True):
        assert a.keys() == b.keys()
        if "sem_seg" in a:
            torch.testing.assert_close(b["sem_seg"].exp(), a["sem_seg"].softmax(0), atol=1e-5, rtol=1e-4)
        for key in ("instances", "proposals"):
            if key in a:
                assert len(a[key]) > 0
                assert set(a[key].get_fields()) == set(b[key].get_fields())
                for field, value in a[key].get_fields().items():
                    merged_value = b[key].get(field)
                    if field == "pred_masks":  # pixels at the threshold may differ
                        assert (value != merged_value).float().mean() < 1e-3
                    else:
                        assert_close(merged_value, value, atol=1e-3, rtol=1e-4)


def assert_close(a, b, **tolerances):
    torch.testing.assert_close(getattr(a, "tensor", a), getattr(b, "tensor", b), **tolerances)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_flipped_image_gives_flipped_results(name, build, make):
    """The strides divide the width, so that the flipped image has the same grid of cells."""
    wrapped = make_tta(
        model=build(name),
        tta_mapper=DatasetMapperTTA(min_sizes=[64, 128], max_size=1000, flip=True),
        keypoint_flip_indices=FLIP_INDICES if name == "keypoint_rcnn_fpn" else None,
    )
    entry = make.entry(64, 64)
    flipped = {**entry, "image": entry["image"].flip(2)}
    (a,), (b,) = wrapped([entry]), wrapped([flipped])
    if "sem_seg" in a:
        torch.testing.assert_close(a["sem_seg"], b["sem_seg"].flip(2), atol=1e-4, rtol=1e-4)
    for key, field in (("instances", "pred_boxes"), ("proposals", "proposal_boxes")):
        if key in a:
            unflipped = flip_boxes(b[key].get(field).tensor, 64)
            torch.testing.assert_close(a[key].get(field).tensor[0], unflipped[0], atol=0.01, rtol=0)
    if "instances" in a and a["instances"].has("pred_masks"):
        assert a["instances"].pred_masks.shape[1:] == (64, 64)
    if "instances" in a and a["instances"].has("pred_keypoints"):
        maps = b["instances"].pred_keypoint_heatmaps[0].flip(2)[FLIP_INDICES]
        torch.testing.assert_close(
            a["instances"].pred_keypoint_heatmaps[0], maps, atol=1e-3 * float(maps.abs().max()), rtol=0
        )


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


class OtherDetector(torch.nn.Module):
    """A detector that is none of hydet's meta-architectures."""

    def __init__(self, tasks):
        super().__init__()
        self.tasks = tasks


def test_other_box_detectors_are_merged_with_default_limits(make):
    wrapped = make_tta(model=OtherDetector(("box",)), tta_mapper=make.identity_mapper())
    assert type(wrapped) is DenseDetectorWithTTA
    assert (wrapped.test_nms_thresh, wrapped.test_topk_per_image) == (0.5, 100)
    with pytest.raises(ValueError, match=r"needs a PanopticFPN.*got OtherDetector"):
        make_tta(model=OtherDetector(("panoptic",)), tta_mapper=make.identity_mapper())
