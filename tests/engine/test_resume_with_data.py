"""Exact resume with the loader that training uses."""

import pytest
import torch
from torch import nn

from hydet.data import ShapesDataset, build_evaluation_loader, build_train_loader
from hydet.data.mapping.mapper import InputMapper
from hydet.engine import load_checkpoint
from hydet.engine.callbacks import Checkpoints, Evaluation
from hydet.evaluation import CocoEvaluator
from hydet.structures import Boxes, Instances


class MeanColor(nn.Module):
    """Predict the number of objects from the mean color: a trivial model that uses every part of a run."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Dropout(0.2), nn.Linear(3, 1))

    def forward(self, batch):
        colors = torch.stack([e["image"].float().mean((1, 2)) / 255 for e in batch])
        counts = torch.tensor([float(len(e["instances"])) for e in batch])
        return {"count": (self.layer(colors)[:, 0] - counts).square().mean()}

    def losses_and_inference(self, batch):
        return self(batch), self.inference(batch)

    def inference(self, batch):
        results = []
        for entry in batch:
            size = (entry["height"], entry["width"])
            gt_instances = entry["instances"]
            detections = Instances(
                size,
                pred_boxes=Boxes(gt_instances.gt_boxes.tensor.clone()),
                scores=torch.ones(len(gt_instances)),
                pred_classes=gt_instances.gt_classes,
            )
            results.append({"instances": detections})
        return results


def build(tiny, folder, *, max_steps, num_workers):
    torch.manual_seed(0)
    data = ShapesDataset(num_images=5, image_size=(32, 48), max_size=0.5)
    loader = build_train_loader(
        data, InputMapper(training=True), batch_size=2, num_workers=num_workers, seed=3
    )
    validation = Evaluation(
        every=2,
        loader=build_evaluation_loader(
            data, InputMapper(training=False), batch_size=2, num_workers=num_workers
        ),
        evaluators=CocoEvaluator(data, iou_types=("bbox",)),
    )
    callbacks = [validation, Checkpoints(every=2, best="box/AP")]
    return tiny.build_trainer(
        folder,
        model=MeanColor(),
        loader=loader,
        max_steps=max_steps,
        callbacks=callbacks,
        metadata=data.metadata,
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_ends_like_an_uninterrupted_run(tiny, tmp_path, num_workers):
    whole = build(tiny, tmp_path / "whole", max_steps=6, num_workers=num_workers)
    whole.fit()
    build(tiny, tmp_path / "cut", max_steps=3, num_workers=num_workers).fit()
    rest = build(
        tiny, tmp_path / "cut", max_steps=6, num_workers=2 - num_workers
    )  # the number of workers must not matter
    rest.fit(resume="auto")
    assert torch.equal(whole.model.layer[1].weight, rest.model.layer[1].weight)
    assert whole.metrics == pytest.approx(rest.metrics, nan_ok=True)
    assert whole.metrics["box/AP"] == pytest.approx(1.0)
    written = load_checkpoint(tmp_path / "cut")
    assert written.class_names == rest.metadata.thing_classes
    assert written.training_state()["loader"]["batches_taken"] == 6
