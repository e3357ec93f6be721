from hydet.layers import ShapeSpec


def test_shape_spec_compares_by_value():
    assert ShapeSpec(channels=3, stride=4) == ShapeSpec(channels=3, stride=4) != ShapeSpec(channels=3)
