import numpy as np
import pytest


@pytest.fixture(scope="session")
def star():
    """Return a function that makes a star-shaped polygon."""

    def make(seed, center=(20.0, 20.0), radius=15.0, points=7):
        rng = np.random.RandomState(seed)
        angle = np.sort(rng.uniform(0, 2 * np.pi, points))
        reach = radius * rng.uniform(0.3, 1.0, points)
        return (np.asarray(center) + np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None]).reshape(-1)

    return make
