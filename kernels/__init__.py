"""Ops that torchvision lacks or does slowly; needs only torch, and Triton where it is present.

Every op has a definition in plain torch, a Triton kernel, and is registered with ``torch.library``, so that
``torch.compile`` and ``torch.export`` keep it as one node. ``backends()`` says which of them would run.
"""

from hydet.kernels.dispatch import backends, choose, triton_available

__all__ = [
    "backends",
    "choose",
    "triton_available",
]
