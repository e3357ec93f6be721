import itertools

import pytest
import torch

from hydet.data import DataError, InputMapper, RandomCrop, RandomHorizontalFlip, ShapesDataset

SMALL = {"image_size": (48, 48), "max_image_size": (64, 64)}


@pytest.fixture(scope="session")
def dataset():
    return ShapesDataset(num_images=23, seed=2, **SMALL)


@pytest.fixture(scope="session")
def mapper():
    return InputMapper(
        training=True, transforms=[RandomCrop(size=(0.5, 0.5)), RandomHorizontalFlip()], keypoints=True
    )


@pytest.fixture(scope="session")
def take_batches():
    """Take the first ``count`` batches of a loader."""
    return lambda loader, count: list(itertools.islice(iter(loader), count))


@pytest.fixture(scope="session")
def assert_same_batches():
    """Assert that two lists of batches hold equal model inputs."""

    def assert_same(a, b):
        assert len(a) == len(b)
        for x, y in zip(itertools.chain(*a), itertools.chain(*b), strict=True):
            assert x.keys() == y.keys() and x["image_id"] == y["image_id"]
            assert torch.equal(x["image"], y["image"])
            fields, others = x["instances"].get_fields(), y["instances"].get_fields()
            assert fields.keys() == others.keys()
            assert x["instances"].image_size == y["instances"].image_size
            for name, value in fields.items():
                other = others[name]
                assert torch.equal(getattr(value, "tensor", value), getattr(other, "tensor", other)), name

    return assert_same


class TornDataset(ShapesDataset):
    """Images 3, or all images, cannot be read."""

    def __init__(self, *, torn=(3,), policy="drop"):
        super().__init__(num_images=6, **SMALL)
        self.torn = torn
        self.policy = policy

    def __getitem__(self, index):
        if index in self.torn:
            raise DataError("three.png: torn")
        return super().__getitem__(index)


@pytest.fixture
def make_torn_dataset():
    return TornDataset
