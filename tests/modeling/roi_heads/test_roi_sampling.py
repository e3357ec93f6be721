import pytest
import torch

from hydet.modeling import ROIHeads, select_foreground_proposals
from hydet.modeling.roi_heads.sampled_masks import SampledBitMasks
from hydet.structures import BitMasks, Boxes, Instances, matched_pairwise_iou


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


def test_what_comes_in_is_not_changed(make):
    scene = make.scene()
    before = [(set(p.get_fields()), p.proposal_boxes.tensor.clone()) for p in scene.proposals]
    fields = [set(t.get_fields()) for t in scene.targets]
    sampler(make).label_and_sample_proposals(scene.proposals, scene.targets)
    for (names, boxes), p in zip(before, scene.proposals, strict=True):
        assert set(p.get_fields()) == names and torch.equal(p.proposal_boxes.tensor, boxes)
    assert [set(t.get_fields()) for t in scene.targets] == fields


def test_labels_follow_the_overlap_with_the_matched_object(make):
    scene = make.scene()
    heads = sampler(make, batch_size_per_image=500, positive_fraction=1.0)
    for found, truth in zip(
        heads.label_and_sample_proposals(scene.proposals, scene.targets), scene.targets, strict=True
    ):
        overlap = matched_pairwise_iou(found.proposal_boxes, found.gt_boxes)
        assert torch.equal(overlap >= 0.5, found.gt_classes < 3)
        expected = {"proposal_boxes", "objectness_logits", *truth.get_fields()}
        assert set(found.get_fields()) == expected


@pytest.mark.parametrize(("size", "fraction"), [(16, 0.25), (8, 0.5), (8, 0.0), (400, 1.0)])
def test_counts_and_order(make, size, fraction):
    scene = make.scene()
    heads = sampler(make, batch_size_per_image=size, positive_fraction=fraction)
    for found in heads.label_and_sample_proposals(scene.proposals, scene.targets):
        foreground = found.gt_classes < 3
        assert len(found) <= size and foreground.sum() <= int(size * fraction)
        assert (foreground.int().diff() <= 0).all()  # foreground first


def test_without_objects_everything_is_background(make):
    scene = make.scene((0, 2))
    found, _ = sampler(make).label_and_sample_proposals(scene.proposals, scene.targets)
    assert (found.gt_classes == 3).all() and len(found) == 16
    assert not found.has("gt_boxes") and not found.has("gt_masks")


def test_without_proposals_the_ground_truth_remains(make):
    scene = make.scene((2, 2))
    nothing = [p[:0] for p in scene.proposals]
    found = sampler(make, positive_fraction=1.0).label_and_sample_proposals(nothing, scene.targets)
    for one, truth in zip(found, scene.targets, strict=True):
        assert len(one) == 2 and sorted(one.gt_classes.tolist()) == sorted(truth.gt_classes.tolist())
    found = sampler(make, proposal_append_gt=False).label_and_sample_proposals(nothing, scene.targets)
    assert [len(one) for one in found] == [0, 0]
    assert all(one.gt_boxes.tensor.shape == (0, 4) for one in found)


def test_ignored_proposals_are_never_sampled(make):
    scene = make.scene()
    heads = sampler(
        make,
        batch_size_per_image=500,
        positive_fraction=1.0,
        proposal_matcher=make.matcher(0.3, 0.7, labels=(0, -1, 1)),
    )
    for found in heads.label_and_sample_proposals(scene.proposals, scene.targets):
        overlap = matched_pairwise_iou(found.proposal_boxes, found.gt_boxes)
        assert ((overlap < 0.3) | (overlap >= 0.7)).all() and (found.gt_classes != -1).all()


def test_any_field_of_the_ground_truth_travels_also_lists(make):
    scene = make.scene((3, 0))
    scene.targets[0].gt_names = ["a", "b", "c"]
    scene.targets[0].other = torch.arange(3)
    found, _ = sampler(make).label_and_sample_proposals(scene.proposals, scene.targets)
    assert len(found.gt_names) == len(found) and not found.has("other")


def test_sampled_masks_equal_indexed_masks(make):
    masks, boxes = make.targets((40, 50), 4).gt_masks, make.random_boxes(9, (40, 50))
    index = torch.tensor([0, 3, 3, 1, 0, 0, 2, 3, 1])
    sampled, plain = SampledBitMasks(masks, index), masks[index]
    assert isinstance(sampled, BitMasks) and len(sampled) == 9
    assert torch.equal(sampled.tensor, plain.tensor)
    assert torch.equal(sampled.crop_and_resize(boxes, 7), plain.crop_and_resize(boxes, 7))
    for item in (2, slice(1, 5), index > 1, torch.tensor([8, 0]), torch.tensor([], dtype=torch.long)):
        assert torch.equal(sampled[item].tensor, plain[item].tensor)
        assert torch.equal(sampled[item].crop_and_resize(boxes[: len(plain[item])], 3),
                           plain[item].crop_and_resize(boxes[: len(plain[item])], 3))  # fmt: skip
    assert torch.equal(sampled.get_bounding_boxes().tensor, plain.get_bounding_boxes().tensor)
    assert torch.equal(BitMasks.cat([sampled, plain]).tensor, torch.cat([plain.tensor] * 2))
    assert sampled.to("cpu").image_size == (40, 50)
    with pytest.raises(ValueError, match="as many boxes"):
        sampled.crop_and_resize(boxes[:2], 7)


def test_crops_do_not_depend_on_how_many_bitmaps_are_read_at_a_time(make, monkeypatch):
    masks, boxes = make.targets((40, 50), 5).gt_masks, make.random_boxes(12, (40, 50))
    sampled = SampledBitMasks(masks, torch.randint(5, (12,)))
    whole = sampled.crop_and_resize(boxes, 9)
    monkeypatch.setattr("hydet.modeling.roi_heads.sampled_masks.CROP_PIXELS", 40 * 50 * 2)
    assert torch.equal(sampled.crop_and_resize(boxes, 9), whole)


def test_select_foreground():
    found = Instances(
        (9, 9), proposal_boxes=Boxes(torch.rand(5, 4)), gt_classes=torch.tensor([2, 3, -1, 0, 3])
    )
    (kept,), (mask,) = select_foreground_proposals([found], bg_label=3)
    assert kept.gt_classes.tolist() == [2, 0] and mask.tolist() == [True, False, False, True, False]
    with pytest.raises(ValueError, match="gt_classes"):
        select_foreground_proposals([Instances((9, 9), proposal_boxes=Boxes([]))], bg_label=3)


@pytest.mark.parametrize(
    "options", [{"num_classes": 0}, {"batch_size_per_image": 0}, {"positive_fraction": 1.5}]
)
def test_wrong_arguments_are_refused(make, options):
    with pytest.raises(ValueError):
        sampler(make, **options)


def test_targets_must_be_as_many_as_proposals(make):
    scene = make.scene()
    with pytest.raises(ValueError, match="targets of 1"):
        sampler(make).label_and_sample_proposals(scene.proposals, scene.targets[:1])
