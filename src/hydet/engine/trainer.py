"""The training loop."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import RenderableType
from rich.markup import escape
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hydet.distributed import (
    all_gather,
    any_process,
    barrier,
    is_main_process,
    rank,
    select_device,
    synchronize_buffers,
    world_size,
)
from hydet.files import WriteError, naming_write_errors
from hydet.structures import Losses

from .batch_stream import BatchStream
from .callback_list import replaced_weights, sort_callbacks
from .callbacks.callback import Callback
from .checkpoint_folder import Checkpoint, CheckpointMetadata, save_checkpoint
from .checkpoint_search import VerifyHashes, find_checkpoint_to_resume, restore_replaced_checkpoints
from .checkpoint_values import ConfigLike
from .interruption import SIGPIPE, InterruptionWatch, TrainingInterrupted
from .loss_checks import check_losses
from .mixed_precision import MixedPrecision
from .output_failures import OutputFailures
from .parallel_model import parallel_model, without_gradient_synchronization
from .parameters import ParameterGroup, build_optimizer, parameter_groups
from .protocols import Batch, Example, MetadataLike, NormalizesPerStep
from .run_settings import describe_run
from .seeding import RandomState, random_state, seed_everything, set_random_state
from .terminal import Terminal
from .training_state import StatefulParts

__all__ = ["Trainer"]


class Trainer:
    """Train a model for a number of optimizer steps; evaluation, checkpoints and logs are callbacks.

    Args:
        model: in training mode, ``model(batch)`` returns a dict of scalar losses.
        train_loader: endless batches of model inputs; a loader that ends is started again. A loader with
            ``state_dict`` and ``load_state_dict`` lets a resumed run continue at the same batch.
        optimizer: factory that takes parameter groups, such as ``partial(torch.optim.SGD, lr=0.02)``, or an optimizer.
        scheduler: factory that takes the optimizer, such as ``partial(warmup_cosine, max_steps=1000)``, or a
            learning-rate scheduler, whose ``step`` is called after every optimizer step. None keeps the learning rate
            constant.
        max_steps: number of optimizer steps of the whole run.
        output_dir: folder in which callbacks write.
        callbacks: list of callbacks, or a mapping whose keys only name the entries in a config. None entries are
            skipped.
        groups: function from the model to parameter groups, used if ``optimizer`` is a factory; by default
            ``parameter_groups``, which excludes norms from weight decay.
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"``; see ``hydet.distributed.resolve_precision``.
            Weights stay float32.
        accumulate: number of batches per optimizer step, whose gradients are averaged.
        clip_norm: largest norm of all gradients together; None disables.
        clip_value: largest absolute value of an element of a gradient; None disables.
        clip_parameter_norm: largest norm of the gradient of one parameter; None disables.
        device: see ``hydet.distributed.select_device``.
        config: config of the run, stored in checkpoints.
        metadata: ``hydet.data.Metadata`` of the training data, stored in checkpoints.
        seed: seed of the random number generators of Python, NumPy and torch.
        find_unused_parameters: see ``DistributedDataParallel``; needed if some steps leave parameters without gradient.

    Attributes:
        step: number of optimizer steps done.
        losses: losses of the last step, averaged over its batches; detached, on the device.
        metrics: metrics of the last evaluation.
        examples: images of the last evaluation with their results.
        learning_rate: learning rate of the last step, in the first parameter group.
        gradient_norm: norm of all gradients before clipping, on the device; None without ``clip_norm``.
        images: number of images of the last step on this process.
        step_seconds: duration of the last step without callbacks.
        data_seconds: part of ``step_seconds`` in which the step waited for data.
        resumed_from: path of the checkpoint from which the run continues, or None.
        precision: autocast and loss scaling.
        terminal: prints text and shows the progress bar.

    Raises:
        ValueError: if a number is out of range.
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
        groups: Callable[[nn.Module], list[ParameterGroup]] = parameter_groups,
        precision: str = "fp32",
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        clip_parameter_norm: float | None = None,
        device: str | torch.device = "auto",
        config: ConfigLike | None = None,
        metadata: MetadataLike | Mapping[str, Any] | None = None,
        seed: int = 0,
        find_unused_parameters: bool = False,
    ) -> None:
        for name, value in (("max_steps", max_steps), ("accumulate", accumulate)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        limits = {
            "clip_norm": clip_norm,
            "clip_value": clip_value,
            "clip_parameter_norm": clip_parameter_norm,
        }
        for name, limit in limits.items():
            if limit is not None and not limit > 0:  # NaN, too
                raise ValueError(f"{name} must be positive, got {limit}; null switches it off")
        self.callbacks = sort_callbacks(callbacks)
        self.device = select_device(device)
        self.precision = MixedPrecision(precision, self.device)
        self.model = model.to(self.device)
        self.train_loader = train_loader
        if not isinstance(optimizer, Optimizer):
            optimizer = build_optimizer(optimizer, groups(model))
        self.optimizer: Optimizer = optimizer
        if scheduler is not None and not isinstance(scheduler, LRScheduler):
            scheduler = scheduler(self.optimizer)
        self.scheduler: LRScheduler | None = scheduler
        self.max_steps = max_steps
        self.output_dir = Path(output_dir)
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.clip_parameter_norm = clip_parameter_norm
        self.config = config
        self.metadata = metadata
        self.seed = seed
        self.find_unused_parameters = find_unused_parameters

        self.step = 0
        self.losses: Losses = {}
        self.metrics: dict[str, float] = {}
        self.examples: list[Example] = []
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self.gradient_norm: Tensor | None = None
        self.images = 0
        self.step_seconds = self.data_seconds = 0.0
        self.resumed_from: Path | None = None
        self.terminal = Terminal()
        self._stop_requested = False
        self._settings = describe_run(
            model=model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            callbacks=self.callbacks,
            values={
                "trainer.max_steps": max_steps,
                "trainer.precision": self.precision.name,
                "trainer.accumulate": accumulate,
                **{f"trainer.{name}": limit for name, limit in limits.items()},
                "seed": seed,
            },
        )
        self._watch = InterruptionWatch()
        self._failures = OutputFailures()
        self._batches = BatchStream((), device=self.device)
        self._parallel_model: nn.Module = model

    def fit(self, *, resume: bool | str | Path = False, verify: VerifyHashes = True) -> None:
        """Train until ``max_steps``.

        Args:
            resume: ``"auto"`` or True continues from the last checkpoint in ``output_dir``, and starts a new run if
                there is none; a path continues from that checkpoint; False starts a new run. Settings that differ from
                those of the checkpoint apply from here on, and each is printed.
            verify: compare the hashes of the checkpoint's files; see ``load_checkpoint``.

        Raises:
            TrainingInterrupted: after SIGTERM, Ctrl-C or the end of the reader of standard output, when the step is
                complete and the checkpoint is written.
            WriteError: if a file cannot be written. The step is complete then, and a checkpoint written where possible.
            FloatingPointError: if a callback or the model finds a non-finite loss.
            ValueError: if the checkpoint does not fit the run.
        """
        with self._watch:
            try:
                self._start(resume, verify)
                for callback in self.callbacks:
                    callback.on_fit_start(self)
                while self.step < self.max_steps and not self.should_stop:
                    self.raise_if_interrupted()
                    for callback in self.callbacks:
                        callback.on_step_start(self)
                    self._train_step()
                    self.step += 1
                    self._call(lambda callback: callback.on_step_end(self))
                self._failures.raise_on_all_processes()
                self._call(lambda callback: callback.on_fit_end(self))
                self._failures.raise_on_all_processes()
            except BaseException as error:
                self._notify_of_error(error)
                raise
            finally:
                self._batches.close()

    # Methods that callbacks call.

    @property
    def should_stop(self) -> bool:
        """True if a callback requested the end of the run."""
        return self._stop_requested

    def request_stop(self) -> None:
        """End the run after the current step."""
        self._stop_requested = True

    def finish_evaluation(self, metrics: Mapping[str, float], examples: Sequence[Example] = ()) -> None:
        """Set ``metrics`` and ``examples`` to the results of an evaluation, and notify the callbacks."""
        self.metrics = dict(metrics)
        self.examples = list(examples)
        self._call(lambda callback: callback.on_evaluation_end(self, self.metrics))

    def log_image(self, name: str, image: Tensor) -> None:
        """Pass an image, ``(3, H, W)`` uint8 RGB, to the callbacks that log."""
        self._call(lambda callback: callback.on_image(self, name, image))

    def print(self, *objects: RenderableType) -> None:
        """Print on the main process, above the progress bar if there is one; see ``Terminal.print``."""
        self.terminal.print(*objects)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the model computes in the precision of the run."""
        return self.precision.autocast()

    @contextmanager
    def evaluation_weights(self) -> Iterator[nn.Module]:
        """Yield the model with the weights to evaluate and to keep, such as their moving average."""
        with replaced_weights(self.callbacks, self):
            yield self.model

    @property
    def interrupted(self) -> bool:
        """True if this process received a signal to stop, or nothing reads its standard output any more."""
        return self._signum is not None

    @property
    def write_error(self) -> WriteError | None:
        """Error of a file that could not be written, with which all processes end after this step."""
        return self._failures.error

    @property
    def _signum(self) -> int | None:
        return SIGPIPE if self._watch.signum is None and self.terminal.closed else self._watch.signum

    def raise_if_interrupted(self) -> None:
        """Raise if any process received a signal to stop or could not write; every process must call this method.

        Raises:
            TrainingInterrupted: on all processes, so that they end after the same step.
            WriteError: on all processes, so that they end after the same step.
        """
        if any_process(self.interrupted or self.write_error is not None):
            self._failures.raise_on_all_processes()
            raise TrainingInterrupted(max(s or 0 for s in all_gather(self._signum)), self.step)

    def save(self, folder: str | Path) -> Checkpoint | None:
        """Write a checkpoint; every process must call this method.

        Returns:
            The checkpoint on the main process, which writes it, and None on the others.
        """
        random_states = all_gather(random_state(self.device))
        with replaced_weights(self.callbacks, self) as replaced:
            weights = dict(self.model.state_dict())
            if replaced:  # the trained weights return to the same tensors when the block ends
                weights = {name: value.clone() for name, value in weights.items()}
        checkpoint = None
        if is_main_process():
            state = self._parts().state(step=self.step, metrics=self.metrics, random=random_states)
            if replaced:
                state["model"] = self.model.state_dict()
            try:
                checkpoint = save_checkpoint(
                    folder,
                    weights=weights,
                    training_state=state,
                    config=self.config,
                    metadata=self._checkpoint_metadata(),
                )
            finally:  # the other processes wait, also if the disk is full
                barrier()
        else:
            barrier()
        return checkpoint

    # The step.

    def _train_step(self) -> None:
        start = time.perf_counter()
        self.data_seconds, self.images = 0.0, 0
        mean_losses: Losses = {}
        self.optimizer.zero_grad(set_to_none=True)
        per_step = self.model if isinstance(self.model, NormalizesPerStep) else None
        if per_step is not None:
            per_step.start_step(self.accumulate)
        for micro_step in range(self.accumulate):
            batch = self._next_batch()
            is_last = micro_step == self.accumulate - 1
            with nullcontext() if is_last else without_gradient_synchronization(self._parallel_model):
                with self.autocast():
                    losses = check_losses(self._parallel_model(batch))
                for callback in self.callbacks:
                    callback.on_losses(self, batch, losses)
                total = torch.stack([loss.float() for loss in losses.values()]).sum()
                self.precision.backward(total / self.accumulate)
            for name, loss in losses.items():
                share = loss.detach() / self.accumulate
                mean_losses[name] = mean_losses[name] + share if name in mean_losses else share
        factor = per_step.finish_step() if per_step is not None else None
        if factor is not None:
            self.precision.scale_gradients(self.optimizer, factor)
            mean_losses = {name: loss * factor for name, loss in mean_losses.items()}
        self.losses = mean_losses
        self.gradient_norm = self.precision.clip_gradients(
            self.optimizer,
            max_norm=self.clip_norm,
            max_value=self.clip_value,
            max_parameter_norm=self.clip_parameter_norm,
        )
        for callback in self.callbacks:
            callback.on_gradients(self)
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self.precision.step(self.optimizer)
        if self.scheduler is not None:
            self.scheduler.step()
        synchronize_buffers(self.model)  # averages, evaluations and checkpoints find them equal
        self.step_seconds = time.perf_counter() - start

    def _next_batch(self) -> Batch:
        start = time.perf_counter()
        try:
            batch = next(self._batches)
        except Exception:
            # A terminal or a cluster scheduler also sends the signal to the loader's workers, which then die. Before
            # the first batch of a step, this process can still end cleanly.
            if self.interrupted and not self.images:
                self.raise_if_interrupted()
            raise
        self.data_seconds += time.perf_counter() - start
        self.images += len(batch)
        return batch

    # Start, end and state.

    def _start(self, resume: bool | str | Path, verify: VerifyHashes) -> None:
        with naming_write_errors(self.output_dir):
            self.output_dir.mkdir(parents=True, exist_ok=True)
        if resume and is_main_process():
            restore_replaced_checkpoints(self.output_dir)
        barrier()
        self._stop_requested = False
        seed_everything(self.seed, rank=rank())
        checkpoint = find_checkpoint_to_resume(
            resume, self.output_dir, verify=verify, report=lambda line: self.print(escape(line))
        )
        self.resumed_from = checkpoint.path if checkpoint is not None else None
        state = self._restore(checkpoint) if checkpoint is not None else None
        self.model.train()
        self._parallel_model = parallel_model(
            self.model, device=self.device, find_unused_parameters=self.find_unused_parameters
        )
        self._batches = BatchStream(
            self.train_loader, device=self.device, keep_random_state=checkpoint is not None
        )
        if state is not None:  # last, since what comes before may draw random numbers
            set_random_state(state, self.device)

    def _parts(self) -> StatefulParts:
        return StatefulParts(
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            scaler=self.precision.scaler,
            loader=self.train_loader,
            callbacks=self.callbacks,
            settings=self._settings,
            config=self.config,
        )

    def _restore(self, checkpoint: Checkpoint) -> RandomState | None:
        """Restore everything except the random number generators, whose state is returned.

        Settings that differ from those of the checkpoint apply, and are printed. A seed that differs leaves the random
        number generators as they are.
        """
        restored = self._parts().restore(checkpoint)
        for line in restored.changes:
            self.print(escape(line))
        state = restored.state
        self.step = int(state["step"])
        if self.step >= self.max_steps:
            self.print(escape(f"{checkpoint.path}: all {self.max_steps} steps of trainer.max_steps are done"))
        self.metrics = dict(state["metrics"])
        random_states = state["random"]
        if len(random_states) != world_size():
            warnings.warn(
                f"{checkpoint.path} was written by {len(random_states)} processes, this run has {world_size()}: "
                "it continues, but not exactly",
                stacklevel=2,
            )
        if restored.seed_differs or rank() >= len(random_states):
            return None
        return random_states[rank()]

    def _checkpoint_metadata(self) -> CheckpointMetadata:
        metadata = self.metadata
        dataset = metadata.to_dict() if isinstance(metadata, MetadataLike) else metadata
        return {
            "step": self.step,
            "max_steps": self.max_steps,
            "world_size": world_size(),
            "metrics": cast("dict[str, float | None]", self.metrics),
            "dataset": None if dataset is None else dict(dataset),
        }

    def _call(self, hook: Callable[[Callback], None]) -> None:
        """Call a hook of all callbacks. If one cannot write, the others still run, and the step ends completely."""
        for callback in self.callbacks:
            with self._failures.collect():
                hook(callback)

    def _notify_of_error(self, error: BaseException) -> None:
        for callback in self.callbacks:
            try:
                callback.on_exception(self, error)
            except Exception as second_error:  # the caller needs to see the first error
                self.print(escape(f"{type(callback).__name__} failed while the run ended: {second_error}"))
