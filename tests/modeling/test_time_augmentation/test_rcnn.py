import copy
import threading

import pytest
import torch

from hydet.modeling import DatasetMapperTTA, GeneralizedRCNNWithTTA, make_tta
from hydet.structures import Boxes, Instances


def test_heatmaps_of_flipped_images_need_the_pairs_of_keypoints(build, make):
    model, entry = build("keypoint_rcnn_fpn"), make.entry()
    flipping = DatasetMapperTTA(min_sizes=[64], max_size=1000, flip=True)
    with torch.no_grad():
        (plain,) = make_tta(model=model, tta_mapper=make.identity_mapper())([entry])
        (unpaired,) = make_tta(model=model, tta_mapper=flipping)([entry])
        (paired,) = make_tta(model=model, tta_mapper=flipping, keypoint_flip_indices=[1, 0, 2, 3, 4])([entry])
    assert unpaired["instances"].pred_keypoints.shape == paired["instances"].pred_keypoints.shape
    for result in (plain, unpaired):  # the heatmap of a box depends on nothing but the unflipped image
        known = result["instances"][:1]
        (direct,) = model.inference([entry], [known])
        torch.testing.assert_close(
            known.pred_keypoints, direct["instances"].pred_keypoints, atol=1e-3, rtol=1e-3
        )


def test_flipped_images_alone_give_no_keypoints_without_pairs(build, make):
    def flipped_only(entry):
        return DatasetMapperTTA(min_sizes=[64], max_size=1000, flip=True)(entry)[1:]

    wrapped = make_tta(model=build("keypoint_rcnn_fpn"), tta_mapper=flipped_only)
    with pytest.raises(ValueError, match="keypoint_flip_indices"):
        wrapped([make.entry()])


def test_model_does_not_change_during_inference(build, make):
    """Another thread may use the same model meanwhile."""
    model = build("mask_rcnn_fpn")
    seen = []
    hook = model.roi_heads.box_head.register_forward_hook(lambda *_: seen.append(dict(vars(model.roi_heads))))
    before = copy.copy(vars(model.roi_heads))
    make_tta(model=model, tta_mapper=make.identity_mapper())([make.entry()])
    hook.remove()
    assert seen and all(state == before for state in seen)
    assert model.roi_heads.tasks == ("box", "mask")


def test_threads_may_share_a_model(build, make):
    model, entry = build("mask_rcnn_fpn"), make.entry()
    wrapped = make_tta(model=model, tta_mapper=DatasetMapperTTA(min_sizes=[64, 80], max_size=200, flip=True))
    results = []

    def run_plain():
        with torch.no_grad():
            results.extend(model.inference([entry]) for _ in range(5))

    thread = threading.Thread(target=run_plain)
    thread.start()
    wrapped([entry])
    thread.join()
    assert len(results) == 5 and all(result["instances"].has("pred_masks") for (result,) in results)


@torch.no_grad()
def test_mask_average_does_not_depend_on_the_batch_size(build, make):
    # One size, since padding to the largest image of a batch changes the features at the border.
    wrapped = make_tta(
        model=build("mask_rcnn_fpn"), tta_mapper=DatasetMapperTTA(min_sizes=[64], max_size=200, flip=True)
    )
    augmented = wrapped.tta_mapper(make.entry())
    boxes = Boxes([[10.0, 10, 60, 50], [30, 5, 90, 60]])
    known = Instances(
        (64, 96), pred_boxes=boxes, pred_classes=torch.tensor([0, 1]), scores=torch.tensor([0.9, 0.8])
    )
    batched = wrapped._average_regions(augmented, known).masks
    wrapped.batch_size = 1
    assert batched.shape[:2] == (2, 1) and ((batched > 0) & (batched < 1)).all()
    torch.testing.assert_close(
        batched, wrapped._average_regions(augmented, known).masks, atol=1e-4, rtol=1e-3
    )


def test_a_model_without_regions_raises(build):
    with pytest.raises(ValueError, match="needs a GeneralizedRCNN, got RetinaNet"):
        GeneralizedRCNNWithTTA(model=build("retinanet"))


def test_default_mapper_flips_nine_sizes(build):
    wrapped = GeneralizedRCNNWithTTA(model=build("mask_rcnn_fpn"))
    assert wrapped.tta_mapper.min_sizes == tuple(range(400, 1201, 100)) and wrapped.tta_mapper.flip
