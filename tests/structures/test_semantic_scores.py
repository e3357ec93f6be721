import pytest
import torch

from hydet.structures import SemanticScores, semantic_labels, semantic_scores


@pytest.mark.parametrize("num_classes", [1, 2, 7])
@pytest.mark.parametrize("at_once", [1, 20 * 33 * 3, 1 << 26])
def test_labels_equal_those_of_all_scores_at_once(monkeypatch, num_classes, at_once):
    monkeypatch.setattr(semantic_scores, "SCORES_AT_ONCE", at_once)
    scores = SemanticScores(torch.randn(num_classes, 6, 9).round(), (20, 33))  # with ties
    resized = scores.resize()
    assert scores.shape == resized.shape == (num_classes, 20, 33)
    assert torch.equal(scores.labels(), resized.argmax(dim=0))
    assert torch.equal(semantic_labels(scores), semantic_labels(resized))


def test_half_precision_is_resized_in_float32():
    scores = SemanticScores(torch.randn(2, 3, 4).bfloat16(), (6, 8)).to("cpu")
    assert scores.resize().dtype == torch.float32
    with pytest.raises(ValueError, match="shape"):
        SemanticScores(torch.zeros(3, 4), (6, 8))


def test_scores_of_the_size_of_the_image_are_not_resized():
    tensor = torch.randn(2, 6, 8)
    resized = SemanticScores(tensor, (6, 8)).resize()
    assert torch.equal(resized, tensor) and resized.data_ptr() == tensor.data_ptr()
