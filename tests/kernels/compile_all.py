"""Compiles every kernel as its launcher would start it, for a GPU that need not be there; run by test_triton_compiles.

A driver that only names its device stands in for CUDA's, and starting a kernel stops after it is compiled.
"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from hydet.kernels.box_iou_rotated.triton_impl import launch_box_iou_rotated
from hydet.kernels.match.triton_impl import launch_match_anchors
from hydet.kernels.nms.triton_impl import launch_nms_padded
from hydet.kernels.nms_rotated.triton_impl import launch_nms_rotated
from hydet.kernels.paste_masks.triton_impl import launch_paste_masks
from hydet.kernels.roi_align import triton_impl as upright
from hydet.kernels.roi_align_rotated import triton_impl as turned
from hydet.kernels.sigmoid_focal_loss.triton_impl import (
    launch_sigmoid_focal_loss,
    launch_sigmoid_focal_loss_backward,
)


class NamedDevice:
    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")


def main() -> None:
    driver.set_active(NamedDevice(int(sys.argv[1])))
    start = JITFunction.run
    compiled = []

    def compile_only(self, *args, grid, warmup, **options):
        compiled.append(self.fn.__name__)
        return start(self, *args, grid=grid, warmup=True, **options)

    JITFunction.run = compile_only
    rotated, scores, groups = torch.rand(70, 5), torch.rand(70), torch.zeros(70, dtype=torch.int64)
    launch_box_iou_rotated(rotated, rotated)
    launch_nms_rotated(rotated, scores, groups, 0.5)
    launch_nms_padded(torch.rand(2, 70, 4), torch.rand(2, 70), groups.expand(2, -1), None, 0.5, 20)
    launch_match_anchors(torch.rand(300, 4), torch.rand(7, 4), [0.4, 0.5], [0, -1, 1], True)
    levels = [torch.rand(2, n, 80, dtype=torch.bfloat16) for n in (90, 30, 7, 2, 1)]
    targets = torch.zeros(2, 130, dtype=torch.int64)
    launch_sigmoid_focal_loss(levels, targets, 0.25, 2.0)
    launch_sigmoid_focal_loss_backward(torch.ones(()), levels, targets, 0.25, 2.0)
    launch_paste_masks(torch.rand(3, 28, 28), torch.rand(3, 4) * 50, 60, 70, 0.5)
    features = [torch.rand(2, 32, n, n, dtype=torch.bfloat16) for n in (20, 10)]
    shapes = [tuple(feature.shape) for feature in features]
    image, which = torch.arange(6) % 2, torch.tensor([0, 0, 0, 1, 1, 1])
    grad = torch.rand(6, 32, 7, 7, dtype=torch.bfloat16)
    for module, numbers, more in ((upright, 4, (True,)), (turned, 5, ())):
        rois = torch.cat([image[:, None], torch.rand(6, numbers) * 30 + 5], dim=1)
        module.launch_forward(features, rois, which, (7, 7), (0.25, 0.125), 0, *more)
        for deterministic in (False, True):
            module.launch_backward(grad, rois, which, shapes, (0.25, 0.125), 0, *more, deterministic)
    print(triton.__version__, *compiled)


if __name__ == "__main__":
    main()
