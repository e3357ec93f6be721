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
def test_one_index_selects_from_every_kind_of_field(item, expected):
    found = make()[item]
    assert found.names == [f"n{i}" for i in expected]
    assert found.boxes.tensor[:, 0].tolist() == [4 * i for i in expected]
    assert found.keypoints.tensor[:, 0, 0].tolist() == [6 * i for i in expected]
    assert found.polygons.get_bounding_boxes().tensor[:, 0].tolist() == expected
    assert len(found) == len(found.masks) == len(found.scores) == len(expected)
    assert found.image_size == (30, 40)


@pytest.mark.parametrize("index", [4, -5])
def test_an_index_out_of_range(index):
    with pytest.raises(IndexError, match="4 objects"):
        make()[index]


def test_fields_have_one_length():
    one = make()
    with pytest.raises(ValueError, match="'extra' has length 3"):
        one.extra = torch.zeros(3)
    with pytest.raises(ValueError, match="length"):
        Instances((3, 4), a=torch.zeros(2), b=[1])
    with pytest.raises(TypeError, match="must have a length"):
        one.extra = torch.tensor(3.0)
    assert not one.has("extra")
    alone = Instances((3, 4), a=torch.zeros(2))
    alone.a = torch.zeros(5)  # the only field may change its length
    assert len(alone) == 5


def test_missing_fields_and_reserved_names():
    one = make()
    with pytest.raises(AttributeError, match=r"no field 'sores'.*scores"):
        one.sores  # noqa: B018
    with pytest.raises(AttributeError, match="cannot be a field"):
        one.image_size = (1, 2)
    del one.scores
    assert not one.has("scores")
    with pytest.raises(NotImplementedError):
        len(Instances((1, 2)))
    with pytest.raises(TypeError, match="iterated"):
        iter(one)
    with pytest.raises(ValueError, match="image_size"):
        Instances((1, 2, 3))


def test_cat_inverts_splitting():
    one = make()
    joined = Instances.cat([one[:1], one[1:1], one[1:]])
    assert joined.names == one.names
    assert torch.equal(joined.boxes.tensor, one.boxes.tensor)
    assert torch.equal(joined.masks.tensor, one.masks.tensor)


def test_cat_refuses_what_does_not_fit():
    one, other = make(), make()
    other.remove("scores")
    with pytest.raises(ValueError, match="fields differ"):
        Instances.cat([one, other])
    with pytest.raises(ValueError, match="image sizes differ"):
        Instances.cat([one, Instances((1, 2))])
    with pytest.raises(ValueError, match="at least one"):
        Instances.cat([])
    with pytest.raises(TypeError, match="dict"):
        Instances.cat([one, {}])
    with pytest.raises(TypeError, match="'words' of type str"):
        Instances.cat([Instances((1, 2), words="ab"), Instances((1, 2), words="c")])


def test_a_shallow_copy_has_its_own_fields():
    one = make()
    other = copy.copy(one)
    other.extra = torch.zeros(4)
    assert not one.has("extra") and other.boxes is one.boxes
    deep = copy.deepcopy(one)
    deep.scores.zero_()
    assert one.scores.sum() > 0
    restored = pickle.loads(pickle.dumps(one))
    assert restored.names == one.names and restored.image_size == one.image_size


def test_to_converts_the_fields_that_can():
    one = make().to("meta")
    assert one.boxes.device.type == one.scores.device.type == "meta" and one.names == ["n0", "n1", "n2", "n3"]
    assert "Instances(4 objects, image 30 x 40" in repr(make())
