import pytest
import torch

from hydet.modeling.meta_arch.semantic_segmentor import predict_logits


@pytest.mark.parametrize("architecture", ["semantic_fpn"], indirect=True)
def test_visualize_training_draws_true_and_predicted_labels(architecture):
    model, batch = architecture.model().eval(), architecture.batch()
    model.input_format = "RGB"
    batch[0]["sem_seg"][:] = 255  # no true label
    with torch.no_grad():
        logits = predict_logits(model.sem_seg_head, model.backbone(model.preprocess_image(batch).tensor))
    image = model.visualize_training(batch, logits)
    assert image.shape == (3, 64, 2 * 96) and image.dtype == torch.uint8
    assert torch.equal(image[:, :, :96], batch[0]["image"])
    assert not torch.equal(image[:, :, 96:], batch[0]["image"])


def test_head_without_logits_raises():
    with pytest.raises(TypeError, match="no logits"):
        predict_logits(lambda features: (None, {}), {})
