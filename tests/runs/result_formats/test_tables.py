import sys

import pytest
import torch

from hydet.structures import RotatedBoxes

pandas = pytest.importorskip("pandas")


def test_one_row_per_object(make_result):
    table = make_result().to_pandas()
    assert list(table.columns) == ["image", "class_id", "class_name", "score", "x1", "y1", "x2", "y2"]
    assert table["class_name"].tolist() == ["dog", "cat"]
    assert table.loc[0, ["x1", "y1", "x2", "y2"]].tolist() == [10, 5, 30, 25]
    rotated = make_result(pred_boxes=RotatedBoxes(torch.ones(2, 5))).to_pandas()
    assert list(rotated.columns[4:]) == ["cx", "cy", "w", "h", "angle"]


def test_without_pandas_the_error_names_the_extra(make_result, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'hydet\[pandas\]'"):
        make_result().to_pandas()
