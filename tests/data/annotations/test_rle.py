import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask

from hydet.data.annotations.rle import decode_runs, draw_run_lengths


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (90, 130)])
def test_draw_run_lengths_inverts_coco_encoding(density, shape):
    mask = np.random.default_rng(1).random(shape) < density
    (code,) = coco_mask.encode(np.asfortranarray(mask[:, :, None].astype(np.uint8)))
    drawn = np.zeros(shape, dtype=bool)
    draw_run_lengths(code, drawn)
    np.testing.assert_array_equal(drawn, mask)
    drawn_uncompressed = np.zeros(shape, dtype=bool)
    draw_run_lengths(
        {"size": list(shape), "counts": decode_runs(code["counts"]).tolist()}, drawn_uncompressed
    )
    np.testing.assert_array_equal(drawn_uncompressed, mask)


def test_runs_longer_than_five_characters():
    mask = np.zeros((3000, 4000), dtype=np.uint8, order="F")
    mask[2999, 3999] = 1
    (code,) = coco_mask.encode(mask[:, :, None])
    assert decode_runs(code["counts"]).tolist() == [3000 * 4000 - 1, 1]


def test_draw_run_lengths_adds_to_the_mask():
    mask = np.zeros((2, 3), dtype=bool)
    draw_run_lengths({"size": [2, 3], "counts": [1, 2, 3]}, mask)
    draw_run_lengths({"size": [2, 3], "counts": [2, 2, 2]}, mask)
    assert mask.T.reshape(-1).tolist() == [False, True, True, True, False, False]


@pytest.mark.parametrize("counts", ["~~", "P", b"\x00", "o" * 30 + "1", [5, 2], [7, -1]])
def test_broken_codes_are_refused(counts):
    with pytest.raises(ValueError, match=r"counts|run-length"):
        draw_run_lengths({"size": [2, 3], "counts": counts}, np.zeros((2, 3), dtype=bool))


def test_code_of_another_size_is_refused():
    with pytest.raises(ValueError, match="3 x 2"):
        draw_run_lengths({"size": [3, 2], "counts": [6]}, np.zeros((2, 3), dtype=bool))
