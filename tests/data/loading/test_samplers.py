import collections
import itertools
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

import hydet
from hydet.data import (
    RepeatFactorSampler,
    ShapesDataset,
    ShuffleSampler,
    make_repeat_factor_sampler,
    make_shuffle_sampler,
    repeat_factors,
)
from hydet.data.loading.samplers import Shard

SMALL = {"image_size": (48, 48), "max_image_size": (64, 64)}


def test_each_epoch_has_each_image_once():
    sampler = ShuffleSampler(size=10, seed=3)
    stream = list(itertools.islice(sampler.stream(), 30))
    epochs = [[index for index, _ in stream[i : i + 10]] for i in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert len({seed for _, seed in stream}) == 30


def test_processes_share_the_stream():
    sampler = ShuffleSampler(size=10, seed=3)
    whole = list(itertools.islice(sampler.stream(), 24))
    shards = [list(itertools.islice(sampler.stream(rank, 3), 8)) for rank in range(3)]
    assert [request for requests in zip(*shards) for request in requests] == whole


def test_shard_checks_its_rank():
    assert Shard() == Shard(0, 1)
    with pytest.raises(ValueError, match="rank 2"):
        Shard(2, 2)


def test_rare_classes_are_repeated():
    factors = repeat_factors([[0]] * 99 + [[0, 1]] + [[]], threshold=0.04)
    assert factors[:99].tolist() == [1.0] * 99 and factors[100] == 1
    assert factors[99] == pytest.approx((0.04 * 101) ** 0.5)
    sampler = RepeatFactorSampler(factors=[1.0, 2.5], seed=0)
    counts = collections.Counter(np.concatenate([sampler.epoch(i) for i in range(400)]).tolist())
    assert counts[0] == 400 and 900 < counts[1] < 1100
    assert sampler.epoch(3).tolist() == sampler.epoch(3).tolist()


def test_samplers_made_from_a_dataset():
    shapes = ShapesDataset(num_images=30, seed=2, crowd_fraction=0.5, **SMALL)
    sampler = make_repeat_factor_sampler(dataset=shapes, threshold=0.8, seed=3)
    class_sets = [set(r.classes.tolist()) for r in shapes]  # crowds count
    counts = collections.Counter(c for classes in class_sets for c in classes)
    expected = [
        max((max(1.0, (0.8 / (counts[c] / 30)) ** 0.5) for c in classes), default=1.0)
        for classes in class_sets
    ]
    assert sampler.factors.tolist() == pytest.approx(expected) and max(expected) > 1.1
    assert sampler.seed == 3 and sampler.size == 30
    plain = make_shuffle_sampler(dataset=shapes, seed=3)
    assert plain.epoch(1).tolist() == ShuffleSampler(size=30, seed=3).epoch(1).tolist()
    in_order = make_repeat_factor_sampler(dataset=shapes, threshold=0.8, shuffle=False).epoch(0)
    assert (np.diff(in_order) >= 0).all() and len(in_order) > 30


@pytest.mark.filterwarnings("ignore:.*does not define image_ids")
def test_unsuitable_datasets_and_thresholds_are_rejected():
    with pytest.raises(TypeError, match=r"hydet\.data\.Record, got int"):
        make_repeat_factor_sampler(dataset=[1, 2])
    with pytest.raises(ValueError, match="threshold"):
        make_repeat_factor_sampler(dataset=ShapesDataset(num_images=1, **SMALL), threshold=0.0)
    with pytest.raises(ValueError, match="empty"):
        make_shuffle_sampler(dataset=[])
    with pytest.raises(ValueError, match="positive"):
        RepeatFactorSampler(factors=[1.0, 0.0])


@pytest.mark.parametrize("option", ["shuffle", "repeat_factor"])
def test_sampler_options_build_samplers(dataset, option):
    node = OmegaConf.load(Path(__file__).parents[3] / "conf" / "sampler" / f"{option}.yaml")
    sampler = hydet.instantiate(node)(dataset=dataset, seed=6)
    assert isinstance(sampler, ShuffleSampler) and sampler.size == len(dataset) and sampler.seed == 6
