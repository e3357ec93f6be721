import numpy as np

from hydet.data.loading.grouping import group_batches, orientation_groups
from hydet.data.loading.workers import ImageRequest


def test_orientation_groups():
    assert orientation_groups(np.array([0.5, 1.0, 1.5])).tolist() == [0, 0, 1]
    for uniform in ([0.5, 1.0], [1.2, 2.0], []):
        assert orientation_groups(np.array(uniform)) is None


def test_batches_hold_one_group_and_keep_the_order_within_it():
    stream = [ImageRequest(index, 10 + index) for index in range(7)]
    groups = np.array([0, 1, 0, 1, 0, 1, 0])
    batches = list(group_batches(stream, 2, groups))
    assert [[index for index, _ in batch] for batch in batches] == [[0, 2], [1, 3], [4, 6]]
    assert batches[0][1].seed == 12
    plain = list(group_batches(stream, 3, None))
    assert [[index for index, _ in batch] for batch in plain] == [[0, 1, 2], [3, 4, 5]]
