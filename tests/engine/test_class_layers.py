"""Predictors for other classes keep their initialization; rows of equal names are copied."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hydet.engine import init_from
from hydet.engine.class_layers import fit_class_layers
from hydet.interop import ForeignModel, ForeignWeights
from hydet.modeling import ClassRows


class Predictor(nn.Module):
    """A box predictor, a mask predictor and dense classes of two anchors."""

    def __init__(self, num_classes, size=3):
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Linear(2, size)
        self.cls_score = nn.Linear(size, num_classes + 1)
        self.bbox_pred = nn.Linear(size, num_classes * 4)
        self.predictor = nn.Conv2d(size, num_classes, 1)
        self.dense = nn.Conv2d(size, 2 * num_classes, 3)
        self.semantic = nn.Conv2d(size, num_classes, 1)

    @property
    def class_rows(self):
        return {
            "cls_score": ClassRows(self.num_classes, has_background=True),
            "bbox_pred": ClassRows(self.num_classes, rows_per_class=4),
            "predictor": ClassRows(self.num_classes),
            "dense": ClassRows(self.num_classes, groups=2),
            "semantic": ClassRows(self.num_classes, has_things=False),
        }


class Detector(nn.Module):
    def __init__(self, num_classes, size=3):
        super().__init__()
        self.backbone = nn.Linear(2, 3)
        self.heads = Predictor(num_classes, size)


LAYERS = ("cls_score", "bbox_pred", "predictor", "dense", "semantic")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.safetensors"


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_predictors_for_other_classes_keep_their_initialization_without_a_flag(path):
    source, model = Detector(4), Detector(2)
    save_file(source.state_dict(), path)
    before = state_of(model)
    report = init_from(model, path)
    after = model.state_dict()
    assert torch.equal(after["backbone.weight"], source.backbone.weight)
    assert all(torch.equal(after[n], before[n]) for n in after if n.split(".")[1] in LAYERS)
    assert set(report.loaded) == {n for n in after if n.split(".")[1] not in LAYERS}
    assert not (report.missing or report.unexpected or report.mismatched)
    (line,) = [line for line in str(report).splitlines() if "initialization" in line]
    assert line == (
        "predictors keep their initialization (4 classes in the file, 2 in the model): heads.cls_score, "
        "heads.bbox_pred, heads.predictor, heads.dense, heads.semantic"
    )


def test_rows_of_equal_names_are_copied(path):
    source, model = Detector(3), Detector(4)
    save_file(source.state_dict(), path)
    before = state_of(model)
    names = {"class_names": ["dog", "cow", "cat", "pig"], "file_class_names": ["cat", "bird", "dog"]}
    report = init_from(model, path, **names)
    heads = source.heads
    rows = {"cls_score": [2, None, 0, None, 3], "predictor": [2, None, 0, None], "semantic": [None] * 4}
    rows["bbox_pred"] = [r if r is None else 4 * r + k for r in rows["predictor"] for k in range(4)]
    rows["dense"] = [r if r is None else 3 * a + r for a in range(2) for r in rows["predictor"]]
    for layer, sources in rows.items():
        for parameter in ("weight", "bias"):
            value, original = (
                getattr(getattr(model.heads, layer), parameter),
                getattr(getattr(heads, layer), parameter),
            )
            for k, i in enumerate(sources):
                expected = before[f"heads.{layer}.{parameter}"][k] if i is None else original[i]
                assert torch.equal(value[k], expected), (layer, k)
    assert [change.copied for change in report.class_changes] == [("dog", "cat"), ()]
    text = str(report)
    assert (
        "predictors keep their initialization except 2 classes copied by name (dog, cat; 3 classes in the file, 4 in the "
        "model): heads.cls_score, heads.bbox_pred, heads.predictor, heads.dense\n" in text
    )
    assert (
        "predictors keep their initialization (3 classes in the file, 4 in the model): heads.semantic" in text
    )


def test_equal_numbers_of_classes_are_aligned_only_if_a_name_has_moved(path):
    source, model = Detector(3), Detector(3)
    save_file(source.state_dict(), path)
    renamed = {"class_names": ["cat", "aeroplane", "dog"], "file_class_names": ["cat", "airplane", "dog"]}
    assert not init_from(model, path, **renamed).class_changes
    assert torch.equal(model.heads.predictor.weight, source.heads.predictor.weight)
    moved = {"class_names": ["dog", "bird", "cat"], "file_class_names": ["cat", "bird", "dog"]}
    assert init_from(model, path, **moved).class_changes[0].copied == ("dog", "bird", "cat")
    assert torch.equal(model.heads.predictor.weight, source.heads.predictor.weight[[2, 1, 0]])
    assert torch.equal(model.heads.cls_score.bias, source.heads.cls_score.bias[[2, 1, 0, 3]])
    assert torch.equal(model.heads.semantic.bias, source.heads.semantic.bias)


def test_names_that_do_not_count_the_classes_are_not_used():
    source, model = Detector(3), Detector(2)
    names = {"class_names": ["a", "b"], "file_class_names": ["a", "b"]}
    weights, changes = fit_class_layers(model, source.state_dict(), **names)
    assert [change.copied for change in changes] == [()]
    assert "heads.cls_score.weight" not in weights and "heads.stem.weight" in weights


def test_other_shapes_need_the_flag(path):
    save_file(Detector(3, size=5).state_dict(), path)
    model = Detector(2)
    before = state_of(model)
    with pytest.raises(ValueError, match=r"heads\.cls_score\.weight \(4, 5\) -> \(3, 3\).*allow_mismatch"):
        init_from(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    report = init_from(model, path, allow_mismatch=True)
    assert set(report.loaded) == {"backbone.weight", "backbone.bias"} and not report.class_changes


def test_class_names_of_a_foreign_model_are_used(path, monkeypatch):
    source, model = Detector(2), Detector(3)
    path.touch()
    weights = ForeignWeights(path, "mmdet", source.state_dict(), model=ForeignModel((), ("a", "b")))
    monkeypatch.setattr("hydet.engine.weights.read_foreign", lambda path, **_: weights)
    report = init_from(model, path, class_names=["b", "c", "d"])
    assert report.class_changes[0].copied == ("b",)
    assert torch.equal(model.heads.predictor.weight[0], source.heads.predictor.weight[1])


@pytest.mark.parametrize(
    ("rows", "num_rows", "expected"),
    [
        (ClassRows(80, has_background=True), 81, 80),
        (ClassRows(80, has_background=True), 1, None),
        (ClassRows(80, rows_per_class=4), 322, None),
        (ClassRows(80, groups=9), 720, 80),
        (ClassRows(80, groups=9, rows_per_class=2, has_background=True), 36, 1),
        (ClassRows(80), 0, None),
    ],
)
def test_numbers_of_classes_by_rows(rows, num_rows, expected):
    assert rows.count_classes(num_rows) == expected
