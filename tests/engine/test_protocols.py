"""Parts of hydet implement the interfaces that the trainer checks with ``isinstance``."""

import pytest
import torch
from torch import nn

import hydet
from hydet.data import InputMapper, Metadata, ShapesDataset, build_train_loader
from hydet.engine.protocols import (
    Closeable,
    DeclaresInputFormat,
    KeepsTrainingState,
    MetadataLike,
    StatefulLoader,
)


@pytest.fixture(scope="module")
def loader():
    mapper = InputMapper(transforms=[], training=True)
    return build_train_loader(
        ShapesDataset(num_images=4, image_size=(64, 64)), mapper, batch_size=2, num_workers=0, seed=0
    )


def test_the_training_loader_has_a_position_and_can_be_closed(loader):
    assert isinstance(loader, StatefulLoader)
    assert not isinstance([[]], StatefulLoader)
    batches = iter(loader)
    assert isinstance(batches, Closeable)
    batches.close()


@pytest.mark.parametrize("model", ["mask_rcnn_fpn", "retinanet", "fcos", "semantic_fpn", "rpn_fpn"])
def test_models_declare_their_channel_order(model):
    with torch.device("meta"):
        built = hydet.instantiate(hydet.compose(f"model={model}").model)
    assert isinstance(built, DeclaresInputFormat) and built.input_format in ("RGB", "BGR")
    assert not isinstance(nn.Identity(), DeclaresInputFormat)


@pytest.mark.parametrize("model", ["retinanet", "fcos"])
def test_a_running_normalizer_is_training_state(model):
    with torch.device("meta"):
        built = hydet.instantiate(hydet.compose(f"model={model}").model)
    assert any(isinstance(module, KeepsTrainingState) for module in built.modules())


def test_metadata_can_be_stored():
    assert isinstance(Metadata(), MetadataLike)
    assert not isinstance({}, MetadataLike)
