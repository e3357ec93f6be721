"""``predict`` on files, folders and globs, and from other places than the command."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import hydet
from hydet.data.images.reading import read_image
from hydet.data.videos.reading import VideoReader
from hydet.data.videos.writing import write_video
from hydet.engine import load_checkpoint, load_weights
from hydet.evaluation import results_to_coco_json
from hydet.runs.open_checkpoint import open_checkpoint
from hydet.visualization import draw_predictions, save_png


def test_prediction_of_a_folder_a_file_and_a_glob(trained, coco_folder, command, tmp_path):
    common = [f"checkpoint={trained}", "score_threshold=0.2"]
    command("predict", *common, f"input={coco_folder}/val", f"output_dir={tmp_path}/folder", "batch_size=2")
    images = json.loads((tmp_path / "folder" / "images.json").read_text(encoding="utf-8"))
    results = json.loads((tmp_path / "folder" / "results.json").read_text(encoding="utf-8"))
    names = sorted(p.name for p in (coco_folder / "val").iterdir())
    assert sorted(p.name for p in (tmp_path / "folder" / "pictures").iterdir()) == names
    assert [i["file_name"].rpartition("/")[2] for i in images] == names
    assert {r["image_id"] for r in results} <= {i["id"] for i in images}
    assert {"bbox", "category_id", "score", "segmentation"} <= results[0].keys()

    first = coco_folder / "val" / names[0]
    command("predict", *common, f"input={first}", f"output_dir={tmp_path}/file")
    assert [p.name for p in (tmp_path / "file" / "pictures").iterdir()] == [names[0]]
    alone = json.loads((tmp_path / "file" / "results.json").read_text(encoding="utf-8"))
    same = [r for r in results if r["image_id"] == 1]
    assert [r["score"] for r in alone] == pytest.approx([r["score"] for r in same], abs=1e-5)

    command("predict", *common, f"input={coco_folder}/*/{names[0]}", f"output_dir={tmp_path}/glob")
    drawings = sorted(
        str(p.relative_to(tmp_path / "glob" / "pictures")) for p in (tmp_path / "glob").rglob("*.png")
    )
    assert {f"train/{names[0]}", f"val/{names[0]}"} <= set(drawings)


def built_by_hand(size, num_classes):
    """Return the model of the tiny run, built without a config; ``size`` holds numbers only."""
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
            norm="",
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
                conv_dims=[],
                fc_dims=[size["fc_channels"]] * 2,
                conv_norm="",
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
                conv_norm="",
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
    command("predict", f"checkpoint={trained}", f"input={file}", f"output_dir={tmp_path}", "inference=exact")
    by_command = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
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
        results = results_to_coco_json([entry], output, metadata)
        assert len(results) == len(by_command), name
        for a, b in zip(results, by_command, strict=True):
            assert (a["category_id"], a["segmentation"]) == (b["category_id"], b["segmentation"]), name
            assert [a["score"], *a["bbox"]] == pytest.approx([b["score"], *b["bbox"]], abs=1e-5), name


def test_a_moved_checkpoint_still_works(trained, coco_folder, command, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(load_checkpoint(trained).path, moved)
    file = next((coco_folder / "val").iterdir())
    command("predict", f"checkpoint={moved}", f"input={file}", f"output_dir={tmp_path}/predictions")


def test_an_error_keeps_the_results_of_the_images_before_it(
    trained, coco_folder, failure, tmp_path, monkeypatch
):
    from hydet.runs import result

    files = sorted((coco_folder / "val").iterdir())
    drawn = []

    def draw(*arguments, **settings):
        drawn.append(1)
        if len(drawn) == 3:
            raise ValueError("no memory is left")
        return draw_predictions(*arguments, **settings)

    monkeypatch.setattr(result, "draw_predictions", draw)
    line = failure("predict", f"checkpoint={trained}", f"input={coco_folder}/val", f"output_dir={tmp_path}")
    assert "no memory is left" in line
    images = json.loads((tmp_path / "images.json").read_text(encoding="utf-8"))
    assert [Path(i["file_name"]) for i in images] == files[:2]
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {r["image_id"] for r in results} == {1, 2}


def test_prediction_of_a_video(trained, coco_folder, command, failure, tmp_path):
    clip = tmp_path / "clip.mp4"
    photos = [read_image(path) for path in sorted((coco_folder / "val").iterdir())]
    with write_video(clip, rate=10) as video:
        for i in range(3):
            video.write(photos[0].roll(2 * i, dims=2), time=0.1 * i)
    common = [f"checkpoint={trained}", f"input={clip}", "score_threshold=0.2"]
    out = command("predict", *common, "track=true", "batch_size=3", f"output_dir={tmp_path}/a")
    assert f"video: {tmp_path}/a/clip.mp4" in out and "3 images" in out
    assert [frame.time for frame in VideoReader(tmp_path / "a" / "clip.mp4")] == pytest.approx(
        [0, 0.1, 0.2], abs=1e-3
    )
    images = json.loads((tmp_path / "a" / "images.json").read_text(encoding="utf-8"))
    assert [image["file_name"] for image in images] == [f"{clip} frame {i}" for i in range(3)]
    line = failure("predict", f"checkpoint={trained}", f"input={coco_folder}/val", "save_video=true")
    assert "save_video and track need a video as input" in line


def test_prediction_in_tiles(trained, coco_folder, command, tmp_path):
    photo = tmp_path / "large.png"
    images = [read_image(path) for path in sorted((coco_folder / "val").iterdir())[:2]]
    save_png(torch.cat([images[0], images[0]], dim=2), photo)
    common = [f"checkpoint={trained}", f"input={photo}", "batch_size=4"]
    command("predict", *common, "tile=64", "overlap=0.25", f"output_dir={tmp_path}/a")
    (image,) = json.loads((tmp_path / "a" / "images.json").read_text(encoding="utf-8"))
    results = json.loads((tmp_path / "a" / "results.json").read_text(encoding="utf-8"))
    assert results and all(r["segmentation"]["size"] == [image["height"], image["width"]] for r in results)
    detector = hydet.load(trained, device="cpu")
    (result,) = detector.predict(photo, tile=64, overlap=0.25, batch_size=4)
    assert sorted(result.scores.tolist()) == pytest.approx(sorted(r["score"] for r in results), abs=1e-5)
