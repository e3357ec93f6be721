"""Published configurations: schedule, optimizer, evaluation."""

import bisect
from pathlib import Path

import pytest
import torch
import yaml

import hydet
from hydet.runs.tasks import EVALUATOR_OF_TASK

TREE = Path(__file__).parents[2] / "conf"


def solver_of(recipe):
    if not recipe.is_lazy:
        solver = recipe.settings("SOLVER")
        assert solver["LR_SCHEDULER_NAME"] == "WarmupMultiStepLR" and solver["WARMUP_METHOD"] == "linear"
        return {
            "optimizer": "SGD",
            "arguments": {"momentum": solver["MOMENTUM"], "nesterov": solver["NESTEROV"]},
            "steps": solver["MAX_ITER"],
            "milestones": solver["STEPS"],
            "gamma": solver["GAMMA"],
            "warmup": solver["WARMUP_ITERS"],
            "factor": solver["WARMUP_FACTOR"],
            "batch": solver["IMS_PER_BATCH"],
            "lr": solver["BASE_LR"],
            "decay": solver["WEIGHT_DECAY"],
            "norm_decay": solver["WEIGHT_DECAY_NORM"],
            "overrides": {},
        }
    schedule, optimizer = recipe.facts["lr_multiplier"], recipe.facts["optimizer"]
    steps = recipe.facts["train"]["max_iter"]
    assert schedule.get("warmup_method", "linear") == "linear"
    assert schedule["scheduler"]["values"] == [1.0, 0.1, 0.01]
    return {
        "optimizer": optimizer["_target_"].rpartition(".")[2],
        "arguments": {k: v for k, v in optimizer.items() if k in ("momentum", "betas")},
        "steps": steps,
        "milestones": [m for m in schedule["scheduler"]["milestones"] if m < steps],
        "gamma": 0.1,
        "warmup": schedule["warmup_length"] * steps,
        "factor": schedule["warmup_factor"],
        "batch": recipe.facts["dataloader"]["train"]["total_batch_size"],
        "lr": optimizer["lr"],
        "decay": optimizer["weight_decay"],
        "norm_decay": optimizer["params"]["weight_decay_norm"],
        "overrides": optimizer["params"].get("overrides", {}),
        "layer_decay": optimizer["params"].get("lr_factor_func"),
    }


def test_training_length_and_learning_rate_are_the_published_ones(recipe):
    config, wanted = recipe.config, solver_of(recipe)
    assert config.trainer.max_steps == wanted["steps"]
    assert config.batch_size == wanted["batch"]
    assert config.optimizer.lr == pytest.approx(wanted["lr"] * 16 / wanted["batch"])
    assert (config.trainer.accumulate, config.trainer.clip_norm, config.trainer.clip_value) == (1, None, None)
    assert config.callbacks.ema is None and config.callbacks.early_stopping is None


def test_learning_rate_follows_the_published_curve(recipe):
    wanted = solver_of(recipe)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    (ours,) = hydet.instantiate(recipe.config.schedule)(optimizer).lr_lambdas
    warmup, milestones = wanted["warmup"], wanted["milestones"]

    def published(step):
        warm = step / warmup
        rising = 1.0 if warm >= 1 else wanted["factor"] * (1 - warm) + warm
        return rising * wanted["gamma"] ** bisect.bisect_right(milestones, step)

    steps = [0, 10, warmup // 2, warmup + 1, wanted["steps"] - 1]
    for step in [*steps, *milestones, *(m - 1 for m in milestones)]:
        # Warmup takes a whole number of steps here: 187 instead of 187.5.
        assert ours(step) == pytest.approx(published(step), rel=4e-3), step


def test_optimizer_is_the_published_one(recipe):
    wanted = solver_of(recipe)
    optimizer = hydet.instantiate(recipe.config.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer).__name__ == wanted["optimizer"]
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in optimizer.defaults.items()}
    assert settings == {**settings, **wanted["arguments"], "weight_decay": wanted["decay"]}


@pytest.mark.filterwarnings("ignore:.*federated loss")
def test_weight_decay_and_rate_of_every_parameter_are_the_published_ones(recipe):
    wanted, inventory = solver_of(recipe), recipe.inventory
    layer_decay = wanted.get("layer_decay")
    expected = {}
    for name in inventory.groups:
        decay = wanted["decay"]
        if name in inventory.norm_parameters and wanted["norm_decay"] is not None:
            decay = wanted["norm_decay"]
        decay = wanted["overrides"].get(name.rpartition(".")[2], {}).get("weight_decay", decay)
        expected[name] = (decay, factor_of_layer(name, layer_decay) if layer_decay else 1.0)
    decay = recipe.config.optimizer.weight_decay
    ours = {
        name: (decay if group_decay is None else group_decay, factor)
        for name, (group_decay, factor) in inventory.groups.items()
    }
    assert {n: v for n, v in ours.items() if v != pytest.approx(expected[n])} == {}


def factor_of_layer(name, layer_decay):
    """Patch and position embeddings are layer 0, blocks follow, and all other parameters have the full rate."""
    last = layer_decay["num_layers"] + 1
    layer = last
    if name.startswith("backbone."):
        if ".pos_embed" in name or ".patch_embed" in name:
            layer = 0
        elif ".blocks." in name and ".residual." not in name:
            layer = 1 + int(name.split(".blocks.")[1].split(".")[0])
    return layer_decay["lr_decay_rate"] ** (last - layer)


def test_evaluation_period_and_detections_are_the_published_ones(recipe):
    if recipe.is_lazy:
        evaluator = recipe.facts["dataloader"]["evaluator"]
        first = evaluator[0] if isinstance(evaluator, list) else evaluator
        every, detections = recipe.facts["train"]["eval_period"], first.get("max_dets_per_image", 100)
        precise = False
    else:
        test = recipe.settings("TEST")
        every, detections = test["EVAL_PERIOD"], test["DETECTIONS_PER_IMAGE"]
        precise = test["PRECISE_BN"]["ENABLED"]
        assert not test["AUG"]["ENABLED"] and not test["KEYPOINT_OKS_SIGMAS"]
    config = recipe.config
    # Without a period, the reference evaluates once, at the end. Here a run of weeks is evaluated before it ends.
    assert config.evaluation.every == (every or 5000)
    assert config.evaluation.max_detections == detections
    statistics = config.callbacks.get("precise_bn")
    assert (statistics is not None) == precise
    if precise:
        assert (statistics.every, statistics.batches) == (
            config.evaluation.every,
            test["PRECISE_BN"]["NUM_ITER"],
        )
        assert hydet.instantiate(statistics).batches == 200


MEASURES = {
    "COCOEvaluator": "CocoEvaluator",
    "LVISEvaluator": "LvisEvaluator",
    "SemSegEvaluator": "SemanticEvaluator",
    "COCOPanopticEvaluator": "PanopticEvaluator",
}


def test_evaluators_are_the_published_ones(recipe):
    measured = {EVALUATOR_OF_TASK[task] for task in recipe.inventory.tasks}
    ours = {
        node["_target_"].rpartition(".")[2]
        for name, node in recipe.config.evaluators.items()
        if name in measured
    }
    if recipe.is_lazy:
        evaluators = recipe.facts["dataloader"]["evaluator"]
        evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
        assert ours == {MEASURES[e["_target_"].rpartition(".")[2]] for e in evaluators}
    else:  # the evaluator depends on the data
        lvis = recipe.settings("DATASETS")["TEST"][0].startswith("lvis")
        assert ("LvisEvaluator" in ours) == lvis and ours


def test_test_time_augmentation_has_the_published_sizes(goldens):
    """No published configuration enables it; these are the sizes for a model that is tested at 800 pixels."""
    published = goldens("zoo_facts.json.gz")["defaults"]["TEST"]["AUG"]
    ours = yaml.safe_load((TREE / "tta" / "default.yaml").read_text(encoding="utf-8"))
    assert [round(scale * 800) for scale in ours["scales"]] == published["MIN_SIZES"]
    assert ours["flip"] == published["FLIP"]
