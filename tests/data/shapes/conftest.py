import pytest

from hydet.data import ShapesDataset


@pytest.fixture(scope="session")
def style():
    """The default settings, with many crowds and empty images."""
    return ShapesDataset(num_images=0, crowd_fraction=0.3, empty_fraction=0.1).style
