"""No checkpoint of a stranger runs code, writes a file, or opens a connection; each ends in one line that names it.

Every case spoils a copy of one tiny checkpoint, evaluates it under an audit hook, and reads the error.
"""

import contextlib
import io
import json
import os
import pickle
import re
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import hydet
from hydet.cli.command import EXPECTED, _one_line, printable
from hydet.cli.evaluate import evaluate
from hydet.engine import load_checkpoint, read_weights

MARK = "hydet_hostile_mark"  # name of a file that a payload would create

# The judge


RUNS_CODE = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "pty.spawn",
    "subprocess.Popen", "pickle.find_class", "os.kill", "os.putenv", "webbrowser.open",
)  # fmt: skip
CONNECTS = (
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "urllib.Request",
    "http.client.connect",
    "ftplib.connect",
)
CHANGES_FILES = (
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "os.utime", "tempfile.mkdtemp", "tempfile.mkstemp", "shutil.rmtree", "shutil.move", "shutil.copyfile",
    "shutil.copytree", "shutil.unpack_archive", "shutil.make_archive",
)  # fmt: skip


class Judge:
    """Collects what an audit hook sees while it is armed; Python cannot remove a hook."""

    def __init__(self):
        self.allowed_folder = None
        self.violations = []
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.allowed_folder is None:
            return
        changes_files = event in CHANGES_FILES and self._is_outside(arguments[0])
        if event in RUNS_CODE or event in CONNECTS or changes_files:
            self.violations.append((event, repr(arguments)[:200]))
        elif event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            )
            if writes and self._is_outside(path):
                self.violations.append((event, repr(arguments)[:200]))

    def _is_outside(self, path):
        if not isinstance(path, str | bytes | os.PathLike):
            return False  # a descriptor that is open already
        text = os.path.abspath(os.fsdecode(path))
        return text != "/dev/null" and not text.startswith(str(self.allowed_folder))

    @contextlib.contextmanager
    def watching(self, folder):
        self.violations = []
        self.allowed_folder = folder
        try:
            yield
        finally:
            self.allowed_folder = None


@pytest.fixture(scope="module")
def judge():
    return Judge()


@pytest.fixture(scope="module")
def settings():
    return hydet.compose(config_name="evaluate")


@pytest.fixture(scope="module", autouse=True)
def _warm(tiny_checkpoint, settings, tmp_path_factory):
    """Import everything that an evaluation imports, so that the hook sees nothing of it."""
    run(settings, tiny_checkpoint, tmp_path_factory.mktemp("warm"))


def run(settings, checkpoint, output_dir):
    config = settings.copy()
    config.checkpoint = str(checkpoint)
    config.device = "cpu"
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluate(config, output_dir)


@pytest.fixture
def verdict(judge, settings, checkpoint, tmp_path, monkeypatch):
    """Evaluate ``checkpoint`` under the hook; return the line of the error, or None if it went through."""
    output_dir = tmp_path / "out"
    output_dir.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = contents(tmp_path)

    def decide():
        line = None
        with judge.watching(output_dir):
            try:
                run(settings, checkpoint, output_dir)
            except EXPECTED as error:
                line = printable(_one_line(error, "evaluate", []))
        assert judge.violations == []
        assert contents(tmp_path) == before
        assert not list(Path.cwd().rglob(MARK))
        if line is not None:
            assert "\n" not in line and line.isprintable() and len(line) < 3000
            assert str(checkpoint) in line or "payload.pkl:" in line, line
        return line

    def contents_after_spoiling():
        before.clear()
        before.update(contents(tmp_path))
        return decide()

    return contents_after_spoiling


def contents(folder):
    return {str(p): p.stat().st_size for p in folder.rglob("*") if "out" not in p.relative_to(folder).parts}


# Targets

COMMAND = f"touch {MARK}"
SIMPLE_TARGETS = {
    "os.system": {"_args_": [COMMAND]},
    "os.makedirs": {"name": MARK},
    "os.popen": {"cmd": COMMAND},
    "subprocess.run": {"args": ["touch", MARK]},
    "builtins.eval": {"_args_": [f"__import__('os').system('{COMMAND}')"]},
    "builtins.exec": {"_args_": ["import os"]},
    "builtins.open": {"file": MARK, "mode": "w"},
    "pathlib.Path.touch": {"_args_": [MARK]},
    "shutil.rmtree": {"path": "."},
    "pickle.loads": {"_args_": ["x"]},
    "importlib.import_module": {"name": "hostile_module"},
    "hostile_module.run": {},
    "urllib.request.urlopen": {"url": "http://127.0.0.1:9/x"},
    "torch.load": {"f": "payload.pkl", "weights_only": False},
    "torch.save": {"obj": [], "f": MARK},
    "torch.hub.load": {"repo_or_dir": "a/b", "model": "c"},
    "torch.hub.download_url_to_file": {"url": "http://127.0.0.1:9/x", "dst": MARK},
    "torch.nn.modules.module.torch.load": {"f": "payload.pkl"},
    "torch.nn.functional.relu": {"input": 1},
    "torch.nn.utils.parametrize.register_parametrization": {},
    "torch.nn.attention.register_flash_attention_fa4": {},
    "torch.nn.Module.__init_subclass__": {},
    "torchvision.datasets.utils.download_url": {"url": "http://127.0.0.1:9/x", "root": "."},
    "torchvision.datasets.utils.extract_archive": {"from_path": "archive.zip", "to_path": "."},
    "torchvision.datasets.FakeData": {},
    "torchvision.io.write_file": {"filename": MARK, "data": []},
    "torchvision.utils.save_image": {"tensor": [], "fp": MARK},
    "torchvision.transforms.v2.functional.resize": {},
    "torchvision.models.get_model": {"name": "resnet18", "weights": "DEFAULT"},
    "hydra.utils.get_method": {"path": "os.system"},
    "hydra.utils.get_object": {"path": "os.system"},
    "hydra.utils.instantiate": {"config": {"_target_": "os.system"}, "_recursive_": False},
    "hydet.instantiate": {"config": {"_target_": "os.makedirs", "name": MARK}, "_recursive_": False},
    "hydet.config.instantiate": {"config": {"_target_": "os.makedirs", "name": MARK}, "_recursive_": False},
    "hydet.config.instantiation.build_targets": {"plain": {"_target_": "os.makedirs"}, "_recursive_": False},
    "hydet.compose": {"_args_": ["hydra.searchpath=[file://.]"]},
    "hydet.runs.open_checkpoint.open_checkpoint": {"path": ".", "allowed": ["os"]},
    "hydet.runs.build.build_model": {"config": {}},
    "hydet.cli.train.main": {"arguments": [f"output_dir={MARK}"]},
    "hydet.cli.evaluate.main": {"arguments": []},
    "hydet.data.write_coco": {"dataset": [], "folder": MARK},
    "hydet.data.write_proposals": {"path": f"{MARK}.npz", "proposals": []},
    "hydet.data.loading.batch_packing.unpack": {},
    "hydet.engine.save_checkpoint": {"folder": MARK, "weights": {}, "training_state": {}, "metadata": {}},
    "hydet.files.write_atomically": {"path": MARK, "text": ""},
    "hydet.engine.Trainer": {"output_dir": MARK},
    "hydet.engine.callbacks.JsonlLog": {"every": 1},
    "hydet.engine.callbacks.TensorBoardLog": {"every": 1},
    "hydet.runs.result_files.ResultFiles": {"folder": MARK, "metadata": {}},
    "hydet.visualization.save_png": {"image": [], "path": MARK},
    "hydet.modeling.backbones.timm_backbone.difflib.sys.exit": {},
    "hydet.modeling.MMDetDetector": {"detector": {"type": "os.system"}},
}  # fmt: skip
SECTIONS = ("model", "augment.test", "data.val", "evaluators")


def put(config, key, value):
    *sections, name = key.split(".")
    for section in sections:
        config = config[section]
    config[name] = value


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("target", SIMPLE_TARGETS)
def test_foreign_targets(section, target, edit_config, verdict):
    edit_config(lambda config: put(config, f"{section}.trap", {"_target_": target, **SIMPLE_TARGETS[target]}))
    Path("hostile_module.py").write_text(f"open('{MARK}', 'w')\ndef run(): pass\n", encoding="utf-8")
    Path("payload.pkl").write_bytes(pickle.dumps(Payload()))
    line = verdict()
    assert f"config.yaml: {section}.trap" in line and "outside" in line
    assert "hostile_module" not in sys.modules


class Payload:
    def __reduce__(self):
        return os.system, (COMMAND,)


# Configs

TRAP = {"_target_": "os.makedirs", "name": MARK}
TRUSTED_PARTIAL = {"_target_": "hydet.modeling.make_each", "make": {**TRAP, "_partial_": True}, "each": [{}]}
TIMM = {"_target_": "hydet.modeling.TimmBackbone", "model_name": "resnet18"}
TORCHVISION = {"_target_": "hydet.modeling.TorchvisionBackbone", "model_name": "resnet18"}
NODES = {"layer1": '"), __import__("os").system("x"), ("'}
HOSTILE_CONFIGS = {
    # a target that is hidden, or has another type
    "partial": ("model.trap", TRUSTED_PARTIAL),
    "in a list": ("model.trap", [[{"a": [TRAP]}]]),
    "below an allowed target": ("model.trap", {"_target_": "torch.nn.Sequential", "_args_": [TRAP]}),
    "not recursive": ("model.trap", {"_target_": "torch.nn.Identity", "_recursive_": False, "x": TRAP}),
    "target is a list": ("model.trap", {"_target_": ["os.system"]}),
    "target is a mapping": ("model.trap", {"_target_": {"_target_": "os.system"}}),
    "target is a number": ("model.trap", {"_target_": 3}),
    "target is null": ("model.trap", {"_target_": None}),
    "target is empty": ("model.trap", {"_target_": ""}),
    "target is long": ("model.trap", {"_target_": "a" * 100_000}),
    "target with control characters": ("model.trap", {"_target_": "os\x1b[2J\nsystem"}),
    "partial is a mapping": ("model.trap", {"_target_": "torch.nn.Identity", "_partial_": {"a": 1}}),
    "args is text": ("model.trap", {"_target_": "torch.nn.Identity", "_args_": "abc"}),
    "class of a base": ("model._target_", "torch.nn.Module.__class__"),
    # interpolations are text
    "target from the environment": ("model._target_", "${oc.env:HOSTILE,os.system}"),
    "target by reference": ("model._target_", "${callbacks.checkpoints._target_}"),
    "escaped interpolation": ("model._target_", "\\${oc.decode:'os.system'}"),
    "decoded target": ("model.trap", {"_target_": "${oc.decode:os.system}"}),
    "created part": ("model.backbone", "${oc.create:{_target_:os.system,command:x}}"),
    "decoded part": ("model.head", "${oc.decode:'{_target_: os.makedirs, name: x}'}"),
    "evaluators by interpolation": ("evaluators.instances", "${oc.decode:'{_target_: os.makedirs, name: x}'}"),
    "data by interpolation": ("data.val", "${oc.decode:'{_target_: os.makedirs, name: x}'}"),
    # values that commands replace or that other parts refer to
    "backend": ("evaluation.backend", TRAP),
    "backend of the evaluator": ("evaluators.instances.backend", TRAP),
    "max_detections": ("evaluation.max_detections", {"_target_": "os.system"}),
    "batch_size": ("evaluation.batch_size", TRAP),
    "batch_size is text": ("evaluation.batch_size", "${oc.env:HOME}"),
    "batch_size is zero": ("evaluation.batch_size", 0),
    "batch_size is huge": ("evaluation.batch_size", 10**30),
    "with_losses": ("evaluation.with_losses", [TRAP]),
    "num_workers": ("num_workers", TRAP),
    "many workers": ("num_workers", 10**6),
    "num_classes": ("num_classes", {"a": TRAP}),
    "topk": ("proposals.topk", [TRAP, TRAP]),
    "proposals": ("proposals.val", TRAP),
    # sections of another type
    "model is text": ("model", "os.system"),
    "model is a list": ("model", [TRAP]),
    "model is null": ("model", None),
    "model without target": ("model", {"a": 1}),
    "model is a module": ("model", {"_target_": "torch.nn.Identity"}),
    "model is a part": ("model", {"_target_": "hydet.modeling.LastLevelMaxPool"}),
    "model is a partial": ("model._partial_", True),
    "augment is a list": ("augment", [TRAP]),
    "augment.test is text": ("augment.test", "x"),
    "data is text": ("data", "x"),
    "data.val is text": ("data.val", "abc"),
    "data.val is a list": ("data.val", [1]),
    "data.val is a number": ("data.val", 3),
    "evaluators is a list": ("evaluators", [1]),
    "evaluator is text": ("evaluators.instances", "x"),
    "evaluator is no partial": ("evaluators.instances._partial_", False),
    "evaluation is null": ("evaluation", None),
    "evaluation is a number": ("evaluation", 3),
    "proposals is text": ("proposals", "x"),
    # trusted names with hostile arguments
    "timm file": ("model.backbone.bottom_up", {**TIMM, "model_options": {"checkpoint_path": "payload.pth"}}),
    "timm config": ("model.backbone.bottom_up", {**TIMM, "model_options": {"pretrained_cfg": {"file": "payload.pth"}}}),
    "timm overlay": ("model.backbone.bottom_up", {**TIMM, "model_options": {"pretrained_cfg_overlay": {"url": "http://127.0.0.1:9"}}}),
    "timm cache": ("model.backbone.bottom_up", {**TIMM, "model_options": {"cache_dir": "x"}}),
    "timm options are a list": ("model.backbone.bottom_up", {**TIMM, "model_options": ["pretrained"]}),
    "timm option name": ("model.backbone.bottom_up", {**TIMM, "model_options": {3: "pretrained"}}),
    "timm hub": ("model.backbone.bottom_up", {**TIMM, "model_name": "hf-hub:hostile/model"}),
    "timm folder": ("model.backbone.bottom_up", {**TIMM, "model_name": "local-dir:."}),
    "timm later": ("model.trap", {"_target_": "hydet.modeling.make_each", "make": {**TIMM, "_partial_": True}, "each": [{"pretrained": True}]}),
    "timm positional": ("model.backbone.bottom_up", {**TIMM, "_args_": ["resnet18", True]}),
    "torchvision detector": ("model.backbone.bottom_up", {**TORCHVISION, "model_name": "fasterrcnn_resnet50_fpn"}),
    "torchvision segmentation": ("model.backbone.bottom_up", {**TORCHVISION, "model_name": "deeplabv3_resnet50"}),
    "torchvision name": ("model.backbone.bottom_up", {**TORCHVISION, "model_name": ["resnet18"]}),
    "torchvision option": ("model.backbone.bottom_up", {**TORCHVISION, "model_options": {"weights": "DEFAULT"}}),
    "torchvision backbone": ("model.backbone.bottom_up", {**TORCHVISION, "model_options": {"weights_backbone": "DEFAULT"}}),
    "torchvision later": ("model.trap", {"_target_": "hydet.modeling.make_each", "make": {**TORCHVISION, "_partial_": True}, "each": [{"weights": "DEFAULT"}]}),
    "traced names": ("model.backbone.bottom_up", {**TORCHVISION, "return_nodes": NODES}),
    "traced network": ("model.backbone.bottom_up", {"_target_": TORCHVISION["_target_"], "model": {"_target_": "torch.nn.Identity"}, "return_nodes": {"a": "b"}}),
    "proposals pickle": ("proposals.val", "payload.pkl"),
    "frequency file": ("model.trap", {"_target_": "hydet.data.frequency_weights", "json": "payload.pkl", "num_classes": 3}),
    "dataset file": ("data.val", {"_target_": "hydet.data.CocoDataset", "json": "payload.pkl", "images": "."}),
    "dataset of another kind": ("data.val", {"_target_": "hydet.evaluation.CocoEvaluator"}),
    "huge layer": ("model.trap", {"_target_": "torch.nn.Linear", "in_features": 2**62, "out_features": 2**62}),
    "wrong argument": ("model.trap", {"_target_": "torch.nn.Linear", "os": "system"}),
    "transform that fails": ("augment.test.trap", {"_target_": "torchvision.transforms.v2.LinearTransformation", "transformation_matrix": 1, "mean_vector": 2}),
    "transform of nothing": ("augment.test.trap", {"_target_": "torchvision.transforms.v2.Compose", "transforms": []}),
    "transform partial": ("augment.test.trap", {"_target_": "hydet.data.RandomCrop", "_partial_": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_CONFIGS)
def test_configs(case, edit_config, verdict):
    key, value = HOSTILE_CONFIGS[case]
    edit_config(lambda config: put(config, key, value))
    for name in ("payload.pkl", "payload.pth"):
        Path(name).write_bytes(pickle.dumps(Payload()))
    assert verdict() is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer", TRAP),
        ("callbacks.trap", TRAP),
        ("logger", [TRAP]),
        ("schedule", {"_target_": "os.system"}),
        ("sampler", TRAP),
        ("hydra", TRAP),
        ("trap", TRAP),
        ("init_from", TRAP),
        ("output_dir", "/hostile"),
        ("data.name", "[red]\x1b]0;x\x07"),
        ("data.root", "${oc.env:HOME}"),
    ],
)
def test_sections_that_are_never_built_do_nothing(key, value, edit_config, verdict):
    edit_config(lambda config: put(config, key, value))
    assert verdict() is None


# YAML

HOSTILE_YAML = {
    "alias bomb": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)),
    "alias of itself": "model: &a\n  x: *a\n",
    "merge bomb": "a0: &a0 {x: 1}\n"
    + "".join(f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}\n" for i in range(1, 10)),
    "deep list": "model: " + "[" * 5000 + "]" * 5000,
    "deep mapping": "model: " + "{a: " * 3000 + "1" + "}" * 3000,
    "deep block": "".join(" " * i + "a:\n" for i in range(300)),
    "python object": f"model: !!python/object/apply:os.system ['{COMMAND}']\n",
    "python name": "model: !!python/name:os.system\n",
    "python module": "model: !!python/module:os\n",
    "python path": "model: !!python/object/apply:pathlib.PosixPath [x]\n",
    "binary": "model: !!binary aGVsbG8=\n",
    "set": "model: !!set {a, b}\n",
    "date as a key": "2020-01-01: 1\nmodel: 3\n",
    "list as a key": "? [a, b]\n: 1\n",
    "list": "- model\n",
    "text": "model",
    "number": "3",
    "empty": "",
    "unclosed": "model: [",
    "tab": "model:\n\t- a\n",
    "repeated key": "model: {}\nmodel: {}\n",
    "several documents": "a: 1\n---\nb: 2\n",
    "bad anchor": "model: *nothing\n",
    "directive": "%YAML 9.9\n---\nmodel: 1\n",
    "control characters": "model: \x00\x07\n",
    "long number": f"model: {'9' * 5000}\n",
    "pickle": pickle.dumps(Payload()),
    "latin": "model: ä".encode("latin-1"),
    "utf-16": "model: {}".encode("utf-16"),
    "elf": b"\x7fELF" + bytes(100),
    "many values": "model: [" + "1," * 600_000 + "]",
    "large": b"#" * (17 * 2**20),
}


@pytest.mark.parametrize("case", HOSTILE_YAML)
def test_yaml(case, checkpoint, verdict):
    content = HOSTILE_YAML[case]
    (checkpoint / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert verdict() is not None


def test_config_that_is_missing_or_no_file(checkpoint, verdict):
    (checkpoint / "config.yaml").unlink()
    assert "config.yaml" in verdict()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_config_that_is_a_fifo_does_not_hang(checkpoint, verdict):
    (checkpoint / "config.yaml").unlink()
    os.mkfifo(checkpoint / "config.yaml")
    assert "config.yaml" in verdict()


# Metadata

HOSTILE_METADATA = {
    "format": None, "format_version": "1", "step": "abc", "files": ["model.safetensors"], "dataset": "cat",
    "metrics": [1],
}  # fmt: skip
METADATA_CASES = [
    *HOSTILE_METADATA.items(),
    ("format", ["hydet-checkpoint"]), ("format_version", None), ("format_version", [1]), ("format_version", 10**30),
    ("format_version", 99), ("step", None), ("step", -1), ("step", float("nan")), ("step", 10**400), ("step", [1]),
    ("step", True), ("files", None), ("files", {"model.safetensors": "x"}), ("files", {"../../x": 1}),
    ("files", {"/etc/passwd": 1}), ("files", {"a\0b": 1}), ("files", {"model.safetensors": 1}), ("files", {"": 1}),
    ("metrics", {"a": "b"}), ("metrics", {"a": {"_target_": "os.system"}}), ("metrics", {"a": 10**400}),
    ("max_steps", "x"), ("saved_at", "yesterday"), ("saved_at", {}),
    ("dataset", None), ("dataset", []), ("dataset", {}), ("dataset", {"thing_classes": None}),
    ("dataset", {"thing_classes": 3}), ("dataset", {"thing_classes": "abc"}), ("dataset", {"thing_classes": [1, 2, 3]}),
    ("dataset", {"thing_classes": [["a"], ["b"], ["c"]]}), ("dataset", {"thing_classes": ["a", "a", "a"]}),
    ("dataset", {"thing_classes": ["a", "b", "c"], "thing_ids": "xyz"}),
    ("dataset", {"thing_classes": ["a", "b", "c"], "thing_ids": [{}, {}, {}]}),
    ("dataset", {"thing_classes": ["a", "b", "c"], "palette": 3}),
    ("dataset", {"thing_classes": ["a", "b", "c"], "keypoint_names": {"a": 1}}),
    ("dataset", {"thing_classes": ["a", "b", "c"], "keypoint_flip_pairs": [[1]]}),
    ("dataset", {"thing_classes": ["a", "b", "c"], "name": {"_target_": "os.system"}}),
    ("dataset", {"thing_classes": ["\x1b[2J", "b\n", "c"]}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), METADATA_CASES, ids=range(len(METADATA_CASES)))
def test_metadata(key, value, checkpoint, verdict):
    file = checkpoint / "metadata.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, key: value}), encoding="utf-8")
    assert verdict() is not None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"3", b"null", b'"hydet-checkpoint"', b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 50_000,
        b"9" * 5000, b"NaN", pickle.dumps(Payload()), b'{"format": "hydet-checkpoint"}', b"<html></html>",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
    ids=range(15),
)  # fmt: skip
def test_metadata_files(content, checkpoint, verdict):
    (checkpoint / "metadata.json").write_bytes(content)
    assert verdict() is not None


# Weights and pickles


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


HOSTILE_WEIGHTS = {
    "empty": b"",
    "text": b"hello",
    "pickle": pickle.dumps(Payload()),
    "zip": b"PK\x03\x04" + bytes(100),
    "huge header": struct.pack("<Q", 2**62) + b"{}",
    "header of 100 MB": struct.pack("<Q", 10**8 + 1) + b"{}",
    "no JSON": safetensors(b"not json"),
    "list": safetensors([]),
    "no tensors": safetensors({}),
    "unknown dtype": safetensors({"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    "offsets beyond the file": safetensors(
        {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}, bytes(4)
    ),
    "negative offsets": safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, bytes(4)),
    "overlap": safetensors(
        {n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in ("a", "b")}, bytes(4)
    ),
    "huge shape": safetensors(
        {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "other names": safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "invalid UTF-8": safetensors(b'{"\xff": {}}'),
    "deep header": safetensors(b"[" * 100_000),
}


@pytest.mark.parametrize("case", HOSTILE_WEIGHTS)
def test_weights(case, checkpoint, verdict):
    (checkpoint / "model.safetensors").write_bytes(HOSTILE_WEIGHTS[case])
    metadata = checkpoint / "metadata.json"
    content = json.loads(metadata.read_text(encoding="utf-8"))
    content["files"]["model.safetensors"] = len(HOSTILE_WEIGHTS[case])
    metadata.write_text(json.dumps(content), encoding="utf-8")
    assert verdict() is not None


def torch_file(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


class OpensFile:
    def __reduce__(self):
        return open, (MARK, "w")


class Imports:
    def __reduce__(self):
        return __import__, ("hostile_module",)


PICKLES = {
    "protocol 0": pickle.dumps(Payload(), 0),
    "protocol 2": pickle.dumps(Payload(), 2),
    "protocol 4": pickle.dumps(Payload(), 4),
    "torch file": torch_file({"model": Payload()}),
    "nested": torch_file({"model": {"a": torch.zeros(1)}, "epoch": [Payload()]}),
    "opens a file": torch_file([OpensFile()]),
    "imports": torch_file(Imports()),
    "numpy object": pickle.dumps(np.array([Payload()], dtype=object)),
    "by opcodes": f"cos\nsystem\n(S'{COMMAND}'\ntR.".encode(),
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(COMMAND)]) + COMMAND.encode() + b"\x85R.",
    "module": torch_file(torch.nn.Linear(1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("case", PICKLES)
@pytest.mark.parametrize("reader", ["weights", "training state", "proposals"])
def test_pickles(reader, case, judge, tiny_checkpoint, checkpoint, tmp_path, monkeypatch):
    from hydet.data import ProposalFile

    monkeypatch.chdir(tmp_path)
    if reader == "training state":
        (checkpoint / "training_state.pt").write_bytes(PICKLES[case])
        metadata = checkpoint / "metadata.json"
        content = json.loads(metadata.read_text(encoding="utf-8"))
        content["files"]["training_state.pt"] = len(PICKLES[case])
        metadata.write_text(json.dumps(content), encoding="utf-8")
        file, read = checkpoint, lambda path: load_checkpoint(path).training_state()
    else:
        file = tmp_path / ("file.pth" if reader == "weights" else "file.pkl")
        file.write_bytes(PICKLES[case])
        read = read_weights if reader == "weights" else ProposalFile.read
    with judge.watching(tmp_path / "out"), pytest.raises(EXPECTED) as error, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read(file)
    assert [v for v in judge.violations if v[0] != "pickle.find_class"] == []
    assert not (tmp_path / MARK).exists()
    assert str(file) in printable(_one_line(error.value, "evaluate", []))


def test_the_corpus_is_large_enough():
    num_cases = (
        len(SIMPLE_TARGETS) * len(SECTIONS) + len(HOSTILE_CONFIGS) + len(HOSTILE_YAML) + len(METADATA_CASES)
        + len(HOSTILE_WEIGHTS) + 3 * len(PICKLES)
    )  # fmt: skip
    assert num_cases >= 300


def test_the_judge_sees_code_files_and_connections(judge, tmp_path, monkeypatch):
    import socket

    monkeypatch.chdir(tmp_path)
    with judge.watching(tmp_path / "out"):
        os.system("true")
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("x", encoding="utf-8")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=0.1)
    assert {"os.system", "os.mkdir", "open"} <= {event for event, _ in judge.violations}
    assert any(event in CONNECTS for event, _ in judge.violations)


def test_the_checkpoint_itself_is_fine(verdict):
    assert verdict() is None


def test_an_unhandled_error_of_a_part_names_the_checkpoint(edit_config, verdict, monkeypatch):
    from hydet.data import RandomHorizontalFlip

    def fail(self, *inputs):
        raise KeyError("x")

    monkeypatch.setattr(RandomHorizontalFlip, "forward", fail)
    edit_config(
        lambda config: put(config, "augment.test.trap", {"_target_": "hydet.data.RandomHorizontalFlip"})
    )
    assert re.search(r"KeyError: .*HYDRA_FULL_ERROR", verdict())
