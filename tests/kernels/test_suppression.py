"""Greedy suppression from known overlaps."""

import pytest
import torch

from hydet.kernels.suppression.torch_impl import greedy_survivors


def greedy(overlaps, num_boxes):
    keep = []
    for j in range(num_boxes):
        if not any((i, j) in overlaps for i in keep):
            keep.append(j)
    return keep


def random_overlaps(num_boxes, num_pairs):
    pairs = torch.randint(0, num_boxes, (num_pairs, 2)).sort(dim=1)[0].tolist()
    return sorted({(i, j) for i, j in pairs if i < j})


@pytest.mark.parametrize("num_pairs", [0, 30, 400])
def test_torch_is_greedy(num_pairs):
    overlaps = random_overlaps(40, num_pairs)
    suppressor, suppressed = torch.tensor(overlaps, dtype=torch.int64).view(-1, 2).unbind(1)
    keep = greedy_survivors(suppressor, suppressed, 40)
    assert keep.nonzero()[:, 0].tolist() == greedy(overlaps, 40)


@pytest.mark.parametrize("bitwise", [False, True])
@pytest.mark.parametrize("num_pairs", [30, 400])
def test_triton_is_greedy(triton_device, bitwise, num_pairs):
    from hydet.kernels.suppression.triton_impl import launch_suppression

    overlaps = random_overlaps(70, num_pairs)
    words = torch.zeros(1, 3, 70, dtype=torch.int64)
    for i, j in overlaps:
        words[0, j // 32, i] |= 1 << (j % 32)
    mask = torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)
    valid = torch.ones(1, 70, dtype=torch.bool)
    keep = launch_suppression(mask.to(triton_device), valid.to(triton_device), bitwise=bitwise)[0]
    assert keep.nonzero()[:, 0].tolist() == greedy(overlaps, 70)


@pytest.mark.parametrize("bitwise", [False, True])
def test_triton_across_words_with_padding(triton_device, bitwise):
    from hydet.kernels.suppression.triton_impl import launch_suppression

    mask = torch.zeros(1, 2, 40, dtype=torch.int32)
    mask[0, 1, 0] = 1 << 3  # box 0 overlaps box 35, which overlaps box 39
    mask[0, 1, 35] = 1 << 7
    mask[0, 0, 1] = -(1 << 31)  # box 1 overlaps box 31
    valid = torch.ones(1, 40, dtype=torch.bool)
    valid[0, 20] = False
    keep = launch_suppression(mask.to(triton_device), valid.to(triton_device), bitwise=bitwise)[0]
    assert (~keep).nonzero()[:, 0].tolist() == [20, 31, 35]
