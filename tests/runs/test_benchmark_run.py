import pytest
import torch
from torch import nn

import hydet
from hydet.runs.benchmark_inputs import random_batch
from hydet.runs.benchmark_run import Measurement, count_flops, count_graphs, measure

CPU = torch.device("cpu")


class Recorded:
    """A contestant that records its runs."""

    device = CPU

    def __init__(self, name, log):
        self.name, self.log = name, log

    def run(self):
        self.log.append(self.name)


def test_models_take_turns_and_warmup_runs_do_not_count():
    log = []
    results = measure([Recorded("a", log), Recorded("b", log)], runs=3, warmup=1)
    assert log == ["a", "b"] * 4
    assert [result.name for result in results] == ["a", "b"]
    assert all(len(result.seconds) == 3 and result.stages == {} for result in results)


@pytest.mark.parametrize(("percent", "seconds"), [(0, 1.0), (50, 3.0), (90, 5.0), (100, 5.0)])
def test_percentiles(percent, seconds):
    result = Measurement("a", [5.0, 1.0, 4.0, 2.0, 3.0], {})
    assert result.percentile(percent) == seconds and result.median == 3.0


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = hydet.compose("model=semantic_fpn", "data=shapes_panoptic", "backbone=r18_slim", "size=slim")
    return hydet.instantiate(config.model).eval()


@pytest.fixture
def batch(model):
    return random_batch(model, 1, (64, 96), num_classes=3, num_keypoints=5, num_labels=5)


def test_stages_of_a_model_add_up_to_its_time(model, batch):
    class Contestant:
        name, device = "semantic", CPU

        def __init__(self):
            self.model = model

        def run(self):
            with torch.no_grad():
                return self.model.inference(batch)

    (result,) = measure([Contestant()], runs=1, warmup=0)
    assert list(result.stages) == ["data", "backbone", "semantic head", "postprocessing"]
    assert sum(result.stages.values()) == pytest.approx(result.median, rel=0.5)
    assert not any(module._forward_hooks for module in model.modules())


def test_operations_grow_with_the_image(model, batch):
    larger = random_batch(model, 1, (128, 96), num_classes=3, num_keypoints=5, num_labels=5)
    assert count_flops(model, larger) == pytest.approx(2 * count_flops(model, batch), rel=0.01)


def test_a_graph_break_is_counted_with_its_reason(model, batch):
    class Waits(nn.Module):
        """A core that reads a value of the result."""

        def __init__(self):
            super().__init__()
            self.preprocess_image = model.preprocess_image

        def inference_padded(self, images, image_sizes):
            if images.mean() > 1e9:
                return images + 1
            return images * 2

    counts = count_graphs(Waits(), batch)
    assert counts.graph_breaks >= 1 and counts.reason
