import io
import json
import math
import os
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

from hydet.engine import Callback, load_checkpoint
from hydet.engine.callbacks import (
    EMA,
    Checkpoints,
    ConsoleLog,
    EarlyStopping,
    Evaluation,
    JsonlLog,
    ModelPictures,
    NanGuard,
    PredictionPictures,
    TensorBoardLog,
)
from hydet.structures import Boxes, Instances


def evaluation(tiny, every=1, **options):
    values = options.pop("values", None)
    return Evaluation(every=every, loader=tiny.make_batches(), evaluators=tiny.Metric(values), **options)


def folders(path):
    return sorted(p.name for p in (path / "checkpoints").iterdir())


def pointed(path, name):
    return os.readlink(path / "checkpoints" / name)


def test_checkpoints_keep_the_last_and_the_best(tiny, tmp_path):
    values = [0.1, 0.5, 0.2, math.nan, 0.3, 0.4]
    callbacks = [Checkpoints(every=2, keep_last=2, best="quality"), evaluation(tiny, values=values)]
    tiny.build_trainer(tmp_path, callbacks=callbacks).fit()
    assert folders(tmp_path) == ["best", "last", "step_00000002", "step_00000004", "step_00000006"]
    assert pointed(tmp_path, "best") == "step_00000002" and pointed(tmp_path, "last") == "step_00000006"
    best = load_checkpoint(tmp_path / "checkpoints" / "best")
    assert best.metrics["quality"] == 0.5 and "val_loss/total" in best.metrics


def test_a_best_between_two_checkpoints_is_written(tiny, tmp_path):
    callbacks = [Checkpoints(every=100, best="quality"), evaluation(tiny, values=[1.0, 0.9, 0.8])]
    tiny.build_trainer(tmp_path, max_steps=3, callbacks=callbacks).fit()
    assert folders(tmp_path) == ["best", "last", "step_00000001", "step_00000003"]


def test_less_loss_is_better(tiny, tmp_path):
    metric = tiny.Metric([0.5, 0.1, 0.3], name="my_loss")
    evaluate = Evaluation(every=1, loader=tiny.make_batches(), evaluators=metric)
    callbacks = [evaluate, Checkpoints(every=1, best="my_loss")]
    tiny.build_trainer(tmp_path, max_steps=3, callbacks=callbacks).fit()
    assert pointed(tmp_path, "best") == "step_00000002"


def test_a_metric_that_does_not_exist_is_answered_with_the_nearest(tiny, tmp_path):
    for callback in (Checkpoints(every=1, best="qualty"), EarlyStopping(metric="qualty")):
        with pytest.raises(ValueError, match="nearest: 'quality'"):
            tiny.build_trainer(tmp_path, callbacks=[evaluation(tiny), callback]).fit()


def test_checkpoints_carry_config_and_class_names(tiny, tmp_path):
    metadata = SimpleNamespace(to_dict=lambda: {"name": "pets", "thing_classes": ["cat", "dog"]})
    options = {"config": {"model": {"num_classes": 2}}, "metadata": metadata, "max_steps": 1}
    tiny.build_trainer(tmp_path, callbacks=[Checkpoints(every=1)], **options).fit()
    written = load_checkpoint(tmp_path)
    assert written.class_names == ("cat", "dog") and written.config.model.num_classes == 2


def test_evaluation_runs_when_due_and_at_the_end(tiny, tmp_path):
    steps = []

    class Listener(Callback):
        def on_evaluation_end(self, trainer, metrics):
            steps.append((trainer.step, metrics is trainer.metrics, sorted(metrics)))

    tiny.build_trainer(tmp_path, max_steps=5, callbacks=[evaluation(tiny, every=2), Listener()]).fit()
    assert [s for s, *_ in steps] == [2, 4, 5]
    assert all(same for _, same, _ in steps)
    assert steps[0][2] == ["quality", "val_loss/error", "val_loss/size", "val_loss/total"]


def test_evaluation_does_not_change_the_run(tiny, tmp_path):
    ends = []
    for callbacks in ([], [evaluation(tiny)]):
        trainer = tiny.build_trainer(tmp_path, callbacks=callbacks)
        trainer.fit()
        ends.append(trainer.model.head.weight.detach())
    assert torch.equal(*ends)


def test_early_stopping(tiny, tmp_path):
    values = [0.1, 0.2, 0.15, 0.2, 0.9, 0.9]
    stop = EarlyStopping(metric="quality", patience=2)
    trainer = tiny.build_trainer(
        tmp_path, callbacks=[stop, evaluation(tiny, values=values), Checkpoints(every=100)]
    )
    trainer.fit()
    assert trainer.step == 4
    assert load_checkpoint(tmp_path).step == 4


def test_ema_is_what_is_evaluated_and_stored(tiny, tmp_path):
    seen = []

    class Listener(Callback):
        order = 200

        def on_step_end(self, trainer):
            with trainer.evaluation_weights() as model:
                seen.append(model.head.weight.detach().clone())

    ema = EMA(decay=0.5, warm_up=False)
    trainer = tiny.build_trainer(tmp_path, max_steps=2, callbacks=[ema, Checkpoints(every=1), Listener()])
    start = trainer.model.head.weight.detach().clone()
    trainer.fit()
    end = trainer.model.head.weight.detach()
    stored = load_checkpoint(tmp_path).weights()["head.weight"]
    assert torch.equal(stored, seen[-1]) and not torch.equal(stored, end)
    first = load_checkpoint(tmp_path / "checkpoints" / "step_00000001").training_state()["model"][
        "head.weight"
    ]
    torch.testing.assert_close(stored, 0.25 * start + 0.25 * first + 0.5 * end)


def test_ema_with_tensors_that_are_no_numbers(tiny, tmp_path):
    trainer = tiny.build_trainer(tmp_path, callbacks=[EMA()])
    trainer.fit()
    with trainer.evaluation_weights() as model:
        assert model.body[1].num_batches_tracked == 6


class Exploding(nn.Module):
    def __init__(self, losses):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.losses = losses

    def forward(self, batch):
        return {name: self.weight * value for name, value in self.losses.items()}


def test_nan_guard_names_the_loss_and_the_files_and_saves_the_weights(tiny, tmp_path):
    model = Exploding({"good": 1.0, "bad": math.nan})
    with pytest.raises(FloatingPointError, match=r"step 1: loss bad is nan; the batch: 0\.jpg, 1\.jpg"):
        tiny.build_trainer(tmp_path, model=model, callbacks=[NanGuard(), Checkpoints(every=1)]).fit()
    assert model.weight == 1
    assert not (tmp_path / "checkpoints").exists()


def test_nan_guard_sees_gradients(tiny, tmp_path):
    class Steep(Exploding):
        def forward(self, batch):
            return {"steep": (self.weight - 1).abs().sqrt() + 1}

    with pytest.raises(FloatingPointError, match=r"gradients.*0\.jpg"):
        tiny.build_trainer(tmp_path, model=Steep({}), callbacks=[NanGuard()]).fit()


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_jsonl(tiny, tmp_path):
    callbacks = [JsonlLog(every=2), evaluation(tiny, every=4, values=[math.nan, 1.0])]
    tiny.build_trainer(tmp_path, max_steps=5, callbacks=callbacks).fit()
    lines = read_lines(tmp_path / "metrics.jsonl")
    kinds = [(line["step"], line["kind"]) for line in lines]
    assert kinds == [(2, "training"), (4, "training"), (4, "evaluation"), (5, "training"), (5, "evaluation")]
    assert lines[2]["quality"] is None
    assert lines[0]["loss/total"] == pytest.approx(lines[0]["loss/error"] + lines[0]["loss/size"])
    assert {"lr", "images_per_second", "memory_gb", "data_fraction"} <= lines[0].keys()


def test_jsonl_has_each_step_once_after_a_resume(tiny, tmp_path):
    tiny.build_trainer(tmp_path, max_steps=2, callbacks=[JsonlLog(every=1), Checkpoints(every=2)]).fit()
    file = tmp_path / "metrics.jsonl"
    with file.open("a") as stream:
        stream.write('{"step": 3, "kind": "training"}\n{"step": 4, "ki')  # went on, and was killed
    trainer = tiny.build_trainer(tmp_path, max_steps=4, callbacks=[JsonlLog(every=1), Checkpoints(every=2)])
    trainer.fit(resume="auto")
    assert [line["step"] for line in read_lines(file)] == [1, 2, 3, 4]


def test_jsonl_of_another_run_is_moved_aside(tiny, tmp_path):
    for _ in range(3):
        tiny.build_trainer(tmp_path, max_steps=1, callbacks=[JsonlLog(every=1)]).fit()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "metrics-1.jsonl",
        "metrics-2.jsonl",
        "metrics.jsonl",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_console(tiny, tmp_path, terminal):
    callbacks = [ConsoleLog(every=2), evaluation(tiny, every=4)]
    trainer = tiny.build_trainer(tmp_path, max_steps=4, callbacks=callbacks)
    stream = io.StringIO()
    trainer.console = Console(file=stream, force_terminal=terminal, width=200, color_system=None)
    trainer.fit()
    text = stream.getvalue()
    for expected in (
        "step 2/4",
        "eta 0:00:00",
        "images/s",
        "GB",
        "  lr ",
        "total",
        "error",
        "validation loss",
    ):
        assert expected in text, expected
    assert ("━" in text) == terminal
    assert trainer.progress is None


def test_tensorboard(tiny, tmp_path):
    class Artist(Callback):
        def on_step_end(self, trainer):
            trainer.log_picture("view", torch.zeros(3, 4, 5, dtype=torch.uint8))

    callbacks = [TensorBoardLog(every=1), evaluation(tiny, every=2), Artist()]
    tiny.build_trainer(tmp_path, max_steps=2, callbacks=callbacks).fit()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"train/loss/total", "train/lr", "quality", "val_loss/total"} <= set(tags["scalars"])
    assert tags["images"] == ["view"]
    assert [e.step for e in events.Scalars("train/loss/total")] == [1, 2]


class Painter(nn.Module):
    """Gives instances, and draws every second step."""

    input_format = "BGR"

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.vis_period, self.on_picture, self.calls = 2, None, 0

    def forward(self, batch):
        self.calls += 1
        if self.calls % 2 == 0 and self.on_picture is not None:
            self.on_picture("Left: this. Right: that", torch.zeros(3, 8, 8, dtype=torch.uint8))
        return {"loss": self.weight * 1.0}

    def inference(self, batch):
        found = Instances(
            (20, 30),
            pred_boxes=Boxes(torch.tensor([[2.0, 2.0, 15.0, 15.0]])),
            scores=torch.tensor([0.9]),
            pred_classes=torch.tensor([0]),
        )
        return [{"instances": found} for _ in batch]


def test_pictures(tiny, tmp_path):
    shown = []

    class Listener(Callback):
        def on_picture(self, trainer, name, picture):
            shown.append((trainer.step, name, picture.dtype, picture.shape[0]))

    truth = Instances((40, 60), gt_boxes=Boxes(torch.zeros(1, 4)), gt_classes=torch.tensor([0]))
    entry = {
        "image": torch.full((3, 40, 60), 100, dtype=torch.uint8),
        "instances": truth,
        "height": 20,
        "width": 30,
    }
    validation = Evaluation(every=2, loader=[[entry] * 3], evaluators=[], pictures=2)
    model = Painter()
    callbacks = [validation, PredictionPictures(), ModelPictures(), Listener()]
    tiny.build_trainer(tmp_path, model=model, max_steps=2, callbacks=callbacks).fit()
    assert shown == [(2, "predictions", torch.uint8, 3), (2, "Left: this. Right: that", torch.uint8, 3)]
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png"))
    assert files == [
        "pictures/step_00000002.png",
        "pictures/training/step_00000002_left_this_right_that.png",
    ]
    assert model.on_picture is None


@pytest.mark.parametrize(
    "build",
    [
        lambda: Checkpoints(every=0),
        lambda: Checkpoints(every=1, keep_last=0),
        lambda: Checkpoints(every=1, mode="most"),
        lambda: ConsoleLog(every=1.5),
        lambda: EarlyStopping(metric="a", patience=0),
        lambda: EarlyStopping(metric="a", min_delta=-1),
        lambda: EMA(decay=1.0),
        lambda: Evaluation(every=-1, loader=[], evaluators=[]),
        lambda: Evaluation(every=1, loader=[], evaluators=[], pictures=-1),
        lambda: PredictionPictures(score_threshold=2),
        lambda: PredictionPictures(pictures=0),
    ],
)
def test_wrong_arguments(build):
    with pytest.raises(ValueError):
        build()
