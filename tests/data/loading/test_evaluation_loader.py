import pytest
import torch

from hydet.data import DataError, InputMapper, ShapesDataset, build_evaluation_loader


@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_comes_once_in_order(dataset, workers):
    mapper = InputMapper(training=False)
    loader = build_evaluation_loader(dataset, mapper, batch_size=4, num_workers=workers)
    for _ in range(2):
        batches = list(loader)
        assert [len(b) for b in batches] == [4, 4, 4, 4, 4, 3] and len(loader) == 6
        assert [x["image_id"] for b in batches for x in b] == list(range(1, 24))


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_batches_of_one_process(dataset, world_size):
    def ids(**shard):
        loader = build_evaluation_loader(dataset, InputMapper(training=False), batch_size=4, **shard)
        batches = [[x["image_id"] for x in batch] for batch in loader]
        assert len(loader) == len(batches)
        return batches

    shards = [ids(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(batch for shard in shards for batch in shard) == sorted(ids())
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_process_without_images_starts_no_workers(mapper):
    single = ShapesDataset(num_images=1, image_size=(48, 48), max_image_size=(64, 64))
    loader = build_evaluation_loader(single, mapper, rank=1, world_size=2, num_workers=2)
    assert list(loader) == [] and len(loader) == 0 and loader.workers.num_workers == 0


def test_original_labels_pass_through_worker_processes(dataset):
    mapper = InputMapper(training=False, sem_seg=True, mask_format=None)
    here, from_workers = (
        [x["ground_truth"] for b in build_evaluation_loader(dataset, mapper, num_workers=n) for x in b]
        for n in (0, 2)
    )
    for labels, received, record in zip(here, from_workers, dataset, strict=True):
        assert labels.keys() == received.keys() and received["segments_info"] == record.segments_info
        for name in ("sem_seg", "panoptic_seg"):
            expected = getattr(record, name)
            assert torch.equal(labels[name], expected) and torch.equal(received[name], expected)
            assert received[name].dtype == expected.dtype


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_skipped(mapper, workers, make_torn_dataset):
    torn = make_torn_dataset()
    loader = build_evaluation_loader(torn, mapper, batch_size=3, num_workers=workers)
    with pytest.warns(UserWarning, match=r"three\.png: torn; evaluation skips it") as messages:
        image_ids = [[x["image_id"] for x in batch] for _ in range(2) for batch in loader]
    assert image_ids == 2 * [[1, 2, 3], [5, 6]] and loader.skipped == 2 and len(messages) == 1
    assert torn.report().count("unreadable_image") == 1
    alone = build_evaluation_loader(make_torn_dataset(), mapper, num_workers=workers)
    with pytest.warns(UserWarning, match="torn"):
        assert [x["image_id"] for batch in alone for x in batch] == [1, 2, 3, 5, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_policy_raise_stops_an_evaluation_with_one_line(mapper, workers, make_torn_dataset):
    loader = build_evaluation_loader(make_torn_dataset(policy="raise"), mapper, num_workers=workers)
    with pytest.raises(DataError) as error:
        list(loader)
    assert str(error.value) == "three.png: torn"


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"num_workers": -1}, {"rank": -1}])
def test_wrong_arguments_are_rejected(dataset, mapper, arguments):
    with pytest.raises(ValueError):
        build_evaluation_loader(dataset, mapper, **arguments)
