import collections
import itertools
import pickle
import warnings

import pytest
import torch

from hydet.data import (
    DataError,
    InputMapper,
    ShapesDataset,
    ShuffleSampler,
    build_train_loader,
    make_repeat_factor_sampler,
)


def test_batches_do_not_depend_on_the_number_of_workers(dataset, mapper, take_batches, assert_same_batches):
    expected = take_batches(build_train_loader(dataset, mapper, batch_size=3, seed=1), 9)
    state = torch.get_rng_state()
    batches = take_batches(build_train_loader(dataset, mapper, batch_size=3, seed=1, num_workers=2), 9)
    assert torch.equal(torch.get_rng_state(), state), "the global random state stays as it was"
    assert_same_batches(batches, expected)


def test_the_seed_changes_the_order(dataset, mapper, take_batches):
    orders = [
        [
            x["image_id"]
            for batch in take_batches(build_train_loader(dataset, mapper, batch_size=3, seed=s), 9)
            for x in batch
        ]
        for s in (1, 2)
    ]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_continues_exactly(dataset, mapper, workers, take_batches, assert_same_batches):
    expected = take_batches(build_train_loader(dataset, mapper, batch_size=4), 12)
    first = build_train_loader(dataset, mapper, batch_size=4, num_workers=workers)
    batches = take_batches(first, 5)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    assert state["batches_taken"] == 5, "batches prepared ahead do not count"
    second = build_train_loader(dataset, mapper, batch_size=4)
    second.load_state_dict(state)
    assert_same_batches(batches + take_batches(second, 7), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_with_repeated_images_continues_exactly(
    dataset, mapper, workers, take_batches, assert_same_batches
):
    def loader(num_workers=0):
        sampler = make_repeat_factor_sampler(dataset=dataset, threshold=0.6, seed=4)
        return build_train_loader(dataset, mapper, batch_size=4, num_workers=num_workers, sampler=sampler)

    expected = take_batches(loader(), 14)
    counts = collections.Counter(x["image_id"] for batch in expected for x in batch)
    assert max(counts.values()) > min(counts.values()) + 1, "more than one epoch, with repeats"
    first = loader(workers)
    batches = take_batches(first, 9)
    second = loader(workers)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    assert_same_batches(batches + take_batches(second, 5), expected)


def test_iterating_again_continues(dataset, mapper, take_batches, assert_same_batches):
    loader = build_train_loader(dataset, mapper, batch_size=4)
    expected = take_batches(build_train_loader(dataset, mapper, batch_size=4), 6)
    assert_same_batches(take_batches(loader, 2) + take_batches(loader, 4), expected)


def test_resuming_with_another_batch_size_warns_and_skips_as_many_images(dataset, mapper, take_batches):
    loader = build_train_loader(dataset, mapper, batch_size=4)
    take_batches(loader, 6)
    other = build_train_loader(dataset, mapper, batch_size=8)
    with pytest.warns(UserWarning, match="batch_size 4 -> 8"):
        other.load_state_dict(loader.state_dict())
    assert other.batches_taken == 3


def test_resuming_with_another_sampler_warns(dataset, mapper):
    loader = build_train_loader(dataset, mapper, batch_size=4)
    sampler = make_repeat_factor_sampler(dataset=dataset, threshold=0.6)
    other = build_train_loader(dataset, mapper, batch_size=4, sampler=sampler)
    with pytest.warns(UserWarning, match="sampler ShuffleSampler -> RepeatFactorSampler"):
        other.load_state_dict(loader.state_dict())
    rarer = make_repeat_factor_sampler(dataset=dataset, threshold=0.9)
    third = build_train_loader(dataset, mapper, batch_size=4, sampler=rarer)
    with pytest.warns(UserWarning, match="mean_repeat_factor"):
        third.load_state_dict(other.state_dict())


def test_aspect_ratio_grouping_separates_orientations(dataset, take_batches):
    mapper = InputMapper(training=True, mask_format=None)

    def orientations(**options):
        batches = take_batches(build_train_loader(dataset, mapper, batch_size=4, **options), 12)
        return [{x["width"] > x["height"] for x in batch} for batch in batches]

    assert all(len(kinds) == 1 for kinds in orientations())
    assert any(len(kinds) == 2 for kinds in orientations(aspect_ratio_grouping=False))


def test_a_dataset_with_records_alone_is_enough(dataset, mapper, take_batches, assert_same_batches):
    class Minimal:
        metadata = dataset.metadata

        def __len__(self):
            return len(dataset)

        def __getitem__(self, index):
            return dataset[index]

    with pytest.warns(UserWarning, match="Minimal|Adapted"):
        loader = build_train_loader(Minimal(), mapper, batch_size=4)
    assert_same_batches(
        take_batches(loader, 3), take_batches(build_train_loader(dataset, mapper, batch_size=4), 3)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_replaced_alike_with_any_number_of_workers(
    mapper, workers, make_torn_dataset, take_batches, assert_same_batches
):
    torn = make_torn_dataset()
    loader = build_train_loader(torn, mapper, batch_size=3, num_workers=workers)
    with pytest.warns(UserWarning, match=r"three\.png: torn; another") as messages:
        batches = take_batches(loader, 8)
    assert loader.replaced == 4 and len(messages) == 1
    assert torn.report().count("unreadable_image") == 1
    assert all(set(x) == set(batches[0][0]) for x in itertools.chain(*batches))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = take_batches(build_train_loader(make_torn_dataset(), mapper, batch_size=3), 8)
    assert_same_batches(batches, expected)


def test_policy_raise_stops_training(mapper, make_torn_dataset, take_batches):
    with pytest.raises(DataError, match="torn"):
        take_batches(build_train_loader(make_torn_dataset(policy="raise"), mapper, batch_size=3), 4)


def test_training_stops_if_no_image_can_be_read(mapper, make_torn_dataset, take_batches):
    torn = make_torn_dataset(torn=range(6))
    with pytest.raises(DataError, match="in a row"):
        take_batches(build_train_loader(torn, mapper, batch_size=3), 1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"num_workers": -1},
        {"rank": 2, "world_size": 2},
        {"sampler": ShuffleSampler(size=3)},
    ],
)
def test_wrong_arguments_are_rejected(dataset, mapper, arguments):
    with pytest.raises(ValueError):
        build_train_loader(dataset, mapper, **({"batch_size": 2} | arguments))


def test_an_empty_dataset_is_rejected(mapper):
    with pytest.raises(ValueError, match="empty"):
        build_train_loader(ShapesDataset(num_images=0), mapper, batch_size=1)
