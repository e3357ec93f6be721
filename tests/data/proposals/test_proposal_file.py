import pickle

import numpy as np
import pytest
import torch

from hydet.data import DataError, ProposalFile, Proposals, write_proposals


def test_reading_inverts_writing(proposals, assert_equal, tmp_path):
    path = write_proposals(tmp_path / "new" / "proposals.npz", proposals.items())
    file = ProposalFile.read(path)
    assert len(file) == 3 and file.has(np.array([3, 4, 5, 7])).tolist() == [True, False, True, True]
    assert_equal(file)
    assert len(file.of_image(4)) == 0, "an image without an entry has no proposals"
    assert [p.name for p in path.parent.iterdir()] == ["proposals.npz"], "no temporary file is left"
    assert_equal(pickle.loads(pickle.dumps(file)))
    with np.load(path, allow_pickle=False) as content:
        assert content["boxes"].dtype == np.float32 and content["offsets"].tolist() == [0, 2, 2, 3]


def test_of_image_returns_a_copy(proposals, assert_equal, tmp_path):
    file = ProposalFile.read(write_proposals(tmp_path / "proposals.npz", proposals.items()))
    file.of_image(7).boxes.zero_()
    assert_equal(file)


def test_failed_write_leaves_the_old_file(proposals, assert_equal, tmp_path):
    path = write_proposals(tmp_path / "proposals.npz", proposals.items())
    with pytest.raises(DataError, match="image 7 appears more than once"):
        write_proposals(path, [*proposals.items(), (7, proposals[5])])
    broken = Proposals(boxes=torch.tensor([[0.0, 0, 1, 1]]), objectness_logits=torch.tensor([np.nan]))
    with pytest.raises(DataError, match="image 9: a proposal is not finite"):
        write_proposals(path, [*proposals.items(), (9, broken)])
    assert_equal(ProposalFile.read(path))


def test_file_without_images(tmp_path):
    file = ProposalFile.read(write_proposals(tmp_path / "proposals.npz", []))
    assert len(file) == 0 and len(file.of_image(1)) == 0


def test_only_npz_files_are_written(tmp_path):
    with pytest.raises(ValueError, match=r"\.npz"):
        write_proposals(tmp_path / "proposals.pkl", [])


@pytest.mark.parametrize(
    "changes",
    [
        {"offsets": np.array([0, 2])},
        {"offsets": np.array([0, 2, 1, 3])},
        {"offsets": np.array([0.0, 2, 2, 3])},
        {"boxes": np.zeros((3, 5))},
        {"boxes": np.array([[None] * 4] * 3)},
        {"objectness_logits": np.zeros(2)},
        {"image_ids": np.array([7, 3, 7])},
    ],
)
def test_arrays_that_do_not_match_are_refused(tmp_path, changes):
    arrays = {
        "image_ids": np.array([7, 3, 5]),
        "offsets": np.array([0, 2, 2, 3]),
        "boxes": np.zeros((3, 4)),
        "objectness_logits": np.zeros(3),
    } | changes
    np.savez(tmp_path / "proposals.npz", **arrays)
    with pytest.raises(DataError, match=r"proposals\.npz"):
        ProposalFile.read(tmp_path / "proposals.npz")
