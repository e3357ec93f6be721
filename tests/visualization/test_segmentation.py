import torch

from hydet.visualization import draw_panoptic, draw_semantic

from .conftest import METADATA, changed_pixels


def test_semantic_labels_tint_the_image(gray):
    labels = torch.zeros(80, 120, dtype=torch.int64)
    labels[:, 60:] = 1
    labels[:40, :60] = 255
    drawn = draw_semantic(gray, labels, METADATA, labels=False)
    changed = changed_pixels(drawn, gray)
    assert not changed[:35, :55].any() and changed[45:, :55].all() and changed[:, 65:].all()
    assert changed_pixels(draw_semantic(gray, labels, METADATA), drawn).any(), "class names"
    assert torch.equal(draw_semantic(gray, torch.full((80, 120), 255), METADATA), gray)


def test_semantic_logits_are_reduced_to_labels(gray):
    labels = torch.arange(120).expand(80, 120) % 3
    logits = torch.nn.functional.one_hot(labels, 3).permute(2, 0, 1).float()
    assert torch.equal(draw_semantic(gray, logits), draw_semantic(gray, labels))


def test_panoptic_segments_tint_the_image(gray):
    ids = torch.zeros(80, 120, dtype=torch.int32)
    ids[10:40, 10:40], ids[60:] = 3, 7
    segments = [
        {"id": 3, "category_id": 1, "isthing": True, "score": 0.8},
        {"id": 7, "category_id": 1, "isthing": False, "area": 2400},
        {"id": 9, "category_id": 0, "isthing": True},  # has no pixels
    ]
    changed = changed_pixels(draw_panoptic(gray, ids, segments, METADATA, labels=False), gray)
    assert changed[20, 20] and changed[70].all() and not changed[45:55].any()
    assert draw_panoptic(gray, ids, [], METADATA).equal(gray)
