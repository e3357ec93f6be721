import pytest

from hydet.modeling import DatasetMapperTTA, PanopticFPNWithTTA, make_tta


def test_segments_combine_the_merged_results(build, make):
    model = build("panoptic_fpn")
    model.combine_stuff_area_thresh, model.combine_instances_score_thresh = 20, 0.0
    wrapped = make_tta(model=model, tta_mapper=DatasetMapperTTA(min_sizes=[48, 64], max_size=200, flip=True))
    (result,) = wrapped([make.entry()])
    ids, segments = result["panoptic_seg"]
    assert ids.shape == (64, 96)
    assert {segment["id"] for segment in segments} == set(ids.unique().tolist()) - {0}
    assert result["sem_seg"].exp().sum(dim=0).allclose(result["sem_seg"].new_ones(()), atol=1e-4)


def test_a_model_that_is_not_panoptic_raises(build):
    with pytest.raises(ValueError, match="needs a PanopticFPN, got RetinaNet"):
        PanopticFPNWithTTA(model=build("retinanet"))
