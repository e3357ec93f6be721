"""The page that ``--help`` prints: the commonest uses of a command, and the groups of options that it reads."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from importlib.resources import files

__all__ = ["USES", "asks_for_help", "help_page"]

_CONF = files("hydet.conf")
_WIDTH = 80

PURPOSES = {
    "train": "Train a detector, evaluate it, and store checkpoints, metrics and drawn images.",
    "evaluate": "Compute the metrics of a checkpoint again, or of the same model on other data.",
    "predict": "Run a checkpoint on image files; store drawn images and results in COCO's format.",
    "export": "Write a checkpoint as an ONNX, torch.export or AOTInductor file, and check the file.",
    "benchmark": "Measure time, memory and size of a model on random images.",
}
# Arguments after ``python -m src.NAME``, and the effect.
USES: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (
        ("", "a small model on generated images"),
        ("model=mask_rcnn_fpn backbone=r50", "another architecture and backbone"),
        ("data=coco_instance data.root=/data/coco", "a data set on disk"),
        ("init_from=weights.pth", "start from trained weights; src.weights lists published ones"),
        ("optimizer.lr=0.01 batch_size=8", "values of the config"),
        ("trainer.max_steps=1000 evaluation.every=500", "length, and steps between evaluations"),
        ("preset=none", "published sizes and schedule on any data"),
        ("-m optimizer.lr=0.01,0.02", "a sweep; ends with a table of its runs"),
        ("output_dir=runs/a resume=auto", "continue runs/a from its last checkpoint"),
        ("--cfg job --resolve", "print the config, run nothing"),
    ),
    "evaluate": (
        ("checkpoint=runs/a", "on the validation data of the run"),
        ("checkpoint=runs/a split=train", "on its training data"),
        ("checkpoint=runs/a tta=default", "with test-time augmentation"),
        ("checkpoint=runs/a tile=1024 overlap=0.2", "large images cut into tiles"),
        ("checkpoint=runs/a data=coco_instance data.root=/data/coco", "on other data"),
        ("checkpoint=runs/a evaluators=lvis", "with the metrics of LVIS"),
        (
            "checkpoint=runs/a model.roi_heads.box_predictor.test_nms_thresh=0.6",
            "change a value of its config",
        ),
        ("checkpoint=runs/a batch_size=4 device=cpu", "images per forward pass, and the device"),
        ("checkpoint=runs/a output_dir=runs/b", "where the results are stored"),
        ("checkpoint=runs/a --cfg job", "print the config, run nothing"),
    ),
    "predict": (
        ("checkpoint=runs/a input=photo.jpg", "one image"),
        ("checkpoint=runs/a input=photos", "every image of a folder"),
        ("checkpoint=runs/a input='photos/*.jpg'", "files that match a pattern"),
        ("checkpoint=runs/a input=photos score_threshold=0.7", "draw only confident detections"),
        ("checkpoint=runs/a input=clip.mp4 track=true", "a video, with numbered objects"),
        ("checkpoint=runs/a input=photos tile=1024", "large images cut into tiles"),
        ("checkpoint=runs/a input=scans value_range=minmax", "images with more than 8 bits"),
        (
            "checkpoint=runs/a input=photos model.roi_heads.box_predictor.test_nms_thresh=0.6",
            "change a value of its config",
        ),
        ("checkpoint=runs/a input=photos output_dir=runs/b", "where the results are stored"),
        ("checkpoint=runs/a input=photos --cfg job", "print the config, run nothing"),
    ),
    "export": (
        ("checkpoint=runs/a format=onnx", "for ONNX Runtime"),
        ("checkpoint=runs/a format=torch_export", "for torch.export.load"),
        ("checkpoint=runs/a format=aoti", "compiled for this processor"),
        ("checkpoint=runs/a format=onnx precision=fp16", "with 16-bit numbers"),
        ("checkpoint=runs/a format=onnx sizes=[[800,1216]]", "for images of one size"),
        ("checkpoint=runs/a format=onnx images=photos", "check the file on these images"),
        ("checkpoint=runs/a format=aoti device=cuda", "for a GPU"),
        (
            "checkpoint=runs/a format=onnx model.roi_heads.box_predictor.test_score_thresh=0.3",
            "change a value of its config",
        ),
        ("checkpoint=runs/a format=onnx output_dir=runs/b", "where the file is stored"),
        ("checkpoint=runs/a format=onnx --cfg job", "print the config, run nothing"),
    ),
    "benchmark": (
        ("model=mask_rcnn_fpn backbone=r50", "inference of a model"),
        ("model=retinanet against=exact", "fast inference beside the exact one"),
        ("model=retinanet against=torchvision", "the same architecture of torchvision"),
        ("model=fcos work=training batch_size=2", "a training step"),
        ("model=fcos image_size=[480,640] runs=20", "image size and number of runs"),
        ("model=fcos inference=bf16 device=cuda", "bfloat16 on a GPU"),
        ("model=fcos compile=true", "the compiled tensor core"),
        ("model=mask_rcnn_fpn graph=true", "graph breaks and recompilations"),
        ("model=fcos threads=1", "one thread of the processor"),
        ("model=fcos --cfg job", "print the config, run nothing"),
    ),
}


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Tell whether a command line contains ``--help`` or ``-h``."""
    return any(argument in ("--help", "-h") for argument in arguments)


def help_page(config_name: str) -> str:
    """Return the page of the command ``config_name``, such as ``train``."""
    lines = [PURPOSES[config_name], "", "Common uses:"]
    for arguments, comment in USES[config_name]:
        lines += [f"  # {comment}", f"  python -m src.{config_name} {arguments}".rstrip()]
    groups = _groups(config_name)
    if groups:
        lines += ["", "Groups, chosen with GROUP=OPTION:"]
    for group in groups:
        lines.append(
            textwrap.fill(
                f"{group}: {', '.join(_options(group))}",
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="      ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    lines += [
        "",
        f"Every value and its meaning: conf/{config_name}.yaml and --cfg job. More: README.md, docs/.",
        "Options of Hydra itself: --hydra-help",
    ]
    return "\n".join(lines)


def _groups(config_name: str) -> list[str]:
    """Return the groups in the defaults list of a primary config, in its order."""
    text = _CONF.joinpath(f"{config_name}.yaml").read_text(encoding="utf-8")
    defaults = re.search(r"^defaults:\n((?:[ ]+.*\n)+)", text, flags=re.MULTILINE)
    groups = re.findall(r"^ +- (\w+):", defaults[1], flags=re.MULTILINE) if defaults else []
    # The model's option chooses a backbone, so the primary config does not list that group.
    return [*groups, "backbone"] if "model" in groups else groups


def _options(group: str) -> list[str]:
    """Return the options of a group; a folder of experiments stands for those inside it."""
    entries = list(_CONF.joinpath(group).iterdir())
    options = sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))
    return options or sorted(
        f"{entry.name}/NAME" for entry in entries if entry.is_dir() and entry.name[0] != "_"
    )
