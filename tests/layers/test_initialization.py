import pytest
from torch import nn

from hydet.layers import c2_msra_fill, c2_xavier_fill


@pytest.mark.parametrize(
    ("fill", "std"),
    [(c2_msra_fill, (2 / (64 * 9)) ** 0.5), (c2_xavier_fill, (1 / (32 * 9)) ** 0.5)],
)
def test_initial_weights_have_published_standard_deviation(fill, std):
    conv = nn.Conv2d(32, 64, 3)
    fill(conv)
    assert conv.weight.std().item() == pytest.approx(std, rel=0.05)
    assert conv.bias.eq(0).all()
    fill(nn.Conv2d(2, 2, 1, bias=False))
