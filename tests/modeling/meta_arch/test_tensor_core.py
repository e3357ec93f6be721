"""The tensor core of every architecture: equal to ``inference``, and one graph for all sizes with one padded size."""

import pytest
import torch

from hydet.modeling.padded import PaddedResults, results_to_instances

from .conftest import ARCHITECTURES

# A dense detector, and regions with boxes and masks; ``nox -s compile`` compiles all of ARCHITECTURES.
COMPILED = ["retinanet", "cascade_mask_rcnn_fpn"]
ALL = [name for name in ARCHITECTURES if not name.startswith("fast_rcnn")]


def detections_of(model, batch):
    """Return the detections or proposals of ``inference`` before postprocessing, and the semantic logits."""
    images = model.preprocess_image(batch)
    if "semantic" in model.tasks and "panoptic" not in model.tasks:
        return None, model.sem_seg_head(model.backbone(images.tensor))[0]
    if model.tasks[0] in ("proposals", "rotated_proposals"):
        return model.proposal_generator(images, model.backbone(images.tensor))[0], None
    results = model.inference(batch, do_postprocess=False)
    return results if isinstance(results, tuple) else (results, None)


def values(field):
    return getattr(field, "tensor", field)


def assert_equal(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        assert sorted(ours.get_fields()) == sorted(theirs.get_fields()) and len(ours) == len(theirs) > 0
        for name, field in theirs.get_fields().items():
            torch.testing.assert_close(values(ours.get(name)), values(field), rtol=0, atol=0, equal_nan=True)


def run_core(model, images, image_sizes, core=None):
    with torch.no_grad():
        return (core or model.inference_padded)(images.tensor, torch.tensor(image_sizes))


@pytest.mark.parametrize("architecture", ARCHITECTURES, indirect=True)
def test_the_core_computes_what_inference_returns(architecture):
    model, batch = architecture.model().eval(), architecture.batch()
    images = model.preprocess_image(batch)
    if model.needs_proposals:
        with pytest.raises(TypeError, match="without proposal generator"):
            run_core(model, images, images.image_sizes)
        return
    with torch.no_grad():
        detections, logits = detections_of(model, batch)
    padded = run_core(model, images, images.image_sizes)
    assert isinstance(padded, PaddedResults)
    if detections is not None:
        assert_equal(results_to_instances(padded, images.image_sizes), detections)
        for i, count in enumerate(padded.counts.tolist()):
            assert not padded.boxes[i, count:].any() and not padded.scores[i, count:].any()
    if logits is not None:
        torch.testing.assert_close(padded.semantic_logits, logits, rtol=0, atol=0)


def compile_and_check(architecture):
    model = architecture.model().eval()
    graphs = []

    def count(module, inputs):
        graphs.append(module)
        return module.forward

    torch._dynamo.reset()
    core = torch.compile(model.inference_padded, backend=count, fullgraph=True, dynamic=False)
    images = model.preprocess_image(architecture.batch())
    actual = run_core(model, images, images.image_sizes, core)
    expected = run_core(model, images, images.image_sizes)
    for ours, theirs in zip(actual, expected, strict=True):
        if theirs is not None and theirs.ndim > 1:
            torch.testing.assert_close(ours[:, : theirs.shape[1]], theirs)
    # Other image sizes within the same padded size: the same graph. Another padded size: one graph more.
    run_core(model, images, [(h - 3, w - 5) for h, w in images.image_sizes], core)
    assert len(graphs) == 1
    larger = architecture.batch(sizes=((96, 128), (96, 128)))
    run_core(model, model.preprocess_image(larger), [(96, 128)] * 2, core)
    assert len(graphs) <= 2
    torch._dynamo.reset()


@pytest.mark.parametrize("architecture", COMPILED, indirect=True)
def test_the_core_is_one_graph_for_each_padded_size(architecture):
    compile_and_check(architecture)


@pytest.mark.compile
@pytest.mark.parametrize("architecture", [name for name in ALL if name not in COMPILED], indirect=True)
def test_every_core_is_one_graph_for_each_padded_size(architecture):
    compile_and_check(architecture)
