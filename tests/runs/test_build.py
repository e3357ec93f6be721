"""Parts of a run from a composed config."""

import json

import pytest
import torch
from omegaconf import OmegaConf

import hydet
from hydet.config import ConfigError
from hydet.data import Metadata, ShapesDataset
from hydet.evaluation import evaluate
from hydet.runs.build import (
    build_dataset,
    build_evaluators,
    build_mapper,
    build_model,
    build_validation_loader,
    check_fits,
    fill_names,
    some_names,
)
from hydet.structures import Boxes as StructureBoxes
from hydet.structures import Instances


class Segments(torch.nn.Module):
    tasks = ("panoptic",)


class Boxes(torch.nn.Module):
    pass


class FastBoxes(torch.nn.Module):
    needs_proposals = True


@pytest.fixture
def config(shapes_overrides):
    return hydet.compose(*shapes_overrides)


def test_a_model_of_segments_alone_receives_masks_and_semantic_labels(config):
    dataset = ShapesDataset(num_images=1, image_size=(64, 64))
    entry = build_mapper(config, Segments(), training=True)(dataset[0], 0)
    assert entry["sem_seg"].shape == entry["instances"].gt_masks.tensor.shape[1:]
    assert "sem_seg" not in build_mapper(config, Boxes(), training=True)(dataset[0], 0)


def test_a_transform_without_a_target_is_named(config):
    config.augment.test = {"resize": {"short": 800}}
    with pytest.raises(ConfigError, match=r"augment\.test\.resize must be a section with _target_"):
        build_mapper(config, Boxes(), training=False)


@pytest.mark.parametrize("target", ["torch.nn.Identity", "hydet.modeling.LastLevelMaxPool", "builtins.dict"])
def test_a_part_is_no_detector(target):
    with pytest.raises(ConfigError, match="not a detector"):
        build_model(OmegaConf.create({"model": {"_target_": target}}))


def test_null_names_are_those_of_the_data(config):
    OmegaConf.set_struct(config, False)
    config.data.class_names = None
    config.num_classes = 2
    fill_names(config, Metadata(thing_classes=("cat", "dog"), stuff_classes=("sky",)))
    assert list(config.data.class_names) == ["cat", "dog"]
    config.num_classes = 5
    with pytest.raises(ConfigError, match=r"num_classes is 5.*\(2\) cat, dog"):
        fill_names(config, Metadata(thing_classes=("cat", "dog")))


def test_a_split_of_other_classes_or_without_data_is_refused(config):
    with pytest.raises(ConfigError, match=r"data.val has classes \(3\).*trained on \(1\) cat"):
        build_dataset(config, "val", metadata=Metadata(thing_classes=("cat",)))
    OmegaConf.set_struct(config, False)
    config.data.val = None
    with pytest.raises(ConfigError, match=r"data\.val is not set: data=shapes"):
        build_dataset(config, "val")


def test_evaluators_fit_the_tasks_and_custom_names_are_always_built(config):
    OmegaConf.set_struct(config, False)
    dataset = build_dataset(config, "val")
    assert [type(e).__name__ for e in build_evaluators(config, Boxes(), dataset)] == ["CocoEvaluator"]
    config.evaluators.mine = config.evaluators.proposals
    assert len(build_evaluators(config, Boxes(), dataset)) == 2
    config.evaluators.mine = {"_target_": "builtins.dict", "_partial_": True}
    with pytest.raises(ConfigError, match=r"evaluators\.mine"):
        build_evaluators(config, Boxes(), [])


def test_a_model_without_a_proposal_generator_needs_data_with_proposals(config):
    check_fits(config, FastBoxes(), ShapesDataset(num_images=1, num_proposals=4))
    check_fits(config, Boxes(), ShapesDataset(num_images=1))
    with pytest.raises(ConfigError, match=r"proposals\.train=FILE"):
        check_fits(config, FastBoxes(), ShapesDataset(num_images=1))


def test_data_without_the_labels_of_the_model_are_refused(config):
    class Stuff(torch.nn.Module):
        tasks = ("semantic",)

    check_fits(config, Segments(), ShapesDataset(num_images=1))
    OmegaConf.set_struct(config, False)
    config.num_stuff_classes = 7
    with pytest.raises(ConfigError, match=r"data\.stuff_names has 7 names.*data\.stuff_names=null"):
        check_fits(config, Stuff(), ShapesDataset(num_images=1))


def test_some_names():
    assert some_names(["a", "b"]) == "(2) a, b"
    assert some_names("abcdefg") == "(7) a, b, c, d, e, ..."


def test_names_with_the_form_of_an_interpolation_stay_text(config):
    config.data.class_names = None
    config.num_classes = 2
    fill_names(config, Metadata(thing_classes=("${price}", "a\\${b}")))
    assert list(config.data.class_names) == ["${price}", "a\\${b}"]


class PerfectBoxes(torch.nn.Module):
    """Returns the boxes of the ground truth of each image."""

    def __init__(self, dataset):
        super().__init__()
        self.objects = {image["id"]: [] for image in dataset.to_coco()["images"]}
        self.sizes = {image["id"]: (image["height"], image["width"]) for image in dataset.to_coco()["images"]}
        for annotation in dataset.to_coco()["annotations"]:
            self.objects[annotation["image_id"]].append(annotation)
        self.classes = {number: i for i, number in enumerate(dataset.metadata.thing_ids)}

    def inference(self, batched_inputs):
        outputs = []
        for entry in batched_inputs:
            objects = self.objects[entry["image_id"]]
            boxes = torch.tensor([annotation["bbox"] for annotation in objects]).reshape(-1, 4)
            boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
            classes = torch.tensor([self.classes[annotation["category_id"]] for annotation in objects])
            fields = {"scores": torch.ones(len(objects)), "pred_classes": classes.long()}
            instances = Instances(self.sizes[entry["image_id"]], pred_boxes=StructureBoxes(boxes), **fields)
            outputs.append({"instances": instances})
        return outputs


def test_empty_polygons_change_neither_objects_nor_ap_of_a_box_model(coco_folder, coco_overrides, tmp_path):
    content = json.loads((coco_folder / "annotations/instances_val.json").read_text(encoding="utf-8"))
    for annotation in content["annotations"][::4]:
        annotation["segmentation"] = []
    (tmp_path / "val.json").write_text(json.dumps(content), encoding="utf-8")
    overrides = [*coco_overrides(coco_folder), "data.class_names=null"]
    full = hydet.compose(*overrides)
    emptied = hydet.compose(*overrides, f"data.val.json={tmp_path}/val.json")
    # Some detections are absent, so that the AP is not 100 and depends on the number of objects.
    model = PerfectBoxes(build_dataset(full, "val"))
    model.objects = {image: objects[1:] for image, objects in model.objects.items()}
    metrics, counts = [], []
    for config in (full, emptied):
        dataset = build_dataset(config, "val")
        loader = build_validation_loader(config, model, dataset)
        evaluators = build_evaluators(config, model, dataset)
        metrics.append(evaluate(model, loader, evaluators, progress=False, with_losses=False))
        counts.append(sum(len(entry["instances"]) for batch in loader for entry in batch))
    assert counts[0] == counts[1] == len(content["annotations"])
    assert metrics[0] == pytest.approx(metrics[1], nan_ok=True)
    assert 0 < metrics[0]["box/AP"] < 100
