import json
import pickle

import numpy as np
import pytest
import torch

from hydet.data import DataError, ProposalFile, Proposals, write_proposals

FOUND = {
    7: Proposals(
        boxes=torch.tensor([[1.0, 2, 11, 22], [0, 0, 5.5, 5]]), objectness_logits=torch.tensor([0.5, 2])
    ),
    3: Proposals(boxes=torch.zeros(0, 4), objectness_logits=torch.zeros(0)),
    5: Proposals(boxes=torch.tensor([[4.0, 4, 8, 9]]), objectness_logits=torch.tensor([-1.0])),
}


def assert_found(file, expected=FOUND):
    for image_id, mine in expected.items():
        read = file.of_image(image_id)
        assert torch.equal(read.boxes, mine.boxes) and read.boxes.dtype == torch.float32
        assert torch.equal(read.objectness_logits, mine.objectness_logits)
        assert read.objectness_logits.dtype == torch.float32


def as_dict(**changes):
    content = {
        "ids": list(FOUND),
        "boxes": [one.boxes.numpy() for one in FOUND.values()],
        "objectness_logits": [one.objectness_logits.numpy() for one in FOUND.values()],
        "bbox_mode": 0,
    }
    return {key: value for key, value in (content | changes).items() if value is not ...}


def saved(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def test_reading_gives_what_was_written(tmp_path):
    path = write_proposals(tmp_path / "new" / "found.npz", FOUND.items())
    file = ProposalFile.read(path)
    assert len(file) == 3 and file.has(np.array([3, 4, 5, 7])).tolist() == [True, False, True, True]
    assert_found(file)
    assert len(file.of_image(4)) == 0, "an image that the file lacks has none"
    assert [p.name for p in path.parent.iterdir()] == ["found.npz"], "nothing unfinished is left"
    assert_found(pickle.loads(pickle.dumps(file)))
    with np.load(path, allow_pickle=False) as content:
        assert content["boxes"].dtype == np.float32 and content["offsets"].tolist() == [0, 2, 2, 3]


def test_what_is_read_is_a_copy(tmp_path):
    file = ProposalFile.read(write_proposals(tmp_path / "found.npz", FOUND.items()))
    file.of_image(7).boxes.zero_()
    assert_found(file)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_proposals(tmp_path / "found.npz", FOUND.items())
    with pytest.raises(DataError, match="image 7 comes more than once"):
        write_proposals(path, [*FOUND.items(), (7, FOUND[5])])
    broken = Proposals(boxes=torch.tensor([[0.0, 0, 1, 1]]), objectness_logits=torch.tensor([np.nan]))
    with pytest.raises(DataError, match="image 9: a proposal is not finite"):
        write_proposals(path, [*FOUND.items(), (9, broken)])
    assert_found(ProposalFile.read(path))


def test_no_images(tmp_path):
    file = ProposalFile.read(write_proposals(tmp_path / "found.npz", []))
    assert len(file) == 0 and len(file.of_image(1)) == 0


def test_results_in_cocos_format(tmp_path):
    path = tmp_path / "results.json"
    entries = [
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 10, 20], "score": 0.5},
        {"image_id": 5, "category_id": 1, "bbox": [4.0, 4.0, 4.0, 5.0], "score": -1},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 5.5, 5], "score": 2.0},
    ]
    path.write_text(json.dumps(entries))
    assert_found(ProposalFile.read(path))
    path.write_text("[]")
    assert len(ProposalFile.read(path)) == 0


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_the_reference(tmp_path, protocol):
    path = tmp_path / "found.pkl"
    assert_found(ProposalFile.read(saved(path, as_dict(), protocol)))
    old_names = as_dict(
        ids=..., indexes=np.array(list(FOUND)), objectness_logits=..., scores=as_dict()["objectness_logits"]
    )
    assert_found(ProposalFile.read(saved(path, old_names | {"bbox_mode": np.int64(0)}, protocol)))
    scalars = as_dict(ids=[np.int64(i) for i in FOUND], bbox_mode=...)
    assert_found(ProposalFile.read(saved(path, scalars, protocol)))
    as_text = as_dict(ids=[str(i) for i in FOUND])
    assert_found(ProposalFile.read(saved(path, as_text, protocol)))
    xywh = [np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1) for b in as_dict()["boxes"]]
    for kind in (np.float64, ">f4"):
        turned = [np.asfortranarray(b.astype(kind)) for b in xywh]
        assert_found(ProposalFile.read(saved(path, as_dict(boxes=turned, bbox_mode=1), protocol)))


def test_an_enumeration_of_the_reference_is_taken_for_its_number(tmp_path):
    path = saved(tmp_path / "found.pkl", as_dict(bbox_mode=...), protocol=0)
    # What pickling BoxMode.XYWH_ABS writes: the class by name, called with its value.
    written = path.read_bytes()
    member = b"Vbbox_mode\ncdetectron2.structures.boxes\nBoxMode\n(I1\ntRs."
    path.write_bytes(written.removesuffix(b".") + member)
    read = ProposalFile.read(path)
    assert read.of_image(5).boxes.tolist() == [[4, 4, 12, 13]]


class Harmful:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_cannot_run_anything(tmp_path, protocol):
    trace = tmp_path / "trace"
    for call, arguments in ((open, (str(trace), "w")), (eval, (f"open({str(trace)!r}, 'w')",))):
        path = saved(tmp_path / "bad.pkl", as_dict(ids=[1, 2, Harmful(call, *arguments)]), protocol)
        with pytest.raises(DataError, match=r"bad\.pkl.*was not run"):
            ProposalFile.read(path)
        assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        as_dict(boxes=...),
        as_dict(ids=[1, 2]),
        as_dict(ids=["a", "b", "c"]),
        as_dict(ids=[7, 7, 5]),
        as_dict(bbox_mode=4),
        as_dict(boxes=[np.zeros((2, 3)), np.zeros((0, 4)), np.zeros((1, 4))]),
        as_dict(boxes=[np.array([[None] * 4] * 2), np.zeros((0, 4)), np.zeros((1, 4))]),
        as_dict(boxes=[np.array(["a"] * 4), np.zeros((0, 4)), np.zeros((1, 4))]),
        as_dict(objectness_logits=[np.zeros(1), np.zeros(0), np.zeros(1)]),
        {"ids": {1, 2}},
        Proposals(boxes=torch.zeros(0, 4), objectness_logits=torch.zeros(0)),
    ],
)
def test_other_pickles_are_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"found\.pkl"):
        ProposalFile.read(saved(tmp_path / "found.pkl", content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pkl", b""),
        ("a.pkl", pickle.dumps(as_dict())[:-40]),
        ("a.npz", b""),
        ("a.npz", b"PK\x03\x04 and so on"),
        ("a.npz", pickle.dumps(as_dict())),
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


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"found\.npz: there is no such file"):
        ProposalFile.read(tmp_path / "found.npz")
    with pytest.raises(ValueError, match=r"\.npz"):
        write_proposals(tmp_path / "found.pkl", [])


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
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes):
    arrays = {
        "image_ids": np.array([7, 3, 5]),
        "offsets": np.array([0, 2, 2, 3]),
        "boxes": np.zeros((3, 4)),
        "objectness_logits": np.zeros(3),
    } | changes
    np.savez(tmp_path / "found.npz", **arrays)
    with pytest.raises(DataError, match=r"found\.npz"):
        ProposalFile.read(tmp_path / "found.npz")


def test_proposals_check_their_shapes():
    with pytest.raises(ValueError, match="Proposals"):
        Proposals(boxes=torch.zeros(2, 4), objectness_logits=torch.zeros(3))
    with pytest.raises(ValueError, match="Proposals"):
        Proposals(boxes=torch.zeros(2, 5), objectness_logits=torch.zeros(2))
