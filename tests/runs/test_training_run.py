"""A training run from a composed config, without the command."""

import pytest

import hydet
from hydet.config import ConfigError
from hydet.runs.training_run import build_training_run


def test_parts_of_a_run(shapes_overrides, tmp_path):
    config = hydet.compose(*shapes_overrides, "model=retinanet", "trainer.accumulate=2", "optimizer.lr=0.01")
    run = build_training_run(config, output_dir=tmp_path, device="cpu")
    assert run.images_per_step == 4
    assert run.scaled_lr == pytest.approx(0.01 * 4 / 16)
    assert run.metric == "box/AP" == config.evaluation.metric
    assert {split: len(dataset) for split, dataset in run.datasets.items()} == {"train": 8, "val": 4}
    assert run.initialization is None
    assert run.trainer.max_steps == 2


def test_an_optimizer_without_a_learning_rate(shapes_overrides, tmp_path):
    config = hydet.compose(*shapes_overrides, "model=retinanet", "~optimizer.lr")
    run = build_training_run(config, output_dir=tmp_path, device="cpu")
    assert run.scaled_lr is None


def test_groups_that_are_left_out(shapes_overrides, tmp_path):
    overrides = [o for o in shapes_overrides if not o.startswith("logger")]
    config = hydet.compose(*overrides, "model=retinanet", "~logger", "~callbacks", "~schedule")
    run = build_training_run(config, output_dir=tmp_path, device="cpu")
    assert [type(callback).__name__ for callback in run.trainer.callbacks] == ["Evaluation"]


def test_no_validation_data(shapes_overrides, tmp_path):
    overrides = [o for o in shapes_overrides if not o.startswith("data.val")]
    run = build_training_run(
        hydet.compose(*overrides, "model=retinanet", "data.val=null"), output_dir=tmp_path, device="cpu"
    )
    assert list(run.datasets) == ["train"]


def test_resume_from_a_checkpoint_of_other_classes_is_refused(tiny_checkpoint, shapes_overrides, tmp_path):
    config = hydet.compose(*shapes_overrides, "data.class_names=[ellipse]", f"resume={tiny_checkpoint}")
    with pytest.raises(ConfigError, match=r"cannot resume from .*\(3\).*\(1\) ellipse"):
        build_training_run(config, output_dir=tmp_path, device="cpu")


def test_a_resumed_run_does_not_read_the_weights_of_init_from(
    tiny_checkpoint, shapes_overrides, tmp_path, edit_config, checkpoint
):
    """The same command continues the run, even if the file is gone; another file is refused."""
    gone = tmp_path / "gone.pth"
    edit_config(lambda config: config.update(init_from=str(gone)))
    common = [*shapes_overrides, "model=retinanet", f"resume={checkpoint}"]
    config = hydet.compose(*common, f"init_from={gone}")
    assert build_training_run(config, output_dir=tmp_path, device="cpu").initialization is None
    config = hydet.compose(*common, f"init_from={tiny_checkpoint}")
    with pytest.raises(
        ConfigError, match=r"init_from=.* cannot apply.*started from init_from=.*gone\.pth.*leave"
    ):
        build_training_run(config, output_dir=tmp_path, device="cpu")
