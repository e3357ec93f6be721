import dataclasses
import inspect

import pytest

from hydet.data import ShapesDataset
from hydet.data.shapes.scene_style import SceneStyle


def test_the_dataset_has_an_argument_for_every_field():
    fields = {field.name for field in dataclasses.fields(SceneStyle)}
    arguments = inspect.signature(ShapesDataset).parameters
    assert fields - {"shapes"} <= arguments.keys() and "class_names" in arguments


def test_arguments_of_the_dataset_set_the_fields():
    style = ShapesDataset(num_images=0, class_names=("star", "heart"), noise=9, textures=False).style
    assert (style.shapes, style.noise, style.textures) == (("star", "heart"), 9, False)


def test_a_style_cannot_change_after_images_were_drawn():
    style = ShapesDataset(num_images=0).style
    with pytest.raises(dataclasses.FrozenInstanceError):
        style.noise = 0
