"""Augmentations on ``torchvision.tv_tensors`` where torchvision has none or computes something else.

They take and return what ``torchvision.transforms.v2`` does, so both kinds can be mixed. Points are mirrored like boxes,
``x -> W - x``, rotated boxes follow the formulas of :class:`hydet.structures.RotatedBoxes`, and nothing is clamped to the
image: :class:`hydet.data.InputMapper` clips and drops what a crop has left outside.
"""
