import pytest

from hydet.engine import load_checkpoint
from hydet.engine.callbacks import Checkpoints, EarlyStopping, Evaluation


def make_evaluation(tiny, values=None):
    return Evaluation(every=1, loader=tiny.make_batches(), evaluators=tiny.Metric(values))


def test_the_run_ends_without_improvement(tiny, tmp_path, capsys):
    evaluation = make_evaluation(tiny, [0.1, 0.2, 0.15, 0.2, 0.9, 0.9])
    stop = EarlyStopping(metric="quality", patience=2)
    trainer = tiny.build_trainer(tmp_path, callbacks=[stop, evaluation, Checkpoints(every=100)])
    trainer.fit()
    assert trainer.step == 4
    assert load_checkpoint(tmp_path).step == 4
    assert "quality has not improved on 0.2 for 2 evaluations" in " ".join(capsys.readouterr().out.split())


def test_the_count_continues_after_a_resume(tiny, tmp_path):
    def build(values, max_steps):
        stop = EarlyStopping(metric="quality", patience=2)
        callbacks = [stop, make_evaluation(tiny, values), Checkpoints(every=1)]
        return tiny.build_trainer(tmp_path, max_steps=max_steps, callbacks=callbacks)

    build([0.5, 0.4], 2).fit()
    rest = build([0.4, 0.4], 6)
    rest.fit(resume="auto")
    assert rest.step == 3


@pytest.mark.parametrize("change", [{"metric": "speed"}, {"mode": "min"}])
def test_a_best_value_of_another_metric_or_mode_is_not_restored(change):
    first = EarlyStopping(metric="quality", patience=2)
    first.best_value, first.waited = 0.5, 1
    second = EarlyStopping(**{"metric": "quality", "patience": 3, **change})
    second.load_state_dict(first.state_dict())
    assert (second.best_value, second.waited) == (None, 0)
    third = EarlyStopping(metric="quality", patience=3)
    third.load_state_dict({"best_value": 0.5, "waited": 1})  # of version 0.2
    assert (third.best_value, third.waited) == (0.5, 1)


def test_unknown_metrics_name_the_nearest(tiny, tmp_path):
    callbacks = [make_evaluation(tiny), EarlyStopping(metric="qualty")]
    with pytest.raises(ValueError, match="nearest: 'quality'"):
        tiny.build_trainer(tmp_path, callbacks=callbacks).fit()


@pytest.mark.parametrize("options", [{"patience": 0}, {"min_delta": -1}, {"mode": "most"}])
def test_invalid_arguments_are_rejected(options):
    with pytest.raises(ValueError):
        EarlyStopping(metric="a", **options)
