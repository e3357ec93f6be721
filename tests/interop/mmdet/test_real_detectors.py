"""Detectors of the installed mmdet behind hydet's interface."""

import pytest
import torch
from torch import nn

import hydet
from hydet.modeling import MMDetDetector

from .conftest import CLASSES, PIXELS, PREPROCESSOR, make_input, mask_rcnn, panoptic_fpn, retinanet

CONFIGS = {"retinanet": retinanet, "mask_rcnn": mask_rcnn, "panoptic_fpn": panoptic_fpn}
TASKS = {"retinanet": ("box",), "mask_rcnn": ("box", "mask"), "panoptic_fpn": ("panoptic",)}


@pytest.fixture(scope="module", params=CONFIGS)
def name(request, mmdet):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    torch.manual_seed(0)
    return MMDetDetector(detector=CONFIGS[name](), **PIXELS)


def batch(masks="bitmap"):
    labels = torch.ones(96, 128).long()
    labels[:40], labels[90:] = 2, 255
    return [
        make_input(masks=masks, sem_seg=labels, height=192, width=256),
        make_input(masks=masks, sem_seg=labels, objects=0),
    ]


def total(losses):
    return torch.stack(list(losses.values())).sum()


def run_mmdet(detector, entries, *, training):
    """Run a detector through mmdet's own interface."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    samples = []
    for entry in entries:
        height, width = entry["image"].shape[1:]
        out_height, out_width = entry.get("height", height), entry.get("width", width)
        sample = DetDataSample(
            metainfo={
                "img_shape": (height, width),
                "ori_shape": (out_height, out_width),
                "scale_factor": (width / out_width, height / out_height),
            }
        )
        gt_instances = entry["instances"]
        sample.gt_instances = InstanceData(
            bboxes=gt_instances.gt_boxes.tensor,
            labels=gt_instances.gt_classes,
            masks=BitmapMasks(gt_instances.gt_masks.tensor.byte().numpy(), height, width),
        )
        labels = entry["sem_seg"]
        stuff = torch.where((labels > 0) & (labels < 255), labels + CLASSES - 1, labels)
        sample.gt_sem_seg = PixelData(sem_seg=stuff[None])
        samples.append(sample)
    data = {"inputs": [entry["image"] for entry in entries], "data_samples": samples}
    data = detector.data_preprocessor(data, training)
    with torch.no_grad():
        return detector(**data, mode="loss" if training else "predict")


def test_tasks(name, model):
    assert model.tasks == TASKS[name] and model.input_format == "BGR"


def test_losses_match_mmdet(model):
    model.train()
    torch.manual_seed(3)
    expected, _ = model.detector.parse_losses(run_mmdet(model.detector, batch(), training=True))
    torch.manual_seed(3)
    losses = model(batch())
    torch.testing.assert_close(total(losses).detach(), expected)
    torch.manual_seed(3)
    in_evaluation = model.eval().compute_losses(batch())
    torch.testing.assert_close(total(in_evaluation), total(losses))  # norm_eval: no batch statistics anywhere


def test_results_match_mmdet(model):
    expected = run_mmdet(model.detector.eval(), batch(), training=False)
    for result, theirs in zip(model(batch()), expected, strict=True):
        if "panoptic_seg" in result:
            labels = theirs.pred_panoptic_seg.sem_seg[0]
            ids, segments = result["panoptic_seg"]
            assert ids.shape == labels.shape
            for segment in segments:
                (label,) = (labels[ids == segment["id"]]).unique().tolist()
                offset = 0 if segment["isthing"] else CLASSES - 1
                assert label % 1000 == segment["category_id"] + offset
            assert ((ids == 0) == (labels % 1000 == CLASSES + 2)).all()
            continue
        instances, theirs = result["instances"], theirs.pred_instances
        assert len(instances) == len(theirs) == 10
        torch.testing.assert_close(instances.pred_boxes.tensor, theirs.bboxes)
        assert torch.equal(instances.scores, theirs.scores)
        assert torch.equal(instances.pred_classes, theirs.labels)
        if "masks" in theirs:
            assert torch.equal(instances.pred_masks, theirs.masks)
            assert instances.pred_masks.shape[1:] == instances.image_size


def test_model_from_the_meta_device_gives_the_same_results(name, model):
    with torch.device("meta"):
        other = MMDetDetector(detector=CONFIGS[name](), **PIXELS)
    assert all(tensor.is_meta for tensor in [*other.parameters(), *other.buffers()])
    other.to_empty(device="cpu")
    other.load_state_dict(model.state_dict())
    inputs = batch()
    results = [detector.eval().inference(inputs)[0] for detector in (model, other)]
    for key in results[0].keys() & {"instances"}:
        a, b = (result[key] for result in results)
        assert len(a) > 0 and torch.equal(a.scores, b.scores)
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
    for key in results[0].keys() & {"panoptic_seg"}:
        assert torch.equal(results[0][key][0], results[1][key][0])


def test_losses_and_inference_matches_separate_calls(model):
    passes = []
    hook = model.detector.backbone.register_forward_hook(lambda *_: passes.append(1))
    model.eval()
    torch.manual_seed(3)
    losses, results = model.losses_and_inference(batch())
    hook.remove()
    assert len(passes) == 1
    torch.manual_seed(3)
    alone = model.compute_losses(batch())
    assert losses.keys() == alone.keys()
    torch.testing.assert_close(total(losses), total(alone))
    for result, separate in zip(results, model.inference(batch())):
        if "instances" in result:
            assert torch.equal(result["instances"].scores, separate["instances"].scores)
        else:
            assert torch.equal(result["panoptic_seg"][0], separate["panoptic_seg"][0])


def test_results_do_not_depend_on_the_mode(name, model):
    if name == "panoptic_fpn":
        pytest.skip("same heads as mask_rcnn")
    evaluated = model.eval().inference(batch())
    trained = model.train().inference(batch())
    for a, b in zip(evaluated, trained):
        assert torch.equal(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor)


def test_polygons_and_bitmaps_give_similar_losses(name, model):
    if name == "retinanet":
        pytest.skip("has no masks")
    losses = []
    for masks in ("bitmap", "polygon"):
        torch.manual_seed(3)
        losses.append(model.eval().compute_losses(batch(masks)))
    torch.testing.assert_close(losses[0]["loss_mask"], losses[1]["loss_mask"], rtol=0.05, atol=0.0)


def test_batch_without_objects_reaches_the_same_parameters(model):
    model.train().zero_grad()
    total(model(batch()[:1])).backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    losses = model(batch()[1:])
    total(losses).backward()
    assert all(bool(loss.isfinite()) for loss in losses.values())
    assert reached <= {n for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()


@pytest.mark.parametrize("name", ["retinanet", "mask_rcnn"])
def test_loss_on_one_image_decreases(mmdet, name):
    torch.manual_seed(0)
    model = MMDetDetector(detector=CONFIGS[name](), **PIXELS).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(15):
        loss = total(model([make_input()]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert sum(history[-3:]) < 0.7 * sum(history[:3]), history


def test_channel_order_is_reversed_once(mmdet):
    entry = make_input()
    mean, std = (torch.tensor(PREPROCESSOR[name]).view(3, 1, 1) for name in ("mean", "std"))
    model = MMDetDetector(detector=retinanet(), **PIXELS)
    images = model.preprocess_image([entry])
    expected = (entry["image"].flip(0) - mean) / std  # the input is BGR, the weights expect RGB
    torch.testing.assert_close(images.tensor[0, :, :96, :128], expected)
    reversed_order = {**PREPROCESSOR, "bgr_to_rgb": False, "rgb_to_bgr": True}
    other = MMDetDetector(detector=retinanet(data_preprocessor=reversed_order), **PIXELS)
    assert other.input_format == "RGB"


def test_pixel_statistics_apply_without_a_preprocessor(mmdet):
    entry = make_input()
    model = MMDetDetector(detector=mask_rcnn(data_preprocessor=None), size_divisibility=64, **PIXELS)
    images = model.preprocess_image([entry])
    mean, std = (torch.tensor(PIXELS[name]).view(3, 1, 1) for name in ("pixel_mean", "pixel_std"))
    assert images.tensor.shape == (1, 3, 128, 128)
    torch.testing.assert_close(images.tensor[0, :, :96, :128], (entry["image"] - mean) / std)
    assert all(bool(loss.isfinite()) for loss in model([entry, make_input(objects=0)]).values())


def test_autocast_does_not_round_coordinates(mmdet):
    torch.manual_seed(0)
    model = MMDetDetector(detector=mask_rcnn(), **PIXELS).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses, results = model.losses_and_inference(batch())
    total(losses).backward()
    assert all(bool(loss.isfinite()) for loss in losses.values())
    boxes = results[0]["instances"].pred_boxes.tensor
    assert len(boxes) and not torch.equal(boxes, boxes.bfloat16().float()), "coordinates are not rounded"


def test_head_that_depends_on_the_mode(mmdet):
    """FCOS multiplies its boxes by the stride in evaluation mode only."""
    base = retinanet()
    head = {
        "type": "FCOSHead",
        "num_classes": CLASSES,
        "in_channels": 16,
        "stacked_convs": 1,
        "feat_channels": 16,
        "norm_cfg": None,
    }
    torch.manual_seed(0)
    model = MMDetDetector(detector={**base, "type": "FCOS", "bbox_head": head, "train_cfg": None}, **PIXELS)
    evaluated = model.eval().inference(batch())[0]["instances"]
    trained = model.train().inference(batch())[0]["instances"]
    assert torch.equal(evaluated.pred_boxes.tensor, trained.pred_boxes.tensor)
    losses = model.eval().compute_losses(batch())
    torch.testing.assert_close(total(losses), total(model.train().compute_losses(batch())))


def test_resizing_by_iteration_raises(mmdet):
    augments = [{"type": "BatchSyncRandomResize", "random_size_range": [64, 128]}]
    config = retinanet(data_preprocessor={**PREPROCESSOR, "batch_augments": augments})
    with pytest.raises(ValueError, match="needs mmengine's runner"):
        MMDetDetector(detector=config, **PIXELS)


def test_default_config_trains(mmdet):
    cfg = hydet.compose("model=mmdet", "data=shapes")
    model = hydet.instantiate(cfg.model)
    assert model.input_format == "BGR" and model.tasks == ("box",)
    total(model([make_input()])).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    sizes = model.detector.bbox_head.prior_generator.base_sizes
    assert sizes == [row[0] for row in cfg.size.dense_anchor_sizes]
    assert not any(isinstance(m, nn.Linear) for m in model.modules())
