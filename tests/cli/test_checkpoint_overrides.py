"""Values of a checkpoint's config that a command line replaces."""

import json

import pytest

from hydet.cli.checkpoint_overrides import collect_overrides
from hydet.config import ConfigError


def test_values_of_the_checkpoint_are_collected():
    typed = ["checkpoint=a", "model.x.y=[1,2]", "+model.z=3", "++augment.test.r.short=4", "-m", "data=shapes"]
    assert collect_overrides(typed) == [
        "checkpoint=a", "+changes.model.x.y=[1,2]", "+changes.model.z=3", "+changes.augment.test.r.short=4", "-m",
        "data=shapes",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "typed", ["model=fcos", "size=slim", "optimizer.lr=1", "backbone=r101", "~model.x", "model/head=fcos"]
)
def test_an_override_without_effect_is_refused(typed):
    with pytest.raises(ConfigError, match=r"the checkpoint fixes this.*model\.KEY=VALUE") as error:
        collect_overrides([typed])
    assert str(error.value).startswith(typed)


def test_another_threshold_in_evaluation(trained, command, tmp_path):
    changed = ["model.roi_heads.box_predictor.test_topk_per_image=2"]
    command("evaluate", f"checkpoint={trained}", f"output_dir={tmp_path}/a")
    command("evaluate", f"checkpoint={trained}", f"output_dir={tmp_path}/b", *changed)
    all_results, few = (
        json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8")) for name in "ab"
    )
    images = [result["image_id"] for result in few]
    assert max(images.count(i) for i in images) == 2 and len(few) < len(all_results)


def test_another_size_in_prediction(trained, coco_folder, command, tmp_path):
    larger = "augment.test.resize={_target_:hydet.data.ResizeShortestEdge,short:128,max_size:200}"
    arguments = [f"checkpoint={trained}", f"input={coco_folder}/val", "model.vis_period=0"]
    command("predict", *arguments, f"output_dir={tmp_path}/a")
    command("predict", *arguments, f"output_dir={tmp_path}/b", larger)
    assert (tmp_path / "a/results.json").read_text(encoding="utf-8") != (
        tmp_path / "b/results.json"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("model.roi_heads.box_predictor.test_score_tresh=0.5", "nearest: 'test_score_thresh'"),
        ("model.roi_head.x=1", "nearest: 'roi_heads'"),
        ("model.roi_heads.box_head._target_=os.system", "os.system"),
        ("model=retinanet", "the checkpoint fixes this"),
    ],
)
@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_mistakes(name, typed, words, trained, coco_folder, failure, tmp_path):
    more = [f"input={coco_folder}/val"] if name == "predict" else []
    line = failure(name, f"checkpoint={trained}", *more, typed, f"output_dir={tmp_path}")
    assert words in line
