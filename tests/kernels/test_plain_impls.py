"""Implementations for exported programs, in operators of PyTorch and torchvision, agree with the ops."""

import pytest
import torch

from hydet.kernels import nms_padded, roi_align
from hydet.kernels.nms_padded.plain_impl import forward_plain as plain_nms_padded
from hydet.kernels.roi_align.plain_impl import forward_plain as plain_roi_align


@pytest.mark.parametrize(("images", "count"), [(0, 5), (2, 0), (1, 1), (3, 60)])
@pytest.mark.parametrize("limit", [0, 7, 1000])
@pytest.mark.parametrize("grouped", [True, False])
def test_plain_suppression(images, count, limit, grouped):
    corner = 60 * torch.rand(images, count, 2) - 20
    boxes = torch.cat([corner, corner + 2 + 30 * torch.rand(images, count, 2)], dim=2)
    scores = torch.randn(images, count)
    groups = torch.randint(0, 3, (images, count)) if grouped else None
    valid = torch.rand(images, count) > 0.2 if grouped else None
    limit = min(limit, count)
    indices, counts = plain_nms_padded(boxes, scores, groups, valid, 0.4, limit)
    expected, expected_counts = nms_padded(boxes, scores, 0.4, groups=groups, valid=valid, max_outputs=limit)
    assert torch.equal(counts, expected_counts) and torch.equal(indices, expected)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_plain_pooling(sampling_ratio, aligned):
    features = [torch.randn(2, 4, 24, 32), torch.randn(2, 4, 12, 16)]
    near = 60 * torch.rand(40, 2) - 10
    rois = torch.cat([torch.randint(2, (40, 1)).float(), near, near + 80 * torch.rand(40, 2)], dim=1)
    rois[3, 2], rois[4, 0], rois[5, 3], rois[6] = float("nan"), 7, float("inf"), 0
    levels = torch.randint(2, (40,))
    scales = [0.25, 0.125]
    pooled = plain_roi_align(features, rois, levels, 7, 5, scales, sampling_ratio, aligned)
    expected = roi_align(
        features,
        rois,
        output_size=(7, 5),
        spatial_scales=scales,
        levels=levels,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )
    torch.testing.assert_close(pooled, expected)
    one_level = plain_roi_align(features[:1], rois, None, 7, 5, scales[:1], sampling_ratio, aligned)
    expected = roi_align(
        features[:1],
        rois,
        output_size=(7, 5),
        spatial_scales=scales[:1],
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )
    torch.testing.assert_close(one_level, expected)
