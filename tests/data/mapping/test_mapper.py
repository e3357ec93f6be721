import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from hydet.data import (
    FixedSizeCrop,
    InputMapper,
    Proposals,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    ResizeShortestEdge,
    ScaleJitter,
    ShapesDataset,
)
from hydet.structures import BitMasks, PolygonMasks, RotatedBoxes

from .conftest import H, W, square


def test_a_model_input_has_every_selected_part(make_record):
    model_input = InputMapper(training=True, keypoints=True, sem_seg=True)(make_record())
    instances = model_input["instances"]
    assert instances.gt_classes.tolist() == [4, 2], "the crowd region is dropped"
    assert torch.equal(instances.gt_boxes.tensor, make_record().boxes[:2])
    assert isinstance(instances.gt_masks, BitMasks)
    assert instances.gt_masks.tensor.sum((1, 2)).tolist() == [100, 400]
    assert torch.equal(instances.gt_keypoints.tensor, make_record().keypoints[:2])
    assert model_input["sem_seg"].dtype == torch.int64
    names = ("height", "width", "file_name", "image_id")
    assert [model_input[name] for name in names] == [H, W, "a.png", 7]


def test_the_record_stays_as_it_was(make_record):
    record = make_record()
    flip = InputMapper(training=True, transforms=[RandomHorizontalFlip(p=1.0)], keypoints=True)
    model_input = flip(record)
    InputMapper(training=True)(record)["image"].zero_()
    model_input["instances"].gt_boxes.tensor.zero_()
    for name, value in vars(make_record()).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(record, name)), name


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon", None])
def test_a_flip_swaps_left_and_right_keypoints(make_record, mask_format):
    mapper = InputMapper(
        training=True, transforms=[RandomHorizontalFlip(p=1.0)], keypoints=True, mask_format=mask_format
    )
    instances = mapper(make_record())["instances"]
    assert instances.gt_keypoints.tensor[0].tolist() == [[W - 11, 4, 1], [W - 3, 4, 2]]
    assert instances.gt_boxes.tensor[0].tolist() == [W - 12, 3, W - 2, 13]
    if mask_format is not None:
        torch.testing.assert_close(instances.gt_masks.get_bounding_boxes().tensor, instances.gt_boxes.tensor)


def test_two_flips_swap_nothing(make_record):
    transforms = [RandomHorizontalFlip(p=1.0), RandomHorizontalFlip(p=1.0)]
    model_input = InputMapper(training=True, transforms=transforms, keypoints=True)(make_record())
    assert torch.equal(model_input["instances"].gt_keypoints.tensor, make_record().keypoints[:2])


def test_a_flip_of_keypoints_needs_their_names(make_record):
    mapper = InputMapper(training=True, transforms=RandomHorizontalFlip(p=1.0), keypoints=True)
    with pytest.raises(ValueError, match=r"a\.png: a mirrored image needs the keypoint names"):
        mapper(make_record(metadata=None))


def test_a_crop_cuts_boxes_and_hides_keypoints(make_record, make_crop):
    mapper = InputMapper(training=True, transforms=[make_crop(0, 0, H, 25)], keypoints=True)
    instances = mapper(make_record())["instances"]
    assert instances.gt_keypoints.tensor[1].tolist() == [[21, 11, 2], [0, 0, 0]]
    assert instances.gt_boxes.tensor[1].tolist() == [20, 10, 25, 30]


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon"])
def test_a_crop_drops_objects_outside(make_record, make_crop, mask_format):
    record = make_record(
        segments=[[np.array([0.0, 0, 39, 0, 0, 29])], square(30, 20, 35, 25), None],
        boxes=torch.tensor([[0.0, 0, 39, 29], [30, 20, 35, 25], [0, 0, 1, 1]]),
    )
    mapper = InputMapper(training=True, transforms=[make_crop(0, 0, 12, 12)], mask_format=mask_format)
    instances = mapper(record)["instances"]
    assert len(instances) == 1, "the square is outside"
    assert instances.gt_boxes.tensor[0].tolist() == [0, 0, 12, 12] and instances.image_size == (12, 12)


def test_bitmaps_and_polygons_agree_for_shapes():
    dataset = ShapesDataset(num_images=12, seed=1)
    transforms = [ScaleJitter(size=(128, 128), min_scale=0.5, max_scale=2), FixedSizeCrop(size=(128, 128))]
    bitmask_mapper, polygon_mapper = (
        InputMapper(training=True, transforms=transforms, mask_format=f) for f in ("bitmask", "polygon")
    )
    for i in range(12):
        a = bitmask_mapper(dataset[i], i)["instances"]
        b = polygon_mapper(dataset[i], i)["instances"]
        assert isinstance(b.gt_masks, PolygonMasks)
        a, b = a[a.gt_boxes.area() > 60], b[b.gt_boxes.area() > 60]
        assert a.gt_classes.tolist() == b.gt_classes.tolist()
        torch.testing.assert_close(a.gt_boxes.tensor, b.gt_boxes.tensor, atol=2.5, rtol=0)
        masks = BitMasks.from_polygon_masks(b.gt_masks, 128, 128).tensor
        differing_pixels = (masks ^ a.gt_masks.tensor).sum((1, 2))
        assert (differing_pixels <= 0.2 * masks.sum((1, 2)) + 10).all()


def test_rotated_boxes_are_flipped(make_record):
    mapper = InputMapper(training=True, transforms=[RandomHorizontalFlip(p=1.0)], rotated=True)
    gt_boxes = mapper(make_record())["instances"].gt_boxes
    assert isinstance(gt_boxes, RotatedBoxes)
    assert gt_boxes.tensor.tolist() == [[W - 7, 8, 10, 10, 0], [W - 30, 20, 20, 20, -15]]


@pytest.fixture
def map_rotated_boxes(make_record):
    """Map a record of rotated boxes with the upright boxes around them, as files of such boxes have them."""

    def map_boxes(boxes, *transforms):
        boxes = torch.tensor(boxes)
        sin, cos = boxes[:, 4].deg2rad().sin().abs(), boxes[:, 4].deg2rad().cos().abs()
        w, h = boxes[:, 2], boxes[:, 3]
        half_size = torch.stack([w * cos + h * sin, w * sin + h * cos], dim=1) / 2
        record = make_record(
            boxes=torch.cat([boxes[:, :2] - half_size, boxes[:, :2] + half_size], dim=1),
            rotated_boxes=boxes,
            classes=torch.arange(len(boxes)),
            iscrowd=torch.zeros(len(boxes), dtype=torch.bool),
            annotation_ids=torch.arange(len(boxes)),
        )
        mapper = InputMapper(training=True, transforms=transforms, rotated=True, mask_format=None)
        return mapper(record)["instances"]

    return map_boxes


def test_rotated_boxes_under_a_uniform_and_a_nonuniform_resize(map_rotated_boxes):
    uniform = map_rotated_boxes([[20.0, 15, 10, 5, 30]], Resize(size=(2 * H, 2 * W))).gt_boxes.tensor
    torch.testing.assert_close(uniform, torch.tensor([[40.0, 30, 20, 10, 30]]))
    nonuniform = map_rotated_boxes([[20.0, 15, 10, 5, 30]], Resize(size=(2 * H, W))).gt_boxes.tensor
    # The reference turns sides and angle of (100 x 50 at 30 degrees) into 132.3 x 90.1 at 16.1 degrees.
    torch.testing.assert_close(nonuniform, torch.tensor([[20.0, 30, 13.23, 9.01, 16.1]]), atol=0.01, rtol=0)


def corners_of(box):
    cx, cy, w, h, angle = box.double().tolist()
    sin, cos = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    x, y = np.array([-w, w, w, -w]) / 2, np.array([-h, -h, h, h]) / 2
    return np.stack([cx + x * cos + y * sin, cy - x * sin + y * cos], axis=1).reshape(-1)


def test_rotated_boxes_follow_the_shapes_through_resize_and_flip():
    dataset = ShapesDataset(
        num_images=20,
        seed=3,
        class_names=["rectangle"],
        rotation=180,
        crowd_fraction=1.0,
        min_visibility=0.97,
        min_size=24,
        max_size=0.4,
    )
    transforms = [ResizeShortestEdge(short=200, max_size=300), RandomHorizontalFlip(p=1.0)]
    mapper = InputMapper(training=True, transforms=transforms, rotated=True)
    num_boxes, angles = 0, []
    for i in range(20):
        record, instances = dataset[i], mapper(dataset[i])["instances"]
        assert len(instances) == int((~record.iscrowd).sum()), "only crowd regions are dropped"
        polygons = [[corners_of(box)] for box in instances.gt_boxes.tensor]
        boxes = BitMasks.from_polygon_masks(PolygonMasks(polygons), *instances.image_size).tensor
        masks = instances.gt_masks.tensor
        iou = (boxes & masks).sum((1, 2)) / (boxes | masks).sum((1, 2))
        assert (iou > 0.85).all(), f"image {i}: {iou}"
        num_boxes += len(instances)
        angles.extend(instances.gt_boxes.tensor[:, 4].tolist())
    assert num_boxes > 20 and min(angles) < -60 and max(angles) > 60
    assert min(angles) >= -180 and max(angles) < 180


def test_a_crop_moves_rotated_boxes_and_drops_those_outside(map_rotated_boxes, make_crop):
    boxes = [[15.0, 10, 6, 4, 40], [31, 15, 8, 4, 10], [37, 15, 4, 4, 45], [5, 2, 4, 4, 0]]
    instances = map_rotated_boxes(boxes, make_crop(5, 10, 20, 20))
    assert instances.gt_classes.tolist() == [0, 1] and instances.image_size == (20, 20)
    expected = torch.tensor([[5.0, 5, 6, 4, 40], [21, 10, 8, 4, 10]])
    torch.testing.assert_close(instances.gt_boxes.tensor, expected)
    by_torchvision = map_rotated_boxes(boxes, v2.CenterCrop((20, 20)))
    torch.testing.assert_close(by_torchvision.gt_boxes.tensor, expected)


def test_proposals_follow_the_transforms(make_record, make_crop):
    boxes = torch.tensor([[6.0, 2, 16, 12], [0, 0, 10, 10], [26, 0, 36, 10], [20, 5, 40, 45]])
    record = make_record(
        proposals=Proposals(boxes=boxes.clone(), objectness_logits=torch.tensor([0.5, 3, 9, 1]))
    )
    mapper = InputMapper(
        training=True, transforms=[make_crop(0, 5, H, 20)], mask_format=None, max_proposals=2
    )
    proposals = mapper(record)["proposals"]
    assert proposals.image_size == (H, 20) and proposals.objectness_logits.tolist() == [3, 1]
    assert proposals.proposal_boxes.tensor.tolist() == [[0, 0, 5, 10], [15, 5, 20, H]]
    assert torch.equal(record.proposals.boxes, boxes), "the record stays as it was"
    assert "proposals" not in InputMapper(training=True)(record)


def test_evaluation_keeps_the_original_labels(make_record):
    record = ShapesDataset(num_images=1, seed=1, image_size=(40, 60))[0]
    transforms = [Resize(size=(20, 30)), RandomHorizontalFlip(p=1.0)]
    model_input = InputMapper(training=False, transforms=transforms, sem_seg=True)(record)
    assert model_input["sem_seg"].shape == (20, 30)
    ground_truth = model_input["ground_truth"]
    assert ground_truth.keys() == {"sem_seg", "panoptic_seg", "segments_info"}
    assert torch.equal(ground_truth["sem_seg"], record.sem_seg)
    assert torch.equal(ground_truth["panoptic_seg"], record.panoptic_seg)
    assert ground_truth["segments_info"] == record.segments_info
    semantic_only = InputMapper(training=False, sem_seg=True)(make_record())
    assert semantic_only["ground_truth"].keys() == {"sem_seg"}
    assert "ground_truth" not in InputMapper(training=True, sem_seg=True)(record)
    assert "ground_truth" not in InputMapper(training=False)(record)


def test_channel_order(make_record):
    rgb, bgr = (
        InputMapper(training=False, channel_order=order)(make_record())["image"] for order in ("RGB", "BGR")
    )
    assert torch.equal(rgb.flip(0), bgr)


def test_seeds_fix_the_model_input_and_keep_the_global_state():
    record = ShapesDataset(num_images=1, seed=1)[0]
    mapper = InputMapper(training=True, transforms=[RandomCrop(size=(0.3, 0.3)), RandomHorizontalFlip()])
    state = torch.get_rng_state()
    first, second = mapper(record, 5), mapper(record, 5)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(first["image"], second["image"])


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon", None])
def test_an_image_without_objects(make_record, mask_format):
    transforms = [RandomHorizontalFlip(p=1.0), Resize(size=(15, 20))]
    mapper = InputMapper(training=True, transforms=transforms, mask_format=mask_format, keypoints=True)
    instances = mapper(make_record(iscrowd=torch.tensor([True, True, True])))["instances"]
    assert len(instances) == 0 and instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_keypoints.tensor.shape == (0, 2, 3)


def test_torchvision_flips_are_rejected_where_there_are_points():
    with pytest.raises(ValueError, match=r"hydet\.data\.RandomHorizontalFlip"):
        InputMapper(training=True, transforms=v2.Compose([v2.RandomHorizontalFlip()]))
    InputMapper(training=True, transforms=[v2.RandomHorizontalFlip()], mask_format=None)


@pytest.mark.parametrize(
    "arguments", [{"mask_format": "rle"}, {"channel_order": "RBG"}, {"max_proposals": 0}]
)
def test_wrong_arguments_are_rejected(arguments):
    with pytest.raises(ValueError, match="InputMapper"):
        InputMapper(training=True, **arguments)
