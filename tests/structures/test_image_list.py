import pytest
import torch

from hydet.structures import ImageList


def images(*sizes, channels=3):
    g = torch.Generator().manual_seed(0)
    return [torch.rand(channels, h, w, generator=g) for h, w in sizes]


@pytest.mark.parametrize("sizes", [[(5, 9)], [(5, 9), (7, 3)], [(5, 9), (5, 9)], [(0, 4), (3, 3)]])
@pytest.mark.parametrize("divisor", [0, 1, 8])
def test_images_are_recovered_and_rest_is_padding(sizes, divisor):
    given = images(*sizes)
    batch = ImageList.from_tensors(given, size_divisibility=divisor, pad_value=-7.0)
    assert batch.image_sizes == sizes and len(batch) == len(sizes)
    if divisor > 1:
        assert batch.tensor.shape[-1] % divisor == 0 and batch.tensor.shape[-2] % divisor == 0
    for image, unpadded in zip(given, batch):
        assert torch.equal(image, unpadded)
    padding = batch.tensor.numel() - sum(image.numel() for image in given)
    assert (batch.tensor == -7).sum() == padding


def test_batch_does_not_alias_an_image():
    (image,) = images((4, 4))
    before = image.clone()
    ImageList.from_tensors([image]).tensor.add_(1)
    assert torch.equal(image, before)


def test_square_constraint():
    batch = ImageList.from_tensors(
        images((5, 9)), 8, padding_constraints={"square_size": 20, "size_divisibility": 0}
    )
    assert batch.tensor.shape == (1, 3, 20, 20)
    with pytest.raises(ValueError, match="square_size 8"):
        ImageList.from_tensors(images((5, 9)), padding_constraints={"square_size": 8})


def test_invalid_inputs_raise():
    with pytest.raises(ValueError, match="at least one"):
        ImageList.from_tensors([])
    with pytest.raises(TypeError, match="Tensor"):
        ImageList.from_tensors(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="equal in all"):
        ImageList.from_tensors([torch.zeros(3, 4, 4), torch.zeros(1, 4, 4)])
    with pytest.raises(ValueError, match="equal in all"):
        ImageList.from_tensors([torch.zeros(4)])


def test_to_keeps_image_sizes():
    batch = ImageList.from_tensors(images((5, 9), (6, 2))).to(torch.float64)
    assert batch.tensor.dtype == torch.float64 and batch.image_sizes == [(5, 9), (6, 2)]
    assert batch.device.type == "cpu"
