import pytest

from hydet.engine import Callback, CallbackPhase


class Recorder(Callback):
    def __init__(self, name, events):
        self.name, self.events = name, events

    def on_fit_start(self, trainer):
        self.events.append((self.name, "on_fit_start"))

    def on_step_end(self, trainer):
        self.events.append((self.name, "on_step_end"))


def test_callbacks_run_by_phase_and_then_in_the_order_of_the_list(tiny, tmp_path):
    class Early(Recorder):
        phase = CallbackPhase.AVERAGE_WEIGHTS

    class Late(Recorder):
        phase = CallbackPhase.AFTER_CHECKPOINT

    events = []
    callbacks = [Late("late", events), Recorder("a", events), Recorder("b", events), Early("early", events)]
    tiny.build_trainer(tmp_path, max_steps=1, callbacks=callbacks).fit()
    names = ["early", "a", "b", "late"]
    assert events == [(name, hook) for hook in ("on_fit_start", "on_step_end") for name in names]


def test_phases_are_ordered_by_what_they_depend_on():
    names = [phase.name for phase in sorted(CallbackPhase)]
    assert names == [
        "AVERAGE_WEIGHTS",
        "PREPARE_EVALUATION",
        "SHOW_PROGRESS",
        "DEFAULT",
        "SAVE_CHECKPOINT",
        "AFTER_CHECKPOINT",
    ]


def test_the_old_order_attribute_is_an_error():
    with pytest.raises(TypeError, match=r"Old: callbacks are no longer sorted by 'order'.*SAVE_CHECKPOINT"):

        class Old(Callback):
            order = 100


def test_every_hook_has_a_default(tiny, tmp_path):
    trainer = tiny.build_trainer(tmp_path, callbacks=[Callback()], max_steps=1)
    trainer.fit()
    trainer.finish_evaluation({"quality": 1.0})
    assert Callback().state_dict() == {} and Callback().evaluation_weights(trainer) is None


def test_builtin_callbacks_assign_no_attributes_of_the_trainer(tiny, tmp_path):
    from hydet.engine import Trainer
    from hydet.engine.callbacks import EMA, Checkpoints, ConsoleLog, EarlyStopping, Evaluation, NanGuard

    class Guarded(Trainer):
        def __setattr__(self, name, value):
            import sys

            caller = sys._getframe(1).f_globals["__name__"]
            assert not caller.startswith("hydet.engine.callbacks"), f"{caller} assigns trainer.{name}"
            super().__setattr__(name, value)

    evaluation = Evaluation(every=1, loader=tiny.make_batches(), evaluators=tiny.Metric([1.0, 0.5, 0.4]))
    callbacks = [
        evaluation,
        EMA(),
        NanGuard(),
        ConsoleLog(every=1),
        EarlyStopping(metric="quality", patience=1),
        Checkpoints(every=1, best="quality"),
    ]
    trainer = tiny.build_trainer(tmp_path, callbacks=callbacks)
    trainer.__class__ = Guarded
    trainer.fit()
    assert trainer.step == 2


def test_the_old_name_of_the_image_hook_is_an_error():
    with pytest.raises(TypeError, match="'on_picture' is now called 'on_image'"):
        type("Old", (Callback,), {"on_picture": lambda self, trainer, name, image: None})
