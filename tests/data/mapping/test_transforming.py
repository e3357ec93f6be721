import pytest
import torch
from torchvision.transforms import v2

from hydet.data import Proposals, RandomCrop, RandomHorizontalFlip, RandomVerticalFlip, Resize
from hydet.data.mapping.sample import select_sample
from hydet.data.mapping.transforming import apply_transforms, check_point_transforms

from .conftest import H, W

ALL_PARTS = {"mask_format": "bitmask", "keypoints": True, "rotated": True, "sem_seg": True, "proposals": True}


@pytest.fixture
def sample(make_record):
    proposals = Proposals(boxes=torch.tensor([[0.0, 0, 10, 10]]), objectness_logits=torch.ones(1))
    return select_sample(make_record(proposals=proposals), **ALL_PARTS)


def test_all_parts_move_together(sample):
    moved, mirrored = apply_transforms(sample, [Resize(size=(2 * H, 2 * W))], None)
    assert not mirrored and moved.size == moved.sem_seg.shape == (2 * H, 2 * W)
    torch.testing.assert_close(moved.boxes, 2 * sample.boxes)
    torch.testing.assert_close(moved.proposals.boxes, 2 * sample.proposals.boxes)
    torch.testing.assert_close(moved.keypoints[..., :2], 2 * sample.keypoints[..., :2])
    assert torch.equal(moved.keypoints[..., 2], sample.keypoints[..., 2])
    torch.testing.assert_close(moved.rotated_boxes[:, :4], 2 * sample.rotated_boxes[:, :4])
    assert (moved.regions.vertices() == 2 * sample.regions.vertices()).all()
    assert moved.regions.bitmaps.shape == (1, 2 * H, 2 * W)
    assert torch.equal(moved.classes, sample.classes)


def test_no_transforms_return_the_sample_itself(sample):
    moved, mirrored = apply_transforms(sample, [], None)
    assert moved is sample and not mirrored


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        ([RandomHorizontalFlip(p=1.0)], True),
        ([RandomVerticalFlip(p=1.0)], True),
        ([RandomHorizontalFlip(p=1.0), RandomVerticalFlip(p=1.0)], False),
        ([RandomHorizontalFlip(p=1.0), Resize(size=(7, 9))], True),
    ],
)
def test_mirrored_images_are_recognized(sample, transforms, expected):
    assert apply_transforms(sample, transforms, None)[1] is expected


def test_transforms_do_not_clamp_boxes(sample, make_crop):
    moved, _ = apply_transforms(sample, [make_crop(5, 10, 20, 20), v2.CenterCrop((10, 10))], None)
    torch.testing.assert_close(moved.boxes, sample.boxes - torch.tensor([15.0, 10, 15, 10]))


def test_a_seed_fixes_the_result_and_keeps_the_global_state(sample):
    transforms = [RandomCrop(size=(0.3, 0.3)), RandomHorizontalFlip()]
    state = torch.get_rng_state()
    first, second, other = (apply_transforms(sample, transforms, seed)[0].image for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_transforms_that_drop_objects_are_rejected(sample):
    def keep_first(inputs):
        return inputs | {"boxes": inputs["boxes"][:1]}

    with pytest.raises(ValueError, match="adds or drops objects"):
        apply_transforms(sample, [keep_first], None)


def test_transforms_that_lose_a_part_are_rejected(sample, make_record):
    def image_and_boxes(inputs):
        return {name: inputs[name] for name in ("image", "boxes")}

    with pytest.raises(ValueError, match="does not return masks, points, proposals"):
        apply_transforms(sample, [image_and_boxes], None)
    plain = select_sample(
        make_record(), mask_format=None, keypoints=False, rotated=False, sem_seg=False, proposals=False
    )
    assert torch.equal(apply_transforms(plain, [image_and_boxes], None)[0].boxes, plain.boxes)


def test_torchvision_flips_are_rejected_even_inside_containers():
    check_point_transforms([v2.Compose([v2.ColorJitter(), RandomHorizontalFlip()])])
    with pytest.raises(ValueError, match=r"hydet\.data\.RandomHorizontalFlip"):
        check_point_transforms([v2.Compose([v2.RandomApply([v2.RandomHorizontalFlip()])])])
    with pytest.raises(ValueError, match=r"hydet\.data\.RandomVerticalFlip"):
        check_point_transforms([v2.RandomVerticalFlip()])
