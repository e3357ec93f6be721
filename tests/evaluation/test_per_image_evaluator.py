import pytest

from hydet.evaluation import Evaluator
from hydet.evaluation.per_image_evaluator import PerImageEvaluator


class Sum(PerImageEvaluator[float]):
    def _collect(self, entry, output):
        return output["value"]

    def _compute(self, results):
        self._check_images(results, [1, 2])
        return {"sum": sum(results.values()), "order": float("".join(map(str, results)))}


def test_an_image_that_appears_twice_counts_once_and_order_does_not_matter():
    evaluator = Sum()
    evaluator.update([{"image_id": 2}, {"image_id": 1}], [{"value": 3.0}, {"value": 4.0}])
    evaluator.update([{"image_id": 2}], [{"value": 3.0}])
    assert evaluator.compute() == {"sum": 7.0, "order": 12.0}
    evaluator.reset()
    with pytest.raises(ValueError, match="no image was evaluated"):
        evaluator.compute()


def test_images_need_an_id_that_the_ground_truth_has():
    evaluator = Sum()
    with pytest.raises(ValueError, match=r"a\.png: evaluation needs an image_id"):
        evaluator.update([{"file_name": "a.png"}], [{"value": 1.0}])
    evaluator.update([{"image_id": 7}], [{"value": 1.0}])
    with pytest.raises(ValueError, match="image_id 7"):
        evaluator.compute()


def test_subclasses_implement_the_evaluator_protocol():
    assert isinstance(Sum(), Evaluator)
    with pytest.raises(TypeError, match="abstract"):
        PerImageEvaluator()
