import math

import pytest
import torch
import torch.nn.functional as F

from hydet.kernels import paste_masks, triton_available
from hydet.kernels.paste_masks.reference import paste_masks_reference

needs_triton = pytest.mark.skipif(not triton_available(), reason="needs Triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEIGHT, WIDTH = 37, 53


def paste_triton(masks, boxes, height, width, threshold):
    from hydet.kernels.paste_masks.triton_impl import launch_paste_masks

    return launch_paste_masks(masks, boxes, height, width, threshold)


WAYS = [paste_masks_reference, pytest.param(paste_triton, marks=needs_triton)]


def make_args(size=(7, 5)):
    boxes = torch.tensor(
        [
            [3.2, 4.9, 30.7, 29.1],
            [-10.0, -8.0, 20.0, 60.0],
            [40.5, 20.25, 41.0, 20.5],  # under a pixel
            [0.0, 0.0, 53.0, 37.0],
            [50.0, 30.0, 90.0, 80.0],
        ],
        device=DEVICE,
    )
    return torch.rand(len(boxes), *size, device=DEVICE), boxes


def sampled(masks, boxes):
    """Values by the sampler of torch, over the whole image."""
    x1, y1, x2, y2 = boxes[:, :, None].unbind(dim=1)
    y = (torch.arange(HEIGHT, device=DEVICE) + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(WIDTH, device=DEVICE) + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack([x[:, None, :].expand(-1, HEIGHT, -1), y[:, :, None].expand(-1, -1, WIDTH)], dim=3)
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (28, 28)])
@pytest.mark.parametrize("way", WAYS)
def test_matches_grid_sample(way, size):
    masks, boxes = make_args(size)
    values = sampled(masks, boxes)
    clear = (values - 0.5).abs() > 1e-5  # closer than that, rounding decides
    found = way(masks, boxes, HEIGHT, WIDTH, 0.5)
    assert found.dtype == torch.bool
    assert torch.equal(found[clear], (values >= 0.5)[clear])
    soft = way(masks, boxes, HEIGHT, WIDTH, -1.0)
    assert soft.dtype == torch.uint8
    assert ((soft.float() - (values * 255).floor()).abs() <= 1).all()
    assert (soft.float() == (values * 255).floor()).float().mean() > 0.99


@pytest.mark.parametrize("way", WAYS)
def test_useless_boxes_draw_nothing(way):
    nan, inf = math.nan, math.inf
    rows = [
        [100.0, 100.0, 120.0, 130.0],
        [-50.0, 3.0, -20.0, 20.0],
        [5.0, 5.0, 5.0, 9.0],
        [9.0, 9.0, 5.0, 5.0],
        [nan, 1.0, 9.0, 9.0],
        [1.0, 1.0, inf, 9.0],
        [-inf, -inf, inf, inf],
        [-3e38, 1.0, 3e38, 9.0],
        [1e30, 1e30, 2e30, 2e30],
    ]
    boxes = torch.tensor(rows, device=DEVICE)
    masks = torch.ones(len(rows), 4, 4, device=DEVICE)
    assert not way(masks, boxes, HEIGHT, WIDTH, 0.5).any()
    assert not way(masks, boxes, HEIGHT, WIDTH, -1.0).any()
    assert way(masks, boxes, HEIGHT, WIDTH, 0.0).all()


@pytest.mark.parametrize("threshold", [0.5, -1.0])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_to_paste(way, threshold):
    masks, boxes = make_args()
    dtype = torch.bool if threshold >= 0 else torch.uint8
    for found, shape in (
        (way(masks[:0], boxes[:0], 4, 6, threshold), (0, 4, 6)),
        (way(masks, boxes, 0, 6, threshold), (5, 0, 6)),
        (way(masks[:, :0], boxes, 4, 6, threshold), (5, 4, 6)),
    ):
        assert found.shape == shape
        assert found.dtype == dtype
        assert not found.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_any_precision_and_layout(way, dtype):
    masks, boxes = make_args()
    masks = masks.to(dtype)
    expected = paste_masks_reference(masks.float(), boxes, HEIGHT, WIDTH, 0.4)
    strided = masks.mT.contiguous().mT
    found = way(strided, boxes.T.contiguous().T, HEIGHT, WIDTH, 0.4)
    assert (found != expected).float().mean() < 1e-3  # where the value is the threshold up to rounding


def test_full_mask_fills_its_box():
    boxes = torch.tensor([[10.0, 5.0, 30.0, 25.0]], device=DEVICE)
    found = paste_masks(torch.ones(1, 14, 14, device=DEVICE), boxes, (HEIGHT, WIDTH), 0.5)
    expected = torch.zeros_like(found)
    expected[0, 5:25, 10:30] = True
    assert torch.equal(found, expected)


def test_flipping_commutes():
    masks, boxes = make_args()
    flipped = torch.stack([WIDTH - boxes[:, 2], boxes[:, 1], WIDTH - boxes[:, 0], boxes[:, 3]], dim=1)
    found = paste_masks(masks.flip(2), flipped, (HEIGHT, WIDTH), 0.5).flip(2)
    assert (found != paste_masks(masks, boxes, (HEIGHT, WIDTH), 0.5)).float().mean() < 1e-3


@pytest.mark.parametrize("threshold", [0.5, -1.0])
def test_registration(threshold):
    masks, boxes = make_args()
    torch.library.opcheck(torch.ops.hydet.paste_masks.default, (masks, boxes, 9, 11, threshold))


def test_export_keeps_one_node():
    class Paste(torch.nn.Module):
        def forward(self, masks, boxes):
            return paste_masks(masks, boxes, (HEIGHT, WIDTH), 0.5)

    masks, boxes = make_args()
    count = torch.export.Dim("count")
    program = torch.export.export(Paste(), (masks, boxes), dynamic_shapes=({0: count}, {0: count}))
    assert [str(node.target) for node in program.graph.nodes].count("hydet.paste_masks.default") == 1
    found = program.module()(masks[:3], boxes[:3])
    assert torch.equal(found, paste_masks(masks[:3], boxes[:3], (HEIGHT, WIDTH), 0.5))


def test_says_what_does_not_fit():
    masks, boxes = make_args()
    with pytest.raises(ValueError, match=r"masks must be \(N, M, M\)"):
        paste_masks(masks[:, None], boxes, (4, 4), 0.5)
    with pytest.raises(ValueError, match=r"boxes must be \(5, 4\)"):
        paste_masks(masks, boxes[:2], (4, 4), 0.5)
    with pytest.raises(TypeError, match="floating point"):
        paste_masks(masks.long(), boxes, (4, 4), 0.5)
    with pytest.raises(ValueError, match="negative"):
        paste_masks(masks, boxes, (-4, 4), 0.5)
