"""The README's command for own data, on exports as annotation tools write them."""

import json

import numpy as np
import pytest
from PIL import Image

from hydet.cli.train import main

# As in the README, on a small scale.
SMALL = [
    "data=coco_instance", "data.class_names=null", "batch_size=2", "backbone=r18_slim", "size=slim", "augment=flip",
    "num_workers=0", "trainer.max_steps=1", "trainer.device=cpu", "evaluation.pictures=0", "norm=BN", "freeze_at=0",
]  # fmt: skip


@pytest.fixture
def train(tmp_path, capsys):
    """Train on an export with one changed kind of field; returns the exit status and the output on one line."""

    def run(*overrides, change, labeled_size=(64, 48)):
        (tmp_path / "images").mkdir()
        images, annotations = [], []
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 255, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / f"p{i}.png")
            images.append({"id": i, "file_name": f"p{i}.png", "width": labeled_size[0]})
            images[-1]["height"] = labeled_size[1]
            annotations.append(
                {
                    "id": i + 1, "image_id": i, "category_id": 1, "bbox": [8, 8, 24, 24], "area": 576, "iscrowd": 0,
                    "segmentation": [[8, 8, 32, 8, 32, 32, 8, 32]],
                }
            )  # fmt: skip
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]}
        for a in annotations:
            change(a)
        (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
        paths = [
            f"data.{split}.{key}={tmp_path / name}"
            for split in ("train", "val")
            for key, name in (("json", "a.json"), ("images", "images"))
        ]
        status = main([*SMALL, *paths, f"output_dir={tmp_path / 'run'}", *overrides])
        output = capsys.readouterr()
        return status, " ".join((output.out + output.err).split())

    return run


def without_mask(annotation):
    annotation["segmentation"] = []


def test_boxes_alone_choose_a_model_that_fits(train, tmp_path):
    status, output = train(change=without_mask)
    assert status == 0 and "GeneralizedRCNN (box)," in output
    assert "replaces the default: the model needs masks, but data.train has none" in output
    assert "box/AP" in (tmp_path / "run" / "metrics.json").read_text(encoding="utf-8")


def test_a_chosen_model_that_does_not_fit_ends_before_the_first_step(train):
    status, output = train("model=mask_rcnn_fpn", change=without_mask)
    assert status == 1 and "step 1/" not in output
    assert (
        "the model needs masks, but data.train has none; models that fit these data: model=faster" in output
    )


def test_masks_of_a_brush_are_objects(train):
    runs = [48 * 8 + 8, 24, 48 * 56 - 32]  # one column of 24 pixels
    mask = {"size": [48, 64], "counts": runs}
    status, output = train(change=lambda a: a.update(iscrowd=1, segmentation=mask, bbox=[8, 8, 1, 24]))
    assert status == 0
    assert "2 of 2 annotations have iscrowd=1, as CVAT's mask tool writes for single objects" in output


def test_problems_found_while_images_are_read_are_printed_at_the_end(train, tmp_path):
    status, output = train(change=lambda a: None, labeled_size=(128, 96))
    assert status == 0
    end = output[output.rindex("found in training images") :]
    assert "2 x other size, labels scaled: such as" in end and ".png: the image has 64 x 48" in end
    notes = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["ground_truth"]
    assert "2 x other size, labels scaled" in notes[1]
