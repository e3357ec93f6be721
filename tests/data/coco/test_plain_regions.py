import math
from pathlib import Path

import numpy as np
import pytest

from hydet.data.coco.ids import IdTable
from hydet.data.coco.json_file import ImageEntry
from hydet.data.coco.plain_regions import find_plain_regions
from hydet.data.coco.problems import ProblemHandler
from hydet.data.coco.regions import read_region
from hydet.data.datasets.report import DataReport

IMAGE = ImageEntry(7, "a.png", height=30, width=40, federated={})
SQUARE = [4, 5, 14.5, 5, 14.5, 13, 4, 13]


def find(*segmentations, image_id=7):
    entries = [{"image_id": image_id, "segmentation": s} for s in segmentations]
    return find_plain_regions(entries, [IMAGE], IdTable([7]))


def test_polygons_without_faults_are_found():
    triangle = [20, 20, 30, 20, 20, 29]
    regions = find([SQUARE], [triangle, SQUARE], None, [[1, 1, 1.5, 1, 1, 1.5], SQUARE])
    assert sorted(regions) == [0, 1, 3]
    assert [p.tolist() for p in regions[1].polygons] == [triangle, SQUARE]
    assert regions[0].code == b"" and regions[0].polygons[0].dtype == np.float64


@pytest.mark.parametrize(
    "segmentation",
    [
        [], [[]], None, "x", {"size": [30, 40], "counts": [1200]}, SQUARE, [SQUARE[:4]], [SQUARE[:7]], [SQUARE, [1, 2]],
        [[*SQUARE[:7], "13"]], [[*SQUARE[:7], True]], [[*SQUARE[:7], None]], [[*SQUARE[:7], math.nan]],
        [[*SQUARE[:7], math.inf]], [[*SQUARE[:7], 1e300]], [[*SQUARE[:7], 10**400]], [[*SQUARE[:7], 401]],
        [[*SQUARE[:7], -401]], [[2, 2, 3, 2, 3, 3]], [[-1, 2, 9, 2, 9, 9]], [[9, 9, 41, 9, 20, 20]], [(2, 2, 9, 2, 9, 9)],
        [[2, 2, 38, 2, 38, 3, 2, 3]],
    ],
)  # fmt: skip
def test_all_others_are_left_to_single_checks(segmentation):
    assert 0 not in find(segmentation, [SQUARE])


def test_annotations_without_an_image():
    assert find([SQUARE], image_id=8) == {} and find([SQUARE], image_id=None) == {}
    assert find_plain_regions([3, None, [SQUARE], {}], [IMAGE], IdTable([7])) == {}


def test_regions_are_those_of_single_checks():
    rng = np.random.default_rng(0)
    segmentations = []
    for scale in (3, 5, 8, 500):
        for _ in range(40):
            lengths = rng.integers(2, 7, size=rng.integers(1, 4))
            segmentations.append([(rng.normal(15, scale, size=2 * n)).round(2).tolist() for n in lengths])
    plain = find(*segmentations)
    assert 20 < len(plain) < 120
    report = DataReport("a.json")
    problems = ProblemHandler(Path("a.json"), policy="drop", report=report)
    for position, region in plain.items():
        expected = read_region(segmentations[position], "a.png", IMAGE, problems)
        assert [p.tolist() for p in region.polygons] == [p.tolist() for p in expected.polygons]
        assert expected.polygons
    assert not report
