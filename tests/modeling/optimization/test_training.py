import copy
import pickle

import pytest
import torch
from torch._dynamo.utils import counters

from hydet.layers import Conv2d, FrozenBatchNorm2d
from hydet.modeling import compile_training, optimize_training

from .conftest import ARCHITECTURES, Architecture

# torch hides this warning of its own, unless warnings are errors.
hidden_by_torch = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


def losses_of(model, batch):
    torch.manual_seed(3)
    with torch.no_grad():
        return {name: float(loss) for name, loss in model.compute_losses(batch).items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES, indirect=True)
def test_losses_equal_those_of_the_exact_model(architecture):
    batch = architecture.batch()
    expected = losses_of(architecture.model(), batch)
    assert losses_of(optimize_training(architecture.model()), batch) == pytest.approx(
        expected, rel=1e-3, abs=1e-6
    )


def gradients_of(backbone, image):
    """Return the gradients of a weighted sum of the feature maps."""
    torch.manual_seed(3)
    total = sum(
        (value * torch.randn(value.shape, dtype=value.dtype)).sum() for value in backbone(image).values()
    )
    total.backward()
    return {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "architecture", ["mask_rcnn_fpn", "mask_rcnn_c4", "mask_rcnn_dc5", "mask_rcnn_vitdet"], indirect=True
)
def test_gradients_equal_those_of_the_exact_model(architecture):
    # In float64, where rounding does not decide about the activations that are nearly 0.
    exact, fast = architecture.model().double(), optimize_training(architecture.model()).double()
    image = exact.preprocess_image(architecture.batch()).tensor.double()
    expected, actual = gradients_of(exact.backbone, image), gradients_of(fast.backbone, image)
    assert actual.keys() == expected.keys()
    total = torch.stack([g.norm() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() <= 1e-9 * total, name


def test_state_dicts_stay_the_same(architecture):
    model = architecture.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = optimize_training(model).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_frozen_norm_scales_the_weight():
    conv = Conv2d(3, 4, kernel_size=3, norm=FrozenBatchNorm2d(num_features=4))
    conv.norm.weight.uniform_(0.5, 2)
    conv.norm.bias.normal_()
    conv.norm.running_mean.normal_()
    conv.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 8, 8)
    expected = conv(x)
    expected.sum().backward()
    gradient, conv.weight.grad = conv.weight.grad, None
    optimize_training(conv)
    actual = conv(x)
    actual.sum().backward()
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(conv.weight.grad, gradient)


def compile_and_train(architecture):
    """Train on images of five sizes; all but the first share their graphs."""
    torch._dynamo.reset()
    counters.clear()
    exact, model = architecture.model().train(), architecture.model().train()
    # The coarsest maps have more than one cell, as other sizes do not share the graph of a single cell. ViTDet pads all
    # images to one size.
    unit = 128 if architecture.dense else 32 if "vitdet" in architecture.name else 64
    sizes = [(height * unit, width * unit) for height, width in ((2, 3), (3, 2), (3, 3), (2, 2), (3, 4))]
    compile_training(model, backend="eager")
    graphs = []
    for size in sizes:
        batch = architecture.batch(sizes=(size, size))
        torch.manual_seed(3)
        expected = exact.compute_losses(batch)
        torch.manual_seed(3)
        losses = model.compute_losses(batch)
        torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-6)
        sum(losses.values()).backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert not counters["graph_break"]
    assert 0 < graphs[0] <= graphs[-2] == graphs[-1] <= 2 * graphs[0]
    # A head compiles again with its second number of regions, which comes later with given proposals and with ViTDet.
    if not (architecture.given_proposals or "vitdet" in architecture.name):
        assert graphs[0] < graphs[1] == graphs[2] == graphs[3]
    torch._dynamo.reset()


@hidden_by_torch
def test_compiled_parts_have_no_graph_breaks():
    compile_and_train(Architecture("rpn_fpn"))


@hidden_by_torch
@pytest.mark.compile
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "rpn_fpn"], indirect=True)
def test_compiled_parts_of_every_model_have_no_graph_breaks(architecture):
    compile_and_train(architecture)


@pytest.mark.parametrize("architecture", ["retinanet", "panoptic_fpn", "keypoint_rcnn_fpn"], indirect=True)
def test_copies_of_a_compiled_model_are_not_compiled(architecture):
    model = architecture.model()
    names = list(model.state_dict())
    compile_training(model, backend="aot_eager")
    heads = [module for module in model.modules() if hasattr(module, "compile_layers")]
    assert all("layers" in vars(head) for head in heads)
    assert list(model.state_dict()) == names
    expected = losses_of(architecture.model(), architecture.batch())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.backbone._compiled_call_impl is None
        assert not any("layers" in vars(module) for module in other.modules())
        assert losses_of(other, architecture.batch()) == expected
