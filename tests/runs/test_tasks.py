"""Properties that models declare, and the defaults of models that declare none."""

import pytest
import torch

import hydet
from hydet.runs.tasks import EVALUATOR_OF_TASK, ModelTraits, primary_metric, traits_of


class Silent(torch.nn.Module):
    """A user's model that declares nothing."""


class Declaring(torch.nn.Module):
    tasks = ("something_else",)
    input_format = "BGR"
    needs_proposals = True


def test_a_model_that_declares_nothing_predicts_boxes_in_rgb_images():
    assert traits_of(Silent()) == ModelTraits(("box",), "RGB", False)
    assert primary_metric(Silent()) == "box/AP"


def test_declared_properties_are_used():
    assert traits_of(Declaring()) == ModelTraits(("something_else",), "BGR", True)
    assert primary_metric(Declaring()) == "val_loss/total"


@pytest.mark.parametrize(
    ("model", "tasks", "needs_proposals", "metric"),
    [
        ("mask_rcnn_fpn", ("box", "mask"), False, "box/AP"),
        ("fast_rcnn_fpn", ("box",), True, "box/AP"),
        ("rpn_fpn", ("proposals",), False, "proposals/AR100"),
        ("panoptic_fpn", ("panoptic", "box", "mask", "semantic"), False, "panoptic/PQ"),
        ("rotated_faster_rcnn_fpn", ("rotated",), False, "rotated/AP"),
    ],
)
def test_traits_of_models(model, tasks, needs_proposals, metric):
    with torch.device("meta"):
        built = hydet.instantiate(hydet.compose(f"model={model}").model)
    traits = traits_of(built)
    assert set(traits.tasks) == set(tasks)
    assert (traits.needs_proposals, traits.input_format) == (needs_proposals, "BGR")
    assert primary_metric(built) == metric
    assert set(traits.tasks) <= EVALUATOR_OF_TASK.keys()
