"""``hydet.load`` and ``Detector``."""

import pytest
import torch
from PIL import Image

import hydet
from hydet.config import ConfigError
from hydet.data import DataError, InputMapper, Metadata
from hydet.structures import Boxes, Instances

METADATA = Metadata(thing_classes=("cat", "dog"))


class Reds(torch.nn.Module):
    """Finds two objects in each image, whose scores are its first red value in percent, and half of that."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, batched_inputs):
        self.batches.append(len(batched_inputs))
        outputs = []
        for entry in batched_inputs:
            score = float(entry["image"][0, 0, 0]) / 100
            instances = Instances(
                (entry["height"], entry["width"]),
                pred_boxes=Boxes(torch.tensor([[0.0, 0, 4, 4], [1, 1, 3, 3]])),
                scores=torch.tensor([score, score / 2]),
                pred_classes=torch.tensor([0, 1]),
            )
            outputs.append({"instances": instances})
        return outputs


def image(red):
    return torch.full((3, 6, 8), red, dtype=torch.uint8)


@pytest.fixture
def detector():
    return hydet.Detector(Reds(), InputMapper(training=False, mask_format=None), METADATA)


@pytest.fixture
def folder(tmp_path):
    for i, red in enumerate((20, 40, 60)):
        Image.new("RGB", (8, 6), (red, 0, 0)).save(tmp_path / f"{i}.png")
    return tmp_path


def scores(results):
    return [pytest.approx(result.scores.tolist(), abs=1e-6) for result in results]


def test_a_single_image(detector, folder):
    results = detector.predict(folder / "1.png")
    assert isinstance(results[0], hydet.Result) and results[0] is results[0]
    assert results[0].scores.tolist() == pytest.approx([0.4, 0.2])
    assert results[0].class_names == ["cat", "dog"]
    assert results[0].name == str(folder / "1.png") and results[0].index == 0
    assert torch.equal(results[0].image[:, 0, 0], torch.tensor([40, 0, 0]))


def test_many_images_in_batches_and_in_order(detector, folder):
    results = list(detector.predict(folder, batch_size=2))
    assert detector.model.batches == [2, 1]
    assert scores(results) == [[0.2, 0.1], [0.4, 0.2], [0.6, 0.3]]
    assert [result.index for result in results] == [0, 1, 2]


def test_generators_are_lazy(detector):
    taken = []

    def images():
        for red in (20, 40, 60):
            taken.append(red)
            yield image(red)

    results = detector.predict(images())
    assert not taken
    assert next(iter(results)).name == "image 0" and taken == [20]


def test_selection_of_objects(detector):
    images = [image(20), image(60)]
    assert scores(detector.predict(images, score_threshold=0.3)) == [[], [0.6, 0.3]]
    assert scores(detector.predict(images, score_threshold={"cat": 0.3})) == [[0.1], [0.6, 0.3]]
    assert scores(detector.predict(images, classes=["dog"])) == [[0.1], [0.3]]
    assert scores(detector.predict(images, max_detections=1)) == [[0.2], [0.6]]


def test_drawings_show_what_a_given_threshold_keeps(detector):
    assert detector.predict(image(40))[0].plot_threshold == 0.5
    assert detector.predict(image(40), score_threshold=0.1)[0].plot_threshold == 0.0


def test_channels(detector):
    assert detector.predict(image(40).flip(0), channels="BGR")[0].scores[0] == pytest.approx(0.4)


def test_images_that_cannot_be_read(detector, folder):
    (folder / "1.png").write_bytes(b"no image")
    results = detector.predict(folder)
    with pytest.warns(UserWarning, match=r"skipped an image: .*1\.png"):
        assert [result.index for result in results] == [0, 2]
    assert len(results.failed) == 1 and "1.png" in results.failed[0]
    skipped = detector.predict(folder, on_failure="skip")
    assert len(list(skipped)) == 2 and len(skipped.failed) == 1
    with pytest.raises(DataError, match=r"1\.png"):
        list(detector.predict(folder, on_failure="raise"))
    with pytest.raises(DataError, match=r"1\.png"):  # a single image
        detector.predict(folder / "1.png", on_failure="skip")[0]


def test_progress(detector, folder):
    assert len(list(detector.predict(folder, progress=True))) == 3


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"on_failure": "ignore"}, "on_failure"),
        ({"score_threshold": 2}, "score_threshold"),
        ({"classes": ["cow"]}, "no class 'cow'"),
        ({"channels": "bgr"}, "channels"),
    ],
)
def test_wrong_options_are_errors_at_once(detector, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        detector.predict(image(40), **options)


def test_models_that_need_proposals_are_refused():
    mapper = InputMapper(training=False, mask_format=None, max_proposals=10)
    with pytest.raises(ConfigError, match="needs proposals"):
        hydet.Detector(Reds(), mapper, METADATA).predict(image(40))


def test_load_of_a_checkpoint(tiny_checkpoint):
    detector = hydet.load(
        tiny_checkpoint,
        device="cpu",
        max_pixels=1000,
        model={"test_score_thresh": 0.0, "test_nms_thresh": 0.7},
    )
    assert detector.class_names == ("ellipse", "rectangle", "triangle")
    assert detector.origin == f"{tiny_checkpoint} (step 1)" and str(tiny_checkpoint) in repr(detector)
    assert detector.model.test_nms_thresh == 0.7 and not detector.model.training
    assert detector.read.max_pixels == 1000
    result = detector.predict(torch.zeros(32, 40, 3, dtype=torch.uint8).numpy())[0]
    assert len(result) > 0 and result.boxes.shape == (len(result), 4)


def test_load_checks_changes_before_it_reads_anything(tmp_path):
    with pytest.raises(TypeError, match="unexpected keyword 'modell'"):
        hydet.load(tmp_path, modell={"a": 1})
    with pytest.raises(FileNotFoundError, match="gone"):
        hydet.load(tmp_path / "gone")


def test_evaluation_of_its_own_and_other_data(tiny_checkpoint, tmp_path):
    detector = hydet.load(tiny_checkpoint, device="cpu", inference="exact")
    metrics = detector.evaluate(output_dir=tmp_path)
    assert "box/AP" in metrics and (tmp_path / "results.json").exists()
    dataset = hydet.instantiate(detector.loaded.config.data.val)
    torch.testing.assert_close(detector.evaluate(dataset), metrics, equal_nan=True)
    named = detector.evaluate("shapes", "data.val.num_images=1", "data.val.image_size=[32,32]")
    torch.testing.assert_close(named, metrics, equal_nan=True)


def test_evaluation_refuses_data_and_settings_that_do_not_fit(tiny_checkpoint, detector):
    loaded = hydet.load(tiny_checkpoint, device="cpu")
    with pytest.raises(ConfigError, match=r"device=cpu: .* hydet\.load"):
        loaded.evaluate("shapes", "device=cpu")
    with pytest.raises(ConfigError, match="shape"):
        loaded.evaluate("shape")
    other = hydet.instantiate(hydet.compose("data.val.num_images=1", "data.class_names=[star]").data.val)
    with pytest.raises(ConfigError, match="star"):
        loaded.evaluate(other)
    with pytest.raises(ConfigError, match="without a config"):
        detector.evaluate("shapes")


@pytest.mark.export
def test_exported_models_predict_the_same(tiny_checkpoint, tmp_path, detector):
    changes = {"test_score_thresh": 0.0, "test_topk_candidates": 20}
    loaded = hydet.load(tiny_checkpoint, device="cpu", model=changes)
    path = tmp_path / "model.pt2"
    description = loaded.export(path, format="torch_export")
    assert description.format == "torch_export"
    exported = hydet.load(path, device="cpu")
    assert exported.class_names == loaded.class_names and exported.origin == str(path)
    pixels = torch.randint(0, 256, (3, 40, 32), dtype=torch.uint8)
    expected, result = loaded.predict(pixels)[0], exported.predict(pixels)[0]
    assert len(result) == len(expected) > 0
    torch.testing.assert_close(result.boxes, expected.boxes, atol=1e-2, rtol=0)
    torch.testing.assert_close(result.scores, expected.scores, atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match="cannot be changed"):
        hydet.load(path, model={"test_score_thresh": 0.5})
    for cannot in (exported, detector):
        with pytest.raises(ConfigError, match="only a checkpoint or weight file"):
            cannot.export(tmp_path / "again.pt2", format="torch_export")
