"""Pasting of masks into images."""

import math

import pytest
import torch

from hydet.kernels import paste_masks
from hydet.kernels.paste_masks.reference import forward_reference

OP = "paste_masks"
pytestmark = pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # NumPy, in the interpreter
HEIGHT, WIDTH = 37, 53


def make_args(size=(7, 5)):
    boxes = torch.tensor(
        [
            [3.2, 4.9, 30.7, 29.1],
            [-10.0, -8.0, 20.0, 60.0],
            [40.5, 20.25, 41.0, 20.5],  # smaller than a pixel
            [0.0, 0.0, 53.0, 37.0],
            [50.0, 30.0, 90.0, 80.0],
        ]
    )
    return torch.rand(len(boxes), *size), boxes


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (28, 28)])
def test_matches_definition(forward, size):
    masks, boxes = make_args(size)
    quantized = forward(masks, boxes, HEIGHT, WIDTH, -1.0)
    expected = forward_reference(masks, boxes, HEIGHT, WIDTH, -1.0)
    assert quantized.dtype == torch.uint8
    # A value next to a multiple of 1 / 255 may round either way.
    assert ((quantized.int() - expected.int()).abs() <= 1).all()
    assert (quantized == expected).float().mean() > 0.99
    binary = forward(masks, boxes, HEIGHT, WIDTH, 0.5)
    assert binary.dtype == torch.bool
    is_clear = (forward_reference(masks, boxes, HEIGHT, WIDTH, 0.5 - 1e-5)) == (
        forward_reference(masks, boxes, HEIGHT, WIDTH, 0.5 + 1e-5)
    )
    expected = forward_reference(masks, boxes, HEIGHT, WIDTH, 0.5)
    assert torch.equal(binary[is_clear], expected[is_clear])
    assert is_clear.float().mean() > 0.99


def test_definition_of_a_full_mask_fills_its_box():
    boxes = torch.tensor([[10.0, 5.0, 30.0, 25.0]])
    expected = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    expected[0, 5:25, 10:30] = True
    assert torch.equal(forward_reference(torch.ones(1, 14, 14), boxes, HEIGHT, WIDTH, 0.5), expected)


def test_boxes_that_are_invalid_or_outside_give_empty_masks(forward):
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
    boxes = torch.tensor(rows)
    masks = torch.ones(len(rows), 4, 4)
    assert not forward(masks, boxes, HEIGHT, WIDTH, 0.5).any()
    assert not forward(masks, boxes, HEIGHT, WIDTH, -1.0).any()
    assert forward(masks, boxes, HEIGHT, WIDTH, 0.0).all()


@pytest.mark.parametrize("threshold", [0.5, -1.0])
def test_empty_inputs(forward, threshold):
    masks, boxes = make_args()
    dtype = torch.bool if threshold >= 0 else torch.uint8
    for pasted, shape in (
        (forward(masks[:0], boxes[:0], 4, 6, threshold), (0, 4, 6)),
        (forward(masks, boxes, 0, 6, threshold), (5, 0, 6)),
        (forward(masks[:, :0], boxes, 4, 6, threshold), (5, 4, 6)),
    ):
        assert pasted.shape == shape
        assert pasted.dtype == dtype
        assert not pasted.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_and_strides(forward, dtype):
    masks, boxes = make_args()
    masks = masks.to(dtype)
    expected = forward_reference(masks, boxes, HEIGHT, WIDTH, 0.4)
    strided = masks.mT.contiguous().mT
    pasted = forward(strided, boxes.T.contiguous().T, HEIGHT, WIDTH, 0.4)
    assert (pasted != expected).float().mean() < 1e-3  # values that equal the threshold up to rounding


def test_whole_images_equal_windows():
    """Devices other than a CPU compute whole images."""
    from hydet.kernels.paste_masks.torch_impl import paste_whole_images

    masks, boxes = make_args()
    boxes[0, 0] = math.nan
    values = paste_whole_images(masks, boxes, HEIGHT, WIDTH)
    expected = forward_reference(masks, boxes, HEIGHT, WIDTH, -1.0)
    assert ((values * 255).int() - expected.int()).abs().max() <= 1


def test_flip_of_masks_and_boxes_flips_the_result():
    masks, boxes = make_args()
    flipped = torch.stack([WIDTH - boxes[:, 2], boxes[:, 1], WIDTH - boxes[:, 0], boxes[:, 3]], dim=1)
    pasted = paste_masks(masks.flip(2), flipped, (HEIGHT, WIDTH), 0.5).flip(2)
    assert (pasted != paste_masks(masks, boxes, (HEIGHT, WIDTH), 0.5)).float().mean() < 1e-3


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
    pasted = program.module()(masks[:3], boxes[:3])
    assert torch.equal(pasted, paste_masks(masks[:3], boxes[:3], (HEIGHT, WIDTH), 0.5))


def test_bad_arguments():
    masks, boxes = make_args()
    with pytest.raises(ValueError, match=r"masks must be \(N, I, J\)"):
        paste_masks(masks[:, None], boxes, (4, 4), 0.5)
    with pytest.raises(ValueError, match=r"boxes must be \(5, 4\)"):
        paste_masks(masks, boxes[:2], (4, 4), 0.5)
    with pytest.raises(TypeError, match="floating point"):
        paste_masks(masks.long(), boxes, (4, 4), 0.5)
    with pytest.raises(ValueError, match="negative"):
        paste_masks(masks, boxes, (-4, 4), 0.5)
