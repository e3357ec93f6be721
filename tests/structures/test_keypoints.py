import pytest
import torch
from torch.nn import functional as F

from hydet.structures import Boxes, Keypoints, heatmaps_to_keypoints


def test_heatmap_cells_decode_to_their_keypoints():
    boxes = torch.tensor([[10.0, 20, 66, 132], [0, 0, 28, 28]])
    g = torch.Generator().manual_seed(0)
    inside = torch.rand(2, 5, 2, generator=g)
    points = boxes[:, None, :2] + inside * (boxes[:, None, 2:] - boxes[:, None, :2])
    keypoints = Keypoints(torch.cat([points, torch.full((2, 5, 1), 2.0)], dim=2))
    cells, valid = keypoints.to_heatmap(Boxes(boxes), 28)
    assert valid.all() and cells.dtype == valid.dtype == torch.int64
    maps = F.one_hot(cells, 28 * 28).reshape(2, 5, 28, 28).float() * 20
    keypoints = heatmaps_to_keypoints(maps, boxes)
    cell = (boxes[:, 2:] - boxes[:, :2])[:, None] / 28
    assert ((keypoints[..., :2] - points).abs() <= cell).all()
    assert (keypoints[..., 3] > 0).all()


def test_invalid_keypoints_have_cell_zero():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 5, 5]])
    points = torch.tensor([[[5.0, 5, 0], [-1, 5, 2], [10, 10, 1]], [[5, 5, 2], [6, 6, 2], [0, 0, 0]]])
    cells, valid = Keypoints(points).to_heatmap(boxes, 4)
    assert valid[0].tolist() == [0, 0, 1] and cells[0].tolist() == [0, 0, 15]
    assert ((cells >= 0) & (cells < 16)).all()


@pytest.mark.parametrize("n", [0, 1])
def test_heatmap_shapes_of_zero_and_single_objects(n):
    cells, valid = Keypoints(torch.zeros(n, 17, 3)).to_heatmap(torch.zeros(n, 4), 56)
    assert cells.shape == valid.shape == (n, 17)
    assert heatmaps_to_keypoints(torch.zeros(n, 17, 8, 8), torch.zeros(n, 4)).shape == (n, 17, 4)


def test_indexing_and_cat():
    keypoints = Keypoints(torch.arange(4 * 2 * 3).reshape(4, 2, 3))
    assert keypoints[1].tensor.shape == (1, 2, 3) and keypoints.tensor.dtype == torch.float32
    assert len(keypoints[torch.tensor([True, False, True, False])]) == 2
    assert torch.equal(Keypoints.cat([keypoints[:1], keypoints[1:]]).tensor, keypoints.tensor)
    for wrong, error in (([], ValueError), ([keypoints, keypoints.tensor], TypeError)):
        with pytest.raises(error):
            Keypoints.cat(wrong)
    with pytest.raises(ValueError, match=r"\(N, K, 3\)"):
        Keypoints(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="4 objects"):
        keypoints.to_heatmap(torch.zeros(3, 4), 8)


def test_decoding_does_not_depend_on_batch():
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 2, 14, 14, generator=g)
    rois = torch.tensor([[0.0, 0, 30.5, 20], [5, 5, 5.2, 5.1], [3, 4, 60, 9]])
    together = heatmaps_to_keypoints(maps, rois)
    for i in range(3):
        torch.testing.assert_close(heatmaps_to_keypoints(maps[i : i + 1], rois[i : i + 1])[0], together[i])
    near = rois[:, None, :2]
    far = torch.maximum(rois[:, 2:], rois[:, :2] + 1)[:, None]
    assert ((together[..., :2] >= near) & (together[..., :2] <= far)).all()


def test_half_precision_maps_and_gradients():
    maps = torch.randn(2, 3, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    keypoints = heatmaps_to_keypoints(maps, torch.tensor([[0.0, 0, 9, 9]] * 2))
    assert keypoints.dtype == torch.float32 and not keypoints.requires_grad
    with pytest.raises(ValueError, match="rois"):
        heatmaps_to_keypoints(maps, torch.zeros(2, 5))


def test_operator_passes_opcheck():
    torch.library.opcheck(
        torch.ops.hydet.heatmaps_to_keypoints, (torch.randn(2, 3, 8, 8), torch.tensor([[0.0, 0, 9, 9]] * 2))
    )
