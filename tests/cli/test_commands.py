"""Train, evaluate and predict, one after the other, on generated pictures and on COCO files."""

import json
import shutil

import pytest
import torch
from PIL import Image

import hydet
from hydet.cli import train
from hydet.cli.predict import find_images, picture_names
from hydet.data.images.reading import read_image
from hydet.engine import load_checkpoint, load_weights
from hydet.evaluation import results_to_coco_json
from hydet.runs.open_checkpoint import open_checkpoint


def test_training_leaves_metrics_pictures_and_a_checkpoint(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {"box/AP", "mask/AP", "val_loss/total", "seconds"} <= metrics.keys()
    assert metrics["step"] == 2
    checkpoint = load_checkpoint(trained)
    assert checkpoint.step == 2 and checkpoint.class_names == ("ellipse", "rectangle", "triangle")
    assert checkpoint.config.backbone.stem_out_channels == 32
    with Image.open(next((trained / "pictures").glob("*.png"))) as picture:
        assert picture.width > 64


def test_evaluating_needs_nothing_but_the_checkpoint(trained, command, tmp_path):
    out = command("evaluate", f"checkpoint={trained}", f"output_dir={tmp_path}")
    assert "rectangle" in out
    again = json.loads((tmp_path / "metrics.json").read_text())
    first = json.loads((trained / "metrics.json").read_text())
    assert again["box/AP"] == pytest.approx(first["box/AP"], abs=1e-9)
    assert again["mask/AP"] == pytest.approx(first["mask/AP"], abs=1e-9)
    assert again["val_loss/total"] == pytest.approx(first["val_loss/total"], rel=0.2)  # it samples
    assert json.loads((tmp_path / "results.json").read_text())


def test_evaluating_on_other_data(trained, coco_folder, command, tmp_path):
    command(
        "evaluate",
        f"checkpoint={trained}",
        "data=shapes",
        "data.val.num_images=2",
        f"output_dir={tmp_path}/a",
    )
    out = command(
        "evaluate", f"checkpoint={trained}", "data=coco_instance", "data.class_names=null", "batch_size=2",
        f"data.val.json={coco_folder}/annotations/instances_val.json", f"data.val.images={coco_folder}/val",
        "backend=pycocotools", f"output_dir={tmp_path}/b",
    )  # fmt: skip
    assert "3 images" in out
    assert {r["image_id"] for r in json.loads((tmp_path / "b" / "results.json").read_text())} <= {0, 1, 2, 3}


def test_predicting_a_folder_a_file_and_a_glob(trained, coco_folder, command, tmp_path):
    common = [f"checkpoint={trained}", "score_threshold=0.2"]
    command("predict", *common, f"input={coco_folder}/val", f"output_dir={tmp_path}/folder", "batch_size=2")
    images = json.loads((tmp_path / "folder" / "images.json").read_text())
    results = json.loads((tmp_path / "folder" / "results.json").read_text())
    names = sorted(p.name for p in (coco_folder / "val").iterdir())
    assert sorted(p.name for p in (tmp_path / "folder" / "pictures").iterdir()) == names
    assert [i["file_name"].rpartition("/")[2] for i in images] == names
    assert {r["image_id"] for r in results} <= {i["id"] for i in images}
    assert {"bbox", "category_id", "score", "segmentation"} <= results[0].keys()

    first = coco_folder / "val" / names[0]
    command("predict", *common, f"input={first}", f"output_dir={tmp_path}/file")
    assert [p.name for p in (tmp_path / "file" / "pictures").iterdir()] == [names[0]]
    alone = json.loads((tmp_path / "file" / "results.json").read_text())
    same = [r for r in results if r["image_id"] == 1]
    assert [r["score"] for r in alone] == pytest.approx([r["score"] for r in same], abs=1e-5)

    command("predict", *common, f"input={coco_folder}/*/{names[0]}", f"output_dir={tmp_path}/glob")
    pictures = sorted(
        str(p.relative_to(tmp_path / "glob" / "pictures")) for p in (tmp_path / "glob").rglob("*.png")
    )
    assert {f"train/{names[0]}", f"val/{names[0]}"} <= set(pictures)


def test_no_two_pictures_get_the_same_name(tmp_path):
    places = ["a/x.jpg", "b/x.jpg", "a/y.jpg", "a/y.png", "a/deep/x.jpg"]
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    (tmp_path / "a" / "notes.txt").touch()
    files = find_images(str(tmp_path))
    assert len(files) == len(places)
    names = [str(n) for n in picture_names(files)]
    assert sorted(names) == ["a/deep/x.png", "a/x.png", "a/y.jpg.png", "a/y.png.png", "b/x.png"]
    assert [str(n) for n in picture_names([tmp_path / "a" / "x.jpg"])] == ["x.png"]


def test_coco_files_with_class_names_from_the_file(coco_folder, coco_overrides, command, tmp_path):
    out = command(
        "train", *coco_overrides(coco_folder), "data.class_names=null", f"output_dir={tmp_path}/run"
    )
    assert "3 classes" in out
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint.class_names == ("ellipse", "rectangle", "triangle")
    assert checkpoint.config.model.roi_heads.num_classes == 3


def test_keypoints_of_coco_files(coco_folder, coco_overrides, command, tmp_path):
    run = tmp_path / "run"
    command(
        "train", *coco_overrides(coco_folder), "data=coco_keypoint", "model=keypoint_rcnn_fpn",
        "data.class_names=null", f"output_dir={run}",
    )  # fmt: skip
    assert load_checkpoint(run).dataset["keypoint_names"][0] == "center"
    metrics = json.loads((run / "metrics.json").read_text())
    assert "keypoints/AP" in metrics or "box/AP" in metrics
    file = next((coco_folder / "val").iterdir())
    command("predict", f"checkpoint={run}", f"input={file}", f"output_dir={tmp_path}/predictions")
    results = json.loads((tmp_path / "predictions" / "results.json").read_text())
    assert all(len(r["keypoints"]) == 15 for r in results)


def test_config_is_printed_and_nothing_runs(command, tmp_path):
    out = command("train", "--cfg", "job", "--resolve", f"output_dir={tmp_path}/run")
    assert "num_classes: 3" in out and "${" not in out
    assert not (tmp_path / "run").exists()
    for name in ("evaluate", "predict"):
        assert "output_dir" in command(name, "--cfg", "job", "checkpoint=x", f"output_dir={tmp_path}/run")


def test_a_command_leaves_the_environment_as_it_was(monkeypatch):
    import os
    import sys

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = list(sys.argv)
    assert train.main(["optimizer.lrr=1"]) == 1
    assert "HYDRA_FULL_ERROR" not in os.environ and sys.argv == before


def test_tracebacks_on_request(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="lrr"):
        train.main(["optimizer.lrr=1"])


def built_by_hand(size, num_classes):
    """The model of the tiny run, without any config; ``size`` holds numbers only."""
    from hydet import modeling as m
    from hydet.layers import ShapeSpec

    features, channels = ["p2", "p3", "p4", "p5"], size["pyramid_channels"]

    def pooler(output_size):
        return m.ROIPooler(
            output_size=output_size,
            scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32],
            sampling_ratio=size["sampling_ratio"],
            pooler_type="ROIAlignV2",
            canonical_box_size=size["canonical_box_size"],
        )

    return m.GeneralizedRCNN(
        backbone=m.FPN(
            bottom_up=m.make_resnet(
                depth=18,
                norm="BN",
                stem_out_channels=32,
                res2_out_channels=32,
                out_features=["res2", "res3", "res4", "res5"],
                freeze_at=0,
            ),
            in_features=["res2", "res3", "res4", "res5"],
            out_channels=channels,
            norm=size["pyramid_norm"],
            top_block=m.LastLevelMaxPool(),
        ),
        proposal_generator=m.RPN(
            in_features=[*features, "p6"],
            head=m.StandardRPNHead(in_channels=channels, num_anchors=3),
            anchor_generator=m.DefaultAnchorGenerator(
                sizes=size["pyramid_anchor_sizes"],
                aspect_ratios=[[0.5, 1.0, 2.0]],
                strides=[4, 8, 16, 32, 64],
                offset=0.0,
            ),
            anchor_matcher=m.Matcher(
                thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
            ),
            box2box_transform=m.Box2BoxTransform(weights=[1.0, 1.0, 1.0, 1.0]),
            batch_size_per_image=size["anchors_per_image"],
            positive_fraction=0.5,
            pre_nms_topk=size["pyramid_pre_nms_topk"],
            post_nms_topk=size["post_nms_topk"],
            nms_thresh=0.7,
        ),
        roi_heads=m.StandardROIHeads(
            num_classes=num_classes,
            batch_size_per_image=size["regions_per_image"],
            positive_fraction=0.25,
            proposal_matcher=m.Matcher(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
            box_in_features=features,
            box_pooler=pooler(7),
            box_head=m.FastRCNNConvFCHead(
                input_shape=ShapeSpec(channels=channels, height=7, width=7),
                conv_dims=size["box_conv_dims"],
                fc_dims=size["box_fc_dims"],
                conv_norm=size["head_norm"],
            ),
            box_predictor=m.FastRCNNOutputLayers(
                input_shape=ShapeSpec(channels=size["fc_channels"]),
                box2box_transform=m.Box2BoxTransform(weights=[10.0, 10.0, 5.0, 5.0]),
                num_classes=num_classes,
                test_score_thresh=0.05,
            ),
            mask_in_features=features,
            mask_pooler=pooler(14),
            mask_head=m.MaskRCNNConvUpsampleHead(
                input_shape=ShapeSpec(channels=channels, height=14, width=14),
                num_classes=num_classes,
                conv_dims=size["mask_conv_dims"],
                conv_norm=size["head_norm"],
            ),
        ),
        pixel_mean=[103.53, 116.28, 123.675],
        pixel_std=[1.0, 1.0, 1.0],
        input_format="BGR",
    )


def test_instantiate_plain_constructors_and_the_command_predict_the_same(
    trained, coco_folder, command, tmp_path
):
    from omegaconf import OmegaConf

    file = sorted((coco_folder / "val").iterdir())[0]
    command("predict", f"checkpoint={trained}", f"input={file}", f"output_dir={tmp_path}")
    by_command = json.loads((tmp_path / "results.json").read_text())
    assert by_command

    checkpoint = load_checkpoint(trained)
    config = checkpoint.config
    models = {
        "instantiate": hydet.instantiate(config.model),
        "by hand": built_by_hand(OmegaConf.to_container(config.size, resolve=True), config.num_classes),
    }
    metadata = open_checkpoint(trained).metadata
    image = read_image(file).flip(0)  # BGR
    for name, model in models.items():
        load_weights(model, checkpoint.path)
        entry = {"image": image, "height": 64, "width": 64, "image_id": 1}
        with torch.no_grad():
            output = model.eval()([entry])
        found = results_to_coco_json([entry], output, metadata)
        assert len(found) == len(by_command), name
        for a, b in zip(found, by_command, strict=True):
            assert (a["category_id"], a["segmentation"]) == (b["category_id"], b["segmentation"]), name
            assert [a["score"], *a["bbox"]] == pytest.approx([b["score"], *b["bbox"]], abs=1e-5), name


def test_a_moved_checkpoint_still_works(trained, coco_folder, command, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(load_checkpoint(trained).path, moved)
    file = next((coco_folder / "val").iterdir())
    command("predict", f"checkpoint={moved}", f"input={file}", f"output_dir={tmp_path}/predictions")
