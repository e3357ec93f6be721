import pytest
import torch

from hydet.engine import Callback, CallbackPhase, load_checkpoint
from hydet.engine.callbacks import EMA, Checkpoints


def test_the_average_is_evaluated_and_stored(tiny, tmp_path):
    seen = []

    class Listener(Callback):
        phase = CallbackPhase.AFTER_CHECKPOINT

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


def test_integer_buffers_are_copied(tiny, tmp_path):
    trainer = tiny.build_trainer(tmp_path, callbacks=[EMA()])
    trainer.fit()
    with trainer.evaluation_weights() as model:
        assert model.body[1].num_batches_tracked == 6


def test_the_warm_up_forgets_the_initial_weights_sooner(tiny, tmp_path):
    distances = []
    for warm_up in (True, False):
        trainer = tiny.build_trainer(tmp_path, callbacks=[EMA(decay=0.999, warm_up=warm_up)])
        trainer.fit()
        trained = trainer.model.head.weight.detach().clone()
        with trainer.evaluation_weights() as model:
            distances.append((model.head.weight.detach() - trained).norm())
    assert distances[0] < distances[1]


def test_trained_weights_return_after_an_error(tiny, tmp_path):
    trainer = tiny.build_trainer(tmp_path, callbacks=[EMA()])
    trainer.fit()
    trained = trainer.model.head.weight.detach().clone()
    with pytest.raises(RuntimeError), trainer.evaluation_weights():
        raise RuntimeError
    assert torch.equal(trainer.model.head.weight, trained)


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_invalid_decays_are_rejected(decay):
    with pytest.raises(ValueError, match="decay"):
        EMA(decay=decay)
