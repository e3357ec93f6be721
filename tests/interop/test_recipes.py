"""Names of published recipes."""

from pathlib import PurePath

import pytest

from hydet.data import DataError
from hydet.interop import recipe, recipes
from hydet.interop.recipes import find_recipe, is_recipe

NAME = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"


def test_a_recipe_has_its_weights_and_numbers():
    r = recipe(NAME)
    assert r.name == NAME and r.overrides == (f"experiment={NAME}",)
    assert r.url == (
        "https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/"
        "model_final_f10217.pkl"
    )
    assert r.starts_from == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    assert r.published["box_AP"] == 41.0 and r.published["mask_AP"] == 37.2


def test_a_recipe_without_a_trained_model_and_one_from_random_weights():
    assert recipe("COCO-Detection/fcos_R_50_FPN_1x").url is None
    assert recipe("Misc/scratch_mask_rcnn_R_50_FPN_3x_gn").starts_from is None


@pytest.mark.parametrize("suffix", [".yaml", ".py"])
def test_the_name_of_its_config_file_is_accepted(suffix):
    assert recipe(NAME + suffix) is recipe(NAME) and is_recipe(NAME + suffix)


def test_an_unknown_name_is_an_error_with_the_nearest_name():
    with pytest.raises(
        DataError, match=r"'COCO-Detection/retina_R_50_FPN_3x' is not .*mean 'COCO-Detection/retinanet_R"
    ):
        recipe("COCO-Detection/retina_R_50_FPN_3x")
    assert not is_recipe("mask_rcnn")


def test_a_recipe_is_found_by_its_weights():
    r = recipe(NAME)
    for source in (
        NAME,
        r.url,
        r.url + "?matching_heuristics=True",
        PurePath(r.url).name,
        f"/data/{PurePath(r.url).name}",
    ):
        assert find_recipe(source) is r
    assert find_recipe("model_final.pkl") is None


def test_every_trained_model_has_a_file_name_of_its_own():
    names = [PurePath(r.url).name for r in recipes().values() if r.url]
    assert len(set(names)) == len(names) == 92
