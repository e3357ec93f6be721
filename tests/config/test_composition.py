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
    cfg = hydet.compose("model=mask_rcnn_fpn", "+model.roi_heads.box_predictor.box_reg_loss_type=giou")
    assert cfg.model.roi_heads.box_predictor.box_reg_loss_type == "giou"


def test_backbone_is_chosen_by_its_short_key():
    assert hydet.compose("backbone=r101").backbone.depth == 101


def test_mask_model_is_the_box_model_with_a_mask_head():
    box = OmegaConf.to_container(hydet.compose("model=faster_rcnn_fpn").model)
    mask = OmegaConf.to_container(hydet.compose("model=mask_rcnn_fpn").model)
    for key in ("mask_in_features", "mask_pooler", "mask_head"):
        del mask["roi_heads"][key]
    assert mask == box


def test_generated_pictures_come_with_slim_heads_and_files_with_the_published_ones():
    assert (
        hydet.compose("data=shapes").size.pyramid_channels
        < hydet.compose("data=coco_instance").size.pyramid_channels
    )
    assert hydet.compose("data=shapes", "size=standard").size.pyramid_channels == 256


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=0.1", r"unknown key 'optimizer.lrr'.*nearest: 'lr'"),
        ("optimiser.lr=0.1", r"unknown key 'optimiser.lr'.*nearest: 'optimizer'"),
        ("backbone=r51", r"backbone=r51: there is no such option; nearest: 'r5?[0-9]+'"),
        ("model=mask_rcnn", r"model=mask_rcnn: there is no such option; nearest: 'mask_rcnn_\w+'"),
        ("bakcbone=r50", r"bakcbone"),
        (
            "model.roi_heads.box_pooler.output_sze=5",
            r"no 'output_sze' in 'model.roi_heads.box_pooler'; nearest: 'output_size'",
        ),
        ("optimizer.lr=[", r"."),
    ],
)
def test_wrong_override_names_the_nearest_right_one(override, message):
    with pytest.raises(hydet.ConfigError, match=message) as error:
        hydet.compose(override)
    assert "\n" not in str(error.value)


def test_config_dir_joins_a_users_own_tree(tmp_path):
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mine.yaml").write_text("_target_: torch.nn.Identity\n")
    assert hydet.compose("backbone=mine", config_dir=tmp_path).backbone == {"_target_": "torch.nn.Identity"}


def test_config_dir_that_is_not_there_is_named(tmp_path):
    with pytest.raises(hydet.ConfigError, match="nowhere"):
        hydet.compose(config_dir=tmp_path / "nowhere")
