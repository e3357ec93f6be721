import pytest
import torch
from torch import nn

from hydet.engine.callbacks import Evaluation, PreciseBatchNorm


def statistics_of(batches, model):
    """Return mean and variance in front of the normalization, averaged over batches."""
    with torch.no_grad():
        hidden = [model.body[0](torch.stack([entry["x"] for entry in batch])) for batch in batches]
    mean = sum(h.mean(0) for h in hidden) / len(hidden)
    between = sum(h.mean(0) ** 2 for h in hidden) / len(hidden) - mean**2  # the mean of squares includes it
    return mean, sum(h.var(0) for h in hidden) / len(hidden) + between


def test_statistics_are_averages_over_the_next_batches(tiny, tmp_path):
    trainer = tiny.build_trainer(tmp_path, max_steps=4, callbacks=[PreciseBatchNorm(every=4, batches=3)])
    trainer.fit()
    loader = tiny.Loader()
    loader.load_state_dict(trainer.train_loader.state_dict())
    following = iter(loader)
    mean, var = statistics_of([next(following) for _ in range(3)], trainer.model)
    norm = trainer.model.body[1]
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)
    assert norm.momentum == 0.1 and trainer.model.training


def test_the_run_continues_as_if_nothing_had_happened(tiny, tmp_path):
    """Weights, random numbers, the loader's position and the model's training state do not depend on the callback."""
    with_it = tiny.build_trainer(tmp_path / "a", callbacks=[PreciseBatchNorm(every=2, batches=2)])
    without = tiny.build_trainer(tmp_path / "b")
    with_it.fit()
    without.fit()
    assert with_it.train_loader.state_dict() == without.train_loader.state_dict() == {"taken": 6}
    assert with_it.model.normalizer == without.model.normalizer
    changed = {
        name
        for name, value in without.model.state_dict().items()
        if not torch.equal(value, with_it.model.state_dict()[name])
    }
    assert changed == {"body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"}


def test_statistics_are_updated_before_the_evaluation_of_the_same_step(tiny, tmp_path):
    order = []

    class Metric(tiny.Metric):
        def compute(self):
            order.append("evaluated")
            return super().compute()

    class Precise(PreciseBatchNorm):
        def update(self, trainer):
            order.append("updated")
            super().update(trainer)

    evaluation = Evaluation(every=2, loader=tiny.make_batches(), evaluators=Metric())
    callbacks = [evaluation, Precise(every=2, batches=1)]
    tiny.build_trainer(tmp_path, max_steps=3, callbacks=callbacks).fit()
    assert order == ["updated", "evaluated"] * 2  # after steps 2 and 3, the last one


def test_a_model_without_batch_norm_is_an_error(tiny, tmp_path):
    class Plain(tiny.Model):
        def __init__(self):
            super().__init__()
            self.body[1] = nn.LayerNorm(8)

    trainer = tiny.build_trainer(tmp_path, model=Plain(), callbacks=[PreciseBatchNorm(every=1)])
    with pytest.raises(ValueError, match="no batch normalization"):
        trainer.fit()


def test_an_iterator_as_loader_is_an_error(tiny, tmp_path):
    loader = iter(tiny.make_batches(9))
    trainer = tiny.build_trainer(tmp_path, loader=loader, callbacks=[PreciseBatchNorm(every=1)])
    with pytest.raises(TypeError, match="new iterator each time"):
        trainer.fit()


@pytest.mark.parametrize(("every", "batches"), [(0, 1), (1, 0), (1, 2.5)])
def test_invalid_arguments_are_rejected(every, batches):
    with pytest.raises(ValueError):
        PreciseBatchNorm(every=every, batches=batches)
