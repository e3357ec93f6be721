"""Evaluate the model at an interval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING

from rich.markup import escape

from hydet.data import EvaluationLoader
from hydet.distributed import world_size
from hydet.evaluation import Evaluator, evaluate
from hydet.evaluation.ground_truth_notes import describe_ground_truth, merged_report
from hydet.structures import ModelInput, ModelOutput

from ..model_outputs import move_to_cpu
from ..protocols import Batch, Example, StateDict
from .callback import Callback
from .step_interval import check_interval, is_due

if TYPE_CHECKING:
    from rich.table import Table

    from ..trainer import Trainer

__all__ = ["Evaluation", "ExampleCollector"]


class Evaluation(Callback):
    """Evaluate at an interval and after the last step, and print the tables.

    The model is evaluated with the weights of ``Trainer.evaluation_weights``. An evaluation that a signal interrupts
    runs again when the run continues.

    Args:
        every: steps between two evaluations; 0 evaluates after the last step only.
        loader: finite loader of batches of model inputs.
        evaluators: see ``hydet.evaluation.Evaluator``.
        with_losses: also compute the validation loss, in the same forward pass.
        num_examples: number of images to keep, with their results, in ``trainer.examples``.
    """

    def __init__(
        self,
        *,
        every: int,
        loader: Iterable[Batch],
        evaluators: Sequence[Evaluator] | Evaluator,
        with_losses: bool = True,
        num_examples: int = 8,
    ) -> None:
        if num_examples < 0:
            raise ValueError(f"num_examples must not be negative, got {num_examples}")
        self.every = 0 if every == 0 else check_interval(every)
        self.loader = loader
        self.evaluators = list(evaluators) if isinstance(evaluators, Sequence) else [evaluators]
        self.with_losses = with_losses
        self.num_examples = num_examples
        self.evaluated_step = 0

    def on_fit_start(self, trainer: Trainer) -> None:
        """Run the evaluation that an interrupted run missed."""
        was_due = trainer.step > 0 and is_due(trainer.step, self.every, trainer.max_steps)
        if was_due and self.evaluated_step != trainer.step:
            self.run(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        """Evaluate if it is time."""
        if is_due(trainer.step, self.every, trainer.max_steps):
            self.run(trainer)

    def run(self, trainer: Trainer) -> None:
        """Evaluate now."""
        examples = ExampleCollector(self.num_examples)
        progress = trainer.terminal.progress
        with trainer.evaluation_weights() as model, trainer.autocast():
            metrics = evaluate(
                model,
                _InterruptibleLoader(self.loader, trainer),
                [*self.evaluators, examples],
                with_losses=self.with_losses,
                progress=progress if progress is not None else False,
            )
        self.evaluated_step = trainer.step
        trainer.print(f"[bold]Evaluation after step {trainer.step}[/bold]")
        for evaluator in self.evaluators:
            for table in evaluator.tables():
                trainer.print(table)
        if isinstance(self.loader, EvaluationLoader):
            for line in describe_ground_truth(merged_report(self.loader.dataset.report())):
                trainer.print(escape(line))
        losses = {k.removeprefix("val_loss/"): v for k, v in metrics.items() if k.startswith("val_loss/")}
        if losses:
            trainer.print(
                "validation loss  " + "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
            )
        trainer.finish_evaluation(metrics, examples.examples)

    def state_dict(self) -> StateDict:
        """Return the step of the last evaluation."""
        return {"evaluated_step": self.evaluated_step}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a state that ``state_dict`` returned."""
        self.evaluated_step = int(state["evaluated_step"])


class _InterruptibleLoader:
    """A loader that ends an evaluation when a signal arrives.

    With several processes the evaluation runs to its end, since a check per batch would synchronize them.
    """

    def __init__(self, loader: Iterable[Batch], trainer: Trainer) -> None:
        self.loader = loader
        self.trainer = trainer

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if world_size() == 1:
                self.trainer.raise_if_interrupted()
            yield batch

    def __len__(self) -> int:
        return len(self.loader) if isinstance(self.loader, Sized) else 0


class ExampleCollector:
    """An evaluator without metrics that keeps the first images and their results, with masks relative to the boxes."""

    takes_roi_masks = True

    def __init__(self, count: int) -> None:
        self.count = count
        self.examples: list[Example] = []

    def reset(self) -> None:
        """Discard the examples."""
        self.examples = []

    def update(self, inputs: Sequence[ModelInput], outputs: Sequence[ModelOutput]) -> None:
        """Keep the images of one batch while there are too few."""
        for entry, output in zip(inputs, outputs, strict=True):
            if len(self.examples) < self.count:
                self.examples.append(Example(entry, move_to_cpu(output)))

    def compute(self) -> dict[str, float]:
        """Return no metrics."""
        return {}

    def tables(self) -> list[Table]:
        """Return no tables."""
        return []
