"""Frames, their times and their defects."""

import itertools
import re
import struct
import sys

import av
import numpy as np
import pytest
import torch

from hydet.data import DataError
from hydet.data.videos.reading import VideoReader
from hydet.data.videos.writing import write_video

from .conftest import TIMES, striped_frame


def test_frames_have_their_pixels_and_times(stripes):
    video = VideoReader(stripes)
    frames = list(video)
    assert video.count == len(frames) == 8
    assert [frame.index for frame in frames] == list(range(8))
    assert [frame.time for frame in frames] == pytest.approx(TIMES, abs=1e-3)
    for frame in frames:
        assert frame.error is None and frame.image.shape == (3, 48, 64)
        difference = (frame.image.float() - striped_frame(frame.index).float()).abs().mean()
        assert difference < 8  # of the encoder
    assert [frame.index for frame in itertools.islice(video, 2)] == [0, 1]  # may be read again


def rotated(content, quarter_turns):
    """Return the file with the display matrix of a phone that was turned clockwise."""
    a, b = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[quarter_turns]
    matrix = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    start = content.index(b"tkhd") + 4 + 40
    return content[:start] + matrix + content[start + 36 :]


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_frames_are_turned_upright(quarter_turns, stripes, tmp_path):
    path = tmp_path / "turned.mp4"
    path.write_bytes(rotated(stripes.read_bytes(), quarter_turns))
    frame = next(iter(VideoReader(path)))
    expected = np.rot90(striped_frame(0).numpy(), -quarter_turns, axes=(1, 2))  # clockwise
    assert frame.image.shape == expected.shape
    assert np.abs(frame.image.numpy().astype(float) - expected).mean() < 8


def damaged(source, path, position):
    """Write a copy in which the data of one packet are noise."""
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        start, size = packets[position].pos, packets[position].size
    content = bytearray(source.read_bytes())
    content[start + 4 : start + size] = bytes(range(1, 200))[: size - 4].ljust(size - 4, b"\x55")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("position", [0, 3, 7])
def test_damaged_frames_are_counted_and_the_others_follow(position, stripes, tmp_path):
    path = damaged(stripes, tmp_path / "damaged.mp4", position)
    frames = list(VideoReader(path))
    failed = [frame for frame in frames if frame.error]
    assert failed and all(frame.image is None and frame.error.startswith(f"{path}: ") for frame in failed)
    assert " at " in failed[0].error and "cannot be read" in failed[0].error
    lost = [
        int(word) for frame in failed[1:] for word in re.findall(r"(\d+) more frames are lost", frame.error)
    ]
    assert len(frames) - len(lost) + sum(lost) == 8
    assert (len(failed) < len(frames)) == (position > 0)  # all frames depend on the first one


def test_a_video_that_breaks_off_ends_early(stripes, tmp_path):
    whole = tmp_path / "whole.mkv"
    with write_video(whole, rate=10) as video:
        for index in range(8):
            video.write(torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8), time=index / 10)
    path = tmp_path / "short.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    frames = list(VideoReader(path))
    assert 0 < len(frames) < 8 and frames[0].error is None


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00\x00\x00\x18ftypmp42" + bytes(40)])
def test_other_files_give_one_clear_line(content, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mp4 is not a readable video"):
        VideoReader(path)
    with pytest.raises(DataError, match=r"b\.mp4"):
        VideoReader(tmp_path / "b.mp4")


def test_large_frames_are_refused(stripes):
    with pytest.raises(DataError, match="64 x 48 pixels are larger than max_pixels=100"):
        VideoReader(stripes, max_pixels=100)


def test_without_pyav_the_error_says_what_to_install(stripes, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'hydet\[video\]'"):
        VideoReader(stripes)
