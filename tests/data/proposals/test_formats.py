import io
import json
import pickle
import zipfile

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


def write_npz(path, compression=zipfile.ZIP_STORED, **changes):
    """Write proposals of one image with other ``.npy`` members; ``...`` leaves a member out."""
    arrays = {
        "image_ids": np.array([5]),
        "offsets": np.array([0, 1]),
        "boxes": np.array([[1.0, 2, 3, 4]]),
        "objectness_logits": np.zeros(1),
    }
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in (arrays | changes).items():
            if array is not ...:
                stream = io.BytesIO()
                if isinstance(array, bytes):
                    stream.write(array)
                else:
                    np.lib.format.write_array(stream, array)
                archive.writestr(f"{name}.npy", stream.getvalue())
    return path


def npy(header, content=b""):
    header = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": ...}, "it has no boxes"),
        ({"boxes": b"abc"}, "is not an .npz file of arrays"),
        (
            {"boxes": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 4)}")},
            "does not match",
        ),
        (
            {"boxes": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 4)}", b"\0" * 32)},
            "does not match",
        ),
        (
            {"boxes": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"\0" * 8)},
            "does not match",
        ),
        ({"boxes": npy("{'descr': ")}, "is not an .npz file of arrays"),
        ({"boxes": np.array([[1e300, 1, 2, 3]])}, "image 5: a proposal is not finite"),
        ({"boxes": np.array([["a", "b", "c", "d"]])}, "boxes must be numbers"),
        ({"image_ids": np.array([2**63], dtype=np.uint64)}, "more than 64 bits"),
        ({"image_ids": np.array([1.0])}, "image_ids must be integers"),
        ({"offsets": np.array([0, 2**62])}, "offsets must be"),
    ],
)
def test_broken_npz_files_are_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message) as error:
        ProposalFile.read(write_npz(tmp_path / "a.npz", **changes))
    assert "a.npz" in str(error.value) and "\n" not in str(error.value)


def test_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    bomb = np.zeros((2**22, 4))  # 128 MB, of which 130 KB are stored
    path = write_npz(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, boxes=bomb)
    with pytest.raises(DataError, match=r"a\.npz: boxes would unpack to 134217856 bytes"):
        ProposalFile.read(path)
    assert len(ProposalFile.read(write_npz(path, zipfile.ZIP_DEFLATED))) == 1


def test_changed_bytes_of_npz_files_are_named(tmp_path):
    content = write_npz(tmp_path / "a.npz").read_bytes()
    path = tmp_path / "b.npz"
    for position in range(0, len(content), 3):
        for value in (0x00, 0xFF, content[position] ^ 0x01):
            path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
            try:
                ProposalFile.read(path)
            except DataError as error:
                assert "b.npz" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "entry",
    [5, {}, {"image_id": 2**70}, {"image_id": [1]}, {"image_id": None}, {"bbox": [1, 2, 3, 2**2000]},
     {"bbox": [1, 2, 3, "x"]}, {"score": None}, {"score": float("inf")}, {"score": True}],
)  # fmt: skip
def test_broken_results_are_named(tmp_path, entry):
    good = {"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    broken = good | entry if isinstance(entry, dict) and entry else entry
    (tmp_path / "a.json").write_text(json.dumps([good, broken]), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json: entry 1 must have the form"):
        ProposalFile.read(tmp_path / "a.json")


def test_ids_as_text_and_floats(tmp_path):
    entries = [{"image_id": i, "bbox": [1, 2, 3, 4], "score": 0.5} for i in ("7", 7.0, 8)]
    (tmp_path / "a.json").write_text(json.dumps(entries), encoding="utf-8")
    file = ProposalFile.read(tmp_path / "a.json")
    assert file.image_ids.tolist() == [7, 8] and len(file.of_image(7)) == 2
