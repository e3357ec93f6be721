import pytest

from hydet.data import ShapesDataset
from hydet.evaluation import (
    CocoEvaluator,
    Evaluator,
    LvisEvaluator,
    PanopticEvaluator,
    ProposalEvaluator,
    RotatedCocoEvaluator,
    SemanticEvaluator,
)

EVALUATORS = [
    CocoEvaluator,
    LvisEvaluator,
    PanopticEvaluator,
    ProposalEvaluator,
    RotatedCocoEvaluator,
    SemanticEvaluator,
]


@pytest.mark.parametrize("evaluator_type", EVALUATORS)
def test_evaluators_implement_the_protocol_and_have_no_tables_before_compute(evaluator_type):
    evaluator = evaluator_type(ShapesDataset(num_images=1))
    assert isinstance(evaluator, Evaluator)
    assert evaluator.tables() == []


@pytest.mark.parametrize("evaluator_type", EVALUATORS)
def test_compute_without_images_raises_in_every_evaluator(evaluator_type):
    evaluator = evaluator_type(ShapesDataset(num_images=1))
    evaluator.reset()
    with pytest.raises(ValueError, match="no image was evaluated"):
        evaluator.compute()


def test_an_object_without_tables_is_not_an_evaluator():
    class WithoutTables:
        def reset(self): ...

        def update(self, inputs, outputs): ...

        def compute(self): ...

    assert not isinstance(WithoutTables(), Evaluator)
