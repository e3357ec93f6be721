import copy

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from hydet.modeling import DefaultAnchorGenerator, RotatedAnchorGenerator, RoundedAnchorGenerator


def upright(**kwargs):
    settings = {"sizes": [[16.0], [32.0, 64.0]], "aspect_ratios": [[0.5, 1.0, 2.0]], "strides": [8, 16]}
    return DefaultAnchorGenerator(**(settings | kwargs))


def features(*sizes, device=None):
    return [torch.zeros(2, 3, *size, device=device) for size in sizes]


def test_every_cell_of_a_level_has_all_anchors():
    generator = upright()
    small, large = generator(features((4, 5), (2, 3)))
    assert len(small) == 4 * 5 * 3
    assert len(large) == 2 * 3 * 6
    assert generator.num_anchors == generator.num_cell_anchors == [3, 6]
    assert generator.box_dim == 4


def test_anchors_have_the_given_area_and_ratio_and_are_ordered_by_row():
    anchors = upright(sizes=[[16.0]], strides=[8], offset=0.5)(features((2, 3)))[0]
    torch.testing.assert_close(anchors.area(), torch.full((18,), 256.0))
    sides = anchors.tensor[:, 2:] - anchors.tensor[:, :2]
    torch.testing.assert_close((sides[:, 1] / sides[:, 0])[:3], torch.tensor([0.5, 1.0, 2.0]))
    centers = anchors.get_centers().view(2, 3, 3, 2)
    torch.testing.assert_close(centers[1, 2], torch.tensor([20.0, 12.0]).expand(3, 2))


def test_angles_of_rotated_anchors_vary_fastest():
    generator = RotatedAnchorGenerator(
        sizes=[[16.0]], aspect_ratios=[[0.5, 2.0]], strides=[8], angles=[[-30.0, 0.0, 60.0]], offset=0.0
    )
    anchors = generator(features((2, 2)))[0].tensor
    assert generator.num_anchors == [6]
    assert anchors.shape == (24, 5)
    assert anchors[:6, 4].tolist() == [-30.0, 0.0, 60.0] * 2
    assert anchors[6, :2].tolist() == [8.0, 0.0]
    torch.testing.assert_close(anchors[:, 2] * anchors[:, 3], torch.full((24,), 256.0))


def test_a_flat_list_applies_to_every_level():
    shared = upright(sizes=[16.0, 32.0], aspect_ratios=[1.0])
    assert shared.num_anchors == [2, 2]
    assert torch.equal(shared.cell_anchors[0], shared.cell_anchors[1])


def test_fewer_feature_maps_use_the_first_levels():
    generator = upright()
    output = generator(features((4, 5)))
    assert len(output) == 1
    assert torch.equal(output[0].tensor, generator(features((4, 5), (2, 3)))[0].tensor)


def test_an_empty_feature_map_has_no_anchors():
    assert len(upright()(features((0, 5), (2, 3)))[0]) == 0


def test_the_state_dict_is_empty():
    assert upright().state_dict() == {}


def test_anchors_stay_float32_in_a_half_precision_model():
    generator = upright(sizes=[[1000.3]], strides=[8])
    wanted = generator(features((4, 5)))[0].tensor
    assert torch.equal(generator.half()(features((4, 5)))[0].tensor, wanted)
    assert torch.equal(copy.deepcopy(generator)(features((4, 5)))[0].tensor, wanted)


@pytest.mark.parametrize("leave", [lambda m: m.to_empty(device="cpu")])
def test_anchors_are_computed_when_the_model_leaves_the_meta_device(leave):
    wanted = upright()(features((4, 5), (2, 3)))
    with torch.device("meta"):
        generator = upright()
    assert generator(features((4, 5), (2, 3), device="meta"))[0].tensor.is_meta
    output = leave(generator)(features((4, 5), (2, 3)))
    for a, b in zip(output, wanted, strict=True):
        assert torch.equal(a.tensor, b.tensor)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"offset": 1.0}, "offset"),
        ({"sizes": [[8], [16], [32]]}, "sizes"),
        ({"sizes": []}, "empty"),
        ({"aspect_ratios": [[1.0], []]}, "aspect_ratios"),
    ],
)
def test_invalid_arguments_raise(wrong, message):
    with pytest.raises(ValueError, match=message):
        upright(**wrong)


def test_more_feature_maps_than_strides_raise():
    with pytest.raises(ValueError, match="2 levels, got 3"):
        upright()(features((4, 5), (2, 3), (1, 1)))


def test_rounded_anchors_are_those_of_torchvision():
    sizes, ratios, strides = [[32.0, 40.0, 50.0], [64.0, 80.0, 101.0]], [[0.5, 1.0, 2.0]], [8, 128]
    image = torch.zeros(1, 3, 96, 160)
    maps = features(
        (12, 20), (1, 2)
    )  # the second level is closer together than its stride: 96 // 1 and 160 // 2
    expected = AnchorGenerator(sizes, ratios * 2)(ImageList(image, [(96, 160)]), maps)[0]
    generator = RoundedAnchorGenerator(sizes=sizes, aspect_ratios=ratios, strides=strides, offset=0.0)
    # torchvision's anchors of a cell are ordered by ratio, then size.
    levels = [
        level.tensor.unflatten(0, (-1, 3, 3)).transpose(1, 2).reshape(-1, 4) for level in generator(maps)
    ]
    assert torch.equal(torch.cat(levels), expected)
    assert generator([]) == []
