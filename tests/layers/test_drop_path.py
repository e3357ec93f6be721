import pytest
import torch

from hydet.layers import DropPath


def test_drops_whole_images_and_keeps_mean():
    drop, x = DropPath(drop_prob=0.25), torch.ones(4000, 3)
    y = drop.train()(x)
    torch.testing.assert_close(y.unique(), torch.tensor([0, 4 / 3]))
    assert (y == y[:, :1]).all()
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert drop.eval()(x) is x
    with pytest.raises(ValueError, match="drop_prob"):
        DropPath(drop_prob=1.5)
