"""A value of the wrong type names its key before any data are loaded."""

import pytest

import hydet
from hydet.config import ConfigError
from hydet.runs.config_values import (
    EVALUATE_VALUES,
    PREDICT_VALUES,
    STORED_VALUES,
    TRAIN_VALUES,
    check_values,
)

WRONG_TRAIN_VALUES = [
    ("optimizer.lr=abc", "optimizer.lr must be a number above 0, or null, got 'abc'"),
    ("optimizer.lr=-1", "optimizer.lr"),
    ("optimizer.lr=nan", "optimizer.lr"),
    ("optimizer.weight_decay=[1]", "optimizer.weight_decay"),
    ("seed=null", "seed must be a whole number that is not negative, got null"),
    ("seed=-1", "seed"),
    ("seed=1e30", "seed"),
    ("trainer.max_steps=x", "trainer.max_steps must be a whole number from 1, got 'x'"),
    ("trainer.max_steps=0", "trainer.max_steps"),
    ("trainer.max_steps=true", "trainer.max_steps"),
    ("trainer.clip_norm=nan", "trainer.clip_norm"),
    ("trainer.precision=int8", "trainer.precision must be auto or fp32 or bf16 or fp16"),
    ("trainer.find_unused_parameters=3", "trainer.find_unused_parameters must be true or false"),
    ("batch_size=0", "batch_size must be a whole number from 1, got 0"),
    ("batch_size=2.5", "batch_size"),
    ("num_workers=-1", "num_workers"),
    ("distributed_timeout=0", "distributed_timeout must be a number above 0, got 0"),
    ("evaluation.every=never", "evaluation.every"),
    ("evaluation.batch_size=[]", "evaluation.batch_size"),
    ("evaluation.backend=coco", "evaluation.backend must be faster_coco_eval or pycocotools"),
    ("proposals.topk=3", "proposals.topk must be two whole numbers"),
    ("resume=3", "resume must be true, false, auto or the path of a checkpoint"),
    ("init_from=''", "init_from must be a path, or null"),
]


@pytest.mark.parametrize(("override", "words"), WRONG_TRAIN_VALUES)
def test_values_of_train(override, words):
    with pytest.raises(ConfigError) as error:
        check_values(hydet.compose(override), TRAIN_VALUES)
    assert words in str(error.value)


@pytest.mark.parametrize("override", ["optimizer.lr=abc", "seed=null", "trainer.max_steps=x", "batch_size=0"])
def test_train_checks_values_before_it_loads_data(override, failure, tmp_path):
    line = failure("train", "data=coco_instance", "data.root=/nowhere", override, f"output_dir={tmp_path}")
    assert override.split("=")[0] in line and "nowhere" not in line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("split=test", "split must be train or val, got 'test'"),
        ("batch_size=0", "batch_size"),
        ("num_workers=x", "num_workers"),
        ("backend=coco", "backend must be faster_coco_eval or pycocotools, or null"),
        ("allow=os", "allow must be a list of packages"),
        ("tta=flip tta.flip=3", "tta.flip"),
        ("tta=flip tta.scales=[]", "tta.scales"),
    ],
)
def test_values_of_evaluate(override, words):
    config = hydet.compose("checkpoint=x", *override.split(), config_name="evaluate")
    with pytest.raises(ConfigError) as error:
        check_values(config, EVALUATE_VALUES)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [("score_threshold=2", "score_threshold must be a number in [0, 1]"), ("batch_size=null", "batch_size")],
)
def test_values_of_predict(override, words):
    config = hydet.compose("checkpoint=x", "input=y", override, config_name="predict")
    with pytest.raises(ConfigError) as error:
        check_values(config, PREDICT_VALUES)
    assert words in str(error.value)


def test_defaults_are_valid():
    check_values(hydet.compose(), TRAIN_VALUES)
    check_values(hydet.compose(), STORED_VALUES)
    check_values(hydet.compose(config_name="evaluate"), EVALUATE_VALUES)
    check_values(hydet.compose(config_name="predict"), PREDICT_VALUES)


def test_required_values_and_absent_keys():
    with pytest.raises(ConfigError, match="checkpoint is not set"):
        check_values({"checkpoint": "???"}, EVALUATE_VALUES, required=["checkpoint"])
    check_values({}, TRAIN_VALUES)
