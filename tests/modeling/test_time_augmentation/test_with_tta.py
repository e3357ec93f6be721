import pytest
import torch

from hydet.modeling import DenseDetectorWithTTA, GeneralizedRCNNWithTTA, make_tta
from hydet.modeling.test_time_augmentation.with_tta import WithTTA, chunks, merge_detections, output_frame

NAN = float("nan")


def test_the_last_chunk_may_be_shorter():
    assert [list(chunk) for chunk in chunks(range(5), 2)] == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []


def test_output_frame_is_that_of_the_input_or_its_image():
    image = torch.zeros(3, 8, 9)
    assert output_frame({"image": image}) == (8, 9)
    assert output_frame({"image": image, "height": 80, "width": 90}) == (80, 90)


def test_inputs_without_output_size_use_that_of_the_image(build, make):
    wrapped = make_tta(model=build("mask_rcnn_fpn"), tta_mapper=make.identity_mapper())
    (result,) = wrapped([{"image": make.entry()["image"]}])
    assert result["instances"].image_size == (64, 96)


def test_invalid_batch_size_raises(build, make):
    with pytest.raises(ValueError, match="batch_size"):
        make_tta(model=build("retinanet"), tta_mapper=make.identity_mapper(), batch_size=0)
    with pytest.raises(TypeError, match="abstract"):
        WithTTA(model=build("retinanet"), tta_mapper=make.identity_mapper())


def merge(boxes, scores, classes, topk=-1):
    return merge_detections(
        torch.tensor(boxes), torch.tensor(scores), torch.tensor(classes), (50, 60), 0.1, 0.5, topk
    )


def test_merge_suppresses_within_each_class():
    box = [10.0, 10, 30, 30]
    merged = merge([box, box, box], [0.5, 0.9, 0.7], [0, 0, 1])
    assert merged.scores.tolist() == pytest.approx([0.9, 0.7]) and merged.pred_classes.tolist() == [0, 1]


def test_merge_clips_boxes_and_applies_threshold_and_limit():
    boxes = [[-5.0, 10, 30, 90], [0, 0, 5, 5], [40, 40, 49, 49], [NAN, 0, 1, 1]]
    merged = merge(boxes, [0.9, 0.1, 0.8, 0.95], [0, 0, 0, 0])
    assert merged.pred_boxes.tensor.tolist() == [[0, 10, 30, 50], [40, 40, 49, 49]]
    assert len(merge(boxes, [0.9, 0.1, 0.8, 0.95], [0, 0, 0, 0], topk=1)) == 1


def test_merging_no_detections_gives_none():
    empty = torch.zeros(0)
    merged = merge_detections(torch.zeros(0, 4), empty, empty.long(), (50, 60), 0.1, 0.5, 100)
    assert len(merged) == 0 and merged.image_size == (50, 60)


@pytest.mark.parametrize(
    ("name", "wrapper"), [("mask_rcnn_fpn", GeneralizedRCNNWithTTA), ("fcos", DenseDetectorWithTTA)]
)
def test_a_wrapper_built_directly_takes_the_limits_of_the_model(name, wrapper, build, make, monkeypatch):
    model = build(name)
    owner, topk = model, "max_detections_per_image"
    if name == "mask_rcnn_fpn":
        owner, topk = model.roi_heads.box_predictor, "test_topk_per_image"
    monkeypatch.setattr(owner, "test_nms_thresh", 0.4)
    monkeypatch.setattr(owner, topk, 7)
    mapper = make.identity_mapper()
    wrapped = wrapper(model=model, tta_mapper=mapper)
    assert (wrapped.test_nms_thresh, wrapped.test_topk_per_image) == (0.4, 7)
    wrapped = wrapper(model=model, tta_mapper=mapper, test_nms_thresh=0.0, test_topk_per_image=0)
    assert (wrapped.test_nms_thresh, wrapped.test_topk_per_image) == (0.0, 0)
