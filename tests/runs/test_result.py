"""Contents, drawings and files of a result."""

import io
import json

import pytest
import torch
from PIL import Image

from hydet.data import Metadata
from hydet.runs.result import Result
from hydet.structures import Boxes, Instances, Keypoints, ROIMasks, RotatedBoxes, SemanticScores


def test_objects(make_result):
    result = make_result()
    assert len(result) == 2 and (result.height, result.width) == (40, 60)
    assert result.boxes.shape == (2, 4) and not result.is_rotated
    assert result.class_ids.tolist() == [1, 0] and result.class_names == ["dog", "cat"]
    assert result.scores.tolist() == pytest.approx([0.9, 0.4])
    assert result.masks is result.keypoints is result.panoptic is result.semantic is None
    assert repr(result) == "Result(photos/a.jpg, 40 x 60: 1 dog, 1 cat)"
    with pytest.raises(ValueError, match="no masks"):
        next(result.iterate_masks())


def test_masks_are_pasted_when_they_are_read(make_result):
    result = make_result(pred_masks=ROIMasks(torch.ones(2, 28, 28)))
    masks = result.masks
    assert masks.shape == (2, 40, 60) and masks.dtype == torch.bool
    assert masks[0, 10:20, 15:25].all() and masks[0].sum() == 20 * 20
    assert all(torch.equal(single, mask) for single, mask in zip(result.iterate_masks(), masks, strict=True))
    full = make_result(pred_masks=masks)
    torch.testing.assert_close(full.masks, masks)


def test_other_kinds_of_output():
    metadata = Metadata(thing_classes=("cat",), stuff_classes=("things", "sky"))
    image = torch.zeros(3, 4, 6, dtype=torch.uint8)
    scores = SemanticScores(torch.stack([torch.zeros(2, 3), torch.ones(2, 3)]), (4, 6))
    semantic = Result(image, {"sem_seg": scores}, metadata)
    assert len(semantic) == 0 and semantic.boxes.shape == (0, 4)
    assert torch.equal(semantic.semantic, torch.ones(4, 6, dtype=torch.int64))
    assert repr(semantic) == "Result(image, 4 x 6: a label per pixel)"
    assert semantic.to_dict()["labels"][0]["label_name"] == "sky"
    proposals = Instances((4, 6), proposal_boxes=Boxes(torch.rand(3, 4)), objectness_logits=torch.ones(3))
    proposed = Result(image, {"proposals": proposals}, metadata)
    assert len(proposed) == 3 and proposed.class_names == ["proposal"] * 3
    assert proposed.scores.tolist() == [1, 1, 1]
    for convert in (proposed.to_coco, proposed.to_yolo, semantic.to_labelme):
        with pytest.raises(ValueError, match="needs objects with classes; the model predicts"):
            convert()
    segments = [
        {"id": 1, "isthing": True, "category_id": 0, "score": 0.5},
        {"id": 2, "isthing": False, "category_id": 1, "area": 12.0},
    ]
    panoptic_map = torch.ones(4, 6, dtype=torch.int32)
    panoptic_map[:2] = 2
    panoptic = Result(image, {"panoptic_seg": (panoptic_map, segments)}, metadata)
    assert repr(panoptic) == "Result(image, 4 x 6: 2 segments)"
    assert [s["class_name"] for s in panoptic.to_dict()["segments"]] == ["cat", "sky"]


def test_drawings(make_result, tmp_path):
    result = make_result()
    drawing = result.plot(min_side=0)
    assert drawing.size == (60, 40)
    assert result._repr_png_() == png_of(result.plot())
    everything = result.plot(score_threshold=0.0, min_side=0)
    assert everything.tobytes() != drawing.tobytes()
    path = result.save(tmp_path / "new" / "a.jpg", labels=False)
    with Image.open(path) as image:
        assert image.format == "JPEG" and max(image.size) == 320
    with pytest.raises(ValueError, match=r"a\.txt: an image file ends in"):
        result.save(tmp_path / "a.txt")


def png_of(image):
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def test_show_opens_a_window_outside_of_notebooks(make_result, monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda image, title: shown.append((image.size, title)))
    make_result().show(min_side=0)
    assert shown == [((60, 40), "photos/a.jpg")]


def test_coco_results_have_the_id_of_the_image(make_result):
    first, second = make_result().to_coco()
    assert first["image_id"] == second["image_id"] == 3
    assert (first["category_id"], first["bbox"]) == (2, [10, 5, 20, 20])
    assert make_result().to_coco(image_id=77)[0]["image_id"] == 77


def test_to_dict_is_json(make_result):
    keypoints = Keypoints(torch.rand(2, 2, 3))
    result = make_result(pred_masks=ROIMasks(torch.ones(2, 28, 28)), pred_keypoints=keypoints)
    values = json.loads(json.dumps(result.to_dict()))
    assert values["name"] == "photos/a.jpg" and (values["height"], values["width"]) == (40, 60)
    dog = values["objects"][0]
    assert (dog["class_id"], dog["class_name"], dog["box"]) == (1, "dog", [10, 5, 30, 25])
    assert dog["mask"]["size"] == [40, 60] and len(dog["keypoints"]) == 2


def test_rotated_boxes(make_result):
    boxes = RotatedBoxes(torch.tensor([[30.0, 20, 10, 6, 45], [20, 20, 8, 8, 0]]))
    result = make_result(pred_boxes=boxes)
    assert result.is_rotated and result.to_dict()["objects"][0]["box"] == [30, 20, 10, 6, 45]
    assert result.to_coco()[0]["bbox"] == [30, 20, 10, 6, 45]
    assert result.plot().size == (320, 213)
