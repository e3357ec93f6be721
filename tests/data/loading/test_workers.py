import pickle

import pytest
import torch

from hydet.data.loading.batch_packing import unpack_batch
from hydet.data.loading.workers import ImageRequest, MappedDataset, WorkerSettings, load_batches


def test_an_image_is_read_and_mapped_with_its_seed(dataset, mapper):
    source = MappedDataset(dataset, mapper)
    loaded = source[ImageRequest(4, 7)]
    assert loaded.errors == () and torch.equal(loaded.model_input["image"], mapper(dataset[4], 7)["image"])
    assert len(source) == len(dataset)


def test_evaluation_has_no_replacement_for_an_unreadable_image(mapper, make_torn_dataset):
    source = MappedDataset(make_torn_dataset(), mapper)
    assert source[ImageRequest(3, None)] == (None, ("three.png: torn",))
    replaced = source[ImageRequest(3, 5)]
    assert replaced.model_input["image_id"] != 4 and replaced.errors == ("three.png: torn",)


def test_spawned_workers_can_receive_the_dataset(dataset, mapper):
    # Windows and macOS start workers by pickling the dataset into a new interpreter.
    source = pickle.loads(pickle.dumps(MappedDataset(dataset, mapper)))
    requests = [ImageRequest(2, 1), ImageRequest(5, 3)]
    (batch,) = load_batches(MappedDataset(dataset, mapper), [requests], WorkerSettings())
    for loaded, expected in zip(unpack_batch(source.__getitems__(requests)), batch, strict=True):
        assert torch.equal(loaded.model_input["image"], expected.model_input["image"])


def test_batches_without_a_gpu_are_not_pinned(dataset, mapper, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = WorkerSettings(pin_memory=True)
    (batch,) = load_batches(MappedDataset(dataset, mapper), [[ImageRequest(0, 0)]], settings)
    assert len(batch) == 1


def test_a_negative_number_of_workers_is_rejected():
    with pytest.raises(ValueError, match="num_workers"):
        WorkerSettings(num_workers=-1)
