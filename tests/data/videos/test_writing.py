"""Video files that other programs can play."""

import pytest
import torch

from hydet.data import DataError
from hydet.data.videos.reading import VideoReader
from hydet.data.videos.writing import write_video


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_odd_sizes_and_all_times_are_kept(suffix, tmp_path):
    path, times = tmp_path / f"a{suffix}", [0.0, 0.1, 0.35, 0.4]
    with write_video(path, rate=10) as video:
        for index, time in enumerate(times):
            video.write(torch.full((3, 31, 45), 60 * index, dtype=torch.uint8), time=time)
    frames = list(VideoReader(path))
    assert [frame.time for frame in frames] == pytest.approx(times, abs=2e-3)
    assert frames[0].image.shape == (3, 32, 46)
    means = [float(frame.image.float().mean()) for frame in frames]
    assert means == pytest.approx([0, 60, 120, 180], abs=8)


def test_frames_of_another_size_and_equal_times_do_not_stop_the_video(tmp_path):
    path = tmp_path / "a.mp4"
    with write_video(path, rate=30) as video:
        for size in (32, 64, 16):
            video.write(torch.full((3, size, size), 200, dtype=torch.uint8), time=0.5)
    frames = list(VideoReader(path))
    assert [tuple(frame.image.shape) for frame in frames] == [(3, 32, 32)] * 3


def test_nothing_is_written_after_an_error_or_without_frames(tmp_path):
    with pytest.raises(DataError, match="no frames"), write_video(tmp_path / "a.mp4", rate=30):
        pass
    with pytest.raises(RuntimeError), write_video(tmp_path / "a.mp4", rate=30) as video:
        video.write(torch.zeros(3, 32, 32, dtype=torch.uint8), time=0)
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_an_unknown_suffix_raises(tmp_path):
    with (
        pytest.raises(ValueError, match=r"videos are written as \.m4v, .*, got '\.avi'"),
        write_video(tmp_path / "a.avi", rate=30),
    ):
        pass
