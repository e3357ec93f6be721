import pytest
import torch
from torch import nn

from hydet.layers import FrozenBatchNorm2d
from hydet.layers.winograd_conv import WinogradConv2d
from hydet.modeling import optimize
from hydet.runs.benchmark_inputs import damp_residuals

from .conftest import ARCHITECTURES, Architecture

pytestmark = pytest.mark.filterwarnings("ignore:the cpu of this machine has no bfloat16:UserWarning")


def run(model, batch):
    with torch.no_grad():
        return model.inference(batch)


def compare(actual, expected, *, pixels, score):
    """Compare results in which no two scores are so close that rounding may change their order."""
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.keys() == theirs.keys()
        if "instances" in ours:
            a, b = ours["instances"], theirs["instances"]
            assert abs(len(a) - len(b)) <= max(1, len(b) // 10)
            count = min(len(a), len(b), 5)
            torch.testing.assert_close(a.scores[:count], b.scores[:count], rtol=0, atol=score)
        if "sem_seg" in ours:
            difference = (ours["sem_seg"] - theirs["sem_seg"]).abs().max()
            assert difference <= pixels * theirs["sem_seg"].abs().max()


@pytest.mark.parametrize("architecture", ARCHITECTURES, indirect=True)
def test_fast_inference_equals_exact_inference(architecture):
    batch = architecture.batch()
    exact, fast = architecture.model().eval(), optimize(architecture.model(), "fast")
    images = exact.preprocess_image(batch).tensor
    with torch.no_grad():
        ours, theirs = fast.backbone(images), exact.backbone(images)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=2e-4 * float(value.abs().max()))
    assert not any(isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d) for m in fast.backbone.modules())
    compare(run(fast, batch), run(exact, batch), pixels=1e-4, score=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES, indirect=True)
def test_bfloat16_inference_stays_near_exact_inference(architecture):
    batch = architecture.batch()
    exact, fast = architecture.model().eval(), architecture.model()
    for model in (exact, fast):
        damp_residuals(model)
    optimize(fast, "bf16")
    images = exact.preprocess_image(batch).tensor
    with torch.no_grad():
        ours, theirs = fast.backbone(images), exact.backbone(images)
    for name, value in theirs.items():
        assert (ours[name] - value).square().mean().sqrt() < 0.03 * value.square().mean().sqrt()
    actual, expected = run(fast, batch), run(exact, batch)
    compare(actual, expected, pixels=0.05, score=0.05)
    for ours in actual:
        for name in ("instances", "proposals"):
            if name in ours:
                fields = ours[name].get_fields().values()
                tensors = [getattr(field, "tensor", field) for field in fields]
                assert all(t.dtype != torch.bfloat16 for t in tensors)


def test_bfloat16_uses_winograd_only_in_heads_that_tolerate_its_rounding():
    for name, in_head in (("retinanet", True), ("fcos", True), ("mask_rcnn_fpn", False)):
        model = optimize(Architecture(name).model(), "bf16")
        paths = [path for path, module in model.named_modules() if isinstance(module, WinogradConv2d)]
        assert all(path.startswith("head.") for path in paths) and bool(paths) is in_head
        assert model.backbone.bottom_up.stem.conv1.weight.dtype == torch.float32
