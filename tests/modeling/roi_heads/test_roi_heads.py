import pytest
import torch

from hydet.modeling import ROIHeads
from hydet.structures import matched_pairwise_iou


class Sampler(ROIHeads):
    """ROI heads that only sample."""

    def forward(self, images, features, proposals, targets=None):
        return self.label_and_sample_proposals(proposals, targets), {}


def sampler(make, **options):
    settings = {
        "num_classes": 3,
        "batch_size_per_image": 16,
        "positive_fraction": 0.25,
        "proposal_matcher": make.matcher(),
    }
    return Sampler(**(settings | options))


def test_inputs_do_not_change(make):
    scene = make.scene()
    before = [(set(p.get_fields()), p.proposal_boxes.tensor.clone()) for p in scene.proposals]
    fields = [set(t.get_fields()) for t in scene.targets]
    sampler(make).label_and_sample_proposals(scene.proposals, scene.targets)
    for (names, boxes), p in zip(before, scene.proposals, strict=True):
        assert set(p.get_fields()) == names and torch.equal(p.proposal_boxes.tensor, boxes)
    assert [set(t.get_fields()) for t in scene.targets] == fields


def test_labels_follow_the_iou_with_the_matched_object(make):
    scene = make.scene()
    heads = sampler(make, batch_size_per_image=500, positive_fraction=1.0)
    for sampled, targets in zip(
        heads.label_and_sample_proposals(scene.proposals, scene.targets), scene.targets, strict=True
    ):
        overlap = matched_pairwise_iou(sampled.proposal_boxes, sampled.gt_boxes)
        assert torch.equal(overlap >= 0.5, sampled.gt_classes < 3)
        expected = {"proposal_boxes", "objectness_logits", *targets.get_fields()}
        assert set(sampled.get_fields()) == expected


@pytest.mark.parametrize(("size", "fraction"), [(16, 0.25), (8, 0.5), (8, 0.0), (400, 1.0)])
def test_number_and_order_of_samples(make, size, fraction):
    scene = make.scene()
    heads = sampler(make, batch_size_per_image=size, positive_fraction=fraction)
    for sampled in heads.label_and_sample_proposals(scene.proposals, scene.targets):
        foreground = sampled.gt_classes < 3
        assert len(sampled) <= size and foreground.sum() <= int(size * fraction)
        assert (foreground.int().diff() <= 0).all()  # foreground first


def test_all_samples_are_background_without_objects(make):
    scene = make.scene((0, 2))
    sampled, _ = sampler(make).label_and_sample_proposals(scene.proposals, scene.targets)
    assert (sampled.gt_classes == 3).all() and len(sampled) == 16
    assert not sampled.has("gt_boxes") and not sampled.has("gt_masks")


def test_ground_truth_is_sampled_without_proposals(make):
    scene = make.scene((2, 2))
    no_proposals = [p[:0] for p in scene.proposals]
    sampled = sampler(make, positive_fraction=1.0).label_and_sample_proposals(no_proposals, scene.targets)
    for instances, targets in zip(sampled, scene.targets, strict=True):
        assert len(instances) == 2 and sorted(instances.gt_classes.tolist()) == sorted(
            targets.gt_classes.tolist()
        )
    sampled = sampler(make, proposal_append_gt=False).label_and_sample_proposals(no_proposals, scene.targets)
    assert [len(instances) for instances in sampled] == [0, 0]
    assert all(instances.gt_boxes.tensor.shape == (0, 4) for instances in sampled)


def test_ignored_proposals_are_never_sampled(make):
    scene = make.scene()
    heads = sampler(
        make,
        batch_size_per_image=500,
        positive_fraction=1.0,
        proposal_matcher=make.matcher(0.3, 0.7, labels=(0, -1, 1)),
    )
    for sampled in heads.label_and_sample_proposals(scene.proposals, scene.targets):
        overlap = matched_pairwise_iou(sampled.proposal_boxes, sampled.gt_boxes)
        assert ((overlap < 0.3) | (overlap >= 0.7)).all() and (sampled.gt_classes != -1).all()


def test_samples_get_every_gt_field(make):
    scene = make.scene((3, 0))
    scene.targets[0].gt_names = ["a", "b", "c"]
    scene.targets[0].other = torch.arange(3)
    sampled, _ = sampler(make).label_and_sample_proposals(scene.proposals, scene.targets)
    assert len(sampled.gt_names) == len(sampled) and not sampled.has("other")


def test_detect_boxes_calls_forward_by_default(make):
    class Detections(Sampler):
        def forward(self, images, features, proposals, targets=None):
            return ["detections"], {}

    heads = Detections(
        num_classes=3, batch_size_per_image=16, positive_fraction=0.25, proposal_matcher=make.matcher()
    )
    assert heads.detect_boxes(None, {}, []) == ["detections"]
    assert heads.forward_with_given_boxes({}, ["boxes"]) == ["boxes"]
    assert heads.tasks == ("box",) and heads.detection_limits == (0.5, 100)


def test_forward_is_abstract(make):
    with pytest.raises(TypeError, match="abstract"):
        ROIHeads(
            num_classes=3, batch_size_per_image=16, positive_fraction=0.25, proposal_matcher=make.matcher()
        )


@pytest.mark.parametrize(
    "options", [{"num_classes": 0}, {"batch_size_per_image": 0}, {"positive_fraction": 1.5}]
)
def test_invalid_arguments_raise(make, options):
    with pytest.raises(ValueError):
        sampler(make, **options)


def test_different_numbers_of_targets_and_proposals_raise(make):
    scene = make.scene()
    with pytest.raises(ValueError, match="targets of 1"):
        sampler(make).label_and_sample_proposals(scene.proposals, scene.targets[:1])
