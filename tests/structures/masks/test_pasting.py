import pytest
import torch
import torch.nn.functional as F

from hydet.structures import Boxes, paste_masks_in_image


def sample_image(masks, boxes, size):
    """Define pasting by grid_sample over the whole image."""
    height, width = size
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    y = (y - boxes[:, 1:2]) / (boxes[:, 3:] - boxes[:, 1:2]) * 2 - 1
    x = (x - boxes[:, :1]) / (boxes[:, 2:3] - boxes[:, :1]) * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


def random_boxes(count, size):
    corner = torch.rand(count, 2) * size - size / 4
    return torch.cat([corner, corner + 0.5 + torch.rand(count, 2) * size], dim=1)


@pytest.fixture(params=["eager", "exported"])
def paste(request, monkeypatch):
    if request.param == "exported":  # run the traced form eagerly
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    return paste_masks_in_image


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.9])
@pytest.mark.parametrize("cells", [(28, 28), (7, 7), (5, 9)])
def test_pasting_matches_bilinear_sampling(paste, threshold, cells):
    masks, boxes = torch.rand(9, *cells), random_boxes(9, 60)
    values = sample_image(masks, boxes, (40, 50))
    got = paste(masks, boxes, (40, 50), threshold)
    assert got.dtype == torch.bool
    clear = (values - threshold).abs() > 1e-4
    assert torch.equal(got[clear], (values >= threshold)[clear])


def test_negative_threshold_returns_values(paste):
    masks, boxes = torch.rand(4, 12, 12), random_boxes(4, 30)
    got = paste(masks, boxes, (24, 30), -1)
    assert got.dtype == torch.uint8
    assert (got.float() - sample_image(masks, boxes, (24, 30)) * 255).abs().max() <= 1.01


def test_threshold_zero_fills_the_image(paste):
    assert paste(torch.rand(2, 5, 5), random_boxes(2, 20), (16, 20), 0.0).all()


@pytest.mark.parametrize(
    "box",
    [
        [100.0, 100, 120, 120],
        [-50, -50, -20, -20],
        [5, 5, 5, 9],
        [9, 9, 5, 5],
        [0, 0, float("nan"), 5],
        [0, 0, float("inf"), 5],
    ],
)
def test_outside_and_degenerate_boxes_give_empty_masks(paste, box):
    boxes = torch.tensor([box, [2.0, 2, 10, 10]])
    got = paste(torch.ones(2, 7, 7), boxes, (16, 20))
    assert got.flatten(1).sum(dim=1).tolist() == [0, 64]


def test_empty_inputs_and_boxes_container():
    assert paste_masks_in_image(torch.zeros(0, 28, 28), torch.zeros(0, 4), (6, 7)).shape == (0, 6, 7)
    assert paste_masks_in_image(torch.zeros(0, 28, 28), torch.zeros(0, 4), (6, 7), -1).dtype == torch.uint8
    assert paste_masks_in_image(torch.ones(1, 4, 4), torch.ones(1, 4), (0, 7)).shape == (1, 0, 7)
    whole = Boxes(torch.tensor([[0.0, 0, 7, 6]]))
    assert paste_masks_in_image(torch.ones(1, 4, 4), whole, (6, 7)).all()


def test_half_precision_and_strided_masks():
    masks = torch.rand(3, 8, 8).transpose(1, 2)
    boxes = random_boxes(3, 20)
    assert torch.equal(
        paste_masks_in_image(masks.bfloat16(), boxes, (16, 20)),
        paste_masks_in_image(masks.bfloat16().float(), boxes, (16, 20)),
    )


def test_mismatched_counts_and_shapes_raise():
    with pytest.raises(ValueError, match=r"boxes must be \(2, 4\)"):
        paste_masks_in_image(torch.ones(2, 4, 4), torch.zeros(3, 4), (6, 7))
    with pytest.raises(ValueError, match=r"masks must be"):
        paste_masks_in_image(torch.ones(2, 1, 4, 4), torch.zeros(2, 4), (6, 7))


def test_exports_with_any_number_of_masks():
    class Paste(torch.nn.Module):
        def forward(self, masks, boxes):
            return paste_masks_in_image(masks, boxes, (16, 20))

    count = torch.export.Dim("count", min=2, max=100)
    masks, boxes = torch.rand(5, 7, 7), random_boxes(5, 20)
    program = torch.export.export(Paste(), (masks[:3], boxes[:3]), dynamic_shapes=[{0: count}, {0: count}])
    assert torch.equal(program.module()(masks, boxes), paste_masks_in_image(masks, boxes, (16, 20)))
