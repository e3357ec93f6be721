"""Drawings as image files and as a video."""

import pytest
import torch

from hydet.cli.drawings import DrawnImages, DrawnVideo
from hydet.data import Metadata
from hydet.data.videos.reading import VideoReader
from hydet.runs.result import Result

IMAGE = torch.zeros(3, 32, 48, dtype=torch.uint8)


def result(name, index, time=None):
    return Result(IMAGE, {}, Metadata(), name=name, index=index, time=time)


def test_images_have_the_names_of_their_files_and_frames_have_numbers(tmp_path):
    files = [tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.jpg"]
    with DrawnImages(tmp_path / "out", files) as drawn:
        for i, file in enumerate(files):
            drawn.add(result(str(file), i), IMAGE)
    with DrawnImages(tmp_path / "out", []) as frames:
        frames.add(result("clip.mp4 frame 7", 7), IMAGE)
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert written == ["a/x.png", "b/x.png", "frame_000007.png"]
    assert drawn.describe() == f"pictures: {tmp_path / 'out'}"


def test_a_video_has_the_times_of_its_frames(tmp_path):
    with DrawnVideo(tmp_path / "out.mp4", rate=10) as drawn:
        drawn.add(result("a", 0, 0.0), IMAGE)
        drawn.add(result("a", 1), IMAGE)
        drawn.add(result("a", 2, 0.7), IMAGE)
    times = [frame.time for frame in VideoReader(tmp_path / "out.mp4")]
    assert times == pytest.approx([0, 0.1, 0.7], abs=1e-3)
    assert drawn.describe() == f"video: {tmp_path / 'out.mp4'}"
    with pytest.raises(RuntimeError), DrawnVideo(tmp_path / "b.mp4", rate=10) as drawn:
        drawn.add(result("a", 0), IMAGE)
        raise RuntimeError
    assert not (tmp_path / "b.mp4").exists()
