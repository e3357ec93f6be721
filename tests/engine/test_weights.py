import pickle
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hydet.engine import init_from, load_weights, read_weights, save_checkpoint


class Detector(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.num_classes = num_classes
        self.backbone = nn.Linear(2, 3)
        self.box_predictor = nn.Module()
        self.box_predictor.cls_score = nn.Linear(3, num_classes + 1)


def as_checkpoint(model, folder, classes=None):
    dataset = {"thing_classes": [f"c{i}" for i in range(classes)]} if classes else None
    metadata = {"step": 1, "dataset": dataset}
    return save_checkpoint(folder, weights=model.state_dict(), training_state={}, metadata=metadata).path


def in_every_format(model, tmp_path):
    state = model.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "bare.pth")
    torch.save({"model": state, "iteration": 3}, tmp_path / "wrapped.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "ddp.pt")
    return [
        as_checkpoint(model, tmp_path / "c"),
        *(tmp_path / n for n in ("w.safetensors", "bare.pth", "wrapped.pth", "ddp.pt")),
    ]


def test_every_file_format_loads(tmp_path):
    source = Detector()
    for path in in_every_format(source, tmp_path):
        model = Detector()
        report = load_weights(model, path)
        assert len(report.loaded) == 4
        assert torch.equal(model.backbone.weight, source.backbone.weight)


@pytest.mark.parametrize("with_names", [True, False])
def test_another_number_of_classes_is_named_in_one_line(tmp_path, with_names):
    path = as_checkpoint(Detector(80), tmp_path / "c", classes=80 if with_names else None)
    model = Detector(5)
    before = model.backbone.weight.clone()
    with pytest.raises(ValueError, match="checkpoint has 80 classes, model 5: box_predictor") as info:
        load_weights(model, path)
    assert "\n" not in str(info.value)
    assert torch.equal(model.backbone.weight, before)
    with pytest.raises(ValueError, match="allow_mismatch"):
        init_from(model, path)
    report = init_from(model, path, allow_mismatch=True)
    assert set(report.mismatched) == {"box_predictor.cls_score.weight", "box_predictor.cls_score.bias"}
    assert set(report.loaded) == {"backbone.weight", "backbone.bias"}
    assert not torch.equal(model.backbone.weight, before)
    assert "box_predictor.cls_score.bias (81,) -> (6,)" in str(report)


def test_strict_loading_names_differences_and_changes_nothing(tmp_path):
    source = Detector()
    source.extra = nn.Linear(1, 1)
    del source.backbone
    path = as_checkpoint(source, tmp_path / "c")
    model = Detector()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"lacks 2 .*backbone\.weight.*model lacks 2 .*extra\.weight"):
        load_weights(model, path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    report = load_weights(model, path, strict=False)
    assert report.missing == ("backbone.weight", "backbone.bias")
    assert set(report.unexpected) == {"extra.weight", "extra.bias"}


def test_nothing_in_common_is_an_error(tmp_path):
    save_file({"conv.weight": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"none of its 1 tensors fits.*conv\.weight"):
        init_from(Detector(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_is_inflated(tmp_path, channels):
    def network(channels):
        return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Conv2d(4, 3, 1), nn.Conv2d(3, 2, 1))

    source, model = network(3), network(channels)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"0\.weight \(4, 3, 3, 3\)"):
        load_weights(model, tmp_path / "w.safetensors")
    report = init_from(model, tmp_path / "w.safetensors")
    assert report.inflated == {"0.weight": ((4, 3, 3, 3), (4, channels, 3, 3))}
    assert len(report.loaded) == 6 and not report.mismatched
    assert f"converted from RGB to other channels: 0.weight (4, 3, 3, 3) -> (4, {channels}, 3, 3)" in str(
        report
    )
    gray = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(model(gray.expand(-1, channels, -1, -1)), source(gray.expand(-1, 3, -1, -1)))


def test_only_input_channels_are_inflated(tmp_path):
    save_file(nn.Conv2d(3, 4, 3).state_dict(), tmp_path / "w.safetensors")
    for other in (nn.Conv2d(4, 4, 5), nn.Conv2d(4, 8, 3)):
        with pytest.raises(ValueError, match="does not fit"):
            init_from(other, tmp_path / "w.safetensors")
    save_file(nn.Conv2d(4, 4, 3).state_dict(), tmp_path / "four.safetensors")
    with pytest.raises(ValueError, match="does not fit"):
        init_from(nn.Conv2d(3, 4, 3), tmp_path / "four.safetensors")


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_is_not_run(tmp_path, capsys):
    with (tmp_path / "evil.pth").open("wb") as file:
        torch.save({"model": Evil()}, file)
    with (tmp_path / "evil.pt").open("wb") as file:
        pickle.dump({"model": Evil()}, file)
    for name in ("evil.pth", "evil.pt"):
        with pytest.raises(ValueError, match=name):
            load_weights(Detector(), tmp_path / name)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_broken_and_missing_files_are_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        load_weights(Detector(), tmp_path / name)
    (tmp_path / name).write_bytes(b"garbage garbage garbage")
    with pytest.raises(ValueError, match=name):
        load_weights(Detector(), tmp_path / name)


def test_files_without_a_state_dict_or_of_unknown_formats(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no state dict"):
        load_weights(Detector(), tmp_path / "list.pth")
    (tmp_path / "w.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"w\.pkl is not .* but an empty file"):
        load_weights(Detector(), tmp_path / "w.pkl")


def test_batch_norm_counters_are_optional(tmp_path):
    state = nn.BatchNorm2d(3).state_dict()
    del state["num_batches_tracked"]
    save_file(state, tmp_path / "w.safetensors")
    assert not load_weights(nn.BatchNorm2d(3), tmp_path / "w.safetensors").missing


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (b"", "an empty file"),
        (b"hello world, this is no tensor", "a text file"),
        (b"<!DOCTYPE html><html><body>404: Not Found</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "a Git LFS pointer"),
        (b'{"message": "Not Found"}', "an XML or JSON text"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_a_file_of_another_kind_is_described(content, description, suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"w{suffix} is not a")) as error:
        load_weights(Detector(), path)
    assert description in str(error.value) and "run code" not in str(error.value)


def test_tensors_without_plain_values_are_refused(tmp_path):
    for value in (torch.eye(3).to_sparse(), torch.empty(3, device="meta")):
        torch.save({"model": {"weight": value}}, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=r"w\.pth: weight is not a plain tensor"):
            load_weights(nn.Linear(3, 3), tmp_path / "w.pth")


def test_weights_are_read_from_an_address(web, tmp_path):
    model = nn.Linear(2, 3)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    web.files["/a.pth"] = (tmp_path / "a.pth").read_bytes()
    weights, checkpoint = read_weights(f"{web.url}/a.pth")
    assert checkpoint is None and torch.equal(weights["weight"], model.weight)
    report = init_from(nn.Sequential(nn.Linear(2, 3)), f"{web.url}/a.pth?matching_heuristics=True")
    assert set(report.loaded) == {"0.weight", "0.bias"} and len(web.requests) == 1
