"""Tiles that are prepared by the mapper of the data."""

import pytest
import torch

from hydet.config import ConfigError
from hydet.data import InputMapper, ResizeShortestEdge
from hydet.runs.build import build_mapper
from hydet.runs.open_checkpoint import open_checkpoint
from hydet.runs.prediction import unlabeled_record
from hydet.runs.tiling import MappedTiles, add_tiling
from hydet.structures import Boxes, Instances


@pytest.fixture(scope="module")
def detector(tiny_checkpoint):
    return open_checkpoint(tiny_checkpoint, device="cpu")


@torch.no_grad()
def test_an_image_of_one_tile_is_prepared_as_without_tiles(detector):
    mapper = build_mapper(detector.config, detector.model, training=False, labeled=False)
    mapper.transforms = (ResizeShortestEdge(short=50, max_size=100),)
    record = unlabeled_record((torch.rand(3, 40, 60) * 255).byte(), image_id=1, file_name="a.png")
    tiled, full_size = add_tiling(detector.model, mapper, tile=64, overlap=0.2, batch_size=2)
    entry = full_size(record)
    assert torch.equal(entry["image"], record.image.flip(0))  # BGR
    assert mapper.transforms and not full_size.transforms
    (expected,), (result,) = detector.model.inference([mapper(record)]), tiled([entry])
    assert torch.equal(result["instances"].pred_boxes.tensor, expected["instances"].pred_boxes.tensor)
    assert torch.equal(result["instances"].scores, expected["instances"].scores)
    (smaller,) = add_tiling(detector.model, mapper, tile=32, overlap=0.2, batch_size=2)[0]([entry])
    assert smaller["instances"].image_size == (40, 60)


def test_proposals_are_resized_with_their_tile():
    mapper = InputMapper(
        training=False,
        mask_format=None,
        transforms=ResizeShortestEdge(short=20, max_size=100),
        channel_order="BGR",
    )
    proposals = Instances(
        (10, 30), proposal_boxes=Boxes([[1.0, 2, 5, 6]]), objectness_logits=torch.tensor([0.5])
    )
    image = (torch.rand(3, 10, 30) * 255).byte()
    tile = {"image": image, "height": 10, "width": 30, "proposals": proposals}
    mapped = MappedTiles(mapper)(tile)
    assert mapped["image"].shape == (3, 20, 60) and (mapped["height"], mapped["width"]) == (10, 30)
    assert mapped["proposals"].proposal_boxes.tensor.tolist() == [[2, 4, 10, 12]]
    # The transforms see RGB, and the model receives BGR, as from the mapper itself.
    record = unlabeled_record(image.flip(0), image_id=1, file_name="a.png")
    assert torch.equal(mapped["image"], mapper(record)["image"])


def test_a_module_that_is_no_detector_is_refused(detector):
    mapper = InputMapper(training=False, mask_format=None)
    with pytest.raises(ConfigError, match="tile: Linear does not implement"):
        add_tiling(torch.nn.Linear(1, 1), mapper, tile=8, overlap=0, batch_size=1)
