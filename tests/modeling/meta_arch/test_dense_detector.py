"""Behavior that RetinaNet and FCOS share."""

import copy

import pytest
import torch

from hydet.modeling import DenseDetector


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        DenseDetector()


@pytest.mark.parametrize("training", [False, True])
def test_losses_and_results_of_one_pass_equal_those_of_two(make_dense, dense_batch, training):
    model = make_dense().train(training)
    other = copy.deepcopy(model)
    losses, results = model.losses_and_inference(dense_batch())
    assert model.backbone.passes == 1
    for name, value in other.compute_losses(dense_batch()).items():
        torch.testing.assert_close(losses[name], value)
    for result, expected in zip(results, other.inference(dense_batch()), strict=True):
        assert len(result["instances"]) > 0
        torch.testing.assert_close(result["instances"].scores, expected["instances"].scores)
        torch.testing.assert_close(
            result["instances"].pred_boxes.tensor, expected["instances"].pred_boxes.tensor
        )


def test_forward_returns_losses_in_training_mode_and_results_in_evaluation_mode(make_dense, dense_batch):
    model = make_dense()
    assert all(name.startswith("loss_") for name in model(dense_batch()))
    results = model.eval()(dense_batch())
    assert results[0]["instances"].image_size == (128, 96)
    raw = model.inference(dense_batch(), do_postprocess=False)
    assert raw[0].image_size == (64, 96)


@pytest.mark.parametrize("counts", [(0, 0), (0, 2), (3, 500)])
def test_losses_of_any_number_of_objects_are_finite_and_connected(make_dense, dense_batch, counts):
    model = make_dense()
    losses = model(dense_batch(counts))
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values())
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []


def test_normalizer_is_updated_in_training_mode_only(make_dense, dense_batch):
    model = make_dense()
    start = float(model.loss_normalizer)
    assert start == {"retinanet": 100, "fcos": 300}[make_dense.name]
    model.eval().compute_losses(dense_batch())
    assert float(model.loss_normalizer) == start
    model.train().compute_losses(dense_batch((0, 0)))
    assert float(model.loss_normalizer) == pytest.approx(0.9 * start + 0.1)


def test_normalizer_is_training_state_outside_the_state_dict(make_dense, dense_batch):
    model, fresh = make_dense(), make_dense()
    model(dense_batch())
    assert not any("normalizer" in name for name in model.state_dict())
    fresh.load_training_state(model.training_state())
    assert float(fresh.loss_normalizer) == float(model.loss_normalizer)
    assert model.half().loss_normalizer.dtype == torch.float32


def test_losses_of_two_batches_can_be_summed_before_backward(make_dense, dense_batch):
    model = make_dense()
    total = sum(model(dense_batch()).values()) + sum(model(dense_batch((1, 1))).values())
    total.backward()


def test_normalizer_is_initialized_when_the_model_leaves_the_meta_device(make_dense):
    with torch.device("meta"):
        model = make_dense()
    model.to_empty(device="cpu")
    assert float(model.loss_normalizer) == make_dense().initial_loss_normalizer


def test_inference_single_image_equals_batched_inference(make_dense, dense_batch):
    model = make_dense().eval()
    batch = dense_batch()[1:]
    (expected,) = model.inference(batch, do_postprocess=False)
    images = model.preprocess_image(batch)
    features = [model.backbone(images.tensor)[name] for name in model.head_in_features]
    flat = [
        [x[0].unflatten(0, (-1, v)).permute(2, 3, 0, 1).flatten(0, 2) for x in levels]
        for levels, v in zip(model.head(features), (model.num_classes, 4, 1), strict=False)
    ]
    scores = [x.sigmoid() for x in flat[0]]
    if make_dense.name == "fcos":
        scores = [(s * c.sigmoid()).sqrt() for s, c in zip(scores, flat[2], strict=True)]
    detections = model.inference_single_image(
        model.anchor_generator(features), scores, flat[1], images.image_sizes[0]
    )
    torch.testing.assert_close(detections.scores, expected.scores)
    torch.testing.assert_close(detections.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(detections.pred_classes, expected.pred_classes)


def test_score_threshold_and_number_of_detections_are_limits(make_dense, dense_batch):
    batch = dense_batch()
    unlimited = make_dense(test_topk_candidates=10**6, max_detections_per_image=-1).eval()
    expected = unlimited.inference(batch, do_postprocess=False)
    assert all((x.scores.diff() <= 0).all() for x in expected)
    limited = make_dense(max_detections_per_image=3).eval().inference(batch, do_postprocess=False)
    assert [len(x) for x in limited] == [3, 3]
    for a, b in zip(limited, expected, strict=True):
        torch.testing.assert_close(a.scores, b.scores[:3])
    empty = make_dense(test_score_thresh=1.0).eval().inference(batch)
    assert [len(x["instances"]) for x in empty] == [0, 0]


def test_non_finite_predictions_are_dropped(make_dense, dense_batch):
    model = make_dense().eval()
    with torch.no_grad():
        model.head.bbox_pred.bias[0] = float("nan")
    results = model.inference(dense_batch())
    assert all(x["instances"].pred_boxes.tensor.isfinite().all() for x in results)


def test_feature_maps_are_sorted_by_stride_by_default(fcos):
    assert fcos().head_in_features == ["p3", "p4"]


def test_unknown_feature_maps_raise(make_dense):
    with pytest.raises(ValueError, match="'p7'"):
        make_dense(head_in_features=["p3", "p7"])


def test_head_with_another_number_of_classes_raises(make_dense):
    with pytest.raises(ValueError, match="num_classes=5"):
        make_dense(num_classes=5)


def test_losses_without_ground_truth_raise(make_dense):
    with pytest.raises(ValueError, match="instances"):
        make_dense().compute_losses([{"image": torch.zeros(3, 32, 32)}])


def test_visualize_training_draws_ground_truth_and_detections(make_dense, dense_batch):
    model = make_dense(input_format="BGR")
    batch = dense_batch()
    image = model.visualize_training(batch, model.inference(batch, do_postprocess=False))
    assert image.shape == (3, 64, 2 * 96) and image.dtype == torch.uint8
    original = batch[0]["image"].flip(0)
    assert (image[:, :, :96] != original).any() and (image[:, :, 96:] != original).any()


@torch.no_grad()
def test_boxes_are_clipped_before_the_suppression_on_request(make_dense, dense_batch):
    batch = dense_batch((2, 3))
    results = {}
    for clips in (False, True):
        model = make_dense(test_clip_boxes=clips, test_score_thresh=0.0).eval()
        torch.nn.init.constant_(model.head.bbox_pred.bias, 1.0)
        results[clips] = model.inference(batch, do_postprocess=False)
        padded = model.inference_padded(
            model.preprocess_image(batch).tensor, torch.tensor([r.image_size for r in results[clips]])
        )
        torch.testing.assert_close(
            padded.boxes[0, : len(results[clips][0])], results[clips][0].pred_boxes.tensor
        )
    for clipped, free in zip(results[True], results[False], strict=True):
        height, width = clipped.image_size
        limits = torch.tensor([width, height] * 2)
        assert len(clipped) > 0 and (clipped.pred_boxes.tensor <= limits).all()
        assert (free.pred_boxes.tensor > limits).any()


@torch.no_grad()
def test_empty_boxes_leave_room_for_others_on_request(make_dense, dense_batch):
    counts = []
    for drops in (False, True):
        model = make_dense(test_clip_boxes=True, test_drop_empty_boxes=drops, test_score_thresh=0.0).eval()
        model.max_detections_per_image = 30
        model.head.bbox_pred.bias.copy_(torch.tensor([-3.0, 0, 0, 0]).repeat(model.head.num_anchors))
        results = [result["instances"] for result in model.inference(dense_batch((2, 3)))]
        counts.append([len(result) for result in results])
    assert all(more >= fewer for fewer, more in zip(*counts, strict=True))
    assert sum(counts[1]) == 60 > sum(counts[0])
