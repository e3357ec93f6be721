"""Results of every architecture are well formed for unusual images, and without detections."""

import pytest
import torch
from torch.utils import _pytree as pytree

from hydet.structures import Instances

MAX_DETECTIONS = 100  # per image


def check(architecture, tools, results, sizes):
    assert len(results) == len(sizes)
    for result, (height, width) in zip(results, sizes, strict=True):
        assert result
        for name, value in result.items():
            CHECKS[name](architecture, tools, value, height, width)
        if "panoptic_seg" in result:
            check_combination(result)


def check_instances(architecture, tools, output, height, width):
    assert output.image_size == (height, width) and len(output) <= MAX_DETECTIONS
    check_boxes(architecture, output.pred_boxes.tensor, height, width)
    assert ((output.scores > 0) & (output.scores <= 1)).all()
    assert (output.scores.diff() <= 0).all()
    assert output.scores.dtype == torch.float32
    assert ((output.pred_classes >= 0) & (output.pred_classes < tools.num_classes)).all()
    assert output.has("pred_masks") == ("mask" in architecture.name or "panoptic" in architecture.name)
    assert output.has("pred_keypoints") == ("keypoint" in architecture.name)
    if output.has("pred_masks"):
        masks = output.pred_masks
        assert masks.shape == (len(output), height, width) and masks.dtype == torch.bool
        x1, y1, x2, y2 = output.pred_boxes.tensor[:, :, None].unbind(1)
        y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
        rows, columns = (y > y1 - 1) & (y < y2 + 1), (x > x1 - 1) & (x < x2 + 1)
        assert not (masks & ~(rows[:, :, None] & columns[:, None])).any()  # no pixel outside the box
    if output.has("pred_keypoints"):
        points = output.pred_keypoints
        assert points.shape == (len(output), tools.num_keypoints, 3) and points.isfinite().all()
        assert (points[..., 2] > 0).all()


def check_proposals(architecture, tools, output, height, width):
    assert output.image_size == (height, width)
    check_boxes(architecture, output.proposal_boxes.tensor, height, width)
    assert output.objectness_logits.isfinite().all() and (output.objectness_logits.diff() <= 0).all()


def check_boxes(architecture, boxes, height, width):
    assert boxes.isfinite().all() and boxes.dtype == torch.float32
    if architecture.rotated:
        assert (boxes[:, 2:4] > 0).all() and (boxes[:, 4].abs() <= 180).all()
    else:
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def check_sem_seg(architecture, tools, scores, height, width):
    assert scores.shape == (tools.num_labels, height, width)
    assert scores.isfinite().all() and scores.dtype == torch.float32


def check_panoptic_seg(architecture, tools, output, height, width):
    ids, segments = output
    assert ids.shape == (height, width) and ids.dtype == torch.int32
    assert [s["id"] for s in segments] == list(range(1, len(segments) + 1))
    assert {*ids.unique().tolist()} - {0} == {s["id"] for s in segments}
    for segment in segments:
        limit = tools.num_classes if segment["isthing"] else tools.num_labels
        assert 0 <= segment["category_id"] < limit
        if not segment["isthing"]:
            assert segment["area"] == (ids == segment["id"]).sum()


def check_combination(result):
    """Check that things refer to their instances."""
    output, (ids, segments) = result["instances"], result["panoptic_seg"]
    things = [s for s in segments if s["isthing"]]
    assert len({s["instance_id"] for s in things}) == len(things)
    for thing in things:
        i = thing["instance_id"]
        assert thing["category_id"] == output.pred_classes[i] and thing["score"] == output.scores[i]
        assert not ((ids == thing["id"]) & ~output.pred_masks[i]).any()


CHECKS = {
    "instances": check_instances,
    "proposals": check_proposals,
    "sem_seg": check_sem_seg,
    "panoptic_seg": check_panoptic_seg,
}


def boxes_of(result):
    output = result.get("instances", result.get("proposals"))
    return output.get("pred_boxes" if output.has("pred_boxes") else "proposal_boxes").tensor


def count(result):
    """Return the number of objects of a result; 1 for semantic labels."""
    return next((len(v) for v in result.values() if isinstance(v, Instances)), 1)


@torch.no_grad()
def test_results_have_the_requested_resolution_and_are_clipped_to_it(architecture, tools):
    model, batch = architecture.model().eval(), architecture.batch()
    batch[0].update(height=30, width=200)
    for name, parameter in model.named_parameters():
        if name.endswith(("bbox_pred.bias", "anchor_deltas.bias")):
            parameter += 10.0  # boxes grow past the image on every side
    results = model(batch)
    check(architecture, tools, results, [(30, 200), (64, 96)])
    assert all(count(result) > 0 for result in results)
    if architecture.has_boxes and not architecture.rotated:
        boxes = torch.cat([boxes_of(result) for result in results])
        limits = torch.tensor([[0, 0, 200, 30], [0, 0, 96, 64]]).repeat_interleave(
            torch.tensor([count(result) for result in results]), dim=0
        )
        assert (boxes == limits).any(dim=0).all()


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(((40, 72), (64, 50), (33, 33)), id="different"),
        pytest.param(((7, 9),), id="below a stride"),
        pytest.param(((1, 1),), id="one pixel"),
        pytest.param(((3, 128), (120, 6)), id="elongated"),
    ],
)
@torch.no_grad()
def test_results_of_unusual_image_sizes_are_valid(architecture, tools, sizes):
    batch = architecture.batch(sizes=sizes, counts=(2, 0, 1))
    check(architecture, tools, architecture.model().eval()(batch), sizes)


@torch.no_grad()
def test_results_under_bfloat16_autocast_are_valid(architecture, tools):
    batch = architecture.batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = architecture.model().eval()(batch)
    check(architecture, tools, results, [(64, 96)] * 2)
    assert all(count(result) > 0 for result in results)


@torch.no_grad()
def test_results_without_detections_are_empty(architecture, tools):
    model, batch = architecture.model().eval(), architecture.batch()
    if architecture.name.startswith("rpn"):
        architecture.without_proposals(model, batch)
    tools.set_score_threshold(model, 1.0)
    check_empty(architecture, tools, model(batch))


@torch.no_grad()
def test_results_without_proposals_are_empty(architecture, tools):
    if not architecture.has_boxes or architecture.dense:
        pytest.skip("has no proposals")
    model, batch = architecture.model().eval(), architecture.batch()
    check_empty(architecture, tools, model(architecture.without_proposals(model, batch)))


def check_empty(architecture, tools, results):
    check(architecture, tools, results, [(64, 96)] * 2)
    for result in results:
        assert count(result) == (0 if architecture.has_boxes else 1)
        assert not any(s["isthing"] for s in result.get("panoptic_seg", (None, []))[1])


@torch.no_grad()
def test_an_image_has_the_same_results_alone_and_in_a_batch(architecture):
    """Results agree up to rounding if the batch adds no padding; more padding changes features at the border."""
    model = architecture.model().eval()
    if architecture.dense:
        model.head.cls_score.weight *= 30  # otherwise scores are so similar that rounding decides their order
    batch = architecture.batch(sizes=((64, 96), (40, 72)))
    together = raw_results(model, batch)
    same_padding = (True, model.backbone.size_divisibility == 32 or bool(model.backbone.padding_constraints))
    for i, entry in enumerate(batch):
        (alone,) = raw_results(model, [entry])
        if not same_padding[i]:
            continue
        assert_same(together[i], alone, tolerance=1e-3)


def raw_results(model, batch):
    """Return results before thresholds of masks and labels, which rounding may cross."""
    try:
        results = model.inference(batch, do_postprocess=False)
    except TypeError:
        results = model.inference(batch)
    if isinstance(results, tuple):  # detections and logits, of the padded batch
        instances, logits = results
        sizes = [entry["image"].shape[-2:] for entry in batch]
        return [(output, x[:, :h, :w]) for output, x, (h, w) in zip(instances, logits, sizes, strict=True)]
    return results


@pytest.mark.parametrize("training", [True, False])
def test_losses_and_results_of_one_pass_equal_those_of_two(architecture, training):
    """Results equal those of two passes with the same random numbers, and inputs stay unchanged."""
    batch = architecture.batch()
    before = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, batch)

    def run(name):
        model = architecture.model().train(training)
        passes = []
        model.backbone.register_forward_hook(lambda *_: passes.append(1))
        torch.manual_seed(3)
        output = getattr(model, name)(batch)
        assert len(passes) == 1
        return output

    losses, results = run("losses_and_inference")
    for name, value in run("compute_losses").items():
        torch.testing.assert_close(losses.pop(name), value)
    assert losses == {}
    assert all(count(result) > 0 for result in results)
    assert_same(results, run("inference"), tolerance=1e-5)
    assert_same(batch, before, tolerance=0)
    assert not any(isinstance(x, torch.Tensor) and x.requires_grad for x in pytree.tree_leaves(results))


def assert_same(output, wanted, tolerance):
    for a, b in zip(pytree.tree_leaves(output), pytree.tree_leaves(wanted), strict=True):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        else:
            assert a == b
