from types import SimpleNamespace

import pytest
import torch

from hydet.engine.callbacks import step_statistics
from hydet.engine.callbacks.step_statistics import StepStatistics


def make_trainer(loss, **values):
    defaults = {
        "losses": {"a": torch.tensor(loss), "b": torch.tensor(1.0)},
        "step_seconds": 2.0,
        "data_seconds": 0.5,
        "images": 4,
        "learning_rate": 0.1,
        "device": torch.device("cpu"),
    }
    return SimpleNamespace(**{**defaults, **values})


def test_values_are_means_over_the_steps_since_the_last_summary():
    statistics = StepStatistics()
    for loss in (1.0, 3.0):
        statistics.add(make_trainer(loss))
    values = statistics.summarize(make_trainer(3.0))
    assert values["loss/a"] == pytest.approx(2.0) and values["loss/total"] == pytest.approx(3.0)
    assert values["images_per_second"] == pytest.approx(2.0)
    assert values["seconds_per_step"] == pytest.approx(2.0)
    assert values["data_fraction"] == pytest.approx(0.25)
    assert values["lr"] == 0.1 and values["memory_gb"] > 0
    statistics.add(make_trainer(7.0))
    assert statistics.summarize(make_trainer(7.0))["loss/a"] == pytest.approx(7.0)


def test_a_loss_that_only_some_steps_have_is_averaged_over_those():
    statistics = StepStatistics()
    statistics.add(make_trainer(1.0))
    statistics.add(make_trainer(1.0, losses={"a": torch.tensor(2.0), "rare": torch.tensor(5.0)}))
    assert statistics.summarize(make_trainer(1.0))["loss/rare"] == pytest.approx(5.0)


def test_memory_is_left_out_where_the_system_does_not_report_it(monkeypatch):
    monkeypatch.setattr(step_statistics, "peak_memory_gb", lambda device: None)
    statistics = StepStatistics()
    statistics.add(make_trainer(1.0))
    assert "memory_gb" not in statistics.summarize(make_trainer(1.0))
