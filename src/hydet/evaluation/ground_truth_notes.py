"""Lines beside a metric about problems of its ground truth."""

from __future__ import annotations

from hydet.data.datasets.report import DataReport
from hydet.distributed import all_gather

__all__ = ["describe_ground_truth", "merged_report"]

# Kinds of problems that are found when an image is read.
_FOUND_IN_IMAGES = ("not_upright", "other_size", "unreadable_image")

# Kinds of problems after which every object is as the file describes it: other spellings of names, ids and numbers.
_SPELLINGS = {
    "category_name",
    "keypoints_without_pairs",
    "nameless_keypoints",
    "other_file_name",
    "other_number_format",
    "renumbered_annotation_id",
    "renumbered_image_id",
    "repeated_category",
    "skeleton_from_0",
    "unused_category",
}


def merged_report(report: DataReport) -> DataReport:
    """Return a report that also has the problems that other processes found while they read their images.

    Every process must call this function. The report of each process stays as it is.
    """
    parts = all_gather((report.source, report.counts, report.problems))
    merged = DataReport(report.source)
    for _, counts, problems in parts:
        for key, number in counts.items():
            # Each process reads the annotation file, but only its share of the images.
            so_far = merged.counts.get(key, 0)
            merged.counts[key] = so_far + number if key[0] in _FOUND_IN_IMAGES else max(so_far, number)
        merged.problems += [problem for problem in problems if problem not in merged.problems]
    return merged


def describe_ground_truth(report: DataReport) -> list[str]:
    """Return lines to print beside the metrics of a dataset: none if its ground truth was used as the file has it.

    The first line says how many problems changed the ground truth; one line per kind of problem follows. Other spellings
    of names, ids and numbers change nothing, so they are left out.
    """
    changes = DataReport(report.source)
    changes.counts.update({key: n for key, n in report.counts.items() if key[0] not in _SPELLINGS})
    changes.problems += [problem for problem in report.problems if problem.kind not in _SPELLINGS]
    if not changes:
        return []
    total = changes.count()
    return [
        f"The metrics are on changed ground truth: {report.source} has {total} "
        f"problem{'s' if total > 1 else ''}, so objects or images may be left out or changed.",
        *[f"  {line}" for line in changes.summary()],
    ]
