from hydet.evaluation.ap_tables import class_table, summary_table


def test_the_summary_has_a_row_per_task_and_a_dash_for_missing_metrics():
    table = summary_table({"box/AP": 0.5, "mask/AP": 0.25}, ["box", "mask"], 3, columns=("AP", "AR"))
    assert str(table.title) == "Average precision in %, 3 images"
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    assert cells == [["box", "mask"], ["50.0", "25.0"], ["-", "-"]]


def test_the_class_table_has_a_row_per_class():
    table = class_table(["cat", "dog"], {"box": [0.1, 0.2], "mask": [0.3, 0.4]}, [5, 6])
    assert table.columns == ["class", "objects", "box", "mask"]
    assert table.rows == [["cat", "5", "10.0", "30.0"], ["dog", "6", "20.0", "40.0"]]
