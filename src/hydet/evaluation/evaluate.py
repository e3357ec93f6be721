"""Run a model over a dataset and measure it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from hydet.distributed import cuda_rng_devices, is_main_process, sum_over_processes

from .evaluator import Evaluator

__all__ = ["evaluate"]

SEED = 20170320


def evaluate(
    model: nn.Module,
    loader: Iterable[Sequence[Mapping[str, Any]]],
    evaluators: Sequence[Evaluator],
    *,
    with_losses: bool = True,
    device: torch.device | str | None = None,
    progress: bool | Progress = True,
) -> dict[str, float]:
    """Metrics of ``model`` on ``loader``, and its validation loss from the same pass.

    The model runs in evaluation mode without gradients, and each of its modules returns to the mode it had. What
    it draws at random (the regions that a loss samples) comes from a stream of its own: two evaluations of the same
    weights agree, and a training run goes on as if there had been none.

    Args:
        model: has ``inference`` and ``losses_and_inference``; any other is called, and gets no losses.
        loader: finite, batches of model inputs.
        evaluators: see ``Evaluator``.
        with_losses: also compute losses, where inputs carry ground truth (``instances`` or ``sem_seg``).
        device: move the model there first; by default it stays where it is.
        progress: show a progress bar, or add a task to one that is already shown.

    Returns:
        The evaluators' metrics; with losses also ``val_loss/<name>``, the mean over images, and
        ``val_loss/total``. The same on every process.

    Raises:
        ValueError: if the loader is empty on every process, or two evaluators give a metric of the same name.
    """
    if device is not None:
        model.to(device)
    for evaluator in evaluators:
        evaluator.reset()
    sums: dict[str, Tensor] = {}
    images = images_with_losses = 0
    with _evaluation_mode(model), torch.no_grad(), _own_randomness():
        for batch in _shown(loader, progress):
            losses, outputs = _run(model, batch, with_losses)
            for evaluator in evaluators:
                evaluator.update(batch, outputs)
            images += len(batch)
            if losses:
                images_with_losses += len(batch)
                for name, value in losses.items():
                    weighted = value.detach().double() * len(batch)
                    sums[name] = sums[name] + weighted if name in sums else weighted
    counted = {name: float(value) for name, value in sums.items()}
    total = sum_over_processes({"images/all": images, "images/losses": images_with_losses, **counted})
    if not total.pop("images/all"):
        raise ValueError("evaluate: the loader gave no batch")
    num_images = total.pop("images/losses")
    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        new = evaluator.compute()
        if metrics.keys() & new.keys():
            raise ValueError(f"two evaluators give the same metrics: {sorted(metrics.keys() & new.keys())}")
        metrics |= new
    if num_images:
        metrics |= {f"val_loss/{name}": value / num_images for name, value in total.items()}
        metrics["val_loss/total"] = sum(total.values()) / num_images
    return metrics


def _run(model: Any, batch: Sequence[Mapping[str, Any]], with_losses: bool) -> tuple[dict[str, Tensor], Any]:
    labelled = all("instances" in entry or "sem_seg" in entry for entry in batch)
    if with_losses and labelled and hasattr(model, "losses_and_inference"):
        return model.losses_and_inference(batch)
    run = model.inference if hasattr(model, "inference") else model
    return {}, run(batch)


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextlib.contextmanager
def _own_randomness() -> Iterator[None]:
    with torch.random.fork_rng(devices=cuda_rng_devices()):
        torch.manual_seed(SEED)
        yield


def _shown(loader: Iterable[Any], progress: bool | Progress) -> Iterator[Any]:
    if progress is False or not is_main_process():
        yield from loader
        return
    length = (len(loader) if isinstance(loader, Sized) else 0) or None
    if isinstance(progress, Progress):
        task = progress.add_task("evaluation", total=length)
        try:
            for batch in loader:
                yield batch
                progress.advance(task)
        finally:
            progress.remove_task(task)
        return
    with Progress(transient=True) as own:
        yield from _shown(loader, own)
