"""A model in tiles: one tile changes nothing, and objects on the border of tiles appear once."""

import pytest
import torch
from torch.nn import functional as F

from hydet.modeling import TiledModel
from hydet.structures import Boxes, Instances, ROIMasks, SemanticScores

NAMES = [
    "mask_rcnn_fpn",
    "keypoint_rcnn_fpn",
    "cascade_rcnn_fpn",
    "rotated_faster_rcnn_fpn",
    "fast_rcnn_fpn",
    "retinanet",
    "fcos",
    "panoptic_fpn",
    "semantic_fpn",
    "rpn_fpn",
]


def make_entry(model, height, width):
    entry = {"image": (torch.rand(3, height, width) * 255).byte(), "height": height, "width": width}
    if model.needs_proposals:
        corners = torch.rand(20, 2) * torch.tensor([width - 20.0, height - 20.0])
        boxes = Boxes(torch.cat([corners, corners + 20], dim=1))
        entry["proposals"] = Instances(
            (height, width), proposal_boxes=boxes, objectness_logits=torch.rand(20)
        )
    return entry


def tensors_of(value):
    if isinstance(value, Instances):
        return {name: tensors_of(field) for name, field in value.get_fields().items()}
    if isinstance(value, tuple):
        return [tensors_of(value[0]), value[1]]
    return getattr(value, "tensor", value)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_an_image_of_one_tile_has_the_results_of_the_model(name, small_model):
    model = small_model(name)
    entry = make_entry(model, 64, 96)
    (expected,) = model.inference([entry])
    (result,) = TiledModel(model=model, tile=96)([entry])
    assert result.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(tensors_of(result[key]), tensors_of(expected[key]), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_runs_in_tiles(name, small_model):
    model = small_model(name)
    entry = make_entry(model, 80, 110)
    tiled = TiledModel(model=model, tile=64, overlap=0.25, batch_size=4)
    losses, (result,) = tiled.detect_unpasted([entry], with_losses=True)
    assert losses == {}
    if "instances" in result:
        instances = result["instances"]
        assert len(instances) > 0 and instances.image_size == (80, 110)
        assert (instances.scores.diff() <= 0).all()
        boxes = instances.pred_boxes.tensor
        if boxes.shape[1] == 4:
            assert (boxes >= 0).all() and (boxes <= torch.tensor([110, 80, 110, 80])).all()
        assert instances.has("pred_masks") == ("mask" in model.tasks)
        if "mask" in model.tasks:
            assert isinstance(instances.pred_masks, ROIMasks)
        if "keypoints" in model.tasks:
            assert instances.pred_keypoints.shape[0] == len(instances)
    if "sem_seg" in result:
        assert isinstance(result["sem_seg"], SemanticScores)
        assert result["sem_seg"].image_size == (80, 110)
    if "panoptic_seg" in result:
        assert result["panoptic_seg"][0].shape == (80, 110)
    if "proposals" in result:
        assert len(result["proposals"]) > 0 and result["proposals"].image_size == (80, 110)
    if name == "panoptic_fpn":
        (full,) = tiled.inference([entry])
        assert full.keys() == result.keys()
        assert full["instances"].pred_masks.shape[1:] == (80, 110)
        assert full["sem_seg"].shape[1:] == (80, 110)


class SeesColors(torch.nn.Module):
    """Detects each gray value as an object, with its mask, center and class; it sees no more than its image."""

    tasks = ("box", "mask", "keypoints")
    input_format = None
    needs_proposals = False

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, batched_inputs):
        self.batches.append([tuple(entry["image"].shape[1:]) for entry in batched_inputs])
        return [{"instances": self.detect(entry)} for entry in batched_inputs]

    def detect(self, entry):
        image = entry["image"][0]
        values = [value for value in image.unique().tolist() if value > 0]
        masks = torch.stack([image == value for value in values]) if values else image[None][:0] > 0
        boxes = [extent(mask) for mask in masks]
        size = (entry["height"], entry["width"])
        instances = Instances(
            tuple(image.shape),
            pred_boxes=Boxes(torch.tensor(boxes).view(-1, 4).float()),
            scores=torch.tensor([0.5 + value / 1000 for value in values]),
            pred_classes=torch.tensor([int(value) % 2 for value in values], dtype=torch.int64),
            pred_masks=masks,
            pred_keypoints=torch.tensor([[[b[0], b[1], 0.5]] for b in boxes]).view(-1, 1, 3).float(),
        )
        assert size == instances.image_size
        return instances


def extent(mask):
    rows, columns = mask.nonzero(as_tuple=True)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_objects_on_borders_appear_once_and_whole(batch_size):
    """Objects of all sizes, up to several tiles, at places that lie on the borders of tiles."""
    image = torch.zeros(1, 230, 310, dtype=torch.uint8)
    boxes = {
        11: [5, 5, 15, 15],  # inside a tile
        12: [70, 10, 95, 30],  # cut by one border
        13: [10, 75, 40, 95],
        14: [72, 72, 96, 96],  # cut by two borders
        15: [110, 20, 200, 60],  # larger than the overlap: seen whole by no tile
        16: [100, 110, 290, 220],  # larger than a tile
    }
    for value, (x1, y1, x2, y2) in boxes.items():
        image[:, y1:y2, x1:x2] = value
    model = SeesColors()
    tiled = TiledModel(model=model, tile=80, overlap=0.3, batch_size=batch_size)
    (result,) = tiled.inference([{"image": image}])
    instances = result["instances"]
    by_box = {tuple(box): i for i, box in enumerate(instances.pred_boxes.tensor.int().tolist())}
    assert by_box.keys() == {tuple(box) for box in boxes.values()}
    for value, box in boxes.items():
        i = by_box[tuple(box)]
        assert float(instances.scores[i]) == pytest.approx(0.5 + value / 1000)
        assert instances.pred_classes[i] == value % 2
        differing = (instances.pred_masks[i] != (image[0] == value)).sum() / (image == value).sum()
        assert differing < 0.05
        assert instances.pred_keypoints.shape == (len(boxes), 1, 3)
    assert sum(map(len, model.batches)) == len([size for batch in model.batches for size in batch])
    assert {size for batch in model.batches for size in batch} == {(80, 80)}
    assert max(map(len, model.batches)) <= batch_size


def test_results_are_in_the_frame_of_the_output():
    image = torch.zeros(1, 100, 180, dtype=torch.uint8)
    image[:, 20:60, 85:120] = 7
    (result,) = TiledModel(model=SeesColors(), tile=100)([{"image": image, "height": 50, "width": 360}])
    instances = result["instances"]
    assert instances.image_size == (50, 360) and instances.pred_masks.shape == (1, 50, 360)
    assert instances.pred_boxes.tensor.tolist() == [[170, 10, 240, 30]]
    assert instances.pred_keypoints[0, 0, :2].tolist() == [170, 10]
    assert bool(instances.pred_masks[0, 12:28, 175:235].all())


def test_a_tile_mapper_resizes_tiles():
    def enlarge(entry):
        size = (entry["height"] * 2, entry["width"] * 2)
        return {**entry, "image": F.interpolate(entry["image"][None], size=size)[0]}

    class Scaled(SeesColors):
        def detect(self, entry):
            small = {**entry, "image": entry["image"][:, ::2, ::2]}
            assert entry["image"].shape[1] == 2 * entry["height"]
            return super().detect(small)

    image = torch.zeros(1, 100, 180, dtype=torch.uint8)
    image[:, 20:60, 85:120] = 7
    (result,) = TiledModel(model=Scaled(), tile=100, tile_mapper=enlarge)([{"image": image}])
    assert result["instances"].pred_boxes.tensor.tolist() == [[85, 20, 120, 60]]


def test_images_of_a_batch_keep_their_order():
    images = []
    for value, width in ((1, 250), (2, 60), (3, 100)):
        image = torch.zeros(1, 60, width, dtype=torch.uint8)
        image[:, 10:20, 10:30] = value
        images.append({"image": image})
    results = TiledModel(model=SeesColors(), tile=80, batch_size=2)(images)
    scores = [float(result["instances"].scores[0]) for result in results]
    assert scores == pytest.approx([0.501, 0.502, 0.503])


def test_masks_of_large_images_stay_small(largest_result):
    """No tensor is larger than the image itself, a photo of 12 megapixels; pasted masks would be."""
    tiled = TiledModel(model=SeesColors(), tile=1024, overlap=0.2)
    image = torch.zeros(1, 3000, 4000, dtype=torch.uint8)
    for i in range(12):
        image[:, 200 + 200 * i : 260 + 200 * i, 900:1100] = i + 1
    with largest_result() as largest:
        _, (result,) = tiled.detect_unpasted([{"image": image}], with_losses=False)
    assert len(result["instances"]) == 12
    assert largest.numel <= image.numel()


def test_invalid_settings_raise():
    model = SeesColors()
    for settings, message in (
        ({"tile": 0}, "tile must be at least 1"),
        ({"tile": 8, "overlap": 1.0}, "overlap"),
        ({"tile": 8, "batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ValueError, match=message):
            TiledModel(model=model, **settings)
    model.tasks = ("panoptic",)
    with pytest.raises(ValueError, match="needs a PanopticFPN"):
        TiledModel(model=model, tile=8)


def test_properties_are_those_of_the_model(small_model):
    model = small_model("mask_rcnn_fpn")
    tiled = TiledModel(model=model, tile=64, max_detections=5)
    assert tiled.tasks == model.tasks and tiled.input_format == model.input_format
    assert not tiled.needs_proposals
    assert tiled.nms_thresh == 0.5
    (result,) = tiled([make_entry(model, 96, 160)])
    assert len(result["instances"]) == 5
