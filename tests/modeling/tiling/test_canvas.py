import pytest
import torch

from hydet.modeling.tiling.canvas import SemanticCanvas
from hydet.modeling.tiling.grid import Tile, make_tiles
from hydet.structures import SemanticScores


def smooth_logits(height, width):
    y, x = torch.meshgrid(torch.arange(height) / 20, torch.arange(width) / 30, indexing="ij")
    return torch.stack([x.sin(), y.cos(), (x + y).sin()]) * 3


def test_tiles_of_one_map_give_the_map():
    logits = smooth_logits(70, 110)
    canvas = SemanticCanvas((70, 110))
    for x1, y1, x2, y2 in make_tiles((70, 110), 40, 0.3):
        canvas.add(logits[:, y1:y2, x1:x2], Tile(x1, y1, x2, y2))
    scores = canvas.scores()
    assert scores.shape == (3, 70, 110)
    torch.testing.assert_close(scores.tensor.exp(), logits.softmax(0), atol=1e-4, rtol=1e-4)


def test_a_small_canvas_keeps_the_labels():
    logits = smooth_logits(200, 300)
    canvas = SemanticCanvas((200, 300), max_scores=3 * 50 * 75)
    for x1, y1, x2, y2 in make_tiles((200, 300), 120, 0.2):
        small = SemanticScores(logits[:, y1:y2:4, x1:x2:4], (y2 - y1, x2 - x1))
        canvas.add(small, Tile(x1, y1, x2, y2))
    scores = canvas.scores()
    assert scores.tensor.shape == (3, 50, 75) and scores.image_size == (200, 300)
    assert (scores.labels() == logits.argmax(0)).float().mean() > 0.95


def test_where_tiles_disagree_the_nearer_center_decides():
    canvas = SemanticCanvas((10, 30))
    for tile, label in ((Tile(0, 0, 20, 10), 0), (Tile(10, 0, 30, 10), 1)):
        logits = torch.zeros(2, 10, 20)
        logits[label] = 5
        canvas.add(logits, tile)
    labels = canvas.scores().labels()
    assert labels[0].tolist() == pytest.approx([0] * 15 + [1] * 15)
