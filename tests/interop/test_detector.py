"""The wrapper's own work, with an mmdet made of paper: what goes in, what comes out, what is left as it was."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hydet.modeling import MetaArchitecture, MMDetDetector
from hydet.structures import Boxes, Instances, RotatedBoxes

from .conftest import CLASSES, PIXELS, Element, PaperPreprocessor, picture


class Head(nn.Module):
    """Like mmdet's: the answer depends on ``self.training``."""

    num_classes = CLASSES

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 5, 1))

    def forward(self, features):
        return self.layers(features), self.training


class PaperDetector(nn.Module):
    """One box an image, of half its size; two levels of losses and a metric."""

    with_bbox, with_mask = True, False

    def __init__(self, data_preprocessor=None):
        super().__init__()
        self.data_preprocessor = data_preprocessor
        self.backbone, self.bbox_head = nn.Conv2d(3, 4, 2, stride=2), Head()
        self.unused = nn.Linear(2, 2)
        self.passes, self.seen = 0, []

    def extract_feat(self, batch_inputs):
        self.passes += 1
        return (self.backbone(batch_inputs),)

    def forward(self, inputs, data_samples, mode):
        self.seen.append((inputs, data_samples))
        (features,) = self.extract_feat(inputs)
        scores, in_training = self.bbox_head(features)
        assert in_training is (mode == "loss")
        if mode == "loss":
            found = sum(float(len(sample.gt_instances.labels)) for sample in data_samples)
            level = scores.abs().mean()
            losses = {"loss_cls": [level * found, level.view(1)], "acc": torch.tensor(50.0)}
            if found:
                losses["loss_unused"] = self.unused.weight.sum()
            return losses
        for sample in data_samples:
            assert "gt_instances" not in sample
            height, width = sample.ori_shape
            sample.pred_instances = Element(
                bboxes=torch.tensor([[0.0, 0, width / 2, height / 2]]),
                scores=torch.full((1,), 0.5),
                labels=torch.zeros(1).long(),
            )
        return data_samples


@pytest.fixture
def wrap(paper_mmdet):
    return lambda detector=None, **settings: MMDetDetector(
        detector=PaperDetector() if detector is None else detector, **{**PIXELS, **settings}
    )


def test_it_is_one_of_hydets_models(wrap):
    model = wrap()
    assert isinstance(model, MetaArchitecture)
    assert model.tasks == ("box",) and model.device == torch.device("cpu")
    assert all(name.startswith("detector.") for name in model.state_dict())
    assert model.train()([picture()]).keys() == {"loss_cls", "loss_unused"}
    (result,) = model.eval()([picture()])
    assert result.keys() == {"instances"}


def test_results_are_at_the_output_resolution(wrap):
    (result,) = wrap().inference([picture(height=192, width=64)])
    assert result["instances"].image_size == (192, 64)
    assert result["instances"].pred_boxes.tensor.tolist() == [[0, 0, 32, 96]]


def test_images_without_preprocessor_are_normalised_and_padded(wrap):
    model = wrap(size_divisibility=50)
    entry = picture()
    images = model.preprocess_image([entry, picture(rows=120)])
    assert images.tensor.shape == (2, 3, 150, 150) and images.image_sizes == [(96, 128), (120, 128)]
    mean, std = (torch.tensor(PIXELS[name]).view(3, 1, 1) for name in ("pixel_mean", "pixel_std"))
    torch.testing.assert_close(images.tensor[0, :, :96, :128], (entry["image"] - mean) / std)
    assert images.tensor[0, :, 96:].abs().sum() == 0
    assert model.preprocessor.settings == {"pad_mask": True, "pad_seg": True}


def test_a_preprocessor_of_the_detector_gets_the_images_as_they_are(wrap):
    own = PaperPreprocessor(pad_size_divisor=64)
    model = wrap(PaperDetector(own))
    entry = picture()
    images = model.preprocess_image([entry]).tensor
    assert model.preprocessor is own and images.shape == (1, 3, 128, 128)
    assert torch.equal(images[0, :, :96, :128], entry["image"].float())


def test_a_preprocessor_that_only_moves_data_does_not_count(wrap):
    model = wrap(PaperDetector(nn.Identity()))
    assert isinstance(model.preprocessor, PaperPreprocessor)


def test_batch_augmentations_run_in_training_alone(wrap):
    own = PaperPreprocessor(batch_augments=["mix"])
    model = wrap(PaperDetector(own)).train()
    model([picture()])
    model.losses_and_inference([picture()])
    model.inference([picture()])
    model.eval().compute_losses([picture()])
    assert own.calls == [
        {"training": True, "batch_augments": ["mix"]},
        {"training": True, "batch_augments": None},
        {"training": False, "batch_augments": None},
        {"training": True, "batch_augments": None},
    ]
    assert own.batch_augments == ["mix"]


@pytest.mark.parametrize("training", [True, False])
def test_losses_and_results_in_any_mode_from_one_pass(wrap, training):
    model = wrap().train(training)
    modes = [m.training for m in model.modules()]
    statistics = model.detector.bbox_head.layers[0].running_mean.clone()
    losses, results = model.losses_and_inference([picture(), picture(objects=0)])
    assert model.detector.passes == 1
    assert len(results) == 2 and losses["loss_cls"].requires_grad
    assert not results[0]["instances"].scores.requires_grad
    assert [m.training for m in model.modules()] == modes
    assert "extract_feat" not in vars(model.detector)
    moved = not torch.equal(model.detector.bbox_head.layers[0].running_mean, statistics)
    assert moved is training, "layers keep their mode"
    model.compute_losses([picture()])
    model.inference([picture()])
    assert model.detector.passes == 3


class TwoWays(nn.Conv2d):
    """A layer of TridentNet's backbone: another one in training."""

    test_branch_idx = 1

    def forward(self, x):
        return super().forward(x) * (2.0 if self.training else 1.0)


def test_a_backbone_that_depends_on_the_mode_runs_in_both(wrap):
    detector = PaperDetector()
    detector.backbone = TwoWays(3, 4, 2, stride=2)
    seen = []
    detector.bbox_head.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    wrap(detector).eval().losses_and_inference([picture()])
    assert detector.passes == 2
    torch.testing.assert_close(seen[0], 2 * seen[1])
    assert not detector.backbone.training


def test_everything_is_restored_after_an_error(wrap):
    model = wrap().eval()
    model.detector.bbox_head.forward = lambda features: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model.compute_losses([picture()])
    assert not any(m.training for m in model.modules())
    assert "extract_feat" not in vars(model.detector)


def test_a_detector_that_replaced_its_extract_feat_keeps_it(wrap):
    detector = PaperDetector()
    detector.extract_feat = replaced = lambda x: (torch.zeros(len(x), 4, 8, 8),)
    wrap(detector).inference([picture()])
    assert detector.extract_feat is replaced


def test_under_autocast_heads_run_in_float32(wrap):
    detector = PaperDetector()
    seen = []
    for module in (detector.backbone, detector.bbox_head.layers[2]):
        module.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        wrap(detector).losses_and_inference([picture()])
        assert torch.is_autocast_enabled("cpu")
    assert seen == [torch.bfloat16, torch.float32, torch.float32]


def test_a_batch_without_objects_reaches_every_parameter(wrap):
    model = wrap()
    losses = model.compute_losses([picture(objects=0)] * 2)
    sum(losses.values()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert model.detector.unused.weight.grad.abs().sum() == 0


def test_ground_truth_reaches_the_detector(wrap):
    model = wrap()
    entry = picture(height=192, width=256)
    model.compute_losses([entry])
    (sample,) = model.detector.seen[0][1]
    assert torch.equal(sample.gt_instances.bboxes, entry["instances"].gt_boxes.tensor)
    assert type(sample.gt_instances.masks).__name__ == "BitmapMasks"
    assert sample.scale_factor == (0.5, 0.5) and "gt_sem_seg" not in sample


def without(entry, *fields):
    instances = entry["instances"]
    kept = {name: value for name, value in instances.get_fields().items() if name not in fields}
    return {**entry, "instances": Instances(instances.image_size, **kept)}


def test_inputs_that_will_not_do_are_named(wrap):
    model = wrap()
    with pytest.raises(ValueError, match="2 objects: losses need 'instances'"):
        model.compute_losses([{"image": picture()["image"], "file_name": "2 objects"}])
    with pytest.raises(ValueError, match=r"2 objects: image has shape \(1, 96, 128\), expected \(3, H, W\)"):
        model.inference([{**picture(), "image": torch.zeros(1, 96, 128)}])
    with pytest.raises(ValueError, match=r"expected \(3, H, W\)"):
        wrap(PaperDetector(PaperPreprocessor())).inference([{"image": torch.zeros(1, 96, 128)}])
    wrong = picture()
    wrong["instances"].gt_boxes = Boxes(torch.tensor([[1.0, 2, 3, 4], [5, 5, 5, 9]]))
    with pytest.raises(ValueError, match="2 objects: ground-truth box 1"):
        model.compute_losses([wrong])
    wrong = picture()
    wrong["instances"].gt_classes = torch.tensor([0, CLASSES])
    with pytest.raises(ValueError, match="2 objects: ground-truth class 3"):
        model.compute_losses([wrong])
    wrong["instances"].gt_boxes = RotatedBoxes(torch.ones(2, 5))
    with pytest.raises(ValueError, match="take upright boxes"):
        model.compute_losses([wrong])


def test_masks_are_asked_for_where_they_are_needed(wrap):
    detector = PaperDetector()
    entry = without(picture(), "gt_masks")
    wrap(detector).compute_losses([entry])
    detector.with_mask = True
    model = wrap(detector)
    assert model.tasks == ("box", "mask")
    with pytest.raises(ValueError, match="2 objects: losses of this detector need gt_masks"):
        model.compute_losses([entry])


class Fusion(nn.Module):
    num_things_classes, num_stuff_classes = CLASSES, 2

    def __init__(self, **settings):
        super().__init__()
        self.test_cfg = settings


class PanopticPaper(PaperDetector):
    with_bbox = False

    def __init__(self, **settings):
        super().__init__()
        self.panoptic_fusion_head = Fusion(**settings)

    def forward(self, inputs, data_samples, mode):
        found = super().forward(inputs, data_samples, mode)
        if mode == "predict":
            for sample in found:
                labels = torch.full((1, *sample.ori_shape), CLASSES + 1)
                labels[:, :10, :10] = 1002
                sample.pred_panoptic_seg = Element(sem_seg=labels)
                sample.pred_sem_seg = Element(sem_seg=labels % 1000)
                sample.pred_instances.masks = labels == 1002
        return found


def test_panoptic_detectors(wrap):
    model = wrap(PanopticPaper(instance_on=True))
    assert model.tasks == ("panoptic", "box", "mask")
    labels = torch.ones(96, 128).long()
    labels[:10, :10], labels[90:] = 0, 255
    losses, (result,) = model.losses_and_inference([picture(sem_seg=labels)])
    learned = model.detector.seen[0][1][0].gt_sem_seg.sem_seg
    assert learned.unique().tolist() == [0, CLASSES, 255] and losses["loss_cls"].isfinite()
    ids, segments = result["panoptic_seg"]
    assert ids[0, 0] == 1 and ids[50, 50] == 2
    assert [(s["isthing"], s["category_id"]) for s in segments] == [(True, 2), (False, 2)]
    assert result["instances"].pred_boxes.tensor.tolist() == [[0, 0, 10, 10]]
    assert result["sem_seg"].shape == (CLASSES + 2, 96, 128)
    with pytest.raises(ValueError, match="2 objects: losses need 'sem_seg'"):
        model.compute_losses([picture()])


def test_tasks_of_detectors_by_queries_and_by_regions(wrap):
    assert wrap(PanopticPaper()).tasks == ("panoptic",)
    assert wrap(PanopticPaper(panoptic_on=False, instance_on=True)).tasks == ("box", "mask")
    by_regions = PanopticPaper(instance_on=True)
    by_regions.roi_head = nn.Identity()
    assert wrap(by_regions).tasks == ("panoptic",)


def test_proposals_alone(wrap):
    detector = PaperDetector()
    detector.bbox_head.__class__ = type("RPNHead", (Head,), {})
    model = wrap(detector)
    assert model.tasks == ("proposals",)
    (result,) = model.inference([picture()])
    assert result["proposals"].has("objectness_logits") and "instances" not in result
    high = picture()
    high["instances"].gt_classes += 50
    model.compute_losses([high])


@pytest.mark.parametrize(
    ("config", "wanted", "order"),
    [
        ({}, None, "BGR"),
        ({}, "RGB", "RGB"),
        ({"data_preprocessor": {"bgr_to_rgb": True}}, None, "BGR"),
        ({"data_preprocessor": {"rgb_to_bgr": True}}, None, "RGB"),
        ({"data_preprocessor": {"rgb_to_bgr": True}}, "RGB", "RGB"),
        ({"data_preprocessor": None}, "RGB", "RGB"),
    ],
)
def test_channel_order(wrap, monkeypatch, config, wanted, order):
    from hydet.interop.mmdet import detector

    monkeypatch.setattr(detector, "build_from_config", lambda config, owner: PaperDetector())
    assert wrap(config, input_format=wanted).input_format == order


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_format": "HSV"}, "'HSV'"),
        ({"size_divisibility": -1}, "got -1"),
        ({"pixel_std": [1.0, 0.0, 1.0]}, "positive"),
        (
            {"detector": {"data_preprocessor": {"bgr_to_rgb": True}}, "input_format": "RGB"},
            "must be BGR, got RGB",
        ),
    ],
)
def test_arguments_that_contradict(wrap, settings, message):
    with pytest.raises(ValueError, match=message):
        wrap(**settings)


def test_resizing_by_iteration_is_left_to_hydet(wrap):
    augment = type("BatchSyncRandomResize", (SimpleNamespace,), {})()
    with pytest.raises(ValueError, match="BatchSyncRandomResize needs mmengine's runner"):
        wrap(PaperDetector(PaperPreprocessor(batch_augments=[augment])))
