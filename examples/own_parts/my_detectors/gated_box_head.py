"""A box head: pooled features of each region to one vector."""

from torch import Tensor, nn

from hydet.layers import ShapeSpec


class GatedBoxHead(nn.Module):
    """Averages the cells of a region with learned weights.

    Args:
        input_shape: shape of the pooled features; only the channels are used.
        width: length of the vector.
    """

    def __init__(self, *, input_shape: ShapeSpec, width: int = 128) -> None:
        super().__init__()
        if input_shape.channels is None:
            raise ValueError("GatedBoxHead needs the channels of the pooled features")
        self.gate = nn.Conv2d(input_shape.channels, 1, kernel_size=1)
        self.features = nn.Sequential(nn.Conv2d(input_shape.channels, width, kernel_size=1), nn.ReLU())
        self.output_shape = ShapeSpec(channels=width)

    def forward(self, x: Tensor) -> Tensor:
        """Reduce ``(R, C, H, W)`` pooled features to ``(R, width)``."""
        weights = self.gate(x).flatten(2).softmax(dim=2)  # (R, 1, H * W)
        return (self.features(x).flatten(2) * weights).sum(dim=2)
