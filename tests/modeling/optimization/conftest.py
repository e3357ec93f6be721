import pytest

from hydet.layers import winograd_conv

from ..meta_arch.conftest import ARCHITECTURES, Architecture, architecture

__all__ = ["ARCHITECTURES", "Architecture", "architecture"]


@pytest.fixture(autouse=True)
def small_layers_use_winograd(monkeypatch):
    """Let layers as narrow as those of the tests use Winograd's algorithm."""
    for name in (
        "_MIN_CHANNELS",
        "_MIN_CHANNELS_IN_TRAINING",
        "_MIN_CHANNELS_IN_BFLOAT16",
        "_MIN_TILES",
        "_MIN_TILES_IN_BFLOAT16",
        "_MIN_TILES_IN_TRAINING",
        "_MIN_TILES_OF_FEW_CHANNELS",
    ):
        monkeypatch.setattr(winograd_conv, name, 1)
