import copy
import itertools
import pickle

import numpy as np
import pytest
import torch

from hydet.data import (
    CocoDataset,
    DataError,
    InputMapper,
    ProposalFile,
    Proposals,
    RandomHorizontalFlip,
    Resize,
    ShapesDataset,
    WithProposals,
    build_evaluation_loader,
    build_train_loader,
    write_proposals,
)


@pytest.fixture(scope="module")
def shapes():
    return ShapesDataset(num_images=9, seed=4, image_size=(48, 48), max_image_size=(56, 64))


@pytest.fixture
def path(shapes, tmp_path):
    """A file with the box of each object, whose logit is 10 * image_id + row."""
    entries = (
        (r.image_id, Proposals(boxes=r.boxes, objectness_logits=torch.arange(len(r)) + 10.0 * r.image_id))
        for r in map(shapes.__getitem__, reversed(range(len(shapes))))
    )
    return write_proposals(tmp_path / "proposals.npz", entries)


def test_records_have_proposals_and_the_rest_is_unchanged(shapes, path):
    dataset = WithProposals(dataset=shapes, proposals=path)
    assert len(dataset) == len(shapes)
    for record, inner in zip(dataset, shapes, strict=True):
        assert torch.equal(record.proposals.boxes, inner.boxes)
        assert inner.proposals is None and torch.equal(record.image, inner.image)
    assert dataset.metadata is shapes.metadata
    assert np.array_equal(dataset.aspect_ratios, shapes.aspect_ratios)
    assert dataset.to_coco() == shapes.to_coco()
    assert np.array_equal(dataset.image_ids, shapes.image_ids)
    assert dataset.policy == shapes.policy == "raise"


def test_copy_and_pickle(shapes, path):
    dataset = WithProposals(dataset=shapes, proposals=path)
    for clone in (copy.copy(dataset), copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert clone.metadata == shapes.metadata
        assert torch.equal(clone[3].proposals.boxes, dataset[3].proposals.boxes)


def test_interface_of_a_coco_dataset_is_forwarded(coco_folder, annotation, tmp_path):
    inner = CocoDataset(**coco_folder([annotation()]), policy="drop")
    file = write_proposals(
        tmp_path / "p.npz",
        [(5, Proposals(boxes=torch.tensor([[1.0, 1, 9, 9]]), objectness_logits=torch.tensor([1.0])))],
    )
    dataset = WithProposals(dataset=inner, proposals=str(file))
    assert dataset.policy == "drop" and dataset.report() is inner.report()
    assert dataset.classes_of_images() == inner.classes_of_images() == [[0]] and dataset.keypoint_offset == 0
    assert dataset[0].proposals.boxes.tolist() == [[1, 1, 9, 9]] and dataset.check().count() == 0


def test_images_without_an_entry(shapes, tmp_path):
    no_proposals = Proposals(boxes=torch.zeros(0, 4), objectness_logits=torch.zeros(0))
    path = write_proposals(tmp_path / "p.npz", [(2, no_proposals)])
    with pytest.raises(DataError, match=r"p\.npz: has no entry for 8 of 9 images: 1, 3, 4, 5, 6, \.\.\."):
        WithProposals(dataset=shapes, proposals=path)
    dataset = WithProposals(dataset=shapes, proposals=path, missing="empty")
    assert len(dataset[0].proposals) == 0


def test_invalid_arguments_are_refused(shapes, path):
    with pytest.raises(ValueError, match="missing"):
        WithProposals(dataset=shapes, proposals=path, missing="drop")
    with (
        pytest.warns(UserWarning, match="image_ids"),
        pytest.raises(TypeError, match=r"item 0 must be a hydet\.data\.Record"),
    ):
        WithProposals(dataset=[1, 2], proposals=ProposalFile.read(path))


def test_transforms_move_proposals_like_objects(shapes, path):
    dataset = WithProposals(dataset=shapes, proposals=path)
    transforms = [Resize(size=(90, 70)), RandomHorizontalFlip(p=1.0)]
    mapper = InputMapper(training=True, transforms=transforms, mask_format=None, max_proposals=100)
    for record in dataset:
        out = mapper(record)
        proposals, not_crowd = out["proposals"], (~record.iscrowd).nonzero().flatten()
        assert proposals.image_size == out["image"].shape[1:]
        # The mapper sorts by descending logits, which increase with the row.
        boxes = proposals.proposal_boxes.tensor.flip(0)
        assert torch.equal(boxes[not_crowd], out["instances"].gt_boxes.tensor)
        assert proposals.objectness_logits.tolist() == sorted(
            record.proposals.objectness_logits.tolist(), reverse=True
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_send_proposals(shapes, path, workers):
    dataset = WithProposals(dataset=shapes, proposals=path)
    mapper = InputMapper(training=False, mask_format=None, max_proposals=2)
    entries = [x for batch in build_evaluation_loader(dataset, mapper, num_workers=workers) for x in batch]
    for entry, record in zip(entries, dataset, strict=True):
        best = record.proposals.objectness_logits.flip(0)[:2]
        assert torch.equal(entry["proposals"].objectness_logits, best)
    training = build_train_loader(dataset, mapper, batch_size=2, num_workers=workers)
    for batch in itertools.islice(training, 3):
        assert all("proposals" in entry for entry in batch)
