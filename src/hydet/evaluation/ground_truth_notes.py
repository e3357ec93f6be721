"""Lines beside a metric about problems of its ground truth."""

from __future__ import annotations

from hydet.data.datasets.report import DataReport
from hydet.distributed import all_gather

__all__ = ["describe_ground_truth", "merged_report"]

# Kinds of problems that are found when an image is read.
_FOUND_IN_IMAGES = ("not_upright", "other_size", "unreadable_image")


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

    The first line says how many problems changed the ground truth; one line per kind of problem follows.
    """
    if not report:
        return []
    total = report.count()
    return [
        f"The metrics are on changed ground truth: {report.source} has {total} "
        f"problem{'s' if total > 1 else ''}, so objects or images may be left out or changed.",
        *[f"  {line}" for line in report.summary()],
    ]
