"""The wrapper of mmdet detectors, tested on stubs: inputs, outputs, and restored state."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hydet.modeling import MetaArchitecture, MMDetDetector
from hydet.structures import Boxes, Instances, RotatedBoxes

from .conftest import CLASSES, PIXELS, Element, StubPreprocessor, make_input


class Head(nn.Module):
    """A head whose output depends on ``self.training``, as in mmdet."""

    num_classes = CLASSES

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 5, 1))

    def forward(self, features):
        return self.layers(features), self.training


class StubDetector(nn.Module):
    """Predicts one box per image of half its size; returns losses of two levels and a metric."""

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
            num_objects = sum(float(len(sample.gt_instances.labels)) for sample in data_samples)
            level = scores.abs().mean()
            losses = {"loss_cls": [level * num_objects, level.view(1)], "acc": torch.tensor(50.0)}
            if num_objects:
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
def wrap(stub_mmdet):
    return lambda detector=None, **settings: MMDetDetector(
        detector=StubDetector() if detector is None else detector, **{**PIXELS, **settings}
    )


def test_wrapper_is_a_meta_architecture(wrap):
    model = wrap()
    assert isinstance(model, MetaArchitecture)
    assert model.tasks == ("box",) and model.device == torch.device("cpu")
    assert all(name.startswith("detector.") for name in model.state_dict())
    assert model.train()([make_input()]).keys() == {"loss_cls", "loss_unused"}
    (result,) = model.eval()([make_input()])
    assert result.keys() == {"instances"}


def test_results_have_the_output_resolution(wrap):
    (result,) = wrap().inference([make_input(height=192, width=64)])
    assert result["instances"].image_size == (192, 64)
    assert result["instances"].pred_boxes.tensor.tolist() == [[0, 0, 32, 96]]


def test_images_are_normalized_and_padded_without_a_preprocessor(wrap):
    model = wrap(size_divisibility=50)
    entry = make_input()
    images = model.preprocess_image([entry, make_input(rows=120)])
    assert images.tensor.shape == (2, 3, 150, 150) and images.image_sizes == [(96, 128), (120, 128)]
    mean, std = (torch.tensor(PIXELS[name]).view(3, 1, 1) for name in ("pixel_mean", "pixel_std"))
    torch.testing.assert_close(images.tensor[0, :, :96, :128], (entry["image"] - mean) / std)
    assert images.tensor[0, :, 96:].abs().sum() == 0
    assert model.preprocessor.settings == {"pad_mask": True, "pad_seg": True}


def test_preprocessor_of_the_detector_gets_unchanged_images(wrap):
    preprocessor = StubPreprocessor(pad_size_divisor=64)
    model = wrap(StubDetector(preprocessor))
    entry = make_input()
    images = model.preprocess_image([entry]).tensor
    assert model.preprocessor is preprocessor and images.shape == (1, 3, 128, 128)
    assert torch.equal(images[0, :, :96, :128], entry["image"].float())


def test_buffers_of_the_preprocessor_survive_the_meta_device(wrap):
    preprocessor = StubPreprocessor(pad_size_divisor=64)
    preprocessor.register_buffer("mean", torch.tensor([1.0, 2.0, 3.0]), persistent=False)
    model = wrap(StubDetector(preprocessor))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.to("meta").to_empty(device="cpu")
    model.load_state_dict(weights)
    assert model.preprocessor.mean.tolist() == [1.0, 2.0, 3.0]
    assert model.pixel_mean.flatten().tolist() == PIXELS["pixel_mean"]


def test_preprocessor_that_is_not_for_images_is_replaced(wrap):
    model = wrap(StubDetector(nn.Identity()))
    assert isinstance(model.preprocessor, StubPreprocessor)


def test_batch_augmentations_run_in_training_only(wrap):
    preprocessor = StubPreprocessor(batch_augments=["mix"])
    model = wrap(StubDetector(preprocessor)).train()
    model([make_input()])
    model.losses_and_inference([make_input()])
    model.inference([make_input()])
    model.eval().compute_losses([make_input()])
    assert preprocessor.calls == [
        {"training": True, "batch_augments": ["mix"]},
        {"training": True, "batch_augments": None},
        {"training": False, "batch_augments": None},
        {"training": True, "batch_augments": None},
    ]
    assert preprocessor.batch_augments == ["mix"]


@pytest.mark.parametrize("training", [True, False])
def test_losses_and_inference_uses_one_backbone_pass_in_any_mode(wrap, training):
    model = wrap().train(training)
    modes = [m.training for m in model.modules()]
    statistics = model.detector.bbox_head.layers[0].running_mean.clone()
    losses, results = model.losses_and_inference([make_input(), make_input(objects=0)])
    assert model.detector.passes == 1
    assert len(results) == 2 and losses["loss_cls"].requires_grad
    assert not results[0]["instances"].scores.requires_grad
    assert [m.training for m in model.modules()] == modes
    assert "extract_feat" not in vars(model.detector)
    moved = not torch.equal(model.detector.bbox_head.layers[0].running_mean, statistics)
    assert moved is training, "layers must keep their mode"
    model.compute_losses([make_input()])
    model.inference([make_input()])
    assert model.detector.passes == 3


class ModeDependentConv(nn.Conv2d):
    """A convolution with another output in training, like the one of TridentNet."""

    test_branch_idx = 1

    def forward(self, x):
        return super().forward(x) * (2.0 if self.training else 1.0)


def test_mode_dependent_backbone_runs_once_per_mode(wrap):
    detector = StubDetector()
    detector.backbone = ModeDependentConv(3, 4, 2, stride=2)
    seen = []
    detector.bbox_head.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    wrap(detector).eval().losses_and_inference([make_input()])
    assert detector.passes == 2
    torch.testing.assert_close(seen[0], 2 * seen[1])
    assert not detector.backbone.training


def test_detector_is_restored_after_an_error(wrap):
    model = wrap().eval()
    model.detector.bbox_head.forward = lambda features: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model.compute_losses([make_input()])
    assert not any(m.training for m in model.modules())
    assert "extract_feat" not in vars(model.detector)


def test_replaced_extract_feat_is_restored(wrap):
    detector = StubDetector()
    detector.extract_feat = replaced = lambda x: (torch.zeros(len(x), 4, 8, 8),)
    wrap(detector).inference([make_input()])
    assert detector.extract_feat is replaced


def test_heads_run_in_float32_under_autocast(wrap):
    detector = StubDetector()
    seen = []
    for module in (detector.backbone, detector.bbox_head.layers[2]):
        module.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        wrap(detector).losses_and_inference([make_input()])
        assert torch.is_autocast_enabled("cpu")
    assert seen == [torch.bfloat16, torch.float32, torch.float32]


def test_batch_without_objects_gives_every_parameter_a_gradient(wrap):
    model = wrap()
    losses = model.compute_losses([make_input(objects=0)] * 2)
    sum(losses.values()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert model.detector.unused.weight.grad.abs().sum() == 0


def test_ground_truth_reaches_the_detector(wrap):
    model = wrap()
    entry = make_input(height=192, width=256)
    model.compute_losses([entry])
    (sample,) = model.detector.seen[0][1]
    assert torch.equal(sample.gt_instances.bboxes, entry["instances"].gt_boxes.tensor)
    assert type(sample.gt_instances.masks).__name__ == "BitmapMasks"
    assert sample.scale_factor == (0.5, 0.5) and "gt_sem_seg" not in sample


def without(entry, *fields):
    instances = entry["instances"]
    remaining = {name: value for name, value in instances.get_fields().items() if name not in fields}
    return {**entry, "instances": Instances(instances.image_size, **remaining)}


def test_invalid_input_error_names_the_image(wrap):
    model = wrap()
    with pytest.raises(ValueError, match="2 objects: losses need 'instances'"):
        model.compute_losses([{"image": make_input()["image"], "file_name": "2 objects"}])
    with pytest.raises(ValueError, match=r"2 objects: image has shape \(1, 96, 128\), expected \(3, H, W\)"):
        model.inference([{**make_input(), "image": torch.zeros(1, 96, 128)}])
    with pytest.raises(ValueError, match=r"expected \(3, H, W\)"):
        wrap(StubDetector(StubPreprocessor())).inference([{"image": torch.zeros(1, 96, 128)}])
    wrong = make_input()
    wrong["instances"].gt_boxes = Boxes(torch.tensor([[1.0, 2, 3, 4], [5, 5, 5, 9]]))
    with pytest.raises(ValueError, match="2 objects: ground-truth box 1"):
        model.compute_losses([wrong])
    wrong = make_input()
    wrong["instances"].gt_classes = torch.tensor([0, CLASSES])
    with pytest.raises(ValueError, match="2 objects: ground-truth class 3"):
        model.compute_losses([wrong])
    wrong["instances"].gt_boxes = RotatedBoxes(torch.ones(2, 5))
    with pytest.raises(ValueError, match="take upright boxes"):
        model.compute_losses([wrong])


def test_missing_masks_raise_only_if_the_losses_need_them(wrap):
    detector = StubDetector()
    entry = without(make_input(), "gt_masks")
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


class StubPanopticDetector(StubDetector):
    with_bbox = False

    def __init__(self, **settings):
        super().__init__()
        self.panoptic_fusion_head = Fusion(**settings)

    def forward(self, inputs, data_samples, mode):
        outputs = super().forward(inputs, data_samples, mode)
        if mode == "predict":
            for sample in outputs:
                labels = torch.full((1, *sample.ori_shape), CLASSES + 1)
                labels[:, :10, :10] = 1002
                sample.pred_panoptic_seg = Element(sem_seg=labels)
                sample.pred_sem_seg = Element(sem_seg=labels % 1000)
                sample.pred_instances.masks = labels == 1002
        return outputs


def test_panoptic_detector(wrap):
    model = wrap(StubPanopticDetector(instance_on=True))
    assert model.tasks == ("panoptic", "box", "mask")
    labels = torch.ones(96, 128).long()
    labels[:10, :10], labels[90:] = 0, 255
    losses, (result,) = model.losses_and_inference([make_input(sem_seg=labels)])
    labels_of_mmdet = model.detector.seen[0][1][0].gt_sem_seg.sem_seg
    assert labels_of_mmdet.unique().tolist() == [0, CLASSES, 255] and losses["loss_cls"].isfinite()
    ids, segments = result["panoptic_seg"]
    assert ids[0, 0] == 1 and ids[50, 50] == 2
    assert [(s["isthing"], s["category_id"]) for s in segments] == [(True, 2), (False, 2)]
    assert result["instances"].pred_boxes.tensor.tolist() == [[0, 0, 10, 10]]
    assert result["sem_seg"].shape == (CLASSES + 2, 96, 128)
    with pytest.raises(ValueError, match="2 objects: losses need 'sem_seg'"):
        model.compute_losses([make_input()])


def test_tasks_of_panoptic_detectors(wrap):
    assert wrap(StubPanopticDetector()).tasks == ("panoptic",)
    assert wrap(StubPanopticDetector(panoptic_on=False, instance_on=True)).tasks == ("box", "mask")
    by_regions = StubPanopticDetector(instance_on=True)
    by_regions.roi_head = nn.Identity()
    assert wrap(by_regions).tasks == ("panoptic",)


def test_rpn_predicts_proposals(wrap):
    detector = StubDetector()
    detector.bbox_head.__class__ = type("RPNHead", (Head,), {})
    model = wrap(detector)
    assert model.tasks == ("proposals",)
    (result,) = model.inference([make_input()])
    assert result["proposals"].has("objectness_logits") and "instances" not in result
    high = make_input()
    high["instances"].gt_classes += 50
    model.compute_losses([high])


@pytest.mark.parametrize(
    ("config", "input_format", "order"),
    [
        ({}, None, "BGR"),
        ({}, "RGB", "RGB"),
        ({"data_preprocessor": {"bgr_to_rgb": True}}, None, "BGR"),
        ({"data_preprocessor": {"rgb_to_bgr": True}}, None, "RGB"),
        ({"data_preprocessor": {"rgb_to_bgr": True}}, "RGB", "RGB"),
        ({"data_preprocessor": None}, "RGB", "RGB"),
    ],
)
def test_channel_order(wrap, monkeypatch, config, input_format, order):
    from hydet.interop.mmdet import detector

    monkeypatch.setattr(detector, "build_from_config", lambda config, owner: StubDetector())
    assert wrap(config, input_format=input_format).input_format == order


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
def test_invalid_arguments_raise(wrap, settings, message):
    with pytest.raises(ValueError, match=message):
        wrap(**settings)


def test_resizing_by_iteration_raises(wrap):
    augment = type("BatchSyncRandomResize", (SimpleNamespace,), {})()
    with pytest.raises(ValueError, match="BatchSyncRandomResize needs mmengine's runner"):
        wrap(StubDetector(StubPreprocessor(batch_augments=[augment])))
