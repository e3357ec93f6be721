"""Compile every kernel with the arguments of its launcher, for a GPU that need not exist. Run by test_triton_compiles.

A driver that only reports a device replaces that of CUDA, and kernels are compiled but not started.
"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from hydet.kernels.box_iou_rotated import triton_impl as box_iou_rotated
from hydet.kernels.match_anchors import triton_impl as match_anchors
from hydet.kernels.nms_padded import triton_impl as nms_padded
from hydet.kernels.nms_rotated import triton_impl as nms_rotated
from hydet.kernels.paste_masks import triton_impl as paste_masks
from hydet.kernels.roi_align import triton_impl as roi_align
from hydet.kernels.roi_align_rotated import triton_impl as roi_align_rotated
from hydet.kernels.sigmoid_focal_loss import triton_impl as sigmoid_focal_loss


class ReportedDevice:
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
    driver.set_active(ReportedDevice(int(sys.argv[1])))
    run = JITFunction.run
    compiled = []

    def compile_only(self, *args, grid, warmup, **options):
        compiled.append(f"{self.fn.__module__}.{self.fn.__name__}")
        return run(self, *args, grid=grid, warmup=True, **options)

    JITFunction.run = compile_only
    rotated, scores, groups = torch.rand(70, 5), torch.rand(70), torch.zeros(70, dtype=torch.int64)
    box_iou_rotated.launch_forward(rotated, rotated)
    nms_rotated.launch_forward(rotated, scores, groups, 0.5)
    nms_padded.launch_forward(torch.rand(2, 70, 4), torch.rand(2, 70), groups.expand(2, -1), None, 0.5, 20)
    match_anchors.launch_forward(torch.rand(300, 4), torch.rand(7, 4), [0.4, 0.5], [0, -1, 1], True)
    levels = [torch.rand(2, n, 80, dtype=torch.bfloat16) for n in (90, 30, 7, 2, 1)]
    targets = torch.zeros(2, 130, dtype=torch.int64)
    sigmoid_focal_loss.launch_forward(levels, targets, 0.25, 2.0)
    sigmoid_focal_loss.launch_backward(torch.ones(()), levels, targets, 0.25, 2.0)
    paste_masks.launch_forward(torch.rand(3, 28, 28), torch.rand(3, 4) * 50, 60, 70, 0.5)
    features = [torch.rand(2, 32, n, n, dtype=torch.bfloat16) for n in (20, 10)]
    shapes = [tuple(feature.shape) for feature in features]
    image, level = torch.arange(6) % 2, torch.tensor([0, 0, 0, 1, 1, 1])
    grad = torch.rand(6, 32, 7, 7, dtype=torch.bfloat16)
    for op, box_dim, aligned in ((roi_align, 4, (True,)), (roi_align_rotated, 5, ())):
        rois = torch.cat([image[:, None], torch.rand(6, box_dim) * 30 + 5], dim=1)
        op.launch_forward(features, rois, level, (7, 7), (0.25, 0.125), 0, *aligned)
        for deterministic in (False, True):
            op.launch_backward(grad, rois, level, shapes, (0.25, 0.125), 0, *aligned, deterministic)
    print(triton.__version__, *compiled)


if __name__ == "__main__":
    main()
