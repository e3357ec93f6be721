"""Videos in and out, frame by frame."""

import weakref

import pytest
import torch

import hydet
from hydet.data import DataError, InputMapper, Metadata
from hydet.data.videos.reading import VideoReader
from hydet.data.videos.writing import write_video
from hydet.runs.sources.videos import is_video_file
from hydet.structures import Boxes, Instances

TIMES = [0.0, 0.1, 0.14, 0.44, 0.5, 0.62]


class BrightSquare(torch.nn.Module):
    """Detects the bright pixels of each image, and counts the images that are alive."""

    tasks = ("box",)

    def __init__(self):
        super().__init__()
        self.images = []
        self.num_alive = []

    def forward(self, batched_inputs):
        self.images += [weakref.ref(entry["image"]) for entry in batched_inputs]
        self.num_alive.append(sum(image() is not None for image in self.images))
        return [{"instances": self.detect(entry)} for entry in batched_inputs]

    def detect(self, entry):
        rows, columns = (entry["image"][0] > 128).nonzero(as_tuple=True)
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        return Instances(
            (entry["height"], entry["width"]),
            pred_boxes=Boxes(box[None]),
            scores=torch.tensor([0.9]),
            pred_classes=torch.tensor([0]),
        )


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with write_video(path, rate=10) as video:
        for i, time in enumerate(TIMES):
            image = torch.zeros(3, 320, 400, dtype=torch.uint8)
            image[:, 100:160, 20 * i : 20 * i + 80] = 255
            video.write(image, time=time)
    return path


@pytest.fixture
def detector():
    mapper = InputMapper(training=False, mask_format=None)
    return hydet.Detector(BrightSquare().eval(), mapper, Metadata(thing_classes=("square",)))


def test_frames_are_predicted_in_order_with_their_times(detector, clip):
    results = detector.predict(clip, batch_size=4)
    assert results.count == 6 and 8 < results.rate < 10
    for i, result in enumerate(results):
        assert result.index == i and result.name == f"{clip} frame {i}"
        assert result.time == pytest.approx(TIMES[i], abs=1e-3)
        assert result.boxes[0].tolist() == pytest.approx([20 * i, 100, 20 * i + 80, 160], abs=2)
    assert [result.index for result in detector.predict([clip, clip])] == list(range(12))


def test_only_one_batch_is_in_memory(detector, clip):
    for _ in detector.predict(clip, batch_size=2):
        pass
    assert len(detector.model.num_alive) == 3 and max(detector.model.num_alive) <= 4


def test_drawn_frames_become_a_video_with_the_same_times(detector, clip, tmp_path):
    path = detector.predict(clip, batch_size=4).save_video(tmp_path / "drawn.mkv")
    frames = list(VideoReader(path))
    assert [frame.time for frame in frames] == pytest.approx(TIMES, abs=2e-3)
    original = next(iter(VideoReader(clip))).image.float()
    assert frames[0].image.shape == original.shape
    assert (frames[0].image.float() - original).abs().max() > 50  # a box and a label
    images = [torch.full((3, 64, 64), 255, dtype=torch.uint8)] * 3
    path = detector.predict(images).save_video(tmp_path / "images.mp4", rate=5, min_side=0)
    assert [frame.time for frame in VideoReader(path)] == pytest.approx([0, 0.2, 0.4], abs=1e-3)
    with pytest.raises(ValueError, match="videos are written as"):
        detector.predict(images).save_video(tmp_path / "a.gif")


def test_objects_of_a_video_have_numbers(detector, clip):
    ids = [result.track_ids.tolist() for result in detector.predict(clip, track=True)]
    assert ids == [[-1]] + [[1]] * 5
    (first, second, *_) = detector.predict(clip, track=True)
    assert first.to_dict()["objects"][0]["track_id"] == -1 and second.to_coco()[0]["track_id"] == 1
    assert next(iter(detector.predict(clip))).track_ids is None


def test_damaged_frames_are_reported(detector, clip, tmp_path):
    import av

    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytearray(clip.read_bytes())
    start, size = packets[-1].pos, packets[-1].size
    content[start + 4 : start + size] = b"\x55" * (size - 4)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    results = detector.predict(path, on_failure="skip")
    indices = [result.index for result in results]
    assert len(indices) < 6 and results.failed and f"{path}: frame " in results.failed[0]
    with pytest.raises(DataError, match="cannot be read"):
        list(detector.predict(path, on_failure="raise"))
    (tmp_path / "text.mp4").write_text("no video", encoding="utf-8")
    with pytest.raises(DataError, match="not a readable video"):
        detector.predict(tmp_path / "text.mp4")
    results = detector.predict([tmp_path / "text.mp4", clip], on_failure="skip")
    assert len(list(results)) == 6 and len(results.failed) == 1


def test_only_files_are_videos(clip, tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    assert is_video_file(clip) and not is_video_file(tmp_path / "folder.mp4")
    assert not is_video_file(tmp_path / "missing.mp4") and not is_video_file(__file__)
