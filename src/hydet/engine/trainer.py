"""The training loop."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hydet.distributed import (
    all_gather,
    any_process,
    barrier,
    is_main_process,
    rank,
    resolve_precision,
    select_device,
    world_size,
)

from .callbacks.callback import Callback
from .checkpoint import Checkpoint, find_last_checkpoint, load_checkpoint, save_checkpoint
from .interruption import InterruptionWatch, TrainingInterrupted
from .parameters import build_optimizer, parameter_groups
from .seeding import random_state, seed_everything, set_random_state

__all__ = ["Trainer"]

Batch = Sequence[Mapping[str, Any]]


class Trainer:
    """Trains a model for a number of steps; everything else is a callback.

    Args:
        model: in training mode ``model(batch)`` gives a dict of scalar losses.
        train_loader: batches of model inputs without end (one that ends is started anew). With ``state_dict`` and
            ``load_state_dict`` a resumed run continues at the same batch.
        optimizer: a factory that takes parameter groups, such as ``partial(torch.optim.SGD, lr=0.02)``; or built.
        scheduler: a factory that takes the optimizer, such as ``partial(warmup_cosine, max_steps=1000)``; or built.
            It is stepped once an optimizer step. ``None`` keeps the learning rate.
        max_steps: optimizer steps of the whole run.
        output_dir: where callbacks write.
        callbacks: see ``Callback``; one of them writes checkpoints, one evaluates. A list, or a mapping whose names
            are for overrides only; ``None`` stands for one that is switched off.
        groups: ``model`` -> parameter groups, if ``optimizer`` is a factory; by default
            ``parameter_groups``, which spares norms from weight decay.
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"``; see ``resolve_precision``. Weights stay float32.
        accumulate: batches an optimizer step; their gradients are averaged.
        clip_norm: largest norm of all gradients together.
        clip_value: largest absolute value of a gradient.
        device: see ``select_device``.
        config: the run's config, carried by checkpoints.
        metadata: ``hydet.data.Metadata``, carried by checkpoints.
        seed: of whatever the model draws at random during training.
        find_unused_parameters: for models under several processes of which a step may leave parts out.

    Attributes:
        step: optimizer steps done.
        losses: the last step's, detached, on the device; means over its batches.
        metrics: the last evaluation's.
        learning_rate: of the last step, in the first parameter group.
        gradient_norm: before clipping, on the device, if ``clip_norm`` is set.
        images: images of the last step, on this process.
        step_seconds: what the last step took, callbacks aside.
        data_seconds: what of it went into waiting for data.
        should_stop: set it, and the run ends after the current step.
        examples: pairs of input and output from the last evaluation, for pictures.
        console: prints on the main process only.
        progress: the progress bar on display, if any.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        train_loader: Iterable[Batch],
        optimizer: Optimizer | Callable[[Any], Optimizer],
        scheduler: LRScheduler | Callable[[Optimizer], LRScheduler] | None = None,
        max_steps: int,
        output_dir: str | Path,
        callbacks: Sequence[Callback | None] | Mapping[str, Callback | None] = (),
        groups: Callable[[nn.Module], list[dict[str, Any]]] = parameter_groups,
        precision: str = "fp32",
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        device: str | torch.device = "auto",
        config: Any = None,
        metadata: Any = None,
        seed: int = 0,
        find_unused_parameters: bool = False,
    ) -> None:
        for name, value in (("max_steps", max_steps), ("accumulate", accumulate)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if limit is not None and limit <= 0:
                raise ValueError(f"{name} must be positive, got {limit}; null switches it off")
        listed = callbacks.values() if isinstance(callbacks, Mapping) else callbacks
        chosen = [callback for callback in listed if callback is not None]
        wrong = [c for c in chosen if not isinstance(c, Callback)]
        if wrong:
            raise TypeError(
                f"callbacks must derive from hydet.engine.Callback, got {type(wrong[0]).__name__}"
            )
        self.device = select_device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.model = model.to(self.device)
        self.train_loader = train_loader
        if not isinstance(optimizer, Optimizer):
            optimizer = build_optimizer(optimizer, groups(model))
        self.optimizer: Optimizer = optimizer
        if scheduler is not None and not isinstance(scheduler, LRScheduler):
            scheduler = scheduler(self.optimizer)
        self.scheduler: LRScheduler | None = scheduler
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.max_steps = max_steps
        self.output_dir = Path(output_dir)
        self.callbacks: list[Callback] = sorted(chosen, key=lambda c: c.order)
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.config = config
        self.metadata = metadata
        self.seed = seed
        self.find_unused_parameters = find_unused_parameters

        self.step = 0
        self.losses: dict[str, Tensor] = {}
        self.metrics: dict[str, float] = {}
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self.gradient_norm: Tensor | None = None
        self.images = 0
        self.step_seconds = self.data_seconds = 0.0
        self.should_stop = False
        self.resumed_from: Path | None = None
        self.examples: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
        self.console = Console(quiet=not is_main_process())
        self.progress: Progress | None = None
        self._watch = InterruptionWatch()
        self._batches: Generator[Batch, None, None] = _endless(())
        self._loader_starts = True
        self._parallel: nn.Module = model

    def fit(self, *, resume: bool | str | Path = False) -> None:
        """Train up to ``max_steps``.

        Args:
            resume: ``"auto"`` (or ``True``) continues from the last checkpoint in ``output_dir`` and starts anew
                where there is none; a path continues from that checkpoint; ``False`` starts anew.

        Raises:
            TrainingInterrupted: after SIGTERM or Ctrl-C, when the step is complete and the checkpoint written.
            FloatingPointError: from a callback or model that met a loss that is not finite.
        """
        with self._watch:
            try:
                self._start(resume)
                self._each("on_fit_start")
                while self.step < self.max_steps and not self.should_stop:
                    self.raise_if_interrupted()
                    self._each("on_step_start")
                    self._train_step()
                    self.step += 1
                    self._each("on_step_end")
                self._each("on_fit_end")
            except BaseException as error:
                self._clean_up(error)
                raise
            finally:
                self._batches.close()  # ends the loader's workers

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """Tell everybody about the outcome of an evaluation."""
        self.metrics = dict(metrics)
        for callback in self.callbacks:
            callback.on_evaluation_end(self, self.metrics)

    def log_picture(self, name: str, picture: Tensor) -> None:
        """Show a picture, ``(3, H, W)`` uint8 RGB, to the callbacks that log."""
        for callback in self.callbacks:
            callback.on_picture(self, name, picture)

    def print(self, *objects: Any) -> None:
        """Print on the main process, above the progress bar if there is one; strings may hold rich's markup."""
        console = self.progress.console if self.progress is not None else self.console
        if all(isinstance(part, str) for part in objects):
            console.print(*objects, highlight=False, soft_wrap=True)
        else:
            console.print(*objects)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the model computes in the run's precision."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @contextmanager
    def evaluation_weights(self) -> Iterator[nn.Module]:
        """The model with the weights to evaluate and to keep: averaged ones if a callback has such."""
        with ExitStack() as stack:
            for callback in self.callbacks:
                stack.enter_context(callback.evaluation_weights(self))
            yield self.model

    @property
    def interrupted(self) -> bool:
        """Whether this process was asked to stop."""
        return self._watch.signum is not None

    def raise_if_interrupted(self) -> None:
        """End the run if a process was asked to; between two steps, on all processes at once.

        Raises:
            TrainingInterrupted: if so.
        """
        if any_process(self.interrupted):
            raise TrainingInterrupted(max(s or 0 for s in all_gather(self._watch.signum)), self.step)

    def save(self, folder: str | Path) -> Checkpoint | None:
        """Write a checkpoint; every process must call it, the main one writes and returns it."""
        streams = all_gather(random_state(self.device))
        with self.evaluation_weights():
            weights = dict(self.model.state_dict())
            averaged = any(
                type(c).evaluation_weights is not Callback.evaluation_weights for c in self.callbacks
            )
            if averaged:
                weights = {name: value.clone() for name, value in weights.items()}
        checkpoint = None
        if is_main_process():
            state = self._training_state(streams)
            if averaged:
                state["model"] = self.model.state_dict()
            checkpoint = save_checkpoint(
                folder,
                weights=weights,
                training_state=state,
                config=self.config,
                metadata={
                    "step": self.step,
                    "max_steps": self.max_steps,
                    "world_size": world_size(),
                    "metrics": self.metrics,
                    "dataset": self.metadata.to_dict()
                    if hasattr(self.metadata, "to_dict")
                    else self.metadata,
                },
            )
        barrier()
        return checkpoint

    def _train_step(self) -> None:
        began = time.perf_counter()
        self.data_seconds, self.images = 0.0, 0
        sums: dict[str, Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for micro_step in range(self.accumulate):
            batch = self._next_batch()
            last = micro_step == self.accumulate - 1
            with nullcontext() if last else self._without_synchronisation():
                with self.autocast():
                    losses = _checked(self._parallel(batch))
                for callback in self.callbacks:
                    callback.on_losses(self, batch, losses)
                total = torch.stack([loss.float() for loss in losses.values()]).sum()
                self.scaler.scale(total / self.accumulate).backward()
            for name, loss in losses.items():
                share = loss.detach() / self.accumulate
                sums[name] = sums[name] + share if name in sums else share
        self.losses = sums
        self._clip()
        for callback in self.callbacks:
            callback.on_gradients(self)
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scheduler is not None:
            self.scheduler.step()
        self.step_seconds = time.perf_counter() - began

    def _next_batch(self) -> Batch:
        began = time.perf_counter()
        # Starting a loader may itself draw random numbers, and a resumed run starts it at another time.
        streams = random_state(self.device) if self._loader_starts and self.resumed_from else None
        try:
            batch = next(self._batches)
        except Exception:
            if self.interrupted and not self.images:  # the signal went to the loader's workers too
                self.raise_if_interrupted()
            raise
        if streams is not None:
            set_random_state(streams, self.device)
        self._loader_starts = False
        self.data_seconds += time.perf_counter() - began
        self.images += len(batch)
        return batch

    def _without_synchronisation(self) -> AbstractContextManager[Any]:
        parallel = self._parallel
        return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else nullcontext()

    def _clip(self) -> None:
        if self.clip_norm is None and self.clip_value is None:
            return
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, self.clip_value)
        if self.clip_norm is not None:
            self.gradient_norm = nn.utils.clip_grad_norm_(parameters, self.clip_norm)

    def _each(self, hook: str) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self)

    def _clean_up(self, error: BaseException) -> None:
        for callback in self.callbacks:
            try:
                callback.on_exception(self, error)
            except Exception as another:  # the first error is the one to report
                self.print(escape(f"{type(callback).__name__} failed while the run ended: {another}"))

    def _start(self, resume: bool | str | Path) -> None:
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.should_stop = False
        seed_everything(self.seed, rank=rank())
        checkpoint = self._find(resume)
        self.resumed_from = checkpoint.path if checkpoint is not None else None
        streams = self._restore(checkpoint) if checkpoint is not None else None
        self.model.train()
        if world_size() > 1:
            self._parallel = DistributedDataParallel(
                self.model,
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
                find_unused_parameters=self.find_unused_parameters,
            )
        self._batches = _endless(self.train_loader)
        self._loader_starts = True
        if streams is not None:
            set_random_state(streams, self.device)

    def _find(self, resume: bool | str | Path) -> Checkpoint | None:
        if resume is False or resume is None:
            return None
        if resume is True or resume == "auto":
            last = find_last_checkpoint(self.output_dir)
            return load_checkpoint(last) if last is not None else None
        return load_checkpoint(resume)

    def _training_state(self, streams: list[dict[str, Any]]) -> dict[str, Any]:
        modules = {
            name: module.training_state()
            for name, module in self.model.named_modules()
            if hasattr(module, "training_state") and hasattr(module, "load_training_state")
        }
        state_of_loader = getattr(self.train_loader, "state_dict", None)
        return {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "scaler": self.scaler.state_dict(),
            "random": streams,
            "loader": state_of_loader() if state_of_loader is not None else None,
            "modules": modules,
            "callbacks": {name: c.state_dict() for name, c in self._named_callbacks().items()},
            "metrics": self.metrics,
        }

    def _named_callbacks(self) -> dict[str, Callback]:
        named: dict[str, Callback] = {}
        for callback in self.callbacks:
            name, count = type(callback).__name__, 1
            while (key := name if count == 1 else f"{name}-{count}") in named:
                count += 1
            named[key] = callback
        return named

    def _restore(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        """Everything but the random streams, which are returned: the last thing to put back."""
        state = checkpoint.training_state()
        try:
            self.model.load_state_dict(state.get("model") or checkpoint.weights())
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"cannot resume from {checkpoint.path}: it does not fit this run ({reason}); "
                "init_from takes weights only"
            ) from error
        if (self.scheduler is None) != (state["scheduler"] is None):
            raise ValueError(f"cannot resume from {checkpoint.path}: only one of the two runs has a schedule")
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if state["loader"] is not None and hasattr(self.train_loader, "load_state_dict"):
            self.train_loader.load_state_dict(state["loader"])
        else:
            warnings.warn("the training loader cannot continue where it was: it starts anew", stacklevel=2)
        named_modules = dict(self.model.named_modules())
        for name, module_state in state["modules"].items():
            named_modules[name].load_training_state(module_state)
        for name, callback in self._named_callbacks().items():
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])
        self.step = int(state["step"])
        self.metrics = dict(state["metrics"])
        streams = state["random"]
        if len(streams) != world_size():
            warnings.warn(
                f"{checkpoint.path} was written by {len(streams)} processes, this run has {world_size()}: "
                "it continues, but not exactly",
                stacklevel=2,
            )
        return streams[rank()] if rank() < len(streams) else None


def _checked(losses: Any) -> dict[str, Tensor]:
    if not isinstance(losses, Mapping) or not losses:
        what = "an empty dict" if isinstance(losses, Mapping) else type(losses).__name__
        raise TypeError(f"in training mode the model must return a dict of losses, it returned {what}")
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            what = (
                f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            )
            raise TypeError(f"loss {name!r} must be a scalar tensor, it is {what}")
    return dict(losses)


def _endless(loader: Iterable[Batch]) -> Generator[Batch, None, None]:
    while True:
        empty = True
        batches = iter(loader)
        try:
            for batch in batches:
                empty = False
                yield batch
        finally:
            if hasattr(batches, "close"):
                batches.close()
        if empty:
            raise ValueError("the training loader gives no batch")
