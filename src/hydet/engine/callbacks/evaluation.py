"""Evaluation from time to time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

from hydet.distributed import world_size
from hydet.evaluation import Evaluator, evaluate

from .callback import Callback
from .loss_window import check_every, is_due

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["Evaluation"]


class Evaluation(Callback):
    """Evaluates every so many steps and after the last one, and prints the tables.

    The weights are those of ``Trainer.evaluation_weights``. An evaluation that a signal interrupts is made up for
    when the run continues.

    Args:
        every: steps between evaluations.
        loader: finite, batches of model inputs.
        evaluators: see ``hydet.evaluation.Evaluator``.
        with_losses: also the validation loss, from the same pass.
        pictures: the first so many images with their results are kept in ``trainer.examples``.
    """

    def __init__(
        self,
        *,
        every: int,
        loader: Iterable[Sequence[Mapping[str, Any]]],
        evaluators: Sequence[Evaluator] | Evaluator,
        with_losses: bool = True,
        pictures: int = 8,
    ) -> None:
        if pictures < 0:
            raise ValueError(f"pictures must not be negative, got {pictures}")
        self.every = check_every(every)
        self.loader = loader
        self.evaluators = list(evaluators) if isinstance(evaluators, Sequence) else [evaluators]
        self.with_losses = with_losses
        self.pictures = pictures
        self.evaluated_step = 0

    def on_fit_start(self, trainer: Trainer) -> None:
        missed = trainer.step > 0 and is_due(trainer.step, self.every, trainer.max_steps)
        if missed and self.evaluated_step != trainer.step:
            self.run(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        if is_due(trainer.step, self.every, trainer.max_steps):
            self.run(trainer)

    def run(self, trainer: Trainer) -> None:
        """Evaluate now."""
        examples = _Examples(self.pictures)
        with trainer.evaluation_weights() as model, trainer.autocast():
            metrics = evaluate(
                model,
                _Interruptible(self.loader, trainer),
                [*self.evaluators, examples],
                with_losses=self.with_losses,
                progress=trainer.progress if trainer.progress is not None else False,
            )
        self.evaluated_step = trainer.step
        trainer.examples = examples.pairs
        trainer.print(f"[bold]Evaluation after step {trainer.step}[/bold]")
        for evaluator in self.evaluators:
            for table in evaluator.tables():
                trainer.print(table)
        losses = {k.removeprefix("val_loss/"): v for k, v in metrics.items() if k.startswith("val_loss/")}
        if losses:
            trainer.print(
                "validation loss  " + "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
            )
        trainer.evaluated(metrics)

    def state_dict(self) -> dict[str, Any]:
        return {"evaluated_step": self.evaluated_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.evaluated_step = int(state["evaluated_step"])


class _Interruptible:
    """The loader, which on a single process ends an evaluation as soon as the run is asked to stop."""

    def __init__(self, loader: Iterable[Any], trainer: Trainer) -> None:
        self.loader = loader
        self.trainer = trainer

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if world_size() == 1:
                self.trainer.raise_if_interrupted()
            yield batch

    def __len__(self) -> int:
        return len(self.loader) if isinstance(self.loader, Sized) else 0


class _Examples:
    """An evaluator that keeps the first images."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.reset()

    def reset(self) -> None:
        self.pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []

    def update(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        for entry, output in zip(inputs, outputs, strict=True):
            if len(self.pairs) < self.count:
                self.pairs.append(
                    (entry, {k: v.to("cpu") if hasattr(v, "to") else v for k, v in output.items()})
                )

    def compute(self) -> dict[str, float]:
        return {}

    def tables(self) -> list[Any]:
        return []
