import json
import pickle

import numpy as np
import pytest

from hydet.data import DataError, ProposalFile


def test_coco_results(tmp_path, assert_equal):
    path = tmp_path / "results.json"
    entries = [
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 10, 20], "score": 0.5},
        {"image_id": 5, "category_id": 1, "bbox": [4.0, 4.0, 4.0, 5.0], "score": -1},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 5.5, 5], "score": 2.0},
    ]
    path.write_text(json.dumps(entries), encoding="utf-8")
    assert_equal(ProposalFile.read(path))
    path.write_text("[]", encoding="utf-8")
    assert len(ProposalFile.read(path)) == 0


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_the_reference(proposals, reference_pickle, assert_equal, protocol):
    def read(content):
        return ProposalFile.read(reference_pickle.write(content, protocol))

    content = reference_pickle.content
    assert_equal(read(content()))
    old_names = content(
        ids=...,
        indexes=np.array(list(proposals)),
        objectness_logits=...,
        scores=content()["objectness_logits"],
    )
    assert_equal(read(old_names | {"bbox_mode": np.int64(0)}))
    assert_equal(read(content(ids=[np.int64(i) for i in proposals], bbox_mode=...)))
    assert_equal(read(content(ids=[str(i) for i in proposals])))
    xywh = [np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1) for b in content()["boxes"]]
    for dtype in (np.float64, ">f4"):
        boxes = [np.asfortranarray(b.astype(dtype)) for b in xywh]
        assert_equal(read(content(boxes=boxes, bbox_mode=1)))


def test_box_mode_enumeration_of_the_reference(reference_pickle):
    path = reference_pickle.write(reference_pickle.content(bbox_mode=...), protocol=0)
    # This is how a pickle stores BoxMode.XYWH_ABS: the class by name, called with the value.
    member = b"Vbbox_mode\ncdetectron2.structures.boxes\nBoxMode\n(I1\ntRs."
    path.write_bytes(path.read_bytes().removesuffix(b".") + member)
    assert ProposalFile.read(path).of_image(5).boxes.tolist() == [[4, 4, 12, 13]]


@pytest.mark.parametrize(
    "changes",
    [
        {"boxes": ...},
        {"ids": [1, 2]},
        {"ids": ["a", "b", "c"]},
        {"ids": [7, 7, 5]},
        {"bbox_mode": 4},
        {"boxes": [np.zeros((2, 3)), np.zeros((0, 4)), np.zeros((1, 4))]},
        {"boxes": [np.array([[None] * 4] * 2), np.zeros((0, 4)), np.zeros((1, 4))]},
        {"boxes": [np.array(["a"] * 4), np.zeros((0, 4)), np.zeros((1, 4))]},
        {"objectness_logits": [np.zeros(1), np.zeros(0), np.zeros(1)]},
    ],
)
def test_pickles_with_other_columns_are_refused(reference_pickle, changes):
    with pytest.raises(DataError, match=r"proposals\.pkl"):
        ProposalFile.read(reference_pickle.write(reference_pickle.content(**changes)))


def test_pickle_of_a_list_is_refused(reference_pickle):
    with pytest.raises(DataError, match=r"proposals\.pkl: .* must be a dict, got list"):
        ProposalFile.read(reference_pickle.write([1, 2]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pkl", b""),
        ("a.npz", b""),
        ("a.npz", b"PK\x03\x04 and so on"),
        ("a.npz", pickle.dumps({"ids": [1]})),
        ("a.json", b"{"),
        ("a.json", b"{}"),
        ("a.json", b'[{"image_id": 1, "bbox": [1, 2, 3], "score": 1}]'),
        ("a.json", b'[{"image_id": 1, "bbox": [1, 2, 3, 4]}]'),
        ("a.json", b'[{"image_id": 1, "bbox": [1, 2, 3, NaN], "score": 1}]'),
        ("a.txt", b""),
    ],
)
def test_broken_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        ProposalFile.read(tmp_path / name)


def test_missing_files_and_arrays_are_named(tmp_path):
    with pytest.raises(DataError, match=r"proposals\.npz: no such file"):
        ProposalFile.read(tmp_path / "proposals.npz")
    np.savez(tmp_path / "proposals.npz", image_ids=np.zeros(0, dtype=np.int64))
    with pytest.raises(DataError, match="must have the arrays image_ids, offsets, boxes, objectness_logits"):
        ProposalFile.read(tmp_path / "proposals.npz")
