"""The page for users of detectron2 mentions every name, all its blocks run, and all its keys exist."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

import hydet
from hydet.config.overrides import choices, known_keys, missing_arguments

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "from_detectron2.md").read_text(encoding="utf-8")

# Names of the documented modeling API that depend on a config, a registry or a global.
BUILD_FUNCTIONS = [
    "build_model", "build_backbone", "build_resnet_backbone", "build_resnet_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone", "build_proposal_generator", "build_rpn_head", "build_anchor_generator",
    "build_roi_heads", "build_box_head", "build_mask_head", "build_keypoint_head", "build_sem_seg_head",
]  # fmt: skip
REGISTRIES = [
    "META_ARCH_REGISTRY", "BACKBONE_REGISTRY", "PROPOSAL_GENERATOR_REGISTRY", "RPN_HEAD_REGISTRY",
    "ANCHOR_GENERATOR_REGISTRY", "ROI_HEADS_REGISTRY", "ROI_BOX_HEAD_REGISTRY", "ROI_MASK_HEAD_REGISTRY",
    "ROI_KEYPOINT_HEAD_REGISTRY",
]  # fmt: skip
WITH_FROM_CONFIG = [
    "GeneralizedRCNN", "PanopticFPN", "ProposalNetwork", "RetinaNet", "SemanticSegmentor", "ROIHeads",
    "StandardROIHeads", "BaseMaskRCNNHead", "BaseKeypointRCNNHead", "FastRCNNOutputLayers", "DatasetMapperTTA",
]  # fmt: skip
OTHERS = [
    "CfgNode", "from_config", "GeneralizedRCNNWithTTA", "PrecomputedProposals", "get_fed_loss_cls_weights",
    "vis_period", "EventStorage", "DatasetMapper", "MMDetBackbone", "MMDetDetector", "META_ARCHITECTURE",
    "input_shape", "get_norm",
]  # fmt: skip


def section(title):
    """Return the text from a second-level heading to the next."""
    (text,) = re.findall(rf"^## {re.escape(title)}$\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    return text


def rows(text):
    """Return the code spans of each cell of the tables in a text, row by row."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0]]


def blocks():
    """Return language and content of every fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", [*BUILD_FUNCTIONS, *REGISTRIES, *WITH_FROM_CONFIG, *OTHERS])
def test_every_name_that_depends_on_a_config_is_mentioned(name):
    assert re.search(rf"(?<!\w){name}(?!\w)", PAGE)


def test_every_build_function_registry_and_from_config_has_a_row_of_its_own():
    assert [row[0][0] for row in rows(section("Every `build_*`"))] == BUILD_FUNCTIONS
    assert {row[0][0] for row in rows(section("Every registry"))} >= set(REGISTRIES)
    assert {n for row in rows(section("Every `from_config`")) for n in row[0]} == set(WITH_FROM_CONFIG)


MODEL_WITH = {"model/roi_heads/keypoint_head": "keypoint_rcnn_fpn", "model/sem_seg_head": "panoptic_fpn"}


@pytest.mark.parametrize("row", rows(section("Every `build_*`")), ids=lambda row: row[0][0])
def test_replacement_of_a_build_function_builds(row):
    (_,), (choice,), (node,), options = row
    model = MODEL_WITH.get(choice.split("=")[0], "mask_rcnn_fpn")
    data = "shapes_panoptic" if model == "panoptic_fpn" else "shapes"
    cfg = hydet.compose(*dict.fromkeys([f"model={model}", choice]), f"data={data}")
    part = OmegaConf.select(cfg, node)
    target = part._target_.rpartition(".")[2]
    assert any(target in option for option in options) or node in ("model", "backbone")
    hydet.instantiate(part)


@pytest.mark.parametrize("row", rows(section("Every registry")), ids=lambda row: row[0][0])
def test_replacement_of_a_registry_is_a_group_of_the_tree(row):
    file_or_key = row[1][-1]
    if file_or_key.endswith(".yaml"):
        assert list((ROOT / "conf" / file_or_key).parent.glob("*.yaml"))
    else:
        assert OmegaConf.select(hydet.compose("model=faster_rcnn_fpn"), file_or_key)


def test_files_that_the_page_names_exist():
    for path in re.findall(
        r"`((?:conf|docs)/[\w/]+\.(?:yaml|md)|(?:conf|docs)/[\w/]+/|examples/\w+/)`", PAGE
    ):
        assert (ROOT / path).exists(), path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write the files of the page to a folder that Python can import from."""
    folder = tmp_path_factory.mktemp("page")
    for _, text in blocks():
        name = re.match(r"# ([\w/]+\.\w+)\n", text)
        if name:
            file = folder / name[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("mine", None)


def is_file(text):
    return re.match(r"# [\w/]+\.\w+\n", text) is not None


def test_there_are_blocks_of_every_kind():
    assert {language for language, _ in blocks()} == {"python", "yaml", "bash"}
    assert sum(is_file(text) for _, text in blocks()) >= 5


def test_python_runs_from_top_to_bottom(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"__name__": "page"}
    for language, text in blocks():
        if language == "python" and not is_file(text):
            line = PAGE[: PAGE.index(text)].count("\n")
            exec(compile("\n" * line + text, str(ROOT / "docs" / "from_detectron2.md"), "exec"), names)


COMMANDS = [
    line
    for language, text in blocks()
    if language == "bash"
    for line in text.splitlines()
    if line.startswith("python")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_command_lines_compose_and_models_with_classes_of_the_page_build(line, folder, monkeypatch):
    monkeypatch.chdir(folder)
    words = shlex.split(line, comments=True)
    assert words[:2] == ["python", "-m"]
    command = words[2].removeprefix("src.")
    assert (ROOT / "src" / f"{command}.py").exists()
    config_dirs = [words[words.index("--config-dir") + 1]] if "--config-dir" in words else []
    cfg = hydet.compose(
        *(w for w in words[3:] if "=" in w),
        config_name=command,
        config_dir=[folder / name for name in config_dirs],
    )
    if command == "train":
        assert words[-2:] == ["--cfg", "job"], "a line of this page must not start a training run"
    if config_dirs:
        with torch.device("meta"):
            assert "mine." in str(cfg) and hydet.instantiate(cfg.model)


def test_yaml_is_part_of_a_config(folder):
    for language, text in blocks():
        if language == "yaml" and not is_file(text):
            (folder / "my_conf" / "experiment").mkdir(exist_ok=True)
            (folder / "my_conf" / "experiment" / "page.yaml").write_text(
                f"# @package _global_\n{text}", encoding="utf-8"
            )
            cfg = hydet.compose("model=mask_rcnn_fpn", "experiment=page", config_dir=folder / "my_conf")
            assert OmegaConf.to_container(
                OmegaConf.merge(cfg, yaml.safe_load(text))
            ) == OmegaConf.to_container(cfg)
            hydet.instantiate(cfg.model)


def key_tables():
    """Yield the heading of each table of keys, which says how its config is composed, and its rows."""
    for title, text in re.findall(
        r"^### [^`\n]*`([^`]+)`$\n(.*?)(?=^### |\Z)", section("The usual keys"), flags=re.M | re.S
    ):
        yield title, rows(text)


TABLES = dict(key_tables())


def test_the_tables_hold_the_usual_keys():
    keys = {key for table in TABLES.values() for row in table for key in row[0] if not key.startswith("…")}
    assert len(keys) > 90
    assert {
        "MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.WEIGHTS", "SOLVER.BASE_LR", "SOLVER.IMS_PER_BATCH", "SOLVER.MAX_ITER",
        "SOLVER.STEPS", "INPUT.MIN_SIZE_TRAIN", "INPUT.FORMAT", "DATASETS.TRAIN", "DATALOADER.SAMPLER_TRAIN",
        "DATALOADER.NUM_WORKERS", "TEST.AUG.ENABLED", "TEST.AUG.MIN_SIZES", "TEST.EVAL_PERIOD", "OUTPUT_DIR",
        "VIS_PERIOD", "MODEL.RESNETS.DEPTH", "MODEL.BACKBONE.FREEZE_AT", "MODEL.RPN.NMS_THRESH",
        "MODEL.RETINANET.SCORE_THRESH_TEST", "MODEL.DEVICE", "SEED",
    } <= keys  # fmt: skip


@pytest.mark.parametrize("title", TABLES)
def test_every_key_in_the_tables_exists(title):
    words = [word for word in title.split() if "=" in word]
    name = "evaluate" if "src.evaluate" in title else "train"
    cfg = hydet.compose(*words, config_name=name)
    wrong = []
    for row in TABLES[title]:
        assert len(row) == 3 and row[0] and row[1], row
        for key in row[1]:
            override = [f"{key}=0"]
            exists = "=" in key or key in cfg or known_keys(override, cfg) or missing_arguments(override, cfg)
            if not exists:
                wrong.append(key)
    assert not wrong


CHOICES = sorted(
    {
        key
        for title, table in TABLES.items()
        if "train" in title or "src." not in title
        for row in table
        for key in row[1]
        if "=" in key
    }
)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_in_the_tables_composes(choice):
    base = {"model/roi_heads=box_keypoint": ["model=faster_rcnn_fpn"]}.get(choice, [])
    assert choices([choice]) == [choice]
    hydet.compose(*base, choice)
