import numpy as np
import pytest
import torch

from hydet.structures import Keypoints, ROIMasks, RotatedBoxes, polygons_to_bitmask


def numbers(text):
    return [[float(v) for v in line.split()] for line in text.splitlines()]


def test_boxes(make_result, tmp_path):
    path = tmp_path / "labels" / "a.txt"
    text = make_result().to_yolo(path)
    assert path.read_text(encoding="utf-8") == text
    assert numbers(text)[0] == pytest.approx([1, 20 / 60, 15 / 40, 20 / 60, 20 / 40], abs=1e-5)
    assert numbers(text)[1][0] == 0


def test_polygons_cover_the_masks(make_result):
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, 5:25, 10:30] = True
    masks[0, 30:36, 40:50] = True  # a second part
    first, second = numbers(make_result(pred_masks=masks).to_yolo())
    points = np.array(first[1:]).reshape(-1, 2) * [60, 40]
    np.testing.assert_array_equal(polygons_to_bitmask([points.reshape(-1)], 40, 60), masks[0].numpy())
    # An empty mask becomes the box.
    np.testing.assert_allclose(
        np.reshape(second[1:], (4, 2)) * [60, 40], [[20, 10], [59, 10], [59, 39], [20, 39]], atol=1e-3
    )


def test_keypoints_and_rotated_boxes(make_result):
    points = torch.tensor([[[12.0, 20.0, 0.5], [70.0, 4.0, 0.1]]] * 2)
    first = numbers(make_result(pred_keypoints=Keypoints(points)).to_yolo())[0]
    assert first == pytest.approx([1, 1 / 3, 0.375, 1 / 3, 0.5, 0.2, 0.5, 2, 1, 0.1, 2], abs=1e-5)
    boxes = RotatedBoxes(torch.tensor([[30.0, 20, 20, 10, 90], [20, 20, 8, 8, 0]]))
    corners = np.reshape(numbers(make_result(pred_boxes=boxes).to_yolo())[0][1:], (4, 2)) * [60, 40]
    np.testing.assert_allclose(sorted(corners.tolist()), [[25, 10], [25, 30], [35, 10], [35, 30]], atol=1e-3)


def test_supervision_reads_the_files(make_result, tmp_path):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sv = pytest.importorskip("supervision")
        from PIL import Image

        Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
        result = make_result(pred_masks=ROIMasks(torch.ones(2, 28, 28)))
        result.to_yolo(tmp_path / "labels" / "a.txt")
        (tmp_path / "data.yaml").write_text("names: [cat, dog, cow]\nnc: 3\n", encoding="utf-8")
        dataset = sv.DetectionDataset.from_yolo(
            str(tmp_path), str(tmp_path / "labels"), str(tmp_path / "data.yaml"), force_masks=True
        )
    ((_, _, annotation),) = list(dataset)
    assert annotation.class_id.tolist() == [1, 0]
    for read, mask in zip(annotation.mask, result.masks.numpy(), strict=True):
        assert (read & mask).sum() / (read | mask).sum() > 0.9  # supervision draws outlines one pixel wider
