"""Small videos with a stripe at a different place in each frame."""

import pytest
import torch

from hydet.data.videos.writing import write_video

TIMES = [0.0, 0.1, 0.14, 0.44, 0.5, 0.62, 0.7, 0.8]


def striped_frame(index, height=48, width=64):
    """Return a dark frame with a bright stripe, which moves to the right, and a bright top left corner."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, 24:, 6 * index + 8 : 6 * index + 14] = 255
    image[:, :8, :8] = 255
    return image


def write_stripes(path, times=TIMES):
    with write_video(path, rate=10) as video:
        for index, time in enumerate(times):
            video.write(striped_frame(index), time=time)
    return path


@pytest.fixture(scope="session")
def stripes(tmp_path_factory):
    """Return the path of a video with a variable frame rate; tests must not change it."""
    return write_stripes(tmp_path_factory.mktemp("videos") / "stripes.mp4")
