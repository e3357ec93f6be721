import numpy as np

from hydet.data.coco.flat_storage import Annotation, FlatAnnotations, FlatImages, FlatIntegers, FlatStrings
from hydet.data.coco.json_file import ImageEntry


def make_annotation(annotation_id, image_index, **changes):
    annotation = Annotation(
        annotation_id=annotation_id,
        image_index=image_index,
        class_index=annotation_id % 3,
        box=(1.0, 2.0, 3.0, 4.0),
        area=12.0,
        iscrowd=False,
        ignore=False,
        polygons=[],
        code=b"",
        keypoints=None,
        rotated_box=None,
    )
    return annotation._replace(**changes)


def test_strings_and_integers_round_trip():
    strings, lists = [b"a", b"", "ü".encode(), b"xyz"], [[1, 2], [], [2**40]]
    flat = FlatStrings.of(strings)
    assert [flat[i] for i in range(len(flat))] == strings
    assert [FlatIntegers.of(lists)[i] for i in range(3)] == lists
    assert len(FlatStrings.of([])) == 0


def test_images_round_trip():
    entries = [ImageEntry(7, "a/ü.png", 30, 40, {"neg_category_ids": [3]}), ImageEntry(2, "b.png", 5, 6, {})]
    images = FlatImages.of(entries)
    assert len(images) == 2 and images.ids.tolist() == [7, 2]
    assert [images.name(i) for i in range(2)] == ["a/ü.png", "b.png"]
    assert images.size(0) == (30, 40)
    assert {key: [lists[i] for i in range(2)] for key, lists in images.federated.items()} == {
        "neg_category_ids": [[3], []]
    }


def test_annotations_are_sorted_by_image_and_keep_their_order():
    pairs = [(1, 2), (2, 0), (3, 2), (4, 0)]  # (annotation_id, image_index)
    flat = FlatAnnotations.of([make_annotation(*p) for p in pairs], num_images=4, num_keypoints=None)
    assert flat.ids.tolist() == [2, 4, 1, 3]
    assert [list(flat.of_image(i)) for i in range(4)] == [[0, 1], [], [2, 3], []]
    assert flat.sum_over_images(np.ones(4)).tolist() == [2, 0, 2, 0]
    assert flat.keypoints is None and flat.rotated_boxes is None and not flat.has_regions()


def test_segments_keypoints_and_rotated_boxes():
    polygons = [np.arange(6.0), np.arange(8.0)]
    annotations = [
        make_annotation(1, 0, polygons=polygons, keypoints=[1, 2, 2]),
        make_annotation(2, 0, code=b"abc", rotated_box=(1, 2, 3, 4, 30)),
        make_annotation(3, 1),
    ]
    flat = FlatAnnotations.of(annotations, num_images=2, num_keypoints=1)
    assert flat.has_regions()
    for actual, expected in zip(flat.segment(0, (5, 6)), polygons, strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert flat.segment(1, (5, 6)) == {"size": [5, 6], "counts": b"abc"}
    assert flat.segment(2, (5, 6)) is None
    assert flat.keypoints.tolist() == [[[1, 2, 2]], [[0, 0, 0]], [[0, 0, 0]]]
    assert flat.rotated_boxes.tolist() == [[2.5, 4, 3, 4, 0], [1, 2, 3, 4, 30], [2.5, 4, 3, 4, 0]]


def test_no_annotations():
    flat = FlatAnnotations.of([], num_images=2, num_keypoints=3)
    assert flat.boxes.shape == (0, 4) and flat.keypoints.shape == (0, 3, 3)
    assert [list(flat.of_image(i)) for i in range(2)] == [[], []]
