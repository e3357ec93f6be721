"""Each backbone option states the pixels that its published weights expect."""

from pathlib import Path

import pytest

import hydet

BACKBONES = sorted(p.stem for p in (Path(__file__).parents[2] / "conf" / "backbone").glob("*.yaml"))

MEAN_BGR, STD_BGR = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]
# Caffe2 weights of ResNets contain the scale of the pixels; those of ResNeXt-101 and RegNets do not. Transformers,
# torchvision and timm normalize RGB images.
CAFFE_BGR = ("BGR", MEAN_BGR, [1.0, 1.0, 1.0])
IMAGENET_BGR = ("BGR", MEAN_BGR, STD_BGR)
IMAGENET_RGB = ("RGB", MEAN_BGR[::-1], STD_BGR[::-1])
RESNET = ["res2", "res3", "res4", "res5"]
REGNET = ["s1", "s2", "s3", "s4"]
MVIT = ["scale2", "scale3", "scale4", "scale5"]
SWIN = ["p0", "p1", "p2", "p3"]
VIT = [None, None, "last_feat", None]

# Option -> (pixels of its weights, names of its feature maps of stride 4, 8, 16 and 32). The names in the comments are
# those of the weights that published configurations start from.
EXPECTED = {
    "r18": (CAFFE_BGR, RESNET),
    "r18_slim": (CAFFE_BGR, RESNET),
    "r34": (CAFFE_BGR, RESNET),
    "r50": (CAFFE_BGR, RESNET),                 # ImageNetPretrained/MSRA/R-50
    "r50_slim": (CAFFE_BGR, RESNET),
    "r50_dconv": (CAFFE_BGR, RESNET),
    "r101": (CAFFE_BGR, RESNET),                # ImageNetPretrained/MSRA/R-101
    "r101_dconv": (CAFFE_BGR, RESNET),
    "r152": (CAFFE_BGR, RESNET),
    "x101_32x8d": (IMAGENET_BGR, RESNET),       # ImageNetPretrained/FAIR/X-101-32x8d
    "x152_32x8d_dconv": (CAFFE_BGR, RESNET),    # ImageNetPretrained/FAIR/X-152-32x8d-IN5k
    "regnetx_4gf": (IMAGENET_BGR, REGNET),      # RegNetX-4.0GF_dds_8gpu
    "regnety_4gf": (IMAGENET_BGR, REGNET),      # RegNetY-4.0GF_dds_8gpu
    "mvitv2_t": (IMAGENET_RGB, MVIT),
    "mvitv2_s": (IMAGENET_RGB, MVIT),
    "mvitv2_b": (IMAGENET_RGB, MVIT),
    "mvitv2_l": (IMAGENET_RGB, MVIT),
    "mvitv2_h": (IMAGENET_RGB, MVIT),
    "swin_t": (IMAGENET_RGB, SWIN),
    "swin_s": (IMAGENET_RGB, SWIN),
    "swin_b": (IMAGENET_RGB, SWIN),
    "swin_l": (IMAGENET_RGB, SWIN),
    "vitdet_b": (IMAGENET_RGB, VIT),
    "vitdet_l": (IMAGENET_RGB, VIT),
    "vitdet_h": (IMAGENET_RGB, VIT),
    "vitdet_slim": (IMAGENET_RGB, VIT),
    "timm": (IMAGENET_RGB, RESNET),
    "torchvision": (IMAGENET_RGB, RESNET),
    "mmdet": (IMAGENET_RGB, RESNET),            # torchvision://resnet50
}  # fmt: skip


def test_every_backbone_option_is_in_the_table():
    assert set(EXPECTED) == set(BACKBONES)


ONE_OF_EACH_KIND = ["r50", "x101_32x8d", "regnetx_4gf", "mvitv2_t", "swin_t", "vitdet_b", "timm"]


# The preset of the generated images, which chooses a backbone itself, must not change the pixels of another.
@pytest.mark.parametrize(
    ("backbone", "choices"),
    [(backbone, "data=shapes preset=quick") for backbone in BACKBONES]
    + [(backbone, "data=coco_instance") for backbone in ONE_OF_EACH_KIND],
)
def test_backbone_option_sets_pixels_and_feature_names(backbone, choices):
    config = hydet.compose(f"backbone={backbone}", *choices.split())
    (input_format, mean, std), names = EXPECTED[backbone]
    assert config.input_format == config.model.input_format == input_format
    assert config.model.pixel_mean == mean
    assert config.model.pixel_std == std
    assert list(config.features.values()) == names


def test_published_configurations_agree_with_their_backbone_option(recipes):
    """One configuration trains a ResNet from random weights on normalized pixels; no other overrides them."""
    different = []
    for recipe in recipes:
        config, published = recipe.config, recipe.facts["model"]
        assert list(config.pixel_std) == published["pixel_std"], recipe.name
        text = (Path(__file__).parents[2] / "conf" / "experiment" / f"{recipe.name}.yaml").read_text(
            encoding="utf-8"
        )
        if "pixel_" in text or "input_format" in text:
            different.append(recipe.name)
    assert different == ["Misc/scratch_mask_rcnn_R_50_FPN_9x_gn"]
