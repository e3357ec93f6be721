import sys

import numpy as np
import pytest
import torch

from hydet.structures import Keypoints, ROIMasks, RotatedBoxes


@pytest.fixture
def sv():
    """Return supervision, which warns about missing OpenCV when it is imported."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("supervision")


def test_detections(sv, make_result):
    result = make_result(
        pred_masks=ROIMasks(torch.ones(2, 28, 28)), pred_keypoints=Keypoints(torch.rand(2, 2, 3))
    )
    detections = result.to_supervision()
    assert isinstance(detections, sv.Detections) and len(detections) == 2
    assert detections.class_id.tolist() == [1, 0] and detections["class_name"].tolist() == ["dog", "cat"]
    np.testing.assert_array_equal(detections.xyxy, result.boxes.numpy())
    np.testing.assert_array_equal(detections.mask, result.masks.numpy())
    assert detections[detections.confidence > 0.5].data["keypoints"].shape == (1, 2, 3)


def test_rotated_boxes_have_corners(sv, make_result):
    boxes = RotatedBoxes(torch.tensor([[30.0, 20, 10, 6, 90], [20, 20, 8, 8, 0]]))
    detections = make_result(pred_boxes=boxes).to_supervision()
    corners = detections.data[sv.config.ORIENTED_BOX_COORDINATES]
    assert corners.shape == (2, 4, 2)
    np.testing.assert_allclose(detections.xyxy[0], [27, 15, 33, 25], atol=1e-4)


def test_no_objects(sv, make_result):
    result = make_result()
    result.output["instances"] = result.output["instances"][:0]
    assert len(result.to_supervision()) == 0


def test_without_supervision_the_error_names_the_extra(make_result, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"pip install 'hydet\[supervision\]'"):
        make_result().to_supervision()
