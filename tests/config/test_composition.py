"""``hydet.compose``."""

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import hydet


def test_compose_leaves_no_hydra_state():
    hydet.compose("model=mask_rcnn_fpn")
    assert not GlobalHydra.instance().is_initialized()


def test_compose_inside_a_running_hydra_keeps_it():
    from hydra import initialize_config_module

    with initialize_config_module("hydet.conf", version_base="1.3"):
        inner = GlobalHydra.instance().hydra
        hydet.compose("model=mask_rcnn_fpn")
        assert GlobalHydra.instance().hydra is inner


def test_one_override_reaches_one_argument():
    for plus in ("", "+"):  # the YAML leaves this argument at its default
        cfg = hydet.compose(
            "model=mask_rcnn_fpn", f"{plus}model.roi_heads.box_predictor.box_reg_loss_type=giou"
        )
        assert cfg.model.roi_heads.box_predictor.box_reg_loss_type == "giou"


def test_backbone_is_chosen_by_its_short_key():
    assert hydet.compose("backbone=r101").backbone.depth == 101


def test_mask_model_is_the_box_model_with_a_mask_head():
    box = OmegaConf.to_container(hydet.compose("model=faster_rcnn_fpn").model)
    mask = OmegaConf.to_container(hydet.compose("model=mask_rcnn_fpn").model)
    for key in ("mask_in_features", "mask_pooler", "mask_head"):
        del mask["roi_heads"][key]
    assert mask == box


def test_generated_images_select_slim_heads_and_files_the_published_heads():
    assert (
        hydet.compose("data=shapes").size.pyramid_channels
        < hydet.compose("data=coco_instance").size.pyramid_channels
    )
    assert hydet.compose("data=shapes", "size=standard").size.pyramid_channels == 256


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=0.1", r"unknown key 'optimizer.lrr'.*nearest: 'lr'"),
        ("optimizr.lr=0.1", r"unknown key 'optimizr.lr'.*nearest: 'optimizer'"),
        ("backbone=r51", r"backbone=r51: there is no such option; nearest: 'r5?[0-9]+'"),
        ("model=mask_rcnn", r"model=mask_rcnn: there is no such option; nearest: 'mask_rcnn_\w+'"),
        ("bakcbone=r50", r"bakcbone"),
        (
            "model.roi_heads.box_pooler.output_sze=5",
            r"no 'output_sze' in 'model.roi_heads.box_pooler'; nearest: 'output_size'",
        ),
        ("optimizer.lr=[", r"."),
        (
            "model.roi_heads.box_predictor.smoth_l1_beta=1",
            r"no 'smoth_l1_beta' in 'model.roi_heads.box_predictor'; nearest: 'smooth_l1_beta'",
        ),
    ],
)
def test_an_unknown_override_names_the_nearest_known_one(override, message):
    with pytest.raises(hydet.ConfigError, match=message) as error:
        hydet.compose(override)
    assert "\n" not in str(error.value)


def test_config_dir_adds_a_users_tree(tmp_path):
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mine.yaml").write_text("_target_: torch.nn.Identity\n", encoding="utf-8")
    assert hydet.compose("backbone=mine", config_dir=tmp_path).backbone == {"_target_": "torch.nn.Identity"}


def test_a_missing_config_dir_is_named(tmp_path):
    with pytest.raises(hydet.ConfigError, match="nowhere"):
        hydet.compose(config_dir=tmp_path / "nowhere")


def test_a_group_that_only_other_configs_have_is_explained(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "whole.yaml").write_text("_target_: torch.nn.Identity\n", encoding="utf-8")
    for override, origin in (("data=shapes", "preset/quick chooses"), ("backbone=r50", "there is")):
        with pytest.raises(hydet.ConfigError, match=f"^{origin} an option of the group 'backbone'.*: null'$"):
            hydet.compose(
                "model=whole",
                "data=coco_instance" if "backbone" in override else override,
                override,
                config_dir=tmp_path,
            )
    (tmp_path / "model" / "whole.yaml").write_text(
        "defaults: [{/backbone@_global_.backbone: null}]\n_target_: torch.nn.Identity\n", encoding="utf-8"
    )
    assert hydet.compose("model=whole", config_dir=tmp_path).model == {"_target_": "torch.nn.Identity"}


def test_a_group_of_another_name_is_named():
    with pytest.raises(
        hydet.ConfigError,
        match=r"no group 'model/roi_heads/box_head'.*box_head@model.roi_heads.box_heads.make$",
    ):
        hydet.compose("model=cascade_rcnn_fpn", "model/roi_heads/box_head=conv_fc")


HEADS = {
    "faster_rcnn_fpn": [
        "model/roi_heads/box_head",
        "model/roi_heads/box_predictor",
        "model/proposal_generator/head",
    ],
    "mask_rcnn_fpn": ["model/roi_heads/mask_head"],
    "mask_rcnn_c4": ["model/roi_heads/mask_head"],
    "keypoint_rcnn_fpn": ["model/roi_heads/keypoint_head"],
    "cascade_rcnn_fpn": ["model/roi_heads/box_head@model.roi_heads.box_heads.make"],
    "retinanet": ["model/head"],
}


@pytest.mark.parametrize("model", HEADS)
def test_a_users_head_replaces_one_of_hydet_with_other_arguments(model, tmp_path):
    for group in HEADS[model]:
        file = tmp_path / group.split("@")[0] / "mine.yaml"
        file.parent.mkdir(parents=True)
        file.write_text("_target_: mine.Head\nwidth: 3\n", encoding="utf-8")
    cfg = hydet.compose(f"model={model}", *(f"{g}=mine" for g in HEADS[model]), config_dir=tmp_path)
    for group in HEADS[model]:
        path = group.split("@")[-1].replace("/", ".")
        head = OmegaConf.to_container(OmegaConf.select(cfg, path))
        assert {k: v for k, v in head.items() if k != "_partial_"} == {"_target_": "mine.Head", "width": 3}
