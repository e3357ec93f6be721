"""Run a model over a dataset and compute metrics."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from rich.progress import Progress
from torch import Tensor, nn

from hydet.distributed import cuda_rng_devices, is_main_process, sum_over_processes
from hydet.structures import Instances, Losses, ModelInput, ModelOutput, ROIMasks, SemanticScores
from hydet.structures.model_io import DefersPasting

from .evaluator import Evaluator, TakesROIMasks

if TYPE_CHECKING:
    from hydet.modeling.protocols import Detector

__all__ = ["evaluate"]

SEED = 20170320

Batch = Sequence[ModelInput]
RunBatch = Callable[[Batch], tuple[Losses, Sequence[ModelOutput]]]


def evaluate(
    model: Detector | nn.Module,
    loader: Iterable[Batch],
    evaluators: Sequence[Evaluator],
    *,
    with_losses: bool = True,
    device: torch.device | str | None = None,
    progress: bool | Progress = True,
) -> dict[str, float]:
    """Compute the metrics of ``model`` on ``loader``, and its validation loss in the same pass.

    The model runs in evaluation mode without gradients; afterwards each of its modules has its previous mode. Random
    choices, such as the regions that a loss samples, come from a separate random stream: two evaluations of the same
    weights agree, and a training run continues as if there had been no evaluation.

    Args:
        model: a detector. A module without ``inference`` is called with the batch, and one without
            ``losses_and_inference`` has no validation loss.
        loader: finite loader of batches of model inputs.
        evaluators: objects that turn results into metrics; see ``Evaluator``.
        with_losses: True also computes losses of batches with ground truth (``instances`` or ``sem_seg``).
        device: device to move the model to; by default it stays where it is.
        progress: True shows a progress bar; a ``rich.progress.Progress`` shows the evaluation as an additional task.

    Returns:
        The metrics of all evaluators, and with losses ``val_loss/<name>``, the mean over images, and
        ``val_loss/total``. All processes get the same values.

    Raises:
        ValueError: if the loader is empty on all processes, or two evaluators return a metric of the same name.
    """
    if device is not None and isinstance(model, nn.Module):
        model.to(device)
    for evaluator in evaluators:
        evaluator.reset()
    run = _make_runner(model, with_losses)
    sums: dict[str, Tensor] = {}
    num_images = num_images_with_losses = 0
    random_state_kept = torch.random.fork_rng(devices=cuda_rng_devices())
    with _evaluation_mode(model), torch.no_grad(), random_state_kept:
        for batch in _with_progress(loader, progress):
            torch.manual_seed(_seed_of(batch))
            losses, outputs = run(batch)
            for evaluator in evaluators:
                _update(evaluator, batch, outputs)
            num_images += len(batch)
            if losses:
                num_images_with_losses += len(batch)
                for name, value in losses.items():
                    weighted = value.detach().double() * len(batch)
                    sums[name] = sums[name] + weighted if name in sums else weighted
    counts = {"images/all": float(num_images), "images/losses": float(num_images_with_losses)}
    totals = sum_over_processes({**counts, **{name: float(value) for name, value in sums.items()}})
    if not totals.pop("images/all"):
        raise ValueError("evaluate: the loader has no batches")
    metrics = _compute_metrics(evaluators)
    total_images_with_losses = totals.pop("images/losses")
    if total_images_with_losses:
        metrics |= {f"val_loss/{name}": value / total_images_with_losses for name, value in totals.items()}
        metrics["val_loss/total"] = sum(totals.values()) / total_images_with_losses
    return metrics


@runtime_checkable
class _HasInference(Protocol):
    def inference(self, batched_inputs: Batch) -> Sequence[ModelOutput]: ...


@runtime_checkable
class _HasLossesAndInference(Protocol):
    def losses_and_inference(self, batched_inputs: Batch) -> tuple[Losses, Sequence[ModelOutput]]: ...


def _update(evaluator: Evaluator, batch: Batch, outputs: Sequence[ModelOutput]) -> None:
    """Pass results to an evaluator; one that does not take small results gets full-sized ones, image by image."""
    if (isinstance(evaluator, TakesROIMasks) and evaluator.takes_roi_masks) or not any(
        _has_roi_masks(output) or _has_small_scores(output) for output in outputs
    ):
        evaluator.update(batch, outputs)
    else:
        for entry, output in zip(batch, outputs, strict=True):
            evaluator.update([entry], [_resize(_paste(output))])


def _has_roi_masks(output: ModelOutput) -> bool:
    instances = output.get("instances") if isinstance(output, dict) else None
    return (
        instances is not None and instances.has("pred_masks") and isinstance(instances.pred_masks, ROIMasks)
    )


def _paste(output: ModelOutput) -> ModelOutput:
    if not _has_roi_masks(output):
        return output
    instances = output["instances"]
    masks = instances.pred_masks.to_bitmasks(instances.pred_boxes, *instances.image_size).tensor
    pasted = Instances(instances.image_size, **{**instances.get_fields(), "pred_masks": masks})
    return {**output, "instances": pasted}


def _has_small_scores(output: ModelOutput) -> bool:
    return isinstance(output, dict) and isinstance(output.get("sem_seg"), SemanticScores)


def _resize(output: ModelOutput) -> ModelOutput:
    scores = output.get("sem_seg") if isinstance(output, dict) else None
    return {**output, "sem_seg": scores.resize()} if isinstance(scores, SemanticScores) else output


def _make_runner(model: Detector | nn.Module, with_losses: bool) -> RunBatch:
    """Return a function that computes the losses and results of a batch.

    A module with fewer methods than ``Detector`` also works; see :func:`evaluate`.
    """
    infer: Callable[[Batch], Sequence[ModelOutput]]
    infer = model.inference if isinstance(model, _HasInference) else model
    both = model.losses_and_inference if isinstance(model, _HasLossesAndInference) else None

    def run(batch: Batch) -> tuple[Losses, Sequence[ModelOutput]]:
        has_ground_truth = all("instances" in entry or "sem_seg" in entry for entry in batch)
        if isinstance(model, DefersPasting):
            return model.detect_unpasted(batch, with_losses=with_losses and has_ground_truth)
        if with_losses and both is not None and has_ground_truth:
            return both(batch)
        return {}, infer(batch)

    return run


def _compute_metrics(evaluators: Sequence[Evaluator]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        new = evaluator.compute()
        if metrics.keys() & new.keys():
            raise ValueError(f"two evaluators return the same metrics: {sorted(metrics.keys() & new.keys())}")
        metrics |= new
    return metrics


@contextlib.contextmanager
def _evaluation_mode(model: Detector | nn.Module) -> Iterator[None]:
    if not isinstance(model, nn.Module):  # such as an exported program, which has one mode
        yield
        return
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _seed_of(batch: Batch) -> int:
    """Return a seed that depends on the images of a batch, and not on the batches before it on this process."""
    names = [str(entry.get("image_id", entry.get("file_name"))) for entry in batch]
    return SEED + zlib.crc32("\n".join(names).encode("utf-8", "backslashreplace"))


def _with_progress(loader: Iterable[Batch], progress: bool | Progress) -> Iterator[Batch]:
    if progress is False or not is_main_process():
        yield from loader
        return
    if isinstance(progress, Progress):
        num_batches = (len(loader) if isinstance(loader, Sized) else 0) or None
        task = progress.add_task("evaluation", total=num_batches)
        try:
            for batch in loader:
                yield batch
                progress.advance(task)
        finally:
            progress.remove_task(task)
        return
    with Progress(transient=True) as new_progress:
        yield from _with_progress(loader, new_progress)
