import math

import pytest
import torch
from torch import nn

from hydet.evaluation import coco_results, evaluate
from hydet.evaluation.coco_results import mask_run_lengths
from hydet.structures import Boxes, Instances, ROIMasks, SemanticScores


class Model(nn.Module):
    """A model whose loss is the input value plus a random number; counts its passes."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.frozen = nn.BatchNorm1d(1).eval()
        self.passes = 0

    def losses_and_inference(self, batch):
        self.passes += 1
        assert not self.training and not torch.is_grad_enabled()
        mean = torch.stack([x["value"] for x in batch]).mean()
        return {"a": mean + self.weight, "noise": torch.rand(())}, self.inference(batch)

    def inference(self, batch):
        return [{"value": x["value"]} for x in batch]


class Total:
    def reset(self):
        self.total = 0.0

    def update(self, inputs, outputs):
        self.total += sum(float(o["value"]) for o in outputs)

    def compute(self):
        return {"total": self.total}

    def tables(self):
        return []


def make_loader(labeled=True, sizes=(2, 1)):
    values = iter(range(10))
    extra = {"instances": None} if labeled else {}
    return [[{"value": torch.tensor(float(next(values))), **extra} for _ in range(n)] for n in sizes]


def test_metrics_and_losses_from_one_pass():
    model = Model()
    metrics = evaluate(model, make_loader(), [Total()], progress=False)
    assert metrics["total"] == 3.0
    assert metrics["val_loss/a"] == pytest.approx(1.0)  # over images, not over batches
    assert metrics["val_loss/total"] == pytest.approx(metrics["val_loss/a"] + metrics["val_loss/noise"])
    assert model.passes == 2


@pytest.mark.parametrize(("labeled", "with_losses"), [(False, True), (True, False)])
def test_no_losses_without_ground_truth_or_when_switched_off(labeled, with_losses):
    metrics = evaluate(Model(), make_loader(labeled), [Total()], with_losses=with_losses, progress=False)
    assert metrics == {"total": 3.0}


def test_each_module_returns_to_its_mode():
    model = Model().train()
    model.frozen.eval()
    evaluate(model, make_loader(), [], progress=False)
    assert model.training and not model.frozen.training


def test_modes_are_restored_after_an_error():
    model = Model().train()
    with pytest.raises(KeyError):
        evaluate(model, [[{"instances": None}]], [], progress=False)
    assert model.training


def test_evaluation_does_not_touch_the_random_stream_and_is_repeatable():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = torch.rand(1)
    metrics = evaluate(Model(), make_loader(), [], progress=False)
    second = torch.rand(1)
    torch.rand(7)
    assert metrics == evaluate(Model(), make_loader(), [], progress=False)
    assert torch.equal(torch.cat([first, second]), expected)


@pytest.mark.parametrize("key", ["image_id", "file_name"])
def test_random_choices_depend_on_the_images_of_a_batch_only(key):
    """Each process has a part of the batches, and the loss of a batch is the same in any part."""
    batches = make_loader(sizes=(2, 2, 2, 2))
    for i, batch in enumerate(batches):
        for j, entry in enumerate(batch):
            entry[key] = f"\ud800{i}-{j}.png"  # file names need not be valid Unicode

    def noise(loader):
        return evaluate(Model(), loader, [], progress=False)["val_loss/noise"]

    alone = [noise([batch]) for batch in batches]
    assert len(set(alone)) == 4
    for count in (1, 2, 3):
        assert noise(batches[:count]) == pytest.approx(sum(alone[:count]) / count)
        assert noise(batches[-count:]) == pytest.approx(sum(alone[-count:]) / count)


def test_a_plain_module_is_called():
    metrics = evaluate(nn.Identity(), make_loader(), [Total()], progress=True)
    assert metrics == {"total": 3.0}
    assert not any(math.isnan(v) for v in metrics.values())


def test_an_empty_loader_is_an_error():
    with pytest.raises(ValueError, match="no batches"):
        evaluate(Model(), [], [Total()], progress=False)


def test_two_evaluators_with_the_same_metric_are_an_error():
    with pytest.raises(ValueError, match="total"):
        evaluate(Model(), make_loader(), [Total(), Total()], progress=False)


class MaskModel(nn.Module):
    """Returns 28 x 28 masks, as GeneralizedRCNN.detect_unpasted does."""

    def detect_unpasted(self, batched_inputs, *, with_losses):
        boxes = Boxes(torch.tensor([[2.0, 3.0, 30.0, 40.0], [5.0, 5.0, 20.0, 25.0]]))
        masks = ROIMasks(torch.rand(2, 28, 28, generator=torch.Generator().manual_seed(1)))
        fields = {"scores": torch.tensor([0.9, 0.8]), "pred_classes": torch.tensor([0, 1])}
        instances = Instances((50, 60), pred_boxes=boxes, pred_masks=masks, **fields)
        scores = SemanticScores(torch.rand(3, 5, 6), (50, 60))
        return {}, [{"instances": instances, "sem_seg": scores} for _ in batched_inputs]


class Masks:
    """An evaluator that keeps the masks that it receives."""

    def __init__(self):
        self.masks, self.batch_sizes, self.codes, self.scores = [], [], [], []

    def reset(self):
        pass

    def update(self, inputs, outputs):
        self.batch_sizes.append(len(inputs))
        self.masks += [output["instances"].pred_masks for output in outputs]
        self.codes += [mask_run_lengths(output["instances"]) for output in outputs]
        self.scores += [output["sem_seg"] for output in outputs]

    def compute(self):
        return {}

    def tables(self):
        return []


class SmallMasks(Masks):
    takes_roi_masks = True


def test_only_evaluators_that_need_them_get_pasted_masks_image_by_image(monkeypatch):
    pasted, small = Masks(), SmallMasks()
    monkeypatch.setattr(coco_results, "PIXELS_PER_STEP", 50 * 60)  # one mask at a time
    evaluate(MaskModel(), [[{"image_id": 1}, {"image_id": 2}]], [pasted, small], progress=False)
    assert pasted.batch_sizes == [1, 1] and small.batch_sizes == [2]
    assert all(isinstance(masks, ROIMasks) and masks.tensor.shape == (2, 28, 28) for masks in small.masks)
    assert all(masks.shape == (2, 50, 60) and masks.dtype == torch.bool for masks in pasted.masks)
    assert all(isinstance(scores, SemanticScores) for scores in small.scores)
    assert all(scores.shape == (3, 50, 60) and isinstance(scores, torch.Tensor) for scores in pasted.scores)
    assert small.codes == pasted.codes and len(small.codes[0]) == 2
