import pytest
import torch

from hydet.modeling import combine_semantic_and_instance_outputs
from hydet.structures import Instances


def combine(masks, scores, semantic, **settings):
    instances = Instances(
        semantic.shape, pred_masks=masks, scores=torch.tensor(scores), pred_classes=torch.arange(len(scores))
    )
    limits = {"overlap_threshold": 0.5, "stuff_area_thresh": 4, "instances_score_thresh": 0.3} | settings
    return combine_semantic_and_instance_outputs(instances, semantic, **limits)


def make_masks():
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, :3, :4], masks[1, :3, 2:6], masks[2, :2, :2] = True, True, True
    return masks


def test_better_instances_cover_worse_ones():
    semantic = torch.zeros(6, 8, dtype=torch.int64)
    ids, segments = combine(make_masks(), [0.5, 0.9, 0.8], semantic)
    assert [s["instance_id"] for s in segments] == [1, 2]  # over half of instance 0 is covered
    assert (ids[:3, 2:6] == 1).all() and (ids[:2, :2] == 2).all() and ids.count_nonzero() == 16


def test_fully_covered_instances_are_dropped_at_any_overlap_threshold():
    semantic = torch.zeros(6, 8, dtype=torch.int64)
    ids, segments = combine(make_masks()[[0, 0, 2]], [0.9, 0.8, 0.7], semantic, overlap_threshold=1)
    assert [s["instance_id"] for s in segments] == [0]
    assert ids.unique().tolist() == [0, 1]


def test_instances_with_a_low_score_are_dropped():
    _, segments = combine(make_masks(), [0.2, 0.9, 0.1], torch.zeros(6, 8, dtype=torch.int64))
    assert [s["instance_id"] for s in segments] == [1]


def test_stuff_fills_free_pixels_and_small_stuff_is_dropped():
    semantic = torch.zeros(6, 8, dtype=torch.int64)
    semantic[3:] = 2
    semantic[0, 6:] = 1
    ids, segments = combine(make_masks()[:1], [0.9], semantic)
    assert segments[1] == {"id": 2, "isthing": False, "category_id": 2, "area": 24}
    assert (ids[3:] == 2).all() and not ids[0, 6:].any()


@pytest.mark.parametrize("architecture", ["panoptic_fpn"], indirect=True)
def test_inference_keeps_the_signature_of_its_base_class(architecture):
    model, batch = architecture.model().eval(), architecture.batch()
    with torch.no_grad():
        detections, logits = model.inference(batch, do_postprocess=False)
        by_position, _ = model.inference(batch, False)  # the documented order
        results = model.inference(batch, detections)
    assert logits.shape[0] == 2
    torch.testing.assert_close(by_position[0].scores, detections[0].scores)
    assert [set(result) for result in results] == [{"instances", "sem_seg", "panoptic_seg"}] * 2
