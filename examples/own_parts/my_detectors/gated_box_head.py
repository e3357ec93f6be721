"""A box head: pooled features of each region to one vector."""

from torch import Tensor, nn

from hydet.layers import ShapeSpec


class GatedBoxHead(nn.Module):
    """Weighs the cells of a region by how telling they look, and averages them.

    Args:
        input_shape: channels of the pooled features; height and width do not matter.
        width: length of the vector.
    """

    def __init__(self, *, input_shape: ShapeSpec, width: int = 128) -> None:
        super().__init__()
        self.gate = nn.Conv2d(input_shape.channels, 1, kernel_size=1)
        self.features = nn.Sequential(nn.Conv2d(input_shape.channels, width, kernel_size=1), nn.ReLU())
        self.output_shape = ShapeSpec(channels=width)

    def forward(self, x: Tensor) -> Tensor:
        """``(R, C, H, W)`` -> ``(R, width)``."""
        weights = self.gate(x).flatten(2).softmax(dim=2)  # (R, 1, H * W)
        return (self.features(x).flatten(2) * weights).sum(dim=2)
