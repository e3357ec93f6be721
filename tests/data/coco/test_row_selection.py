import numpy as np
import pytest

from hydet.data.coco.flat_storage import Annotation, FlatAnnotations
from hydet.data.coco.row_selection import has_region, select_rows


def make_annotation(number, image_index, polygons=(), code=b""):
    return Annotation(
        annotation_id=number,
        image_index=image_index,
        class_index=number % 3,
        box=(number, 2, 3, 4),
        area=12.0,
        iscrowd=number % 2 == 0,
        ignore=False,
        polygons=[np.arange(6.0) + p for p in polygons],
        code=code,
        keypoints=[number, 1, 2],
        rotated_box=(number, 2, 3, 4, 5),
    )


ANNOTATIONS = [
    make_annotation(1, 0, polygons=[10, 20]),
    make_annotation(2, 0),
    make_annotation(3, 2, code=b"PPP"),
    make_annotation(4, 2, polygons=[30]),
    make_annotation(5, 2, code=b"Q"),
]


@pytest.mark.parametrize("keep", [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0], [0] * 5, [1] * 5])
def test_selection_equals_flattening_of_the_selected(keep):
    keep = np.array(keep, dtype=bool)
    options = {"num_images": 4, "num_keypoints": 1}
    selected = select_rows(FlatAnnotations.of(ANNOTATIONS, **options), keep)
    expected = FlatAnnotations.of(
        [a for a, selected_row in zip(ANNOTATIONS, keep) if selected_row], **options
    )
    for name in ("image_range", "ids", "classes", "boxes", "areas", "iscrowd", "polygon_range", "coordinate_range", "coordinates", "keypoints"):  # fmt: skip
        np.testing.assert_array_equal(getattr(selected, name), getattr(expected, name), err_msg=name)
    assert [selected.codes[i] for i in range(keep.sum())] == [expected.codes[i] for i in range(keep.sum())]
    assert selected.rotated_boxes.shape == (keep.sum(), 5)


def test_has_region():
    annotations = FlatAnnotations.of(ANNOTATIONS, num_images=4, num_keypoints=1)
    assert has_region(annotations).tolist() == [True, False, True, True, True]
