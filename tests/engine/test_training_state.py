import json
import multiprocessing as mp
import os
import signal
from pathlib import Path

import pytest
import torch

from hydet.engine import (
    Callback,
    TrainingInterrupted,
    checkpoint_folder,
    find_last_checkpoint,
    load_checkpoint,
)
from hydet.engine.callbacks import EMA, Checkpoints, EarlyStopping, Evaluation


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def make_callbacks(tiny):
    evaluation = Evaluation(every=2, loader=tiny.make_batches(), evaluators=[tiny.Metric()])
    return [evaluation, EMA(decay=0.5), EarlyStopping(metric="quality", patience=50), Checkpoints(every=3)]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cut", [3, 2])
def test_a_resumed_run_ends_like_an_uninterrupted_run(tiny, tmp_path, num_workers, cut):
    """Weights, averages, optimizer, schedule and random states are equal bit for bit."""

    def build(folder, max_steps):
        loader = tiny.Loader(num_workers=num_workers)
        return tiny.build_trainer(
            tmp_path / folder,
            loader=loader,
            max_steps=max_steps,
            callbacks=make_callbacks(tiny),
            accumulate=2,
        )

    whole = build("whole", 6)
    whole.fit()
    build("cut", cut).fit()
    torch.rand(11)  # the state of this process must not matter
    rest = build("cut", 6)
    rest.fit(resume="auto")
    assert rest.step == 6
    assert_same(whole.model.state_dict(), rest.model.state_dict())
    assert whole.model.normalizer == rest.model.normalizer
    first, second = (load_checkpoint(tmp_path / f) for f in ("whole", "cut"))
    assert_same(first.weights(), second.weights())
    states = [c.training_state() for c in (first, second)]
    torch.testing.assert_close(states[0]["optimizer"], states[1]["optimizer"], rtol=0, atol=0)
    assert states[0]["scheduler"] == states[1]["scheduler"]
    assert states[0]["loader"] == states[1]["loader"] == {"taken": 12}
    assert torch.equal(states[0]["random"][0]["torch"], states[1]["random"][0]["torch"])
    assert first.metrics == second.metrics


class KillAt(Callback):
    def __init__(self, step, signum):
        self.step, self.signum = step, signum

    def on_step_start(self, trainer):
        if trainer.step == self.step:
            os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_and_writes_a_checkpoint(tiny, tmp_path, signum, status, capsys):
    before = signal.getsignal(signum)
    trainer = tiny.build_trainer(tmp_path / "cut", callbacks=[KillAt(1, signum), Checkpoints(every=100)])
    with pytest.raises(TrainingInterrupted) as info:
        trainer.fit()
    assert info.value.code == status
    assert trainer.step == 2
    assert signal.getsignal(signum) is before
    output = " ".join(capsys.readouterr().out.split())
    assert "after step 2" in output and "resume=auto" in output
    rest = tiny.build_trainer(tmp_path / "cut", callbacks=[Checkpoints(every=100)])
    rest.fit(resume=True)
    whole = tiny.build_trainer(tmp_path / "whole")
    whole.fit()
    assert_same(whole.model.state_dict(), rest.model.state_dict())


@pytest.mark.forks
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_also_reaches_the_loader_workers(tiny, tmp_path, signum):
    """A terminal sends Ctrl-C, and a cluster scheduler SIGTERM, to all processes of the group."""

    class KillGroup(Callback):
        def on_step_end(self, trainer):
            if trainer.step == 2:
                os.killpg(0, signum)

    def work():
        os.setsid()
        callbacks = [KillGroup(), Checkpoints(every=100)]
        loader = tiny.Loader(num_workers=2)
        tiny.build_trainer(tmp_path, loader=loader, callbacks=callbacks, max_steps=50).fit()

    run = mp.get_context("fork").Process(target=work)
    run.start()
    run.join(60)
    assert run.exitcode == 128 + signum
    assert load_checkpoint(tmp_path).step == 2


def test_a_signal_in_the_last_step_changes_nothing(tiny, tmp_path):
    trainer = tiny.build_trainer(tmp_path, callbacks=[KillAt(5, signal.SIGTERM), Checkpoints(every=100)])
    trainer.fit()
    assert load_checkpoint(tmp_path).step == 6


def test_an_interrupted_evaluation_runs_after_the_resume(tiny, tmp_path):
    class Slow(list):
        def __iter__(self):
            for i, batch in enumerate(super().__iter__()):
                if i == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    def build(loader, folder):
        metric = tiny.Metric()
        evaluation = Evaluation(every=2, loader=loader, evaluators=metric)
        callbacks = [evaluation, Checkpoints(every=100, best="quality")]
        return metric, tiny.build_trainer(tmp_path / folder, max_steps=3, callbacks=callbacks)

    metric, trainer = build(Slow(tiny.make_batches(3)), "cut")
    with pytest.raises(TrainingInterrupted):
        trainer.fit()
    assert trainer.step == 2 and metric.calls == 0
    metric, rest = build(tiny.make_batches(3), "cut")
    rest.fit(resume="auto")
    assert metric.calls == 2  # of step 2, after the resume, and of step 3
    _, whole = build(tiny.make_batches(3), "whole")
    whole.fit()
    assert_same(whole.model.state_dict(), rest.model.state_dict())
    pointers = [os.readlink(tmp_path / f / "checkpoints" / "best") for f in ("cut", "whole")]
    assert pointers[0] == pointers[1]


def test_auto_without_a_checkpoint_starts_a_new_run(tiny, tmp_path):
    trainer = tiny.build_trainer(tmp_path, max_steps=1)
    trainer.fit(resume="auto")
    assert trainer.step == 1


def test_a_new_run_over_another_run_is_an_error(tiny, tmp_path):
    tiny.build_trainer(tmp_path, max_steps=1, callbacks=[Checkpoints(every=1)]).fit()
    with pytest.raises(FileExistsError, match="resume=auto"):
        tiny.build_trainer(tmp_path, max_steps=1, callbacks=[Checkpoints(every=1)]).fit()


def test_a_finished_run_has_nothing_to_do(tiny, tmp_path):
    for _ in range(2):
        trainer = tiny.build_trainer(tmp_path, max_steps=2, callbacks=[Checkpoints(every=1)])
        trainer.fit(resume="auto")
        assert trainer.step == 2


def test_resume_from_a_path(tiny, tmp_path):
    tiny.build_trainer(tmp_path / "a", max_steps=4, callbacks=[Checkpoints(every=2)]).fit()
    trainer = tiny.build_trainer(tmp_path / "b", callbacks=[Checkpoints(every=2)])
    trainer.fit(resume=tmp_path / "a" / "checkpoints" / "step_00000002")
    whole = tiny.build_trainer(tmp_path / "whole")
    whole.fit()
    assert_same(whole.model.state_dict(), trainer.model.state_dict())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        trainer.fit(resume=tmp_path / "nowhere")


def test_a_checkpoint_of_another_model_is_an_error(tiny, tmp_path):
    tiny.build_trainer(tmp_path, max_steps=1, callbacks=[Checkpoints(every=1)]).fit()
    other = tiny.Model()
    other.head = torch.nn.Linear(8, 2)
    with pytest.raises(ValueError, match="cannot resume"):
        tiny.build_trainer(tmp_path, model=other).fit(resume="auto")


def test_a_loader_without_a_position_warns(tiny, tmp_path):
    loader = tiny.make_batches()
    tiny.build_trainer(tmp_path, loader=loader, max_steps=1, callbacks=[Checkpoints(every=1)]).fit()
    with pytest.warns(UserWarning, match="starts again"):
        tiny.build_trainer(tmp_path, loader=loader, max_steps=2).fit(resume="auto")


@pytest.mark.forks
@pytest.mark.parametrize("victim", ["save_file", "torch.save", "json.dumps", "os.rename"])
def test_a_run_killed_while_it_writes_a_checkpoint(tiny, tmp_path, victim):
    """After SIGKILL in the second checkpoint, the run continues from the first, which is complete."""
    owner, name = {
        "save_file": (checkpoint_folder, "save_file"),
        "torch.save": (torch, "save"),
        "json.dumps": (json, "dumps"),
        "os.rename": (os, "rename"),
    }[victim]

    class Arm(Callback):
        def on_step_end(self, trainer):
            if trainer.step == 4:
                setattr(owner, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))

    callbacks = [Arm(), Checkpoints(every=2)]
    run = mp.get_context("fork").Process(target=tiny.build_trainer(tmp_path / "cut", callbacks=callbacks).fit)
    run.start()
    run.join()
    assert run.exitcode == -signal.SIGKILL
    names = [p.name for p in (tmp_path / "cut" / "checkpoints").iterdir()]
    assert any(name.startswith(".unfinished") for name in names)
    assert find_last_checkpoint(tmp_path / "cut").name == "step_00000002"
    rest = tiny.build_trainer(tmp_path / "cut", callbacks=[Checkpoints(every=2)])
    rest.fit(resume="auto")
    assert not any(p.name.startswith(".") for p in (tmp_path / "cut" / "checkpoints").iterdir())
    whole = tiny.build_trainer(tmp_path / "whole")
    whole.fit()
    assert_same(whole.model.state_dict(), rest.model.state_dict())


# A checkpoint that hydet 0.1 wrote after step 3 of the run in `test_a_checkpoint_of_version_0_1_continues_its_run`, and
# the weights of the head after its step 6 without interruption.
OLD_CHECKPOINT = Path(__file__).parent / "checkpoints_of_version_0_1" / "step_00000003"
OLD_HEAD = [
    0.02192234,
    -0.17717023,
    0.05693614,
    -0.33095905,
    -0.25652468,
    -0.16798483,
    0.23286258,
    0.21104580,
]


def test_a_checkpoint_of_version_0_1_continues_its_run(tiny, tmp_path):
    callbacks = make_callbacks(tiny)
    callbacks[-1] = Checkpoints(every=3, best="quality")
    trainer = tiny.build_trainer(tmp_path, callbacks=callbacks, accumulate=2)
    trainer.fit(resume=OLD_CHECKPOINT)
    assert trainer.step == 6 and callbacks[1].updates == 6
    torch.testing.assert_close(
        trainer.model.head.weight.detach()[0], torch.tensor(OLD_HEAD), rtol=1e-4, atol=1e-6
    )
    assert callbacks[-1].best_step is not None
    assert trainer.metrics["quality"] == pytest.approx(-0.3878329, rel=1e-4)
