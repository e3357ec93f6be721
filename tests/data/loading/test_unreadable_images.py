import pytest

from hydet.data.loading.unreadable_images import UnreadableImages


def test_each_error_is_reported_once_and_counted_each_time(make_torn_dataset):
    torn = make_torn_dataset()
    unreadable = UnreadableImages(torn, action="skipped", consequence="evaluation skips it")
    with pytest.warns(UserWarning, match="torn; evaluation skips it") as messages:
        unreadable.add(["a.png: torn"])
        unreadable.add(["a.png: torn", "b.png: torn"])
    assert unreadable.count == 3 and len(messages) == 2
    assert torn.report().counts == {("unreadable_image", "skipped"): 2}
