import pytest
import torch

from hydet.modeling import LastLevelMaxPool, SimpleFeaturePyramid


def test_levels_have_declared_sizes(pooling_backbone):
    pyramid = SimpleFeaturePyramid(
        net=pooling_backbone(a=16),
        in_feature="a",
        out_channels=4,
        scale_factors=[2.0, 1.0, 0.5],
        norm="",
        square_pad=64,
    )
    assert [f.shape[-1] for f in pyramid(torch.randn(1, 3, 64, 64)).values()] == [8, 4, 2]
    assert pyramid.size_divisibility == 32
    assert pyramid.padding_constraints == {"size_divisibility": 32, "square_size": 64}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_feature": "z", "scale_factors": [1.0]}, "no feature 'z'"),
        ({"in_feature": "a", "scale_factors": [8.0]}, "a scale factor must be 4, 2, 1 or 0.5, got 8"),
        ({"in_feature": "a", "scale_factors": [1.0, 2.0]}, "twice the previous one"),
    ],
)
def test_invalid_arguments_raise(options, message, pooling_backbone):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(net=pooling_backbone(a=16), out_channels=4, **options)


def test_top_block_reads_a_level_of_the_pyramid(pooling_backbone):
    pyramid = SimpleFeaturePyramid(
        net=pooling_backbone(a=16),
        in_feature="a",
        out_channels=4,
        scale_factors=[1.0],
        top_block=LastLevelMaxPool(in_feature="p4"),
    )
    output = pyramid(torch.randn(1, 3, 64, 64))
    assert {name: shape.stride for name, shape in pyramid.output_shape().items()} == {"p4": 16, "p5": 32}
    torch.testing.assert_close(output["p5"], output["p4"][:, :, ::2, ::2])
