"""Write the resolved configs below ``docs/configs``: one file per model option, and the config of a plain training run.

``python docs/write_configs.py`` writes the files; ``--check`` only reports those that are out of date.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml
from omegaconf import OmegaConf

import hydet

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "configs"
# Data with the labels that a model learns; all others learn from coco_instance.
DATA = {
    "keypoint_rcnn_fpn": "coco_keypoint",
    "panoptic_cascade_fpn": "coco_panoptic",
    "panoptic_fpn": "coco_panoptic",
    "semantic_fpn": "coco_panoptic",
}


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, and repeats equal nodes instead of using anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def resolved_configs() -> dict[str, str]:
    """Return the text of each file by its name."""
    texts = {}
    for file in sorted((ROOT / "conf" / "model").glob("*.yaml")):
        overrides = [f"model={file.stem}", f"data={DATA.get(file.stem, 'coco_instance')}"]
        model = OmegaConf.to_container(hydet.compose(*overrides).model, resolve=True)
        texts[file.name] = _text(" ".join(overrides), "its model", {"model": model})
    config = hydet.compose()
    config.output_dir = "runs/DATE_TIME"  # the real one holds the time at which the run starts
    texts["train.yaml"] = _text("", "everything", OmegaConf.to_container(config, resolve=True))
    return texts


def outdated_files() -> list[str]:
    """Return the names of files that are missing, out of date or left over."""
    texts = resolved_configs()
    existing = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.yaml")}
    return sorted(name for name in {*texts, *existing} if texts.get(name) != existing.get(name))


def write_files() -> None:
    """Write every file, and remove those of options that no longer exist."""
    FOLDER.mkdir(exist_ok=True)
    texts = resolved_configs()
    for file in FOLDER.glob("*.yaml"):
        if file.name not in texts:
            file.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def _text(overrides: str, part: str, content: object) -> str:
    command = f"python -m src.train {overrides}".rstrip()
    body = yaml.dump(
        _target_first(content), Dumper=_Dumper, default_flow_style=None, sort_keys=False, width=120
    )
    return f"# {command}: {part}, resolved. Written by docs/write_configs.py; do not edit.\n{body}"


def _target_first(node: object) -> object:
    """Return the same containers with ``_target_`` before the arguments, in whatever order Hydra merged them."""
    if isinstance(node, list):
        return [_target_first(item) for item in node]
    if not isinstance(node, dict):
        return node
    first = {key: node[key] for key in ("_target_", "_partial_") if key in node}
    return {key: _target_first(value) for key, value in {**first, **node}.items()}


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    if not parser.parse_args().check:
        write_files()
        return 0
    outdated = outdated_files()
    if outdated:
        print(f"out of date: {', '.join(outdated)}; run `python docs/write_configs.py`")
    return 1 if outdated else 0


if __name__ == "__main__":
    raise SystemExit(main())
