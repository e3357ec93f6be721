import collections
import itertools
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import hydet
from hydet.data import (
    DataError,
    InputMapper,
    RandomCrop,
    RandomHorizontalFlip,
    RepeatFactorSampler,
    ShapesDataset,
    ShuffleSampler,
    build_test_loader,
    build_train_loader,
    make_repeat_factor_sampler,
    make_shuffle_sampler,
    repeat_factors,
)
from hydet.data.loading.batch_transport import pack, unpack

SIZES = {"image_size": (48, 48), "max_image_size": (64, 64)}


@pytest.fixture(scope="module")
def dataset():
    return ShapesDataset(num_images=23, seed=2, **SIZES)


@pytest.fixture(scope="module")
def mapper():
    return InputMapper(
        training=True, transforms=[RandomCrop(size=(0.5, 0.5)), RandomHorizontalFlip()], keypoints=True
    )


def taken(loader, count):
    return list(itertools.islice(iter(loader), count))


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(itertools.chain(*a), itertools.chain(*b), strict=True):
        assert x.keys() == y.keys() and x["image_id"] == y["image_id"]
        assert torch.equal(x["image"], y["image"])
        fields, others = x["instances"].get_fields(), y["instances"].get_fields()
        assert fields.keys() == others.keys() and x["instances"].image_size == y["instances"].image_size
        for name, value in fields.items():
            assert torch.equal(
                getattr(value, "tensor", value), getattr(others[name], "tensor", others[name])
            ), name


def test_workers_change_nothing(dataset, mapper):
    alone = taken(build_train_loader(dataset, mapper, batch_size=3, seed=1), 9)
    state = torch.get_rng_state()
    helped = taken(build_train_loader(dataset, mapper, batch_size=3, seed=1, num_workers=2), 9)
    assert torch.equal(torch.get_rng_state(), state), "the global random stream is left alone"
    assert_same(alone, helped)
    assert not all(
        x["image_id"] == y["image_id"]
        for x, y in zip(
            itertools.chain(*alone),
            itertools.chain(*taken(build_train_loader(dataset, mapper, batch_size=3, seed=2), 9)),
        )
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_goes_on_exactly(dataset, mapper, workers):
    whole = taken(build_train_loader(dataset, mapper, batch_size=4), 12)
    first = build_train_loader(dataset, mapper, batch_size=4, num_workers=workers)
    begun = taken(first, 5)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    assert state["batches_taken"] == 5, "batches prepared ahead do not count"
    second = build_train_loader(dataset, mapper, batch_size=4)
    second.load_state_dict(state)
    assert_same(whole, begun + taken(second, 7))


def test_iterating_again_goes_on(dataset, mapper):
    loader = build_train_loader(dataset, mapper, batch_size=4)
    assert_same(
        taken(build_train_loader(dataset, mapper, batch_size=4), 6), taken(loader, 2) + taken(loader, 4)
    )


def test_a_changed_setting_warns_and_goes_on_near(dataset, mapper):
    loader = build_train_loader(dataset, mapper, batch_size=4)
    taken(loader, 6)
    other = build_train_loader(dataset, mapper, batch_size=8)
    with pytest.warns(UserWarning, match="batch_size 4 -> 8"):
        other.load_state_dict(loader.state_dict())
    assert other.batches_taken == 3


def test_every_epoch_has_every_image_once():
    sampler = ShuffleSampler(size=10, seed=3)
    stream = list(itertools.islice(sampler.stream(), 30))
    epochs = [[index for index, _ in stream[i : i + 10]] for i in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert len({seed for _, seed in stream}) == 30


def test_processes_share_the_stream():
    sampler = ShuffleSampler(size=10, seed=3)
    whole = list(itertools.islice(sampler.stream(), 24))
    parts = [list(itertools.islice(sampler.stream(rank, 3), 8)) for rank in range(3)]
    assert [item for items in zip(*parts) for item in items] == whole


def test_grouping_keeps_orientations_apart(dataset, mapper):
    plain = InputMapper(training=True, mask_format=None)
    batches = taken(build_train_loader(dataset, plain, batch_size=4), 12)
    assert all(len({x["width"] > x["height"] for x in batch}) == 1 for batch in batches)
    mixed = taken(build_train_loader(dataset, plain, batch_size=4, aspect_ratio_grouping=False), 12)
    assert any(len({x["width"] > x["height"] for x in batch}) == 2 for batch in mixed)


def test_rare_classes_are_repeated():
    factors = repeat_factors([[0]] * 99 + [[0, 1]] + [[]], threshold=0.04)
    assert factors[:99].tolist() == [1.0] * 99 and factors[100] == 1
    assert factors[99] == pytest.approx((0.04 * 101) ** 0.5)
    sampler = RepeatFactorSampler(factors=[1.0, 2.5], seed=0)
    counts = collections.Counter(np.concatenate([sampler.epoch(i) for i in range(400)]).tolist())
    assert counts[0] == 400 and 900 < counts[1] < 1100
    assert sampler.epoch(3).tolist() == sampler.epoch(3).tolist()


def test_a_dataset_tells_how_rare_its_classes_are():
    shapes = ShapesDataset(num_images=30, seed=2, crowd_fraction=0.5, **SIZES)
    sampler = make_repeat_factor_sampler(dataset=shapes, threshold=0.8, seed=3)
    with_class = [set(r.classes[~r.iscrowd].tolist()) for r in shapes]
    counts = collections.Counter(c for classes in with_class for c in classes)
    expected = [
        max((max(1.0, (0.8 / (counts[c] / 30)) ** 0.5) for c in classes), default=1.0)
        for classes in with_class
    ]
    assert sampler.factors.tolist() == pytest.approx(expected) and max(expected) > 1.1
    assert sampler.seed == 3 and sampler.size == 30
    plain = make_shuffle_sampler(dataset=shapes, seed=3)
    assert plain.epoch(1).tolist() == ShuffleSampler(size=30, seed=3).epoch(1).tolist()
    in_order = make_repeat_factor_sampler(dataset=shapes, threshold=0.8, shuffle=False).epoch(0)
    assert (np.diff(in_order) >= 0).all() and len(in_order) > 30


def test_samplers_say_what_they_cannot_work_with():
    with pytest.raises(TypeError, match="list has no classes_of_images"):
        make_repeat_factor_sampler(dataset=[1, 2])
    with pytest.raises(ValueError, match="threshold"):
        make_repeat_factor_sampler(dataset=ShapesDataset(num_images=1, **SIZES), threshold=0.0)
    with pytest.raises(ValueError, match="empty"):
        make_shuffle_sampler(dataset=[])


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_with_repeats_goes_on_exactly(dataset, mapper, workers):
    def loader(num_workers=0):
        sampler = make_repeat_factor_sampler(dataset=dataset, threshold=0.6, seed=4)
        return build_train_loader(dataset, mapper, batch_size=4, num_workers=num_workers, sampler=sampler)

    whole = taken(loader(), 14)
    seen = collections.Counter(x["image_id"] for batch in whole for x in batch)
    assert max(seen.values()) > min(seen.values()) + 1, "more than an epoch, with repeats"
    first = loader(workers)
    begun = taken(first, 9)
    second = loader(workers)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    assert_same(whole, begun + taken(second, 5))


def test_another_sampler_warns(dataset, mapper):
    loader = build_train_loader(dataset, mapper, batch_size=4)
    sampler = make_repeat_factor_sampler(dataset=dataset, threshold=0.6)
    other = build_train_loader(dataset, mapper, batch_size=4, sampler=sampler)
    with pytest.warns(UserWarning, match="sampler ShuffleSampler -> RepeatFactorSampler"):
        other.load_state_dict(loader.state_dict())
    rarer = make_repeat_factor_sampler(dataset=dataset, threshold=0.9)
    third = build_train_loader(dataset, mapper, batch_size=4, sampler=rarer)
    with pytest.warns(UserWarning, match="mean_repeat_factor"):
        third.load_state_dict(other.state_dict())


@pytest.mark.parametrize("option", ["shuffle", "repeat_factor"])
def test_samplers_are_built_from_their_options(dataset, option):
    node = OmegaConf.load(Path(__file__).parents[3] / "conf" / "sampler" / f"{option}.yaml")
    sampler = hydet.instantiate(node)(dataset=dataset, seed=6)
    assert isinstance(sampler, ShuffleSampler) and sampler.size == len(dataset) and sampler.seed == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader_gives_every_image_once_in_order(dataset, workers):
    mapper = InputMapper(training=False)
    loader = build_test_loader(dataset, mapper, batch_size=4, num_workers=workers)
    for _ in range(2):
        batches = list(loader)
        assert [len(b) for b in batches] == [4, 4, 4, 4, 4, 3] and len(loader) == 6
        assert [x["image_id"] for b in batches for x in b] == list(range(1, 24))
    shares = [build_test_loader(dataset, mapper, rank=r, world_size=2) for r in range(2)]
    assert sorted(x["image_id"] for share in shares for b in share for x in b) == list(range(1, 24))


def test_original_labels_come_through_worker_processes(dataset):
    mapper = InputMapper(training=False, sem_seg=True, mask_format=None)
    alone, helped = (
        [x["ground_truth"] for b in build_test_loader(dataset, mapper, num_workers=n) for x in b]
        for n in (0, 2)
    )
    for mine, theirs, record in zip(alone, helped, dataset, strict=True):
        assert mine.keys() == theirs.keys() and theirs["segments_info"] == record.segments_info
        for name in ("sem_seg", "panoptic_seg"):
            expected = getattr(record, name)
            assert torch.equal(mine[name], expected) and torch.equal(theirs[name], expected)
            assert theirs[name].dtype == expected.dtype


def test_more_processes_than_images(mapper):
    few = ShapesDataset(num_images=1, **SIZES)
    assert list(build_test_loader(few, mapper, rank=1, world_size=2, num_workers=2)) == []


class Torn(ShapesDataset):
    """Image 3 cannot be read."""

    policy = "drop"

    def __getitem__(self, index):
        if index == 3:
            raise DataError("three.png: torn")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_replaced_in_training_alike_everywhere(mapper, workers):
    torn = Torn(num_images=6, **SIZES)
    loader = build_train_loader(torn, mapper, batch_size=3, num_workers=workers)
    with pytest.warns(UserWarning, match=r"three\.png: torn; another") as told:
        batches = taken(loader, 8)
    assert loader.replaced == 4 and len(told) == 1
    assert all(set(x) == set(batches[0][0]) for b in batches for x in b)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(batches, taken(build_train_loader(torn, mapper, batch_size=3), 8))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_left_out_of_an_evaluation(mapper, workers):
    torn = Torn(num_images=6, **SIZES)
    loader = build_test_loader(torn, mapper, batch_size=3, num_workers=workers)
    with pytest.warns(UserWarning, match=r"three\.png: torn; nothing is measured on it") as told:
        found = [[x["image_id"] for x in batch] for _ in range(2) for batch in loader]
    assert found == 2 * [[1, 2, 3], [5, 6]] and loader.left_out == 2 and len(told) == 1
    alone = build_test_loader(torn, mapper, num_workers=workers)
    with pytest.warns(UserWarning, match="torn"):
        assert [x["image_id"] for batch in alone for x in batch] == [1, 2, 3, 5, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_policy_raise_stops_an_evaluation_with_one_line(mapper, workers):
    torn = Torn(num_images=6, **SIZES)
    torn.policy = "raise"
    with pytest.raises(DataError) as caught:
        list(build_test_loader(torn, mapper, num_workers=workers))
    assert str(caught.value) == "three.png: torn"


def test_policy_raise_stops_training(mapper):
    torn = Torn(num_images=6, **SIZES)
    torn.policy = "raise"
    with pytest.raises(DataError, match="torn"):
        taken(build_train_loader(torn, mapper, batch_size=3), 4)


def test_only_broken_images_end_in_an_error(mapper):
    class AllTorn(Torn):
        def __getitem__(self, index):
            raise DataError("torn")

    with pytest.raises(DataError, match="in a row"):
        taken(build_train_loader(AllTorn(num_images=6, **SIZES), mapper, batch_size=3), 1)


def test_batches_survive_the_way_between_processes(dataset, mapper):
    batch = [mapper(dataset[i], i) for i in range(5)]
    assert_same([batch], [unpack(pack(batch))])
    assert unpack(pack([])) == []
    odd = {
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(3),
        "strided": torch.arange(12).reshape(3, 4).t(),
        "n": 1,
    }
    back = unpack(pack(odd))
    assert back["n"] == 1 and all(torch.equal(back[k], odd[k]) for k in ("empty", "scalar", "strided"))
    assert torch.equal(unpack(pack(torch.tensor([True, False]))), torch.tensor([True, False]))


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"num_workers": -1},
        {"rank": 2, "world_size": 2},
        {"sampler": ShuffleSampler(size=3)},
    ],
)
def test_wrong_arguments_are_refused(dataset, mapper, arguments):
    with pytest.raises(ValueError):
        build_train_loader(dataset, mapper, **({"batch_size": 2} | arguments))


def test_an_empty_dataset_is_refused(mapper):
    with pytest.raises(ValueError, match="empty"):
        build_train_loader(ShapesDataset(num_images=0), mapper, batch_size=1)
