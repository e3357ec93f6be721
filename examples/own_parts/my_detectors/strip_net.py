"""A backbone: images to feature maps by name."""

from collections.abc import Sequence

from torch import Tensor, nn

from hydet.modeling import Backbone

STRIDES = {"quarter": 4, "eighth": 8, "sixteenth": 16, "thirtysecond": 32}


class StripNet(Backbone):
    """Four stages of depthwise convolutions along rows, then along columns.

    Args:
        width: channels of the first stage; they double with every stage.
        kernel_size: length of the depthwise convolutions.
        out_features: names of the feature maps to return, among ``quarter``, ``eighth``, ``sixteenth`` and
            ``thirtysecond``.
    """

    def __init__(
        self,
        *,
        width: int = 24,
        kernel_size: int = 5,
        out_features: Sequence[str] = tuple(STRIDES),
    ) -> None:
        super().__init__()
        unknown = set(out_features) - set(STRIDES)
        if unknown:
            raise ValueError(f"StripNet has no feature maps {sorted(unknown)}; there are {list(STRIDES)}")
        self.stages = nn.ModuleDict()
        channels = {name: width << i for i, name in enumerate(STRIDES)}
        incoming = 3
        for name, outgoing in channels.items():
            stride = 4 if name == "quarter" else 2
            self.stages[name] = nn.Sequential(
                nn.Conv2d(incoming, outgoing, stride + 1, stride=stride, padding=stride // 2, bias=False),
                nn.BatchNorm2d(outgoing),
                nn.ReLU(),
                nn.Conv2d(outgoing, outgoing, (1, kernel_size), padding="same", groups=outgoing, bias=False),
                nn.Conv2d(outgoing, outgoing, (kernel_size, 1), padding="same", groups=outgoing, bias=False),
                nn.BatchNorm2d(outgoing),
                nn.ReLU(),
            )
            incoming = outgoing
        self._out_features = list(out_features)
        self._out_feature_channels = channels
        self._out_feature_strides = STRIDES

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute ``(B, width * 2**k, H / stride, W / stride)`` feature maps by name from ``(B, 3, H, W)`` images."""
        maps = {}
        for name, stage in self.stages.items():
            x = stage(x)
            maps[name] = x
        return {name: maps[name] for name in self._out_features}
