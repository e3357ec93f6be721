import pytest
import torch

from hydet.engine import Callback
from hydet.engine.callbacks import Evaluation, Logger


class ListLogger(Logger):
    def __init__(self, **options):
        super().__init__(**options)
        self.entries = []

    def open(self, trainer):
        self.entries.append(("open", trainer.step))

    def log_training(self, trainer, values):
        self.entries.append(("training", trainer.step))

    def log_metrics(self, trainer, metrics):
        self.entries.append(("metrics", trainer.step))

    def log_image(self, trainer, name, image):
        self.entries.append((name, trainer.step))

    def close(self):
        self.entries.append("close")


def test_entries_come_at_the_interval_and_when_they_arrive(tiny, tmp_path):
    class DrawEachStep(Callback):
        def on_step_end(self, trainer):
            trainer.log_image("view", torch.zeros(3, 4, 5, dtype=torch.uint8))

    logger = ListLogger(every=2)
    evaluation = Evaluation(every=3, loader=tiny.make_batches(), evaluators=tiny.Metric())
    tiny.build_trainer(tmp_path, max_steps=3, callbacks=[logger, evaluation, DrawEachStep()]).fit()
    assert logger.entries == [
        ("open", 0),
        ("view", 1),
        ("training", 2),
        ("view", 2),
        ("training", 3),
        ("metrics", 3),
        ("view", 3),
        "close",
    ]


def test_the_log_is_closed_after_an_error(tiny, tmp_path):
    logger = ListLogger()
    with pytest.raises(ValueError, match="no batches"):
        tiny.build_trainer(tmp_path, loader=[], callbacks=[logger]).fit()
    assert logger.entries[-1] == "close"


def test_only_the_main_process_writes(tiny, tmp_path, monkeypatch):
    from hydet.engine.callbacks import logger as module

    monkeypatch.setattr(module, "is_main_process", lambda: False)
    logger = ListLogger(every=1)
    tiny.build_trainer(tmp_path, max_steps=2, callbacks=[logger]).fit()
    assert logger.entries == ["close"]


def test_a_logger_must_define_how_it_logs_training():
    class Incomplete(Logger):
        pass

    with pytest.raises(TypeError, match="log_training"):
        Incomplete()
