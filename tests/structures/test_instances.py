import copy
import pickle

import pytest
import torch

from hydet.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks


def make(n=4):
    return Instances(
        (30, 40),
        boxes=Boxes(torch.arange(n * 4).reshape(n, 4)),
        scores=torch.linspace(0, 1, n),
        masks=BitMasks(torch.arange(n * 6).reshape(n, 2, 3) % 2),
        keypoints=Keypoints(torch.arange(n * 6.0).reshape(n, 2, 3)),
        polygons=PolygonMasks([[[i, i, i + 2, i, i, i + 2]] for i in range(n)]),
        names=[f"n{i}" for i in range(n)],
    )


@pytest.mark.parametrize(
    "item, expected",
    [
        (1, [1]),
        (-1, [3]),
        (torch.tensor(2), [2]),
        (slice(None, None, 2), [0, 2]),
        (torch.tensor([3, 0, 3]), [3, 0, 3]),
        (torch.tensor([False, True, False, True]), [1, 3]),
        (torch.zeros(4, dtype=torch.bool), []),
        ([2, 1], [2, 1]),
    ],
)
def test_index_selects_from_all_field_types(item, expected):
    selected = make()[item]
    assert selected.names == [f"n{i}" for i in expected]
    assert selected.boxes.tensor[:, 0].tolist() == [4 * i for i in expected]
    assert selected.keypoints.tensor[:, 0, 0].tolist() == [6 * i for i in expected]
    assert selected.polygons.get_bounding_boxes().tensor[:, 0].tolist() == expected
    assert len(selected) == len(selected.masks) == len(selected.scores) == len(expected)
    assert selected.image_size == (30, 40)


@pytest.mark.parametrize("index", [4, -5])
def test_index_out_of_range_raises(index):
    with pytest.raises(IndexError, match="4 objects"):
        make()[index]


def test_fields_have_equal_length():
    instances = make()
    with pytest.raises(ValueError, match="'extra' has length 3"):
        instances.extra = torch.zeros(3)
    with pytest.raises(ValueError, match="length"):
        Instances((3, 4), a=torch.zeros(2), b=[1])
    with pytest.raises(TypeError, match="must have a length"):
        instances.extra = torch.tensor(3.0)
    assert not instances.has("extra")
    alone = Instances((3, 4), a=torch.zeros(2))
    alone.a = torch.zeros(5)  # the only field may change its length
    assert len(alone) == 5


def test_missing_fields_and_reserved_names():
    instances = make()
    with pytest.raises(AttributeError, match=r"no field 'sores'.*scores"):
        instances.sores  # noqa: B018
    with pytest.raises(AttributeError, match="cannot be a field"):
        instances.image_size = (1, 2)
    del instances.scores
    assert not instances.has("scores")
    with pytest.raises(NotImplementedError):
        len(Instances((1, 2)))
    with pytest.raises(TypeError, match="iterated"):
        iter(instances)
    with pytest.raises(ValueError, match="image_size"):
        Instances((1, 2, 3))


def test_cat_inverts_splitting():
    instances = make()
    joined = Instances.cat([instances[:1], instances[1:1], instances[1:]])
    assert joined.names == instances.names
    assert torch.equal(joined.boxes.tensor, instances.boxes.tensor)
    assert torch.equal(joined.masks.tensor, instances.masks.tensor)


def test_cat_rejects_mismatched_instances():
    instances, other = make(), make()
    other.remove("scores")
    with pytest.raises(ValueError, match="fields differ"):
        Instances.cat([instances, other])
    with pytest.raises(ValueError, match="image sizes differ"):
        Instances.cat([instances, Instances((1, 2))])
    with pytest.raises(ValueError, match="at least one"):
        Instances.cat([])
    with pytest.raises(TypeError, match="dict"):
        Instances.cat([instances, {}])
    with pytest.raises(TypeError, match="'words' of type str"):
        Instances.cat([Instances((1, 2), words="ab"), Instances((1, 2), words="c")])


def test_shallow_copy_has_separate_fields():
    instances = make()
    other = copy.copy(instances)
    other.extra = torch.zeros(4)
    assert not instances.has("extra") and other.boxes is instances.boxes
    deep = copy.deepcopy(instances)
    deep.scores.zero_()
    assert instances.scores.sum() > 0
    restored = pickle.loads(pickle.dumps(instances))
    assert restored.names == instances.names and restored.image_size == instances.image_size


def test_to_converts_fields_that_support_it():
    instances = make().to("meta")
    assert instances.boxes.device.type == instances.scores.device.type == "meta" and instances.names == [
        "n0",
        "n1",
        "n2",
        "n3",
    ]
    assert "Instances(4 objects, image 30 x 40" in repr(make())
